"""What was read last, kept within a bound."""

import threading
from collections.abc import Callable
from typing import Any

import cachetools
import numpy as np
from jaxtyping import UInt8

Frame = tuple[UInt8[np.ndarray, "h w 3"], UInt8[np.ndarray, "h w"]]


class LockedCache(cachetools.LRUCache):
    """A least-recently-used cache with a lock; a copy for another process is sent empty.

    Args:
      maxsize: bound on the sum of sizes.
      getsizeof: size of a value; each counts 1 by default.

    Attributes:
      lock: to be held while the cache is used, but not while a value is made: threads decode side
        by side.
    """

    def __init__(self, maxsize: float, getsizeof: Callable[[Any], float] | None = None):
        super().__init__(maxsize, getsizeof)
        self.lock, self._arguments = threading.Lock(), (maxsize, getsizeof)

    def __reduce__(self):
        return LockedCache, self._arguments


def frame_cache(megabytes: float) -> LockedCache:
    """A cache of `Frame`s, bounded by the bytes of their pixels."""
    return LockedCache(megabytes * 1e6, frame_bytes)


def frame_bytes(frame: Frame) -> int:
    """Bytes of the pixels of an image and its ids."""
    return frame[0].nbytes + frame[1].nbytes
