"""Object tracks pasted over clips: exact masks, both orders of occlusion, look-alikes, motion."""

import dataclasses

import jax
import numpy as np
import pytest
from helpers_videos import GREEN, IDS, RED, FakeVideos

from rdejax.data.clips.from_videos import make_video_clip
from rdejax.data.clips.paste import Donors, Origin, paste_tracks
from rdejax.data.config import ClipConfig, PasteConfig, VideoConfig
from rdejax.data.loader import make_mixture
from rdejax.errors import RdejaxError

_PLAIN = PasteConfig(
    share=1.0, most=1, smallest=0.3, largest=0.3, lookalike=0.0, still=0.0, behind=0.0, turn=0.0,
    meet=1.0, speed=0.0
)  # fmt: skip
_CLIP = ClipConfig(frames=3, size=64, objects=3)
_RED, _GREEN = IDS


def scene(seed: int, paste: PasteConfig, donor: FakeVideos, hosts=(), size: int = 64, **more):
    """Three frames, dark blue but for a square host of id 9 at 20..44, after pasting."""
    frames = np.zeros((3, size, size, 3), np.uint8)
    labels = np.zeros((3, size, size), np.uint8)
    frames[..., 2] = 50
    frames[:, 20:44, 20:44], labels[:, 20:44, 20:44] = (200, 200, 0), 9
    rng = np.random.default_rng(seed)
    count = paste_tracks(rng, frames, labels, hosts, Donors([donor], **more), _CLIP, paste, gap=1)
    return frames, labels, count


def of_donor(frame: np.ndarray) -> np.ndarray:
    """Where the red object shows, told by its colour (the host is yellow, behind it is blue)."""
    return (frame[..., 0] > 110) & (frame[..., 1] < 100)


@pytest.fixture
def red() -> FakeVideos:
    return FakeVideos((6,), radii=(12, 0))


def test_labels_are_where_the_pixels_are(monkeypatch, red):
    monkeypatch.setattr("rdejax.data.clips.paste._COLOURED", 0.0)
    for seed in range(6):
        frames, labels, count = scene(seed, _PLAIN, red)
        assert count == 1 and set(np.unique(labels)) == {0, 1, 9}
        for frame, ids in zip(frames, labels, strict=True):
            wrong = of_donor(frame) != (ids == 1)
            assert wrong.sum() <= 0.15 * (ids == 1).sum()  # soft edges


def test_what_is_in_front_hides_labels_and_pixels(monkeypatch, red):
    monkeypatch.setattr("rdejax.data.clips.paste._COLOURED", 0.0)
    inside = np.s_[22:42, 22:42]
    hidden = 0
    for seed in range(12):
        before = scene(seed, _PLAIN, red)
        behind = scene(seed, dataclasses.replace(_PLAIN, behind=1.0), red)
        assert (behind[1][:, 20:44, 20:44] == 9).all()
        for frame in behind[0]:
            assert not of_donor(frame[inside]).any()
        hidden += int((before[1][:, 20:44, 20:44] == 1).sum())
        # Beside the host both are alike.
        outside = behind[1] != 9
        assert (before[1][outside] == behind[1][outside]).all()
    assert hidden > 1000


def test_sizes_follow_the_setting(red):
    for size in (0.15, 0.3):
        paste = dataclasses.replace(_PLAIN, smallest=size, largest=size, meet=0.0)
        areas = [(scene(seed, paste, red)[1][0] == 1).sum() for seed in range(20)]
        # Some are cut by the border; none is larger.
        assert 0.85 * (size * 64) ** 2 < max(areas) < 1.15 * (size * 64) ** 2


def test_a_track_moves_as_in_its_video(red):
    paste = dataclasses.replace(_PLAIN, flip=0.0, meet=0.0)
    shifts = []
    for seed in range(20):
        _, labels, _ = scene(seed, paste, red, size=64)
        centres = [np.argwhere(ids == 1).mean(0) for ids in labels if (ids == 1).any()]
        shifts.append(np.diff(centres, axis=0))
    x = np.concatenate(shifts)[:, 1]
    # Two pixels a frame, either way, enlarged like the ellipse; some are cut by the border.
    assert abs(np.median(np.abs(x)) - 2 * 0.3 * 64 / 17.4) < 0.3
    still = FakeVideos((6,), radii=(12, 0), still=True)
    fast = dataclasses.replace(paste, speed=0.1)
    moved = [scene(seed, fast, still)[1] for seed in range(10)]
    assert any((ids[0] != ids[2]).sum() > 100 for ids in moved)


