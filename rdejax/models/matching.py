"""A system: the four pure methods that training, inference and live video all use.

    encode(frames) -> features              what depends on the image only; any number of frames
    start(features, masks) -> state         from the first mask
    segment(state, features) -> state, logits
    memorize(state, features, masks) -> state

Objects live in `groups x slots`: objects of a group got their first mask in the same frame and
share keys. One group is the common case. `o` below is groups * slots, group by group; `valid` says
which slots hold an object.
"""

from collections.abc import Callable
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax
from jaxtyping import Array, Bool, Float

from rdejax.memory.protocol import Masks, MemoryRule
from rdejax.models import grouped
from rdejax.models.settings import Settings
from rdejax.nn.aggregate import aggregate_logits

# Object-frames decoded at once; beyond it the work goes in pieces, for memory.
_DECODE_AT_ONCE = 24
_NO_OBJECT = -1e9


@flax.struct.dataclass
class Features:
    """What the networks know of `n` frames before any object is known.

    Attributes:
      image: [n, H, W, 3] normalised, padded frames.
      f4: trunk features of stride 4 (`f8`, `f16`: 8 and 16).
      f8: see f4.
      f16: see f4.
      key: [n, h, w, ck] (or the pytree of the system's key projection).
      thin: [n, h, w, ct], the query's own value ("f16_thin").
    """

    image: Float[Array, "n H W 3"]
    f4: Float[Array, "n h4 w4 c4"]
    f8: Float[Array, "n h8 w8 c8"]
    f16: Float[Array, "n h w c16"]
    key: Any
    thin: Float[Array, "n h w ct"]


@flax.struct.dataclass
class State:
    """All that a video's past leaves behind.

    Attributes:
      memory: the memory rule's state, every leaf with a leading group axis (with
        `System.own_keys` group and slot axes).
      valid: [groups, slots] whether a slot holds an object.
    """

    memory: Any
    valid: Bool[Array, "g s"]


@flax.struct.dataclass
class Entry:
    """What memory gets of one frame.

    Attributes:
      key: [h, w, ck] (or the pytree of the system's key projection); where every object has its
        own (`System.own_keys`), [groups, slots, h, w, ck].
      value: [groups, slots, h, w, cv].
      masks: of the objects, every leaf with leading group and slot axes.
    """

    key: Any
    value: Float[Array, "g s h w cv"]
    masks: Masks


def others_of(masks: Float[Array, "o H W"]) -> Float[Array, "o H W"]:
    """For each object the sum of the other objects' masks."""
    return jnp.sum(masks, axis=-3, keepdims=True) - masks


def _where_group(choose: Bool[Array, " g"], new: Any, old: Any) -> Any:
    def pick(a: Array, b: Array) -> Array:
        return jnp.where(choose.reshape(choose.shape + (1,) * (a.ndim - 1)), a, b)

    return jax.tree.map(pick, new, old)


