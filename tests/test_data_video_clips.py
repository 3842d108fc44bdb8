"""Clips from videos: which frames, which objects, warps, colours, curriculum."""

import dataclasses
from typing import Any

import cv2
import jax
import numpy as np
import pytest
from helpers_videos import FakeVideos, same, seen

from rdejax.data.clips.augment import (
    FILL,
    affine,
    change_colour,
    compose_colours,
    crop,
    draw_affine,
    draw_colour,
    draw_crop,
    draw_frame_warp,
    reduce_shortest,
    source_maps,
    warp_image,
    warp_labels,
)
from rdejax.data.clips.curriculum import draw_frames, max_gap
from rdejax.data.clips.from_videos import (
    NoObjectError,
    choose_objects,
    make_video_clip,
)
from rdejax.data.clips.perturb import iou
from rdejax.data.config import ClipConfig, VideoConfig
from rdejax.errors import RdejaxError

_NO_COLOUR: dict[str, Any] = dict(
    brightness=0.0, contrast=0.0, saturation=0.0, hue=0.0, frame_colour=0.0, grey=0.0
)
_AS_IS = VideoConfig(
    gaps=(3,), phases=(), reverse=0.0, crop=1.0, flip=0.0, turn=0, shear=0, zoom=0, **_NO_COLOUR
)
_CLIP = ClipConfig(frames=4, size=64, objects=2)


def clip_of(seed: int, source=None, clip: ClipConfig = _CLIP, video: VideoConfig = _AS_IS, **more):
    video = dataclasses.replace(video, **more)
    return make_video_clip(np.random.default_rng(seed), source or FakeVideos(), clip, video, 0.0)


# Which frames


def test_the_gap_follows_the_phases():
    gaps, phases = (5, 10, 15, 20, 25, 5), (0.1, 0.2, 0.3, 0.4, 0.9)
    at = {0.0: 5, 0.099: 5, 0.1: 10, 0.25: 15, 0.4: 25, 0.89: 25, 0.9: 5, 1.0: 5}
    assert {p: max_gap(p, gaps, phases) for p in at} == at
    assert max_gap(0.5, gaps, phases, spacing=5) == 5
    assert max_gap(0.0, gaps, phases, spacing=6) == 1
    assert max_gap(0.7, (4,), ()) == 4


def test_frames_keep_their_distance():
    rng, gaps, starts = np.random.default_rng(0), set(), set()
    for _ in range(400):
        frames = draw_frames(rng, 30, 4, 5, 0.0)
        assert frames.min() >= 0 and frames.max() < 30
        gaps |= set(np.diff(frames).tolist())
        starts.add(int(frames[0]))
    assert gaps == {1, 2, 3, 4, 5}
    assert min(starts) == 0 and max(starts) >= 24


def test_short_videos_shorten_the_gaps():
    rng = np.random.default_rng(0)
    drawn = [draw_frames(rng, 7, 4, 25, 0.0) for _ in range(100)]
    assert {int(g) for f in drawn for g in np.diff(f)} == {1, 2}
    assert max(int(f.max()) for f in drawn) == 6
    assert (draw_frames(rng, 4, 4, 25, 0.0) == np.arange(4)).all()


def test_videos_shorter_than_the_clip_run_to_and_fro():
    rng = np.random.default_rng(0)
    drawn = {tuple(draw_frames(rng, 3, 5, 4, 0.0).tolist()) for _ in range(60)}
    assert drawn == {(0, 1, 2, 1, 0), (1, 2, 1, 0, 1), (2, 1, 0, 1, 2), (1, 0, 1, 2, 1)}
    assert (np.abs(np.diff(draw_frames(rng, 2, 5, 4, 0.5))) == 1).all()
    with pytest.raises(RdejaxError, match="1 frames with a mask"):
        draw_frames(rng, 1, 3, 4, 0.0)


def test_time_runs_backwards_as_often_as_asked():
    rng = np.random.default_rng(0)
    back = [np.diff(draw_frames(rng, 20, 3, 4, 0.3))[0] < 0 for _ in range(600)]
    assert abs(np.mean(back) - 0.3) < 0.06


# Geometry


