"""A memory rule that draws at random: the first frame and a fair sample of all that followed.

    rdejax infer VIDEO --mask FIRST_MASK.png --output OUT --memory examples/reservoir_memory.py

The PRNG key is in the state, like everything else that changes. So the rule stays pure, a saved
stream goes on with the same draws, and a video is segmented alike each time.
"""

import flax.struct
import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int, Key

from rdejax.errors import RdejaxError
from rdejax.memory.affinity import checked_top_k, read_out
from rdejax.memory.protocol import Masks, MemoryRule
from rdejax.memory.registry import register


@flax.struct.dataclass
class ReservoirState:
    """The first frame, and `places` of the memorised ones.

    Attributes:
      key: [places + 1, h, w, ck], the first frame's first.
      value: [o, places + 1, h, w, cv].
      writes: frames memorised after the first.
      draws: PRNG key of the next draw.
    """

    key: Float[Array, "m h w ck"]
    value: Float[Array, "o m h w cv"]
    writes: Int[Array, ""]
    draws: Key[Array, ""]


@register("reservoir")
class ReservoirMemory(MemoryRule):
    """Reservoir sampling (Vitter 1985, algorithm R): each memorised frame is kept equally likely.

    The n-th frame takes a random place with probability places / n; before the places are full, the
    next one.

    Args:
      key_channels: unused, any width will do.
      value_channels: unused.
      rngs: unused, nothing is learned.
      places: frames kept beside the first, 1 or more.
      top_k: memory positions kept per query position; None for the full softmax.
      seed: of the draws.

    Raises:
      RdejaxError: places or top_k below 1.
    """

    trained_with = {"top_k": None}

    def __init__(
        self,
        *,
        key_channels: int,
        value_channels: int,
        rngs: nnx.Rngs,
        places: int = 4,
        top_k: int | None = 40,
        seed: int = 0,
    ):
        del key_channels, value_channels, rngs
        if places < 1:
            raise RdejaxError(f"places={places}: give 1 or more")
        self.places, self.seed = places, seed
        self.top_k = checked_top_k(top_k)

    def init(self, key: Array, value: Array, masks: Masks) -> ReservoirState:
        """The first frame; the other places are empty."""
        del masks
        return ReservoirState(
            key=jnp.zeros((self.places + 1, *key.shape)).at[0].set(key),
            value=jnp.zeros((value.shape[0], self.places + 1, *value.shape[1:]))
            .at[:, 0]
            .set(value),
            writes=jnp.zeros((), jnp.int32),
            draws=jax.random.key(self.seed),
        )

    def read(self, state: ReservoirState, query: Array) -> tuple[Array, ReservoirState]:
        """Attention over the places that hold a frame."""
        m, h, w, ck = state.key.shape
        objects, _, _, _, cv = state.value.shape
        held = (jnp.arange(m) <= state.writes).astype(jnp.int32)
        readout = read_out(
            query,
            state.key.reshape(m * h * w, ck),
            state.value.reshape(objects, m * h * w, cv),
            jnp.repeat(held, h * w),
            top_k=self.top_k,
        )
        return readout, state

    def write(
        self, state: ReservoirState, key: Array, value: Array, masks: Masks
    ) -> ReservoirState:
        """The frame goes to the next place, then to a random one, or is left out."""
        del masks
        draws, drawn = jax.random.split(state.draws)
        place = jax.random.randint(drawn, (), 0, state.writes + 1)
        place = jnp.where(state.writes < self.places, state.writes, place)
        # An index beyond the last place is dropped, which is what the algorithm wants.
        return ReservoirState(
            key=state.key.at[place + 1].set(key, mode="drop"),
            value=state.value.at[:, place + 1].set(value, mode="drop"),
            writes=state.writes + 1,
            draws=draws,
        )
