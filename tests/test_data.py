"""Static images to clips: sources, warps, perturbed masks, labels (generated data)."""

from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

from rdejax.data.clips.appearance import (
    Appearance,
    Light,
    colour_matrix,
    jpeg_artefacts,
    line_kernel,
)
from rdejax.data.clips.from_images import drop_hidden, make_clip
from rdejax.data.clips.motion import Motion, control_points, spline
from rdejax.data.clips.perturb import iou, perturb_mask
from rdejax.data.clips.sprites import Background, Sprite, instances
from rdejax.data.config import ClipConfig
from rdejax.data.sources.images import StaticFolder
from rdejax.errors import RdejaxError

_STILL: dict[str, Any] = dict(
    speed=0.0, camera=0.0, turn=0.0, zoom=0.0, bend=0.0, light=0.0, jump=0.0
)
_PLAIN: dict[str, Any] = dict(grey=0.0, blur=0.0, motion_blur=0.0, noise=0.0, jpeg=0.0, shadow=0.0)


def picture(
    seed: int, h: int = 90, w: int = 120, objects: int = 1
) -> tuple[np.ndarray, np.ndarray]:
    """A smooth random image with ellipses, whose ids are 1.."""
    rng = np.random.default_rng(seed)
    small = rng.integers(0, 255, (6, 8, 3), dtype=np.uint8)
    image = cv2.resize(small, (w, h), interpolation=cv2.INTER_CUBIC)
    ids = np.zeros((h, w), np.uint8)
    for o in range(1, objects + 1):
        centre = (int(w * o / (objects + 1)), h // 2)
        axes = (w // (3 * objects + 1), h // 4)
        cv2.ellipse(ids, centre, axes, 20.0 * o, 0, 360, o, -1)
        image[ids == o] = rng.integers(0, 255, 3)
    return image, ids


def draw(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    return picture(int(rng.integers(6)), objects=2)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("static")
    for name in ("images", "masks"):
        (folder / name).mkdir()
    for i in range(5):
        image, ids = picture(i, objects=1 + i % 2)
        Image.fromarray(image).save(folder / "images" / f"{i}.jpg")
        Image.fromarray(ids).save(folder / "masks" / f"{i}.png")
    return str(folder)


def save_pair(folder, name: str, ids: np.ndarray, size=(20, 30), mode: str = "L") -> StaticFolder:
    (folder / "images").mkdir(exist_ok=True)
    (folder / "masks").mkdir(exist_ok=True)
    Image.new("RGB", (size[1], size[0])).save(folder / "images" / f"{name}.jpg")
    mask = Image.fromarray(ids)
    if mode == "P":
        mask.putpalette(bytes(range(256)) * 3)
    mask.save(folder / "masks" / f"{name}.png")
    return StaticFolder(folder)


# Sources


def test_folder_pairs_by_stem(root):
    source = StaticFolder(root)
    assert len(source) == 5
    image, ids = source[1]
    assert image.shape == (90, 120, 3) and image.dtype == np.uint8
    assert (ids == picture(1, objects=2)[1]).all()
    assert np.abs(image.astype(int) - picture(1, objects=2)[0]).mean() < 8  # red is not blue
    assert source[1][0] is image  # kept


def test_folder_side_by_side(tmp_path):
    image, ids = picture(0)
    Image.fromarray(image).save(tmp_path / "a.jpg")
    Image.fromarray(255 * ids).save(tmp_path / "a.png")
    Image.fromarray(ids).save(tmp_path / "alone.png")
    source = StaticFolder(tmp_path)
    assert len(source) == 1
    assert (source[0][1] == ids).all()


def test_folder_reduces_large_images(root):
    image, ids = StaticFolder(root, longest=60)[0]
    assert image.shape == (45, 60, 3) and ids.shape == (45, 60) and set(np.unique(ids)) == {0, 1}


def test_folder_memory_is_bounded(root):
    source = StaticFolder(root, longest=500, keep_megabytes=0.1)
    for i in range(5):
        source[i]
    assert len(source._kept) == 2 and source._kept.currsize <= 100_000


@pytest.mark.parametrize(
    "values, mode, expected",
    [
        ([0, 255], "L", [0, 1]),
        ([0, 7], "L", [0, 1]),
        ([0, 3, 250, 255], "L", [0, 0, 1, 1]),  # soft edges
        ([0, 1, 2], "L", [0, 1, 2]),
        ([0, 1, 2, 255], "P", [0, 1, 2, 0]),  # void
        ([0, 255], "P", [0, 1]),
        ([0, 1], "1", [0, 1]),
        ([0, 1, 300], "I", None),
    ],
)
def test_kinds_of_masks(tmp_path, values, mode, expected):
    ids = np.repeat(np.array(values), 30)[None].repeat(9, 0)
    ids = ids.astype({"1": bool, "I": np.uint16}.get(mode, np.uint8))
    source = save_pair(tmp_path, "x", ids, ids.shape, mode)
    if expected is None:
        with pytest.raises(RdejaxError, match="x.png: mask holds ids up to 300"):
            source[0]
    else:
        assert (source[0][1][0] == np.repeat(expected, 30)).all()


def test_bad_folders(tmp_path):
    with pytest.raises(RdejaxError, match="no such folder"):
        StaticFolder(tmp_path / "missing")
    with pytest.raises(RdejaxError, match="no image with a mask"):
        StaticFolder(tmp_path)
    (tmp_path / "images").mkdir()
    with pytest.raises(RdejaxError, match="masks: no such folder"):
        StaticFolder(tmp_path)


def test_bad_files_are_named(tmp_path):
    ones = np.ones((20, 30), np.uint8)
    source = save_pair(tmp_path, "a", ones[:, :25])
    with pytest.raises(RdejaxError, match="a.png: mask is 25x20, its image 30x20"):
        source[0]
    source = save_pair(tmp_path, "a", 0 * ones)
    with pytest.raises(RdejaxError, match="a.png: mask holds no object"):
        source[0]
    source = save_pair(tmp_path, "a", np.dstack([ones * 200, ones, ones]))
    with pytest.raises(RdejaxError, match="a.png: mask is in colours"):
        source[0]
    (tmp_path / "images" / "a.jpg").write_bytes(b"\xff\xd8 not an image")
    with pytest.raises(RdejaxError, match="a.jpg: cannot be read"):
        source[0]


# Warps


def test_spline_passes_through_its_control_points():
    values = np.random.default_rng(0).normal(size=(16, 2))
    np.testing.assert_allclose(spline(values, control_points()), values, atol=1e-9)


def test_spline_reproduces_affine_maps():
    points = np.random.default_rng(1).uniform(-2, 2, (40, 2))
    matrix, shift = np.array([[0.5, -0.2], [0.1, 1.2]]), np.array([0.3, -0.4])
    out = spline(control_points() @ matrix + shift, points)
    np.testing.assert_allclose(out, points @ matrix + shift, atol=1e-9)


def still(size: int, **settings) -> Motion:
    arguments = dict(speed=0.0, turn=0.0, zoom=0.0, bend=0.0) | settings
    middle = (size - 1) / 2
    return Motion(
        np.random.default_rng(0), (middle, middle), (size, size), (middle, middle), 1.0, **arguments
    )


@pytest.mark.parametrize("size", [48, 52])  # 52: not a multiple of the lattice's cells
def test_identity_leaves_the_image(size):
    image = np.random.default_rng(0).integers(0, 255, (size, size, 3), dtype=np.uint8)
    x, y, area = still(size).maps(size)
    assert area == (slice(0, size), slice(0, size))
    assert (cv2.remap(image, x, y, cv2.INTER_LINEAR) == image).all()


def test_maps_are_the_affine_map_everywhere():
    motion = still(64)
    motion.angle, motion.log_scale, motion.shear, motion.stretch = 0.4, 0.3, 0.1, -0.05
    x, y, _ = motion.maps(64)
    rows, columns = np.mgrid[:64, :64]
    offset = np.stack([columns, rows], -1) - motion.position
    expected = offset @ motion.matrix().T + motion.centre
    np.testing.assert_allclose(np.stack([x, y], -1), expected, atol=1e-3)


def test_bending_moves_the_control_points_by_what_is_asked():
    motion = still(193)
    motion.extent = np.array([84.0, 84.0])
    motion.points = np.random.default_rng(2).normal(0, 0.06, (16, 2))
    x, y, _ = motion.maps(193)
    at = np.round(control_points() * 84 + 96).astype(int)
    moved = np.stack([x[at[:, 1], at[:, 0]] - at[:, 0], y[at[:, 1], at[:, 0]] - at[:, 1]], -1)
    # Between the cells of the lattice the spline is interpolated linearly.
    np.testing.assert_allclose(moved, 84 * motion.points, atol=0.5)


@pytest.mark.parametrize("seed", range(8))
def test_the_window_misses_no_part_of_a_sprite(seed):
    rng = np.random.default_rng(seed)
    motion = Motion(
        rng,
        (20, 12),
        (20, 12),
        rng.uniform(-20, 120, 2),
        1.3,
        speed=9,
        turn=0.3,
        zoom=0.1,
        bend=0.06,
    )
    alpha = np.full((24, 40), 255, np.uint8)
    for _ in range(4):
        motion.step()
        x, y, _ = motion.maps(96)
        whole = cv2.remap(alpha, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT)
        x, y, area = motion.maps(96, (40, 24))
        part = np.zeros_like(whole)
        if x.size:
            part[area] = cv2.remap(alpha, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT)
        np.testing.assert_array_equal(part, whole)


def test_motion_is_smooth():
    steps, jitters = [], []
    for seed in range(60):
        motion = Motion(
            np.random.default_rng(seed),
            (0, 0),
            (9, 9),
            (0, 0),
            1.0,
            speed=10,
            turn=0,
            zoom=0,
            bend=0,
        )
        path = [motion.position]
        for _ in range(6):
            motion.step()
            path.append(motion.position)
        shifts = np.diff(path, axis=0)
        steps.append(np.linalg.norm(shifts[3:].sum(0)))
        jitters.append(np.linalg.norm(shifts[3:], axis=1).sum())
    # Frames that were warped independently would go back and forth.
    assert np.mean(steps) > 0.75 * np.mean(jitters)


# Looks


def test_colours():
    frame = picture(0)[0]
    assert (cv2.transform(frame, colour_matrix(1.0)) == frame).all()
    grey = cv2.transform(frame, colour_matrix(1.0, saturation=0.0))
    assert np.ptp(grey.astype(int), axis=-1).max() <= 1
    turned = cv2.transform(frame, colour_matrix(1.0, hue=0.5))
    luma = np.array([0.299, 0.587, 0.114])
    inside = ((turned > 0) & (turned < 255)).all(-1)
    assert np.abs((turned - frame.astype(float)) @ luma)[inside].max() < 2


def test_compression_and_blur_keep_the_picture():
    frame = picture(1)[0]
    assert np.abs(jpeg_artefacts(frame, 90).astype(int) - frame).mean() < 4
    kernel = line_kernel(5, 0.7)
    assert kernel.sum() == pytest.approx(1) and kernel.shape[0] % 2 == 1
    assert line_kernel(6, 0.0)[kernel.shape[0] // 2].sum() == pytest.approx(1)  # along x


def test_light_drifts_and_starts_at_one():
    light = Light(np.random.default_rng(0), 0.05)
    factors = [light.step() for _ in range(20)]
    assert factors[0] == 1.0 and 0 < np.abs(np.diff(factors)).max() < 0.2


def test_every_effect_runs_and_keeps_shape():
    config = ClipConfig(size=48, grey=1.0, blur=1.0, motion_blur=1.0, noise=1.0, jpeg=1.0)
    look = Appearance(np.random.default_rng(0), config)
    frame = cv2.resize(picture(0)[0], (48, 48))
    first, second = look(frame), look(frame)
    assert first.shape == frame.shape and first.dtype == np.uint8 and (first != second).any()


# Perturbed masks


@pytest.mark.parametrize("lowest", [0.55, 0.85, 0.95])
def test_perturbation_reaches_its_target(lowest):
    mask = picture(0, 128, 128)[1]
    reached = []
    for seed in range(60):
        target = np.random.default_rng(seed).uniform(lowest, 1.0)  # what it draws first
        out = perturb_mask(np.random.default_rng(seed), mask, lowest)
        assert set(np.unique(out)) <= {0, 1} and out.dtype == np.uint8
        score = iou(out, mask)
        assert score >= lowest
        reached.append(score < target)
    assert np.mean(reached) > 0.8


def test_perturbation_of_small_and_empty_masks():
    empty = np.zeros((32, 32), np.uint8)
    assert not perturb_mask(np.random.default_rng(0), empty).any()
    corner = empty.copy()
    corner[:3, :3] = 1
    before = corner.copy()
    for seed in range(20):
        assert iou(perturb_mask(np.random.default_rng(seed), corner), corner) >= 0.85
    assert (corner == before).all()


# Clips


def flat_sprite(label: int, at: tuple[float, float], config: ClipConfig) -> Sprite:
    image = np.full((30, 30, 3), 60 * label, np.uint8)
    mask = np.zeros((30, 30), np.uint8)
    mask[5:25, 5:25] = 1
    sprite = Sprite(np.random.default_rng(0), image, mask, label, config)
    sprite.motion.position = np.array(at)
    return sprite


def test_what_is_in_front_hides_labels():
    config = ClipConfig(size=64, smallest=0.4, largest=0.4, **_STILL, **_PLAIN)
    frame, labels = np.zeros((64, 64, 3), np.uint8), np.zeros((64, 64), np.uint8)
    first, second = flat_sprite(1, (24, 32), config), flat_sprite(2, (40, 32), config)
    first.draw(frame, labels)
    alone = labels.copy()
    second.draw(frame, labels)
    assert labels[32, 32] == 2 and labels[32, 16] == 1 and labels[32, 50] == 2
    assert (labels == 2).sum() == (alone == 1).sum()  # the one in front is whole
    hidden = (alone == 1) & (labels != 1)
    assert (labels[hidden] == 2).all() and hidden.any()
    distractor = flat_sprite(0, (24, 32), config)
    distractor.draw(frame, labels)
    assert labels[32, 24] == 0 and labels[32, 50] == 2


def test_colours_agree_with_labels():
    config = ClipConfig(size=64, smallest=0.4, largest=0.4, **_STILL, **_PLAIN)
    frame, labels = np.zeros((64, 64, 3), np.uint8), np.zeros((64, 64), np.uint8)
    image, mask = np.zeros((40, 40, 3), np.uint8), np.zeros((40, 40), np.uint8)
    cv2.circle(mask, (20, 20), 14, 1, -1)
    image[mask > 0] = 255
    rng = np.random.default_rng(3)
    config = ClipConfig(size=64, smallest=0.5, largest=0.5, **_PLAIN)
    sprite = Sprite(rng, image, mask, 1, config)
    for t in range(3):
        frame[:], labels[:] = 0, 0
        sprite.draw(frame, labels)
        sprite.step(t + 1)
        bright = frame.max(-1) > 100
        assert labels.any() and iou(bright, labels > 0) > 0.93


def test_background_labels_move_with_the_image():
    image, mask = np.zeros((60, 80, 3), np.uint8), np.zeros((60, 80), np.uint8)
    cv2.rectangle(mask, (30, 20), (50, 40), 1, -1)
    image[mask > 0] = 255
    config = ClipConfig(size=64, frames=4, **_PLAIN)
    background = Background(np.random.default_rng(5), image, [mask], config)
    frame, labels = np.zeros((64, 64, 3), np.uint8), np.zeros((64, 64), np.uint8)
    for t in range(4):
        background.draw(frame, labels)
        assert labels.any() and ((frame[..., 0] > 127) == (labels == 1)).all()
        background.step(t + 1)


def test_hidden_objects_are_dropped_and_the_rest_renumbered():
    labels = np.zeros((2, 8, 8), np.uint8)
    labels[0, 0, 0] = 1
    labels[0, 4:, :] = 2
    labels[1, :4, :] = 1
    labels[1, 4:, :] = 2
    kept, valid = drop_hidden(labels, 2, 5)
    assert valid.tolist() == [True, False]
    assert (kept == (labels == 2)).all()


def test_instances():
    ids = np.zeros((10, 10), np.uint8)
    ids[:5], ids[9, 9] = 3, 7
    assert instances(ids, 0.02) == [3] and instances(ids, 0.0) == [3, 7]


def test_clips_are_as_promised():
    config = ClipConfig(frames=4, size=64, objects=3)
    filled = np.zeros(3)
    for seed in range(25):
        clip = make_clip(np.random.default_rng(seed), draw, config)
        assert clip.frames.shape == (4, 64, 64, 3) and clip.frames.dtype == np.uint8
        assert clip.labels.shape == (4, 64, 64) and clip.labels.dtype == np.uint8
        assert clip.perturbed.shape == (3, 64, 64) and clip.perturbed.dtype == np.uint8
        assert clip.valid.shape == (3,) and clip.valid[0]
        for o in range(3):
            area = (clip.labels[0] == o + 1).sum()
            if clip.valid[o]:
                assert area >= config.min_area * 64**2
                assert iou(clip.perturbed[o], clip.labels[0] == o + 1) >= config.perturb
            else:
                assert not (clip.labels == o + 1).any() and not clip.perturbed[o].any()
        assert clip.labels.max() <= 3
        filled += clip.valid
    assert filled[1] > 5 and filled[2] > 0


def disc(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """A green disc on grey: two colours nothing else has, so that pixels tell the label."""
    y, x = np.mgrid[:90, :110]
    inside = (y - rng.integers(35, 55)) ** 2 + (x - rng.integers(35, 75)) ** 2 < 25**2
    colours = np.where(inside[..., None], [20, 200, 20], [128, 128, 128])
    return colours.astype(np.uint8), inside.astype(np.uint8)


@pytest.mark.parametrize("paste", [0.0, 1.0])
def test_labels_of_whole_clips_follow_the_pixels(paste):
    config = ClipConfig(frames=4, size=64, paste=paste, distractors=0, **_PLAIN)

    def background(rng):  # what a disc is pasted on must not be green
        image, ids = disc(rng)
        if paste and not background.called:
            image = np.full_like(image, 128)
        background.called = True
        return image, ids

    for seed in range(6):
        background.called = False
        clip = make_clip(np.random.default_rng(seed), background, config)
        frames = clip.frames.astype(int)
        green = frames[..., 1] > (frames[..., 0] + frames[..., 2]) / 2 + 30
        assert iou(green, clip.labels > 0) > 0.93


def test_objects_move():
    moved = 0
    for seed in range(8):
        config = ClipConfig(frames=3, size=64)
        labels = make_clip(np.random.default_rng(seed), disc, config).labels
        moved += iou(labels[0] > 0, labels[2] > 0) < 0.9
    assert moved >= 5


def test_nothing_moves_where_nothing_may():
    config = ClipConfig(frames=3, size=64, objects=2, **_STILL, **_PLAIN)
    for seed in range(5):
        clip = make_clip(np.random.default_rng(seed), draw, config)
        assert (clip.labels == clip.labels[0]).all()
        assert np.abs(np.diff(clip.frames.astype(int), axis=0)).max() <= 6  # offset of a frame


def test_clips_without_objects_are_errors():
    def speck(rng):
        image, ids = picture(0)
        ids = np.zeros_like(ids)
        ids[0, 0] = 1
        return image, ids

    with pytest.raises(RdejaxError, match="hold no object of 0.4 %"):
        make_clip(np.random.default_rng(0), speck, ClipConfig(size=32))
    config = ClipConfig(size=32, min_area=1.0)
    with pytest.raises(RdejaxError, match="lower clip.min_area"):
        make_clip(np.random.default_rng(0), draw, config)


@pytest.mark.parametrize(
    "setting", [{"frames": 0}, {"size": 100}, {"paste": 1.5}, {"largest": 0.01}, {"objects": 0}]
)
def test_bad_settings(setting):
    with pytest.raises(RdejaxError, match=f"{next(iter(setting))}="):
        ClipConfig(**setting)