def test_affine_is_opencvs():
    centre = (30.0, 20.0)
    ours = affine(centre, turn=25, zoom=1.3)
    theirs = cv2.getRotationMatrix2D(centre, -25, 1.3)  # from source to output, anticlockwise
    np.testing.assert_allclose(np.linalg.inv(ours)[:2], theirs, atol=1e-9)
    mirrored = affine(centre, flip=True) @ [33.0, 21.0, 1.0]
    np.testing.assert_allclose(mirrored, [27, 21, 1])
    moved = affine(centre, shift=(4, -2)) @ [34.0, 18.0, 1.0]
    np.testing.assert_allclose(moved, [30, 20, 1])
    sheared = np.linalg.inv(affine(centre, shear=45)) @ [30.0, 23.0, 1.0]
    np.testing.assert_allclose(sheared, [33, 23, 1])


def test_crops_show_the_focus_and_keep_area_and_shape():
    rng = np.random.default_rng(0)
    areas = []
    for _ in range(300):
        focus = rng.uniform(0, [99, 59])
        matrix = draw_crop(rng, 100, 60, (focus[0], focus[1]), 64, 0.3)
        x, y = (np.linalg.inv(matrix) @ [*focus, 1.0])[:2]
        assert -0.5 <= x <= 63.5 and -0.5 <= y <= 63.5
        left, top = matrix[:2] @ [-0.5, -0.5, 1]
        right, bottom = matrix[:2] @ [63.5, 63.5, 1]
        assert left >= -0.5001 and top >= -0.5001 and right <= 99.5001 and bottom <= 59.5001
        aspect = (right - left) / (bottom - top)
        assert 0.749 < aspect < 1.334
        areas.append((right - left) * (bottom - top) / 6000)
    assert 0.25 < min(areas) < 0.35 and max(areas) > 0.7
    np.testing.assert_allclose(draw_crop(rng, 100, 60, (3, 3), 64, 1.0), crop(0, 0, 100, 60, 64))


def test_maps_are_the_product_of_the_matrices():
    rng = np.random.default_rng(1)
    video = VideoConfig(turn=40, shear=20, zoom=0.3, frame_turn=10, frame_shift=0.1)
    sequence = draw_affine(rng, 80, 60, video) @ crop(5, 3, 50, 40, 52)
    frame, points = draw_frame_warp(rng, 52, video)
    assert points is None
    x, y = source_maps(52, sequence, frame)
    rows, columns = np.mgrid[:52, :52]
    expected = np.stack([columns, rows, np.ones_like(rows)], -1) @ (sequence @ frame).T
    np.testing.assert_allclose(np.stack([x, y], -1), expected[..., :2], atol=1e-3)


def test_bending_moves_pixels_by_about_its_strength():
    rng = np.random.default_rng(1)
    frame, points = draw_frame_warp(rng, 64, VideoConfig(frame_bend=0.03))
    assert points is not None
    x, y = source_maps(64, np.eye(3), frame, points)
    rows, columns = np.mgrid[:64, :64]
    moved = np.hypot(x - columns, y - rows)
    assert 0.5 < moved.mean() < 6
    np.testing.assert_allclose(points.std(), 0.03, rtol=0.4)


def test_labels_are_exact_and_void_beyond_the_frame():
    ids = np.random.default_rng(0).integers(0, 9, (40, 50), dtype=np.uint8)
    x, y = source_maps(48, affine((25, 20), turn=30, zoom=0.7))
    warped = warp_labels(ids, x, y)
    column, row = np.rint(x).astype(int), np.rint(y).astype(int)
    inside = (column >= 0) & (column < 50) & (row >= 0) & (row < 40)
    expected = np.where(inside, ids[row.clip(0, 39), column.clip(0, 49)], 0)
    assert not inside.all() and (warped == expected).mean() > 0.999
    assert (warped[~inside] == 0).all()
    white = warp_image(np.full((40, 50, 3), 255, np.uint8), x - 100, y)
    assert (white == FILL).all()


def test_reducing_does_not_alias():
    fine = np.zeros((400, 400, 3), np.uint8)
    fine[::2] = 200
    reduced = warp_image(fine, *source_maps(48, crop(0, 0, 400, 400, 48)))
    assert np.abs(reduced.astype(int) - 100).max() < 12
    image, ids = reduce_shortest(fine, np.full((400, 400), 7, np.uint8), 100)
    assert image.shape == (100, 100, 3) and set(np.unique(ids)) == {7}
    assert reduce_shortest(image, ids, 0)[0] is image and reduce_shortest(image, ids, 200)[1] is ids
    image, ids = reduce_shortest(
        np.zeros((90, 160, 3), np.uint8), np.zeros((90, 160), np.uint8), 45
    )
    assert image.shape == (45, 80, 3) and ids.shape == (45, 80)