class System(nnx.Module):
    """Networks plus a memory rule. Subclasses set the attributes and `encode_value`.

    Attributes:
      name: registered name.
      Config: sizes of the networks: a frozen dataclass whose defaults are the published ones.
      config: those of this system.
      settings: how to run it (interval of memorising, ...), a frozen dataclass.
      mean: normalisation of RGB in [0, 1], with `std`.
      std: see mean.
      key_encoder: frames -> features of stride 4, 8, 16.
      key_proj: f16 -> key.
      key_comp: f16 -> thin.
      value_encoder: see `encode_value`.
      decoder: (x, f8, f4) -> one logit per object and pixel.
      memory: the memory rule.
      frame_recurrent: whether `segment` changes the state, so frames cannot be read as a block.
      own_keys: whether memory keys see the masks, so that every object has its own (STM).
      pad_value: what frames are padded with, before normalisation; None: the mean colour.
      clear_border: whether memory sees nothing but background in the padding, whatever was
        predicted there (STM).
    """

    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)
    frame_recurrent = False
    own_keys = False
    pad_value: float | None = None
    clear_border = False

    name: str
    settings: Settings
    default_settings: Settings
    Config: type[Any]
    config: Any
    key_encoder: Callable[..., Any]
    key_proj: Callable[..., Any]
    key_comp: Callable[..., Any]
    value_encoder: Callable[..., Any]
    decoder: Callable[..., Any]
    memory: MemoryRule

    def __init__(self, config: Any, settings: Settings, *, rngs: nnx.Rngs):
        raise NotImplementedError

    @property
    def num_parameters(self) -> int:
        """Weights, frozen ones included."""
        return sum(leaf.size for leaf in jax.tree.leaves(nnx.state(self)))

    def encode(self, frames: Float[Array, "n H W 3"]) -> Features:
        """Features of normalised frames whose sides are multiples of 16."""
        f4, f8, f16 = self.key_encoder(frames)
        return Features(frames, f4, f8, f16, key=self.key_proj(f16), thin=self.key_comp(f16))

    def encode_value(
        self, features: Features, masks: Float[Array, "n o H W"], others: Float[Array, "n o H W"]
    ) -> Float[Array, "n o h w cv"]:
        """Values of the objects in the frames of `features`."""
        return self.value_encoder(features.image, features.f16, masks, others)

    def start(
        self,
        features: Features,
        masks: Float[Array, "o H W"],
        valid: Bool[Array, " o"] | None = None,
        *,
        groups: int = 1,
        given: dict[str, Array] | None = None,
    ) -> State:
        """State after the frame whose object masks are given.

        Args:
          features: of that one frame.
          masks: one-hot object masks, background excluded; zeros in unused slots.
          valid: slots that hold an object; default: all.
          groups: groups to make room for; the objects given all start now, each in its slot.
          given: see `Masks.given`; leading axis o.

        Returns:
          The state. With several groups, those without a valid object start later, with `add`.
        """
        if valid is None:
            valid = jnp.ones(masks.shape[0], bool)
        entry = self.entry(features, self.given(masks, valid), groups, given)
        return self.begin(entry, valid.reshape(groups, -1))

    def begin(self, entry: Entry, valid: Bool[Array, "g s"]) -> State:
        """State after a first frame that is already encoded."""
        memory = grouped.init(
            self.memory, entry.key, entry.value, entry.masks, own_keys=self.own_keys
        )
        return State(memory=memory, valid=valid)

    def given(
        self, masks: Float[Array, "o H W"], valid: Bool[Array, " o"]
    ) -> Float[Array, "o+1 H W"]:
        """Probabilities that stand for given masks: the masks after soft aggregation."""
        return jax.nn.softmax(
            self._aggregate(jnp.where(valid[:, None, None], masks, 0.0), valid), axis=0
        )

    def add(
        self,
        state: State,
        features: Features,
        probs: Float[Array, "o+1 H W"],
        new: Bool[Array, "g s"],
        given: dict[str, Array] | None = None,
    ) -> State:
        """State with groups of new objects, whose first masks are in this frame.

        Args:
          state: the state so far; the groups to fill are empty in it.
          features: of this one frame.
          probs: probabilities of all objects, old ones as predicted and new ones as given.
          new: slots of the new objects.
          given: see `Masks.given`; leading axis o.
        """
        memory = self.begin(self.entry(features, probs, state.valid.shape[0], given), new).memory
        # A growing rule's older groups may have more room by now than a fresh one.
        if jax.tree.map(jnp.shape, memory) != jax.tree.map(jnp.shape, state.memory):
            fresh = State(memory=memory, valid=new)
            memory = self.reserve(fresh, self.room(state)).memory
        memory = _where_group(new.any(axis=1), memory, state.memory)
        return State(memory=memory, valid=state.valid | new)

    def segment(self, state: State, features: Features) -> tuple[State, Float[Array, "n o+1 H W"]]:
        """Logits of background and objects in frames that share the memory of `state`.

        A softmax over axis 1 gives probabilities. Unused slots get a logit no object can win with.
        """
        readout, memory = self.read(state, features)
        logits = self.decode(state, features, readout)
        return State(memory=memory, valid=state.valid), logits

    def read(self, state: State, features: Features) -> tuple[Float[Array, "n o h w c"], Any]:
        """Readout of every object for every frame, and the rule's state."""
        readout, memory = grouped.read(
            self.memory, state.memory, features.key, own_keys=self.own_keys
        )
        g, s, n = readout.shape[:3]
        return jnp.moveaxis(readout, 2, 0).reshape(n, g * s, *readout.shape[3:]), memory

    def decoder_input(
        self, readout: Float[Array, "n o h w c"], thin: Float[Array, "n h w ct"]
    ) -> Float[Array, "n o h w d"]:
        """Readout and the query's own value, side by side.

        What a rule gives beyond the values (SWEM's features) is for systems with a use for it.
        """
        n, o = readout.shape[:2]
        readout = readout[..., : thin.shape[-1]]
        thin = jnp.broadcast_to(thin[:, None], (n, o, *thin.shape[1:]))
        return jnp.concatenate([readout, thin], axis=-1)

    def decode(
        self, state: State, features: Features, readout: Float[Array, "n o h w c"]
    ) -> Float[Array, "n o+1 H W"]:
        """Aggregated logits from the readout."""

        def some_frames(args: tuple) -> Array:
            out, thin, f8, f4 = args
            return self.decoder(self.decoder_input(out, thin), f8, f4)

        args = (readout, features.thin, features.f8, features.f4)
        n, o = readout.shape[:2]
        if n * o <= _DECODE_AT_ONCE or n == 1:
            logits = some_frames(args)
        else:
            logits = lax.map(some_frames, args, batch_size=max(1, _DECODE_AT_ONCE // o))
        valid = state.valid.reshape(-1)
        return self._aggregate(jnp.where(valid[:, None, None], jax.nn.sigmoid(logits), 0.0), valid)

    def memorize(
        self,
        state: State,
        features: Features,
        masks: Float[Array, "o+1 H W"],
        groups: Bool[Array, " g"] | None = None,
    ) -> State:
        """State after one frame and its (soft) masks are written to memory.

        Args:
          state: the state so far.
          features: of that one frame.
          masks: probabilities of background and objects.
          groups: groups that memorise it; default: all.
        """
        return self.write(state, self.entry(features, masks, state.valid.shape[0]), groups)

    def entry(
        self,
        features: Features,
        probs: Float[Array, "o+1 H W"],
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
        return Entry(jax.tree.map(split, key) if self.own_keys else key, split(value), masks)

    def encode_memory(
        self, features: Features, masks: Float[Array, "o H W"], others: Float[Array, "o H W"]
    ) -> tuple[Any, Float[Array, "o h w cv"]]:
        """Key and values of the one frame of `features`; with `own_keys`, keys [o, h, w, ck]."""
        value = self.encode_value(features, masks[None], others[None])[0]
        return jax.tree.map(lambda x: x[0], features.key), value

    def write(self, state: State, entry: Entry, groups: Bool[Array, " g"] | None = None) -> State:
        """State after an encoded frame is written to memory; see `memorize`."""
        memory = grouped.write(
            self.memory, state.memory, entry.key, entry.value, entry.masks, own_keys=self.own_keys
        )
        if groups is not None:
            memory = _where_group(groups, memory, state.memory)
        return State(memory=memory, valid=state.valid)

    def reserve(self, state: State, capacity: int) -> State:
        """State with room for `capacity` (see `MemoryRule.capacity`)."""
        memory = grouped.reserve(self.memory, state.memory, capacity, own_keys=self.own_keys)
        return State(memory=memory, valid=state.valid)

    def room(self, state: State) -> int:
        """Capacity the state has now; only for memory rules that grow."""
        return grouped.room(self.memory, state.memory, own_keys=self.own_keys)

    def _aggregate(self, p: Array, valid: Array) -> Array:
        logits = aggregate_logits(p)
        present = jnp.concatenate([jnp.ones(1, bool), valid])
        return jnp.where(present[:, None, None], logits, _NO_OBJECT)
