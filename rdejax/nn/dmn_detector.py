"""A small class-agnostic detector: anchor-free boxes and a mask in each.

This project's own, in place of the published method's detector (an outside one can take its place):
per position of strides 8 and 16 an objectness and the distances to the sides of a box, non-maximum
suppression with static shapes, and for the boxes that are left a mask of 28 x 28 through RoI-align.
"""

import flax.struct
import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax
from jaxtyping import Array, Bool, Float

from rdejax.nn.dmn_boxes import crop, suppress
from rdejax.nn.layers import Conv

STRIDES = (8, 16)
MASK_GRID = 14
CANDIDATES = 200
OVERLAP = 0.5
_RARE = -4.6  # logit of 0.01: at first hardly any position is an object's centre


@flax.struct.dataclass
class Dense:
    """What the head says of every position; those of stride 8 first, row by row.

    Attributes:
      objectness: [n, a] logits.
      boxes: [n, a, 4] in pixels.
    """

    objectness: Float[Array, "n a"]
    boxes: Float[Array, "n a 4"]


class DenseHead(nnx.Module):
    """Boxes at every position and masks in chosen ones, shared by both strides.

    Args:
      channels: of the pyramid.
      mask_convs: 3x3 convolutions of the mask branch.
      rngs: for the initial weights.
    """

    def __init__(self, channels: int, mask_convs: int = 4, *, rngs: nnx.Rngs):
        he = nnx.initializers.he_normal()
        self.tower = Conv(channels, channels, 3, kernel_init=he, rngs=rngs)
        self.out = Conv(channels, 5, 3, rngs=rngs)
        self.out.bias = nnx.Param(jnp.ones(5).at[0].set(_RARE))
        self.mask_convs = nnx.List(
            [Conv(channels, channels, 3, kernel_init=he, rngs=rngs) for _ in range(mask_convs)]
        )
        # A transposed convolution of 2 x 2 at step 2: every position becomes four.
        self.enlarge = nnx.Linear(channels, 4 * channels, kernel_init=he, rngs=rngs)
        self.mask = nnx.Linear(channels, 1, rngs=rngs)

    def dense(self, f8: Float[Array, "n i j c"], f16: Float[Array, "n h w c"]) -> Dense:
        """Objectness and box of every position."""
        parts = [self._level(f, s) for f, s in zip((f8, f16), STRIDES, strict=True)]
        objectness, boxes = (jnp.concatenate(x, axis=1) for x in zip(*parts, strict=True))
        return Dense(objectness, boxes)

    def _level(self, f: Array, stride: int) -> tuple[Array, Array]:
        out = self.out(jax.nn.relu(self.tower(f))).astype(jnp.float32)
        n, h, w, _ = out.shape
        out = out.reshape(n, h * w, 5)
        centre = centres(h, w, stride)
        sides = stride * jnp.exp(jnp.clip(out[..., 1:], -4.0, 5.0))
        low, high = centre[None] - sides[..., :2], centre[None] + sides[..., 2:]
        size = jnp.asarray([w * stride, h * stride], jnp.float32).reshape(1, 1, 2)
        return out[..., 0], jnp.concatenate(
            [jnp.clip(low, 0.0, size), jnp.clip(high, 0.0, size)], -1
        )

    def masks(self, f8: Float[Array, "h w c"], boxes: Float[Array, "p 4"]) -> Float[Array, "p m m"]:
        """Logits of the mask in each box of one frame, 28 x 28."""
        x = crop(f8, boxes, STRIDES[0], MASK_GRID)
        for conv in self.mask_convs:
            x = jax.nn.relu(conv(x))
        x = jax.nn.relu(self.enlarge(x))
        p, s, _, c = x.shape
        x = x.reshape(p, s, s, 2, 2, c // 4).transpose(0, 1, 3, 2, 4, 5)
        return self.mask(x.reshape(p, 2 * s, 2 * s, c // 4))[..., 0].astype(jnp.float32)


def centres(h: int, w: int, stride: int) -> Float[Array, "a 2"]:
    """Pixel (x, y) of every position of a level, row by row."""
    y, x = ((jnp.arange(k, dtype=jnp.float32) + 0.5) * stride for k in (h, w))
    grid = jnp.stack(jnp.meshgrid(x, y), axis=-1)
    return grid.reshape(h * w, 2)


def best_boxes(
    dense: Dense, count: int
) -> tuple[Float[Array, "n p 4"], Float[Array, "n p"], Bool[Array, "n p"]]:
    """Boxes, scores (0 to 1) and which of them there are, after non-maximum suppression.

    No gradient flows through them, as in Mask R-CNN.

    Args:
      dense: of n frames.
      count: boxes of each frame; fewer are there where all others overlap those.
    """
    most = min(CANDIDATES, dense.objectness.shape[1])

    def one(objectness: Array, boxes: Array) -> tuple[Array, Array, Array]:
        scores, index = lax.top_k(objectness, most)
        boxes = boxes[index]
        chosen, valid = suppress(boxes, scores, count, OVERLAP)
        return boxes[chosen], jnp.where(valid, jax.nn.sigmoid(scores[chosen]), 0.0), valid

    return jax.vmap(one)(*lax.stop_gradient((dense.objectness, dense.boxes)))
