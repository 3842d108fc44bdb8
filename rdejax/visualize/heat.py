"""Relevance as heat over the frames of the memory."""

from collections.abc import Sequence

import cv2
import numpy as np
from jaxtyping import Float

from rdejax.visualize.grid import Picture, fit, grid
from rdejax.visualize.style import MARK, MARK_EDGE, TILE

_GAMMA = 0.5  # weights are few and large; without it only the largest would be seen
_OPACITY = 0.9


def heat_overlay(frame: Picture, heat: Float[np.ndarray, "H W"]) -> Picture:
    """Paints heat over a grey frame: clear where there is none, then violet, red, yellow.

    Args:
      frame: RGB.
      heat: 0 to 1, what is outside is clipped.
    """
    strength = np.clip(heat, 0.0, 1.0) ** _GAMMA
    grey = cv2.cvtColor(cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
    levels = np.round(255 * strength).astype(np.uint8)
    paint = cv2.cvtColor(cv2.applyColorMap(levels, cv2.COLORMAP_INFERNO), cv2.COLOR_BGR2RGB)
    opacity = (_OPACITY * strength)[..., None]
    return np.round(grey * (1 - opacity) + paint * opacity).astype(np.uint8)


def mark_pixel(frame: Picture, pixel: tuple[int, int]) -> Picture:
    """The frame with a ring around (x, y)."""
    frame = frame.copy()
    radius = max(6, round(min(frame.shape[:2]) / 28))
    line = max(1, radius // 4)
    for colour, thickness in ((MARK_EDGE, line + 4), (MARK, line)):
        cv2.circle(frame, pixel, radius, colour, thickness, cv2.LINE_AA)
    return frame


def relevance_sheet(
    query: Picture,
    title: str,
    frames: Sequence[Picture],
    heats: Float[np.ndarray, "e H W"],
    shares: Float[np.ndarray, " e"],
    names: Sequence[str],
    *,
    columns: int = 4,
    width: int = TILE,
) -> Picture:
    """The query and, beside it, where in each entry of the memory it looks.

    The heat has one scale for all entries, so a pale tile is looked at little.

    Args:
      query: the frame that looks, with its object or pixel marked.
      title: caption of the query.
      frames: RGB, the picture to show each entry on.
      heats: weight of the memory position under each pixel.
      shares: share of each entry in the whole weight, 0 to 1.
      names: of the entries.
      columns: tiles in a row.
      width: of a tile, in pixels.
    """
    scale = max(float(heats.max()), 1e-12)
    tiles, captions = [fit(query, width)], [title]
    for frame, heat, share, name in zip(frames, heats, shares, names, strict=True):
        tiles.append(fit(heat_overlay(frame, heat / scale), width))
        captions.append(f"{name}: {100 * share:.1f} %")
    cuts = range(0, len(tiles), columns)
    return grid(
        [tiles[i : i + columns] for i in cuts], captions=[captions[i : i + columns] for i in cuts]
    )
