"""Folders of static images with masks."""

from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from rdejax.errors import RdejaxError

_IMAGES = (".jpg", ".jpeg", ".png", ".bmp", ".webp")


class StaticFolder:
    """Images and their masks, by index; decoded once and kept.

    Layouts: `images/x.jpg` with `masks/x.png` under the root, or `x.jpg` beside `x.png`. Masks are
    binary (anything but 0 is the object) or hold instance ids.

    Args:
      root: the folder.
      longest: longer sides above this are reduced, in pixels.

    Raises:
      RdejaxError: no folder, or no image with a mask in it.
    """

    def __init__(self, root: str, *, longest: int = 480):
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

    def _pairs(self) -> list[tuple[Path, Path]]:
        images = self.root / "images"
        folder, masks = (images, self.root / "masks") if images.is_dir() else (self.root, self.root)
        pairs = []
        for path in sorted(p for p in folder.iterdir() if p.suffix.lower() in _IMAGES):
            mask = masks / f"{path.stem}.png"
            if mask != path and mask.is_file():
                pairs.append((path, mask))
        return pairs

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Image uint8 [H, W, 3] RGB and id mask uint8 [H, W].

        Raises:
          RdejaxError: an unreadable file, or a mask of another size; names it.
        """
        if index not in self._cache:
            self._cache[index] = self._read(*self.pairs[index])
        return self._cache[index]

    def _read(self, image_path: Path, mask_path: Path) -> tuple[np.ndarray, np.ndarray]:
        try:
            image = np.asarray(Image.open(image_path).convert("RGB"))
            mask = Image.open(mask_path)
            ids = np.asarray(mask if mask.mode in ("P", "L") else mask.convert("L"))
        except (OSError, SyntaxError) as error:
            raise RdejaxError(f"{image_path}: cannot be read with its mask ({error})") from None
        if ids.shape != image.shape[:2]:
            raise RdejaxError(
                f"{mask_path}: mask is {ids.shape[1]}x{ids.shape[0]}, its image "
                f"{image.shape[1]}x{image.shape[0]}; make them the same size"
            )
        values = np.unique(ids)
        if len(values) <= 2 or values.max() > 200:  # binary, perhaps with soft (JPEG-like) edges
            ids = (ids > (127 if values.max() > 127 else 0)).astype(np.uint8)
        scale = self.longest / max(ids.shape)
        if scale < 1:
            size = (round(ids.shape[1] * scale), round(ids.shape[0] * scale))
            image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
            ids = cv2.resize(ids, size, interpolation=cv2.INTER_NEAREST)
        return np.ascontiguousarray(image), np.ascontiguousarray(ids)
