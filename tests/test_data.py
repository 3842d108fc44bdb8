"""Clips from static images: determinism, exact labels, warps, perturbation, bad data."""

import cv2
import numpy as np
import pytest

from rdejax.data.clips import make_clip
from rdejax.data.config import ClipConfig
from rdejax.data.motion import Motion, spline_matrix
from rdejax.data.perturb import iou, perturb_mask
from rdejax.data.pipeline import clip_loader
from rdejax.data.sources import StaticFolder
from rdejax.errors import RdejaxError

SMALL = ClipConfig(frames=3, size=64, objects=2)
# Two colours nothing else has, so that labels can be checked against pixels.
GREEN, GREY = np.array([20, 200, 20]), np.array([128, 128, 128])


def disc(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """A green disc on grey."""
    y, x = np.mgrid[:90, :110]
    inside = (y - rng.integers(35, 55)) ** 2 + (x - rng.integers(35, 75)) ** 2 < 25**2
    return np.where(inside[..., None], GREEN, GREY).astype(np.uint8), inside.astype(np.uint8)


@pytest.fixture
def folder(tmp_path):
    rng = np.random.default_rng(0)
    (tmp_path / "images").mkdir()
    (tmp_path / "masks").mkdir()
    for i in range(4):
        image, mask = disc(rng)
        cv2.imwrite(str(tmp_path / "images" / f"{i}.png"), image[..., ::-1])
        cv2.imwrite(str(tmp_path / "masks" / f"{i}.png"), mask * 255)
    return tmp_path


def batches(folder, count: int, start: int = 0, threads: int = 2) -> list[dict]:
    loader = clip_loader(
        [(str(folder), 1.0)], SMALL, batch_size=2, seed=3, threads=threads, start_step=start
    )
    return [next(loader) for _ in range(count)]


def test_shapes_and_types(folder) -> None:
    (batch,) = batches(folder, 1)
    assert batch["frames"].shape == (2, 3, 64, 64, 3) and batch["frames"].dtype == np.uint8
    assert batch["labels"].shape == (2, 3, 64, 64) and batch["labels"].max() <= 2
    assert batch["perturbed"].shape == (2, 2, 64, 64) and batch["perturbed"].max() <= 1
    assert batch["valid"][:, 0].all()


def test_any_step_can_be_resumed_at(folder) -> None:
    all_of_them = batches(folder, 4)
    for one, two in zip(all_of_them[2:], batches(folder, 2, start=2, threads=1), strict=True):
        for name in one:
            np.testing.assert_array_equal(one[name], two[name])
    assert (all_of_them[0]["frames"] != all_of_them[1]["frames"]).any()


def test_absent_objects_have_no_pixels() -> None:
    for seed in range(10):
        clip = make_clip(np.random.default_rng(seed), disc, SMALL)
        for slot in np.flatnonzero(~clip["valid"]):
            assert not (clip["labels"] == slot + 1).any()
            assert not clip["perturbed"][slot].any()


def test_labels_follow_the_pixels() -> None:
    """One green disc on grey, whole-image motion, no colour change: the label is where green is."""
    config = ClipConfig(frames=4, size=64, objects=1, paste=0.0, distractors=0, blur=0.0, grey=0.0)
    for seed in range(5):
        clip = make_clip(np.random.default_rng(seed), disc, config)
        frames = clip["frames"].astype(int)
        green = frames[..., 1] > (frames[..., 0] + frames[..., 2]) / 2 + 30
        assert iou(green, clip["labels"] > 0) > 0.93


def test_objects_move() -> None:
    config = ClipConfig(frames=3, size=64, objects=1)
    moved = 0
    for seed in range(8):
        labels = make_clip(np.random.default_rng(seed), disc, config)["labels"]
        moved += iou(labels[0] > 0, labels[2] > 0) < 0.9
    assert moved >= 5


def test_spline_passes_through_its_control_points() -> None:
    rng = np.random.default_rng(0)
    values = rng.normal(size=(16, 2))
    # A lattice of 4 x 4 is the control points themselves.
    np.testing.assert_allclose(spline_matrix(4, 4) @ values, values, atol=1e-4)
    # An affine displacement is reproduced everywhere.
    side = np.linspace(-1, 1, 4)
    points = np.stack(np.meshgrid(side, side), -1).reshape(-1, 2)
    side = np.linspace(-1, 1, 7)
    lattice = np.stack(np.meshgrid(side, side), -1).reshape(-1, 2)
    affine = np.array([[0.3, -0.2], [0.1, 0.5]])
    np.testing.assert_allclose(spline_matrix(4, 7) @ (points @ affine), lattice @ affine, atol=1e-4)


def test_no_motion_is_the_identity() -> None:
    rng = np.random.default_rng(0)
    motion = Motion(rng, 32, (16, 16), (16, 16), 1.0, speed=0, turn=0, zoom=0, bend=0)
    motion.shear = motion.stretch = 0.0
    image = rng.integers(0, 255, (32, 32, 3)).astype(np.uint8)
    np.testing.assert_array_equal(cv2.remap(image, *motion.maps(), cv2.INTER_LINEAR), image)


def test_perturbation_keeps_its_bound() -> None:
    mask = np.zeros((96, 96), np.uint8)
    cv2.circle(mask, (48, 48), 30, 1, -1)
    rng = np.random.default_rng(0)
    scores = [iou(perturb_mask(rng, mask, 0.85), mask) for _ in range(40)]
    assert min(scores) >= 0.85
    assert np.mean(scores) < 0.98  # it does perturb
    assert not perturb_mask(rng, np.zeros_like(mask)).any()


def test_layouts_and_instance_ids(tmp_path) -> None:
    image, mask = disc(np.random.default_rng(0))
    mask[:20, :20] = 2
    cv2.imwrite(str(tmp_path / "a.jpg"), image)
    cv2.imwrite(str(tmp_path / "a.png"), mask)
    source = StaticFolder(str(tmp_path))
    assert len(source) == 1
    assert set(np.unique(source[0][1])) == {0, 1, 2}
    assert max(StaticFolder(str(tmp_path), longest=50)[0][1].shape) == 50


def test_bad_data_is_named(folder, tmp_path) -> None:
    with pytest.raises(RdejaxError, match="no such folder"):
        StaticFolder(str(tmp_path / "nowhere"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(RdejaxError, match="no image with a mask"):
        StaticFolder(str(tmp_path / "empty"))
    with pytest.raises(RdejaxError, match="no training data"):
        clip_loader([], SMALL, batch_size=1, seed=0)
    source = StaticFolder(str(folder))
    (folder / "images" / "0.png").write_bytes(b"not an image")
    with pytest.raises(RdejaxError, match="0.png"):
        source[0]
    cv2.imwrite(str(folder / "masks" / "1.png"), np.zeros((5, 5), np.uint8))
    with pytest.raises(RdejaxError, match="1.png.*5x5"):
        source[1]
