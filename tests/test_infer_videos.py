"""Several videos, masks in the middle of one, and later masks that correct."""

import itertools
import json
import re
import shutil

import numpy as np
import pytest
from io_helpers import (
    FakeStream,
    fake_api,
    moving_frames,
    read_ids,
    square_mask,
    write_folder,
    write_mask_image,
    write_video,
)

import rdejax
from rdejax.folders import locked
from rdejax.infer import backward
from rdejax.infer.__main__ import main
from rdejax.infer.backward import BackwardFrames
from rdejax.io.video import open_frames

COUNT = 8


@pytest.fixture
def loaded(monkeypatch):
    return fake_api(monkeypatch)


def run(*arguments):
    main([str(argument) for argument in arguments])


def fails(capsys, *arguments):
    with pytest.raises(SystemExit) as caught:
        run(*arguments)
    assert caught.value.code == 2
    return capsys.readouterr().err.strip().splitlines()[-1]


def masks_in(folder):
    return np.stack([read_ids(path) for path in sorted((folder / "masks").glob("*.png"))])


def summary(folder):
    return json.loads((folder / "summary.json").read_text())


@pytest.fixture
def middle(tmp_path):
    """A video of 8 frames, and a mask of its frame 4."""
    write_video(tmp_path / "clip.mp4", moving_frames(COUNT))
    write_mask_image(tmp_path / "masks" / "00004.png", square_mask())
    return tmp_path


def expected(mask, direction):
    """What `FakeStream` makes of it: a shift by one for every frame of the pass."""
    out = [np.roll(mask, abs(t - 4), axis=1) for t in range(COUNT)]
    if direction != "both":
        outside = range(4) if direction == "forward" else range(5, COUNT)
        for t in outside:
            out[t] = np.zeros_like(mask)
    return np.stack(out)


@pytest.mark.parametrize("direction", ["forward", "backward", "both"])
def test_directions_over_a_file(middle, loaded, capsys, direction):
    out = middle / "out"
    arguments = [middle / "clip.mp4", "--mask", middle / "masks", "--output", out]
    run(*arguments, "--direction", direction)
    np.testing.assert_array_equal(masks_in(out), expected(square_mask(), direction))
    about = summary(out)
    assert about["frames"] == COUNT and not (out / "unfinished").exists()
    assert about.get("direction", "forward") == direction
    assert about.get("backward_frames") == (None if direction == "forward" else 5)
    assert len(list(open_frames(out / "overlay.mp4"))) == COUNT
    said = capsys.readouterr().err
    assert ("stay empty; pass --direction both" in said) == (direction != "both")
    run(*arguments, "--direction", direction)
    assert "is whole already" in capsys.readouterr().out
    other = "both" if direction != "both" else "forward"
    assert "direction" in fails(capsys, *arguments, "--direction", other)


def test_directions_over_a_folder_with_a_single_mask_named_like_its_frame(tmp_path, loaded):
    write_folder(tmp_path / "frames", moving_frames(COUNT))
    mask = write_mask_image(tmp_path / "4.png", square_mask())
    run(tmp_path / "frames", "--mask", mask, "--output", tmp_path / "o", "--direction", "both")
    np.testing.assert_array_equal(masks_in(tmp_path / "o"), expected(square_mask(), "both"))


def test_an_object_goes_back_from_its_first_mask_and_hides_nothing_found_forward(tmp_path, loaded):
    write_folder(tmp_path / "frames", moving_frames(COUNT))
    write_mask_image(tmp_path / "masks" / "00000.png", square_mask())
    later = np.zeros((36, 52), np.uint8)
    later[5:20, 10:40] = 2
    write_mask_image(tmp_path / "masks" / "00003.png", later)
    run(tmp_path / "frames", "--mask", tmp_path / "masks", "--output", tmp_path / "o",
        "--direction", "both")  # fmt: skip
    masks = masks_in(tmp_path / "o")
    for t in range(3):
        first, second = np.roll(square_mask(), t, axis=1), np.roll(later, 3 - t, axis=1)
        np.testing.assert_array_equal(masks[t], np.where(first > 0, first, second))
    assert summary(tmp_path / "o")["first_frames"] == {"1": "00000", "2": "00003"}


