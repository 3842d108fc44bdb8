"""Images from nothing: patterns, outlines, scenes, and the clips made of them."""

import pickle

import numpy as np
import pytest

from rdejax.data.clips.from_images import make_clip
from rdejax.data.clips.sprites import instances
from rdejax.data.config import ClipConfig
from rdejax.data.synthetic.outlines import TexturedPart, closed_curve, rasterise, silhouette
from rdejax.data.synthetic.procedural import ProceduralImages, _paste
from rdejax.data.synthetic.textures import PATTERNS, SIDE, Textures, palette
from rdejax.errors import RdejaxError


@pytest.fixture(scope="module")
def images() -> ProceduralImages:
    return ProceduralImages(size=96)


@pytest.mark.parametrize("make", sorted(set(PATTERNS), key=lambda f: f.__name__))
def test_patterns_have_structure(make):
    for seed in range(3):
        field = make(np.random.default_rng(seed))
        assert field.shape == (SIDE, SIDE) and np.isfinite(field).all()
        assert field.min() >= -1e-6 and field.max() <= 1 + 1e-6 and field.std() > 0.02


def test_patterns_depend_on_seed_and_number_alone():
    one, other = Textures(4), Textures(4)
    other.pattern(9)
    assert (one.pattern(3) == other.pattern(3)).all()
    assert (one.pattern(3) != Textures(5).pattern(3)).any()
    sent = pickle.loads(pickle.dumps(one))
    assert not sent._pool and (sent.pattern(3) == one.pattern(3)).all()


def test_textures_fill_any_shape_in_many_colours(images):
    rng = np.random.default_rng(0)
    means = []
    for shape in ((40, 60), (SIDE + 50, 20), (9, 300)):
        texture = images.textures(rng, *shape)
        assert texture.shape == (*shape, 3) and texture.dtype == np.uint8
        means.append(texture.mean((0, 1)))
    tables = [palette(rng).astype(int)[0] for _ in range(40)]
    assert np.std([t.mean(0) for t in tables], axis=0).min() > 15
    assert np.mean([np.ptp(t, axis=0).max() > 30 for t in tables]) > 0.6


def test_light_changes_slowly(images):
    grey = np.full((60, 80, 3), 120, np.uint8)
    lit = images.textures.light(np.random.default_rng(3), grey).astype(int)
    assert np.ptp(lit) > 5 and np.abs(np.diff(lit, axis=1)).max() < 12
    assert abs(lit.mean() - 120) < 30


@pytest.mark.parametrize("seed", range(30))
def test_silhouettes_fit_their_square(seed):
    rng = np.random.default_rng(seed)
    assert np.abs(closed_curve(rng)).max() < 2
    parts = silhouette(rng)
    reach = np.abs(np.concatenate([p for part in parts for p in part.solid])).max()
    assert reach == pytest.approx(1)
    whole = np.max([rasterise(p, 64) for p in parts if not p.inside], axis=0)
    assert (whole > 127).sum() > 0.02 * 64**2
    assert max(whole[0].max(), whole[:, -1].max()) < 16  # a soft edge all round


def test_rasterised_areas_and_holes():
    square = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1.0]])
    full = rasterise(TexturedPart((0.5 * square,)), 101)
    assert full[50, 50] == 255 and full[0, 0] == 0
    assert (full > 127).sum() == pytest.approx(48**2, rel=0.05)
    ring = rasterise(TexturedPart((0.5 * square,), (0.25 * square,)), 101)
    assert ring[50, 50] == 0 and ring[50, 30] == 255
    assert (ring > 127).sum() == pytest.approx(48**2 - 24**2, rel=0.08)


def test_images_are_as_promised(images):
    shapes, counts, objects = set(), set(), []
    for seed in range(40):
        image, ids = images(np.random.default_rng(seed))
        assert image.dtype == ids.dtype == np.uint8
        assert image.shape == (*ids.shape, 3) and min(ids.shape) == 96
        shapes.add(ids.shape)
        counts.add(int(ids.max()))
        objects.append((ids > 0).mean())
    assert len(shapes) >= 4 and counts == {1, 2, 3}
    assert min(objects) > 0.002 and 0.05 < np.mean(objects) < 0.4


def test_images_depend_on_generator_and_seed_alone(images):
    first, second = (images(np.random.default_rng(7)) for _ in range(2))
    assert (first[0] == second[0]).all() and (first[1] == second[1]).all()
    sent = pickle.loads(pickle.dumps(images))(np.random.default_rng(7))
    assert (sent[0] == first[0]).all()
    other = ProceduralImages(seed=1, size=96)(np.random.default_rng(7))
    assert (other[0] != first[0]).any()
    assert (images(np.random.default_rng(8))[0].shape != first[0].shape) or (
        images(np.random.default_rng(8))[0] != first[0]
    ).any()


def test_ids_are_where_the_objects_are():
    image, ids = np.zeros((60, 80, 3), np.uint8), np.zeros((60, 80), np.uint8)
    colour = np.full((30, 30, 3), 200, np.uint8)
    alpha = rasterise(TexturedPart((0.8 * closed_curve(np.random.default_rng(1)),)), 30)
    for seed in range(12):
        image[:], ids[:] = 0, 0
        _paste(np.random.default_rng(seed), image, ids, (colour, alpha), 5)
        assert ids.any() and ((image[..., 0] > 100) == (ids == 5)).all()
    _paste(np.random.default_rng(99), image, ids, (colour // 4, alpha), 0)
    assert (ids[image[..., 0] == 50] == 0).all()  # clutter in front hides the label


def test_objects_hide_each_other(images):
    overlaps = 0
    for seed in range(60):
        ids = images(np.random.default_rng(seed))[1]
        found = instances(ids, 0.004)
        boxes = [np.argwhere(ids == v) for v in found]
        spans = [(b.min(0), b.max(0)) for b in boxes]
        overlaps += any(
            (a[0] <= b[1]).all() and (b[0] <= a[1]).all()
            for i, a in enumerate(spans)
            for b in spans[:i]
        )
    assert overlaps > 10


def test_clips_are_made_of_them(images):
    config = ClipConfig(frames=3, size=48, objects=2)
    second, moved = 0, 0
    for seed in range(12):
        clip = make_clip(np.random.default_rng(seed), images, config)
        assert clip.frames.shape == (3, 48, 48, 3) and clip.valid[0]
        assert (clip.labels[0] == 1).sum() >= config.min_area * 48**2
        second += bool(clip.valid[1])
        moved += (clip.labels[0] != clip.labels[2]).any()
    assert second >= 2 and moved >= 9


def test_too_small_images_are_refused():
    with pytest.raises(RdejaxError, match="size=10: give 32"):
        ProceduralImages(size=10)
