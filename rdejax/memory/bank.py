"""The growing bank: memorised frames are kept for ever (STM, Oh et al., 2019; STCN, 2021)."""

from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int, Key

from rdejax.errors import RdejaxError
from rdejax.memory.affinity import checked_similarity, checked_top_k, read_out
from rdejax.memory.protocol import Entries, Masks, MemoryRule
from rdejax.memory.registry import register

_FIRST_BUCKET = 16


@flax.struct.dataclass
class BankState:
    """Frames in the order they were written, then empty slots (see `BankMemory.held`).

    Attributes:
      key: [t, h, w, ck] for a capacity of t frames; for rules that read keys with parts, the pytree
        of the system's keys.
      value: [o, t, h, w, cv].
      count: frames written, those that did not stay included.
    """

    key: Any
    value: Float[Array, "o t h w cv"]
    count: Int[Array, ""]


@register("bank")
class BankMemory(MemoryRule):
    """Appends the key and value of each memorised frame; frames stay distinguishable.

    The capacity grows in buckets between compiled calls, see `bucket`. With `max_frames` it is
    bounded: the first frame stays and the oldest other frame makes room (the papers let it grow).

    Frames are numbered from 0, the first one. With `keep_every` = n those of the numbers 0, n, 2n,
    ... stay, and the latest is there as well: the next one takes its place unless it stays (STM,
    section 3.2: every fifth frame and the previous one).

    Args:
      key_channels: unused, the bank takes any width.
      value_channels: unused.
      top_k: memory positions kept per query position; None for the full softmax.
      similarity: "l2", "dot" or "cosine".
      max_frames: most frames in the bank, or None for no bound.
      keep_every: of the memorised frames each n-th stays.
      rngs: unused, nothing is learned.

    Raises:
      RdejaxError: an unknown `similarity`; or `top_k`, `max_frames` or `keep_every` below 1.
    """

    trained_with = {"top_k": None, "buckets": False}
    keeps_frames = True

    def __init__(
        self,
        *,
        key_channels: int,
        value_channels: int,
        rngs: nnx.Rngs,
        top_k: int | None = 40,
        similarity: str = "l2",
        max_frames: int | None = None,
        keep_every: int = 1,
    ):
        del key_channels, value_channels, rngs
        if keep_every < 1:
            raise RdejaxError(
                f"keep_every={keep_every}: give 1 (each memorised frame stays) or more"
            )
        if max_frames is not None and max_frames < 1:
            raise RdejaxError(f"max_frames={max_frames}: give 1 or more, or None for no bound")
        self.top_k = checked_top_k(top_k)
        self.similarity = checked_similarity(similarity)
        self.max_frames = max_frames
        self.keep_every = keep_every
        self.buckets = True  # clips all have one length, so training needs none

    def init(self, key: Any, value: Array, masks: Masks) -> BankState:
        """A bank of one frame."""
        del masks
        key = jax.tree.map(lambda x: x[None], key)
        return BankState(key=key, value=value[:, None], count=jnp.ones((), jnp.int32))

    def read(self, state: BankState, query: Array) -> tuple[Array, BankState]:
        """Attention over all positions of all frames in the bank."""
        frames, h, w, ck = state.key.shape
        o, cv = state.value.shape[0], state.value.shape[-1]
        present = jnp.arange(frames) < self.held(state.count)
        multiplicity = jnp.repeat(present.astype(jnp.int32), h * w)
        readout = read_out(
            query,
            state.key.reshape(frames * h * w, ck),
            state.value.reshape(o, frames * h * w, cv),
            multiplicity,
            top_k=self.top_k,
            similarity_name=self.similarity,
        )
        return readout, state

    def write(self, state: BankState, key: Any, value: Array, masks: Masks) -> BankState:
        """Puts the frame behind those that stay; in a full bank the oldest but the first goes."""
        del masks
        slot = self.slot(state.count, self.capacity(state))

        def put(x: Array, new: Array) -> Array:
            return jax.lax.dynamic_update_index_in_dim(x, new, slot, 0)

        return BankState(
            key=jax.tree.map(put, state.key, key),
            value=jax.lax.dynamic_update_index_in_dim(state.value, value, slot, 1),
            count=state.count + 1,
        )

    @property
    def forgets(self) -> bool:
        """Whether frames go again."""
        return self.max_frames is not None or self.keep_every > 1

    def keep(self, state: BankState, key: Any, value: Array, masks: Masks) -> BankState:
        """As `write`; where frames go again, this one takes the first one's place as well."""
        state = self.write(state, key, value, masks)
        if not self.forgets:
            return state
        return state.replace(  # type: ignore[attr-defined]
            key=jax.tree.map(lambda x, new: x.at[0].set(new), state.key, key),
            value=state.value.at[:, 0].set(value),
        )

    def slot(self, count: Int[Array, "*n"], frames: int) -> Int[Array, "*n"]:
        """Where the frame that is written after `count` others goes in a bank of `frames`."""
        staying = (count + self.keep_every - 1) // self.keep_every
        over = jnp.maximum(staying - frames, 0)
        ring = 1 + over % max(frames - 1, 1)
        return jnp.where(staying < frames, staying, jnp.minimum(ring, frames - 1))

    def contents(self, state: BankState) -> Entries:
        """The frames in the bank, each called by its number."""
        frames, count = self.capacity(state), int(state.count)
        latest = dict(zip(self.slot(jnp.arange(count), frames).tolist(), range(count), strict=True))
        kept = range(min(int(self.held(state.count)), frames))
        return Entries(state.key, state.value, ("",) * len(kept), tuple(latest[i] for i in kept))

    def held(self, count: Int[Array, ""] | int) -> Int[Array, ""]:
        """Frames in an unbounded bank after `count` writes: those that stay and the latest."""
        return jnp.minimum(count, (count + self.keep_every - 2) // self.keep_every + 1)

    def capacity_for(self, writes: int) -> int:
        """Frames to make room for: a bucket, at most `max_frames`."""
        later = -(-writes // self.keep_every)
        room = bucket(later) if self.buckets else later + 1
        return room if self.max_frames is None else max(2, min(room, self.max_frames))

    def capacity(self, state: BankState) -> int:
        """Frames the arrays hold."""
        return state.value.shape[1]

    def reserve(self, state: Any, capacity: int) -> BankState:
        """Pads the frame axis with empty frames up to `capacity`."""
        extra = capacity - self.capacity(state)
        if extra <= 0:
            return state
        none = (0, 0)
        return BankState(
            key=jax.tree.map(lambda x: jnp.pad(x, ((0, extra), none, none, none)), state.key),
            value=jnp.pad(state.value, (none, (0, extra), none, none, none)),
            count=state.count,
        )


def bucket(writes: int) -> int:
    """Frames to make room for after the first and `writes` others, in a bank that grows.

    16, then a power of two: each is a compilation, so a video of T memorised frames has log2(T) of
    them and not T, and most videos one.
    """
    return max(_FIRST_BUCKET, 1 << writes.bit_length())


def first_and_random(time: Int[Array, " t"], most: int, key: Key[Array, ""]) -> Int[Array, " t"]:
    """At most so many of the frames in memory: the first and others drawn, each as likely.

    What XMem's training reads at a time.

    Args:
      time: number of the frame in each place, the group's first in the first one; 0: a free place.
      most: how many.
      key: PRNG key of the draw.

    Returns:
      `time`, and 0 for frames that are not to be seen.
    """
    luck = jnp.where(time > 0, jax.random.uniform(key, time.shape), -1.0).at[0].set(2.0)
    rank = jnp.argsort(jnp.argsort(-luck))
    return jnp.where(rank < most, time, 0)
