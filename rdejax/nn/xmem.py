"""XMem's networks: keys with shrinkage and selection, deep update, decoder with hidden update.

Cheng and Schwing, *XMem: Long-Term Video Object Segmentation with an Atkinson-Shiffrin Memory
Model*, ECCV 2022. All sizes, orders of concatenation and equations of this file are those of the
public code, but for the two classes of `xmem-lite`, which are this project's own.
"""

from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from rdejax.nn.cbam import CBAM
from rdejax.nn.decoder import Refinement
from rdejax.nn.encoders import ValueEncoder
from rdejax.nn.layers import Conv, ResBlock
from rdejax.nn.lite import LiteValueEncoder


@flax.struct.dataclass
class AnisotropicKey:
    """Keys whose distance is scaled by the memory's shrinkage and the query's selection.

    Attributes:
      key: [..., h, w, ck].
      shrinkage: [..., h, w, 1], 1 or more: confidence of a memory element.
      selection: [..., h, w, ck], in (0, 1): weight of each channel for a query; None where a memory
        has no use for it.
    """

    key: Float[Array, "*n h w ck"]
    shrinkage: Float[Array, "*n h w 1"]
    selection: Float[Array, "*n h w ck"] | None


class Anisotropy(nnx.Module):
    """Shrinkage s = x^2 + 1 and selection e = sigmoid(x), each of a 3x3 convolution of f16.

    Args:
      cin: width of the stride-16 features.
      key_channels: width of the keys.
      neutral: start at s = 2 and e = 1/2 everywhere, where similarities are those of keys without
        shrinkage and selection and both still learn; not at random, as published.
      rngs: for the initial weights.
    """

    def __init__(self, cin: int, key_channels: int, *, neutral: bool = False, rngs: nnx.Rngs):
        start: dict[str, Any] = {"kernel_init": nnx.initializers.zeros} if neutral else {}
        self.shrinkage = Conv(cin, 1, 3, **start, rngs=rngs)
        self.selection = Conv(cin, key_channels, 3, **start, rngs=rngs)
        if neutral:
            self.shrinkage.bias = nnx.Param(jnp.ones(1))

    def __call__(
        self, key: Float[Array, "n h w ck"], f16: Float[Array, "n h w c"]
    ) -> AnisotropicKey:
        """The keys of `n` frames with shrinkage and selection."""
        return AnisotropicKey(
            key, self.shrinkage(f16) ** 2 + 1.0, jax.nn.sigmoid(self.selection(f16))
        )


class SensoryUpdate(nnx.Module):
    """Gated update of the sensory memory h by an input x.

        (f, u, n) = conv3x3([x, h]);  h' = sigmoid(f) h (1 - sigmoid(u)) + sigmoid(u) tanh(n)

    Both gates act on the old state, as in the public code.

    Args:
      cin: width of the input.
      hidden: width of the sensory memory.
      rngs: for the initial weights (Xavier-normal).
    """

    def __init__(self, cin: int, hidden: int, *, rngs: nnx.Rngs):
        init = nnx.initializers.glorot_normal()
        self.transform = Conv(cin + hidden, 3 * hidden, 3, kernel_init=init, rngs=rngs)

    def __call__(
        self, x: Float[Array, "n h w c"], hidden: Float[Array, "n h w d"]
    ) -> Float[Array, "n h w d"]:
        """The new sensory memory, of the type of the old one."""
        gates = self.transform(jnp.concatenate([x, hidden.astype(x.dtype)], axis=-1))
        return gated(gates, hidden).astype(hidden.dtype)


def gated(gates: Float[Array, "... e"], hidden: Float[Array, "... d"]) -> Float[Array, "... d"]:
    """The equation of `SensoryUpdate` from [forget, update, new], before their nonlinearities."""
    forget, update, new = jnp.split(gates, 3, axis=-1)
    forget, update = jax.nn.sigmoid(forget), jax.nn.sigmoid(update)
    return forget * hidden * (1.0 - update) + update * jnp.tanh(new)


