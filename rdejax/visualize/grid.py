"""Tiles in rows and columns on white paper, with labels: the ground of most pictures."""

from collections.abc import Sequence

import cv2
import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageDraw

from rdejax.io.overlay import render_overlay
from rdejax.visualize.style import GAP, INK, PAPER, TEXT, font

# Of any size: pictures that are put together differ in theirs.
Picture = UInt8[np.ndarray, "_ _ 3"]

_LINE = TEXT + 8  # of text, with air around it


def fit(image: Picture, width: int) -> Picture:
    """The image at this width, its aspect kept; averaged where it shrinks."""
    height = max(1, round(image.shape[0] * width / image.shape[1]))
    shrinks = width < image.shape[1]
    return cv2.resize(
        image, (width, height), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    )


def greyed(image: Picture) -> Picture:
    """The image without colour."""
    return cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)


def frame_names(numbers: Sequence[int]) -> list[str]:
    """What frames are called above their tiles."""
    return [f"frame {number}" for number in numbers]


def shrink(image: Picture, side: int) -> Picture:
    """The image with its longer side at most this long, averaged; smaller ones as they are."""
    size = shrunk_size((image.shape[0], image.shape[1]), side)
    if image.shape[:2] == size:
        return image
    return cv2.resize(image, size[::-1], interpolation=cv2.INTER_AREA)


def shrunk_size(size: tuple[int, int], side: int) -> tuple[int, int]:
    """(H, W) shrunk until the longer side is at most `side`."""
    factor = min(1.0, side / max(size))
    return max(1, round(size[0] * factor)), max(1, round(size[1] * factor))


def outlined(tile: Picture, mask: UInt8[np.ndarray, "H W"]) -> Picture:
    """A tile with the contours of a mask's objects in near white, seen on any colour.

    Args:
      tile: RGB, of any size.
      mask: ids, 0 is background; of the frame the tile shows.
    """
    size = (tile.shape[1], tile.shape[0])
    small = cv2.resize(mask, size, interpolation=cv2.INTER_NEAREST)
    # The palest of the DAVIS colours, made lighter still as contours are.
    return render_overlay(tile, np.where(small > 0, np.uint8(255), np.uint8(0)), alpha=0.0)


def grid(
    rows: Sequence[Sequence[Picture | None]],
    *,
    captions: Sequence[Sequence[str]] = (),
    columns: Sequence[str] = (),
    names: Sequence[str] = (),
    gap: int = GAP,
) -> Picture:
    """Tiles side by side; text too long for its place is cut with three dots.

    Args:
      rows: tiles, row by row; None leaves a place empty. Rows may be of different lengths.
      captions: a line above each tile, in the shape of `rows`.
      columns: a line above each column.
      names: a name left of each row, written upwards.
      gap: between tiles, in pixels.
    """
    tiles = [tile for row in rows for tile in row if tile is not None]
    height = max(tile.shape[0] for tile in tiles)
    width = max(tile.shape[1] for tile in tiles)
    above = _LINE if captions else 0
    left, top = _LINE if names else 0, _LINE if columns else 0
    step_y, step_x = height + above + gap, width + gap
    size = (left + max(map(len, rows)) * step_x - gap, top + len(rows) * step_y - gap)
    canvas = Image.new("RGB", size, PAPER)
    for x, name in enumerate(columns):
        canvas.paste(_label(name, width), (left + x * step_x, 0))
    for y, row in enumerate(rows):
        at_y = top + y * step_y
        if names:
            canvas.paste(_label(names[y], height).rotate(90, expand=True), (0, at_y + above))
        for x, tile in enumerate(row):
            at_x = left + x * step_x
            if captions:
                canvas.paste(_label(captions[y][x], width), (at_x, at_y))
            if tile is not None:
                canvas.paste(Image.fromarray(tile), (at_x, at_y + above))
    return np.asarray(canvas)


def in_rows(tiles: Sequence[Picture], captions: Sequence[str], columns: int) -> Picture:
    """Tiles with captions one after the other, so many in a row."""
    cuts = [slice(i, i + columns) for i in range(0, len(tiles), columns)]
    return grid([tiles[cut] for cut in cuts], captions=[captions[cut] for cut in cuts])


def _label(text: str, width: int) -> Image.Image:
    """One line of text in the middle of a white strip."""
    strip = Image.new("RGB", (width, _LINE), PAPER)
    draw = ImageDraw.Draw(strip)
    if draw.textlength(text, font()) > width:
        while text and draw.textlength(text + "...", font()) > width:
            text = text[:-1]
        text += "..."
    draw.text((width / 2, _LINE / 2), text, INK, font(), anchor="mm")
    return strip
