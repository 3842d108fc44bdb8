"""A memory rule over the groups of a video.

Objects live in `groups x slots`, and a rule sees one group. Here are its functions mapped over all
of them. Where keys see the masks (STM's memory encoder), every object has its own key: then the
rule is mapped over the slots too, and sees one object at a time. A rule never notices either.
"""

from typing import Any

import jax
from jaxtyping import Array, Float

from rdejax.memory.protocol import Masks, MemoryRule


def init(rule: MemoryRule, key: Any, value: Array, masks: Masks, *, own_keys: bool) -> Any:
    """States after a first frame.

    Args:
      rule: the memory rule.
      key: [h, w, ck], or with `own_keys` [g, s, h, w, ck].
      value: [g, s, h, w, cv].
      masks: leaves with leading group and slot axes.
      own_keys: every object has its own key.

    Returns:
      The rule's state, every leaf with a leading group axis (with `own_keys` group and slot axes).
    """
    if own_keys:
        return jax.vmap(jax.vmap(lambda k, v, m: rule.init(k, *_alone(v, m))))(key, value, masks)
    return jax.vmap(rule.init, in_axes=(None, 0, 0))(key, value, masks)


def read(
    rule: MemoryRule, state: Any, query: Any, *, own_keys: bool
) -> tuple[Float[Array, "g s n h w c"], Any]:
    """Readouts of every object for the `n` frames of `query`, and the states; see `init`."""
    mapped = jax.vmap(rule.read, in_axes=(0, None))
    if not own_keys:
        readout, state = mapped(state, query)  # [g, n, s, h, w, c]
        return readout.swapaxes(1, 2), state
    readout, state = jax.vmap(mapped, in_axes=(0, None))(state, query)  # [g, s, n, 1, h, w, c]
    return readout[:, :, :, 0], state


def write(
    rule: MemoryRule, state: Any, key: Any, value: Array, masks: Masks, *, own_keys: bool
) -> Any:
    """States after memorising a frame; see `init`."""
    if own_keys:
        return jax.vmap(jax.vmap(lambda t, k, v, m: rule.write(t, k, *_alone(v, m))))(
            state, key, value, masks
        )
    return jax.vmap(rule.write, in_axes=(0, None, 0, 0))(state, key, value, masks)


def reserve(rule: MemoryRule, state: Any, capacity: int, *, own_keys: bool) -> Any:
    """States with room for `capacity`, see `MemoryRule.reserve`."""
    grow = jax.vmap(lambda one: rule.reserve(one, capacity))
    return (jax.vmap(grow) if own_keys else grow)(state)


def room(rule: MemoryRule, state: Any, *, own_keys: bool) -> int:
    """Capacity the states have now, see `MemoryRule.room`."""
    axes = 2 if own_keys else 1
    # Shapes are all it takes; slicing the axes off would copy the whole memory.
    one = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[axes:], x.dtype), state)
    return rule.room(one)


def _alone(value: Array, masks: Masks) -> tuple[Array, Masks]:
    """One object as a group of one slot."""
    return value[None], jax.tree.map(lambda x: x[None], masks)
