"""Plain averaging, position by position (after GCNet, Li et al., ECCV 2020)."""

from typing import Any

from flax import nnx
from jaxtyping import Array

from rdejax.memory.affinity import checked_similarity, checked_top_k
from rdejax.memory.ema_family import (
    FrameState,
    frame_entries,
    move_towards,
    number_between,
    read_frames,
    start_frames,
    updated,
    with_first,
)
from rdejax.memory.protocol import Entries, Masks, MemoryRule
from rdejax.memory.registry import register


@register("average")
class AverageMemory(MemoryRule):
    """One frame's key and value, each position the moving average of what was there.

        k_t(p) = (1 - lambda) k_q(p) + lambda k_{t-theta}(p),    v alike,

    the EMA family of the RDE-VOS supplement (section 1) with q = p and a fixed lambda: 0.5 is
    GCNet's plain averaging, 0 keeps the latest frame (RDE's "L"), 1 the first ("F"). Only the
    update rule is GCNet's: memory is read by attention as in the other rules, not as its global
    context matrix.

    Args:
      key_channels: unused, any width will do.
      value_channels: unused.
      decay: lambda, in [0, 1]; may be traced.
      first: keep the first frame beside the average and read both as one bank, as RDE's strategy
        "F+RDE" does. Until the first update they are the same and count once.
      top_k: memory positions kept per query position; None for the full softmax.
      similarity: of reading: "l2", "dot" or "cosine".
      rngs: unused, nothing is learned.

    Raises:
      RdejaxError: top_k below 1, or decay outside [0, 1].
    """

    trained_with = {"top_k": None}

    def __init__(
        self,
        *,
        key_channels: int,
        value_channels: int,
        rngs: nnx.Rngs,
        decay: Any = 0.5,
        first: bool = False,
        top_k: int | None = 40,
        similarity: str = "l2",
    ):
        del key_channels, value_channels, rngs
        self.decay = number_between("decay", decay, 0.0, 1.0, "a number from 0 to 1")
        self.first = first
        self.top_k = checked_top_k(top_k)
        self.similarity = checked_similarity(similarity)

    def init(self, key: Array, value: Array, masks: Masks) -> FrameState:
        """The average is the first frame."""
        del masks
        return start_frames(key, value, self.first)

    def read(self, state: FrameState, query: Array) -> tuple[Array, FrameState]:
        """Attention over the average (and the first frame)."""
        return read_frames(state, query, self.top_k, self.similarity), state

    def write(self, state: FrameState, key: Array, value: Array, masks: Masks) -> FrameState:
        """Moves every position towards the new frame's."""
        del masks
        return updated(
            state,
            move_towards(key, state.key[0], self.decay),
            move_towards(value, state.value[:, 0], self.decay),
        )

    def keep(self, state: FrameState, key: Array, value: Array, masks: Masks) -> FrameState:
        """As `write`; the frame also takes the place of the first one, if that is kept."""
        return with_first(self.write(state, key, value, masks), key, value)

    def contents(self, state: FrameState) -> Entries:
        """The updated positions, and the first frame if it is kept."""
        return frame_entries(state)
