"""Comparison of methods frame by frame, with the worst errors in boxes."""

from collections.abc import Mapping, Sequence

import cv2
import numpy as np
from jaxtyping import UInt8

from rdejax.io.overlay import render_overlay
from rdejax.visualize.grid import Picture, fit, frame_names, grid
from rdejax.visualize.style import MARK, MARK_EDGE, TILE

IdMask = UInt8[np.ndarray, "H W"]
Box = tuple[int, int, int, int]


def error_boxes(
    mask: IdMask, reference: IdMask, *, count: int = 3, void: int | None = None
) -> list[Box]:
    """Boxes around the largest regions where two masks differ.

    Differences thinner than about 1/100 of the shorter side, such as a rim all around an object,
    are opened away first: a box around them would be the object's own.

    Args:
      mask: ids.
      reference: ids of the truth, or of another method.
      count: most boxes.
      void: an id of the reference that marks pixels without truth.

    Returns:
      (left, top, right, bottom) in pixels, right and bottom exclusive, largest area first.
    """
    wrong = mask != reference
    if void is not None:
        wrong &= reference != void
    width = 1 + 2 * round(min(mask.shape) / 240)
    solid = cv2.morphologyEx(
        wrong.astype(np.uint8), cv2.MORPH_OPEN, np.ones((width, width), np.uint8)
    )
    _, _, stats, _ = cv2.connectedComponentsWithStats(solid, connectivity=8)
    found = sorted(stats[1:].tolist(), key=lambda row: -row[4])[:count]
    return [(x, y, x + w, y + h) for x, y, w, h, _ in found]


def draw_boxes(image: Picture, boxes: Sequence[Box], scale: float = 1.0) -> Picture:
    """The image with a bright frame around each box, at any brightness of the picture.

    Args:
      image: RGB.
      boxes: see `error_boxes`.
      scale: from the boxes' pixels to the image's.
    """
    image = image.copy()
    line = max(1, round(min(image.shape[:2]) / 90))
    height, width = image.shape[:2]
    edge = line + 2
    for box in boxes:
        left, top, right, bottom = (round(side * scale) for side in box)
        # At the border of the picture the frame has to lie inside of it.
        left, top = max(left, edge), max(top, edge)
        right, bottom = min(right, width - edge), min(bottom, height - edge)
        # Ring by ring: OpenCV's thick lines reach inside, and would hide what they enclose.
        for ring in range(1, edge + 1):
            colour = MARK if 1 < ring < edge else MARK_EDGE
            cv2.rectangle(
                image, (left - ring, top - ring), (right + ring - 1, bottom + ring - 1), colour
            )
    return image


def comparison_strip(
    frames: Sequence[Picture],
    numbers: Sequence[int],
    results: Mapping[str, Sequence[IdMask]],
    truth: Sequence[IdMask] | None = None,
    *,
    boxes: int = 3,
    void: int | None = None,
    width: int = TILE,
    alpha: float = 0.5,
) -> Picture:
    """One row per method, one column per frame; regions that differ most are boxed.

    Without the truth the first method is what the others are held against.

    Args:
      frames: RGB.
      numbers: of the frames.
      results: name of the method -> ids of each frame.
      truth: ids of each frame; becomes the last row.
      boxes: most boxes in a tile.
      void: an id of the truth that marks pixels without truth.
      width: of a tile, in pixels.
      alpha: opacity of the paint, 0 to 1.
    """
    rows = dict(results)
    if truth is not None:
        rows["truth"] = truth
    reference = truth if truth is not None else next(iter(results.values()))
    scale = width / frames[0].shape[1]
    tiles = []
    for masks in rows.values():
        row = []
        for frame, mask, right in zip(frames, masks, reference, strict=True):
            tile = fit(render_overlay(frame, mask, alpha), width)
            found = error_boxes(mask, right, count=boxes, void=void)
            row.append(draw_boxes(tile, found, scale))
        tiles.append(row)
    names = list(rows)
    if truth is None:
        names[0] += " (reference)"
    return grid(tiles, columns=frame_names(numbers), names=names)
