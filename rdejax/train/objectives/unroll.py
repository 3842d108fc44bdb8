"""A clip as a video: the methods that inference calls, in the order in which it calls them."""

import dataclasses
from collections.abc import Callable
from typing import Any, ClassVar, Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key, UInt8

from rdejax.data.batch import Clip
from rdejax.models import Features, State, System
from rdejax.models.protocol import one_frame
from rdejax.propagate.scanning import scan
from rdejax.train.objectives.protocol import ClipOutputs, Objective, one_of
from rdejax.train.objectives.registry import register


@register("unroll")
@dataclasses.dataclass(frozen=True)
class UnrollObjective(Objective):
    """Every frame is segmented from the system's own memory, which remembers every frame.

    What is remembered of a frame is what was predicted, and gradients flow through all of it. The
    memory starts from the clip's perturbed first mask, the true one where clips do not perturb.

    Attributes:
      reduce: "mean" or "sum" of the frames' cross-entropies (XMem).
      memory: "trained": as the memory rule says that it is trained (`MemoryRule.as_trained`);
        "inference": as inference reads it, with all its entries and its top-k.
    """

    name: ClassVar[str] = "unroll"
    reduce: Literal["mean", "sum"] = "mean"
    memory: Literal["trained", "inference"] = "trained"

    def __post_init__(self) -> None:
        one_of("objective unroll:", "reduce", self.reduce, ("mean", "sum"))
        one_of("objective unroll:", "memory", self.memory, ("trained", "inference"))

    def __call__(
        self,
        model: System,
        clip: Clip,
        key: Key[Array, ""],
        *,
        remat: bool = False,
        dtype: Any = jnp.float32,
    ) -> ClipOutputs:
        """See `Objective`."""
        run = model.as_trained() if self.memory == "trained" else model
        logits = unroll(run, clip, key, remat=remat, dtype=dtype)
        frames = logits.shape[0]
        weight = 1.0 / frames if self.reduce == "mean" else 1.0
        return ClipOutputs(logits, jnp.full(frames, weight), jnp.zeros(()), {})


def unroll(
    model: System,
    clip: Clip,
    key: Key[Array, ""] | None,
    *,
    remat: bool = False,
    dtype: Any = jnp.float32,
) -> Float[Array, "t c H W"]:
    """Logits of a clip's frames after the first.

    Args:
      model: the system, as trained (`System.as_trained`).
      clip: one clip.
      key: see `System.start`.
      remat: see `Objective`.
      dtype: see `Objective`.
    """
    keep = kept(remat)
    features = encode_clip(model, clip.frames, remat=remat, dtype=dtype)
    first, frames = one_frame(features, 0), clip.frames.shape[0]

    def start(masks: Array) -> State:
        probs = with_background(masks)
        return model.start(first, probs, clip.valid, given=clip.given, key=key)

    def segment(state: State, now: Features) -> tuple[State, Array]:
        state, logits = model.segment(state, now)
        return state, logits[0]

    def frame(state: State, now: Features) -> tuple[State, Array]:
        state, logits = segment(state, now)
        return model.memorize(state, now, jax.nn.softmax(logits, axis=0)), logits

    state = keep(start)(clip.perturbed.astype(jnp.float32))
    state = model.reserve(state, frames - 2)
    # The last frame is not memorised, so it stands outside of the scan.
    parts = []
    if frames > 2:
        now = jax.tree.map(lambda x: x[1:-1, None], features)
        state, logits = scan(keep(frame), state, now)
        parts.append(logits)
    _, last = keep(segment)(state, one_frame(features, frames - 1))
    return jnp.concatenate([*parts, last[None]])


def encode_clip(
    model: System, frames: UInt8[Array, "t H W 3"], *, remat: bool, dtype: Any
) -> Features:
    """Features of all frames of a clip; see `Objective` for `remat` and `dtype`."""
    x = frames.astype(jnp.float32) / 255.0
    mean, std = (jnp.reshape(jnp.asarray(v), (1, 1, 1, 3)) for v in (model.mean, model.std))
    images = ((x - mean) / std).astype(dtype)
    if not remat:
        return model.encode(images)
    # Frame by frame, or all frames' activations would be there again at once.
    _, each = scan(lambda _, x: (None, jax.checkpoint(model.encode)(x)), None, images[:, None])
    return jax.tree.map(lambda x: x[:, 0], each)


def with_background(masks: Float[Array, "o H W"]) -> Float[Array, "o+1 H W"]:
    """Masks as probabilities of background and objects, left as they are where objects overlap."""
    return jnp.concatenate([1.0 - jnp.clip(masks.sum(0, keepdims=True), 0.0, 1.0), masks])


def kept(remat: bool) -> Callable[..., Any]:
    """What a function is wrapped in: `jax.checkpoint` with `remat`, nothing without."""
    return jax.checkpoint if remat else lambda f: f
