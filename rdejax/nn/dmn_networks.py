"""The other networks of DMN-AOA: pyramid, values of the template memory, RefineNet."""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from rdejax.nn.decoder import Decoder
from rdejax.nn.efficientnet import space_to_depth
from rdejax.nn.layers import Conv, ResBlock, resize_bilinear

_SURE = 4.0  # logit of a pixel that the coarse mask is sure of: 0.982


class Pyramid(nnx.Module):
    """Features of stride 4, 8 and 16, all of one width: lateral 1x1, sums from above, 3x3.

    After Lin et al., CVPR 2017; DMM-Net matches features of such levels, and DMN-AOA's supplement
    names the backbone's high-level features.

    Args:
      inputs: widths of the trunk's features of stride 4, 8 and 16.
      channels: of the pyramid.
      rngs: for the initial weights.
    """

    def __init__(self, inputs: tuple[int, int, int], channels: int, *, rngs: nnx.Rngs):
        he = nnx.initializers.he_normal()
        self.lateral = nnx.List([Conv(c, channels, 1, kernel_init=he, rngs=rngs) for c in inputs])
        self.smooth = nnx.List(
            [Conv(channels, channels, 3, kernel_init=he, rngs=rngs) for _ in inputs]
        )

    def __call__(
        self,
        f4: Float[Array, "n h4 w4 c4"],
        f8: Float[Array, "n h8 w8 c8"],
        f16: Float[Array, "n h w c16"],
    ) -> tuple[Float[Array, "n h4 w4 c"], Float[Array, "n h8 w8 c"], Float[Array, "n h w c"]]:
        """Features of the pyramid, finest first."""
        at4, at8, at16 = (conv(f) for conv, f in zip(self.lateral, (f4, f8, f16), strict=True))
        at8 = at8 + _twice(at16)
        at4 = at4 + _twice(at8)
        out4, out8, out16 = (
            jax.nn.relu(conv(f)) for conv, f in zip(self.smooth, (at4, at8, at16), strict=True)
        )
        return out4, out8, out16


class TemplateValueEncoder(nnx.Module):
    """Values of every object: 3x3 convolution of [f16, mask, other masks], two residual blocks.

    Args:
      channels: of f16.
      value_channels: width of the values.
      rngs: for the initial weights.
    """

    def __init__(self, channels: int, value_channels: int, *, rngs: nnx.Rngs):
        self.mix = Conv(2 + channels, value_channels, 3, rngs=rngs)
        self.block1 = ResBlock(value_channels, value_channels, rngs=rngs)
        self.block2 = ResBlock(value_channels, value_channels, rngs=rngs)

    def __call__(
        self,
        f16: Float[Array, "h w c"],
        mask: Float[Array, "o h w"],
        others: Float[Array, "o h w"],
    ) -> Float[Array, "o h w cv"]:
        """Values of one frame; masks are means over the positions of stride 16."""
        masks = jnp.stack([mask, others], axis=-1).astype(f16.dtype)
        x = self.mix.split(masks[None], f16[None])[0]
        return self.block2(self.block1(x))


class RefineNet(nnx.Module):
    """Refined masks from coarse ones, with the previous and the first mask beside.

    Published: matched masks are refined by a network over high-level features (DMM-Net's also sees
    the previous and the first mask). Reconstruction: residual blocks at stride 16 and STCN's
    decoder, whose logit is added to that of the coarse mask; the last convolution starts at 0, so a
    fresh network returns the coarse mask.

    Args:
      channels: of the pyramid.
      widths: of the decoder at stride 16, 8 and 4.
      rngs: for the initial weights.
    """

    def __init__(self, channels: int, widths: tuple[int, int, int], *, rngs: nnx.Rngs):
        self.mix = ResBlock(3 * 16 + channels, channels, rngs=rngs)
        self.decoder = Decoder(channels, (channels, channels), widths, rngs=rngs)
        pred = self.decoder.pred
        pred.kernel = nnx.Param(jnp.zeros_like(pred.kernel[...]))
        pred.bias = nnx.Param(jnp.zeros(1))

    def __call__(
        self,
        coarse: Float[Array, "o h4 w4"],
        previous: Float[Array, "o h4 w4"],
        first: Float[Array, "o h4 w4"],
        features: tuple[
            Float[Array, "1 h4 w4 c"], Float[Array, "1 h8 w8 c"], Float[Array, "1 h w c"]
        ],
    ) -> Float[Array, "o h4 w4"]:
        """Logits at stride 4.

        Args:
          coarse: matched masks at stride 4, 0 to 1.
          previous: those of the frame before.
          first: the first ones.
          features: of the pyramid.
        """
        f4, f8, f16 = features
        masks = jnp.stack([coarse, previous, first], axis=-1).astype(f16.dtype)
        # 4 x 4 points to a position, so that nothing of the masks is lost at stride 16.
        folded = space_to_depth(2.0 * masks - 1.0, 4)
        x = self.decoder.compress(self.mix.split(folded[None], f16))
        _, _, logits = self.decoder.refined(x, f8, f4)
        return logits[0, ..., 0].astype(jnp.float32) + coarse_logits(coarse)


def coarse_logits(coarse: Float[Array, "*n h w"]) -> Float[Array, "*n h w"]:
    """Logits of coarse masks as they are: -4 to 4."""
    return _SURE * (2.0 * coarse.astype(jnp.float32) - 1.0)


def _twice(x: Float[Array, "n h w c"]) -> Float[Array, "n i j c"]:
    """Twice as many rows and columns, by copies."""
    n, h, w, c = x.shape
    x = jnp.broadcast_to(x[:, :, None, :, None], (n, h, 2, w, 2, c))
    return x.reshape(n, 2 * h, 2 * w, c)


def full_size(logits: Float[Array, "o h4 w4"]) -> Float[Array, "o H W"]:
    """Logits at the size of the padded frame (bilinear)."""
    size = (4 * logits.shape[1], 4 * logits.shape[2])
    return resize_bilinear(logits[..., None], size)[..., 0]
