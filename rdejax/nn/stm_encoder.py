"""STM's memory encoder, whose keys and values both see the object (Oh et al., ICCV 2019, 3.1)."""

import jax
from flax import nnx
from jaxtyping import Array, Float

from rdejax.nn.layers import Conv, max_pool3x3s2
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
