"""Boxes on grids: what is inside of one, on a grid of its own, and back; suppression of copies.

A box is (left, top, right, bottom) in pixels of the padded frame. Features of stride s have their
sample i at pixel (i + 1/2) s. Linear interpolation is separable, so cropping and pasting are two
products with small matrices each: no gathers, whose gradients are slow.
"""

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int

_EPS = 1e-6


def crop(
    features: Float[Array, "h w c"], boxes: Float[Array, "p 4"], stride: int, side: int
) -> Float[Array, "p s s c"]:
    """RoI-align (He et al., 2017) with sampling ratio 2: means of four bilinear samples to a bin.

    Args:
      features: of one frame.
      boxes: on it; samples beyond the border repeat it.
      stride: of the features.
      side: bins to a side.
    """
    across, down = _bins(boxes, stride, side, features.shape[1], features.shape[0])
    rows = jnp.einsum("psh,hwc->pswc", down.astype(features.dtype), features)
    return jnp.einsum("ptw,pswc->pstc", across.astype(features.dtype), rows)


def crop_masks(
    masks: Float[Array, "p h w"], boxes: Float[Array, "p 4"], stride: int, side: int
) -> Float[Array, "p s s"]:
    """As `crop`, of masks of which each has a box of its own."""
    across, down = _bins(boxes, stride, side, masks.shape[2], masks.shape[1])
    return jnp.einsum("psh,phw,ptw->pst", down, masks, across)


def paste(
    masks: Float[Array, "p m m"], boxes: Float[Array, "p 4"], stride: int, size: tuple[int, int]
) -> Float[Array, "p h w"]:
    """Masks on a box's own grid, put where the boxes are; 0 outside (bilinear)."""
    side = masks.shape[-1]

    def weights(low: Array, high: Array, count: int) -> Float[Array, "p n m"]:
        centres = (jnp.arange(count, dtype=boxes.dtype) + 0.5) * stride
        length = jnp.maximum(high - low, _EPS)
        share = (centres[None] - low[:, None]) / length[:, None]
        inside = ((share >= 0) & (share <= 1)).astype(boxes.dtype)
        return _hat(share * side - 0.5, side) * inside[..., None]

    left, top, right, bottom = jnp.unstack(boxes, axis=-1)
    down, across = weights(top, bottom, size[0]), weights(left, right, size[1])
    return jnp.einsum("phi,pij,pwj->phw", down, masks, across)


def resampled(
    masks: Float[Array, "*b i j"], down: Float[Array, "h i"], across: Float[Array, "w j"]
) -> Float[Array, "*b h w"]:
    """Masks on another grid, see `resampling`."""
    return jnp.einsum("hi,...ij,wj->...hw", down, masks, across)


def resampling(
    shares: Float[Array, " n"], step: Float[Array, ""] | float, size: int
) -> Float[Array, "n m"]:
    """Weights of `size` samples of an axis at other places on it, averaged where it shrinks.

    Args:
      shares: places, as shares of the axis; 0 weights outside of [0, 1].
      step: distance of two places, as a share of the axis.
      size: samples that there are, each in the middle of its part of the axis.
    """
    width = jnp.maximum(1.0, step * size)
    at = jnp.clip(shares * size - 0.5, 0.0, size - 1.0)
    distance = jnp.abs(at[:, None] - jnp.arange(size, dtype=at.dtype)[None])
    weights = jnp.maximum(0.0, 1.0 - distance / width)
    weights = weights / jnp.maximum(weights.sum(-1, keepdims=True), _EPS)
    inside = (shares >= 0) & (shares <= 1)
    return jnp.where(inside[:, None], weights, 0.0)


def box_of(
    masks: Float[Array, "*b h w"], stride: int
) -> tuple[Float[Array, "*b 4"], Bool[Array, "*b"]]:
    """The boxes of soft masks: where they are above one half, or half of their own maximum.

    Returns:
      Boxes, those of the whole frame for masks that are 0 everywhere; and whether a mask is above
      one half anywhere.
    """
    *_, h, w = masks.shape
    most = masks.max((-2, -1))
    found = masks > (jnp.minimum(1.0, most) / 2)[..., None, None]

    def span(hit: Bool[Array, "*b n"]) -> tuple[Array, Array]:
        count = hit.shape[-1]
        first = jnp.argmax(hit, axis=-1)
        last = count - jnp.argmax(hit[..., ::-1], axis=-1)
        some = hit.any(-1)
        return jnp.where(some, first, 0), jnp.where(some, last, count)

    (top, bottom), (left, right) = span(found.any(-1)), span(found.any(-2))
    box = jnp.stack([left, top, right, bottom], axis=-1).astype(masks.dtype) * stride
    return box, most > 0.5


