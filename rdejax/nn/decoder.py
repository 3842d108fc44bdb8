"""Decoder of the STCN family: readout and skip features to one logit per pixel."""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from rdejax.nn.layers import Conv, ResBlock, resize_bilinear


class UpsampleBlock(nnx.Module):
    """out_conv(skip_conv(f) + enlarged x): one step to a finer stride."""

    def __init__(self, skip: int, cin: int, cout: int, *, rngs: nnx.Rngs):
        self.skip_conv = Conv(skip, cin, 3, rngs=rngs)
        self.out_conv = ResBlock(cin, cout, rngs=rngs)

    def __call__(
        self, x: Float[Array, "n o h w c"], skip: Float[Array, "n i j s"]
    ) -> Float[Array, "n o i j d"]:
        """Adds the skip, computed once per image, to every object's enlarged `x`."""
        x = resize_bilinear(x, (skip.shape[1], skip.shape[2]))
        return self.out_conv(x + self.skip_conv(skip)[:, None])


class Decoder(nnx.Module):
    """Logits of every object from the decoder input at stride 16 and two skips.

    Args:
      cin: width of the decoder input, [readout, query value].
      skips: widths of the key encoder's features of stride 8 and 4.
      widths: widths at stride 16, 8 and 4.
      rngs: for the initial weights.
    """

    def __init__(
        self,
        cin: int,
        skips: tuple[int, int],
        widths: tuple[int, int, int] = (512, 256, 256),
        *,
        rngs: nnx.Rngs,
    ):
        c8, c4 = skips
        w16, w8, w4 = widths
        self.compress = ResBlock(cin, w16, rngs=rngs)
        self.up_16_8 = UpsampleBlock(c8, w16, w8, rngs=rngs)
        self.up_8_4 = UpsampleBlock(c4, w8, w4, rngs=rngs)
        self.pred = Conv(w4, 1, 3, rngs=rngs)

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
          shared: trailing channels of the decoder input that all objects share (the query's own
            value), if `x` comes without them. The result is the same; their share of the work is
            done once per image.
        """
        x = self.compress(x) if shared is None else self.compress.split(x, shared)
        logits = self.coarse(x, f8, f4)
        size = (4 * logits.shape[-3], 4 * logits.shape[-2])
        return jnp.squeeze(resize_bilinear(logits, size), axis=-1)

    def coarse(self, x: Array, f8: Array, f4: Array) -> Float[Array, "n o h4 w4 1"]:
        """Logits at the size of `f4`, from the compressed decoder input."""
        x = self.up_8_4(self.up_16_8(x, f8), f4)
        return self.pred(jax.nn.relu(x))
