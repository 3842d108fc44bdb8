"""Videos with masks, frame by frame."""

import functools
import logging
import statistics
from pathlib import Path
from typing import Protocol, runtime_checkable

import cachetools

from rdejax.data.sources.cache import Frame, LockedCache
from rdejax.data.sources.decoding import read_rgb, same_size
from rdejax.data.sources.video_layouts import SequenceFolders, VideoSet
from rdejax.errors import RdejaxError
from rdejax.io.masks import VIDEO_FRAME, VOID, IdMask, holds_void_only, settle_void
from rdejax.io.sequence_masks import SequenceMasks

_log = logging.getLogger(__name__)
_NAMED = 5  # sequences that an error or a warning names
_LISTED = 2000  # sequences of a large data set whose file names are kept
_LOOKED_AT = 5  # masks looked at to learn what a sequence's value 255 means

Files = tuple[tuple[str, str], ...]


@runtime_checkable
class VideoSource(Protocol):
    """Sequences of frames with masks.

    Picklable, since worker processes get copies, and cheap to construct; only `read` decodes.

    Attributes:
      spacing: video frames between neighbouring annotated frames.
      repeat: how much likelier than its number of sequences the source is to be drawn from.
    """

    spacing: int
    repeat: int

    def __len__(self) -> int:
        """Number of sequences."""
        ...

    def name(self, index: int) -> str:
        """Name of a sequence."""
        ...

    def length(self, index: int) -> int:
        """Number of frames with a mask, 2 or more."""
        ...

    def read(self, index: int, frame: int) -> Frame:
        """An image, RGB, and its ids, 0 for background; `frame` counts frames with a mask.

        Raises:
          RdejaxError: a file that cannot be used, which it names.
        """
        ...


class VideoFolder:
    """A `VideoSource` of image files.

    An id means the same object in all frames of a sequence. 255 is void, unless the sequence's
    masks hold nothing else: then it is the object, with id 1.

    Args:
      videos: what `find_videos` found.
      skip_bad: leave sequences without two frames with masks out, with a warning that names them,
        instead of raising.

    Raises:
      RdejaxError: such a sequence, or no sequence at all. Very large data sets (BL30K) are not
        looked through, and raise when the sequence is read.
    """

    def __init__(self, videos: VideoSet, *, skip_bad: bool = False):
        self.kind, self.root, self.repeat = videos.kind, videos.root, videos.repeat
        self._merge = videos.merge
        self._sequences = videos.sequences
        self._files: dict[int, Files] = {}
        self._listed = LockedCache(_LISTED)
        self._binary: dict[int, bool] = {}
        self._masks: dict[int, SequenceMasks] = {}
        self.spacing = videos.spacing or 1
        if not videos.lazy:
            gaps = self._list_all(skip_bad)
            if videos.spacing is None and gaps:
                self.spacing = max(1, round(statistics.median(gaps)))
        if not self._sequences:
            raise RdejaxError(f"{self.root}: no sequence with two frames with masks")

    def __len__(self) -> int:
        return len(self._sequences)

    def name(self, index: int) -> str:
        """Name of the sequence's folder."""
        return self._sequences[index].name

    def length(self, index: int) -> int:
        """Number of frames with a mask, 2 or more.

        Raises:
          RdejaxError: fewer, in a data set that was not looked through.
        """
        return len(self._list(index))

    def files(self, index: int, frame: int) -> tuple[Path, Path]:
        """Image and mask file of a frame with a mask."""
        image, mask = self._list(index)[frame]
        sequence = self._sequences[index]
        return sequence.frames / image, sequence.masks / mask

    def read(self, index: int, frame: int) -> Frame:
        """See `VideoSource.read`."""
        image_path, mask_path = self.files(index, frame)
        image, labels = read_rgb(image_path), self._read_mask(index, mask_path)
        same_size(image, labels, str(mask_path))
        binary = holds_void_only(labels) and self._is_binary(index)
        return image, settle_void(labels, binary=binary, merge=self._merge)

    def __repr__(self) -> str:
        return f"VideoFolder({self.kind}, {str(self.root)!r}, sequences={len(self)})"

    def _is_binary(self, index: int) -> bool:
        if index not in self._binary:
            masks = self._mask_files(index)
            step = max(1, len(masks) // _LOOKED_AT)
            some = (self._read_mask(index, path) for path in masks[::step])
            self._binary[index] = all_void_only(some)
        return self._binary[index]

    def _read_mask(self, index: int, path: Path) -> IdMask:
        masks = functools.partial(self._mask_files, index)
        return self._masks.setdefault(index, SequenceMasks(masks, VIDEO_FRAME)).read(path)

    def _mask_files(self, index: int) -> list[Path]:
        return [self.files(index, i)[1] for i in range(self.length(index))]

    def _list_all(self, skip_bad: bool) -> list[int]:
        """Lists every sequence, and leaves out bad ones; gaps between frames with masks."""
        bad: list[str] = []
        good: list[SequenceFolders] = []
        gaps: list[int] = []
        for sequence in self._sequences:
            try:
                files, apart = _list_files(sequence)
            except RdejaxError as error:
                bad.append(str(error))
                continue
            self._files[len(good)] = files
            good.append(sequence)
            gaps += apart
        if bad:
            more = f"; and {len(bad) - _NAMED} more" if len(bad) > _NAMED else ""
            text = "; ".join(bad[:_NAMED]) + more
            if not skip_bad:
                raise RdejaxError(f"{text} (--skip-bad leaves such sequences out)")
            _log.warning("skipped %d sequences: %s", len(bad), text)
        self._sequences = tuple(good)
        return gaps

    def _list(self, index: int) -> Files:
        return self._files[index] if self._files else self._list_later(index)

    @cachetools.cachedmethod(lambda self: self._listed, lock=lambda self: self._listed.lock)
    def _list_later(self, index: int) -> Files:
        return _list_files(self._sequences[index])[0]


def all_void_only(masks) -> bool:
    """Whether no mask holds an object other than 255."""
    return not any(((labels > 0) & (labels < VOID)).any() for labels in masks)


def too_short(name: str, annotated: int) -> RdejaxError:
    """The error for a sequence that no clip can be cut from."""
    return RdejaxError(f"{name}: {annotated} frames with a mask; a clip needs two")


def _list_files(sequence: SequenceFolders) -> tuple[Files, list[int]]:
    frames, masks = sequence.list()
    for folder, found in ((sequence.frames, frames), (sequence.masks, masks)):
        if not found and not folder.is_dir():
            raise RdejaxError(f"{folder}: no such folder")
    at = [i for i, stem in enumerate(frames) if stem in masks]
    if len(at) < 2:
        raise too_short(str(sequence.masks), len(at))
    files = tuple((p.name, masks[stem].name) for stem, p in frames.items() if stem in masks)
    return files, [b - a for a, b in zip(at, at[1:], strict=False)]
