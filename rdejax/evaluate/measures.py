"""J (region similarity), F (contour accuracy) and their statistics over a sequence.

Definitions: Perazzi et al., "A Benchmark Dataset and Evaluation Methodology for Video Object
Segmentation" (CVPR 2016), sections 4.1 and 4.2, with the conventions of the DAVIS 2017 toolkit
wherever the paper leaves room (both are stated at each function).
"""

import functools
import math
from typing import NamedTuple

import cv2
import numpy as np
from jaxtyping import Bool, Float64, UInt8
from numpy.typing import ArrayLike

# Of any size: masks of different ones get an error that says so.
Mask = Bool[np.ndarray, "_ _"] | UInt8[np.ndarray, "_ _"]

DEFAULT_TOLERANCE = 0.008


class Statistics(NamedTuple):
    """What one object's per-frame values are condensed into, each a fraction."""

    mean: float
    recall: float
    decay: float


def region_similarity(truth: Mask, result: Mask, void: Mask | None = None) -> float:
    """J = |truth and result| / |truth or result| over the pixels that are not void.

    Args:
      truth: [H, W], non-zero inside the object.
      result: [H, W], likewise.
      void: [H, W], non-zero where nothing is judged.

    Returns:
      A fraction in [0, 1]; 1 when neither mask has a pixel.

    Raises:
      ValueError: the sizes differ.
    """
    truth, result = _binary(truth, result, void)
    return _iou(truth, result)


def contour_accuracy(
    truth: Mask,
    result: Mask,
    void: Mask | None = None,
    tolerance: float = DEFAULT_TOLERANCE,
) -> float:
    """F = 2 P R / (P + R) of the boundary pixels, matched within a distance.

    P (R) is the share of the result's (truth's) boundary pixels that lie within the tolerance of
    some boundary pixel of the other. Two empty boundaries give 1, exactly one empty gives 0.

    Args:
      truth: [H, W], non-zero inside the object.
      result: [H, W], likewise.
      void: [H, W], non-zero pixels are taken out of both masks before their boundaries are found.
      tolerance: radius in pixels if >= 1, otherwise a fraction of the image diagonal, rounded up.

    Returns:
      A fraction in [0, 1].

    Raises:
      ValueError: the sizes differ.
    """
    truth, result = _binary(truth, result, void)
    return _boundary_f(truth, result, _radius(truth.shape, tolerance))


def frame_scores(
    truth: UInt8[np.ndarray, "h w"],
    result: UInt8[np.ndarray, "h w"],
    ids: tuple[int, ...],
    tolerance: float = DEFAULT_TOLERANCE,
) -> Float64[np.ndarray, "o 2"]:
    """J and F of several objects of one frame, from maps of object ids.

    Equal to calling `region_similarity` and `contour_accuracy` on each object's mask, but works on
    the smallest window that holds the object in both maps, which gives the same numbers: outside
    the window both masks are empty, and every boundary pixel lies inside.

    Args:
      truth: [H, W] ids.
      result: [H, W] ids.
      ids: the objects to score.
      tolerance: as in `contour_accuracy`.

    Returns:
      [len(ids), 2]: J, F.
    """
    if truth.shape != result.shape:
        raise ValueError(f"sizes differ: {truth.shape} and {result.shape}")
    radius = _radius(truth.shape, tolerance)
    scores = np.empty((len(ids), 2))
    for row, label in enumerate(ids):
        one, other = (truth == label).view(np.uint8), (result == label).view(np.uint8)
        window = _window(one, other)
        one, other = one[window], other[window]
        scores[row] = _iou(one, other), _boundary_f(one, other, radius)
    return scores