@pytest.mark.parametrize("fails_in", ["backward", "forward"])
def test_an_interrupted_pass_is_gone_on_with(middle, loaded, monkeypatch, fails_in):
    arguments = [middle / "clip.mp4", "--mask", middle / "masks", "--output", middle / "out"]
    arguments += ["--direction", "both", "--quiet"]
    made = []

    def stream(model, **_):
        failing = fails_in == ("backward" if not made else "forward")
        made.append(FakeStream(2 if failing else None, KeyboardInterrupt()))
        return made[-1]

    monkeypatch.setattr(rdejax, "stream", stream)
    with pytest.raises(SystemExit):
        run(*arguments)
    assert not (middle / "out" / "summary.json").exists()
    assert len(made) == (1 if fails_in == "backward" else 2)
    again = []
    monkeypatch.setattr(
        rdejax, "stream", lambda model, **_: again.append(FakeStream()) or again[-1]
    )
    run(*arguments)
    # A whole backward pass is not made a second time.
    assert len(again) == (2 if fails_in == "backward" else 1)
    np.testing.assert_array_equal(masks_in(middle / "out"), expected(square_mask(), "both"))
    assert not (middle / "out" / "unfinished").exists()


@pytest.mark.parametrize("held", [1, 3, 100])
def test_frames_backward_are_the_frames(tmp_path, monkeypatch, held):
    frames = moving_frames(COUNT)
    source = open_frames(write_video(tmp_path / "clip.mp4", frames))
    monkeypatch.setattr(backward, "_BYTES", held * frames[0].size)
    for last, start in itertools.product((0, 5, COUNT - 1), (0, 2)):
        wanted = list(source)[last::-1][start:]
        got = list(BackwardFrames(source, last).frames(start))
        assert [name for name, _ in got] == [name for name, _ in wanted]
        for (_, a), (_, b) in zip(got, wanted, strict=True):
            np.testing.assert_array_equal(a, b)


def test_all_masks_are_told_to_the_stream(middle, loaded, monkeypatch, capsys):
    write_mask_image(middle / "masks" / "00006.png", square_mask())
    arguments = [middle / "clip.mp4", "--mask", middle / "masks"]
    run(*arguments, "--output", middle / "one")
    assert "1 of 2 masks hold objects that began with another one" in capsys.readouterr().err
    options = []
    fake = rdejax.stream
    monkeypatch.setattr(rdejax, "stream", lambda model, **o: options.append(o) or fake(model, **o))
    run(*arguments, "--output", middle / "all", "--use-all-masks")
    assert options[0]["use_all_masks"] and "masks hold objects" not in capsys.readouterr().err
    masks = masks_in(middle / "all")
    np.testing.assert_array_equal(
        masks[6], np.where(square_mask() > 0, 1, masks_in(middle / "one")[6])
    )
    assert summary(middle / "all")["run"]["use_all_masks"] is True
    assert "use_all_masks" in fails(capsys, *arguments, "--output", middle / "all")


def test_snapped_masks_from_the_command_line(middle, loaded, capsys):
    from PIL import Image

    picture = Image.fromarray(np.repeat(square_mask()[..., None] * np.uint8(255), 3, -1))
    picture.resize((104, 72)).resize((52, 36), Image.Resampling.BILINEAR).save(middle / "soft.jpg")
    arguments = [middle / "clip.mp4", "--mask", middle / "soft.jpg", "--output", middle / "o"]
    assert "--snap-mask" in fails(capsys, *arguments)
    run(*arguments, "--snap-mask")
    assert "snapped to 2 true colours" in capsys.readouterr().err
    assert summary(middle / "o")["objects"] == [1]


# ------------------------------------------------------------------------ several videos


@pytest.fixture
def videos(tmp_path):
    """Videos a.mp4 and b (a folder of images) with masks a.png and b/00000.png."""
    (tmp_path / "in").mkdir()
    write_video(tmp_path / "in" / "a.mp4", moving_frames(4))
    write_folder(tmp_path / "in" / "b", moving_frames(5, size=(20, 30)))
    write_mask_image(tmp_path / "masks" / "a.png", square_mask())
    write_mask_image(tmp_path / "masks" / "b" / "00000.png", square_mask((20, 30), (1, 2)))
    return tmp_path


