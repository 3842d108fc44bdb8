"""Decoded frames of videos, kept within a bound."""

import cachetools

from rdejax.data.sources.cache import Frame, frame_cache
from rdejax.data.sources.videos import VideoSource


class FrameCache:
    """A `VideoSource` that keeps the frames read last.

    A few small videos fit whole; of a large data set, it spares reading a frame again when a clip
    is drawn anew. A copy that is sent to another process is sent empty.

    Args:
      source: the videos.
      megabytes: bound on the memory, per process.
    """

    def __init__(self, source: VideoSource, megabytes: float):
        self.source, self.spacing, self.repeat = source, source.spacing, source.repeat
        self._kept = frame_cache(megabytes)

    def __len__(self) -> int:
        return len(self.source)

    def name(self, index: int) -> str:
        """See `VideoSource.name`."""
        return self.source.name(index)

    def length(self, index: int) -> int:
        """See `VideoSource.length`."""
        return self.source.length(index)

    @cachetools.cachedmethod(lambda self: self._kept, lock=lambda self: self._kept.lock)
    def read(self, index: int, frame: int) -> Frame:
        """See `VideoSource.read`."""
        return self.source.read(index, frame)

    def __repr__(self) -> str:
        return f"FrameCache({self.source!r})"
