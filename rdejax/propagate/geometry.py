"""Between a video's own frames and what the networks see: resize, normalise, pad, and back."""

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, UInt8

from rdejax.errors import RdejaxError


@dataclasses.dataclass(frozen=True)
class Geometry:
    """Sizes of one video; static, so each different one compiles once.

    Attributes:
      source: (height, width) of the video.
      inner: size after resizing, before padding.
      padding: zeros (top, bottom, left, right) that make the sides multiples of `Settings.pad`;
        split evenly, an odd pixel goes to the bottom or right.
    """

    source: tuple[int, int]
    inner: tuple[int, int]
    padding: tuple[int, int, int, int]

    @staticmethod
    def of(source: tuple[int, int], size: int | None, pad: int = 16) -> "Geometry":
        """Geometry of a video.

        Args:
          source: (height, width) of its frames.
          size: shorter side after resizing; smaller videos keep their size, None keeps all.
          pad: sides become multiples of this.

        Raises:
          RdejaxError: frames without pixels.
        """
        height, width = source
        if height < 1 or width < 1:
            raise RdejaxError(f"frames of {width}x{height} pixels hold nothing to segment")
        inner = source
        if size is not None and min(source) > size:
            scale = size / min(source)
            inner = (max(1, round(height * scale)), max(1, round(width * scale)))
        vertical, horizontal = (-inner[0] % pad, -inner[1] % pad)
        return Geometry(
            source,
            inner,
            (
                vertical // 2,
                vertical - vertical // 2,
                horizontal // 2,
                horizontal - horizontal // 2,
            ),
        )

    def prepare(
        self,
        frames: UInt8[Array, "n h w 3"],
        mean: tuple[float, ...],
        std: tuple[float, ...],
        pad_value: float | None = None,
    ) -> Float[Array, "n H W 3"]:
        """Resized, normalised, padded frames.

        Args:
          frames: the frames.
          mean: of RGB in [0, 1].
          std: of the same.
          pad_value: what the border is before normalisation, in [0, 1]; None: zero after it.
        """
        x = frames.astype(jnp.float32) / 255.0
        if self.inner != self.source:
            shape = (x.shape[0], *self.inner, 3)
            x = jax.image.resize(x, shape, "bilinear", antialias=True)
        top, bottom, left, right = self.padding
        border = ((0, 0), (top, bottom), (left, right), (0, 0))
        if pad_value is not None:
            x = jnp.pad(x, border, constant_values=pad_value)
        x = (x - jnp.asarray(mean)) / jnp.asarray(std)
        return x if pad_value is not None else jnp.pad(x, border)

    def prepare_masks(self, masks: Float[Array, "o h w"]) -> Float[Array, "o H W"]:
        """Resized, zero-padded masks; soft at the edges where they were reduced."""
        if self.inner != self.source:
            shape = (masks.shape[0], *self.inner)
            masks = jax.image.resize(masks, shape, "bilinear", antialias=True)
        top, bottom, left, right = self.padding
        return jnp.pad(masks, ((0, 0), (top, bottom), (left, right)))

    def clear_border(self, probs: Float[Array, "c H W"]) -> Float[Array, "c H W"]:
        """The same probabilities, but nothing but background (index 0) in the padding."""
        top, bottom, left, right = self.padding
        inside = jnp.pad(jnp.ones(self.inner, bool), ((top, bottom), (left, right)))
        return jnp.where(inside, probs, jnp.zeros_like(probs).at[0].set(1.0))

    def restore(self, probs: Float[Array, "n c H W"]) -> Float[Array, "n c h w"]:
        """Probabilities without padding, at the video's own size (bilinear)."""
        top, _, left, _ = self.padding
        height, width = self.inner
        probs = probs[:, :, top : top + height, left : left + width]
        if self.inner == self.source:
            return probs
        shape = (*probs.shape[:2], *self.source)
        return jax.image.resize(probs, shape, "bilinear", antialias=False)