def boundary(mask: Mask) -> UInt8[np.ndarray, "h w"]:
    """Pixels that differ from their right, lower or lower-right neighbour.

    Outside the image there is no neighbour: the last row looks right only, the last column looks
    down only, and the last pixel is never boundary. The line is one pixel wide and runs along the
    object's upper and left outside and its lower and right inside.

    Args:
      mask: [H, W], non-zero inside the object.

    Returns:
      [H, W] of 0 and 1.
    """
    inside = (np.asarray(mask) != 0).view(np.uint8)
    edge = np.zeros_like(inside)
    edge[:, :-1] = inside[:, :-1] ^ inside[:, 1:]
    edge[:-1] |= inside[:-1] ^ inside[1:]
    edge[:-1, :-1] |= inside[:-1, :-1] ^ inside[1:, 1:]
    return edge


def statistics(values: ArrayLike) -> Statistics:
    """Mean, recall and decay of one object's values over the frames that count.

    Recall is the share of frames above 0.5 (a NaN is a miss). Decay is the mean of the first less
    the mean of the last of four bins along time. With T values the bins' five limits are
    round(linspace(1, T, 5)), halves up, and both limits belong to a bin, so that neighbours share
    a frame. Means leave NaN out.

    Args:
      values: [T], T >= 1.

    Raises:
      ValueError: `values` is empty.
    """
    values = np.asarray(values, np.float64)
    if values.ndim != 1 or not len(values):
        raise ValueError(f"expected a non-empty row of values, got shape {values.shape}")
    limits = np.floor(np.linspace(1, len(values), 5) + 0.5 + 1e-10).astype(np.int64) - 1
    first = values[limits[0] : limits[1] + 1]
    last = values[limits[3] : limits[4] + 1]
    return Statistics(_mean(values), float(np.mean(values > 0.5)), _mean(first) - _mean(last))


def _mean(values: np.ndarray) -> float:
    kept = values[~np.isnan(values)]
    return float(kept.mean()) if len(kept) else math.nan


def _binary(truth: Mask, result: Mask, void: Mask | None) -> tuple[np.ndarray, np.ndarray]:
    """Both masks as 0/1, without void pixels."""
    masks = [(np.asarray(mask) != 0) for mask in (truth, result)]
    if masks[0].ndim != 2 or masks[0].shape != masks[1].shape:
        raise ValueError(f"expected two equal sizes, got {masks[0].shape} and {masks[1].shape}")
    if void is not None:
        kept = np.asarray(void) == 0
        if kept.shape != masks[0].shape:
            raise ValueError(f"void has size {kept.shape}, the masks {masks[0].shape}")
        masks = [mask & kept for mask in masks]
    return masks[0].view(np.uint8), masks[1].view(np.uint8)


def _window(one: np.ndarray, other: np.ndarray) -> tuple[slice, slice]:
    """The window around all non-zero pixels, with one more pixel on each side within the image."""
    x, y, w, h = cv2.boundingRect(np.bitwise_or(one, other, dtype=np.uint8))
    return slice(max(y - 1, 0), y + h + 1), slice(max(x - 1, 0), x + w + 1)


def _iou(truth: np.ndarray, result: np.ndarray) -> float:
    union = np.count_nonzero(truth | result)
    return np.count_nonzero(truth & result) / union if union else 1.0


def _boundary_f(truth: np.ndarray, result: np.ndarray, radius: int) -> float:
    truth_edge, result_edge = boundary(truth), boundary(result)
    n_truth, n_result = np.count_nonzero(truth_edge), np.count_nonzero(result_edge)
    if not n_truth or not n_result:
        return float(n_truth == n_result)
    disk = _disk(radius)
    precision = np.count_nonzero(result_edge & cv2.dilate(truth_edge, disk)) / n_result
    recall = np.count_nonzero(truth_edge & cv2.dilate(result_edge, disk)) / n_truth
    both = precision + recall
    return 2 * precision * recall / both if both else 0.0


def _radius(size: tuple[int, ...], tolerance: float) -> int:
    if tolerance >= 1:
        return math.ceil(tolerance)
    return math.ceil(tolerance * math.hypot(*size))


@functools.lru_cache
def _disk(radius: int) -> np.ndarray:
    """All pixels with x^2 + y^2 <= radius^2."""
    span = np.arange(-radius, radius + 1) ** 2
    return (span[:, None] + span <= radius**2).astype(np.uint8)
