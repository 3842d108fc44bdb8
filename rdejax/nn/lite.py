"""Value encoder of the small systems: it reuses the key encoder's features of the frame."""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from rdejax.nn.cbam import CBAM
from rdejax.nn.efficientnet import space_to_depth
from rdejax.nn.layers import Conv, ResBlock


class LiteValueEncoder(nnx.Module):
    """Values of a frame from its image features and the object masks.

    The published value encoder runs a ResNet-18 over image and mask for every object. Here the
    image half of that work is shared by all objects: the masks enter at stride 4 without loss
    (space to depth) and meet the trunk's features at strides 4, 8 and 16; the fuser (residual
    block, CBAM, residual block) is the published one with smaller widths.

    Args:
      channels: trunk widths at stride 4, 8, 16.
      value_channels: width of the values.
      widths: inner widths at stride 4, 8 and 16.
    """

    def __init__(
        self,
        channels: tuple[int, int, int],
        value_channels: int = 128,
        widths: tuple[int, int, int] = (32, 48, 96),
        *,
        rngs: nnx.Rngs,
    ):
        c4, c8, c16 = channels
        w4, w8, w16 = widths
        self.mix4 = Conv(2 * 16 + c4, w4, 1, rngs=rngs)
        self.down8 = Conv(w4, w8, 3, stride=2, rngs=rngs)
        self.mix8 = Conv(w8 + c8, w8, 3, rngs=rngs)
        self.down16 = Conv(w8, w16, 3, stride=2, rngs=rngs)
        self.block1 = ResBlock(w16 + c16, value_channels, rngs=rngs)
        self.attention = CBAM(value_channels, rngs=rngs)
        self.block2 = ResBlock(value_channels, value_channels, rngs=rngs)

    def __call__(
        self,
        f4: Float[Array, "n h4 w4 c4"],
        f8: Float[Array, "n h8 w8 c8"],
        f16: Float[Array, "n h w c16"],
        mask: Float[Array, "n o H W"],
        others: Float[Array, "n o H W"],
    ) -> Float[Array, "n o h w cv"]:
        """Values of every object.

        Args:
          f4: trunk features of stride 4 (f8 and f16 likewise).
          f8: stride 8.
          f16: stride 16.
          mask: soft mask of each object in [0, 1].
          others: sum of the other objects' masks.
        """
        n, o = mask.shape[:2]

        def each(f: Array) -> Array:
            return jnp.repeat(f, o, axis=0)

        masks = jnp.stack([mask, others], axis=-1).reshape(n * o, *mask.shape[2:], 2)
        x = jnp.concatenate([space_to_depth(masks, 4), each(f4)], axis=-1)
        x = self.down8(jax.nn.relu(self.mix4(x)))
        x = jnp.concatenate([jax.nn.relu(x), each(f8)], axis=-1)
        x = self.down16(jax.nn.relu(self.mix8(x)))
        x = self.block1(jnp.concatenate([x, each(f16)], axis=-1))
        x = self.block2(x + self.attention(x))
        return x.reshape(n, o, *x.shape[1:])
