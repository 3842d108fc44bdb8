"""`rdejax data`: what it finds in sound and in broken data."""

import json

import numpy as np
import pytest
from test_data_sources import colour, mask, save, video, write_list

from rdejax.data.__main__ import main
from rdejax.data.check.source import check_source


def problems(report) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for finding in report.problems:
        found.setdefault(finding.problem, []).append(finding.file.rsplit("/", 1)[-1])
    return {problem: sorted(files) for problem, files in found.items()}


@pytest.fixture
def broken(tmp_path):
    """Videos with every kind of problem, and one without."""
    good = {i: mask(1, 2) for i in range(4)}
    for name in ("sound", "cut", "sized", "empty", "short", "stray", "ids", "odd"):
        video(
            tmp_path, name, good if name != "short" else {0: mask(1)}, 4 if name != "short" else 1
        )
    frames, masks = tmp_path / "JPEGImages", tmp_path / "Annotations"
    save(frames / "cut/00001.png", np.random.default_rng(0).integers(0, 255, (40, 60, 3), np.uint8))
    (frames / "cut/00001.jpg").unlink()
    content = (frames / "cut/00001.png").read_bytes()
    (frames / "cut/00001.png").write_bytes(content[: len(content) // 2])
    save(masks / "sized/00002.png", mask(1)[:, :25], "P")
    for i in range(4):
        save(masks / f"empty/{i:05d}.png", mask(), "P")
    (frames / "stray/00003.jpg").unlink()
    save(masks / "ids/00000.png", mask(1).astype(np.uint16) * 300)
    photograph = np.random.default_rng(0).integers(0, 255, (*mask().shape, 3), np.uint8)
    save(masks / "ids/00001.png", photograph)
    (masks / "ids/00002.png").write_text("no image")
    save(frames / "odd/00003.jpg", np.zeros((H2, W2, 3), np.uint8))
    save(masks / "odd/00003.png", np.ones((H2, W2), np.uint8), "P")
    save(masks / "odd/00002.png", mask(), "P")
    (masks / "odd/00001.png").unlink()
    listed = ("sound", "cut", "sized", "empty", "short", "stray", "ids", "odd", "gone")
    write_list(tmp_path / "ImageSets/train.txt", *listed)
    return tmp_path


H2, W2 = 24, 36


def test_sound_videos(tmp_path):
    video(tmp_path, "a", {0: mask(1), 1: mask(1, 2), 2: mask()}, 5)
    report = check_source(str(tmp_path))
    assert not report.problems and report.kind == "folder"
    assert report.counts == {"sequences": 1, "images": 5, "masks": 3, "frames without mask": 2}
    assert report.sizes == {(30, 20): 5} and report.objects == {2: 1} and report.modes == {"P": 3}
    assert {f.problem for f in report.remarks} == {"frames without mask", "empty masks"}


def test_every_problem_is_found_with_its_file(broken):
    assert problems(check_source(str(broken))) == {
        "unreadable": ["00001.png", "00002.png"],
        "mask of another size": ["00002.png"],
        "no object": ["empty"],
        "one-frame video": ["short"],
        "mask without frame": ["00003.png"],
        "ids above 255": ["00000.png"],
        "mask in colours": ["00001.png"],
        "frames of different sizes": ["odd"],
        "missing sequence": ["gone", "gone"],
    }


def test_quick_reads_headers_only(broken):
    found = problems(check_source(str(broken), quick=True))
    assert found["mask of another size"] == ["00001.png", "00002.png"]  # the cut image is 60x40
    assert found["unreadable"] == ["00002.png"] and "mask in colours" not in found
    assert found["missing sequence"] == ["gone", "gone"] and "no object" not in found
    report = check_source(str(broken), quick=True)
    assert report.modes["P"] > 20 and report.counts["sequences"] == 9


def test_static_images(tmp_path):
    for name in ("ok", "empty", "big", "cut", "bare"):
        save(tmp_path / f"images/{name}.jpg", colour(9))
    save(tmp_path / "masks/ok.png", mask(1, 2))
    save(tmp_path / "masks/empty.png", mask())
    save(tmp_path / "masks/big.png", np.ones((40, 60), np.uint8))
    save(tmp_path / "masks/cut.png", mask(1))
    save(tmp_path / "masks/other.png", mask(1))
    path = tmp_path / "images/cut.jpg"
    path.write_bytes(path.read_bytes()[:200])
    report = check_source(f"static:{tmp_path}")
    assert problems(report) == {
        "unreadable": ["cut.jpg"],
        "mask of another size": ["big.png"],
        "empty mask": ["empty.png"],
    }
    assert {(f.problem, f.file.rsplit("/", 1)[-1]) for f in report.remarks} == {
        ("image without mask", "bare.jpg"),
        ("mask without image", "other.png"),
    }
    assert report.counts["images"] == 4 and report.objects[2] == 1
    quick = problems(check_source(f"static:{tmp_path}", quick=True))
    assert quick["mask of another size"] == ["big.png"] and "empty mask" not in quick


def test_progress_is_told(broken):
    told = []
    check_source(str(broken), advance=lambda done, total: told.append((done, total)), threads=3)
    assert told == [(i + 1, 9) for i in range(9)]


def test_command(broken, tmp_path, capsys):
    sound = tmp_path / "sound_only"
    video(sound, "a", {0: mask(1), 1: mask(1)}, 2)
    main([str(sound)])  # no exit
    assert "no problem found" in capsys.readouterr().out
    file = tmp_path / "report.json"
    with pytest.raises(SystemExit) as exit:
        main([str(sound), str(broken), "--limit", "1", "--json", str(file)])
    assert exit.value.code == 1
    out = capsys.readouterr().out
    assert "unreadable: 2" in out and "and 1 more" in out
    assert out.count("cannot be read") == 1
    first, second = json.loads(file.read_text())
    assert first["usable"] and first["number_of_sequences"] == 1 and first["sizes"] == {"30x20": 2}
    assert not second["usable"] and len(second["problems"]) == 11


def test_what_cannot_be_opened_is_a_problem(tmp_path, capsys):
    with pytest.raises(SystemExit) as exit:
        main([str(tmp_path / "none")])
    assert exit.value.code == 1 and "none: no such folder" in capsys.readouterr().out
