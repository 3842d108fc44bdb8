"""STM's memory encoder and decoder (Oh et al., ICCV 2019, sections 3.1 and 3.3).

The encoder's keys and values both see the object; the decoder has one width at all strides and two
output channels.
"""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from rdejax.nn.layers import Conv, ResBlock, max_pool3x3s2, resize_bilinear
from rdejax.nn.resnet import ResNetTrunk


class MemoryEncoder(nnx.Module):
    """Key and value of every object in a frame, from the image and the masks.

    A ResNet of its own whose first convolution is the sum of three: of the image, of the object's
    mask and of the other objects' masks. Two 3x3 convolutions turn its stride-16 features into
    keys and values.

    Args:
      depth: of the ResNet, 50 (published) or 18.
      key_channels: width of keys.
      value_channels: width of values.
      rngs: for the initial weights.
    """

    folds = ((("trunk.conv1", "conv_mask", "conv_others"), "trunk.bn1"),)

    def __init__(
        self, depth: int, key_channels: int = 128, value_channels: int = 512, *, rngs: nnx.Rngs
    ):
        self.trunk = ResNetTrunk(depth, rngs=rngs)
        self.conv_mask = Conv(1, 64, 7, stride=2, bias=False, rngs=rngs)
        self.conv_others = Conv(1, 64, 7, stride=2, bias=False, rngs=rngs)
        c16 = self.trunk.channels[2]
        self.key = Conv(c16, key_channels, 3, rngs=rngs)
        self.value = Conv(c16, value_channels, 3, rngs=rngs)

    def __call__(
        self,
        image: Float[Array, "H W 3"],
        masks: Float[Array, "o H W"],
        others: Float[Array, "o H W"],
    ) -> tuple[Float[Array, "o h w ck"], Float[Array, "o h w cv"]]:
        """Keys and values of stride 16.

        Args:
          image: a normalised frame, sides multiples of 16.
          masks: soft mask of each object, in [0, 1].
          others: sum of the other objects' masks, in [0, 1].
        """
        f16 = self.trunk.stages(max_pool3x3s2(self.stem(image, masks, others)))[2]
        return self.key(f16), self.value(f16)

    def stem(
        self,
        image: Float[Array, "H W 3"],
        masks: Float[Array, "o H W"],
        others: Float[Array, "o H W"],
    ) -> Float[Array, "o h2 w2 64"]:
        """Features of stride 2; the image's convolution is computed once for all objects."""
        masks, others = (x[..., None].astype(image.dtype) for x in (masks, others))
        x = self.trunk.conv1(image[None]) + self.conv_mask(masks) + self.conv_others(others)
        return jax.nn.relu(self.trunk.bn1(x))


class Refinement(nnx.Module):
    """out(skip_block(skip_conv(f)) + enlarged x): one step to a finer stride."""

    def __init__(self, skip: int, width: int, *, rngs: nnx.Rngs):
        self.skip_conv = Conv(skip, width, 3, rngs=rngs)
        self.skip_block = ResBlock(width, width, rngs=rngs)
        self.out = ResBlock(width, width, rngs=rngs)

    def __call__(
        self, x: Float[Array, "n o h w c"], skip: Float[Array, "n i j s"]
    ) -> Float[Array, "n o i j c"]:
        """Adds the skip, computed once per image, to every object's enlarged `x`."""
        fine = self.skip_block(self.skip_conv(skip))
        x = resize_bilinear(x, (skip.shape[1], skip.shape[2]))
        return self.out(fine[:, None] + x)


class STMDecoder(nnx.Module):
    """Logits of every object from the decoder input at stride 16 and two skips.

    The network tells background and object apart with a softmax over two channels. For two,
    softmax(a, b)_2 = sigmoid(b - a), so the difference is the object's logit.

    Args:
      cin: width of the decoder input, [readout, query value].
      skips: widths of the query encoder's features of stride 8 and 4.
      width: of all its features.
      rngs: for the initial weights.
    """

    def __init__(self, cin: int, skips: tuple[int, int], width: int = 256, *, rngs: nnx.Rngs):
        c8, c4 = skips
        self.compress = Conv(cin, width, 3, rngs=rngs)
        self.block = ResBlock(width, width, rngs=rngs)
        self.refine_16_8 = Refinement(c8, width, rngs=rngs)
        self.refine_8_4 = Refinement(c4, width, rngs=rngs)
        self.pred = Conv(width, 2, 3, rngs=rngs)

    def __call__(
        self,
        x: Float[Array, "n o h w c"],
        f8: Float[Array, "n h8 w8 c8"],
        f4: Float[Array, "n h4 w4 c4"],
        shared: Float[Array, "n h w s"] | None = None,
    ) -> Float[Array, "n o H W"]:
        """Logits at four times the size of `f4`.

        Args:
          x: decoder input of every object.
          f8: skip features of stride 8, the same for all objects.
          f4: skip features of stride 4.
          shared: see `rdejax.nn.decoder.Decoder`.
        """
        both = self.coarse(self.features(x, f8, f4, shared)[2])
        logits = both[..., 1:] - both[..., :1]
        size = (4 * logits.shape[-3], 4 * logits.shape[-2])
        return jnp.squeeze(resize_bilinear(logits, size), axis=-1)

    def features(
        self, x: Array, f8: Array, f4: Array, shared: Array | None = None
    ) -> tuple[Float[Array, "n o h w d"], Float[Array, "n o h8 w8 d"], Float[Array, "n o h4 w4 d"]]:
        """Features of stride 16, 8 and 4."""
        x = self.compress(x) if shared is None else self.compress.split(x, shared)
        m16 = self.block(x)
        m8 = self.refine_16_8(m16, f8)
        return m16, m8, self.refine_8_4(m8, f4)

    def coarse(self, m4: Float[Array, "n o h4 w4 d"]) -> Float[Array, "n o h4 w4 2"]:
        """Background and object channel of stride 4, before the softmax."""
        return self.pred(jax.nn.relu(m4))
