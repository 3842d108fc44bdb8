"""Batches of clips, deterministic and seekable."""

import dataclasses
import logging
from collections.abc import Iterator

import cv2
import grain
import numpy as np

from rdejax.data.clips import make_clip
from rdejax.data.config import ClipConfig
from rdejax.data.sources import StaticFolder
from rdejax.errors import RdejaxError

_log = logging.getLogger(__name__)
_ENDLESS = 1 << 40
_BAD_IN_A_ROW = 20


class Sampler:
    """Draws random images from several folders.

    Args:
      roots: folders and their sampling weights (relative, not negative).
      skip_bad: log a file that cannot be used and draw another one, instead of raising.

    Raises:
      RdejaxError: no folder, one without images, or weights that cannot be sampled from.
    """

    def __init__(self, roots: list[tuple[str, float]], *, skip_bad: bool = False):
        if not roots:
            raise RdejaxError("no training data: give --data FOLDER with images/ and masks/ in it")
        weights = np.array([weight for _, weight in roots], float)
        if not np.isfinite(weights).all() or weights.min() < 0 or weights.sum() == 0:
            raise RdejaxError(
                f"data weights {weights.tolist()}: give numbers from 0 on, one of them positive"
            )
        self.sources = [StaticFolder(root) for root, _ in roots]
        self.shares, self.skip_bad = weights / weights.sum(), skip_bad
        self._told: set[tuple[int, int]] = set()

    def __call__(self, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """A random image uint8 [H, W, 3] and its id mask uint8 [H, W].

        Raises:
          RdejaxError: an image or a mask that cannot be used.
        """
        for attempt in range(_BAD_IN_A_ROW):
            which = int(rng.choice(len(self.sources), p=self.shares))
            index = int(rng.integers(len(self.sources[which])))
            try:
                return self.sources[which][index]
            except RdejaxError as error:
                if not self.skip_bad or attempt == _BAD_IN_A_ROW - 1:
                    raise
                if (which, index) not in self._told:
                    self._told.add((which, index))
                    _log.warning("skipped: %s", error)
        raise AssertionError("unreachable")


@dataclasses.dataclass(frozen=True)
class ClipMaker:
    """Clip number n of a run, n = step * batch_size + i; depends on (seed, step, i) alone."""

    sampler: Sampler
    config: ClipConfig
    batch_size: int
    seed: int
    start_step: int = 0

    def __call__(self, number: int) -> dict[str, np.ndarray]:
        """The clip, see `make_clip`."""
        # Threads and workers come from outside: OpenCV's own would compete with them.
        cv2.setNumThreads(1)
        step, i = divmod(int(number), self.batch_size)
        rng = np.random.default_rng([self.seed, step + self.start_step, i])
        return make_clip(rng, self.sampler, self.config)


def clip_loader(
    roots: list[tuple[str, float]],
    config: ClipConfig,
    *,
    batch_size: int,
    seed: int,
    threads: int = 2,
    start_step: int = 0,
    workers: int = 0,
    skip_bad: bool = False,
) -> Iterator[dict[str, np.ndarray]]:
    """Endless batches; clip i of step s depends on (seed, s, i) alone, so any step can be first.

    The same holds for any number of threads and workers.

    Args:
      roots: folders and their sampling weights.
      config: how clips are made.
      batch_size: clips per batch.
      seed: of everything random, 0 or more.
      threads: threads that prepare clips ahead (OpenCV and Pillow release the interpreter lock).
      start_step: first step.
      workers: processes that do so, each with its own threads and its own copy of the images; 0:
        this process does, which is right for a few cores.
      skip_bad: log unusable files and go on without them, instead of raising.

    Returns:
      Iterator of dictionaries as `make_clip`'s, every array with a leading batch axis.

    Raises:
      RdejaxError: no folder given, one without images, or a number out of range.
    """
    if batch_size < 1 or threads < 1 or workers < 0 or seed < 0 or start_step < 0:
        raise RdejaxError(
            f"batch={batch_size}, threads={threads}, workers={workers}, seed={seed}, step="
            f"{start_step}: give at least one clip and thread, and no negative number"
        )
    maker = ClipMaker(Sampler(roots, skip_bad=skip_bad), config, batch_size, seed, start_step)
    batches = grain.MapDataset.range(_ENDLESS).map(maker).batch(batch_size)
    ahead = max(1, 4 // max(1, workers))
    options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=ahead)
    dataset = batches.to_iter_dataset(options)
    if workers:
        _parse_absl_flags()
        processes = grain.MultiprocessingOptions(num_workers=workers, per_worker_buffer_size=1)
        dataset = dataset.mp_prefetch(processes)
    return iter(dataset)


def _parse_absl_flags() -> None:
    # Grain's processes hand absl's flags on, and refuse to where no one has parsed them.
    from absl import flags

    if not flags.FLAGS.is_parsed():
        flags.FLAGS.mark_as_parsed()
