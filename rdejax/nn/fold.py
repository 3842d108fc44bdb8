"""Networks made ready for inference: what is constant there is computed once, beforehand.

Weights are constant in inference. A frozen batch norm behind a convolution is a factor and a term
of each output channel, and becomes part of the kernel and the bias; kernels take the form that the
backend's fastest convolution wants. Results are the same within float32.
"""

import operator
from collections.abc import Iterator
from typing import Any, TypeVar

import jax
import numpy as np
from flax import nnx
from jaxtyping import Array

from rdejax.nn.layers import Conv, FrozenBatchNorm

M = TypeVar("M", bound=nnx.Module)


class Nothing(nnx.Module):
    """Takes the place of a batch norm that was folded away: the identity."""

    def __call__(self, x: Array) -> Array:
        """The input."""
        return x


def fold(module: M) -> M:
    """The same function with fewer operations; the module itself stays as it is.

    A module class tells which of its batch norms can be folded in `folds`: pairs of convolutions
    whose sum is normalised (attributes with a `kernel`, output channels last, and a `bias` that may
    be None), and the batch norm. Every `Conv` is asked for its `prepared` form.
    """
    # Modules of their own over the same variables, as `replaced` makes them.
    copy = jax.tree.map(lambda x: x, module)
    _fold(copy)
    return copy


def _fold(module: nnx.Module) -> None:
    for convs, norm in getattr(module, "folds", ()):
        _fold_norm(module, convs, norm)
    for holder, name, child in _children(module):
        if isinstance(child, Conv):
            _put(holder, name, child.prepared())
        else:
            _fold(child)


def _children(module: nnx.Module) -> Iterator[tuple[Any, Any, nnx.Module]]:
    """(what holds it, name or index there, module) of the modules in a module."""
    items = enumerate(module) if isinstance(module, nnx.List) else list(vars(module).items())
    for name, child in list(items):
        if isinstance(child, nnx.Module | nnx.List):
            yield module, name, child


def _put(holder: Any, name: Any, child: nnx.Module) -> None:
    if isinstance(holder, nnx.List):
        holder[name] = child
    else:
        setattr(holder, name, child)


def _fold_norm(module: nnx.Module, convs: tuple[str, ...], name: str) -> None:
    owner, _, last = name.rpartition(".")
    holder = operator.attrgetter(owner)(module) if owner else module
    norm = getattr(holder, last)
    if not isinstance(norm, FrozenBatchNorm):
        return  # there is none, or it is folded already
    scale, shift = norm.factors()
    for i, path in enumerate(convs):
        conv = operator.attrgetter(path)(module)
        conv.kernel = nnx.Param(jax.device_put(np.asarray(conv.kernel[...]) * scale))
        bias = np.zeros_like(shift) if conv.bias is None else np.asarray(conv.bias[...]) * scale
        if i == 0 or conv.bias is not None:
            conv.bias = nnx.Param(jax.device_put(bias + shift if i == 0 else bias))
            if hasattr(conv, "use_bias"):
                conv.use_bias = True
    setattr(holder, last, Nothing())
