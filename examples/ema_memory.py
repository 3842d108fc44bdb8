"""A memory rule of one's own in one file: an exponential moving average of all memorised frames.

    rdejax infer VIDEO --mask FIRST_MASK.png --output OUT --memory examples/ema_memory.py

Nothing else has to change: the file is named, its rule registers itself, and the networks around it
stay as they are. The contract of `init`, `read` and `write` is in `rdejax/memory/protocol.py`.
"""

import flax.struct
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int

from rdejax.errors import RdejaxError
from rdejax.memory.affinity import checked_top_k, read_out
from rdejax.memory.protocol import Masks, MemoryRule
from rdejax.memory.registry import register


@flax.struct.dataclass
class EMAState:
    """Two entries, whatever the video's length: the first frame and the average.

    Attributes:
      key: [2, h, w, ck].
      value: [o, 2, h, w, cv].
      updates: frames memorised after the first.
    """

    key: Float[Array, "2 h w ck"]
    value: Float[Array, "o 2 h w cv"]
    updates: Int[Array, ""]


@register("ema")
class EMAMemory(MemoryRule):
    """Keeps the first frame (k_1, v_1) and, position by position, the average of what followed.

        k <- (1 - lambda) k_t + lambda k,    v <- (1 - lambda) v_t + lambda v,

    the update rule that the RDE-VOS supplement (section 1) calls the EMA family. lambda = 0.5 is
    GCNet's plain averaging, lambda = 0 keeps the latest frame only (RDE's "F+L"). Unlike those
    methods, the first frame is kept beside the average, so that its true mask is never blurred.

    Args:
      key_channels: unused, any width will do.
      value_channels: unused.
      decay: lambda, in [0, 1).
      top_k: memory positions kept per query position; None for the full softmax.
      rngs: unused, nothing is learned.

    Raises:
      RdejaxError: top_k below 1, or decay outside [0, 1).
    """

    trained_with = {"top_k": None}

    def __init__(
        self,
        *,
        key_channels: int,
        value_channels: int,
        rngs: nnx.Rngs,
        decay: float = 0.5,
        top_k: int | None = 40,
    ):
        del key_channels, value_channels, rngs
        if not 0.0 <= decay < 1.0:
            raise RdejaxError(f"decay={decay}: give a number from 0 to below 1")
        self.decay = decay
        self.top_k = checked_top_k(top_k)

    def init(self, key: Array, value: Array, masks: Masks) -> EMAState:
        """Both entries are the first frame."""
        del masks
        return EMAState(
            key=jnp.stack([key, key]),
            value=jnp.stack([value, value], axis=1),
            updates=jnp.zeros((), jnp.int32),
        )

    def read(self, state: EMAState, query: Array) -> tuple[Array, EMAState]:
        """Attention over both entries; before the first update they are one and count once."""
        _, h, w, ck = state.key.shape
        objects, _, _, _, cv = state.value.shape
        copies = jnp.stack([jnp.ones((), jnp.int32), (state.updates > 0).astype(jnp.int32)])
        readout = read_out(
            query,
            state.key.reshape(2 * h * w, ck),
            state.value.reshape(objects, 2 * h * w, cv),
            jnp.repeat(copies, h * w),
            top_k=self.top_k,
        )
        return readout, state

    def write(self, state: EMAState, key: Array, value: Array, masks: Masks) -> EMAState:
        """Moves the average towards the new frame."""
        del masks
        mean_key = (1.0 - self.decay) * key + self.decay * state.key[1]
        mean_value = (1.0 - self.decay) * value + self.decay * state.value[:, 1]
        return EMAState(
            key=state.key.at[1].set(mean_key),
            value=state.value.at[:, 1].set(mean_value),
            updates=state.updates + 1,
        )
