"""Zip files for the servers: their exact layout, and nothing half-written."""

import io
import json
import zipfile

import numpy as np
import pytest
from PIL import Image

from rdejax.errors import RdejaxError
from rdejax.evaluate.submit import main, pack
from rdejax.io.palette import davis_palette

SIZE = (20, 30)


def scene(index, ids=(1, 2)):
    labels = np.zeros(SIZE, np.uint8)
    for row, label in enumerate(ids):
        labels[1 + 9 * row : 8 + 9 * row, 2 + index : 12 + index] = label
    return labels


def save(path, labels, mode="P"):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(labels)
    if mode == "P":
        image.putpalette([0, 0, 0, 9, 9, 9] * 128)
    image.save(path)


@pytest.fixture
def youtube(tmp_path):
    """Given masks only, as the public validation split; results of all frames."""
    root, results = tmp_path / "yt", tmp_path / "results"
    meta = {}
    for video, first in (("aa", 0), ("bb", 5)):
        save(root / "valid" / "Annotations" / video / f"{first:05d}.png", scene(0, (1,)))
        save(root / "valid" / "Annotations" / video / "00010.png", scene(2, (0, 2)))
        for index in range(16):
            save(results / video / f"{index:05d}.png", scene(index % 8), "P" if index else "L")
            if index % 5 == 0:
                frame = root / "valid" / "JPEGImages" / video / f"{index:05d}.jpg"
                frame.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(np.zeros((*SIZE, 3), np.uint8)).save(frame)
        stems = [f"{index:05d}" for index in range(first, 16, 5)]
        meta[video] = {"objects": {"1": {"frames": stems}, "2": {"frames": ["00010", "00015"]}}}
    (root / "valid" / "meta.json").write_text(json.dumps({"videos": meta}))
    return root, results


@pytest.fixture
def davis(tmp_path):
    root, results = tmp_path / "davis", tmp_path / "results"
    for name in ("cats", "mice"):
        save(root / "Annotations" / "480p" / name / "00000.png", scene(0))
        for index in range(4):
            frame = root / "JPEGImages" / "480p" / name / f"{index:05d}.jpg"
            frame.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.zeros((*SIZE, 3), np.uint8)).save(frame)
            save(results / name / f"{index:05d}.png", scene(index))
    (root / "ImageSets" / "2017").mkdir(parents=True)
    (root / "ImageSets" / "2017" / "test-dev.txt").write_text("mice\ncats\n")
    return root, results


def contents(path):
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
        return {name: archive.read(name) for name in archive.namelist()}


def check_mask(content, expected):
    with Image.open(io.BytesIO(content)) as image:
        assert (image.format, image.mode) == ("PNG", "P")
        colours = np.asarray(image.getpalette()).reshape(-1, 3)
        np.testing.assert_array_equal(np.asarray(image), expected)
    np.testing.assert_array_equal(colours[:3], davis_palette()[:3])


def test_youtube_vos_layout(youtube, tmp_path, capsys):
    root, results = youtube
    file = tmp_path / "new" / "yt.zip"
    main(
        ["--dataset", "youtube-vos", "--root", str(root), "--split", "valid"]
        + ["--results", str(results), "--zip", str(file)]
    )
    assert "7 masks of 2 videos" in capsys.readouterr().out
    found = contents(file)
    assert list(found) == [
        *(f"Annotations/aa/{stem}.png" for stem in ("00000", "00005", "00010", "00015")),
        *(f"Annotations/bb/{stem}.png" for stem in ("00005", "00010", "00015")),
    ]
    check_mask(found["Annotations/aa/00000.png"], scene(0))  # was greyscale
    check_mask(found["Annotations/bb/00015.png"], scene(7))
    again = tmp_path / "again.zip"
    pack("youtube-vos", root, results, "valid", again)
    assert again.read_bytes() == file.read_bytes()