def test_look_alikes_are_the_same_object_once_more(monkeypatch):
    monkeypatch.setattr("rdejax.data.clips.paste._COLOURED", 0.0)
    source = FakeVideos((6, 6))
    paste = dataclasses.replace(_PLAIN, lookalike=1.0)
    for wanted, colour in ((_RED, RED), (_GREEN, GREEN)):
        hosts = [Origin(source, 1, wanted, 20.0)]
        source.reads.clear()
        frames, labels, count = scene(3, paste, source, hosts)
        assert count == 1 and {index for index, _ in source.reads} == {1}
        middle = frames[0][labels[0] == 1].astype(int)
        assert np.abs(np.median(middle[:, :2], axis=0) - colour).max() < 12


def test_donors_are_drawn_by_weight_and_sequence():
    rng = np.random.default_rng(0)
    few, many = FakeVideos((4,)), FakeVideos((4,) * 9)
    drawn = [Donors([few, many]).sequence(rng) for _ in range(400)]
    assert abs(np.mean([source is few for source, _ in drawn]) - 0.1) < 0.05
    assert {index for source, index in drawn if source is many} == set(range(9))
    drawn = [Donors([few, many], [3, 1]).sequence(rng) for _ in range(400)]
    assert abs(np.mean([source is few for source, _ in drawn]) - 0.75) < 0.07


def test_still_images_give_objects_too(red):
    image = np.full((50, 60, 3), (0, 250, 0), np.uint8)
    mask = np.zeros((50, 60), np.uint8)
    mask[10:40, 15:45] = 1
    paste = dataclasses.replace(_PLAIN, still=1.0)
    frames, labels, count = scene(1, paste, red, images=lambda rng: (image, mask))
    assert count == 1 and not red.reads
    shown = frames[0][labels[0] == 1]
    assert len(shown) > 50 and (shown[:, 1] > shown[:, 0]).mean() > 0.9


def test_no_usable_object_is_no_error():
    nothing = FakeVideos((5,), radii=(0, 0))
    frames, labels, count = scene(0, _PLAIN, nothing)
    assert count == 0 and set(np.unique(labels)) == {0, 9}


def test_clips_of_videos_get_pasted_objects_into_their_slots():
    source = FakeVideos((8, 8), radii=(12, 0), shape=(80, 100))
    plain = VideoConfig(gaps=(2,), phases=(), grey=0.0)
    pasted = dataclasses.replace(plain, paste=PasteConfig(share=1.0, most=3))
    slots = []
    for seed in range(30):
        one = make_video_clip(np.random.default_rng(seed), source, _CLIP, plain)
        assert one.valid.sum() == 1
        clip = make_video_clip(np.random.default_rng(seed), source, _CLIP, pasted)
        assert clip.frames.shape == (3, 64, 64, 3) and clip.labels.max() <= 3
        first = set(np.unique(clip.labels[0])) - {0}
        assert first == set(range(1, int(clip.valid.sum()) + 1))
        slots.append(len(first))
    assert {2, 3} <= set(slots)


def test_clips_depend_on_the_generator_alone():
    source = FakeVideos((8, 8))
    video = VideoConfig(paste=PasteConfig(share=1.0))
    mixture = make_mixture([source], [1.0], _CLIP, video)
    again = make_mixture([FakeVideos((8, 8))], [1.0], _CLIP, video)
    for seed in range(4):
        clips = [make(np.random.default_rng(seed), 0.5) for make in (mixture, mixture, again)]
        for clip in clips[1:]:
            same = jax.tree.map(lambda a, b: bool((a == b).all()), clips[0], clip)
            assert all(jax.tree.leaves(same))


@pytest.mark.parametrize(
    "bad", [{"most": 0}, {"smallest": 0.6, "largest": 0.5}, {"share": 1.2}, {"speed": -1.0}]
)
def test_settings_out_of_range_are_refused(bad):
    with pytest.raises(RdejaxError, match=r"video\.paste\."):
        PasteConfig(**bad)
