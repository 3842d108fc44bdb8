"""Between a video's own frames and what the networks see: resize, normalise, pad, and back."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Shaped

from rdejax.errors import RdejaxError
from rdejax.models.settings import Settings

# Shorter side, in pixels, that frames are resized to for systems without a size of their own.
DEFAULT_SIZE = 480
# Side, in positions of the stride-16 grid, of a square like the smallest object: smaller ones make
# the frames larger (`Settings.zoom`).
_SIDE = 9.0
# Zooms are multiples of 1 / this, for each size that frames are worked at is a compilation.
_ZOOMS = 6


@dataclasses.dataclass(frozen=True)
class Geometry:
    """Sizes of one video; static, so each different one compiles once.

    Attributes:
      source: (height, width) of the video.
      inner: size after resizing, before padding.
      padding: zeros (top, bottom, left, right) that make the sides multiples of `Settings.pad`;
        split evenly, an odd pixel goes to the bottom or right.
      zoom: how many times larger than usual the frames are worked at (see `zoom_for`).
    """

    source: tuple[int, int]
    inner: tuple[int, int]
    padding: tuple[int, int, int, int]
    # Not compared: what is compiled depends on the sizes.
    zoom: float = dataclasses.field(default=1.0, compare=False)

    @staticmethod
    def of(
        source: tuple[int, int],
        size: int | None,
        pad: int = 16,
        enlarge: float = 1.0,
        zoom: float = 1.0,
    ) -> "Geometry":
        """Geometry of a video.

        Args:
          source: (height, width) of its frames.
          size: shorter side after resizing; None keeps every video's size.
          pad: sides become multiples of this.
          enlarge: how many times larger a video smaller than `size` becomes, at most; 1: it keeps
            its size.
          zoom: how many times larger than `size` the shorter side is (see `zoom_for`).

        Raises:
          RdejaxError: frames without pixels.
        """
        height, width = source
        if height < 1 or width < 1:
            raise RdejaxError(f"frames of {width}x{height} pixels hold nothing to segment")
        inner = source
        scale = 1.0 if size is None else min(zoom * size / min(source), max(1.0, enlarge))
        if scale != 1:
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
            zoom,
        )

    @staticmethod
    def under(
        settings: Settings, source: tuple[int, int], size: int | None, zoom: float = 1.0
    ) -> "Geometry":
        """As `of`, with the model's settings for all but the size, which a caller may change."""
        return Geometry.of(source, size, settings.pad, settings.enlarge, zoom)

    @staticmethod
    def beginning(
        settings: Settings, source: tuple[int, int], size: int | None, smallest: float
    ) -> "Geometry":
        """As `under`, zoomed for a first mask whose smallest object has so many pixels."""
        zoom = Geometry.under(settings, source, size).zoom_for(smallest, settings.zoom)
        return Geometry.under(settings, source, size, zoom)

    def zoom_for(self, area: float, most: float) -> float:
        """How many times larger frames should be worked at, for objects as small as this.

        The grid of the networks has a position for 16 x 16 pixels. An object should cover as
        much as a square of 9 positions a side.

        Args:
          area: of the smallest object, in pixels of the source.
          most: the most that comes back, to the nearest step.

        Returns:
          1 or more, in steps of a sixth.
        """
        # `self` is without a zoom.
        side = max(area, 1.0) ** 0.5 * self.inner[0] / self.source[0] / 16
        return nearest_zoom(min(_SIDE / side, most))

    def prepare(
        self,
        frames: Shaped[Array | np.ndarray, "n h w 3"],
        mean: tuple[float, ...],
        std: tuple[float, ...],
    ) -> Float[Array, "n H W 3"]:
        """Resized, normalised frames, padded with zeros, which are the mean colour.

        Args:
          frames: RGB from 0 to 255, of any type.
          mean: of RGB in [0, 1].
          std: of the same.
        """
        x = frames.astype(jnp.float32) / 255.0
        if self.inner != self.source:
            shape = (x.shape[0], *self.inner, 3)
            x = jax.image.resize(x, shape, "bilinear", antialias=True)
        centre, spread = (jnp.reshape(jnp.asarray(v), (1, 1, 1, 3)) for v in (mean, std))
        x = (x - centre) / spread
        return jnp.pad(x, ((0, 0), *self._border, (0, 0)))

    def prepare_masks(self, masks: Float[Array, "o h w"]) -> Float[Array, "o H W"]:
        """Resized, zero-padded masks; soft at the edges where they were reduced."""
        if self.inner != self.source:
            shape = (masks.shape[0], *self.inner)
            masks = jax.image.resize(masks, shape, "bilinear", antialias=True)
        return jnp.pad(masks, ((0, 0), *self._border))

    def inside(self) -> Bool[Array, "H W"]:
        """Where a prepared frame's own pixels are, as opposed to padding."""
        return jnp.pad(jnp.ones(self.inner, bool), self._border)

    @property
    def _border(self) -> tuple[tuple[int, int], tuple[int, int]]:
        top, bottom, left, right = self.padding
        return (top, bottom), (left, right)

    def restore(self, probs: Float[Array, "n c H W"]) -> Float[Array, "n c h w"]:
        """Probabilities without padding, at the video's own size (bilinear)."""
        top, _, left, _ = self.padding
        height, width = self.inner
        probs = probs[:, :, top : top + height, left : left + width]
        if self.inner == self.source:
            return probs
        shape = (*probs.shape[:2], *self.source)
        return jax.image.resize(probs, shape, "bilinear", antialias=False)


def nearest_zoom(zoom: float) -> float:
    """The zoom that frames are worked at in place of this one."""
    return max(1.0, round(zoom * _ZOOMS) / _ZOOMS)
