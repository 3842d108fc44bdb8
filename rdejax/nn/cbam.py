"""Channel and spatial attention: CBAM (Woo et al., ECCV 2018)."""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from rdejax.nn.layers import Conv


class CBAM(nnx.Module):
    """Convolutional block attention: a gate per channel, then a gate per position.

        x <- x * sigmoid(mlp(mean_hw x) + mlp(max_hw x))
        x <- x * sigmoid(conv7x7([max_c x, mean_c x]))

    Args:
      channels: width of the input.
      reduction: the MLP's hidden layer is this many times narrower.
      rngs: for the initial weights.
    """

    def __init__(self, channels: int, reduction: int = 16, *, rngs: nnx.Rngs):
        hidden = max(1, channels // reduction)
        self.mlp1 = nnx.Linear(channels, hidden, rngs=rngs)
        self.mlp2 = nnx.Linear(hidden, channels, rngs=rngs)
        self.spatial = Conv(2, 1, 7, rngs=rngs)

    def __call__(self, x: Float[Array, "... h w c"]) -> Float[Array, "... h w c"]:
        """The gated input (without a residual)."""
        pooled = jnp.stack([x.mean((-3, -2)), x.max((-3, -2))])
        gate = self.mlp2(jax.nn.relu(self.mlp1(pooled))).sum(0)
        x = x * jax.nn.sigmoid(gate)[..., None, None, :]
        ends = jnp.stack([x.max(-1), x.mean(-1)], axis=-1)
        return x * jax.nn.sigmoid(self.spatial(ends))
