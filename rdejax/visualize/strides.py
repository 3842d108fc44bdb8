"""Between the networks' stride-16 grid and the pixels of the video."""

import numpy as np
from jaxtyping import Bool, Int, Shaped

from rdejax.propagate.geometry import Geometry

STRIDE = 16


def grid_shape(geometry: Geometry) -> tuple[int, int]:
    """(h, w) of the stride-16 grid of the padded frame."""
    top, bottom, left, right = geometry.padding
    height, width = geometry.inner
    return (height + top + bottom) // STRIDE, (width + left + right) // STRIDE


def grid_positions(
    geometry: Geometry,
) -> tuple[Int[np.ndarray, " H"], Int[np.ndarray, " W"]]:
    """For each row and each column of the video's pixels, the row and the column of the grid."""
    rows, columns = (
        ((np.arange(source) + 0.5) * inner / source + before).astype(int) // STRIDE
        for source, inner, before in zip(
            geometry.source, geometry.inner, geometry.padding[::2], strict=True
        )
    )
    return rows, columns


def spread(
    values: Shaped[np.ndarray, "h w *c"], geometry: Geometry
) -> Shaped[np.ndarray, "H W *c"]:
    """What the grid holds at every pixel of the video, without its padding (nearest)."""
    rows, columns = grid_positions(geometry)
    return values[rows][:, columns]


def covered(mask: Bool[np.ndarray, "H W"], geometry: Geometry) -> Bool[np.ndarray, "h w"]:
    """Grid positions at least half of whose pixels are in the mask; or else the best covered one.

    Empty for an empty mask.
    """
    rows, columns = grid_positions(geometry)
    h, w = grid_shape(geometry)
    position = (rows[:, None] * w + columns).ravel()
    inside = np.bincount(position, mask.ravel().astype(float), h * w)
    share = (inside / np.maximum(np.bincount(position, minlength=h * w), 1)).reshape(h, w)
    return (share >= min(0.5, share.max())) & (share > 0)
