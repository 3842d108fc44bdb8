"""Threshold and merge under a fixed budget (after AFB-URR, Liang et al., NeurIPS 2020)."""

from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, Int

from rdejax.errors import RdejaxError
from rdejax.memory.affinity import checked_similarity, checked_top_k, read_out
from rdejax.memory.ema_family import closest, cosine_setting, move_towards, number_between
from rdejax.memory.protocol import Masks, MemoryRule
from rdejax.memory.registry import register


@flax.struct.dataclass
class MergeState:
    """A bank of single positions; places from `count` to m are free.

    Attributes:
      key: [m + f, ck]: m places, then the f positions of the first frame if it is kept (else 0).
      value: [o, m + f, cv].
      use: [m] new positions that were closest to this one, since it was added.
      born: [m] the update in which it was added; 0 for those of the first frame.
      count: places taken.
      updates: frames memorised after the first.
    """

    key: Float[Array, "p ck"]
    value: Float[Array, "o p cv"]
    use: Int[Array, " m"]
    born: Int[Array, " m"]
    count: Int[Array, ""]
    updates: Int[Array, ""]


def eviction_order(
    taken: Bool[Array, " m"],
    kept: Bool[Array, " m"],
    use: Int[Array, " m"],
    born: Int[Array, " m"],
    now: Int[Array, ""],
) -> Int[Array, " m"]:
    """All places in the order in which new positions get them.

    Free ones first, then by use per update lived, use / (now - born), least first; of equals the
    older one, then the one of lower index. Those that are `kept` come last.

    Args:
      taken: places that are not free.
      kept: places that something was merged into just now.
      use: see `MergeState`.
      born: see `MergeState`.
      now: number of this update, from 1.
    """
    rate = use / jnp.maximum(now - born, 1)
    rank = taken.astype(jnp.int32) + kept
    return jnp.lexsort((born, rate, rank))


def merge_and_add(
    stored: Float[Array, "p c"],
    new: Float[Array, "n c"],
    into: Int[Array, " n"],
    at: Int[Array, " n"],
    decay: Float[Array, ""] | float,
) -> Float[Array, "p c"]:
    """Stored positions after some new ones were merged into them and others took a place.

    Args:
      stored: keys or one object's values.
      new: those of the memorised frame.
      into: place that a new position is merged into; p for none.
      at: place that it takes; p for none.
      decay: weight of what is stored against the mean of what is merged into it.
    """
    total = jnp.zeros(stored.shape, jnp.float32).at[into].add(new, mode="drop")
    number = jnp.zeros(stored.shape[0], jnp.float32).at[into].add(1.0, mode="drop")[:, None]
    merged = move_towards(total / jnp.maximum(number, 1.0), stored, decay)
    kept = jnp.where(number > 0, merged, stored)
    return kept.at[at].set(new.astype(stored.dtype), mode="drop")


