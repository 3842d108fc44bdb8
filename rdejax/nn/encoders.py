"""Key projection and value encoder of the STCN family (Cheng et al., NeurIPS 2021, section 3)."""

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from rdejax.nn.cbam import CBAM
from rdejax.nn.layers import Conv, ResBlock
from rdejax.nn.resnet import ResNetTrunk


class KeyProjection(Conv):
    """3x3 convolution from features to keys; orthogonal at first: no key channel is redundant."""

    def __init__(self, cin: int, key_channels: int, *, rngs: nnx.Rngs):
        super().__init__(cin, key_channels, 3, kernel_init=nnx.initializers.orthogonal(), rngs=rngs)


class ValueEncoder(nnx.Module):
    """Values of a frame from the image, the object masks and the key encoder's features.

    A ResNet-18 sees image, mask of the object and sum of the other objects' masks; its stride-16
    features and the key encoder's are fused: block2(y + CBAM(y)), y = block1([resnet, key]).

    Args:
      key_features: width of the key encoder's stride-16 features.
      value_channels: width of the values.
      single_object: without the channel of the other objects (static-image stage).
      conv_bias: whether the ResNet's convolutions have a bias.
      rngs: for the initial weights.
    """

    def __init__(
        self,
        key_features: int,
        value_channels: int = 512,
        *,
        single_object: bool = False,
        conv_bias: bool = True,
        rngs: nnx.Rngs,
    ):
        self.single_object = single_object
        inputs = 4 if single_object else 5
        self.trunk = ResNetTrunk(18, inputs, conv_bias, rngs=rngs)
        fused = self.trunk.channels[2] + key_features
        self.block1 = ResBlock(fused, value_channels, rngs=rngs)
        self.attention = CBAM(value_channels, rngs=rngs)
        self.block2 = ResBlock(value_channels, value_channels, rngs=rngs)

    def __call__(
        self,
        image: Float[Array, "n H W 3"],
        f16: Float[Array, "n h w c16"],
        mask: Float[Array, "n o H W"],
        others: Float[Array, "n o H W"],
    ) -> Float[Array, "n o h w cv"]:
        """Values of every object.

        Args:
          image: normalised frames, sides multiples of 16.
          f16: the key encoder's features of these frames.
          mask: soft mask of each object, in [0, 1].
          others: sum of the other objects' masks; not read with `single_object`.
        """
        x = self.stage3(image, mask, others)
        y = self.block1.split(x, f16)
        return self.block2(y + self.attention(y))

    def stage3(
        self,
        image: Float[Array, "n H W 3"],
        mask: Float[Array, "n o H W"],
        others: Float[Array, "n o H W"],
    ) -> Float[Array, "n o h w c"]:
        """Stride-16 features of the ResNet-18."""
        n, o = mask.shape[:2]
        planes = [mask] if self.single_object else [mask, others]
        frames = jnp.broadcast_to(image[:, None], (n, o, *image.shape[1:]))
        x = jnp.concatenate([frames, *(p[..., None].astype(image.dtype) for p in planes)], axis=-1)
        x = self.trunk(x.reshape(n * o, *x.shape[2:]))[2]
        return x.reshape(n, o, *x.shape[1:])
