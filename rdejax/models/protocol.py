"""The contract of a system, documented once: four pure methods over an explicit state.

    encode(frames) -> features                    what depends on the images only; any number
    start(features, probs, valid) -> state        from the first masks
    segment(state, features) -> state, logits     frames that share a memory
    memorize(state, features, probs) -> state     one frame and its masks go to memory

and `add`, which puts new objects into a running state. Training, whole videos and live streams
call these and nothing else; time lives in `rdejax.propagate`.

Objects live in `groups x slots`: objects of a group got their first mask in the same frame. One
group is the common case. `o` below is groups * slots, group by group; `valid` says which slots
hold an object. An unused slot changes nothing for the others.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from rdejax.memory.views import Remembered, View
from rdejax.models.settings import Settings
from rdejax.nn.aggregate import aggregate, aggregate_logits

# What the networks know of n frames before any object is known: any pytree, every leaf with a
# leading axis of the n frames.
Features = Any
# Stands for the system's own class; checkers at run time do not know `typing.Self`.
AnySystem = TypeVar("AnySystem", bound="System")

_NO_OBJECT = -1e9


@flax.struct.dataclass
class State:
    """All that a video's past leaves behind; systems extend it with fields of their own.

    Every leaf has a leading group axis, so that new groups are merged field by field whatever the
    fields are (`merge_groups`). Change it with `state.replace(...)`, never by constructing it anew:
    fields that the caller does not know must live on.

    Attributes:
      valid: [groups, slots] whether a slot holds an object.
      away: what `rdejax.propagate` keeps there for the setting `near`: distances [groups, slots,
        h, w] from the objects' latest masks; None where it is off.
    """

    valid: Bool[Array, "g s"]
    away: Float[Array, "g s y x"] | None = flax.struct.field(default=None, kw_only=True)


class System(nnx.Module):
    """A system: networks, a memory, and how it is run.

    Attributes:
      name: registered name.
      Config: sizes of the networks: a frozen dataclass whose defaults are the published ones.
      config: those of this system.
      settings: how to run it (interval of memorising, working resolution, ...).
      default_settings: settings of a system that is made without any.
      published: settings that were published, as keywords of `Settings.override`, by the name of
        the data set (`rdejax.io.datasets.DATASETS`) or of a preset of the system's own
        (`rdejax infer --preset`).
      mean: normalisation of RGB in [0, 1], with `std`.
      std: see mean.
      object_inputs: names of what `segment_video` and `stream` take for each object beside its
        mask; `start` and `add` get it as `given`.
      frame_inputs: names of what they take for each frame beside its picture (the proposals of an
        outside detector); `encode` gets it as `beside`.
      objective: name of the objective it is trained with unless the recipe names another
        (`rdejax.train.objectives`).
      trunk_name: attribute that is the pre-trained trunk, which may be trained at another
        rate or stay as it is.
    """

    name: str
    Config: type
    config: Any
    settings: Settings
    default_settings: Settings
    published: Mapping[str, Mapping[str, Any]] = {}
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)
    frame_inputs: tuple[str, ...] = ()
    objective: str = "unroll"
    trunk_name: str = "key_encoder"

    def __init__(self, config: Any, settings: Settings, *, rngs: nnx.Rngs):
        raise NotImplementedError

    @property
    def object_inputs(self) -> tuple[str, ...]:
        """See the class."""
        return ()

    @property
    def num_parameters(self) -> int:
        """Weights, frozen ones included."""
        return sum(leaf.size for leaf in jax.tree.leaves(nnx.state(self)))

    def checked_beside(self, beside: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """What was given for some frames beside their pictures, in the form that `encode` takes.

        Names and number of frames have been looked at; a system with `frame_inputs` looks at all
        else here, where values are known and a refusal changes nothing.

        Args:
          beside: arrays [n, ...] by the names in `frame_inputs`, those that were given.

        Raises:
          RdejaxError: names the array, what is wrong with it, and what it should be.
        """
        return dict(beside)

    def encode(
        self,
        frames: Float[Array, "n H W 3"],
        inside: Bool[Array, "H W"] | None = None,
        beside: dict[str, Array] | None = None,
    ) -> Features:
        """Features of frames, each on its own.

        Args:
          frames: normalised RGB, sides multiples of 16, zero in the padding.
          inside: the video's own pixels, as opposed to padding; None: all of them.
          beside: by the names in `frame_inputs`, those that were given; arrays with a leading axis
            n, otherwise as the user gave them.

        Returns:
          A pytree whose leaves have a leading axis of the n frames.
        """
        raise NotImplementedError

    def start(
        self,
        features: Features,
        probs: Float[Array, "c H W"],
        valid: Bool[Array, " o"] | None = None,
        *,
        groups: int = 1,
        given: dict[str, Array] | None = None,
        key: Array | None = None,
    ) -> State:
        """State after the frame in which the first objects are given.

        Args:
          features: of that one frame.
          probs: what stands for the given masks (`given_probs`); zeros in unused slots.
          valid: slots that hold an object; default: all.
          groups: groups to make room for; the objects given all start now, each in its slot.
          given: by the names in `object_inputs`; arrays with a leading axis o.
          key: PRNG key, for systems that draw at random in training; they keep it in the state.
            None, as in inference: nothing is drawn.

        Returns:
          The state. Groups without a valid object start later, with `add`.
        """
        raise NotImplementedError

    def add(
        self,
        state: State,
        features: Features,
        probs: Float[Array, "c H W"],
        new: Bool[Array, "g s"],
        given: dict[str, Array] | None = None,
    ) -> State:
        """State with groups of new objects, whose first masks are in this frame.

        What the old groups hold is as before, in every field.

        Args:
          state: the state so far; the groups to fill are empty in it.
          features: of this one frame.
          probs: probabilities of all objects, old ones as predicted and new ones as given.
          new: slots of the new objects.
          given: see `start`.
        """
        raise NotImplementedError

    def given_beside(
        self,
        probs: Float[Array, "c H W"],
        masks: Float[Array, "o H W"],
        valid: Bool[Array, " o"],
    ) -> Float[Array, "c H W"]:
        """Probabilities of a frame that brings new objects: by default the given masks win.

        Args:
          probs: of background and the old objects, as predicted.
          masks: those of the new objects; zeros for all others.
          valid: slots that hold an old or a new object.
        """
        del valid
        covered = jnp.minimum(masks.sum(0, keepdims=True), 1.0)
        probs = probs * (1.0 - covered)
        return probs + jnp.concatenate([jnp.zeros_like(covered), masks])

    def segment(
        self, state: State, features: Features, real: Bool[Array, " n"] | None = None
    ) -> tuple[State, Float[Array, "n c H W"]]:
        """Logits of background and objects in frames that share the memory of `state`.

        A softmax over axis 1 gives probabilities. Unused slots get a logit no object can win with.
        A system with recurrent state goes through the frames in order inside of this method, so
        that the result is that of frame after frame for every system; what `memorize` needs from
        before the last real frame, it leaves in the state.

        Args:
          state: the state so far.
          features: of n frames in the order of time.
          real: frames that are part of the video; the others, behind them, fill up a block. Their
            logits are of no use, and they change no state. None: all.
        """
        raise NotImplementedError

    def segment_probs(
        self, state: State, features: Features, real: Bool[Array, " n"] | None = None
    ) -> tuple[State, Float[Array, "n c H W"]]:
        """`segment`, with the softmax of the logits in place of them: what inference runs.

        Systems that have the probabilities before the logits give them here.
        """
        state, logits = self.segment(state, features, real)
        return state, jax.nn.softmax(logits, axis=1)

    def memorize(
        self,
        state: State,
        features: Features,
        probs: Float[Array, "c H W"],
        groups: Bool[Array, " g"] | None = None,
    ) -> State:
        """State after one frame and its (soft) masks are written to memory.

        Args:
          state: after `segment` of that frame, the last real one.
          features: of that one frame.
          probs: probabilities of background and objects.
          groups: groups that memorise it; default: all.
        """
        raise NotImplementedError

    def keep(
        self,
        state: State,
        features: Features,
        probs: Float[Array, "c H W"],
        groups: Bool[Array, " g"] | None = None,
    ) -> State:
        """As `memorize`, for a frame with masks that a person vouches for, like first ones.

        By default the same; systems whose memory keeps first frames override it.
        """
        return self.memorize(state, features, probs, groups)

    def memorizes(self, time: int, given: Sequence[int]) -> bool:
        """Whether `memorize` is to be called for a frame: by default every `settings.every`-th.

        Args:
          time: number of the frame, from 0, the video's first.
          given: numbers of the frames up to this one that brought first masks.
        """
        del given
        return time % self.settings.every == 0

    def reserve(self, state: State, writes: int) -> State:
        """The same state with room for `writes` memorised frames after the first.

        Systems of constant size return it as it is. Others use few different sizes (buckets), for
        each one means a compilation.
        """
        del writes
        return state

    def views(self) -> Mapping[str, View]:
        """What `rdejax.visualize` can show of the system, by name; by default nothing."""
        return {}

    def remembered(self, state: State, group: int, slot: int) -> Remembered | None:
        """The memory that holds an object, for pictures of what it holds and where a frame looks.

        None, the default, if there is none to show. Only called outside of compiled functions.
        """
        del state, group, slot
        return None

    def query(self, features: Features) -> Any:
        """What a frame reads `remembered` with; needed only where that is not None."""
        raise NotImplementedError

    def as_trained(self: AnySystem) -> AnySystem:
        """The system as training runs it, sharing its weights: without a top-k, and the like."""
        return self


def given_probs(masks: Float[Array, "o H W"], valid: Bool[Array, " o"]) -> Float[Array, "o+1 H W"]:
    """Probabilities that stand for given masks: the masks after soft aggregation."""
    return aggregated_probs(jnp.where(valid[:, None, None], masks, 0.0), valid)


def aggregated(p: Float[Array, "*n o H W"], valid: Bool[Array, " o"]) -> Float[Array, "*n o+1 H W"]:
    """Logits of background and objects by soft aggregation; no pixel can be an unused slot's."""
    return jnp.where(_present(valid)[:, None, None], aggregate_logits(p), _NO_OBJECT)


