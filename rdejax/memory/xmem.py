"""XMem's working and long-term memory (Cheng and Schwing, ECCV 2022, section 3).

Schedule, equations and settings are the public code's. This library's reconstruction, equal in
effect, are the static shapes, and that objects which come later have keys and stores of their own
(as every group of objects has): the public code pairs some of their values with wrong keys.
"""

from collections.abc import Mapping
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax
from jaxtyping import Array, Float, Int, Key

from rdejax.errors import RdejaxError
from rdejax.memory import xmem_store
from rdejax.memory.affinity import (
    anisotropic_l2,
    checked_top_k,
    in_rows,
    softmax_weights,
    top_k_weights,
)
from rdejax.memory.bank import bucket, first_and_random
from rdejax.memory.protocol import Entries, Masks, MemoryRule
from rdejax.memory.registry import register
from rdejax.memory.views import Distribution, Moment, Numbers, View
from rdejax.memory.xmem_store import NEW_LIFE, Candidates, LongTerm
from rdejax.nn.xmem import AnisotropicKey


@flax.struct.dataclass
class XMemState:
    """Frames of the working memory in the order of time, then free places; the long-term memory.

    Attributes:
      key: [t, h, w, ck]; `key.selection` is None without a long-term memory.
      value: [o, t, h, w, cv].
      use: [t, h, w] float32, sum of the attention that each element got.
      life: [t] float32, frames each was read for.
      time: [t] int32, which memorised frame it is, from 1, the group's first; 0: a free place.
      written: frames memorised so far.
      long: the long-term memory, or None.
    """

    key: Any
    value: Float[Array, "o t h w cv"]
    use: Float[Array, "t h w"]
    life: Float[Array, " t"]
    time: Int[Array, " t"]
    written: Int[Array, ""]
    long: LongTerm | None


