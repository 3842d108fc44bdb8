"""What the rules of the EMA family share: `average`, `merge` and `replace`, one file each.

The RDE-VOS supplement (section 1) writes the memory updates of several papers as one equation,

    k_t(p) = (1 - lambda) k_q(q) + lambda k_{t-theta}(p),

values alike: position p of the memory moves towards position q of the memorised frame. A rule is a
choice of lambda and of which q goes to which p.
"""

from typing import Any

import flax.struct
import jax.numpy as jnp
from jax import lax
from jax.core import Tracer
from jaxtyping import Array, Bool, Float, Int

from rdejax.errors import RdejaxError
from rdejax.memory.affinity import read_out
from rdejax.memory.protocol import Entries


def number_between(name: str, value: Any, low: float, high: float, hint: str) -> Any:
    """A continuous setting, checked: Python float, or the tracer that was given.

    Args:
      name: of the setting, for the message.
      value: number, array of one number, or a tracer (a setting that `jax.vmap` or `jax.grad` goes
        over), whose value nobody can know.
      low: least value allowed.
      high: largest value allowed.
      hint: what to give, for the message.

    Raises:
      RdejaxError: a known value that is no number or lies outside [low, high].
    """
    if isinstance(value, Tracer):
        return value
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = None
    if number is None or isinstance(value, bool):
        raise RdejaxError(f"{name}={value!r} is not a number; give {hint}")
    if not low <= number <= high:
        raise RdejaxError(f"{name}={value}: give {hint}")
    return number


def cosine_setting(name: str, value: Any) -> Any:
    """A bound on a cosine similarity; from -1 to 1, or up to 2 for one that nothing reaches.

    Raises:
      RdejaxError: a known value outside [-1, 2].
    """
    hint = "a cosine similarity from -1 to 1, or a number up to 2 that no similarity reaches"
    return number_between(name, value, -1.0, 2.0, hint)


def move_towards(
    new: Float[Array, "*s"], old: Float[Array, "*s"], decay: Float[Array, ""] | float
) -> Float[Array, "*s"]:
    """(1 - decay) new + decay old, computed in float32, in the dtype of `old`."""
    mean = (1.0 - decay) * new.astype(jnp.float32) + decay * old.astype(jnp.float32)
    return mean.astype(old.dtype)


def closest(
    key: Float[Array, "n ck"], stored: Float[Array, "m ck"], present: Bool[Array, " m"]
) -> tuple[Float[Array, " n"], Int[Array, " n"]]:
    """Cosine similarity and index of the stored key that is most similar to each new one.

    No gradient passes: what follows from it are choices. Of equally similar ones the first is
    taken.

    Args:
      key: keys of the new positions.
      stored: keys of the memory's positions.
      present: which of them count.
    """

    def unit(x: Array) -> Array:
        x = lax.stop_gradient(x).astype(jnp.float32)
        return x / jnp.maximum(jnp.linalg.norm(x, axis=-1, keepdims=True), 1e-12)

    # Full precision: reduced ones of accelerators are too coarse for a threshold near 1.
    cosine = jnp.matmul(unit(key), unit(stored).T, precision=lax.Precision.HIGHEST)
    cosine = jnp.where(present[None], cosine, -jnp.inf)
    return jnp.max(cosine, axis=-1), jnp.argmax(cosine, axis=-1)


@flax.struct.dataclass
class FrameState:
    """One frame's positions that are updated, and the first frame if it is kept beside them.

    Attributes:
      key: [e, h, w, ck]; entry 0 is updated, entry 1, if there is one, is the first frame.
      value: [o, e, h, w, cv].
      updates: frames memorised after the first.
    """

    key: Float[Array, "e h w ck"]
    value: Float[Array, "o e h w cv"]
    updates: Int[Array, ""]


def start_frames(
    key: Float[Array, "h w ck"], value: Float[Array, "o h w cv"], first: bool
) -> FrameState:
    """State after the first frame, which is kept a second time with `first`."""
    entries = 2 if first else 1
    return FrameState(
        key=jnp.repeat(key[None], entries, axis=0),
        value=jnp.repeat(value[:, None], entries, axis=1),
        updates=jnp.zeros((), jnp.int32),
    )


def read_frames(
    state: FrameState, query: Float[Array, "n h w ck"], top_k: int | None, similarity: str
) -> Float[Array, "n o h w cv"]:
    """Attention over all entries; before the first update they are one and count once."""
    e, h, w, ck = state.key.shape
    o, cv = state.value.shape[0], state.value.shape[-1]
    copies = jnp.ones(e, jnp.int32).at[1:].set((state.updates > 0).astype(jnp.int32))
    return read_out(
        query,
        state.key.reshape(e * h * w, ck),
        state.value.reshape(o, e * h * w, cv),
        jnp.repeat(copies, h * w),
        top_k=top_k,
        similarity_name=similarity,
    )


def updated(
    state: FrameState, key: Float[Array, "h w ck"], value: Float[Array, "o h w cv"]
) -> FrameState:
    """State whose entry 0 is the given one, an update later."""
    return FrameState(
        key=state.key.at[0].set(key),
        value=state.value.at[:, 0].set(value),
        updates=state.updates + 1,
    )


def with_first(
    state: FrameState, key: Float[Array, "h w ck"], value: Float[Array, "o h w cv"]
) -> FrameState:
    """State whose first frame, if it is kept, is this one."""
    if state.key.shape[0] == 1:
        return state
    return state.replace(  # type: ignore[attr-defined]
        key=state.key.at[1].set(key), value=state.value.at[:, 1].set(value)
    )


def frame_entries(state: FrameState) -> Entries:
    """The updated entry, and the first frame if it is kept, see `MemoryRule.contents`."""
    kept = state.key.shape[0]
    return Entries(state.key, state.value, ("updated", "F")[:kept], (None, 0)[:kept])
