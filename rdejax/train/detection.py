"""Losses of the class-agnostic detector of DMN-AOA on one frame; this project's own.

Focal loss (Lin et al., ICCV 2017) on objectness, positive in the middle of each object's box; GIoU
on the boxes there; cross-entropy on the masks inside of the true boxes, which are moved a little.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Key

from rdejax.nn.dmn_boxes import box_of, crop_masks, generalised_iou
from rdejax.nn.dmn_detector import MASK_GRID, STRIDES, Dense, DenseHead, centres

_ALPHA, _GAMMA = 0.25, 2.0
# Boxes whose mean side is below it are those of stride 8.
_SMALL = 64.0
# Half of the side of the square in the middle of a box whose positions are positive, in strides.
_MIDDLE = 1.5
_JITTER = 0.08


def detection_losses(
    detector: DenseHead,
    dense: Dense,
    f8: Float[Array, "h8 w8 c"],
    masks: Float[Array, "o H W"],
    key: Key[Array, ""],
) -> dict[str, Float[Array, ""]]:
    """Losses of one frame by name: "objectness", "box", "mask".

    Args:
      detector: whose mask branch is trained.
      dense: what it said of this frame, without the leading axis.
      f8: of the pyramid.
      masks: true masks, 0 or 1; empty ones are no objects.
      key: of the jitter of the boxes that the mask branch sees.
    """
    boxes, there = box_of(masks, 1)
    positive, target = _targets(boxes, there, 8 * f8.shape[0], 8 * f8.shape[1])
    count = jnp.maximum(positive.sum(), 1).astype(jnp.float32)
    overlap = generalised_iou(dense.boxes, target)
    return {
        "objectness": focal_loss(dense.objectness, positive).sum() / count,
        "box": jnp.sum(jnp.where(positive, 1.0 - overlap, 0.0)) / count,
        "mask": _mask_loss(detector, f8, masks, boxes, there, key),
    }


def focal_loss(logits: Float[Array, " a"], positive: Bool[Array, " a"]) -> Float[Array, " a"]:
    """-alpha_t (1 - p_t)^gamma log p_t, alpha 0.25 for positives, gamma 2."""
    sign = jnp.where(positive, 1.0, -1.0)
    log_p = jax.nn.log_sigmoid(sign * logits)
    alpha = jnp.where(positive, _ALPHA, 1.0 - _ALPHA)
    return -alpha * (1.0 - jnp.exp(log_p)) ** _GAMMA * log_p


def _targets(
    boxes: Float[Array, "o 4"], there: Bool[Array, " o"], height: int, width: int
) -> tuple[Bool[Array, " a"], Float[Array, "a 4"]]:
    """Positive positions of both strides, and the box each is to give: of several the smallest."""
    size = boxes[:, 2:] - boxes[:, :2]
    area = jnp.where(there, size[:, 0] * size[:, 1], jnp.inf)
    positive, target = [], []
    for stride in STRIDES:
        at = centres(height // stride, width // stride, stride)[:, None]
        level = (jnp.sqrt(area) < _SMALL) == (stride == STRIDES[0])
        offset = jnp.abs(at - ((boxes[:, 2:] + boxes[:, :2]) / 2)[None])
        # At least the position that the centre lies in, in slim boxes too.
        reach = jnp.clip(size / 2, stride / 2, _MIDDLE * stride)
        hit = (offset <= reach[None]).all(-1) & (there & level)[None]
        best = jnp.argmin(jnp.where(hit, area[None], jnp.inf), axis=1)
        positive.append(hit.any(1))
        target.append(boxes[best])
    return jnp.concatenate(positive), jnp.concatenate(target)


def _mask_loss(
    detector: DenseHead,
    f8: Array,
    masks: Float[Array, "o H W"],
    boxes: Float[Array, "o 4"],
    there: Bool[Array, " o"],
    key: Key[Array, ""],
) -> Float[Array, ""]:
    size = boxes[:, 2:] - boxes[:, :2]
    by = _JITTER * jax.random.normal(key, boxes.shape) * jnp.concatenate([size, size], axis=1)
    moved = boxes + by
    logits = detector.masks(f8, moved)
    truth = crop_masks(masks, moved, 1, 2 * MASK_GRID)
    loss = jnp.maximum(logits, 0.0) - logits * truth + jnp.log1p(jnp.exp(-jnp.abs(logits)))
    return jnp.sum(jnp.where(there, loss.mean((1, 2)), 0.0)) / jnp.maximum(there.sum(), 1)
