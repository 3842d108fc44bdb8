"""Replacement of the most similar position (after SwiftNet, Wang et al., CVPR 2021)."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, Int

from rdejax.memory.affinity import checked_similarity, checked_top_k
from rdejax.memory.ema_family import (
    FrameState,
    closest,
    cosine_setting,
    frame_entries,
    read_frames,
    start_frames,
    updated,
    with_first,
)
from rdejax.memory.protocol import Entries, Masks, MemoryRule
from rdejax.memory.registry import register


def successors(
    similarity: Float[Array, " n"], place: Int[Array, " n"], changed: Bool[Array, " n"]
) -> Int[Array, " n"]:
    """For each of n places the new position that takes it, or n if none does.

    Among the changed positions that chose a place the most similar one wins, the first if several
    are equally similar.

    Args:
      similarity: of each new position to the place it chose.
      place: the places they chose.
      changed: which of them want it.
    """
    n = similarity.shape[0]
    score = jnp.where(changed, similarity, -jnp.inf)
    wins = changed & (score == jax.ops.segment_max(score, place, num_segments=n)[place])
    candidate = jnp.where(wins, jnp.arange(n), n)
    return jnp.minimum(jax.ops.segment_min(candidate, place, num_segments=n), n)


@register("replace")
class ReplaceMemory(MemoryRule):
    """One frame's worth of positions; what changed takes the place of what it resembles most.

    With cosine similarities s(q, p) of the memorised frame's keys k_q to the stored ones,

        p*(q) = argmax_p s(q, p);    k_t(p*(q)) = k_q(q)  where s(q, p*(q)) < trigger,

    values alike: the EMA family of the RDE-VOS supplement (section 1) with lambda = 0 and the most
    similar location. Positions that the memory knows well (at or above `trigger`) change nothing.
    If several positions choose the same place, the most similar one gets it (the first of equals)
    and the others are dropped.

    Differences from SwiftNet: what triggers is the key's similarity to the memory, not the change
    of pixels and masks between frames, and it triggers position by position, not frame by frame.
    Positions are chosen by their keys, hence once for all objects of a group.

    Args:
      key_channels: unused, any width will do.
      value_channels: unused.
      trigger: similarity below which a new position enters, a cosine; may be traced. Above 1 every
        position does, at -1 none.
      first: keep the first frame beside the positions and read both as one bank, as RDE's strategy
        "F+RDE" does. Until the first update they are the same and count once.
      top_k: memory positions kept per query position; None for the full softmax.
      similarity: of reading: "l2", "dot" or "cosine".
      rngs: unused, nothing is learned.

    Raises:
      RdejaxError: top_k below 1, or trigger outside [-1, 2].
    """

    trained_with = {"top_k": None}

    def __init__(
        self,
        *,
        key_channels: int,
        value_channels: int,
        rngs: nnx.Rngs,
        trigger: Any = 0.9,
        first: bool = False,
        top_k: int | None = 40,
        similarity: str = "l2",
    ):
        del key_channels, value_channels, rngs
        self.trigger = cosine_setting("trigger", trigger)
        self.first = first
        self.top_k = checked_top_k(top_k)
        self.similarity = checked_similarity(similarity)

    def init(self, key: Array, value: Array, masks: Masks) -> FrameState:
        """The positions are the first frame's."""
        del masks
        return start_frames(key, value, self.first)

    def read(self, state: FrameState, query: Array) -> tuple[Array, FrameState]:
        """Attention over the positions (and the first frame)."""
        return read_frames(state, query, self.top_k, self.similarity), state

    def write(self, state: FrameState, key: Array, value: Array, masks: Masks) -> FrameState:
        """Puts the changed positions in place of those they resemble most."""
        del masks
        h, w, ck = key.shape
        n = h * w
        similarity, place = closest(
            key.reshape(n, ck), state.key[0].reshape(n, ck), jnp.ones(n, bool)
        )
        winner = successors(similarity, place, similarity < self.trigger)

        def replace(stored: Array, new: Array) -> Array:
            flat = new.reshape(n, -1)[jnp.minimum(winner, n - 1)]
            kept = jnp.where((winner < n)[:, None], flat, stored.reshape(n, -1))
            return kept.reshape(stored.shape).astype(stored.dtype)

        return updated(
            state, replace(state.key[0], key), jax.vmap(replace)(state.value[:, 0], value)
        )

    def keep(self, state: FrameState, key: Array, value: Array, masks: Masks) -> FrameState:
        """As `write`; the frame also takes the place of the first one, if that is kept."""
        return with_first(self.write(state, key, value, masks), key, value)

    def contents(self, state: FrameState) -> Entries:
        """The updated positions, and the first frame if it is kept."""
        return frame_entries(state)