def test_reducing_leaves_things_in_place():
    image = np.zeros((300, 400, 3), np.uint8)
    cv2.circle(image, (250, 100), 60, (255, 255, 255), -1)
    maps = source_maps(48, affine((200, 150), turn=20) @ crop(50, 20, 300, 260, 48))
    labels = warp_labels((image[..., 0] > 0).astype(np.uint8), *maps)
    assert iou(warp_image(image, *maps)[..., 0] > 127, labels > 0) > 0.97


# Colours


def test_colours_are_chained_without_rounding():
    first, second = change_colour(1.1, 0.9, 1.2, 0.1), change_colour(0.95, 1.05, 0.8)
    colour = np.array([90.0, 120.0, 60.0])
    expected = second @ [*(first @ [*colour, 1.0]), 1.0]
    np.testing.assert_allclose(compose_colours(first, second) @ [*colour, 1.0], expected)
    np.testing.assert_allclose(change_colour(), np.eye(3, 4), atol=1e-12)
    np.testing.assert_allclose(change_colour(brightness=2.0) @ [10, 20, 30, 1], [20, 40, 60])


def test_drawn_colours_stay_in_range():
    rng = np.random.default_rng(0)
    video = VideoConfig(
        brightness=0.2, contrast=0.0, saturation=0.0, hue=0.0, grey=0.3, frame_colour=0.0
    )
    greys = [draw_colour(rng, video) @ [50, 100, 150, 1] for _ in range(300)]
    assert abs(np.mean([np.ptp(g) < 1e-6 for g in greys]) - 0.3) < 0.08
    factors = [g[1] / 100 for g in greys if np.ptp(g) > 1e-6]
    assert 0.8 <= min(factors) < 0.85 and 1.15 < max(factors) <= 1.2


# Clips


def test_clips_are_as_promised():
    video = VideoConfig(gaps=(2,), phases=(), frame_turn=5, frame_shift=0.02, frame_bend=0.01)
    filled = np.zeros(2, int)
    for seed in range(20):
        clip = clip_of(seed, FakeVideos((8, 3, 2)), video=video)
        assert clip.frames.shape == (4, 64, 64, 3) and clip.frames.dtype == np.uint8
        assert clip.labels.shape == (4, 64, 64) and clip.labels.dtype == np.uint8
        assert clip.perturbed.shape == (2, 64, 64) and clip.perturbed.dtype == np.uint8
        assert clip.valid.shape == (2,) and clip.valid.dtype == bool and clip.valid[0]
        assert all(array.flags.c_contiguous for array in jax.tree.leaves(clip))
        for o in range(2):
            mask = clip.labels[0] == o + 1
            if clip.valid[o]:
                assert mask.sum() >= 64**2 * video.min_area
                assert iou(clip.perturbed[o], mask) >= _CLIP.perturb
            else:
                assert not (clip.labels == o + 1).any() and not clip.perturbed[o].any()
        assert clip.labels.max() <= 2
        filled += clip.valid
    assert filled[0] == 20 and filled[1] > 8
    again = clip_of(19, FakeVideos((8, 3, 2)), video=video)
    assert same(again, clip)


def test_labels_follow_the_pixels():
    video = VideoConfig(
        gaps=(2,), phases=(), frame_turn=8, frame_shift=0.05, frame_bend=0.02, **_NO_COLOUR
    )
    orders = set()
    for seed in range(12):
        clip = clip_of(seed, FakeVideos(shape=(120, 160), radii=(24, 20)), video=video)
        shown = seen(clip.frames)
        for o in np.flatnonzero(clip.valid):
            mask = clip.labels == o + 1
            overlaps = [iou(mask, place) for place in shown]
            assert max(overlaps) > 0.9
            if clip.valid.all():
                orders.add((int(o), int(np.argmax(overlaps))))
    assert orders == {(0, 0), (0, 1), (1, 0), (1, 1)}  # any object may fill any slot


def test_frames_come_in_order():
    clip = clip_of(0, FakeVideos((20,)))
    numbers = np.median(clip.frames[..., 2], axis=(1, 2)) / 10
    assert set(np.diff(numbers)) <= {1, 2, 3} and (np.diff(numbers) > 0).all()
    back = clip_of(0, FakeVideos((20,)), reverse=1.0)
    assert (np.diff(np.median(back.frames[..., 2], axis=(1, 2))) < 0).all()
    near = clip_of(0, FakeVideos((20,), spacing=5))
    assert set(np.diff(np.median(near.frames[..., 2], axis=(1, 2))) / 10) == {1}