def aggregated_probs(
    p: Float[Array, "*n o H W"], valid: Bool[Array, " o"]
) -> Float[Array, "*n o+1 H W"]:
    """The softmax of `aggregated`."""
    return aggregate(p, _present(valid))


def _present(valid: Bool[Array, " o"]) -> Bool[Array, " o+1"]:
    return jnp.concatenate([jnp.ones(1, bool), valid])


def merge_groups(choose: Bool[Array, " g"], new: Any, old: Any) -> Any:
    """Of each group the leaves of `new` where it is chosen, those of `old` elsewhere."""

    def pick(a: Array, b: Array) -> Array:
        return jnp.where(choose.reshape(choose.shape + (1,) * (a.ndim - 1)), a, b)

    return jax.tree.map(pick, new, old)


def add_groups(state: Any, fresh: Any, new: Bool[Array, "g s"]) -> Any:
    """The state with the groups that hold new objects taken from a fresh one, in every field."""
    merged = merge_groups(new.any(axis=1), fresh, state)
    return merged.replace(valid=state.valid | new)


def with_groups(state: State, groups: int) -> State:
    """The state with empty groups added up to `groups`; see `State`."""
    extra = groups - state.valid.shape[0]
    if extra <= 0:
        return state

    def widen(x: Array) -> Array:
        if jnp.issubdtype(x.dtype, jax.dtypes.prng_key):  # there is no key of zeros
            return jnp.concatenate([x, jnp.broadcast_to(x[:1], (extra, *x.shape[1:]))])
        return jnp.concatenate([x, jnp.zeros((extra, *x.shape[1:]), x.dtype)])

    return jax.tree.map(widen, state)


