"""Soft aggregation: probabilities of single objects to one distribution per pixel (STM, 2019)."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

_EPS = 1e-7


def aggregate_logits(p: Float[Array, "... o H W"], axis: int = -3) -> Float[Array, "... o+1 H W"]:
    """Logits of background and objects whose softmax is the soft aggregation of `p`.

        q = [prod_i (1 - p_i), p_1, ..., p_o] clamped to [1e-7, 1 - 1e-7];  logit = log(q / (1 - q))

    Computed in float32. An object with p = 0 leaves the logits of all others as they are.

    Args:
      p: probability of each object on its own, in [0, 1].
      axis: axis of the objects; the background comes first on it.
    """
    p = p.astype(jnp.float32)
    background = jnp.prod(1 - p, axis=axis, keepdims=True)
    q = jnp.clip(jnp.concatenate([background, p], axis=axis), _EPS, 1 - _EPS)
    return jnp.log(q / (1 - q))


def aggregate(p: Float[Array, "... o H W"], axis: int = -3) -> Float[Array, "... o+1 H W"]:
    """Probabilities of background and objects, see `aggregate_logits`."""
    return jax.nn.softmax(aggregate_logits(p, axis=axis), axis=axis)
