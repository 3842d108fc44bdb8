"""The command line of pictures: files in, one file out, sentences on a problem."""

import json
import sys

import numpy as np
import pytest
from io_helpers import moving_frames, square_mask, write_folder, write_mask_image, write_video
from PIL import Image

from rdejax.visualize.__main__ import main
from rdejax.visualize.picture_files import choose_frames, describe_numbers, save_image

SIZE = (48, 64)
RUN = {
    "memory": "rde",
    "frame": [1, 2],
    "ms_per_frame": [1.0, 2.0],
    "state_bytes": [10, 10],
    "stages": {"encode": 0.1, "read": 0.1, "decode": 0.1, "memorise": 0.1},
}


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """A video, two results and the truth, and a benchmark's file."""
    folder = tmp_path_factory.mktemp("clip")
    write_video(folder / "clip.mp4", moving_frames(6, SIZE))
    write_folder(folder / "video", moving_frames(6, SIZE))
    for index in range(6):
        for name, shift in (("one/masks", 1), ("two", 9), ("truth", 0)):
            mask = np.roll(square_mask(SIZE, ids=(3,)), index + shift, axis=1)
            write_mask_image(folder / name / f"{index:05d}.png", mask)
    (folder / "truth" / "00002.png").unlink()
    (folder / "runs.json").write_text(json.dumps({"runs": [RUN]}))
    (folder / "other.json").write_text("{}")
    (folder / "broken.json").write_text("{")
    (folder / "empty").mkdir()
    return folder


def run(clip, line):
    main([str(clip / word[1:]) if word.startswith("@") else word for word in line.split()])


@pytest.mark.parametrize(
    ("line", "size"),
    [
        ("overlay @clip.mp4 --masks @one --frame 3", (64, 48)),
        ("overlay @video --masks @one/masks --width 32", (32, 24)),
        ("sheet @clip.mp4 --masks @one --count 5 --columns 3 --width 64", (3 * 64 + 10, None)),
        ("sheet @video --masks @two --frames 5 0 --width 64", (2 * 64 + 5, None)),
        ("strip @clip.mp4 --results @one @two --truth @truth --frames 0 5 --width 64", None),
        ("strip @clip.mp4 --results @one @two --names a b --count 2 --width 64", None),
        ("times @runs.json", None),
        ("growth @runs.json @runs.json --log", None),
    ],
)
def test_commands_write_one_picture(clip, line, size, capsys):
    run(clip, line + " --output @new/out.png")
    assert "wrote" in capsys.readouterr().out
    assert [file.name for file in (clip / "new").iterdir()] == ["out.png"]
    with Image.open(clip / "new" / "out.png") as image:
        image.load()
        assert size is None or image.size == (size[0], size[1] or image.size[1])


@pytest.mark.parametrize("suffix", [".pdf", ".svg"])
def test_charts_in_vectors_are_the_same_every_time(clip, suffix):
    run(clip, f"times @runs.json --output @chart{suffix}")
    first = (clip / f"chart{suffix}").read_bytes()
    assert first.startswith(b"%PDF" if suffix == ".pdf" else b"<?xml")
    if suffix == ".pdf":
        run(clip, f"times @runs.json --output @chart{suffix}")
        assert (clip / f"chart{suffix}").read_bytes() == first


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("overlay @none.mp4 --masks @one", "none.mp4: no such file or folder"),
        ("overlay @clip.mp4 --masks @none", "none: no such folder"),
        ("overlay @clip.mp4 --masks @empty", "empty: no masks"),
        ("overlay @clip.mp4 --masks @one --frame 6", "frame 6 is not among"),
        ("overlay @clip.mp4 --masks @one --frame -1", "--frame -1: give a number of 0 or more"),
        ("overlay @clip.mp4 --masks @one --alpha 2", "alpha=2.0: give an opacity"),
        ("overlay @clip.mp4 --masks @truth --frame 2", "00002.png: no such mask"),
        ("sheet @clip.mp4 --masks @one --columns 0", "columns=0"),
        ("sheet @clip.mp4 --masks @one --count 0", "count=0"),
        ("sheet @clip.mp4 --masks @one --width 1", "width=1"),
        ("sheet @clip.mp4 --masks @one --frames 0 99", "frame 99 is not among"),
        ("strip @clip.mp4 --results @one", "nothing to compare"),
        ("strip @clip.mp4 --results @one @one/masks --names a", "1 --names for 2 --results"),
        ("strip @clip.mp4 --results @one @one", "give each a different name"),
        ("strip @clip.mp4 --results @truth --truth @one", 'none of them "truth"'),
        (
            "strip @clip.mp4 --results @one @two --boxes -1",
            "--boxes -1: give a number of 0 or more",
        ),
        ("times @none.json", "none.json: no such file"),
        ("times @other.json", 'other.json: holds no list "runs"'),
        ("times @broken.json", "broken.json: not a JSON object"),
        ("times @empty", "empty: this is a folder"),
        ("times @runs.json --labels a b", "2 --labels for 1 runs"),
    ],
)
def test_bad_input_ends_in_one_sentence(clip, line, message, capsys):
    with pytest.raises(SystemExit) as caught:
        run(clip, line + " --output @bad.png")
    assert caught.value.code == 2
    error = capsys.readouterr().err.strip()
    assert message in error and "\n" not in error and error.startswith("error: ")
    assert not (clip / "bad.png").exists()


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (
            "times @runs.json --output @out.jpg",
            "unknown kind of picture .jpg; end the name in .png",
        ),
        ("growth @runs.json --output @out", "unknown kind of picture (no suffix)"),
        ("overlay @clip.mp4 --masks @one --output @out.gif", "unknown kind of picture .gif"),
        ("pca @clip.mp4 --mask @one --output @out.pdf", "unknown kind of picture .pdf"),
    ],
)
def test_unknown_suffixes_are_refused_first(clip, line, message, capsys):
    with pytest.raises(SystemExit) as caught:
        run(clip, line)
    assert caught.value.code == 2 and message in capsys.readouterr().err


def test_without_matplotlib_charts_say_what_to_install(clip, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(SystemExit):
        run(clip, "times @runs.json --output @none.png")
    assert "pip install 'rdejax[viz]'" in capsys.readouterr().err


def test_frames_are_evenly_spaced_or_as_asked():
    assert choose_frames(range(60), (), 4) == [0, 20, 39, 59]
    assert choose_frames([0, 5, 10], (), 9) == [0, 5, 10]
    assert choose_frames([0, 5, 10], (10, 0), 9) == [10, 0]
    assert choose_frames(range(7), (), 1) == [0]
    assert describe_numbers([0, 5, 10]) == "0 to 10 in steps of 5"
    assert describe_numbers([0, 1, 2]) == "0 to 2" and describe_numbers([4]) == "4 to 4"


def test_interrupted_writing_leaves_the_old_picture(tmp_path, monkeypatch):
    save_image(tmp_path / "a.png", np.zeros((4, 4, 3), np.uint8))
    before = (tmp_path / "a.png").read_bytes()

    def fail(self, path, **_):
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", fail)
    with pytest.raises(OSError, match="No space"):
        save_image(tmp_path / "a.png", np.ones((4, 4, 3), np.uint8))
    assert (tmp_path / "a.png").read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["a.png"]
