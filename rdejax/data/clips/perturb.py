"""Imperfect first masks (RDE-VOS, section 3.4: self-correction)."""

import cv2
import numpy as np
from jaxtyping import UInt8

_MARGIN = 12  # pixels round the object that dilation may reach
_TRIES = 60


def iou(a: np.ndarray, b: np.ndarray) -> float:
    """Intersection over union of binary masks; 1 for two empty ones."""
    union = np.count_nonzero(a | b)
    return np.count_nonzero(a & b) / union if union else 1.0


def _change(rng: np.random.Generator, window: np.ndarray) -> np.ndarray:
    """A window dilated or eroded, now and then with one pixel set or cleared first."""
    side = int(rng.integers(3, 11))
    kind = cv2.MORPH_RECT if rng.random() < 0.5 else cv2.MORPH_ELLIPSE
    kernel = cv2.getStructuringElement(kind, (side, side))
    window = window.copy()
    dilate = rng.random() < 0.5
    if rng.random() < 0.1:
        window[rng.integers(window.shape[0]), rng.integers(window.shape[1])] = dilate
    return cv2.dilate(window, kernel) if dilate else cv2.erode(window, kernel)


def perturb_mask(
    rng: np.random.Generator, mask: UInt8[np.ndarray, "h w"], lowest: float = 0.85
) -> UInt8[np.ndarray, "h w"]:
    """Dilates and erodes random windows of a mask until its IoU falls below a random target.

    Unlike the paper's, a change that takes the IoU below `lowest` is not made: for small objects
    one step can undo most of the mask.

    Args:
      rng: random generator.
      mask: 0 or 1.
      lowest: the target is drawn from [lowest, 1].

    Returns:
      A mask whose IoU with the true one is at least `lowest` and, but for objects of a few pixels,
      below the target. An empty mask comes back as it is; so does any for `lowest` 1.
    """
    target = rng.uniform(lowest, 1.0)
    out = mask.copy()
    x, y, w, h = cv2.boundingRect(mask)
    if not w or lowest >= 1:
        return out
    area = np.s_[max(0, y - _MARGIN) : y + h + _MARGIN, max(0, x - _MARGIN) : x + w + _MARGIN]
    true, now = mask[area], out[area]
    for _ in range(_TRIES):
        high = min(max(6, int(h * rng.uniform(0.2, 0.7))), true.shape[0])
        wide = min(max(6, int(w * rng.uniform(0.2, 0.7))), true.shape[1])
        top = int(rng.integers(0, true.shape[0] - high + 1))
        left = int(rng.integers(0, true.shape[1] - wide + 1))
        window = np.s_[top : top + high, left : left + wide]
        before = now[window].copy()
        now[window] = _change(rng, before)
        score = iou(now, true)
        if score < lowest:
            now[window] = before
        elif score < target:
            break
    return out


def perturb_objects(
    rng: np.random.Generator, labels: UInt8[np.ndarray, "h w"], objects: int, lowest: float
) -> UInt8[np.ndarray, "o h w"]:
    """`perturb_mask` of the masks of the labels 1 to `objects`, in their order."""
    masks = [(labels == label).astype(np.uint8) for label in range(1, objects + 1)]
    return np.stack([perturb_mask(rng, mask, lowest) for mask in masks])
