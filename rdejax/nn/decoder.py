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


class Refinement(nnx.Module):
    """From features of stride 16 to logits of stride 4, over the skips of stride 8 and 4.

    Args:
      skips: widths of the key encoder's features of stride 8 and 4.
      widths: widths at stride 16, 8 and 4.
      rngs: for the initial weights.
    """

    def __init__(self, skips: tuple[int, int], widths: tuple[int, int, int], *, rngs: nnx.Rngs):
        c8, c4 = skips
        w16, w8, w4 = widths
        self.up_16_8 = UpsampleBlock(c8, w16, w8, rngs=rngs)
        self.up_8_4 = UpsampleBlock(c4, w8, w4, rngs=rngs)
        self.pred = Conv(w4, 1, 3, rngs=rngs)

    def refined(self, g16: Array, f8: Array, f4: Array) -> tuple[Array, Array, Array]:
        """Features [n, o, ...] of stride 8 and 4, and logits [n, o, h4, w4, 1] of stride 4."""
        g8 = self.up_16_8(g16, f8)
        g4 = self.up_8_4(g8, f4)
        return g8, g4, self.pred(jax.nn.relu(g4))

    def logits(self, coarse: Float[Array, "n o h4 w4 1"]) -> Float[Array, "n o H W"]:
        """Logits of the frames' size from those of stride 4."""
        size = (4 * coarse.shape[-3], 4 * coarse.shape[-2])
        return jnp.squeeze(resize_bilinear(coarse, size), axis=-1)


class Decoder(Refinement):
    """Logits of every object from the decoder input at stride 16 and two skips.

    Args:
      cin: width of the decoder input, [readout, query value].
      skips: see `Refinement`, with `widths`.
      widths: see skips.
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
        self.compress = ResBlock(cin, widths[0], rngs=rngs)
        super().__init__(skips, widths, rngs=rngs)

    def __call__(
        self,
        x: Float[Array, "n o h w c"],
        f8: Float[Array, "n h8 w8 c8"],
        f4: Float[Array, "n h4 w4 c4"],
        shared: Float[Array, "n h w s"] | None = None,
        added: Float[Array, "m o h w d"] | None = None,
    ) -> Float[Array, "n o H W"]:
        """Logits at four times the size of `f4`.

        Args:
          x: decoder input of every object.
          f8: skip features of stride 8, the same for all objects.
          f4: skip features of stride 4.
          shared: trailing channels of the decoder input that all objects share (the query's own
            value), if `x` comes without them. The result is the same; their share of the work is
            done once per image.
          added: to the compressed decoder input; m is n, or 1 for the same in all frames.
        """
        x = self.compress(x) if shared is None else self.compress.split(x, shared)
        x = x if added is None else x + added
        return self.logits(self.refined(x, f8, f4)[2])