@register("merge")
class MergeMemory(MemoryRule):
    """A bank of positions: what is known is averaged in, what is not is added, up to a budget.

    Each position q of the memorised frame t looks up its closest stored position p by the cosine
    similarity s of their keys. Let Q(p) be those that chose p with s > threshold. Then

        k_t(p) = (1 - lambda) mean_{q in Q(p)} k_q(q) + lambda k_{t-theta}(p),    v alike,

    the EMA family of the RDE-VOS supplement (section 1); all other positions are added, each in a
    place of its own. When no place is free, the least used stored positions make room. With t the
    number of the update and b(p) that in which p was added,

        use_t(p) = use_{t-theta}(p) + |{q: p is closest to q}|,    rate(p) = use_t(p) / (t - b(p)),

    use per life time as in AFB-URR, so that use counts less with age. The lowest rate goes first,
    of equals the older. A position that something was merged into in this same update is never
    dropped; as the budget is a frame or more, there is always room for all that is added.

    Use is counted when a frame is written, whose own key stands for a query. It is not counted in
    `read`: of a block of frames some may be padding, and those are read, too, so that the result
    would depend on how a video is cut into blocks.

    Keys belong to the group, so that matching and eviction are decided once for all its objects and
    every object's values follow.

    Differences from AFB-URR: one bank for all objects, and one budget; use counts the closest
    stored position where the public code counts matches of the attention; vectors are averaged as
    they are, where the code averages directions and keeps the stored length; exactly as many
    positions are dropped as room is needed, where the code drops all below a threshold.

    Args:
      key_channels: unused, any width will do.
      value_channels: unused.
      budget_frames: places, in positions of one frame; 1 or more. The first frame kept with `first`
        is not counted.
      threshold: cosine similarity above which a position is merged; may be traced. Above 1 nothing
        is, and the memory is a bank that drops what it uses least.
      decay: lambda, in [0, 1], of what is stored; may be traced. 0.9 as in AFB-URR's public code.
      first: keep the first frame beside the bank and read both as one, as RDE's strategy "F+RDE"
        does. Until the first update they are the same and count once.
      top_k: memory positions kept per query position; None for the full softmax.
      similarity: of reading: "l2", "dot" or "cosine".
      rngs: unused, nothing is learned.

    Raises:
      RdejaxError: top_k below 1, budget_frames not a whole number from 1, threshold outside
        [-1, 2], decay outside [0, 1].
    """

    trained_with = {"top_k": None}

    def __init__(
        self,
        *,
        key_channels: int,
        value_channels: int,
        rngs: nnx.Rngs,
        budget_frames: int = 4,
        threshold: Any = 0.95,
        decay: Any = 0.9,
        first: bool = False,
        top_k: int | None = 40,
        similarity: str = "l2",
    ):
        del key_channels, value_channels, rngs
        if not isinstance(budget_frames, int) or budget_frames < 1:
            raise RdejaxError(f"budget_frames={budget_frames}: give a whole number, 1 or more")
        self.budget_frames = budget_frames
        self.threshold = cosine_setting("threshold", threshold)
        self.decay = number_between("decay", decay, 0.0, 1.0, "a number from 0 to 1")
        self.first = first
        self.top_k = checked_top_k(top_k)
        self.similarity = checked_similarity(similarity)

    def init(self, key: Array, value: Array, masks: Masks) -> MergeState:
        """The first frame's positions, and free places."""
        del masks
        h, w, ck = key.shape
        n, places = h * w, self.budget_frames * h * w

        def bank(x: Array) -> Array:
            free = jnp.zeros((places - n, x.shape[-1]), x.dtype)
            return jnp.concatenate([x, free, x] if self.first else [x, free])

        return MergeState(
            key=bank(key.reshape(n, ck)),
            value=jax.vmap(bank)(value.reshape(value.shape[0], n, -1)),
            use=jnp.zeros(places, jnp.int32),
            born=jnp.zeros(places, jnp.int32),
            count=jnp.asarray(n, jnp.int32),
            updates=jnp.zeros((), jnp.int32),
        )

    def read(self, state: MergeState, query: Array) -> tuple[Array, MergeState]:
        """Attention over the places that are taken (and the first frame); counts no use."""
        positions, places = state.key.shape[0], state.use.shape[0]
        taken = jnp.arange(places) < state.count
        beside = jnp.broadcast_to(state.updates > 0, positions - places)
        readout = read_out(
            query,
            state.key,
            state.value,
            jnp.concatenate([taken, beside]).astype(jnp.int32),
            top_k=self.top_k,
            similarity_name=self.similarity,
        )
        return readout, state

    def write(self, state: MergeState, key: Array, value: Array, masks: Masks) -> MergeState:
        """Merges the positions that are known, adds the others, counts use."""
        del masks
        h, w, ck = key.shape
        n, nowhere, places = h * w, state.key.shape[0], state.use.shape[0]
        key, value = key.reshape(n, ck), value.reshape(value.shape[0], n, -1)
        now = state.updates + 1
        taken = jnp.arange(nowhere) < state.count  # the first frame beside it is never matched
        similarity, place = closest(key, state.key, taken)
        known = similarity > self.threshold
        into = jnp.where(known, place, nowhere)
        use = state.use.at[place].add(1)
        kept = jnp.zeros(places, bool).at[into].set(True, mode="drop")
        order = eviction_order(taken[:places], kept, use, state.born, now)
        at = jnp.where(known, nowhere, order[jnp.cumsum(~known) - 1])

        def update(stored: Array, new: Array) -> Array:
            return merge_and_add(stored, new, into, at, self.decay)

        return MergeState(
            key=update(state.key, key),
            value=jax.vmap(update)(state.value, value),
            use=use.at[at].set(0, mode="drop"),
            born=state.born.at[at].set(now, mode="drop"),
            count=jnp.minimum(state.count + jnp.sum(~known, dtype=jnp.int32), places),
            updates=now,
        )

    def keep(self, state: MergeState, key: Array, value: Array, masks: Masks) -> MergeState:
        """As `write`; the frame also takes the place of the first one, if that is kept."""
        state, places = self.write(state, key, value, masks), state.use.shape[0]
        if not self.first:
            return state
        o, ck = value.shape[0], key.shape[-1]
        return state.replace(  # type: ignore[attr-defined]
            key=state.key.at[places:].set(key.reshape(-1, ck)),
            value=state.value.at[:, places:].set(value.reshape(o, -1, value.shape[-1])),
        )
