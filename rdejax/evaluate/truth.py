"""True masks, by the ids that `rdejax infer` gives their objects."""

import functools
from pathlib import Path

from rdejax.io.datasets import VideoSequence
from rdejax.io.masks import BENCHMARK, IdMask
from rdejax.io.sequence_masks import SequenceMasks


def read_truth(sequence: VideoSequence, path: Path) -> IdMask:
    """One of a sequence's true masks.

    Raises:
      BadFile: see `SequenceMasks.read`.
    """
    return _masks(tuple(sequence.masks.values())).read(path)


@functools.lru_cache(maxsize=64)
def _masks(paths: tuple[Path, ...]) -> SequenceMasks:
    return SequenceMasks(lambda: paths, BENCHMARK)
