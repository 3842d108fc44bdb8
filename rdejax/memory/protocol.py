"""The contract of a memory rule, documented once.

A rule holds settings and, if it learns anything, Flax modules. It never holds state: the state is a
pytree of static shapes that goes in and comes out of three pure functions. A rule sees the objects
of one *group*: those whose first mask came in the same frame, so that they share every key. (A
video whose objects enter at several times has several groups; `rdejax.models.grouped` maps a rule
over them, and a rule never notices.)

Writing one: subclass `MemoryRule`, decorate it with `rdejax.memory.registry.register("name")` and
put the file into `rdejax/memory/`; or put it anywhere and name the file itself
(`--memory path/to/file.py`). No other file has to change.
"""

import dataclasses
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, TypeVar

import flax.struct
from flax import nnx
from jaxtyping import Array, Float, Key

from rdejax.memory.views import View
from rdejax.nn.replaced import replaced

# Stands for the rule's own class; checkers at run time do not know `typing.Self`.
Rule = TypeVar("Rule", bound="MemoryRule")


@flax.struct.dataclass
class Masks:
    """Masks of the objects of a group at the frame's (padded) resolution.

    Attributes:
      soft: [o, H, W] float32 in [0, 1], probabilities after soft aggregation.
      hard: [o, H, W] float32, 1 where the object wins the argmax over all objects and background.
      given: with first masks only: what the caller gave for each object beside its mask, by the
        names in `MemoryRule.object_inputs`, arrays with a leading axis o; None for the defaults.
    """

    soft: Float[Array, "o H W"]
    hard: Float[Array, "o H W"]
    given: dict[str, Array] | None = None


@dataclasses.dataclass(frozen=True)
class Entries:
    """What a memory holds on the frames' grid, for pictures of it.

    Attributes:
      key: [e, h, w, ck]; entries that hold something come first, free places after them.
      value: [o, e, h, w, cv]; each is one element of the state, as it stands there.
      names: of the entries that hold something; "" for one that is called by its frame.
      writes: of the same, which memorised frame each is, counted from 0, the group's first one;
        None for one that sums up all of them and is aligned with the latest.
    """

    key: Float[Array, "e h w ck"]
    value: Float[Array, "o e h w cv"]
    names: tuple[str, ...]
    writes: tuple[int | None, ...]


@dataclasses.dataclass(frozen=True)
class Prototypes:
    """Keys of a memory that stand for many positions each, for pictures of them.

    Attributes:
      first: [o, 2, k, ck], those of the first frame; background (0) and object (1).
      latest: [o, 2, k, ck], those of all frames so far.
      temperature: a position belongs to k by softmax_k(cosine / temperature).
    """

    first: Float[Array, "o 2 k ck"]
    latest: Float[Array, "o 2 k ck"]
    temperature: Any


