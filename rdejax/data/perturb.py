"""Imperfect first masks (RDE-VOS, section 3.4: self-correction)."""

import cv2
import numpy as np


def iou(a: np.ndarray, b: np.ndarray) -> float:
    """Intersection over union of binary masks; 1 for two empty ones."""
    union = np.count_nonzero(a | b)
    return np.count_nonzero(a & b) / union if union else 1.0


def perturb_mask(rng: np.random.Generator, mask: np.ndarray, lowest: float = 0.85) -> np.ndarray:
    """Dilates and erodes random windows of a mask until its IoU falls below a random target.

    Args:
      rng: random generator.
      mask: uint8 [H, W], 0 or 1.
      lowest: the target is drawn from [lowest, 1].

    Returns:
      uint8 [H, W]; the last state whose IoU is at least `lowest`. An empty mask comes back as it is.
    """
    target = rng.uniform(lowest, 1.0)
    out = mask.copy()
    ys, xs = np.nonzero(mask)
    if len(ys) == 0:
        return out
    top, bottom, left, right = ys.min(), ys.max() + 1, xs.min(), xs.max() + 1
    for _ in range(30):
        h = max(6, int((bottom - top) * rng.uniform(0.2, 0.7)))
        w = max(6, int((right - left) * rng.uniform(0.2, 0.7)))
        y = max(0, int(rng.integers(top - h // 2, bottom)))
        x = max(0, int(rng.integers(left - w // 2, right)))
        kind = cv2.MORPH_RECT if rng.random() < 0.5 else cv2.MORPH_ELLIPSE
        side = int(rng.integers(3, 11))
        kernel = cv2.getStructuringElement(kind, (side, side))
        window = np.ascontiguousarray(out[y : y + h, x : x + w])
        change = cv2.dilate if rng.random() < 0.5 else cv2.erode
        candidate = out.copy()
        candidate[y : y + h, x : x + w] = change(window, kernel)
        score = iou(candidate, mask)
        if score < lowest:
            continue
        out = candidate
        if score < target:
            break
    return out
