"""ResNet-18 and ResNet-50 up to stride 16 (He et al., 2016), batch norm frozen."""

import jax
from flax import nnx
from jaxtyping import Array, Float

from rdejax.errors import RdejaxError
from rdejax.nn.layers import Conv, FrozenBatchNorm, max_pool3x3s2

_INIT = nnx.initializers.variance_scaling(2.0, "fan_out", "normal")


class BasicBlock(nnx.Module):
    """Two 3x3 convolutions and a skip, the residual block of ResNet-18."""

    expansion = 1
    folds = ((("conv1",), "bn1"), (("conv2",), "bn2"))

    def __init__(self, cin: int, width: int, stride: int, bias: bool, *, rngs: nnx.Rngs):
        self.conv1 = _conv(cin, width, 3, stride, bias, rngs)
        self.bn1 = FrozenBatchNorm(width)
        self.conv2 = _conv(width, width, 3, 1, bias, rngs)
        self.bn2 = FrozenBatchNorm(width)
        self.downsample = Projection.where_needed(cin, width, stride, bias, rngs)

    def __call__(self, x: Float[Array, "n h w c"]) -> Float[Array, "n i j d"]:
        """Applies the block."""
        y = jax.nn.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        return jax.nn.relu(y + (x if self.downsample is None else self.downsample(x)))


class Bottleneck(nnx.Module):
    """1x1, 3x3 (with the stride), 1x1 convolutions and a skip, the residual block of ResNet-50."""

    expansion = 4
    folds = ((("conv1",), "bn1"), (("conv2",), "bn2"), (("conv3",), "bn3"))

    def __init__(self, cin: int, width: int, stride: int, bias: bool, *, rngs: nnx.Rngs):
        cout = self.expansion * width
        self.conv1 = _conv(cin, width, 1, 1, bias, rngs)
        self.bn1 = FrozenBatchNorm(width)
        self.conv2 = _conv(width, width, 3, stride, bias, rngs)
        self.bn2 = FrozenBatchNorm(width)
        self.conv3 = _conv(width, cout, 1, 1, bias, rngs)
        self.bn3 = FrozenBatchNorm(cout)
        self.downsample = Projection.where_needed(cin, cout, stride, bias, rngs)

    def __call__(self, x: Float[Array, "n h w c"]) -> Float[Array, "n i j d"]:
        """Applies the block."""
        y = jax.nn.relu(self.bn1(self.conv1(x)))
        y = jax.nn.relu(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(y))
        return jax.nn.relu(y + (x if self.downsample is None else self.downsample(x)))


class Projection(nnx.Module):
    """Skip path of a block that changes width or size: 1x1 convolution and batch norm."""

    folds = ((("conv",), "bn"),)

    def __init__(self, cin: int, cout: int, stride: int, bias: bool, *, rngs: nnx.Rngs):
        self.conv = _conv(cin, cout, 1, stride, bias, rngs)
        self.bn = FrozenBatchNorm(cout)

    @classmethod
    def where_needed(
        cls, cin: int, cout: int, stride: int, bias: bool, rngs: nnx.Rngs
    ) -> "Projection | None":
        """A projection, or None where the identity has the right shape."""
        return None if stride == 1 and cin == cout else cls(cin, cout, stride, bias, rngs=rngs)

    def __call__(self, x: Float[Array, "n h w c"]) -> Float[Array, "n i j d"]:
        """Projects `x`."""
        return self.bn(self.conv(x))


class ResNetTrunk(nnx.Module):
    """ResNet without its last stage and classifier.

    Args:
      depth: 18 or 50.
      in_channels: channels of the input.
      conv_bias: whether convolutions have a bias (the published value encoder's do).
      rngs: for the initial weights.

    Attributes:
      channels: widths of the features of stride 4, 8 and 16.
    """

    folds = ((("conv1",), "bn1"),)
    blocks = {18: (BasicBlock, (2, 2, 2)), 50: (Bottleneck, (3, 4, 6))}

    @staticmethod
    def in_early_stage(path: tuple, stride: int) -> bool:
        """Whether a weight belongs to a stage whose features have at most this stride (0, 4, 8)."""
        early = {0: (), 4: ("conv1", "bn1", "layer1"), 8: ("conv1", "bn1", "layer1", "layer2")}
        after = path.index("key_encoder") + 1 if "key_encoder" in path else 0
        return path[after] in early[stride]

    def __init__(
        self,
        depth: int = 50,
        in_channels: int = 3,
        conv_bias: bool = False,
        *,
        rngs: nnx.Rngs,
    ):
        if depth not in self.blocks:
            raise RdejaxError(f"ResNet depth {depth} is not known; choose 18 or 50")
        block, counts = self.blocks[depth]
        self.conv1 = _conv(in_channels, 64, 7, 2, conv_bias, rngs)
        self.bn1 = FrozenBatchNorm(64)
        stages, cin = [], 64
        for i, count in enumerate(counts):
            width = 64 * 2**i
            stage = []
            for j in range(count):
                stride = 2 if i > 0 and j == 0 else 1
                stage.append(block(cin, width, stride, conv_bias, rngs=rngs))
                cin = block.expansion * width
            stages.append(nnx.List(stage))
        self.layer1, self.layer2, self.layer3 = stages
        self.channels = tuple(64 * 2**i * block.expansion for i in range(3))

    def stem(self, x: Float[Array, "n H W c"]) -> Float[Array, "n h4 w4 64"]:
        """First convolution and max pooling, stride 4."""
        return max_pool3x3s2(jax.nn.relu(self.bn1(self.conv1(x))))

    def __call__(
        self, x: Float[Array, "n H W c"]
    ) -> tuple[Float[Array, "n h4 w4 c4"], Float[Array, "n h8 w8 c8"], Float[Array, "n h w c16"]]:
        """Features of stride 4, 8 and 16."""
        return self.stages(self.stem(x))

    def stages(
        self, x: Float[Array, "n h4 w4 64"]
    ) -> tuple[Float[Array, "n h4 w4 c4"], Float[Array, "n h8 w8 c8"], Float[Array, "n h w c16"]]:
        """Features of stride 4, 8 and 16 from those of the stem."""
        features = []
        for stage in (self.layer1, self.layer2, self.layer3):
            for block in stage:
                x = block(x)
            features.append(x)
        f4, f8, f16 = features
        return f4, f8, f16


def _conv(cin: int, cout: int, kernel: int, stride: int, bias: bool, rngs: nnx.Rngs) -> Conv:
    return Conv(cin, cout, kernel, stride=stride, bias=bias, kernel_init=_INIT, rngs=rngs)
