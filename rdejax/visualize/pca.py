"""Principal components as colours: one basis for all that is to be compared."""

import dataclasses

import numpy as np
from jaxtyping import Float, UInt8


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
