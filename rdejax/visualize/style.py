"""Colours, letters and sizes of every image, in one place."""

import colorsys
import functools

import numpy as np
from jaxtyping import UInt8
from PIL import ImageFont

PAPER = (255, 255, 255)
INK = (34, 34, 34)
# Of boxes and marks on photographs: far from the DAVIS colours of small ids, which have no 255.
MARK = (255, 225, 0)
MARK_EDGE = (0, 0, 0)

TEXT = 14
"""Height of letters in images, in pixels."""
GAP = 5
"""Between the tiles of a grid, in pixels."""
TILE = 300
"""Width of a tile, in pixels, unless told."""


@functools.cache
def font(size: int = TEXT) -> ImageFont.ImageFont | ImageFont.FreeTypeFont:
    """The font of labels in images, the one that comes with Pillow."""
    return ImageFont.load_default(size)


def distinct_colours(
    count: int, saturation: float = 0.85, value: float = 0.95
) -> UInt8[np.ndarray, "k 3"]:
    """RGB colours of which the first few are always the same, however many are asked for.

    Hues follow the golden ratio, which keeps any prefix of the sequence spread over the circle.

    Args:
      count: how many.
      saturation: of all of them, 0 to 1.
      value: brightness of all of them, 0 to 1.
    """
    hues = (np.arange(count) * 0.6180339887) % 1.0
    rgb = [colorsys.hsv_to_rgb(hue, saturation, value) for hue in hues]
    return np.round(255 * np.asarray(rgb).reshape(count, 3)).astype(np.uint8)
