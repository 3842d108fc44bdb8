"""The body that STCN, RDE-VOS, SWEM and STM share: matching a frame's keys with a memory's.

A frame's key reads the memory; the readout, beside the frame's own value, is decoded to masks; a
frame and its masks become a key and a value for the memory. Systems differ in networks, in what
stands before the decoder, and in the memory rule.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import flax.struct
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float

from rdejax.memory.protocol import Masks, MemoryRule
from rdejax.memory.views import Moment, Remembered, View
from rdejax.models import grouped
from rdejax.models.protocol import (
    State,
    System,
    add_groups,
    aggregated,
    aggregated_probs,
    frame_by_frame,
    merge_groups,
)
from rdejax.nn.replaced import replaced

# See `rdejax.models.protocol.AnySystem`.
Match = TypeVar("Match", bound="Matching")
# Probabilities of single objects, and which slots hold one -> logits or probabilities of all.
Aggregation = Callable[[Array, Array], Array]
# Object-frames decoded at once; beyond it the work goes in pieces, for memory.
_DECODE_AT_ONCE = 24


@flax.struct.dataclass
class MatchingFeatures:
    """What the networks know of `n` frames before any object is known.

    Attributes:
      image: [n, H, W, 3] normalised, padded frames.
      f4: trunk features of stride 4 (`f8`, `f16`: 8 and 16).
      f8: see f4.
      f16: see f4.
      key: [n, h, w, ck] (or the pytree of the system's key projection).
      query_value: [n, h, w, cq], the query's own value ("f16_thin" in the published code).
    """

    image: Float[Array, "n H W 3"]
    f4: Float[Array, "n h4 w4 c4"]
    f8: Float[Array, "n h8 w8 c8"]
    f16: Float[Array, "n h w c16"]
    key: Any
    query_value: Float[Array, "n h w cq"]


@flax.struct.dataclass
class MatchingState(State):
    """`State` with the memory rule's.

    Attributes:
      memory: the memory rule's state, every leaf with a leading group axis (for `OwnKeys` group and
        slot axes).
    """

    memory: Any


@flax.struct.dataclass
class Entry:
    """What memory gets of one frame.

    Attributes:
      key: [h, w, ck] (or the pytree of the system's key projection); where every object has its
        own, [groups, slots, h, w, ck].
      value: [groups, slots, h, w, cv].
      masks: of the objects, every leaf with leading group and slot axes.
    """

    key: Any
    value: Float[Array, "g s h w cv"]
    masks: Masks


def others_of(masks: Float[Array, "o H W"]) -> Float[Array, "o H W"]:
    """For each object the sum of the other objects' masks."""
    return jnp.sum(masks, axis=-3, keepdims=True) - masks


class Matching(System):
    """The shared body. Subclasses set the attributes and, where theirs differ, override its parts.

    `segment` is `read`, then `decode`; `start` is `entry`, then `begin`; `memorize` is `entry`,
    then `write`.

    Attributes:
      key_encoder: frames -> features of stride 4, 8, 16.
      key_proj: f16 -> key.
      key_comp: f16 -> the query's own value.
      value_encoder: see `encode_value`.
      decoder: (x, f8, f4, shared) -> one logit per object and pixel; see `decoder_parts`.
      memory: the memory rule.
      over: how the rule is mapped over objects.
    """

    over: grouped.Mapping = grouped.SharedKeys

    key_encoder: Callable[..., Any]
    key_proj: Callable[..., Any]
    key_comp: Callable[..., Any]
    value_encoder: Callable[..., Any]
    decoder: Callable[..., Any]
    memory: MemoryRule

    @property
    def object_inputs(self) -> tuple[str, ...]:
        """What the memory rule takes for each object."""
        return self.memory.object_inputs

    def encode(
        self,
        frames: Float[Array, "n H W 3"],
        inside: Bool[Array, "H W"] | None = None,
        beside: dict[str, Array] | None = None,
    ) -> MatchingFeatures:
        """Features of normalised frames whose sides are multiples of 16."""
        del inside, beside
        f4, f8, f16 = self.key_encoder(frames)
        return MatchingFeatures(
            frames, f4, f8, f16, key=self.key_proj(f16), query_value=self.key_comp(f16)
        )

    def start(
        self,
        features: MatchingFeatures,
        probs: Float[Array, "c H W"],
        valid: Bool[Array, " o"] | None = None,
        *,
        groups: int = 1,
        given: dict[str, Array] | None = None,
        key: Array | None = None,
    ) -> MatchingState:
        """State after the frame in which the first objects are given."""
        del key
        if valid is None:
            valid = jnp.ones(probs.shape[0] - 1, bool)
        entry = self.entry(features, probs, groups, given)
        return self.begin(entry, valid.reshape(groups, -1))

    def begin(self, entry: Entry, valid: Bool[Array, "g s"]) -> MatchingState:
        """State after a first frame that is already encoded."""
        memory = self.over.init(self.memory, entry.key, entry.value, entry.masks)
        return MatchingState(valid=valid, memory=memory)

    def add(
        self,
        state: MatchingState,
        features: MatchingFeatures,
        probs: Float[Array, "c H W"],
        new: Bool[Array, "g s"],
        given: dict[str, Array] | None = None,
    ) -> MatchingState:
        """State with groups of new objects, whose first masks are in this frame."""
        fresh = self.begin(self.entry(features, probs, state.valid.shape[0], given), new)
        # A growing rule's older groups may have more room by now than a fresh one.
        if jax.tree.map(jnp.shape, fresh) != jax.tree.map(jnp.shape, state):
            fresh = self._with_capacity(
                fresh, grouped.capacity(self.over, self.memory, state.memory)
            )
        return add_groups(state, fresh, new)

    def segment(
        self, state: MatchingState, features: MatchingFeatures, real: Array | None = None
    ) -> tuple[MatchingState, Float[Array, "n c H W"]]:
        """Logits of background and objects: the frames of a block are read and decoded as one.

        Rules whose reading changes their state are read frame by frame.
        """
        return self._segmented(aggregated, state, features, real)

    def segment_probs(
        self, state: MatchingState, features: MatchingFeatures, real: Array | None = None
    ) -> tuple[MatchingState, Float[Array, "n c H W"]]:
        """Probabilities of background and objects, see `segment`."""
        return self._segmented(aggregated_probs, state, features, real)

    def _segmented(
        self, aggregation: Aggregation, state: Any, features: MatchingFeatures, real: Array | None
    ) -> tuple[Any, Array]:
        def step(state: Any, features: MatchingFeatures) -> tuple[Any, Array]:
            state, p = self.segment_each(state, features)
            return state, aggregation(p, state.valid.reshape(-1))

        if self.frame_by_frame:
            return frame_by_frame(step, state, features, real)
        return step(state, features)

    @property
    def frame_by_frame(self) -> bool:
        """Whether a frame's result depends on the one before it, memorised or not."""
        return self.memory.recurrent

    def segment_each(
        self, state: Any, features: MatchingFeatures
    ) -> tuple[Any, Float[Array, "n o H W"]]:
        """Probability of each object on its own, before aggregation; 0 for unused slots."""
        state, readout = self.read(state, features)
        return state, self.decode_each(state, features, readout)

    def read(
        self, state: MatchingState, features: MatchingFeatures
    ) -> tuple[MatchingState, Float[Array, "n o h w c"]]:
        """The state and the readout of every object for every frame."""
        readout, memory = self.over.read(self.memory, state.memory, features.key)
        g, s, n = readout.shape[:3]
        readout = jnp.moveaxis(readout, 2, 0).reshape(n, g * s, *readout.shape[3:])
        return state.replace(memory=memory), readout  # type: ignore[attr-defined]

    def decoder_input(
        self, readout: Float[Array, "n o h w c"], query_value: Float[Array, "n h w cq"]
    ) -> Float[Array, "n o h w d"]:
        """What the decoder takes of every object; see `decoder_parts`."""
        own, shared = self.decoder_parts(readout, query_value)
        if shared is None:
            return own
        shared = jnp.broadcast_to(shared[:, None], (*own.shape[:-1], shared.shape[-1]))
        return jnp.concatenate([own, shared], axis=-1)

    def decoder_parts(
        self, readout: Float[Array, "n o h w c"], query_value: Float[Array, "n h w cq"]
    ) -> tuple[Float[Array, "n o h w d"], Float[Array, "n h w e"] | None]:
        """What the decoder takes of every object, and behind it what all have in common, if any.

        By default readout and the query's own value. What a rule gives beyond the values (SWEM's
        features) is for systems with a use for it.
        """
        return readout[..., : query_value.shape[-1]], query_value

    def decoder_added(self, state: Any) -> Float[Array, "m o h w d"] | None:
        """What is added to the decoder's compressed input, m = 1 for all frames; None: nothing."""
        del state

    def decode(
        self,
        state: MatchingState,
        features: MatchingFeatures,
        readout: Float[Array, "n o h w c"],
    ) -> Float[Array, "n o+1 H W"]:
        """Aggregated logits from the readout."""
        return aggregated(self.decode_each(state, features, readout), state.valid.reshape(-1))

    def decode_each(
        self,
        state: MatchingState,
        features: MatchingFeatures,
        readout: Float[Array, "n o h w c"],
    ) -> Float[Array, "n o H W"]:
        """Probability of each object on its own from the readout; 0 for unused slots."""
        added = self.decoder_added(state)
        more = {} if added is None else {"added": added}

        def some_frames(args: tuple) -> Array:
            out, query_value, f8, f4 = args
            own, shared = self.decoder_parts(out, query_value)
            return self.decoder(own, f8, f4, shared, **more)

        def one(args: tuple) -> Array:
            return some_frames(jax.tree.map(lambda x: x[None], args))[0]

        args = (readout, features.query_value, features.f8, features.f4)
        n, o = readout.shape[:2]
        if n * o <= _DECODE_AT_ONCE or n == 1:
            logits = some_frames(args)
        else:
            logits = lax.map(one, args, batch_size=max(1, _DECODE_AT_ONCE // o))
        return jnp.where(state.valid.reshape(-1)[:, None, None], jax.nn.sigmoid(logits), 0.0)

    def memorize(
        self,
        state: MatchingState,
        features: MatchingFeatures,
        probs: Float[Array, "c H W"],
        groups: Bool[Array, " g"] | None = None,
    ) -> MatchingState:
        """State after one frame and its (soft) masks are written to memory."""
        return self.write(state, self.entry(features, probs, state.valid.shape[0]), groups)

    def keep(
        self,
        state: MatchingState,
        features: MatchingFeatures,
        probs: Float[Array, "c H W"],
        groups: Bool[Array, " g"] | None = None,
    ) -> MatchingState:
        """As `memorize`, by the rule's `keep` in place of its `write`."""
        keeping = self.with_memory(replaced(self.memory, write=self.memory.keep))
        return keeping.memorize(state, features, probs, groups)

    def entry(
        self,
        features: MatchingFeatures,
        probs: Float[Array, "c H W"],
        groups: int,
        given: dict[str, Array] | None = None,
    ) -> Entry:
        """What memory gets of one frame with these (soft) masks of background and objects."""
        soft = probs[1:]
        hard = jax.nn.one_hot(jnp.argmax(probs, axis=0), probs.shape[0], axis=0)[1:]
        key, value = self.encode_memory(features, soft, others_of(soft))

        def split(x: Array) -> Array:
            return x.reshape(groups, -1, *x.shape[1:])

        masks = jax.tree.map(split, Masks(soft=soft, hard=hard, given=given))
        return Entry(self.over.split(key, groups), split(value), masks)

    def encode_memory(
        self,
        features: MatchingFeatures,
        masks: Float[Array, "o H W"],
        others: Float[Array, "o H W"],
    ) -> tuple[Any, Float[Array, "o h w cv"]]:
        """Key and values of the one frame of `features`; with `OwnKeys`, keys [o, h, w, ck]."""
        value = self.encode_value(features, masks[None], others[None])[0]
        return jax.tree.map(lambda x: x[0], features.key), value

    def encode_value(
        self,
        features: MatchingFeatures,
        masks: Float[Array, "n o H W"],
        others: Float[Array, "n o H W"],
    ) -> Float[Array, "n o h w cv"]:
        """Values of the objects in the frames of `features`."""
        return self.value_encoder(features.image, features.f16, masks, others)

    def write(
        self, state: MatchingState, entry: Entry, groups: Bool[Array, " g"] | None = None
    ) -> MatchingState:
        """State after an encoded frame is written to memory; see `memorize`."""
        memory = self.over.write(self.memory, state.memory, entry.key, entry.value, entry.masks)
        if groups is not None:
            memory = merge_groups(groups, memory, state.memory)
        return state.replace(memory=memory)  # type: ignore[attr-defined]

    def reserve(self, state: MatchingState, writes: int) -> MatchingState:
        """The same state with room for `writes` memorised frames after the first."""
        capacity = self.memory.capacity_for(writes)
        if capacity is None or capacity <= grouped.capacity(self.over, self.memory, state.memory):
            return state
        return self._with_capacity(state, capacity)

    def _with_capacity(self, state: MatchingState, capacity: int) -> MatchingState:
        memory = grouped.reserve(self.over, self.memory, state.memory, capacity)
        return state.replace(memory=memory)  # type: ignore[attr-defined]

    def views(self) -> Mapping[str, View]:
        """Those of the memory rule."""

        def of_rule(view: View) -> View:
            def at(moment: Moment) -> Any:
                before, after = (
                    self.remembered(state, moment.group, moment.slot)
                    for state in (moment.before, moment.after)
                )
                return view.at(
                    dataclasses.replace(
                        moment,
                        before=before.state,
                        after=after.state,
                        query=self.query(moment.query),
                        slot=after.slot,
                    )
                )

            return dataclasses.replace(view, at=at)

        return {name: of_rule(view) for name, view in self.memory.views().items()}

    def remembered(self, state: MatchingState, group: int, slot: int) -> Remembered:
        """The rule's state of the object's group; where each object has its own, of that one."""
        if self.over.axes == 2:
            return Remembered(self.memory, jax.tree.map(lambda x: x[group, slot], state.memory), 0)
        return Remembered(self.memory, jax.tree.map(lambda x: x[group], state.memory), slot)

    def query(self, features: MatchingFeatures) -> Any:
        """The frame's key."""
        return features.key

    def as_trained(self: Match) -> Match:
        """The same networks with the memory rule as training reads it."""
        return self.with_memory(self.memory.as_trained())

    def with_memory(self: Match, memory: MemoryRule) -> Match:
        """The same networks, weights shared, with another memory rule."""
        return replaced(self, memory=memory)
