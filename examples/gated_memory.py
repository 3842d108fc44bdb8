"""A memory rule that learns: how much of the past each channel keeps. See docs/memory_rules.md.

rdejax train rde_lite_smoke --memory examples/gated_memory.py --workdir RUN
rdejax infer VIDEO --mask FIRST_MASK.png --output OUT --checkpoint RUN
"""

import math

import flax.struct
import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from rdejax.memory.affinity import checked_top_k, read_out
from rdejax.memory.protocol import Masks, MemoryRule
from rdejax.memory.registry import register


@flax.struct.dataclass
class GatedState:
    """The first frame and the running mean of what followed, whatever the video's length.

    Attributes:
      key: [2, h, w, ck].
      value: [o, 2, h, w, cv].
    """

    key: Float[Array, "2 h w ck"]
    value: Float[Array, "o 2 h w cv"]


@register("gated")
class GatedMemory(MemoryRule):
    """k <- g k + (1 - g) k_t with a learned gate g in (0, 1) for each channel; values alike.

    Args:
      key_channels: width of the keys.
      value_channels: width of the values.
      start: gate of every channel before training, in (0, 1).
      top_k: memory positions kept per query position; None for the full softmax.
      rngs: unused, every gate starts alike.
    """

    trained_with = {"top_k": None}

    def __init__(
        self,
        *,
        key_channels: int,
        value_channels: int,
        rngs: nnx.Rngs,
        start: float = 0.5,
        top_k: int | None = 40,
    ):
        del rngs
        logit = math.log(start / (1.0 - start))
        self.key_gate = nnx.Param(jnp.full(key_channels, logit))
        self.value_gate = nnx.Param(jnp.full(value_channels, logit))
        self.top_k = checked_top_k(top_k)

    def init(self, key: Array, value: Array, masks: Masks) -> GatedState:
        """Both entries are the first frame."""
        del masks
        return GatedState(key=jnp.stack([key, key]), value=jnp.stack([value, value], axis=1))

    def read(self, state: GatedState, query: Array) -> tuple[Array, GatedState]:
        """Attention over both entries."""
        _, h, w, ck = state.key.shape
        objects, _, _, _, cv = state.value.shape
        readout = read_out(
            query,
            state.key.reshape(2 * h * w, ck),
            state.value.reshape(objects, 2 * h * w, cv),
            jnp.ones(2 * h * w, jnp.int32),
            top_k=self.top_k,
        )
        return readout, state

    def write(self, state: GatedState, key: Array, value: Array, masks: Masks) -> GatedState:
        """Moves the mean towards the new frame, each channel at its own pace."""
        del masks

        def mixed(gate: nnx.Param, old: Array, new: Array) -> Array:
            g = jnp.broadcast_to(jax.nn.sigmoid(gate[...]).astype(old.dtype), old.shape)
            return g * old + (1.0 - g) * new

        return GatedState(
            key=state.key.at[1].set(mixed(self.key_gate, state.key[1], key)),
            value=state.value.at[:, 1].set(mixed(self.value_gate, state.value[:, 1], value)),
        )
