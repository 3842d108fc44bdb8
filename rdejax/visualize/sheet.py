"""Contact sheets: frames of a video with their masks, in the order of time."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import UInt8

from rdejax.io.overlay import render_overlay
from rdejax.visualize.grid import Picture, fit, grid
from rdejax.visualize.style import TILE


def contact_sheet(
    frames: Sequence[Picture],
    masks: Sequence[UInt8[np.ndarray, "H W"]],
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
    captions = [f"frame {number}" for number in numbers]
    cuts = range(0, len(tiles), columns)
    return grid(
        [tiles[i : i + columns] for i in cuts], captions=[captions[i : i + columns] for i in cuts]
    )
