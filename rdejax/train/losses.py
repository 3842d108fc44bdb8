"""Losses of RDE-VOS and STCN as small pure functions."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int


def cross_entropy(logits: Float[Array, "c H W"], labels: Int[Array, "H W"]) -> Float[Array, "H W"]:
    """Per-pixel cross-entropy of aggregated logits (background first)."""
    log_p = jax.nn.log_softmax(logits, axis=0)
    return -jnp.take_along_axis(log_p, labels[None].astype(jnp.int32), axis=0)[0]


def bootstrap_fraction(
    step: Int[Array, ""] | int, start: int, end: int, top: float = 0.15
) -> Float[Array, ""]:
    """Share of pixels that count: 1 until `start`, falling linearly to `top` at `end`."""
    progress = (end - jnp.asarray(step, jnp.float32)) / max(end - start, 1)
    return top + (1.0 - top) * jnp.clip(progress, 0.0, 1.0)


def bootstrapped_mean(
    loss: Float[Array, "H W"], fraction: Float[Array, ""] | float
) -> Float[Array, ""]:
    """Mean of the hardest int(H * W * fraction) pixels (at least one); `fraction` may be traced."""
    flat = jnp.sort(loss.reshape(-1), descending=True)
    count = jnp.maximum(jnp.floor(flat.size * jnp.asarray(fraction)), 1.0)
    keep = jnp.arange(flat.size) < count
    return jnp.sum(jnp.where(keep, flat, 0.0)) / count


def soft_iou_loss(
    probs: Float[Array, "o H W"], labels: Int[Array, "H W"], valid: Bool[Array, " o"]
) -> Float[Array, ""]:
    """1 - mean over valid objects of sum(min(p, y)) / sum(max(p, y)) (SWEM's auxiliary loss).

    Args:
      probs: object probabilities, background excluded.
      labels: ids, 0 for background.
      valid: objects that count.
    """
    truth = (labels[None] == jnp.arange(1, probs.shape[0] + 1)[:, None, None]).astype(probs.dtype)
    inter = jnp.minimum(probs, truth).sum((1, 2))
    union = jnp.maximum(probs, truth).sum((1, 2))
    iou = inter / (union + 1e-6)
    # An object that has left the frame and is rightly not predicted has no IoU.
    counts = valid & (truth.sum((1, 2)) > 0)
    return jnp.sum(jnp.where(counts, 1.0 - iou, 0.0)) / jnp.maximum(counts.sum(), 1)


def channel_kl(
    student: Float[Array, "o h w c"], teacher: Float[Array, "o h w c"], valid: Bool[Array, " o"]
) -> Float[Array, ""]:
    """KL(teacher || student) of softmaxes over channels, summed over objects (L_UG and L_MC).

    As the public code: the mean over channels and positions of t (log t - log s), not their sum,
    and the teacher is not detached.
    """
    log_s = jax.nn.log_softmax(student, axis=-1)
    log_t = jax.nn.log_softmax(teacher, axis=-1)
    per_object = (jnp.exp(log_t) * (log_t - log_s)).mean((1, 2, 3))
    return jnp.sum(jnp.where(valid, per_object, 0.0))
