"""Models as they run in inference, made once for each model."""

import weakref
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from rdejax.errors import RdejaxError
from rdejax.models.protocol import System
from rdejax.nn.fold import fold

# By the model's id: what it was made of, and what was made. Gone when the model is.
_MADE: dict[int, tuple[Any, list[Any], System]] = {}


def ready(model: System) -> System:
    """The model with its constants folded (`rdejax.nn.fold`); the same one for the same weights.

    The model itself stays as it is, so it can be saved, trained on, and changed: weights or
    settings that have changed since the last call count.

    Raises:
      RdejaxError: precision "bfloat16" on a CPU.
    """
    reduced = model.settings.precision == "bfloat16"
    if reduced and jax.default_backend() == "cpu":
        raise RdejaxError(
            "precision='bfloat16' is for accelerators: CPUs take longer with it than with float32; "
            "leave it out here"
        )
    leaves, structure = jax.tree.flatten(model)
    if not all(isinstance(leaf, jax.Array) and leaf.is_fully_addressable for leaf in leaves):
        return in_bfloat16(model) if reduced else model
    if (made := _MADE.get(id(model))) is not None:
        known, weights, result = made
        if known == structure and all(a is b for a, b in zip(weights, leaves, strict=True)):
            return result
    result = in_bfloat16(fold(model)) if reduced else fold(model)
    # What is folded is made anew: it belongs where the weights were put, if they were.
    places = {leaf.sharding for leaf in leaves if leaf.committed}
    if len(places) == 1:
        result = jax.device_put(result, places.pop())
    if id(model) not in _MADE:
        weakref.finalize(model, _MADE.pop, id(model), None)
    _MADE[id(model)] = (structure, leaves, result)
    return result


def in_bfloat16(model: System) -> System:
    """The same model with its learned weights in bfloat16; frozen statistics stay as they are."""

    def cast(x: Any) -> Any:
        learned = isinstance(x, nnx.Param) and jnp.issubdtype(x[...].dtype, jnp.floating)
        return x.replace(x[...].astype(jnp.bfloat16)) if learned else x

    return jax.tree.map(cast, model, is_leaf=lambda x: isinstance(x, nnx.Variable))
