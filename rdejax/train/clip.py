"""The loss of one training clip, from the same methods that inference uses."""

import functools
from collections.abc import Callable
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, Int, UInt8

from rdejax.data.batch import Clip
from rdejax.memory.registry import make_rule
from rdejax.models.matching import Features, State, System
from rdejax.propagate.blocks import one_frame
from rdejax.train.config import LossConfig
from rdejax.train.losses import (
    bootstrap_fraction,
    bootstrapped_mean,
    channel_kl,
    class_iou_loss,
    cross_entropy,
    dice_loss,
    frame_weights,
    lovasz_loss,
    one_hot_masks,
    soft_iou_loss,
)
from rdejax.train.scanning import scan


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
    rule = make_rule(
        "bank",
        key_channels=0,
        value_channels=0,
        rngs=nnx.Rngs(0),
        top_k=None,
        similarity=getattr(model.memory, "similarity", "l2"),
    )
    return with_memory(model, rule)


def own_memory(model: System) -> System:
    """The model with its own memory rule as it is trained: for RDE-VOS the SAM pattern."""
    return with_memory(model, model.memory.as_trained())


def normalise(model: System, frames: UInt8[Array, "t H W 3"]) -> Float[Array, "t H W 3"]:
    """Frames as the networks expect them."""
    x = frames.astype(jnp.float32) / 255.0
    return (x - jnp.asarray(model.mean)) / jnp.asarray(model.std)


@flax.struct.dataclass
class ClipOutputs:
    """What the networks say of a clip of T frames, whose first mask is given.

    Attributes:
      logits: [T-1, o+1, H, W] of the frames after the first, as they are scored.
      guidance: L_UG of all SAM-pattern items, unweighted.
      consistency: L_MC, unweighted.
    """

    logits: Float[Array, "t o+1 H W"]
    guidance: Float[Array, ""]
    consistency: Float[Array, ""]


@flax.struct.dataclass
class _Past:
    bank: State
    sam: State | None
    guidance: Float[Array, ""]


def with_background(masks: Float[Array, "o H W"]) -> Float[Array, "o+1 H W"]:
    """Masks as probabilities of background and objects, left as they are where objects overlap."""
    return jnp.concatenate([1.0 - jnp.clip(masks.sum(0, keepdims=True), 0.0, 1.0), masks])


def clip_outputs(
    model: System,
    clip: Clip,
    *,
    pattern: str,
    every_object: bool = False,
    consistency: bool = True,
    remat: bool = False,
    dtype: Any = jnp.float32,
) -> ClipOutputs:
    """Runs a clip as it is trained on (RDE-VOS, section 3.4), a scan over its frames.

    Patterns: "bank": every frame t >= 1 is read from the bank of frames 0..t-1 (STM pattern; the
    static-image stage, STCN). "alternate": odd frames are read from that bank and even ones from
    the recurrent embedding of frames 0..t-1 (SAM pattern), for which the bank's reading of the same
    frame is the teacher (L_UG); another memory rule than RDE takes the embedding's place. "memory":
    every frame is read from the system's own memory (SWEM). What is memorised of a frame is its
    mask as read from the bank, if there is one. The memory starts from the perturbed first mask;
    L_MC ties its value to that of the true mask.

    Args:
      model: the system; its memory rule does not matter with the pattern "bank".
      clip: one clip, without leading axes.
      pattern: see above; "alternate" needs an odd number of frames.
      every_object: unused slots count in L_UG and L_MC, as in the public code.
      consistency: whether L_MC is computed; it costs the encoding of one more value.
      remat: recompute activations in the backward pass instead of keeping them.
      dtype: of the networks' activations; logits and losses are float32.
    """
    frames, labels, valid = clip.frames, clip.labels, clip.valid
    sam = pattern == "alternate"
    period = 2 if sam else 1
    counts = jnp.ones_like(valid) if every_object else valid
    keep: Callable[..., Any] = jax.checkpoint if remat else lambda f: f
    images = normalise(model, frames).astype(dtype)
    if remat:  # frame by frame, or all frames' activations would be there again at once
        _, each = scan(lambda _, x: (None, jax.checkpoint(model.encode)(x)), None, images[:, None])
        features = jax.tree.map(lambda x: x[:, 0], each)
    else:
        features = model.encode(images)
    first = one_frame(features, 0)
    bank_model = own_memory(model) if pattern == "memory" else full_bank(model)
    sam_model = own_memory(model) if sam else None

    def entry(masks: Array) -> Any:
        return bank_model.entry(first, with_background(masks), 1, clip.given)

    given = keep(entry)(clip.perturbed.astype(jnp.float32))
    bank = bank_model.begin(given, valid[None])
    if bank_model.memory.capacity(frames.shape[0] - 2) is not None:
        bank = bank_model.reserve(bank, frames.shape[0] - 1)
    past = _Past(
        bank=bank,
        sam=sam_model.begin(given, valid[None]) if sam_model else None,
        guidance=jnp.zeros(()),
    )

    def frame(past: _Past, now: Features, recurrent: bool, memorize: bool) -> tuple[_Past, Array]:
        readout, _ = bank_model.read(past.bank, now)
        logits = scored = bank_model.decode(past.bank, now, readout)[0]
        if recurrent:
            assert sam_model is not None and past.sam is not None
            sam_readout, _ = sam_model.read(past.sam, now)
            scored = sam_model.decode(past.sam, now, sam_readout)[0]
            kl = channel_kl(
                sam_model.decoder_input(sam_readout, now.thin)[0],
                bank_model.decoder_input(readout, now.thin)[0],
                counts,
            )
            past = past.replace(guidance=past.guidance + kl)  # type: ignore[attr-defined]
        if memorize:
            new = bank_model.entry(now, jax.nn.softmax(logits, axis=0), 1)
            past = _Past(
                bank=bank_model.write(past.bank, new),
                sam=sam_model.write(past.sam, new) if sam_model and past.sam else None,
                guidance=past.guidance,
            )
        return past, scored

    def block(past: _Past, now: Features, last: bool = False) -> tuple[_Past, Array]:
        out = []
        for i in range(period):
            memorize = not (last and i == period - 1)
            step = keep(functools.partial(frame, recurrent=sam and i == 1, memorize=memorize))
            past, scored = step(past, one_frame(now, i))
            out.append(scored)
        return past, jnp.stack(out)

    blocks = jax.tree.map(lambda x: x[1:].reshape(-1, period, *x.shape[1:]), features)
    # The last frame is not memorised, so its block stands outside of the scan.
    parts = []
    if frames.shape[0] > period + 1:
        past, logits = scan(block, past, jax.tree.map(lambda x: x[:-1], blocks))
        parts.append(logits)
    past, tail = block(past, jax.tree.map(lambda x: x[-1], blocks), last=True)
    logits = jnp.concatenate([*parts, tail[None]])
    mask_consistency = jnp.zeros(())
    if consistency:
        true = keep(entry)(one_hot_masks(labels[0], valid.shape[0]))
        mask_consistency = channel_kl(given.value[0], true.value[0], counts)
    return ClipOutputs(logits.reshape(-1, *logits.shape[2:]), past.guidance, mask_consistency)


