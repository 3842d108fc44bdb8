"""Losses of RDE-VOS, STCN, SWEM and XMem as small pure functions of one frame."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Integer

_EPS = 1e-6


def cross_entropy(
    logits: Float[Array, "c H W"], labels: Integer[Array, "H W"]
) -> Float[Array, "H W"]:
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
    if isinstance(fraction, float) and fraction >= 1:
        return loss.mean()  # spares the sorting
    flat = jnp.sort(loss.reshape(-1), descending=True)
    count = jnp.maximum(jnp.floor(flat.size * jnp.asarray(fraction)), 1.0)
    keep = jnp.arange(flat.size) < count
    return jnp.sum(jnp.where(keep, flat, 0.0)) / count


def one_hot_masks(labels: Integer[Array, "*t H W"], objects: int) -> Float[Array, "*t o H W"]:
    """Binary masks of the ids 1..objects."""
    ids = jnp.arange(1, objects + 1)[:, None, None]
    return (labels[..., None, :, :] == ids).astype(jnp.float32)


def _mean_over_present(
    per_object: Float[Array, " o"], truth: Float[Array, "o H W"], valid: Bool[Array, " o"]
) -> Float[Array, ""]:
    # An object that has left the frame and is rightly not predicted has no IoU.
    counts = valid & (truth.sum((1, 2)) > 0)
    return jnp.sum(jnp.where(counts, per_object, 0.0)) / jnp.maximum(counts.sum(), 1)


def soft_iou_loss(
    probs: Float[Array, "o H W"], labels: Integer[Array, "H W"], valid: Bool[Array, " o"]
) -> Float[Array, ""]:
    """1 - mean over valid objects of sum(min(p, y)) / sum(max(p, y)).

    Args:
      probs: object probabilities, background excluded.
      labels: ids, 0 for background.
      valid: objects that count; those absent from the frame do not.
    """
    truth = one_hot_masks(labels, probs.shape[0])
    inter = jnp.minimum(probs, truth).sum((1, 2))
    union = jnp.maximum(probs, truth).sum((1, 2))
    return _mean_over_present(1.0 - inter / (union + _EPS), truth, valid)


def class_iou_loss(
    probs: Float[Array, "c H W"], labels: Integer[Array, "H W"], valid: Bool[Array, " o"]
) -> Float[Array, ""]:
    """As `soft_iou_loss`, over background and all valid objects, absent ones too (SWEM's L_aux).

    Args:
      probs: probabilities of background and objects.
      labels: ids, 0 for background.
      valid: objects that count.
    """
    truth = one_hot_masks(labels, probs.shape[0] - 1)
    truth = jnp.concatenate([1.0 - truth.sum(0, keepdims=True), truth])
    iou = jnp.minimum(probs, truth).sum((1, 2)) / (jnp.maximum(probs, truth).sum((1, 2)) + _EPS)
    counts = jnp.concatenate([jnp.ones(1), valid.astype(jnp.float32)])
    return 1.0 - jnp.dot(counts, iou) / counts.sum()


def dice_loss(
    probs: Float[Array, "o H W"], labels: Integer[Array, "H W"], valid: Bool[Array, " o"]
) -> Float[Array, ""]:
    """1 - mean over valid objects of 2 sum(p y) / (sum(p) + sum(y)); arguments as `soft_iou_loss`.

    Milletari et al., V-Net, 2016, with plain sums in the denominator.
    """
    truth = one_hot_masks(labels, probs.shape[0])
    both = probs.sum((1, 2)) + truth.sum((1, 2))
    dice = 2.0 * (probs * truth).sum((1, 2)) / (both + _EPS)
    return _mean_over_present(1.0 - dice, truth, valid)


def slot_dice_loss(probs: Float[Array, "o H W"], labels: Integer[Array, "H W"]) -> Float[Array, ""]:
    """1 - mean over all slots of (2 sum(p y) + 1) / (sum(p) + sum(y) + 1), as XMem's public code.

    A slot without an object, where probabilities are 0, counts with a loss of 0.
    """
    truth = one_hot_masks(labels, probs.shape[0])
    both = probs.sum((1, 2)) + truth.sum((1, 2))
    return jnp.mean(1.0 - (2.0 * (probs * truth).sum((1, 2)) + 1.0) / (both + 1.0))


def lovasz_loss(
    probs: Float[Array, "o H W"], labels: Integer[Array, "H W"], valid: Bool[Array, " o"]
) -> Float[Array, ""]:
    """Lovasz-softmax loss, mean over valid objects; arguments as `soft_iou_loss`.

    The Lovasz extension of the Jaccard loss at the errors |y - p| (Berman et al., CVPR 2018,
    equations 8 to 11): errors in falling order, weighted by how much each adds to the loss.
    """
    truth = one_hot_masks(labels, probs.shape[0])

    def one(p: Array, y: Array) -> Array:
        errors = jnp.abs(y - p).reshape(-1)
        order = jnp.argsort(-errors)
        wrong_truth = jnp.cumsum(y.reshape(-1)[order])
        wrong_other = jnp.cumsum(1.0 - y.reshape(-1)[order])
        area = y.sum()
        jaccard = 1.0 - (area - wrong_truth) / (area + wrong_other + _EPS)
        gains = jnp.diff(jaccard, prepend=0.0)
        return jnp.dot(errors[order], jax.lax.stop_gradient(gains))

    return _mean_over_present(jax.vmap(one)(probs, truth), truth, valid)


def channel_kl(
    student: Float[Array, "o h w c"], teacher: Float[Array, "o h w c"], counts: Bool[Array, " o"]
) -> Float[Array, ""]:
    """KL(teacher || student) of softmaxes over channels, summed over objects (L_UG and L_MC).

    As the public code: the mean over channels and positions of t (log t - log s), not their sum,
    and the teacher is not detached.

    Args:
      student: embedding that is drawn to the teacher.
      teacher: the embedding it should equal.
      counts: objects that are summed over.
    """
    log_s = jax.nn.log_softmax(student.astype(jnp.float32), axis=-1)
    log_t = jax.nn.log_softmax(teacher.astype(jnp.float32), axis=-1)
    per_object = (jnp.exp(log_t) * (log_t - log_s)).mean((1, 2, 3))
    return jnp.sum(jnp.where(counts, per_object, 0.0))
