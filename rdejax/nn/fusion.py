"""Gated fusion of readout, query value and features (SWEM, section 3.4)."""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from rdejax.nn.layers import Conv


class GatedFusion(nnx.Module):
    """conv(y) * sigmoid(conv'(y)), y = [value, query_value, features]; two 3x3 convolutions.

    Args:
      channels: width of value, of the query's own value and of the result.
      features: width of the features.
      rngs: for the initial weights.
    """

    def __init__(self, channels: int, features: int, *, rngs: nnx.Rngs):
        self.channels = channels
        self.layer = Conv(2 * channels + features, channels, 3, rngs=rngs)
        self.gate = Conv(2 * channels + features, channels, 3, rngs=rngs)

    def __call__(
        self, readout: Float[Array, "n o h w c"], query_value: Float[Array, "n h w cq"]
    ) -> Float[Array, "n o h w d"]:
        """Decoder input of every object.

        Args:
          readout: value and, after it, the features.
          query_value: the query's own value, the same for all objects.
        """
        n, o, h, w, c = readout.shape
        value, features = readout[..., : self.channels], readout[..., self.channels :]
        query_value = jnp.broadcast_to(query_value[:, None], value.shape)
        y = jnp.concatenate([value, query_value, features], axis=-1).reshape(n * o, h, w, -1)
        fused = self.layer(y) * jax.nn.sigmoid(self.gate(y))
        return fused.reshape(n, o, h, w, -1)
