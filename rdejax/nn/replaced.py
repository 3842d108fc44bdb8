"""Modules with other attributes, the originals left as they are."""

from typing import Any, TypeVar

import jax
from flax import nnx

M = TypeVar("M", bound=nnx.Module)


def replaced(module: M, **attributes: Any) -> M:
    """The same module, weights shared, with these attributes in place of its own.

    NNX forbids setting attributes of a module that was made outside of the transformation in
    progress, so this is another object over the same variables.
    """
    other = jax.tree.map(lambda x: x, module)
    for name, value in attributes.items():
        setattr(other, name, value)
    return other
