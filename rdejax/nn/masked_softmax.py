"""A softmax over those entries that are there."""

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float


def softmax_over(scores: Float[Array, "*n v"], there: Bool[Array, "*m v"]) -> Float[Array, "*n v"]:
    """Softmax over the last axis among what is there; all 0 where nothing is.

    Args:
      scores: of any value, NaN too, where nothing is there.
      there: of the same rank, broadcast along axes of length 1.
    """
    scores = jnp.where(there, scores, -jnp.inf)
    some = jnp.broadcast_to(there.any(-1, keepdims=True), (*scores.shape[:-1], 1))
    most = lax.stop_gradient(jnp.where(some, scores.max(-1, keepdims=True), 0.0))
    weights = jnp.where(there, jnp.exp(jnp.where(there, scores - most, 0.0)), 0.0)
    return weights / jnp.where(some, weights.sum(-1, keepdims=True), 1.0)