def without_slots(state: State, slots: Sequence[int]) -> State:
    """The state without the objects in these slots, counted over all groups.

    What is left of them in other fields is that of unused slots, which changes nothing.
    """
    valid = state.valid.reshape(-1).at[jnp.asarray(slots)].set(False)
    return state.replace(valid=valid.reshape(state.valid.shape))  # type: ignore[attr-defined]


def one_frame(features: Features, index: Int[Array, ""] | int) -> Features:
    """Features of one frame of a batch; keeps the leading axis, of length 1."""
    return jax.tree.map(lambda x: lax.dynamic_slice_in_dim(x, index, 1, axis=0), features)


def frame_by_frame(
    step: Callable[[Any, Features], tuple[Any, Array]],
    state: Any,
    features: Features,
    real: Bool[Array, " n"] | None,
) -> tuple[Any, Array]:
    """`segment` of a recurrent system: one frame after the other; padding is not computed.

    Args:
      step: (state, features of one frame) -> (state, logits or probabilities [1, o+1, H, W]).
      state: before the first frame.
      features: of n frames.
      real: see `System.segment`.
    """
    if jax.tree.leaves(features)[0].shape[0] == 1 and real is None:
        return step(state, features)

    def skip(state: Any, frame: Features) -> tuple[Any, Array]:
        logits = jax.eval_shape(step, state, frame)[1]
        return state, jnp.zeros(logits.shape, logits.dtype)

    def one(state: Any, inputs: tuple[Features, Array | None]) -> tuple[Any, Array]:
        frame, counts = inputs
        frame = jax.tree.map(lambda x: x[None], frame)
        if counts is None:
            state, logits = step(state, frame)
        else:
            state, logits = lax.cond(counts, step, skip, state, frame)
        return state, logits[0]

    return lax.scan(one, state, (features, real))