def test_the_sequence_moves_as_one_and_frames_on_their_own():
    source = FakeVideos(still=True)
    video = VideoConfig(gaps=(2,), phases=(), frame_colour=0.0)
    together = clip_of(3, source, video=video)
    assert (together.frames == together.frames[:1]).all()
    assert (together.labels == together.labels[:1]).all()
    for setting in ("frame_turn", "frame_shift", "frame_bend"):
        value = 20.0 if setting == "frame_turn" else 0.1
        apart = clip_of(3, source, video=video, **{setting: value})
        assert (apart.labels[0] != apart.labels[1]).any(), setting
    coloured = clip_of(3, source, video=video, frame_colour=0.2)
    assert (coloured.labels == coloured.labels[:1]).all()
    assert (coloured.frames != coloured.frames[:1]).any()


def test_flips_and_crops_are_drawn():
    source = FakeVideos(still=True, radii=(12, 0))
    middles, areas = [], []
    for seed in range(40):
        labels = clip_of(seed, source, flip=0.5, crop=1.0).labels[0]
        middles.append(np.nonzero(labels)[1].mean() < 32)
        areas.append((clip_of(seed, source, crop=0.2).labels[0] > 0).sum())
    assert 8 < sum(middles) < 32
    assert max(areas) > 2 * min(areas)


def test_colours_are_left_to_the_device():
    loud = dict(brightness=0.5, hue=1.0, frame_colour=0.3, grey=1.0)
    plain = clip_of(1, FakeVideos(still=True), on_device=True, **loud)
    assert set(map(tuple, plain.frames[0, 2:5, 2:-2].reshape(-1, 3))) == {(100, 100, 0)}
    grey = clip_of(1, FakeVideos(still=True), **loud)
    assert np.ptp(grey.frames.astype(int), axis=-1).max() <= 1


def test_objects_of_the_wrong_size_are_background():
    labels = np.zeros((20, 20), np.uint8)
    labels[0, :5], labels[2:4], labels[5:15] = 1, 2, 3
    rng = np.random.default_rng(0)
    assert set(choose_objects(rng, labels, 5, 1, 400).tolist()) == {1, 2, 3}
    assert choose_objects(rng, labels, 5, 6, 100).tolist() == [2]
    assert len(choose_objects(rng, labels, 2, 0, 400)) == 2
    assert not len(choose_objects(rng, 0 * labels, 2, 0, 400))
    for seed in range(6):  # the red object covers 6 % of the frame, the green one 3 %
        clip = clip_of(seed, FakeVideos(still=True), min_area=0.04)
        assert clip.valid.tolist() == [True, False]
        assert iou(clip.labels == 1, seen(clip.frames)[0]) > 0.9
        clip = clip_of(seed, FakeVideos(still=True), max_area=0.04)
        assert iou(clip.labels == 1, seen(clip.frames)[1]) > 0.9


def test_later_frames_may_be_empty():
    class Vanishing(FakeVideos):
        def read(self, index, frame):
            image, ids = super().read(index, frame)
            return image, ids if frame == 0 else 0 * ids

    clip = clip_of(0, Vanishing())
    assert clip.labels[0].any() and not clip.labels[1:].any()


def test_without_objects_other_sequences_are_tried():
    class FirstEmpty(FakeVideos):
        def read(self, index, frame):
            image, ids = super().read(index, frame)
            return image, ids * (index == 1)

    source = FirstEmpty((6, 6))
    for seed in range(4):
        assert clip_of(seed, source, tries=3).valid.any()
    source = FakeVideos((6, 6), radii=(0, 0))
    with pytest.raises(NoObjectError, match="the last video[01], show no object of 0.05 to 100 %"):
        clip_of(0, source, tries=2)
    assert len(source.reads) == 20  # ten sequences, two first frames of each, nothing else


def test_unusable_sequences_are_named():
    with pytest.raises(RdejaxError, match="video0: 1 frames with a mask"):
        clip_of(0, FakeVideos((1,)))
    with pytest.raises(RdejaxError, match="video0/00002.jpg: cannot be read"):
        clip_of(0, FakeVideos((4,), bad=[(0, 2)]))

    class Growing(FakeVideos):
        def read(self, index, frame):
            self.shape = (60, 80 + frame)
            return super().read(index, frame)

    with pytest.raises(RdejaxError, match="video0: annotated frame 1 is 81x60, another 80x60"):
        clip_of(0, Growing((4,)))
