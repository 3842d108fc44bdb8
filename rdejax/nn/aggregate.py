"""Soft aggregation: probabilities of single objects to one distribution per pixel (STM, 2019)."""

import functools
from collections.abc import Callable

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

_EPS = 1e-7


def aggregate_logits(p: Float[Array, "... o H W"], axis: int = -3) -> Float[Array, "... o+1 H W"]:
    """Logits of background and objects whose softmax is the soft aggregation of `p`.

        q = [prod_i (1 - p_i), p_1, ..., p_o] clamped to [1e-7, 1 - 1e-7];  logit = log(q / (1 - q))

    Computed in float32. An object with p = 0 leaves the logits of all others as they are.

    Args:
      p: probability of each object on its own, in [0, 1].
      axis: axis of the objects; the background comes first on it.
    """
    q = _clamped(p.astype(jnp.float32), axis)
    return jnp.log(q / (1 - q))


def aggregate(
    p: Float[Array, "... o H W"], present: Bool[Array, " o+1"] | None = None, axis: int = -3
) -> Float[Array, "... o+1 H W"]:
    """Probabilities of background and objects: the softmax of `aggregate_logits`.

    The exponential of a logit is its odds, q / (1 - q), so there is no logarithm to take.

    Args:
      p: see `aggregate_logits`.
      present: of background and objects, those that there are; the others get probability 0.
      axis: axis of the objects.
    """
    q = _clamped(p.astype(jnp.float32), axis)
    odds = q / (1 - q)
    if present is not None:
        shape = [1] * odds.ndim
        shape[axis] = -1
        odds = jnp.where(present.reshape(shape), odds, 0.0)
    return odds / _over(jnp.add, odds, axis)


def _clamped(p: Array, axis: int) -> Array:
    q = jnp.concatenate([_over(jnp.multiply, 1 - p, axis), p], axis=axis)
    return jnp.clip(q, _EPS, 1 - _EPS)


def _over(operation: Callable[[Array, Array], Array], x: Array, axis: int) -> Array:
    """A reduction of a short axis, which it keeps.

    Element by element: XLA's CPU backend makes that part of the pass over memory which it belongs
    to, whereas a reduction takes a pass of its own.
    """
    parts = jnp.split(x, x.shape[axis], axis=axis)
    return functools.reduce(operation, parts)
