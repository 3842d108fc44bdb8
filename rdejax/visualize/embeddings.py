"""Value embeddings along a video as colours (the RDE paper's figure)."""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float, UInt8

from rdejax.propagate.geometry import Geometry
from rdejax.visualize.grid import Picture, fit, frame_names, grid, outlined
from rdejax.visualize.strides import spread
from rdejax.visualize.style import TILE


@dataclasses.dataclass(frozen=True)
class Basis:
    """A map from `c` channels to three, and the range that becomes 0 to 255.

    Attributes:
      mean: [c].
      axes: [3, c], orthonormal rows, by falling variance.
      low: [3], what becomes 0 (and what is less).
      high: [3], what becomes 255 (and what is more).
      explained: [3], share of the variance along each axis.
    """

    mean: Float[np.ndarray, " c"]
    axes: Float[np.ndarray, "3 c"]
    low: Float[np.ndarray, " 3"]
    high: Float[np.ndarray, " 3"]
    explained: Float[np.ndarray, " 3"]

    def project(self, values: Float[np.ndarray, "*n c"]) -> Float[np.ndarray, "*n 3"]:
        """Coordinates along the three axes."""
        return (values - self.mean) @ self.axes.T

    def colours(self, values: Float[np.ndarray, "*n c"]) -> UInt8[np.ndarray, "*n 3"]:
        """RGB: first component red, second green, third blue."""
        span = np.maximum(self.high - self.low, 1e-12)
        return np.round(255 * np.clip((self.project(values) - self.low) / span, 0, 1)).astype(
            np.uint8
        )


def fit_basis(values: Float[np.ndarray, "n c"], clip: float = 1.0) -> Basis:
    """Principal component analysis of all positions of all frames at once.

    Colours made with one basis can be compared between them; each frame by itself would get axes
    and signs of its own.

    Args:
      values: float, `n` positions; fewer than three channels or positions leave axes of zeros.
      clip: per cent of the positions at either end that may saturate.
    """
    values = np.asarray(values, np.float64)
    mean = values.mean(axis=0)
    centred = values - mean
    # Of the [c, c] scatter matrix: positions are many, channels few.
    _, strengths, rows = np.linalg.svd(centred.T @ centred)
    axes = np.zeros((3, values.shape[1]))
    axes[: len(rows)] = rows[:3]
    # The sign of an axis is arbitrary; the largest loading is made positive, so runs agree.
    largest = np.take_along_axis(axes, np.abs(axes).argmax(axis=1)[:, None], axis=1)
    axes *= np.where(largest < 0, -1.0, 1.0)
    low, high = np.percentile(centred @ axes.T, [clip, 100 - clip], axis=0)
    explained = np.zeros(3)
    explained[: len(strengths)] = strengths[:3] / max(strengths.sum(), 1e-300)
    return Basis(mean, axes, low, high, explained)


def embedding_rows(
    frames: Sequence[Picture],
    numbers: Sequence[int],
    values: Mapping[str, Sequence[Float[np.ndarray, "h w cv"]]],
    geometry: Geometry,
    masks: Mapping[str, Sequence[UInt8[np.ndarray, "H W"]]] | None = None,
    *,
    width: int = TILE,
) -> Picture:
    """The frames, and under them one row of PCA colours for each kind of memory.

    One basis is fitted over every value shown, so a colour means the same in every tile. Padding of
    the frame is neither fitted nor shown; each square is one position of the stride-16 grid.

    Args:
      frames: RGB, `geometry.source` large.
      numbers: of the frames.
      values: name of the memory -> one value embedding for each frame.
      geometry: of the video.
      masks: name of the memory -> ids of each frame, whose contours are drawn; default: none.
      width: of a tile, in pixels.
    """
    shown = {name: [spread(v, geometry) for v in row] for name, row in values.items()}
    # Every pixel of the video counts: positions that are mostly padding weigh little.
    step = max(1, min(geometry.source) // 240)
    pixels = [v[::step, ::step].reshape(-1, v.shape[-1]) for row in shown.values() for v in row]
    basis = fit_basis(np.concatenate(pixels))
    rows = [[fit(frame, width) for frame in frames]]
    for name, row in shown.items():
        tiles = [fit(basis.colours(v), width) for v in row]
        if masks is not None:
            tiles = [outlined(tile, mask) for tile, mask in zip(tiles, masks[name], strict=True)]
        rows.append(tiles)
    return grid(rows, columns=frame_names(numbers), names=["video", *values])
