"""Batches: mixtures of sources, determinism, workers, hosts, unusable files, memory."""

import logging
import pickle
from typing import Any

import cv2
import jax
import numpy as np
import pytest
from helpers_videos import FakeVideos, same
from PIL import Image

from rdejax.data import loader as pipeline
from rdejax.data.batch import Clip
from rdejax.data.config import ClipConfig, VideoConfig
from rdejax.data.loader import ClipMaker, Sampler, clip_loader, make_mixture, sizes
from rdejax.data.sources.frame_cache import FrameCache
from rdejax.data.sources.images import StaticFolder
from rdejax.data.synthetic.procedural import ProceduralImages
from rdejax.errors import RdejaxError

_CLIP = ClipConfig(frames=2, size=32, objects=2)
_VIDEO = VideoConfig(gaps=(2,), phases=())
_SYNTHETIC = ProceduralImages(size=48)
_RUN: dict[str, Any] = dict(batch_size=3, seed=5, steps=10)


def save_pair(folder, name: str, ids: np.ndarray, image: np.ndarray | None = None) -> None:
    for kind in ("images", "masks"):
        (folder / kind).mkdir(parents=True, exist_ok=True)
    picture = np.zeros((*ids.shape, 3), np.uint8) if image is None else image
    Image.fromarray(picture).save(folder / "images" / f"{name}.jpg")
    Image.fromarray(ids).save(folder / "masks" / f"{name}.png")


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("static")
    for i in range(5):
        rng = np.random.default_rng(i)
        image = cv2.resize(rng.integers(0, 255, (6, 8, 3), dtype=np.uint8), (80, 60))
        ids = np.zeros((60, 80), np.uint8)
        for o in range(1, 2 + i % 2):
            cv2.ellipse(ids, (26 * o, 30), (11, 16), 20.0 * o, 0, 360, o, -1)
        save_pair(folder, str(i), ids, image)
    return str(folder)


def mixed(root) -> list:
    return [root, _SYNTHETIC, FakeVideos((6, 3))]


# Determinism


def test_batches_are_deterministic_and_seekable(root):
    one = clip_loader(mixed(root), (1, 1, 1), _CLIP, video=_VIDEO, threads=1, **_RUN)
    batches = [next(one) for _ in range(4)]
    assert batches[0].frames.shape == (3, 2, 32, 32, 3)
    assert batches[0].labels.shape == (3, 2, 32, 32)
    assert batches[0].perturbed.shape == (3, 2, 32, 32)
    assert batches[0].valid.shape == (3, 2) and batches[0].valid[:, 0].all()
    many = clip_loader(mixed(root), (1, 1, 1), _CLIP, video=_VIDEO, threads=4, start_step=2, **_RUN)
    assert same(next(many), batches[2]) and same(next(many), batches[3])
    assert not same(batches[0], batches[1])
    settings = _RUN | dict(seed=6)
    assert not same(
        next(clip_loader(mixed(root), (1, 1, 1), _CLIP, video=_VIDEO, **settings)), batches[0]
    )
    settings = _RUN | dict(batch_size=4)
    wider = next(clip_loader(mixed(root), (1, 1, 1), _CLIP, video=_VIDEO, **settings))
    assert (wider.frames[:3] == batches[0].frames).all()