def many(videos, *more, inputs=("in",), out="out"):
    paths = [videos / path for path in inputs]
    run(*paths, "--mask", videos / "masks", "--output", videos / out, *more)


@pytest.mark.parametrize("inputs", [("in",), ("in/*",), ("in/a.mp4", "in/b")])
def test_a_folder_a_pattern_and_several_paths(videos, loaded, inputs):
    many(videos, inputs=inputs)
    assert len(loaded) <= 2  # one model; its working size is known only once it is loaded
    assert summary(videos / "out" / "a")["frames"] == 4
    assert summary(videos / "out" / "b")["objects"] == [1, 2]
    assert sorted(path.name for path in (videos / "out").iterdir()) == ["a", "b"]
    # As if it had been the only one.
    run(videos / "in" / "a.mp4", "--mask", videos / "masks" / "a.png", "--output", videos / "one")
    np.testing.assert_array_equal(masks_in(videos / "one"), masks_in(videos / "out" / "a"))


def test_a_list_of_names(videos, loaded, capsys):
    (videos / "list.txt").write_text("# wanted\n\nb\n")
    many(videos, "--sequences", videos / "list.txt")
    assert [path.name for path in (videos / "out").iterdir()] == ["b"]
    (videos / "list.txt").write_text("c\n")
    arguments = [videos / "in", "--mask", videos / "masks", "--output", videos / "out"]
    assert "no c here; there are a, b" in fails(
        capsys, *arguments, "--sequences", videos / "list.txt"
    )


def test_parts_are_disjoint_and_together_all(videos, loaded, capsys):
    for part in ("1/3", "2/3", "3/3"):
        many(videos, "--shard", part, out=f"out{part[0]}")
    held = [sorted(path.name for path in (videos / f"out{k}").glob("*")) for k in (1, 2, 3)]
    assert sorted(name for names in held for name in names) == ["a", "b"] and [] in held
    assert "holds none" in capsys.readouterr().err
    arguments = [videos / "in", "--mask", videos / "masks", "--output", videos / "o"]
    assert "I/N, such as 3/16" in fails(capsys, *arguments, "--shard", "4")


def test_one_that_cannot_be_segmented_does_not_keep_the_others(videos, loaded, capsys):
    (videos / "in" / "a.mp4").write_bytes(b"no video")
    message = fails(capsys, videos / "in", "--mask", videos / "masks", "--output", videos / "out")
    assert re.search(r"1 of 2 videos could not be segmented \(a\); a: .*a\.mp4", message)
    assert summary(videos / "out" / "b")["frames"] == 5
    assert not (videos / "out" / "a" / "summary.json").exists()


def test_one_that_another_run_writes_is_left_to_it(videos, loaded, capsys):
    with locked(videos / "out" / "a"):
        many(videos)
    assert "another run is writing here" in capsys.readouterr().err
    assert not (videos / "out" / "a" / "summary.json").exists()
    many(videos)
    assert summary(videos / "out" / "a")["frames"] == 4


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda v: (v / "masks" / "a.png").unlink(), "no mask a.png"),
        (lambda v: shutil.copytree(v / "in" / "b", v / "in" / "a"), "same name"),
        (lambda v: shutil.rmtree(v / "masks") or (v / "masks").write_text(""), "must be a folder"),
        (lambda v: shutil.rmtree(v / "in") or (v / "in").mkdir(), "neither images nor videos"),
    ],
)
def test_what_is_wrong_with_names_is_said_before_anything_runs(videos, loaded, capsys, spoil, says):
    spoil(videos)
    message = fails(capsys, videos / "in", "--mask", videos / "masks", "--output", videos / "out")
    assert says in message and not (videos / "out").exists()


def test_a_pattern_that_matches_nothing(videos, loaded, capsys):
    message = fails(capsys, videos / "x*.mp4", "--mask", videos / "masks", "--output", videos / "o")
    assert "matches this pattern" in message
