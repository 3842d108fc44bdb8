"""Value encoder of the small systems: it reuses the key encoder's features of the frame."""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from rdejax.errors import RdejaxError
from rdejax.nn.cbam import CBAM
from rdejax.nn.efficientnet import space_to_depth
from rdejax.nn.layers import Conv, ResBlock

MASK_CHANNELS = 16


class LiteValueEncoder(nnx.Module):
    """Values of a frame from its image features and the object masks.

    The published value encoder runs a ResNet-18 over image and mask for every object. Here the
    image half of that work is shared by all objects: the masks enter at stride 4 without loss
    (space to depth) and meet the trunk's features at strides 4, 8 and 16; the fuser (residual
    block, CBAM, residual block) is the published one with smaller widths.

    The last 16 channels of a value are not learned: they are the object's own mask, 4 x 4 points to
    a position, in [-1, 1]. Read out, they are the mask carried along by the affinity, which gives
    the decoder a first guess and the keys a gradient from the first step on.

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
        he = nnx.initializers.he_normal()  # keeps the masks' part of the signal at its size
        self.mix4 = Conv(2 * 16 + c4, w4, 1, kernel_init=he, rngs=rngs)
        self.down8 = Conv(w4, w8, 3, stride=2, kernel_init=he, rngs=rngs)
        self.mix8 = Conv(w8 + c8, w8, 3, kernel_init=he, rngs=rngs)
        self.down16 = Conv(w8, w16, 3, stride=2, kernel_init=he, rngs=rngs)
        learned = value_channels - MASK_CHANNELS
        if learned < 16:
            raise RdejaxError(
                f"value_channels={value_channels}: give 32 or more, for 16 hold the mask itself"
            )
        self.block1 = ResBlock(w16 + c16, learned, rngs=rngs)
        self.attention = CBAM(learned, rngs=rngs)
        self.block2 = ResBlock(learned, learned, rngs=rngs)

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
        mask, others = mask.astype(f4.dtype), others.astype(f4.dtype)
        masks = jnp.stack([mask, others], axis=-1).reshape(n * o, *mask.shape[2:], 2)

        def objects(x: Array) -> Array:
            return x.reshape(n, o, *x.shape[1:])

        x = self.mix4.split(objects(space_to_depth(masks, 4)), f4)
        x = self.mix8.split(jax.nn.relu(self.down8(jax.nn.relu(x))), f8)
        x = self.block1.split(self.down16(jax.nn.relu(x)), f16)
        x = self.block2(x + self.attention(x))
        return jnp.concatenate([x, objects(folded(masks[..., 0]))], axis=-1)


def folded(mask: Float[Array, "m H W"]) -> Float[Array, "m h w 16"]:
    """Means over 4 x 4 pixels, 4 x 4 of them to a stride-16 position, scaled to [-1, 1]."""
    m, height, width = mask.shape
    quarter = mask.reshape(m, height // 4, 4, width // 4, 4).mean((2, 4))
    return 2.0 * space_to_depth(quarter[..., None], 4) - 1.0
