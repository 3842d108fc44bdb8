"""Images of training data, from files or from encoded bytes, and the check that masks fit them."""

from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageOps

from rdejax.errors import BadFile, first_line
from rdejax.io.pictures import decoded


def open_picture(source: Path | bytes, name: str | None = None) -> Image.Image:
    """Opens and decodes an image of any mode.

    Args:
      source: a file, or its content.
      name: what errors call it; needed for bytes.

    Raises:
      BadFile: missing, truncated or no image.
    """
    name = name or str(source)
    try:
        opened = decoded(source)
    except FileNotFoundError:
        raise BadFile(f"{name}: cannot be read (no such file)", "missing") from None
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        # Pillow reports broken files by all of these (SyntaxError: a broken PNG).
        detail = first_line(error)
        text = f"{name}: cannot be read ({detail}); replace it or leave it and its mask out"
        raise BadFile(text) from None
    return opened


def read_rgb(
    source: Path | bytes, name: str | None = None, *, upright: bool = True
) -> UInt8[np.ndarray, "h w 3"]:
    """An image, RGB.

    Greyscale is expanded, alpha dropped, 16-bit grey scaled to 8 bits.

    Args:
      source: a file, or its content.
      name: what errors call it; needed for bytes.
      upright: turn the image as its EXIF orientation says.

    Raises:
      BadFile: missing, truncated or no image.
    """
    opened = open_picture(source, name)
    if opened.mode.startswith("I"):
        wide = np.clip(np.asarray(opened).astype(np.int64), 0, 65535)
        opened = Image.fromarray((wide // 257).astype(np.uint8))
    return np.asarray((ImageOps.exif_transpose(opened) if upright else opened).convert("RGB"))


def same_size(image: np.ndarray, ids: np.ndarray, name: str) -> None:
    """Checks that a mask fits its image.

    Raises:
      BadFile: it does not; names the mask.
    """
    if ids.shape != image.shape[:2]:
        raise BadFile(size_text(name, ids.shape[::-1], image.shape[1::-1]), "mask of another size")


def size_text(name: str, mask: tuple[int, ...], image: tuple[int, ...]) -> str:
    """The sentence for a mask whose size (width, height) is not its image's."""
    return (
        f"{name}: mask is {mask[0]}x{mask[1]}, its image {image[0]}x{image[1]}; "
        "make them the same size"
    )
