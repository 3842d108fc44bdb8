"""The loss of training clips: an objective's outputs, scored."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key, UInt8

from rdejax.data.batch import Clip
from rdejax.models import System
from rdejax.train.config import LossConfig
from rdejax.train.losses import (
    bootstrap_fraction,
    bootstrapped_mean,
    class_iou_loss,
    cross_entropy,
    dice_loss,
    lovasz_loss,
    slot_dice_loss,
    soft_iou_loss,
)
from rdejax.train.objectives.protocol import Objective


def segmentation_terms(
    logits: Float[Array, "t c H W"],
    labels: UInt8[Array, "t H W"],
    valid: Bool[Array, " o"],
    fraction: Float[Array, ""] | float,
) -> dict[str, Float[Array, " t"]]:
    """Losses of each predicted frame: cross-entropy, two kinds of soft IoU and of dice, Lovasz."""

    def one(logits: Array, labels: Array) -> dict[str, Array]:
        every = jax.nn.softmax(logits, axis=0)
        probs = every[1:]
        return {
            "cross_entropy": bootstrapped_mean(cross_entropy(logits, labels), fraction),
            "soft_iou": soft_iou_loss(probs, labels, valid),
            "class_iou": class_iou_loss(every, labels, valid),
            "dice": dice_loss(probs, labels, valid),
            "slot_dice": slot_dice_loss(probs, labels),
            "lovasz": lovasz_loss(probs, labels, valid),
        }

    return jax.vmap(one)(logits, labels)


def clip_loss(
    model: System,
    clip: Clip,
    key: Key[Array, ""],
    step: Int[Array, ""],
    objective: Objective,
    losses: LossConfig,
    *,
    remat: bool = False,
    dtype: Any = jnp.float32,
) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
    """Loss of one clip.

    Args:
      model: the system.
      clip: the clip.
      key: see `Objective`.
      step: training step, for the bootstrapping schedule.
      objective: how the clip is run.
      losses: how its frames are scored.
      remat: see `Objective`.
      dtype: see `Objective`.

    Returns:
      The loss and its terms.
    """
    out = objective(model, clip, key, remat=remat, dtype=dtype)
    fraction = 1.0
    if losses.top_p < 1:
        start, end = losses.bootstrap_start, losses.bootstrap_end
        fraction = bootstrap_fraction(step, start, end, losses.top_p)
    terms = segmentation_terms(out.logits, clip.labels[1:], clip.valid, fraction)
    metrics = {
        "segmentation": jnp.dot(out.weights, terms["cross_entropy"]),
        "soft_iou": terms["soft_iou"].mean(),
        **out.terms,
    }
    total = metrics["segmentation"] + losses.soft_iou * metrics["soft_iou"] + out.auxiliary
    for name in ("class_iou", "dice", "slot_dice", "lovasz"):
        if getattr(losses, name):
            metrics[name] = terms[name].mean()
            total += getattr(losses, name) * metrics[name]
    return total, {**metrics, "iou": 1.0 - metrics["soft_iou"]}


def batch_loss(
    model: System,
    batch: Clip,
    keys: Key[Array, " b"],
    step: Int[Array, ""],
    objective: Objective,
    losses: LossConfig,
    *,
    remat: bool = False,
    dtype: Any = jnp.float32,
) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
    """Mean of `clip_loss` over the clips of a batch, each with a key of its own."""

    def one(clip: Clip, key: Array) -> tuple[Array, dict[str, Array]]:
        return clip_loss(model, clip, key, step, objective, losses, remat=remat, dtype=dtype)

    totals, terms = jax.vmap(one)(batch, keys)
    return totals.mean(), jax.tree.map(jnp.mean, terms)
