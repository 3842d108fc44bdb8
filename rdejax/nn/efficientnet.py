"""EfficientNet-Lite0 trunk to stride 16 (Tan and Le, 2019; "lite": no SE, no swish)."""

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax
from jaxtyping import Array, Float

from rdejax.nn.depthwise import depthwise
from rdejax.nn.layers import FrozenBatchNorm

# (blocks, output channels, stride of the first block, kernel, expansion) of the stages kept.
STAGES = ((1, 16, 1, 3, 1), (2, 24, 2, 3, 6), (2, 40, 2, 5, 6), (3, 80, 2, 3, 6), (3, 112, 1, 5, 6))
# Blocks after which the features of stride 4, 8 and 16 are taken.
TAPS = (2, 4, 10)
BN_EPS = 1e-3
# Standard deviations of the ImageNet features at the taps, rounded: they leave the trunk divided by
# them. Undivided they would drown the masks in the value encoder, and put keys so far apart that
# the softmax over memory positions starts as a hard argmax without a gradient.
TAP_SCALES = (10.0, 10.0, 12.0)


class DepthwiseConv(nnx.Module):
    """Depthwise convolution; `kernel` is [k, k, 1, c].

    There is no `bias` ([c]) but that of a batch norm folded into it.
    """

    def __init__(self, channels: int, kernel: int, stride: int, *, rngs: nnx.Rngs):
        shape = (kernel, kernel, 1, channels)
        scale = (2.0 / (kernel * kernel)) ** 0.5
        self.kernel = nnx.Param(scale * jax.random.normal(rngs.params(), shape))
        self.bias = nnx.data(None)
        self.stride = stride

    def __call__(self, x: Float[Array, "n h w c"]) -> Float[Array, "n i j c"]:
        """Convolves `x` channel by channel, "SAME" padding."""
        x = depthwise(x, self.kernel[...], self.stride)
        return x if self.bias is None else x + jnp.broadcast_to(self.bias[...], x.shape)


def _pointwise(cin: int, cout: int, rngs: nnx.Rngs) -> nnx.Linear:
    # A 1x1 convolution is a matrix product over channels.
    init = nnx.initializers.he_normal()
    return nnx.Linear(cin, cout, use_bias=False, kernel_init=init, rngs=rngs)


class InvertedResidual(nnx.Module):
    """Expand (1x1), depthwise, project (1x1); a skip where the shapes agree (MobileNetV2)."""

    folds = ((("expand",), "bn0"), (("depthwise",), "bn1"), (("project",), "bn2"))

    def __init__(
        self, cin: int, cout: int, stride: int, kernel: int, expand: int, *, rngs: nnx.Rngs
    ):
        inner = cin * expand
        self.expand = _pointwise(cin, inner, rngs) if expand > 1 else None
        self.bn0 = FrozenBatchNorm(inner, eps=BN_EPS) if expand > 1 else None
        self.depthwise = DepthwiseConv(inner, kernel, stride, rngs=rngs)
        self.bn1 = FrozenBatchNorm(inner, eps=BN_EPS)
        self.project = _pointwise(inner, cout, rngs)
        self.bn2 = FrozenBatchNorm(cout, eps=BN_EPS)
        self.skip = stride == 1 and cin == cout

    def __call__(self, x: Float[Array, "n h w c"]) -> Float[Array, "n i j d"]:
        """Applies the block."""
        y = x
        if self.expand is not None and self.bn0 is not None:
            y = jax.nn.relu6(self.bn0(self.expand(y)))
        y = jax.nn.relu6(self.bn1(self.depthwise(y)))
        y = self.bn2(self.project(y))
        return x + y if self.skip else y


class EfficientNetLite0(nnx.Module):
    """EfficientNet-Lite0 up to its last block of stride 16; batch norm frozen.

    Attributes:
      channels: widths of the features of stride 4, 8 and 16.
    """

    channels = (24, 40, 112)
    folds = ((("stem",), "stem_bn"),)

    @staticmethod
    def in_early_stage(path: tuple, stride: int) -> bool:
        """Whether a weight belongs to the stem or a block whose features have at most this stride.

        Early features change least in fine-tuning, and their gradients cost most.

        Args:
          path: of the weight, with the names and indices of the modules above it.
          stride: 4 or 8; 0 for none.
        """
        if stride == 0:
            return False
        last = TAPS[{4: 0, 8: 1}[stride]]
        text = "/".join(str(p) for p in path) + "/"
        return "/stem" in text or any(f"blocks/{i}/" in text for i in range(last + 1))

    def __init__(self, *, rngs: nnx.Rngs):
        self.stem = nnx.Conv(
            3, 32, (3, 3), strides=(2, 2), padding="SAME", use_bias=False, rngs=rngs
        )
        self.stem_bn = FrozenBatchNorm(32, eps=BN_EPS)
        blocks, cin = [], 32
        for count, cout, stride, kernel, expand in STAGES:
            for i in range(count):
                step = stride if i == 0 else 1
                blocks.append(InvertedResidual(cin, cout, step, kernel, expand, rngs=rngs))
                cin = cout
        self.blocks = nnx.List(blocks)

    def __call__(
        self, x: Float[Array, "n H W 3"]
    ) -> tuple[
        Float[Array, "n H/4 W/4 24"], Float[Array, "n H/8 W/8 40"], Float[Array, "n H/16 W/16 112"]
    ]:
        """Features of stride 4, 8 and 16, divided by `TAP_SCALES`.

        Args:
          x: frames scaled to (rgb - 0.498) / 0.502, rgb in [0, 1].
        """
        x = jax.nn.relu6(self.stem_bn(self._stem(x)))
        taps = []
        for i, block in enumerate(self.blocks):
            x = block(x)
            if i in TAPS:
                taps.append(x / TAP_SCALES[len(taps)])
        f4, f8, f16 = taps
        return f4, f8, f16

    def _stem(self, x: Array) -> Array:
        if jax.default_backend() == "cpu":
            return _with_even_channels(self.stem, x)
        return self.stem(x)


def _with_even_channels(conv: nnx.Conv, x: Array) -> Array:
    """The convolution with a fourth, empty input channel: on CPUs three times faster than RGB."""
    x, kernel = conv.promote_dtype((x, conv.kernel[...]), dtype=conv.dtype)
    none = (0, 0)
    y = lax.conv_general_dilated(
        jnp.pad(x, (none, none, none, (0, 1))),
        jnp.pad(kernel, (none, none, (0, 1), none)),
        (2, 2),
        "SAME",
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )
    return y if conv.bias is None else y + jnp.broadcast_to(conv.bias[...], y.shape)


def space_to_depth(x: Float[Array, "n H W c"], block: int) -> Float[Array, "n h w d"]:
    """Moves each block x block patch into channels: [n, H/block, W/block, c * block**2]."""
    n, h, w, c = x.shape
    x = x.reshape(n, h // block, block, w // block, block, c).transpose(0, 1, 3, 2, 4, 5)
    return jnp.reshape(x, (n, h // block, w // block, block * block * c))
