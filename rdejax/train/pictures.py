"""Pictures of a batch: what went in, what is true, what is predicted."""

import cv2
import numpy as np
from jaxtyping import UInt8

from rdejax.data.batch import Clip
from rdejax.io.overlay import render_overlay

_SIDE = 192
_GAP = 4


def contact_sheet(
    batch: Clip, predicted: UInt8[np.ndarray, "b t H W"], clips: int = 3
) -> UInt8[np.ndarray, "h w 3"]:
    """Input, truth and prediction side by side, one row a frame, the clips next to one another.

    Args:
      batch: with one leading axis.
      predicted: ids of the frames after the first, whose (perturbed) mask was given: that is what
        is shown as its prediction.
      clips: at most this many of them.
    """
    count = min(clips, len(predicted))
    return _join([_clip(batch, predicted, i) for i in range(count)], axis=1)


def _clip(batch: Clip, predicted: np.ndarray, i: int) -> np.ndarray:
    frames, labels = np.asarray(batch.frames[i]), np.asarray(batch.labels[i])
    given = np.zeros_like(labels[0])
    for slot, mask in enumerate(batch.perturbed[i]):
        given[mask > 0] = slot + 1
    masks = [given, *predicted[i]]
    rows = [
        _join([_tile(f), _tile(render_overlay(f, y)), _tile(render_overlay(f, m))], axis=1)
        for f, y, m in zip(frames, labels, masks, strict=True)
    ]
    return _join(rows, axis=0)


def _tile(image: np.ndarray) -> np.ndarray:
    height, width = image.shape[:2]
    scale = _SIDE / max(height, width)
    if scale >= 1:
        return image
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA)


def _join(images: list[np.ndarray], axis: int) -> np.ndarray:
    """Images of equal sides in a row (axis 1) or a column, with white lines between them."""
    pad = [(0, 0), (0, 0), (0, 0)]
    pad[axis] = (0, _GAP)
    spaced = [np.pad(image, pad, constant_values=255) for image in images[:-1]]
    return np.concatenate([*spaced, images[-1]], axis=axis)