class MemoryRule(nnx.Module):
    """Base of all memory rules: `init`, `read`, `write`, and capacity for rules that grow.

    Subclasses take the keyword arguments `key_channels`, `value_channels` and `rngs`, and their own
    settings as further keywords with defaults: those are what `load_model(..., name=value)` and the
    command lines may override. A rule that needs nothing of these can ignore them.

    In all methods: `h`, `w` is the stride-16 grid; `o` the object slots of the group, some of which
    may be padding, so a rule must treat every slot alike and independently; `ck`, `cv` the widths
    of keys and values. For systems whose keys have parts (XMem's shrinkage and selection) `key` is
    the pytree the system's key projection returns.

    Attributes:
      object_inputs: names of what `segment_video` and `stream` may be given for each object beside
        its mask, an array [objects, ...] each, ascending by id; `init` gets it in `Masks.given`.
      features: channels that `read` gives after the values; systems with no use for them cut them.
      recurrent: whether `read` changes the state (it counts usage, say). Such a rule reads one real
        frame at a time, n = 1, in the order of time; others read a whole block at once.
      anisotropic: whether it takes keys with shrinkage and selection
        (`rdejax.nn.xmem.AnisotropicKey`); others get XMem's keys without.
      trained_with: settings that training puts in place of the rule's own, by name, such as a full
        softmax in place of a top-k.
      similarity: how `read` compares keys, by its name in `rdejax.memory.affinity`; a bank that
        teaches the rule compares them alike.
      neutral_start: whether fresh weights of the rule change nothing of what a rule without weights
        reads, so that it can be run, and trained, from weights that were made with another rule.
      keeps_frames: whether `read` finds every memorised frame as it was written, as in a bank: then
        another bank has nothing to teach.
    """

    object_inputs: tuple[str, ...] = ()
    features: int = 0
    recurrent: bool = False
    anisotropic: bool = False
    trained_with: Mapping[str, Any] = MappingProxyType({})
    similarity: str = "l2"
    neutral_start: bool = False
    keeps_frames: bool = False

    def __init__(self, *, key_channels: int, value_channels: int, rngs: nnx.Rngs, **settings: Any):
        raise NotImplementedError

    def init(self, key: Any, value: Float[Array, "o h w cv"], masks: Masks) -> Any:
        """State after the group's first frame.

        Args:
          key: [h, w, ck], key of the frame in which the objects have their first mask.
          value: [o, h, w, cv].
          masks: the given masks.

        Returns:
          The state: a pytree whose shapes and dtypes no later `write` may change.
        """
        raise NotImplementedError

    def read(self, state: Any, query: Any) -> tuple[Float[Array, "n o h w c"], Any]:
        """Reads the memory for `n` frames that share it.

        Args:
          state: the rule's state.
          query: [n, h, w, ck], keys of the frames.

        Returns:
          Readout [n, o, h, w, cv (or more)] and the state, changed by `recurrent` rules only.
        """
        raise NotImplementedError

    def write(self, state: Any, key: Any, value: Float[Array, "o h w cv"], masks: Masks) -> Any:
        """State after memorising a frame.

        Args:
          state: the rule's state.
          key: [h, w, ck].
          value: [o, h, w, cv].
          masks: the predicted (or given) masks of that frame.
        """
        raise NotImplementedError

    def keep(self, state: Any, key: Any, value: Float[Array, "o h w cv"], masks: Masks) -> Any:
        """State after memorising a frame whose masks a person vouches for, like first ones.

        A rule that keeps its first frame puts this one in that one's place, or beside it if it has
        room, and memorises it as any other. By default it is `write`.

        Args:
          state: the rule's state.
          key: [h, w, ck].
          value: [o, h, w, cv].
          masks: the given masks, and for the group's other objects the predicted ones.
        """
        return self.write(state, key, value, masks)

    def contents(self, state: Any) -> Entries | None:
        """What `rdejax.visualize` shows as value embeddings and relevance.

        Only called outside of compiled functions.

        Args:
          state: the rule's state.

        Returns:
          None, the default, if values are not kept on the frames' grid (or are not to be shown).
        """
        del state
        return None

    def prototypes(self, state: Any) -> Prototypes | None:
        """What `rdejax.visualize` shows as bases; None, the default, if the rule keeps none."""
        del state
        return None

    def views(self) -> Mapping[str, View]:
        """What else `rdejax.visualize` can show of the rule, by name; by default nothing."""
        return {}

    def drawn(self, state: Any, key: Key[Array, ""]) -> Any:
        """The state as a read sees it in training that draws the frames to be read (XMem's).

        By default all of it.
        """
        del key
        return state

    def as_trained(self: Rule) -> Rule:
        """The rule as training reads it, by default with the settings in `trained_with`.

        Returns:
          A rule that shares the weights of this one.
        """
        return replaced(self, **self.trained_with)

    def capacity_for(self, writes: int) -> int | None:
        """Capacity (in whatever unit `reserve` takes) that holds the first frame and `writes` more.

        None, the default, says that the state never grows. Growing rules return few different
        numbers (buckets), because every new one means a new compilation.
        """
        del writes
        return None

    def capacity(self, state: Any) -> int:
        """Capacity that `state` has now, from its shapes; only growing rules need it."""
        raise NotImplementedError

    def reserve(self, state: Any, capacity: int) -> Any:
        """The same state, grown to `capacity`; only growing rules need it."""
        del capacity
        return state
