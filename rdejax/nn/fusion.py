"""Gated fusion of readout, query value and features (SWEM, section 3.4)."""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from rdejax.nn.layers import Conv


class GatedFusion(nnx.Module):
    """conv(y) * sigmoid(conv'(y)), y = [value, thin, features]; two 3x3 convolutions.

    Args:
      channels: width of value, of thin and of the result.
      features: width of the features.
      rngs: for the initial weights.
    """

    def __init__(self, channels: int, features: int, *, rngs: nnx.Rngs):
        self.channels = channels
        self.layer = Conv(2 * channels + features, channels, 3, rngs=rngs)
        self.gate = Conv(2 * channels + features, channels, 3, rngs=rngs)

    def __call__(
        self, readout: Float[Array, "n o h w c"], thin: Float[Array, "n h w ct"]
    ) -> Float[Array, "n o h w ct"]:
        """Decoder input of every object.

        Args:
          readout: value and, after it, the features.
          thin: the query's own value, the same for all objects.
        """
        n, o, h, w, c = readout.shape
        value, features = readout[..., : self.channels], readout[..., self.channels :]
        thin = jnp.broadcast_to(thin[:, None], value.shape)
        y = jnp.concatenate([value, thin, features], axis=-1).reshape(n * o, h, w, -1)
        fused = self.layer(y) * jax.nn.sigmoid(self.gate(y))
        return fused.reshape(n, o, h, w, -1)