def test_hosts_share_the_batch(root):
    hosts = 3
    settings = _RUN | dict(batch_size=6, start_step=1)
    whole = clip_loader(mixed(root), (), _CLIP, video=_VIDEO, **settings)
    parts = [
        clip_loader(mixed(root), (), _CLIP, video=_VIDEO, shard=(h, hosts), **settings)
        for h in range(hosts)
    ]
    for _ in range(2):
        expected = next(whole)
        shares = [next(part) for part in parts]
        assert all(len(s.valid) == 6 // hosts for s in shares)
        assert same(jax.tree.map(lambda *x: np.concatenate(x), *shares), expected)


@pytest.mark.slow
def test_worker_processes_give_the_same_batches(root):
    settings = _RUN | dict(batch_size=2, start_step=3)
    alone = clip_loader(mixed(root), (), _CLIP, video=_VIDEO, **settings)
    shared = clip_loader(mixed(root), (), _CLIP, video=_VIDEO, workers=2, **settings)
    assert all(same(next(alone), next(shared)) for _ in range(5))


def test_makers_can_be_sent_to_workers(root):
    mixture = make_mixture(
        [StaticFolder(root), ProceduralImages(), FakeVideos()], (1, 1, 1), _CLIP, _VIDEO
    )
    maker = ClipMaker(mixture, 3, 0, 5, 0, 10)
    first = maker(4)
    assert same(pickle.loads(pickle.dumps(maker))(4), first)


def test_the_curriculum_follows_the_step():
    video = VideoConfig(
        gaps=(1, 8), phases=(0.5,), reverse=0.0, crop=1.0, turn=0, shear=0, zoom=0, flip=0,
        brightness=0, contrast=0, saturation=0, frame_colour=0, grey=0,
    )  # fmt: skip
    loader = clip_loader([FakeVideos((20,))], (), _CLIP, video=video, **_RUN)
    batches = [next(loader) for _ in range(10)]
    numbers = [np.median(b.frames[..., 2], axis=(2, 3)) / 10 for b in batches]
    gaps = np.array([np.rint(n[:, 1] - n[:, 0]) for n in numbers])
    assert (gaps[:5] == 1).all() and gaps[5:].max() > 3


# Mixtures


def named(name: str) -> Clip:
    frames = np.zeros((1, 1, 1, 3), np.uint8)
    return Clip(frames, frames[..., 0], frames[..., 0], np.ones(1, bool), given={"name": name})


def test_weights_are_followed(root, monkeypatch):
    sources = [StaticFolder(root), ProceduralImages(), FakeVideos()]
    monkeypatch.setattr(pipeline, "make_clip", lambda rng, draw, clip: named(type(draw).__name__))
    monkeypatch.setattr(pipeline, "make_video_clip", lambda *a: named("video"))
    mixture = make_mixture(sources, (1, 3, 4), _CLIP, _VIDEO)
    rng = np.random.default_rng(0)
    drawn = [mixture(rng, 0.0).given["name"] for _ in range(1500)]
    shares = {name: drawn.count(name) / 1500 for name in set(drawn)}
    expected = {"Sampler": 1 / 8, "ProceduralImages": 3 / 8, "video": 1 / 2}
    assert shares == pytest.approx(expected, abs=0.04)
    none = make_mixture(sources, (0, 0, 2), _CLIP, _VIDEO)
    assert {none(rng, 0.0).given["name"] for _ in range(50)} == {"video"}


def test_sizes_count_images_and_repeated_sequences(root):
    davis, other = FakeVideos((5,) * 6, repeat=5), FakeVideos((5,) * 9)
    assert sizes([StaticFolder(root), davis, other]) == [5, 30, 9]
    assert sizes([davis, ProceduralImages(), other]) == [30, 19.5, 9]
    assert sizes([ProceduralImages()]) == [1]


def test_images_of_all_static_sources_meet(root, tmp_path):
    save_pair(tmp_path, "x", np.ones((20, 30), np.uint8))
    sampler = Sampler([StaticFolder(root), StaticFolder(tmp_path)], (3, 1))
    rng = np.random.default_rng(0)
    share = np.mean([sampler(rng)[1].shape == (20, 30) for _ in range(800)])
    assert abs(share - 0.25) < 0.05
    mixture = make_mixture(sampler.sources, (3, 1), _CLIP, _VIDEO)
    assert len(mixture.makers) == 1


# Unusable files


def test_unusable_images_are_skipped_if_told(tmp_path, caplog):
    ones = np.ones((20, 30), np.uint8)
    save_pair(tmp_path, "good", ones)
    save_pair(tmp_path, "bad", 0 * ones)
    rng, source = np.random.default_rng(0), StaticFolder(tmp_path)
    with pytest.raises(RdejaxError, match="bad.png"):
        [Sampler([source], (1,))(rng) for _ in range(30)]
    sampler = Sampler([source], (1,), skip_bad=True)
    with caplog.at_level(logging.WARNING):
        assert all(sampler(rng)[1].all() for _ in range(30))
    assert [r.message.count("bad.png") for r in caplog.records] == [1]  # told once


def test_unusable_frames_are_skipped_if_told(caplog):
    source = FakeVideos((3, 3), bad=[(0, 0), (1, 2)])
    with pytest.raises(RdejaxError, match="0000[02].jpg: cannot be read"):
        loader = clip_loader([source], (), _CLIP, video=_VIDEO, **_RUN)
        [next(loader) for _ in range(6)]
    with caplog.at_level(logging.WARNING):
        loader = clip_loader([source], (), _CLIP, video=_VIDEO, skip_bad=True, threads=1, **_RUN)
        assert all(next(loader).valid[:, 0].all() for _ in range(6))
    messages = [r.message for r in caplog.records if "skipped" in r.message]
    assert len(messages) == 2 and len(set(messages)) == 2


def test_nothing_but_unusable_files_is_an_error(root):
    source = FakeVideos((3,), bad=[(0, f) for f in range(3)])
    with pytest.raises(RdejaxError, match="20 unusable files in a row; the last: video0/0000"):
        next(clip_loader([source], (), _CLIP, video=_VIDEO, skip_bad=True, **_RUN))
    empty = FakeVideos((3,), radii=(0, 0))
    with pytest.raises(RdejaxError, match="show no object"):
        next(clip_loader([empty], (), _CLIP, video=_VIDEO, skip_bad=True, **_RUN))
    assert len(empty.reads) <= 4 * 10 * _VIDEO.tries * 3  # not tried over and over


@pytest.mark.parametrize(
    "weights, changed, message",
    [
        ((-1.0, 1.0), {}, "data weights"),
        ((0.0, 0.0), {}, "data weights"),
        ((float("nan"), 1.0), {}, "data weights"),
        ((1.0,), {}, "1 data weights for 2 sources"),
        ((), {"batch_size": 0}, "batch_size=0"),
        ((), {"steps": 0}, "steps=0"),
        ((), {"threads": 0}, "threads=0"),
        ((), {"seed": -1}, "seed=-1"),
        ((), {"shard": (2, 2)}, "host 2 of 2"),
        ((), {"shard": (0, 2)}, "batch_size=3 is not divisible by 2 hosts"),
    ],
)
def test_bad_settings(weights, changed, message):
    with pytest.raises(RdejaxError, match=message):
        clip_loader([FakeVideos(), ProceduralImages()], weights, _CLIP, **(_RUN | changed))


def test_missing_data_are_errors(tmp_path):
    with pytest.raises(RdejaxError, match="no training data"):
        clip_loader([], (), _CLIP, **_RUN)
    with pytest.raises(RdejaxError, match="missing: no such folder"):
        clip_loader([str(tmp_path / "missing")], (), _CLIP, **_RUN)
    save_pair(tmp_path, "bad", np.zeros((20, 30), np.uint8))
    with pytest.raises(RdejaxError, match="bad.png"):
        next(clip_loader([str(tmp_path)], (), _CLIP, **_RUN))


# Memory


def test_kept_frames_are_bounded():
    source = FakeVideos((200,), shape=(100, 100))  # 40 kB each
    cache = FrameCache(source, 1)
    for frame in range(60):
        image, ids = cache.read(0, frame)
        assert image[0, 0, 2] == 10 * frame % 256 and ids.shape == (100, 100)
    assert len(cache._kept) == 25 and cache._kept.currsize == 1_000_000
    cache.read(0, 59)
    cache.read(0, 35)
    assert len(source.reads) == 60  # the last 25 are there
    cache.read(0, 34)
    assert len(source.reads) == 61 and (0, 36) not in cache._kept and (0, 35) in cache._kept
    sent = pickle.loads(pickle.dumps(cache))
    assert not sent._kept and sent._kept.maxsize == 1_000_000
    assert (sent.spacing, sent.repeat, len(sent), sent.length(0), sent.name(0)) == (
        1, 1, 1, 200, "video0",
    )  # fmt: skip
    none = FrameCache(source, 0)
    assert none.read(0, 7)[0][0, 0, 2] == 70 and not none._kept


def test_a_run_stops_when_most_is_bad():
    """As when a folder is gone and only what is in memory can still be used."""
    tries = iter(range(10**6))

    class Mostly:
        def __len__(self):
            return 1

        def __getitem__(self, index):
            if next(tries) % 4:
                raise RdejaxError("gone.png: no such file")
            return np.zeros((4, 4, 3), np.uint8), np.ones((4, 4), np.uint8)

    sampler = Sampler([Mostly()], (1,), skip_bad=True)
    rng = np.random.default_rng(0)
    with pytest.raises(RdejaxError, match="150 of the last 200 files could not be used.*gone.png"):
        for _ in range(1000):
            sampler(rng)
    assert next(tries) == 200
