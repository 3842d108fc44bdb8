"""The loss of one training clip, from the same methods that inference uses."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int, UInt8

from rdejax.memory.registry import make_rule
from rdejax.models.base import System, others_of
from rdejax.propagate import one_frame
from rdejax.train.config import LossConfig
from rdejax.train.losses import (
    bootstrap_fraction,
    bootstrapped_mean,
    channel_kl,
    cross_entropy,
    soft_iou_loss,
)


def with_memory(model: System, memory: nnx.Module) -> System:
    """The same networks with another memory rule."""
    other = _fresh(model)
    other.memory = memory
    return other


def _fresh(module: Any) -> Any:
    # A new object over the same weights: NNX forbids setting attributes of one that was made
    # outside the transformation in progress.
    return jax.tree.map(lambda x: x, module)


def full_bank(model: System) -> System:
    """The model with the STM pattern: a bank of all frames, read by a full softmax."""
    rule = make_rule("bank", key_channels=0, value_channels=0, rngs=nnx.Rngs(0), top_k=None)
    return with_memory(model, rule)


def embedding_only(model: System) -> System:
    """The model with the SAM pattern: the recurrent embedding alone, read by a full softmax."""
    rule = _fresh(model.memory)
    rule.entries, rule.copies, rule.top_k = ("RDE",), (1,), None
    return with_memory(model, rule)


def normalise(model: System, frames: UInt8[Array, "t H W 3"]) -> Float[Array, "t H W 3"]:
    """Frames as the networks expect them."""
    x = frames.astype(jnp.float32) / 255.0
    return (x - jnp.asarray(model.mean)) / jnp.asarray(model.std)


def one_hot_masks(labels: Int[Array, "*t H W"], objects: int) -> Float[Array, "*t o H W"]:
    """Binary masks of the ids 1..objects."""
    ids = jnp.arange(1, objects + 1)[:, None, None]
    return (labels[..., None, :, :] == ids).astype(jnp.float32)


def clip_loss(
    model: System,
    clip: dict[str, Array],
    step: Int[Array, ""],
    config: LossConfig,
) -> tuple[Float[Array, ""], dict[str, Array]]:
    """Loss of one clip (RDE-VOS, section 3.4 and equations 4 to 7).

    Without the SAM pattern every frame t >= 1 is read from the bank of frames 0..t-1 (static-image
    stage, STCN). With it, odd frames are read from that bank (STM pattern) and even ones from the
    recurrent embedding of frames 0..t-1 (SAM pattern), for which the bank's reading of the same
    frame is the teacher (L_UG). What is memorised of a frame is its mask as read from the bank. The
    memory starts from the perturbed first mask; L_MC ties its value to that of the true mask.

    Args:
      model: system with RDE memory (any, without the SAM pattern).
      clip: frames uint8 [t, H, W, 3], labels uint8 [t, H, W], perturbed uint8 [o, H, W], valid
        bool [o].
      step: training step, for the bootstrapping schedule.
      config: weights and schedule.

    Returns:
      The loss and its terms.
    """
    frames, labels, valid = clip["frames"], clip["labels"], clip["valid"]
    count, objects = frames.shape[0], valid.shape[0]
    features = model.encode(normalise(model, frames))
    first = one_frame(features, 0)
    true_mask = one_hot_masks(labels[0], objects)
    perturbed = clip["perturbed"].astype(jnp.float32)
    bank_model = full_bank(model)
    bank = bank_model.start(first, perturbed, valid)
    bank = bank_model.reserve(bank, count - 1)
    if config.sam:
        sam_model = embedding_only(model)
        sam = sam_model.start(first, perturbed, valid)

    seg = iou = guidance = jnp.zeros(())
    fraction = bootstrap_fraction(step, config.bootstrap_start, config.bootstrap_end, config.top_p)
    for t in range(1, count):
        now = one_frame(features, t)
        readout, _ = bank_model.read(bank, now)
        logits = bank_model.decode(bank, now, readout)[0]
        scored = logits
        if config.sam and t % 2 == 0:
            sam_readout, _ = sam_model.read(sam, now)
            scored = sam_model.decode(sam, now, sam_readout)[0]
            guidance += channel_kl(
                sam_model.decoder_input(sam_readout, now.thin)[0],
                bank_model.decoder_input(readout, now.thin)[0],
                valid,
            )
        seg += bootstrapped_mean(cross_entropy(scored, labels[t]), fraction)
        iou += soft_iou_loss(jax.nn.softmax(scored, axis=0)[1:], labels[t], valid)
        if t < count - 1:
            probs = jax.nn.softmax(logits, axis=0)
            bank = bank_model.memorize(bank, now, probs)
            if config.sam:
                sam = sam_model.memorize(sam, now, probs)

    def value(masks: Array) -> Array:
        probs = bank_model.given(masks, valid)[1:]
        return model.encode_value(first, probs[None], others_of(probs)[None])[0]

    consistency = channel_kl(value(perturbed), value(true_mask), valid)
    scale = 0.5 if config.sam else 1.0 / (count - 1)
    terms: dict[str, Any] = {
        "segmentation": scale * seg,
        "soft_iou": iou / (count - 1),
        "guidance": guidance,
        "consistency": consistency,
    }
    total = (
        terms["segmentation"]
        + config.soft_iou * terms["soft_iou"]
        + config.guidance * guidance
        + config.consistency * consistency
    )
    return total, {**terms, "iou": 1.0 - terms["soft_iou"]}


def batch_loss(
    model: System, batch: dict[str, Array], step: Int[Array, ""], config: LossConfig
) -> tuple[Float[Array, ""], dict[str, Array]]:
    """Mean of `clip_loss` over the clips of a batch (leading axis of every array)."""
    losses, terms = jax.vmap(lambda clip: clip_loss(model, clip, step, config))(batch)
    return losses.mean(), jax.tree.map(jnp.mean, terms)
