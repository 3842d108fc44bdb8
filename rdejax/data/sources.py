"""Folders of static images with masks."""

from pathlib import Path

import cv2
import numpy as np
from jaxtyping import UInt8
from PIL import Image

from rdejax.errors import RdejaxError

_IMAGES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")
_MASKS = (".png", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".jpg", ".jpeg")  # best first


class StaticFolder:
    """Images and their masks, by index; a Grain `RandomAccessDataSource`.

    Layouts: `images/x.jpg` with `masks/x.png` under the root (any image format), or `x.jpg` beside
    `x.png`. Masks are binary (anything but 0 is the object; soft edges are cut at one half) or hold
    instance ids (0 is background; so is 255 in a palette image, which data sets call void).

    What has been read is kept decoded, so that after the first pass an item costs nothing.

    Args:
      root: the folder.
      longest: longer sides above this are reduced, in pixels.
      keep_megabytes: bound on the memory for decoded images; the rest is read every time.

    Raises:
      RdejaxError: no folder, or no image with a mask in it.
    """

    def __init__(self, root: str | Path, *, longest: int = 480, keep_megabytes: int = 1024):
        self.root, self.longest = Path(root), longest
        if not self.root.is_dir():
            raise RdejaxError(f"{root}: no such folder; give one with images/ and masks/ in it")
        self.pairs = self._pairs()
        if not self.pairs:
            raise RdejaxError(
                f"{root}: no image with a mask; expected images/NAME.jpg with masks/NAME.png, "
                "or NAME.jpg beside NAME.png"
            )
        self._cache: dict[int, tuple[np.ndarray, np.ndarray]] = {}
        # By number, for the largest an item can be: no count of bytes for threads to disagree on.
        self._keep = keep_megabytes * 1_000_000 // (4 * longest * longest)

    def _pairs(self) -> list[tuple[Path, Path]]:
        images, masks = self.root / "images", self.root / "masks"
        if not images.is_dir():
            return self._side_by_side()
        if not masks.is_dir():
            raise RdejaxError(f"{masks}: no such folder; put the masks of {images} there")
        by_stem: dict[str, Path] = {}
        for path in sorted(masks.iterdir(), key=lambda p: _rank(p, _MASKS), reverse=True):
            if path.suffix.lower() in _MASKS:
                by_stem[path.stem] = path
        found = sorted(p for p in images.iterdir() if p.suffix.lower() in _IMAGES)
        return [(p, by_stem[p.stem]) for p in found if p.stem in by_stem]

    def _side_by_side(self) -> list[tuple[Path, Path]]:
        found = sorted(p for p in self.root.iterdir() if p.suffix.lower() in _IMAGES)
        masks = {p.stem: p for p in found if p.suffix.lower() == ".png"}
        return [(p, masks[p.stem]) for p in found if p.suffix.lower() != ".png" and p.stem in masks]

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(
        self, index: int
    ) -> tuple[UInt8[np.ndarray, "h w 3"], UInt8[np.ndarray, "h w"]]:
        """Image, RGB, and id mask; both are read-only.

        Raises:
          RdejaxError: a file that cannot be read, a mask of another size, or one without an object.
        """
        kept = self._cache.get(index)
        if kept is not None:
            return kept
        item = _read(*self.pairs[index], self.longest)
        if len(self._cache) < self._keep:
            self._cache[index] = item
        return item

    def __repr__(self) -> str:
        return f"StaticFolder({str(self.root)!r}, images={len(self)})"


def _rank(path: Path, suffixes: tuple[str, ...]) -> tuple[int, str]:
    suffix = path.suffix.lower()
    return (suffixes.index(suffix) if suffix in suffixes else len(suffixes), path.name)


def _read(image_path: Path, mask_path: Path, longest: int) -> tuple[np.ndarray, np.ndarray]:
    image = np.asarray(_open(image_path).convert("RGB"))
    ids = read_ids(mask_path)
    if ids.shape != image.shape[:2]:
        raise RdejaxError(
            f"{mask_path}: mask is {ids.shape[1]}x{ids.shape[0]}, its image "
            f"{image.shape[1]}x{image.shape[0]}; make them the same size"
        )
    scale = longest / max(ids.shape)
    if scale < 1:
        size = (max(1, round(ids.shape[1] * scale)), max(1, round(ids.shape[0] * scale)))
        image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
        ids = cv2.resize(ids, size, interpolation=cv2.INTER_NEAREST)
    if not ids.any():
        raise RdejaxError(f"{mask_path}: mask holds no object; leave this image and its mask out")
    image, ids = np.ascontiguousarray(image), np.ascontiguousarray(ids)
    image.flags.writeable = ids.flags.writeable = False
    return image, ids


def _open(path: Path) -> Image.Image:
    try:
        opened = Image.open(path)
        opened.load()
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise RdejaxError(
            f"{path}: cannot be read ({error}); replace it or leave it and its mask out"
        ) from None
    return opened


def read_ids(path: Path) -> UInt8[np.ndarray, "h w"]:
    """The ids of a mask file, 0 for background.

    Raises:
      RdejaxError: an unreadable file, ids above 255, or a mask in colours.
    """
    opened = _open(path)
    if opened.mode == "P":
        ids = np.array(opened)
        if ids.max() == 255 and len(np.unique(ids)) > 2:
            ids[ids == 255] = 0
        return _binary(ids) if len(np.unique(ids)) <= 2 else ids
    if opened.mode.startswith("I"):
        wide = np.asarray(opened)
        if wide.max() > 255:
            raise RdejaxError(f"{path}: mask holds ids up to {wide.max()}; number them 1 to 255")
        return wide.astype(np.uint8)
    if opened.mode in ("RGB", "RGBA"):
        colours = np.asarray(opened.convert("RGB")).astype(np.int16)
        if np.abs(np.diff(colours, axis=-1)).max() > 16:
            raise RdejaxError(f"{path}: mask is in colours; save object ids as a greyscale image")
    ids = np.array(opened.convert("L"))
    values = np.unique(ids)
    # 255 beside other values means a binary mask with soft or compressed edges.
    return _binary(ids) if len(values) <= 2 or values[-1] == 255 else ids


def _binary(ids: np.ndarray) -> np.ndarray:
    return (ids > (127 if ids.max() > 127 else 0)).astype(np.uint8)
