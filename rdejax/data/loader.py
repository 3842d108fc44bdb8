"""Batches of clips from any mixture of sources, deterministic and seekable."""

import collections
import dataclasses
import functools
import logging
from collections.abc import Callable, Iterator, Sequence

import cv2
import grain
import numpy as np

from rdejax.data.batch import Clip
from rdejax.data.clips.from_images import make_clip
from rdejax.data.clips.from_videos import NoObjectError, make_video_clip
from rdejax.data.clips.paste import Donors
from rdejax.data.config import ClipConfig, VideoConfig
from rdejax.data.sources.frame_cache import FrameCache
from rdejax.data.sources.images import StaticImages
from rdejax.data.sources.spec import Source, open_source
from rdejax.data.sources.videos import VideoSource
from rdejax.data.synthetic.procedural import ProceduralImages
from rdejax.data.workers import from_workers
from rdejax.errors import RdejaxError

_log = logging.getLogger(__name__)
_ENDLESS = 1 << 40
_BAD_IN_A_ROW = 20
# A run stops when two thirds of so many attempts failed.
_LATELY = 200

Maker = Callable[[np.random.Generator, float], Clip]


class Sampler:
    """Draws random images from several sources.

    Args:
      sources: sources of images.
      weights: how likely each is, relative.
      skip_bad: log a file that cannot be used and draw another one, instead of raising.
    """

    def __init__(
        self, sources: Sequence[StaticImages], weights: Sequence[float], *, skip_bad: bool = False
    ):
        self.sources, self.shares = list(sources), _shares(weights)
        self._skipped = _Skipped() if skip_bad else None

    def __call__(self, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """A random image uint8 [H, W, 3] and its id mask uint8 [H, W].

        Raises:
          RdejaxError: an image or a mask that cannot be used.
        """

        def read() -> tuple[np.ndarray, np.ndarray]:
            source = self.sources[rng.choice(len(self.sources), p=self.shares)]
            return source[int(rng.integers(len(source)))]

        return _retry(read, self._skipped)


class VideoClips:
    """Makes clips of the videos of one source.

    Args:
      source: the videos.
      clip: see `make_video_clip`.
      video: see `make_video_clip`.
      donors: see `make_video_clip`.
      skip_bad: log a frame that cannot be used and make another clip, instead of raising.
    """

    def __init__(
        self,
        source: VideoSource,
        clip: ClipConfig,
        video: VideoConfig,
        *,
        donors: Donors | None = None,
        skip_bad: bool = False,
    ):
        self.source, self.clip, self.video, self.donors = source, clip, video, donors
        self._skipped = _Skipped() if skip_bad else None

    def __call__(self, rng: np.random.Generator, progress: float) -> Clip:
        """A random clip at a share of the run."""

        def make() -> Clip:
            return make_video_clip(rng, self.source, self.clip, self.video, progress, self.donors)

        return _retry(make, self._skipped)


class _Skipped:
    """What could not be used of late; each error is logged once."""

    def __init__(self) -> None:
        self._told: set[str] = set()
        self._lately: collections.deque[bool] = collections.deque(maxlen=_LATELY)

    def add(self, error: RdejaxError | None) -> None:
        """Takes note of one attempt.

        Raises:
          RdejaxError: most of the last ones failed.
        """
        self._lately.append(error is not None)
        if error is None:
            return
        if str(error) not in self._told:
            self._told.add(str(error))
            _log.warning("skipped: %s", error)
        failed = sum(self._lately)
        if len(self._lately) == _LATELY and 3 * failed > 2 * _LATELY:
            raise RdejaxError(
                f"{failed} of the last {_LATELY} files could not be used; the last: {error}"
            )


def _retry(attempt: Callable, skipped: _Skipped | None):
    """The first result of `attempt` that is no error.

    Args:
      attempt: what is tried.
      skipped: takes note of errors; None: no error is skipped.

    Raises:
      RdejaxError: too many errors in a row or of late, or one that is not about a file.
    """
    last = None
    for _ in range(_BAD_IN_A_ROW):
        try:
            result = attempt()
        except RdejaxError as error:
            if skipped is None or isinstance(error, NoObjectError):
                raise
            skipped.add(error)
            last = error
        else:
            if skipped is not None:
                skipped.add(None)
            return result
    raise RdejaxError(f"{_BAD_IN_A_ROW} unusable files in a row; the last: {last}")


@dataclasses.dataclass(frozen=True)
class Mixture:
    """Clips of several kinds, each as likely as its share."""

    makers: list[Maker]
    shares: np.ndarray

    def __call__(self, rng: np.random.Generator, progress: float) -> Clip:
        """A random clip at a share of the run."""
        return self.makers[rng.choice(len(self.makers), p=self.shares)](rng, progress)


def _from_images(draw, clip: ClipConfig, rng: np.random.Generator, progress: float) -> Clip:
    del progress
    return make_clip(rng, draw, clip)


def make_mixture(
    sources: Sequence[Source],
    weights: Sequence[float],
    clip: ClipConfig,
    video: VideoConfig,
    *,
    skip_bad: bool = False,
) -> Mixture:
    """Makers of clips for sources that are open.

    Images of all static sources meet in one clip: one lends the background, another what is pasted
    over it. Procedural images keep to themselves, and so does each source of videos, but for the
    objects that `video.paste` takes from all of them and from the static sources.

    Args:
      sources: see `rdejax.data.sources.spec.open_source`.
      weights: how likely each is, relative; not negative, one of them positive.
      clip: see `clip_loader`.
      video: see `clip_loader`.
      skip_bad: see `clip_loader`.
    """
    used = [(s, w) for s, w in zip(sources, weights, strict=True) if w > 0]
    makers: list[Maker] = []
    total: list[float] = []
    static = [(s, w) for s, w in used if isinstance(s, StaticImages)]
    sampler = None
    if static:
        sampler = Sampler([s for s, _ in static], [w for _, w in static], skip_bad=skip_bad)
        makers.append(functools.partial(_from_images, sampler, clip))
        total.append(sum(w for _, w in static))
    videos = [(s, w) for s, w in used if isinstance(s, VideoSource)]
    kept = {id(s): FrameCache(s, video.keep_megabytes // len(videos)) for s, _ in videos}
    donors = Donors([*kept.values()], [w for _, w in videos], sampler) if videos else None
    for source, weight in used:
        if isinstance(source, StaticImages):
            continue
        if isinstance(source, ProceduralImages):
            makers.append(functools.partial(_from_images, source, clip))
        else:
            frames = kept[id(source)]
            makers.append(VideoClips(frames, clip, video, donors=donors, skip_bad=skip_bad))
        total.append(weight)
    return Mixture(makers, _shares(total))


def sizes(sources: Sequence[Source]) -> list[float]:
    """Weights by size: images, or sequences times `repeat`.

    Procedural images, which have no number, count as much as the others do on average.
    """
    known = [
        None
        if isinstance(s, ProceduralImages)
        else float(len(s) * (s.repeat if isinstance(s, VideoSource) else 1))
        for s in sources
    ]
    given = [size for size in known if size is not None]
    average = sum(given) / len(given) if given else 1.0
    return [average if size is None else size for size in known]


def _shares(weights: Sequence[float]) -> np.ndarray:
    values = np.array(weights, float)
    if not np.isfinite(values).all() or values.min() < 0 or values.sum() == 0:
        raise RdejaxError(
            f"data weights {values.tolist()}: give numbers from 0 on, one of them positive"
        )
    return values / values.sum()


@dataclasses.dataclass(frozen=True)
class ClipMaker:
    """Clip n of this host, n = step * share + i; depends on (seed, step, first + i) alone.

    Attributes:
      mixture: makes the clips.
      share: clips per batch on this host.
      first: number within the whole batch of this host's first clip.
      seed: of everything random.
      start_step: step of clip 0.
      steps: length of the run.
    """

    mixture: Mixture
    share: int
    first: int
    seed: int
    start_step: int
    steps: int

    def __call__(self, number: int) -> Clip:
        """The clip, see `make_clip`."""
        # Threads and workers come from outside: OpenCV's own would compete with them.
        cv2.setNumThreads(1)
        step, i = divmod(int(number), self.share)
        step += self.start_step
        rng = np.random.default_rng([self.seed, step, self.first + i])
        return self.mixture(rng, min(1.0, step / self.steps))


def clip_loader(
    specs: Sequence[str | Source],
    weights: Sequence[float],
    clip: ClipConfig,
    *,
    video: VideoConfig = VideoConfig(),  # noqa: B008 (frozen)
    batch_size: int,
    seed: int,
    steps: int,
    threads: int = 2,
    workers: int = 0,
    start_step: int = 0,
    skip_bad: bool = False,
    shard: tuple[int, int] = (0, 1),
) -> Iterator[Clip]:
    """Endless batches; clip i of step s depends on (seed, s, i) alone, so any step can be first.

    The same holds for any number of threads, workers and hosts.

    Args:
      specs: sources, see `rdejax.data.sources.spec.open_source`; or sources that are open.
      weights: how likely a clip is of each, relative; none: by their numbers of images, or of
        sequences times `repeat`.
      clip: what a clip is, and how clips are made of images.
      video: how clips are cut from videos.
      batch_size: clips per batch, over all hosts.
      seed: of everything random, 0 or more.
      steps: length of the run, for the curriculum of `video`.
      threads: threads that prepare clips ahead (OpenCV and Pillow release the interpreter lock).
      workers: processes that do so, each with its own threads and its own copy of the images; 0:
        this process does, which is right for a few cores.
      start_step: first step.
      skip_bad: log unusable files and go on without them, instead of raising.
      shard: (h, n), this is host h of n: clips h B/n up to (h+1) B/n of every batch of B.

    Returns:
      Iterator of batches, with one leading axis.

    Raises:
      RdejaxError: no source given, one without data, or a number out of range; from the iterator
        `rdejax.data.workers.WorkerLost`, too.
    """
    _check(specs, weights, shard, batch_size=batch_size, threads=threads, steps=steps)
    if min(workers, seed, start_step) < 0:
        raise RdejaxError(
            f"workers={workers}, seed={seed}, step={start_step}: give no negative number"
        )
    sources = [open_source(s, skip_bad=skip_bad) if isinstance(s, str) else s for s in specs]
    given = [*weights] or sizes(sources)
    _shares(given)
    static = [source for source in sources if isinstance(source, StaticImages)]
    for source in static:
        source.share_memory(len(static) * max(1, workers))
    mixture = make_mixture(sources, given, clip, video, skip_bad=skip_bad)
    share = batch_size // shard[1]
    return _batches(
        ClipMaker(mixture, share, shard[0] * share, seed, start_step, steps), threads, workers
    )


def _batches(maker: ClipMaker, threads: int, workers: int) -> Iterator[Clip]:
    # A thread makes a whole batch, so fewer than there are threads would leave some idle.
    ahead = max(threads, 4 // max(1, workers))
    share = functools.partial(_share, maker, threads, ahead)
    return from_workers(share, workers) if workers else share(0, 1)


def _share(maker: ClipMaker, threads: int, ahead: int, index: int, count: int) -> Iterator[Clip]:
    """Every `count`-th batch from number `index` on."""
    batches = grain.MapDataset.range(_ENDLESS).map(maker).batch(maker.share)[index::count]
    options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=ahead)
    return iter(batches.to_iter_dataset(options))


def _check(
    specs: Sequence, weights: Sequence[float], shard: tuple[int, int], **positive: int
) -> None:
    if not specs:
        raise RdejaxError(
            "no training data: give --data with folders of images or videos, or synthetic"
        )
    if len(weights) not in (0, len(specs)):
        raise RdejaxError(
            f"{len(weights)} data weights for {len(specs)} sources: give one for each, or none"
        )
    for name, value in positive.items():
        if value < 1:
            raise RdejaxError(f"{name}={value}: give 1 or more")
    host, hosts = shard
    if not 0 <= host < hosts:
        raise RdejaxError(f"host {host} of {hosts}: give a number from 0 to {hosts - 1}")
    if positive["batch_size"] % hosts:
        raise RdejaxError(
            f"batch_size={positive['batch_size']} is not divisible by {hosts} hosts; change it"
        )
