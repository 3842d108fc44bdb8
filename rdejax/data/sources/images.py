"""Static images with masks, by index."""

import abc
from pathlib import Path

import cachetools
import cv2
import numpy as np

from rdejax.data.sources.cache import Frame, frame_cache
from rdejax.data.sources.decoding import read_rgb, same_size
from rdejax.data.sources.image_pairs import find_pairs
from rdejax.errors import BadFile
from rdejax.io.masks import STATIC_IMAGE, read_mask


class StaticImages(abc.ABC):
    """Images and their id masks, by index; a Grain `RandomAccessDataSource`.

    What was read last is kept decoded. A copy that is sent to another process is sent empty.

    Args:
      longest: longer sides above this are reduced, in pixels.
      keep_megabytes: bound on the memory for decoded images; the rest is read every time.
    """

    def __init__(self, *, longest: int = 480, keep_megabytes: float = 1024):
        self.longest = longest
        self._kept = frame_cache(keep_megabytes)

    def share_memory(self, parts: int) -> None:
        """Takes a `parts`-th of the memory that it would: for several sources or processes."""
        self._kept = frame_cache(self._kept.maxsize / 1e6 / max(1, parts))

    @abc.abstractmethod
    def __len__(self) -> int: ...

    @abc.abstractmethod
    def name(self, index: int) -> str:
        """What the mask is called in errors."""

    @abc.abstractmethod
    def load(self, index: int) -> Frame:
        """Image, RGB, and id mask as stored; neither reduced nor kept.

        Raises:
          RdejaxError: a file that cannot be read, or a mask of another size.
        """

    def __getitem__(self, index: int) -> Frame:
        """Image, RGB, and id mask; both are read-only.

        Raises:
          RdejaxError: a file that cannot be read, a mask of another size, or one without an object.
        """
        return self._prepared(int(index))

    @cachetools.cachedmethod(lambda self: self._kept, lock=lambda self: self._kept.lock)
    def _prepared(self, index: int) -> Frame:
        item = _reduce(*self.load(index), self.longest)
        if not item[1].any():
            raise BadFile(
                f"{self.name(index)}: mask holds no object; leave this image and its mask out",
                "empty mask",
            )
        return item


class StaticFolder(StaticImages):
    """Images and masks in a folder; the layouts are those of `image_pairs.find_pairs`.

    Masks are binary (anything but 0 is the object; soft edges are cut at one half) or hold instance
    ids (0 is background; so is 255 in a palette image, which data sets call void).

    Args:
      root: the folder.
      split: see `find_pairs`.
      longest: longer sides above this are reduced, in pixels.
      keep_megabytes: bound on the memory for decoded images; the rest is read every time.

    Raises:
      RdejaxError: no folder, no image with a mask in it, or several data sets in it.
    """

    def __init__(
        self,
        root: str | Path,
        *,
        split: str | None = None,
        longest: int = 480,
        keep_megabytes: float = 1024,
    ):
        super().__init__(longest=longest, keep_megabytes=keep_megabytes)
        self.root = Path(root)
        self.pairs = find_pairs(root, split).pairs

    def __len__(self) -> int:
        return len(self.pairs)

    def name(self, index: int) -> str:
        """The mask's path."""
        return str(self.pairs[index][1])

    def load(self, index: int) -> Frame:
        """See `StaticImages.load`."""
        image_path, mask_path = self.pairs[index]
        # Masks of static images were drawn over the pixels as stored.
        image, ids = read_rgb(image_path, upright=False), read_mask(mask_path, STATIC_IMAGE)
        same_size(image, ids, str(mask_path))
        return image, ids

    def __repr__(self) -> str:
        return f"StaticFolder({str(self.root)!r}, images={len(self)})"


def _reduce(image: np.ndarray, ids: np.ndarray, longest: int) -> Frame:
    scale = longest / max(ids.shape)
    if scale < 1:
        size = (max(1, round(ids.shape[1] * scale)), max(1, round(ids.shape[0] * scale)))
        image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
        ids = cv2.resize(ids, size, interpolation=cv2.INTER_NEAREST)
    image, ids = np.ascontiguousarray(image), np.ascontiguousarray(ids)
    image.flags.writeable = ids.flags.writeable = False
    return image, ids
