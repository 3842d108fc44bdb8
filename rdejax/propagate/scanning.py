"""Scans: one whose gradients are fast on every backend, and one that may end early."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax


def scan(body: Callable[[Any, Any], tuple[Any, Any]], carry: Any, xs: Any) -> tuple[Any, Any]:
    """`lax.scan`; on CPUs the same as a Python loop.

    XLA's CPU backend brings convolutions into the form its fast kernels want only outside of loops
    and calls. Gradients of convolutions are never in that form, so inside of a loop they run six to
    twenty times slower, which is worth the longer compilation of an unrolled one.

    Args:
      body: (carry, x) -> (carry, y).
      carry: before the first step.
      xs: pytree of arrays with a leading axis, of length 1 or more.

    Returns:
      The carry after the last step, and every y, stacked.
    """
    if jax.default_backend() != "cpu":
        return lax.scan(body, carry, xs)
    ys = []
    for i in range(jax.tree.leaves(xs)[0].shape[0]):
        carry, y = body(carry, jax.tree.map(lambda x, i=i: x[i], xs))
        ys.append(y)
    return carry, jax.tree.map(lambda *y: jnp.stack(y), *ys)


def scan_some(
    body: Callable[[Any, Any], tuple[Any, Any]], carry: Any, xs: Any, used: Array | int
) -> tuple[Any, Any]:
    """`lax.scan` over the first `used` of `xs`; in place of what the others would give stands 0.

    How many are used is known to the running program only, so one program serves any number.

    Args:
      body: see `scan`.
      carry: before the first step.
      xs: see `scan`.
      used: from 0 to the length of the axis.
    """
    # Traced once, for its shapes and in the loop.
    body = jax.jit(body, inline=True)
    length = jax.tree.leaves(xs)[0].shape[0]
    one = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), xs)
    ys = jax.tree.map(
        lambda y: jnp.zeros((length, *y.shape), y.dtype), jax.eval_shape(body, carry, one)[1]
    )

    def step(i: Array, both: tuple[Any, Any]) -> tuple[Any, Any]:
        carry, ys = both
        x = jax.tree.map(lambda x: lax.dynamic_index_in_dim(x, i, keepdims=False), xs)
        carry, y = body(carry, x)
        put = partial(lax.dynamic_update_index_in_dim, index=i, axis=0)
        return carry, jax.tree.map(put, ys, y)

    return lax.fori_loop(0, used, step, (carry, ys))
