"""What a module holds beside its weights: arrays that are given once and never trained."""

from typing import TypeVar

import jax
from flax import nnx

from rdejax.nn.layers import Frozen

M = TypeVar("M", bound=nnx.Module)

WEIGHTS = nnx.Any(nnx.Param, Frozen)
"""NNX filter of what is stored on disk; all other arrays are constants."""


def with_constants(module: M) -> M:
    """The module, its array attributes made leaves of the pytree that it is.

    NNX sees to this itself, but not where a constructor runs inside of `jit` or `eval_shape`: there
    a `jnp` array is a tracer, which would stay in the module as a static attribute, and leak.
    """
    for _, part in nnx.iter_modules(module):
        for name, value in list(vars(part).items()):
            if isinstance(value, jax.Array):
                setattr(part, name, nnx.data(value))
    return module


def constants_of(module: nnx.Module) -> nnx.State:
    """The arrays of a module that are no weights."""
    return nnx.state(module, nnx.Not(WEIGHTS))
