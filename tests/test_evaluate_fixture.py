"""Equality with the official DAVIS 2017 toolkit on three whole sequences at full size."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from rdejax.evaluate import COLUMNS, evaluate, frame_scores, statistics

FIXTURE = np.load(Path(__file__).parent / "data" / "evaluate" / "davis_fixture.npz")
SEQUENCES = {"drift-straight": 1, "bike-packing": 2, "dogs-jump": 3}
# Both sides are quotients of the same integers in float64, then means of some twenty of them.
TOLERANCE = 1e-12


def truth_of(name, results):
    """The true masks, made from the results as tests/data/evaluate/README.md tells."""
    cross = cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3))
    truth = np.zeros_like(results)
    for t, labels in enumerate(results):
        if f"truth_{name}_{t}" in FIXTURE:
            truth[t] = FIXTURE[f"truth_{name}_{t}"]
            continue
        down, right = t // 2, 2 + t
        for label in range(1, SEQUENCES[name] + 1):
            grown = cv2.dilate((labels == label).view(np.uint8), cross, iterations=1 + t % 3)
            moved = grown[: len(grown) - down, : grown.shape[1] - right] > 0
            truth[t, down:, right:][moved] = label
        if (name, t) == ("bike-packing", 5):
            truth[t][truth[t] == 1] = 0
    return truth


@pytest.fixture(scope="module")
def sequences():
    """name -> (truth, results)."""
    loaded = {name: FIXTURE[f"result_{name}"] for name in SEQUENCES}
    return {name: (truth_of(name, results), results) for name, results in loaded.items()}


@pytest.mark.parametrize("name", SEQUENCES)
def test_every_object_and_frame(sequences, name):
    truth, results = sequences[name]
    ids = tuple(range(1, SEQUENCES[name] + 1))
    found = np.stack([frame_scores(a, b, ids) for a, b in zip(truth, results, strict=True)], -1)
    np.testing.assert_allclose(found[:, 0], FIXTURE[f"J_{name}"], rtol=0, atol=TOLERANCE)
    np.testing.assert_allclose(found[:, 1], FIXTURE[f"F_{name}"], rtol=0, atol=TOLERANCE)
    # The cases are not all easy ones: values spread over the range.
    assert found.min() < 0.6 and found.max() > 0.8
    for which, frames in (("official", slice(1, -1)), ("all", slice(None))):
        expected = FIXTURE[f"stats_{which}_{name}"]
        for measure in range(2):
            for row in range(len(ids)):
                got = statistics(found[row, measure, frames])
                np.testing.assert_allclose(got, expected[measure, row], rtol=0, atol=TOLERANCE)


def test_an_object_that_no_result_holds(sequences):
    truth, results = sequences["dogs-jump"]
    without = np.where(results == 3, 0, results).astype(np.uint8)
    for t, (a, b) in enumerate(zip(truth, without, strict=True)):
        found = frame_scores(a, b, (1, 2, 3))
        np.testing.assert_allclose(found[:, 0], FIXTURE["J_dogs-jump_2labels"][:, t], atol=1e-12)
        np.testing.assert_allclose(found[:, 1], FIXTURE["F_dogs-jump_2labels"][:, t], atol=1e-12)


def test_the_whole_benchmark_from_files(sequences, tmp_path):
    root, out = tmp_path / "davis", tmp_path / "out"
    (root / "ImageSets" / "2017").mkdir(parents=True)
    (root / "ImageSets" / "2017" / "val.txt").write_text("\n".join(SEQUENCES))
    for name, both in sequences.items():
        for folder, masks in zip((root / "Annotations" / "480p", out), both, strict=True):
            (folder / name).mkdir(parents=True)
            for t, labels in enumerate(masks):
                image = Image.fromarray(labels)
                image.putpalette(bytes(range(256)) * 3)
                image.save(folder / name / f"{t:05d}.png", compress_level=1)
    scores = evaluate("davis2017", root, out)
    assert tuple(scores.global_row) == COLUMNS
    got = list(scores.global_row.values())
    np.testing.assert_allclose(got, FIXTURE["global"], rtol=0, atol=TOLERANCE)
    assert len(scores.objects) == 6
