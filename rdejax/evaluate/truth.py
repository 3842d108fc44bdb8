"""True masks, by the ids that `rdejax infer` gives their objects.

Most hold ids. Those in colours get the ids that inference gives the same colours, where it is given
the same masks: of all masks of the sequence, in order.
"""

import functools
from pathlib import Path

from rdejax.errors import BadFile, RdejaxError
from rdejax.io.datasets import VideoSequence
from rdejax.io.given import MaskReader
from rdejax.io.masks import BENCHMARK, IdMask, read_mask


def read_truth(sequence: VideoSequence, path: Path) -> IdMask:
    """One of a sequence's true masks.

    Raises:
      BadFile: see `read_mask`; or colours that cannot be ids.
    """
    try:
        return read_mask(path, BENCHMARK)
    except BadFile as error:
        if error.problem != "mask in colours":
            raise
        reader = _reader(tuple(sequence.masks.values()))
        try:
            return reader.read(path)
        except RdejaxError as other:
            raise BadFile(str(other), error.problem) from None


@functools.lru_cache(maxsize=64)
def _reader(paths: tuple[Path, ...]) -> MaskReader:
    """A reader that knows the colours of all masks, and so changes no more."""
    reader = MaskReader(255)
    for path in paths:
        reader.read(path)
    return reader