def test_youtube_vos_without_meta(youtube, tmp_path):
    root, results = youtube
    pack("youtube-vos", root, results, "valid", tmp_path / "a.zip")
    (root / "valid" / "meta.json").unlink()
    pack("youtube-vos", root, results, "valid", tmp_path / "b.zip")
    assert (tmp_path / "a.zip").read_bytes() == (tmp_path / "b.zip").read_bytes()
    # The all-frames release has more images than the server wants masks.
    (root / "valid_all_frames" / "JPEGImages").mkdir(parents=True)
    pack("youtube-vos", root, results, "valid_all_frames", tmp_path / "c.zip")
    assert (tmp_path / "a.zip").read_bytes() == (tmp_path / "c.zip").read_bytes()
    for path in (root / "valid" / "JPEGImages" / "bb").iterdir():
        path.unlink()
    with pytest.raises(RdejaxError, match=r"meta.json: does not list 'bb'"):
        pack("youtube-vos", root, results, "valid", tmp_path / "d.zip")


def test_davis_layout(davis, capsys):
    root, results = davis
    main(
        ["--dataset", "davis2017", "--root", str(root), "--split", "test-dev"]
        + ["--results", str(results)]
    )
    file = results / "davis2017-test-dev.zip"
    assert f"wrote {file}: 8 masks of 2 videos" in capsys.readouterr().out
    found = contents(file)
    assert list(found) == [f"{name}/{i:05d}.png" for name in ("mice", "cats") for i in range(4)]
    check_mask(found["cats/00003.png"], scene(3))


def break_results(kind, results, name, stem):
    target = results / name / f"{stem}.png"
    if kind == "missing sequence":
        (results / name).rename(results / "elsewhere")
        return f"no results for {name} (1 of 2"
    if kind == "missing frame":
        target.unlink()
        return f"{name}: no mask for frame {stem} (1 of"
    if kind == "wrong size":
        save(target, np.zeros((20, 31), np.uint8))
        return f"{stem}.png: mask is 31x20 but the given mask is 30x20"
    if kind == "unknown id":
        save(target, scene(1, (1, 7)))
        return f"{stem}.png: holds id 7"
    target.write_bytes(target.read_bytes()[:50])
    return f"{stem}.png: not a readable image"


@pytest.mark.parametrize("dataset", ["youtube-vos", "davis2017"])
@pytest.mark.parametrize(
    "kind", ["missing sequence", "missing frame", "wrong size", "unknown id", "damaged"]
)
def test_bad_results_are_named_and_nothing_is_written(dataset, kind, request, tmp_path, capsys):
    youtube = dataset == "youtube-vos"
    root, results = request.getfixturevalue("youtube" if youtube else "davis")
    name, stem, split = ("bb", "00010", "valid") if youtube else ("cats", "00002", "test-dev")
    named = break_results(kind, results, name, stem)
    output = tmp_path / "out" / "x.zip"
    with pytest.raises(SystemExit) as exit_:
        main(
            ["--dataset", dataset, "--root", str(root), "--split", split]
            + ["--results", str(results), "--zip", str(output)]
        )
    message = capsys.readouterr().err
    assert exit_.value.code == 2
    assert message.startswith("error: ") and named in message and message.count("\n") == 1
    assert not output.parent.exists() or not list(output.parent.iterdir())


def test_meta_lists_an_unknown_video(youtube, tmp_path):
    root, results = youtube
    path = root / "valid" / "meta.json"
    meta = json.loads(path.read_text())
    meta["videos"]["zz"] = meta["videos"]["aa"]
    path.write_text(json.dumps(meta))
    with pytest.raises(RdejaxError, match=r"Annotations: no folder for zz of meta.json"):
        pack("youtube-vos", root, results, "valid", tmp_path / "x.zip")


def test_no_packing_for_other_data_sets(davis, tmp_path):
    with pytest.raises(RdejaxError, match="davis2016"):
        pack("davis2016", *davis, "val", tmp_path / "x.zip")
