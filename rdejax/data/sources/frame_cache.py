"""Decoded frames of videos, kept within a bound."""

import collections
import threading

import numpy as np
from jaxtyping import UInt8

from rdejax.data.sources.videos import VideoSource

Frame = tuple[UInt8[np.ndarray, "h w 3"], UInt8[np.ndarray, "h w"]]


class FrameCache:
    """A `VideoSource` that keeps the frames read last.

    A few small videos fit whole; of a large data set, it spares reading a frame again when a clip
    is drawn anew. A copy that is sent to another process is sent empty.

    Args:
      source: the videos.
      megabytes: bound on the memory, per process.
    """

    def __init__(self, source: VideoSource, megabytes: int):
        self.source, self.spacing, self.repeat = source, source.spacing, source.repeat
        self._limit, self._bytes = megabytes * 1_000_000, 0
        self._kept: collections.OrderedDict[tuple[int, int], Frame] = collections.OrderedDict()
        self._lock = threading.Lock()

    def __reduce__(self):
        return FrameCache, (self.source, self._limit // 1_000_000)

    def __len__(self) -> int:
        return len(self.source)

    def name(self, index: int) -> str:
        """See `VideoSource.name`."""
        return self.source.name(index)

    def length(self, index: int) -> int:
        """See `VideoSource.length`."""
        return self.source.length(index)

    def read(self, index: int, frame: int) -> Frame:
        """See `VideoSource.read`."""
        key = index, frame
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key]
        item = self.source.read(index, frame)  # not under the lock: threads decode side by side
        with self._lock:
            if key not in self._kept:
                self._kept[key] = item
                self._bytes += _size(item)
            while self._bytes > self._limit:
                self._bytes -= _size(self._kept.popitem(last=False)[1])
        return item

    def __repr__(self) -> str:
        return f"FrameCache({self.source!r})"


def _size(frame: Frame) -> int:
    return frame[0].nbytes + frame[1].nbytes