class Fusion(nnx.Module):
    """block2(y + CBAM(y)), y = block1([shared, own])."""

    def __init__(self, cin: int, cout: int, *, rngs: nnx.Rngs):
        self.block1 = ResBlock(cin, cout, rngs=rngs)
        self.attention = CBAM(cout, rngs=rngs)
        self.block2 = ResBlock(cout, cout, rngs=rngs)

    def __call__(
        self, shared: Float[Array, "n h w s"], own: Float[Array, "n o h w c"]
    ) -> Float[Array, "n o h w d"]:
        """Fuses what all objects share, computed once per image, with what each has."""
        y = self.block1.split(own, shared, leading=True)
        return self.block2(y + self.attention(y))


class XMemValueEncoder(ValueEncoder):
    """`ValueEncoder` whose fusion takes [key features, ResNet-18's], with a deep update.

    Args:
      key_features: width of the key encoder's stride-16 features.
      value_channels: width of the values.
      hidden: width of the sensory memory; 0: there is none, and no deep update.
      single_object: see `ValueEncoder`.
      rngs: for the initial weights.
    """

    def __init__(
        self,
        key_features: int,
        value_channels: int,
        hidden: int,
        *,
        single_object: bool = False,
        rngs: nnx.Rngs,
    ):
        super().__init__(
            key_features, value_channels, single_object=single_object, conv_bias=False, rngs=rngs
        )
        self.deep_update = SensoryUpdate(value_channels, hidden, rngs=rngs) if hidden else None

    def __call__(
        self,
        image: Float[Array, "n H W 3"],
        f16: Float[Array, "n h w c16"],
        mask: Float[Array, "n o H W"],
        others: Float[Array, "n o H W"],
    ) -> Float[Array, "n o h w cv"]:
        """Values of every object; see `ValueEncoder`."""
        y = self.block1.split(self.stage3(image, mask, others), f16, leading=True)
        return self.block2(y + self.attention(y))


class HiddenUpdate(nnx.Module):
    """The decoder's update of the sensory memory, from its features of three strides.

        x = conv1x1(g16) + conv1x1(mean2x2(g8)) + conv1x1(mean4x4([g4, logit4]))

    Args:
      widths: of the decoder's features of stride 16, 8 and 4.
      middle: width of x.
      hidden: width of the sensory memory.
      rngs: for the initial weights.
    """

    def __init__(self, widths: tuple[int, int, int], middle: int, hidden: int, *, rngs: nnx.Rngs):
        w16, w8, w4 = widths
        self.g16_conv = Conv(w16, middle, 1, rngs=rngs)
        self.g8_conv = Conv(w8, middle, 1, rngs=rngs)
        self.g4_conv = Conv(w4 + 1, middle, 1, rngs=rngs)
        self.gate = SensoryUpdate(middle, hidden, rngs=rngs)

    def __call__(
        self,
        g16: Float[Array, "n h w c"],
        g8: Float[Array, "n h8 w8 d"],
        g4: Float[Array, "n h4 w4 e"],
        logits: Float[Array, "n h4 w4 1"],
        hidden: Float[Array, "n h w f"],
    ) -> Float[Array, "n h w f"]:
        """The new sensory memory.

        Args:
          g16: decoder features of stride 16.
          g8: of stride 8.
          g4: of stride 4.
          logits: of stride 4, before they are enlarged.
          hidden: the old sensory memory.
        """
        fine = jnp.concatenate([g4, logits], axis=-1)
        x = self.g16_conv(g16) + self.g8_conv(_mean(g8, 2)) + self.g4_conv(_mean(fine, 4))
        return self.gate(x, hidden)


