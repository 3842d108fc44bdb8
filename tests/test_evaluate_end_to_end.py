"""From a folder with only frames and masks to numbers, a zip file and a comparison.

The segmenter is a stand-in that moves every object a pixel per frame, so the numbers are known;
`test_train_loop.py` runs the same through a real model.
"""

import json

import numpy as np
import pytest
from io_helpers import fake_api, write_folder, write_mask_image

from rdejax.compare.__main__ import main as compare
from rdejax.evaluate.__main__ import main as evaluate
from rdejax.evaluate.submit import main as submit
from rdejax.infer.__main__ import main as infer

SIZE = (40, 60)
FRAMES = 6


def truth(ids, t, speed):
    labels = np.zeros(SIZE, np.uint8)
    for row, label in enumerate(ids):
        left = 5 + speed * t
        labels[3 + 12 * row : 13 + 12 * row, left : left + 10] = label
    return labels


# Truth moves 1 pixel a frame as the stand-in does (J = 1), or 3: after t frames it is 2 t behind.
SEQUENCES = {"single": ((1,), 1), "several": ((1, 2, 3), 3)}
BEHIND = float(np.mean([max(10 - 2 * t, 0) / (10 + min(2 * t, 10)) for t in range(1, FRAMES - 1)]))


@pytest.fixture
def root(tmp_path):
    top = tmp_path / "data"
    for name, (ids, speed) in SEQUENCES.items():
        frames = [np.full((*SIZE, 3), 40 * t, np.uint8) for t in range(FRAMES)]
        write_folder(top / "JPEGImages" / "480p" / name, frames, suffix=".jpg")
        for t in range(FRAMES):
            path = top / "Annotations" / "480p" / name / f"{t:05d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            write_mask_image(path, truth(ids, t, speed))
    return top


@pytest.mark.parametrize("dataset", ["davis2016", "davis2017", "folder"])
def test_frames_and_masks_are_all_it_needs(root, tmp_path, monkeypatch, capsys, dataset):
    fake_api(monkeypatch)
    out = tmp_path / "out"
    where = ["--dataset", dataset, "--root", str(root)]
    infer([*where, "--output", str(out), "--quiet"])
    evaluate([*where, "--results", str(out)])
    found = json.loads((out / "results.json").read_text())
    assert found["sequences"]["single"]["J&F-Mean"] == 1
    assert found["sequences"]["several"]["J-Mean"] == pytest.approx(BEHIND)
    objects = 2 if dataset == "davis2016" else 4
    assert len(found["objects"]) == objects
    total = (1 + (objects - 1) * BEHIND) / objects
    assert found["global"]["J-Mean"] == pytest.approx(total)

    other = tmp_path / "other"
    infer([*where, "--output", str(other), "--every", "2", "--quiet"])
    evaluate([*where, "--results", str(other)])
    capsys.readouterr()
    compare([str(out), f"second={other}"])
    screen = capsys.readouterr().out
    assert "note: settings, out -> second: every" in screen
    assert f"{objects} objects of 2 sequences" in screen


def test_test_dev_packing(root, tmp_path, monkeypatch):
    """A split of which only the first masks are public."""
    fake_api(monkeypatch)
    for path in (root / "Annotations" / "480p").glob("*/*.png"):
        if path.stem != "00000":
            path.unlink()
    out = tmp_path / "out"
    where = ["--dataset", "davis2017", "--root", str(root), "--split", "test-dev"]
    infer([*where, "--output", str(out), "--quiet"])
    with pytest.raises(SystemExit):
        evaluate([*where, "--results", str(out)])
    submit([*where, "--results", str(out)])
    assert (out / "davis2017-test-dev.zip").stat().st_size > 12 * 100