@register("xmem")
class XMemMemory(MemoryRule):
    """Working memory of recent frames, consolidated into a long-term memory of prototypes.

    Every memorised frame joins the working memory. When it holds `max_mid_term_frames`, all but the
    first and the last `min_mid_term_frames` - 1 are consolidated: the `num_prototypes` elements
    that were read most become prototypes (`xmem_store.prototypes`) and the frames go. Of the
    prototypes the most used `max_long_term_elements` stay. So the state has one size for videos of
    any length. Reading is one softmax over both memories and counts how much each element is used.

    Keys are `AnisotropicKey`; plain ones are taken as of shrinkage and selection 1, so the memory
    runs on other bodies, too.

    Args:
      key_channels: unused, the memory takes any width.
      value_channels: unused.
      rngs: unused, nothing is learned.
      min_mid_term_frames: frames that stay in the working memory, the first one among them.
      max_mid_term_frames: frames at which it is consolidated.
      num_prototypes: elements that a consolidation leaves.
      max_long_term_elements: size of the long-term memory.
      enable_long_term: False: nothing is consolidated, the working memory grows without bound, in
        buckets.
      enable_long_term_count_usage: whether usage of prototypes is counted, too. It decides only
        which are forgotten when the memory is full. (The public script counts it in videos that are
        long enough to fill it, and cannot forget in others; without, the oldest go here.)
      top_k: memory positions kept per query position; None for the full softmax.

    Raises:
      RdejaxError: numbers that do not go together.
    """

    recurrent = True
    anisotropic = True
    trained_with = {
        "top_k": None,
        "enable_long_term": False,
        "buckets": False,
        "most_read": 3,
    }

    def __init__(
        self,
        *,
        key_channels: int,
        value_channels: int,
        rngs: nnx.Rngs,
        min_mid_term_frames: int = 5,
        max_mid_term_frames: int = 10,
        num_prototypes: int = 128,
        max_long_term_elements: int = 10_000,
        enable_long_term: bool = True,
        enable_long_term_count_usage: bool = True,
        top_k: int | None = 30,
    ):
        del key_channels, value_channels, rngs
        if not 1 <= min_mid_term_frames < max_mid_term_frames:
            raise RdejaxError(
                f"min_mid_term_frames={min_mid_term_frames}, max_mid_term_frames="
                f"{max_mid_term_frames}: give 1 or more, and a larger maximum"
            )
        if not 1 <= num_prototypes <= max_long_term_elements:
            raise RdejaxError(
                f"num_prototypes={num_prototypes}, max_long_term_elements="
                f"{max_long_term_elements}: give 1 or more, and no fewer elements than prototypes"
            )
        self.min_mid_term_frames = min_mid_term_frames
        self.max_mid_term_frames = max_mid_term_frames
        self.num_prototypes = num_prototypes
        self.max_long_term_elements = max_long_term_elements
        self.enable_long_term = enable_long_term
        self.enable_long_term_count_usage = enable_long_term_count_usage
        self.top_k = checked_top_k(top_k)
        self.buckets = True  # clips all have one length, so training needs none
        self.most_read: int | None = None  # frames that training reads at a time

    def init(self, key: Any, value: Array, masks: Masks) -> XMemState:
        """A working memory of one frame.

        Raises:
          RdejaxError: frames too small for that many prototypes.
        """
        del masks
        key = self._stored(key)
        _, h, w, _ = value.shape
        state = XMemState(
            key=jax.tree.map(lambda x: x[None], key),
            value=value[:, None],
            use=jnp.zeros((1, h, w), jnp.float32),
            life=jnp.full(1, NEW_LIFE, jnp.float32),
            time=jnp.ones(1, jnp.int32),
            written=jnp.ones((), jnp.int32),
            long=None,
        )
        if not self.enable_long_term:
            return state
        if self.num_prototypes > self._consolidated * h * w:
            raise RdejaxError(
                f"num_prototypes={self.num_prototypes}: the {self._consolidated} frames that are "
                f"consolidated have {self._consolidated * h * w} elements of stride 16; give fewer "
                "or larger frames"
            )
        long = xmem_store.empty(self.max_long_term_elements, key.key, value)
        return _padded(state, self.max_mid_term_frames).replace(long=long)  # type: ignore[attr-defined]

    @property
    def _consolidated(self) -> int:
        """Frames that a consolidation takes out of the working memory."""
        return self.max_mid_term_frames - self.min_mid_term_frames

    def _stored(self, key: Any) -> AnisotropicKey:
        key = _anisotropic(key)
        # Only potentiation needs it.
        return key if self.enable_long_term else key.replace(selection=None)

    def read(self, state: XMemState, query: Any) -> tuple[Array, XMemState]:
        """One attention over both memories, whose use of every element is counted."""
        query = _anisotropic(query)
        n = query.key.shape[0]

        def one_frame(query: AnisotropicKey) -> tuple[Array, Array]:
            weights = self._weights(state, query)
            return self._readout(state, weights, query.key.shape[:2]), weights.sum(0)

        if n == 1:
            readout, attention = one_frame(jax.tree.map(lambda x: x[0], query))
            readout = readout[None]
        else:
            readout, attention = lax.map(one_frame, query)
            attention = attention.sum(0)
        return readout, self._counted(state, attention, n)

    def _weights(self, state: XMemState, query: AnisotropicKey) -> Float[Array, "q m"]:
        """Attention of every query position to the elements, the long-term ones first."""
        asked = in_rows(query.key)
        selection = None if query.selection is None else in_rows(query.selection)
        t, h, w, ck = state.key.key.shape
        key, shrinkage = state.key.key.reshape(-1, ck), state.key.shrinkage.reshape(-1)
        scores = anisotropic_l2(asked, selection, key, shrinkage)
        valid = jnp.repeat(state.time > 0, h * w)
        if (long := state.long) is not None:
            distant = anisotropic_l2(asked, selection, long.key, long.shrinkage)
            scores = jnp.concatenate([distant, scores], axis=1)
            valid = jnp.concatenate([long.valid, valid])
        if self.top_k is None:
            return softmax_weights(scores, valid.astype(jnp.int32))
        return top_k_weights(scores, valid.astype(jnp.int32), self.top_k)

    def _readout(
        self, state: XMemState, weights: Float[Array, "q m"], size: tuple[int, ...]
    ) -> Float[Array, "o h w cv"]:
        o, cv = state.value.shape[0], state.value.shape[-1]

        def mean(weights: Array, value: Array) -> Array:
            weights = weights.astype(value.dtype)
            return jnp.einsum("qm,omc->oqc", weights, value, preferred_element_type=jnp.float32)

        places = 0 if state.long is None else state.long.key.shape[0]
        out = mean(weights[:, places:], state.value.reshape(o, -1, cv))
        if state.long is not None:
            out += mean(weights[:, :places], state.long.value)
        return out.astype(state.value.dtype).reshape(o, *size, cv)

    def _counted(self, state: XMemState, attention: Float[Array, " m"], frames: int) -> XMemState:
        """The state after it was read for `frames` frames with this attention in all."""
        attention = lax.stop_gradient(attention)
        long = state.long
        if long is not None:
            distant, attention = jnp.split(attention, [long.key.shape[0]])
            if self.enable_long_term_count_usage:
                long = xmem_store.counted(long, distant, frames)
        use = state.use + attention.reshape(state.use.shape)
        life = jnp.where(state.time > 0, state.life + frames, state.life)
        return state.replace(use=use, life=life, long=long)  # type: ignore[attr-defined]

    def write(self, state: XMemState, key: Any, value: Array, masks: Masks) -> XMemState:
        """Appends the frame; a full working memory is consolidated at once."""
        del masks
        held = jnp.sum(state.time > 0)
        # Only `reserve` makes room where nothing is consolidated; beyond it the last place is used.
        slot = jnp.minimum(held, state.time.shape[0] - 1)
        written = state.written + 1

        def put(x: Array, new: Array) -> Array:
            return lax.dynamic_update_index_in_dim(x, new.astype(x.dtype), slot, 0)

        state = state.replace(  # type: ignore[attr-defined]
            key=jax.tree.map(put, state.key, self._stored(key)),
            value=lax.dynamic_update_index_in_dim(state.value, value, slot, 1),
            use=put(state.use, jnp.zeros(state.use.shape[1:])),
            life=put(state.life, jnp.float32(NEW_LIFE)),
            time=put(state.time, written),
            written=written,
        )
        if not self.enable_long_term:
            return state
        full = held + 1 == self.max_mid_term_frames
        return lax.cond(full, self.consolidate, lambda s: s, state)

    def keep(self, state: XMemState, key: Any, value: Array, masks: Masks) -> XMemState:
        """As `write`; where frames are consolidated, it takes the first one's place as well."""
        state = self.write(state, key, value, masks)
        if not self.enable_long_term:
            return state
        return state.replace(  # type: ignore[attr-defined]
            key=jax.tree.map(lambda x, new: x.at[0].set(new), state.key, self._stored(key)),
            value=state.value.at[:, 0].set(value),
        )

    def candidates(self, state: XMemState) -> Candidates:
        """Elements of the frames that a consolidation would take out of the working memory."""
        these = slice(1, 1 + self._consolidated)
        o, cv = state.value.shape[0], state.value.shape[-1]
        return Candidates(
            key=in_rows(state.key.key[these]),
            shrinkage=state.key.shrinkage[these].reshape(-1),
            selection=in_rows(state.key.selection[these]),
            value=state.value[:, these].reshape(o, -1, cv),
            usage=(state.use[these] / state.life[these, None, None]).reshape(-1),
        )

    def consolidate(self, state: XMemState) -> XMemState:
        """Turns the frames of a full working memory into prototypes of the long-term memory."""
        assert state.long is not None
        new, _ = xmem_store.prototypes(self.candidates(state), self.num_prototypes)
        long = xmem_store.append(
            state.long, new, state.written, counted=self.enable_long_term_count_usage
        )
        taken = self._consolidated

        def close_up(x: Array) -> Array:
            """The places of those that go behind those that stay, which keep their order."""
            return jnp.concatenate([x[:1], x[1 + taken :], x[1 : 1 + taken]])

        stays = jnp.arange(self.max_mid_term_frames) < self.min_mid_term_frames
        return XMemState(
            key=jax.tree.map(close_up, state.key),
            value=jax.vmap(close_up)(state.value),
            use=close_up(state.use),
            life=close_up(state.life),
            time=jnp.where(stays, close_up(state.time), 0),
            written=state.written,
            long=long,
        )

    def drawn(self, state: XMemState, key: Key[Array, ""]) -> XMemState:
        """The state as training reads it once: the first frame and random others.

        Of more than `most_read` frames the first stays and the others are drawn, each as likely.
        """
        if self.most_read is None:
            return state
        seen = first_and_random(state.time, self.most_read, key)
        return state.replace(time=seen)  # type: ignore[attr-defined]

    def contents(self, state: XMemState) -> Entries:
        """The frames of the working memory, each called by its number."""
        times = [int(t) - 1 for t in state.time if t > 0]
        return Entries(state.key.key, state.value, ("",) * len(times), tuple(times))

    def views(self) -> Mapping[str, View]:
        """How full both memories are, and how much their elements are used."""
        return {
            "stores": View(
                Numbers, self._stores, "elements in the working and in the long-term memory"
            ),
            "usage": View(
                Distribution, self._usages, "attention per frame that an element got since it came"
            ),
        }

    def _stores(self, moment: Moment) -> Numbers:
        state = moment.after
        _, h, w = state.use.shape
        values = {"working": float((state.time > 0).sum()) * h * w}
        if state.long is not None:
            values["long-term"] = float(state.long.valid.sum())
        return Numbers(values, "elements")

    def _usages(self, moment: Moment) -> Distribution:
        state = moment.after
        # What was never read has no usage yet.
        use = {"working": (state.use / state.life[:, None, None])[state.life >= 1].reshape(-1)}
        if (long := state.long) is not None:
            use["long-term"] = (long.use / long.life)[long.valid & (long.life >= 1)]
        return Distribution(use, "attention per frame")

    def capacity_for(self, writes: int) -> int | None:
        """Frames to make room for without a long-term memory, see `bucket`."""
        if self.enable_long_term:
            return None
        return bucket(writes) if self.buckets else writes + 1

    def capacity(self, state: Any) -> int:
        """Frames the working memory has places for."""
        return state.time.shape[0]

    def reserve(self, state: Any, capacity: int) -> XMemState:
        """Adds free places up to `capacity`."""
        return state if capacity <= state.time.shape[0] else _padded(state, capacity)


def _anisotropic(key: Any) -> AnisotropicKey:
    """Keys with shrinkage and selection, 1 for plain ones."""
    if isinstance(key, AnisotropicKey):
        return key
    return AnisotropicKey(key, jnp.ones((*key.shape[:-1], 1), key.dtype), jnp.ones_like(key))


def _padded(state: XMemState, places: int) -> XMemState:
    """The working memory with free places added up to `places`."""
    extra = places - state.time.shape[0]

    def grow(x: Array, axis: int = 0) -> Array:
        return jnp.pad(x, [(0, extra if i == axis else 0) for i in range(x.ndim)])

    return state.replace(  # type: ignore[attr-defined]
        key=jax.tree.map(grow, state.key),
        value=grow(state.value, 1),
        use=grow(state.use),
        life=grow(state.life),
        time=grow(state.time),
    )
