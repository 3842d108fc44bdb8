"""A memory rule over the objects of a video.

Objects live in `groups x slots`, and a rule sees one group, whose objects share their keys. Here
are its functions mapped over all groups (`SharedKeys`). Where keys see the masks (STM's memory
encoder), every object has its own: then the rule is mapped over the slots too, and sees one object
at a time (`OwnKeys`). A rule never notices either.
"""

from collections.abc import Callable
from typing import Any

import jax
from jaxtyping import Array, Float

from rdejax.memory.protocol import Masks, MemoryRule


class SharedKeys:
    """Every leaf of the state has a leading group axis; keys are [h, w, ck]."""

    axes = 1

    @staticmethod
    def init(rule: MemoryRule, key: Any, value: Float[Array, "g s h w cv"], masks: Masks) -> Any:
        """States after a first frame; `masks` has leading group and slot axes."""
        return _over_groups(lambda v, m: rule.init(key, v, m), value, masks)

    @staticmethod
    def read(rule: MemoryRule, state: Any, query: Any) -> tuple[Float[Array, "g s n h w c"], Any]:
        """Readouts of every object for the `n` frames of `query`, and the states."""
        readout, state = _over_groups(lambda t: rule.read(t, query), state)
        return readout.swapaxes(1, 2), state

    @staticmethod
    def write(
        rule: MemoryRule, state: Any, key: Any, value: Float[Array, "g s h w cv"], masks: Masks
    ) -> Any:
        """States after memorising a frame."""
        return _over_groups(lambda t, v, m: rule.write(t, key, v, m), state, value, masks)

    @staticmethod
    def split(key: Any, groups: int) -> Any:
        """Keys of a frame as `init` and `write` take them."""
        del groups
        return key


class OwnKeys:
    """Every leaf of the state has leading group and slot axes; keys are [g, s, h, w, ck]."""

    axes = 2

    @staticmethod
    def init(rule: MemoryRule, key: Any, value: Float[Array, "g s h w cv"], masks: Masks) -> Any:
        """See `SharedKeys.init`."""
        each = jax.vmap(jax.vmap(lambda k, v, m: rule.init(k, *_alone(v, m))))
        return each(key, value, masks)

    @staticmethod
    def read(rule: MemoryRule, state: Any, query: Any) -> tuple[Float[Array, "g s n h w c"], Any]:
        """See `SharedKeys.read`."""
        each = jax.vmap(jax.vmap(lambda t: rule.read(t, query)))
        readout, state = each(state)  # [g, s, n, 1, h, w, c]
        return readout[:, :, :, 0], state

    @staticmethod
    def write(
        rule: MemoryRule, state: Any, key: Any, value: Float[Array, "g s h w cv"], masks: Masks
    ) -> Any:
        """See `SharedKeys.write`."""
        each = jax.vmap(jax.vmap(lambda t, k, v, m: rule.write(t, k, *_alone(v, m))))
        return each(state, key, value, masks)

    @staticmethod
    def split(key: Any, groups: int) -> Any:
        """See `SharedKeys.split`; from [o, h, w, ck]."""
        return jax.tree.map(lambda x: x.reshape(groups, -1, *x.shape[1:]), key)


Mapping = type[SharedKeys] | type[OwnKeys]


def reserve(over: Mapping, rule: MemoryRule, state: Any, capacity: int) -> Any:
    """States with room for `capacity`, see `MemoryRule.reserve`."""
    grow: Callable[[Any], Any] = lambda one: rule.reserve(one, capacity)  # noqa: E731
    for _ in range(over.axes):
        grow = jax.vmap(grow)
    return grow(state)


def capacity(over: Mapping, rule: MemoryRule, state: Any) -> int:
    """Capacity the states have now, see `MemoryRule.capacity`."""
    # Shapes are all it takes; slicing the axes off would copy the whole memory.
    one = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[over.axes :], x.dtype), state)
    return rule.capacity(one)


def _over_groups(function: Callable[..., Any], *trees: Any) -> Any:
    """The function of one group, for each of them.

    A single group is not mapped: under `vmap` a rule's `lax.cond` would compute both branches.
    """
    if jax.tree.leaves(trees)[0].shape[0] > 1:
        return jax.vmap(function)(*trees)
    out = function(*jax.tree.map(lambda x: x[0], trees))
    return jax.tree.map(lambda x: x[None], out)


def _alone(value: Array, masks: Masks) -> tuple[Array, Masks]:
    """One object as a group of one slot."""
    return value[None], jax.tree.map(lambda x: x[None], masks)
