"""Batches of clips, deterministic and seekable."""

from collections.abc import Iterator

import cv2
import grain
import numpy as np

from rdejax.data.clips import make_clip
from rdejax.data.config import ClipConfig
from rdejax.data.sources import StaticFolder
from rdejax.errors import RdejaxError


def clip_loader(
    roots: list[tuple[str, float]],
    config: ClipConfig,
    *,
    batch_size: int,
    seed: int,
    threads: int = 2,
    start_step: int = 0,
) -> Iterator[dict[str, np.ndarray]]:
    """Endless batches; clip i of step s depends on (seed, s, i) alone, so any step can be resumed at.

    Args:
      roots: folders and their sampling weights.
      config: how clips are made.
      batch_size: clips per batch.
      seed: of everything random.
      threads: threads that prepare clips ahead (OpenCV and Pillow release the interpreter lock).
      start_step: first step.

    Returns:
      Iterator of dictionaries as `make_clip`'s, every array with a leading batch axis.

    Raises:
      RdejaxError: no folder given, or one without images.
    """
    if not roots:
        raise RdejaxError("no training data: give --data FOLDER with images/ and masks/ in it")
    cv2.setNumThreads(1)
    sources = [StaticFolder(root) for root, _ in roots]
    weights = np.array([weight for _, weight in roots], float)
    weights /= weights.sum()

    def draw(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        source = sources[rng.choice(len(sources), p=weights)]
        return source[int(rng.integers(len(source)))]

    def clip(index: int) -> dict[str, np.ndarray]:
        index += start_step * batch_size
        rng = np.random.default_rng([seed, *divmod(index, batch_size)])
        return make_clip(rng, draw, config)

    many = 1 << 40
    dataset = grain.MapDataset.range(many).map(clip).batch(batch_size)
    options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=4)
    return iter(dataset.to_iter_dataset(options))