def segmentation_terms(
    logits: Float[Array, "t o+1 H W"],
    labels: UInt8[Array, "t H W"],
    valid: Bool[Array, " o"],
    fraction: Float[Array, ""],
) -> dict[str, Float[Array, " t"]]:
    """Losses of each predicted frame: cross-entropy, soft IoU (two kinds), dice and Lovasz."""

    def one(logits: Array, labels: Array) -> dict[str, Array]:
        every = jax.nn.softmax(logits, axis=0)
        probs = every[1:]
        return {
            "cross_entropy": bootstrapped_mean(cross_entropy(logits, labels), fraction),
            "soft_iou": soft_iou_loss(probs, labels, valid),
            "class_iou": class_iou_loss(every, labels, valid),
            "dice": dice_loss(probs, labels, valid),
            "lovasz": lovasz_loss(probs, labels, valid),
        }

    return jax.vmap(one)(logits, labels)


def clip_loss(
    model: System,
    clip: Clip,
    step: Int[Array, ""],
    config: LossConfig,
    *,
    remat: bool = False,
    dtype: Any = jnp.float32,
) -> tuple[Float[Array, ""], dict[str, Array]]:
    """Loss of one clip (RDE-VOS, equations 4 to 7), see `clip_outputs` for the arguments.

    Args:
      model: the system.
      clip: the clip.
      step: training step, for the bootstrapping schedule.
      config: weights, schedule and convention.
      remat: see `clip_outputs`.
      dtype: see `clip_outputs`.

    Returns:
      The loss and its terms.
    """
    public = config.convention == "public"
    out = clip_outputs(
        model,
        clip,
        pattern=config.pattern,
        every_object=public,
        consistency=config.consistency > 0,
        remat=remat,
        dtype=dtype,
    )
    fraction = bootstrap_fraction(step, config.bootstrap_start, config.bootstrap_end, config.top_p)
    terms = segmentation_terms(out.logits, clip.labels[1:], clip.valid, fraction)
    weights = frame_weights(out.logits.shape[0], config.convention, config.pattern)
    metrics = {
        "segmentation": jnp.dot(weights, terms["cross_entropy"]),
        "soft_iou": terms["soft_iou"].mean(),
        "guidance": out.guidance,
        "consistency": out.consistency,
    }
    total = metrics["segmentation"] + config.soft_iou * metrics["soft_iou"]
    total += config.guidance * out.guidance + config.consistency * out.consistency
    for name in ("class_iou", "dice", "lovasz"):
        if getattr(config, name):
            metrics[name] = terms[name].mean()
            total += getattr(config, name) * metrics[name]
    return total, {**metrics, "iou": 1.0 - metrics["soft_iou"]}


def batch_loss(
    model: System,
    batch: Clip,
    step: Int[Array, ""],
    config: LossConfig,
    *,
    remat: bool = False,
    dtype: Any = jnp.float32,
) -> tuple[Float[Array, ""], dict[str, Array]]:
    """Mean of `clip_loss` over the clips of a batch (leading axis of every array)."""

    def one(clip: Clip) -> tuple[Array, dict[str, Array]]:
        return clip_loss(model, clip, step, config, remat=remat, dtype=dtype)

    losses, terms = jax.vmap(one)(batch)
    return losses.mean(), jax.tree.map(jnp.mean, terms)