def box_iou(a: Float[Array, "p 4"], b: Float[Array, "q 4"]) -> Float[Array, "p q"]:
    """Intersection over union of every pair of boxes."""
    low = jnp.maximum(a[:, None, :2], b[None, :, :2])
    high = jnp.minimum(a[:, None, 2:], b[None, :, 2:])
    inter = jnp.prod(jnp.maximum(high - low, 0.0), axis=-1)
    union = _area(a)[:, None] + _area(b)[None] - inter
    return inter / jnp.maximum(union, _EPS)


def generalised_iou(a: Float[Array, "*n 4"], b: Float[Array, "*n 4"]) -> Float[Array, "*n"]:
    """GIoU of boxes, pair by pair (Rezatofighi et al., CVPR 2019): -1 far apart, 1 the same."""
    low = jnp.maximum(a[..., :2], b[..., :2])
    high = jnp.minimum(a[..., 2:], b[..., 2:])
    inter = jnp.prod(jnp.maximum(high - low, 0.0), axis=-1)
    union = jnp.maximum(_area(a) + _area(b) - inter, _EPS)
    hull = jnp.maximum(a[..., 2:], b[..., 2:]) - jnp.minimum(a[..., :2], b[..., :2])
    hull = jnp.maximum(jnp.prod(hull, axis=-1), _EPS)
    return inter / union - (hull - union) / hull


def mask_iou(a: Float[Array, "o h w"], b: Float[Array, "p h w"]) -> Float[Array, "o p"]:
    """Intersection over union of every pair of masks, each taken as where it is above one half."""
    x, y = ((m > 0.5).astype(jnp.float32).reshape(m.shape[0], -1) for m in (a, b))
    inter = x @ y.T
    return inter / jnp.maximum(x.sum(1)[:, None] + y.sum(1)[None] - inter, 1.0)


def suppress(
    boxes: Float[Array, "a 4"], scores: Float[Array, " a"], count: int, threshold: float
) -> tuple[Int[Array, " p"], Bool[Array, " p"]]:
    """Non-maximum suppression with static shapes: `count` times the best of those that are left.

    Args:
      boxes: candidates.
      scores: of the candidates; only their order counts.
      count: how many are taken.
      threshold: candidates that overlap a taken one by more go.

    Returns:
      Indices of those taken, best first, and which of them are: once none is left, the rest of the
      places are not.
    """
    overlap = box_iou(boxes, boxes) > threshold

    def take(i: Array, carry: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        left, chosen, valid = carry
        best = jnp.argmax(jnp.where(left, scores, -jnp.inf)).astype(jnp.int32)
        some = left.any()
        left = left & ~(overlap[best] | (jnp.arange(left.size) == best))
        return left, chosen.at[i].set(best), valid.at[i].set(some)

    start = jnp.ones(scores.shape, bool), jnp.zeros(count, jnp.int32), jnp.zeros(count, bool)
    _, chosen, valid = lax.fori_loop(0, count, take, start)
    return chosen, valid


def _area(box: Float[Array, "*n 4"]) -> Float[Array, "*n"]:
    return jnp.prod(jnp.maximum(box[..., 2:] - box[..., :2], 0.0), axis=-1)


def _bins(
    boxes: Float[Array, "p 4"], stride: int, side: int, width: int, height: int
) -> tuple[Float[Array, "p s w"], Float[Array, "p s h"]]:
    """Weights of the samples of rows and columns in each bin."""
    places = (jnp.arange(2 * side, dtype=boxes.dtype) + 0.5) / (2 * side)

    def weights(low: Array, high: Array, size: int) -> Array:
        at = low[:, None] + places[None] * (high - low)[:, None]
        samples = _hat(at / stride - 0.5, size)
        return samples.reshape(len(boxes), side, 2, size).mean(2)

    left, top, right, bottom = jnp.unstack(boxes, axis=-1)
    return weights(left, right, width), weights(top, bottom, height)


def _hat(at: Float[Array, "p n"], size: int) -> Float[Array, "p n m"]:
    """Weights of linear interpolation between `size` samples at 0, 1, 2, ...; the ends repeat."""
    at = jnp.clip(at, 0.0, size - 1.0)
    grid = jnp.arange(size, dtype=at.dtype)[None, None]
    return jax.nn.relu(1.0 - jnp.abs(at[..., None] - grid))
