"""A scan whose gradients are fast on every backend."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax


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
