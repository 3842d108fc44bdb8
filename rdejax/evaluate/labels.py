"""Masks of a benchmark as ids, exactly as they lie in the file."""

from pathlib import Path

import cv2
import numpy as np
from jaxtyping import UInt8
from PIL import Image

from rdejax.errors import RdejaxError

VOID = 255


def read_labels(path: Path, merge: bool) -> UInt8[np.ndarray, "h w"]:
    """Reads a palette, greyscale or 1-bit PNG as ids.

    Args:
      path: the file.
      merge: every non-zero pixel becomes 1; only then are colour images taken as well.

    Returns:
      uint8 [H, W].

    Raises:
      RdejaxError: missing or damaged file, or a colour or 16-bit image.
    """
    try:
        with Image.open(path) as image:
            mode = image.mode
            if merge and mode in ("RGBA", "LA", "RGB"):
                image = image.convert("RGB")
            labels = np.asarray(image)
    except FileNotFoundError:
        raise RdejaxError(f"{path}: no such mask; run infer.py again on this sequence") from None
    except Exception as error:  # Pillow raises many kinds for a damaged file
        raise RdejaxError(f"{path}: not a readable image ({error}); write it again") from None
    if merge:
        inside = labels != 0
        return (inside if inside.ndim == 2 else inside.any(axis=-1)).astype(np.uint8)
    if mode == "1":
        return labels.view(np.uint8)
    if labels.dtype != np.uint8 or labels.ndim != 2:
        raise RdejaxError(f"{path}: image mode {mode} holds no ids; write a palette or grey PNG")
    return labels


def ids_of(labels: UInt8[np.ndarray, "h w"]) -> frozenset[int]:
    """The ids that a map holds, without 0; `VOID` is among them."""
    # OpenCV's histogram of bytes is some ten times faster than np.unique or np.bincount.
    counts = cv2.calcHist([labels], [0], None, [256], [0, 256])
    return frozenset(np.flatnonzero(counts).tolist()) - {0}


def shorten(names: list[str], most: int = 5) -> str:
    """The first few names of a list, for a message."""
    return ", ".join(names[:most]) + (", ..." if len(names) > most else "")
