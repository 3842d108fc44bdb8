"""Sheets of frames with their masks: of a video, and of a batch in training."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Shaped, UInt8

from rdejax.io.overlay import render_overlay
from rdejax.visualize.grid import Picture, fit, frame_names, grid, in_rows, shrink
from rdejax.visualize.style import TILE

_TRAINING_TILE = 192


def contact_sheet(
    frames: Sequence[Picture] | UInt8[np.ndarray, "n _ _ 3"],
    masks: Sequence[UInt8[np.ndarray, "H W"]] | UInt8[np.ndarray, "n H W"],
    numbers: Sequence[int],
    *,
    columns: int = 4,
    width: int = TILE,
    alpha: float = 0.5,
) -> Picture:
    """Frames with overlays and their numbers above them.

    Args:
      frames: RGB, of one size.
      masks: ids, 0 is background; colours are those of `render_overlay`, the same for an id in
        every picture.
      numbers: of the frames.
      columns: tiles in a row.
      width: of a tile, in pixels.
      alpha: opacity of the paint, 0 (contours only) to 1.
    """
    tiles = [
        fit(render_overlay(frame, mask, alpha), width)
        for frame, mask in zip(frames, masks, strict=True)
    ]
    return in_rows(tiles, frame_names(numbers), columns)


def training_sheet(
    frames: UInt8[np.ndarray, "b T H W 3"],
    labels: UInt8[np.ndarray, "b T H W"],
    given: Shaped[np.ndarray, "b o H W"],
    predicted: UInt8[np.ndarray, "b t H W"],
    clips: int = 3,
) -> Picture:
    """Input, truth and prediction side by side, one row a frame, the clips next to one another.

    Args:
      frames: RGB of each clip.
      labels: true ids.
      given: the (perturbed) mask of each object in the first frame.
      predicted: ids of the frames after the first, whose given mask is shown as its prediction.
      clips: at most this many of them.
    """
    rows: list[list[Picture]] = [[] for _ in frames[0]]
    for i in range(min(clips, len(predicted))):
        start = np.zeros_like(labels[i, 0])
        for slot, mask in enumerate(given[i]):
            start[mask > 0] = slot + 1
        found = [start, *predicted[i]]
        for row, frame, truth, mask in zip(rows, frames[i], labels[i], found, strict=True):
            tiles = (frame, render_overlay(frame, truth), render_overlay(frame, mask))
            row += [shrink(tile, _TRAINING_TILE) for tile in tiles]
    return grid(rows, gap=4)