def _mean(x: Float[Array, "n h w c"], size: int) -> Float[Array, "n i j c"]:
    """Means of size x size windows."""
    n, h, w, c = x.shape
    return x.reshape(n, h // size, size, w // size, size, c).mean((2, 4))


class SensoryDecoder(Refinement):
    """Logits of every object, and what its sensory memory is updated from.

    Subclasses fuse a frame's features, the readout and the sensory memory (`fused`); from there on
    it is the decoder of the STCN family.

    Args:
      skips: see `Refinement`, with `widths`.
      hidden: width of the sensory memory; 0: there is none, and no hidden update.
      widths: see skips.
      rngs: for the initial weights.
    """

    def __init__(
        self, skips: tuple[int, int], hidden: int, widths: tuple[int, int, int], *, rngs: nnx.Rngs
    ):
        self.hidden_update = HiddenUpdate(widths, widths[1], hidden, rngs=rngs) if hidden else None
        super().__init__(skips, widths, rngs=rngs)

    def fused(self, readout: Array, hidden: Array, shared: Array) -> Array:
        """Features [n, o, h, w, c] of stride 16; see `features`."""
        raise NotImplementedError

    def features(
        self,
        readout: Float[Array, "n o h w c"],
        hidden: Float[Array, "n o h w d"],
        shared: Float[Array, "n h w s"],
        f8: Float[Array, "n h8 w8 c8"],
        f4: Float[Array, "n h4 w4 c4"],
    ) -> tuple[Array, Array, Array, Array]:
        """Features [n, o, ...] of stride 16, 8 and 4, and logits [n, o, h4, w4, 1] of stride 4.

        Args:
          readout: of every object.
          hidden: sensory memory of every object.
          shared: what a frame gives for all objects, of stride 16.
          f8: its features of stride 8.
          f4: of stride 4.
        """
        g16 = self.fused(readout, hidden.astype(readout.dtype), shared)
        return g16, *self.refined(g16, f8, f4)


class XMemDecoder(SensoryDecoder):
    """`SensoryDecoder` with XMem's fusion of the frame's features, readout and sensory memory.

    Args:
      features: widths of the key encoder's features of stride 16, 8 and 4.
      value_channels: width of the readout.
      hidden: see `SensoryDecoder`, with `widths`.
      widths: see hidden.
      rngs: for the initial weights.
    """

    def __init__(
        self,
        features: tuple[int, int, int],
        value_channels: int,
        hidden: int,
        widths: tuple[int, int, int] = (512, 256, 256),
        *,
        rngs: nnx.Rngs,
    ):
        self.fuser = Fusion(features[0] + value_channels + hidden, widths[0], rngs=rngs)
        super().__init__(features[1:], hidden, widths, rngs=rngs)

    def fused(self, readout: Array, hidden: Array, shared: Array) -> Array:
        """See `SensoryDecoder.fused`; shared are the stride-16 features."""
        return self.fuser(shared, jnp.concatenate([readout, hidden], axis=-1))


class XMemLiteValueEncoder(LiteValueEncoder):
    """`LiteValueEncoder` with a deep update.

    Args:
      channels: see `LiteValueEncoder`, with `value_channels`.
      value_channels: see channels.
      hidden: width of the sensory memory; 0: there is none, and no deep update.
      rngs: for the initial weights.
    """

    def __init__(
        self, channels: tuple[int, int, int], value_channels: int, hidden: int, *, rngs: nnx.Rngs
    ):
        super().__init__(channels, value_channels, rngs=rngs)
        self.deep_update = SensoryUpdate(value_channels, hidden, rngs=rngs) if hidden else None


class XMemLiteDecoder(SensoryDecoder):
    """The decoder of `rde-lite`, whose readout a 1x1 convolution of the sensory memory is added to.

    That convolution starts at zero, so that the weights of `rde-lite` do in it what they did there.

    Args:
      value_channels: width of the readout and of the frame's own value.
      skips: see `Refinement`.
      hidden: see `SensoryDecoder`, with `widths`.
      widths: see hidden.
      rngs: for the initial weights.
    """

    def __init__(
        self,
        value_channels: int,
        skips: tuple[int, int],
        hidden: int,
        widths: tuple[int, int, int],
        *,
        rngs: nnx.Rngs,
    ):
        zeros = nnx.initializers.zeros
        self.compress = ResBlock(2 * value_channels, widths[0], rngs=rngs)
        self.sensed = (
            Conv(hidden, value_channels, 1, bias=False, kernel_init=zeros, rngs=rngs)
            if hidden
            else None
        )
        super().__init__(skips, hidden, widths, rngs=rngs)

    def fused(self, readout: Array, hidden: Array, shared: Array) -> Array:
        """See `SensoryDecoder.fused`; shared are the frames' own values."""
        if self.sensed is not None:
            readout = readout + self.sensed(hidden)
        return self.compress.split(readout, shared)
