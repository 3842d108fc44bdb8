"""3x3 convolutions with half of the multiplications: Winograd's F(4, 3) along the rows.

Four neighbours of a row, and a row of the kernel, become six products in place of twelve (Lavin and
Gray, *Fast Algorithms for Convolutional Neural Networks*, CVPR 2016, whose points 0, 1, -1, 2, -2
these are). Down the columns it stays a sum of three, so that the transformed features are half as
many again and not four times as many: on CPUs the two-dimensional form loses to memory what it
saves in products. Results differ from the plain sum by a few units in the sixth digit of the
largest.
"""

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

# Outputs of a tile, and products for them.
_TILE, _PRODUCTS = 4, 6
# A row of the kernel in the transformed domain.
_KERNEL = np.array(
    [
        [1 / 4, 0, 0],
        [-1 / 6, -1 / 6, -1 / 6],
        [-1 / 6, 1 / 6, -1 / 6],
        [1 / 24, 1 / 12, 1 / 6],
        [1 / 24, -1 / 12, 1 / 6],
        [0, 0, 1],
    ],
    np.float32,
)


def transformed(kernel: Float[np.ndarray, "3 3 c d"]) -> Float[np.ndarray, "6 3 c d"]:
    """The kernel as `convolve` takes it: twice the size."""
    return np.tensordot(_KERNEL, kernel, axes=(1, 1))


def restored(weights: Float[Array, "6 3 c d"]) -> Float[Array, "3 3 c d"]:
    """The kernel that was transformed, but for rounding."""
    first, last = 4 * weights[0], weights[5]
    return jnp.stack([first, 3 * (weights[2] - weights[1]), last], axis=1)


def convolve(
    x: Float[Array, "n h w c"], weights: Float[Array, "6 3 c d"]
) -> Float[Array, "n h w d"]:
    """3x3 convolution of stride 1, zero padding 1.

    Args:
      x: input.
      weights: see `transformed`.
    """
    n, h, w, c = x.shape
    tiles = -(-w // _TILE)
    padding = ((0, 0), (0, 0), (1, (tiles + 1) * _TILE - w - 1), (0, 0))
    padded = jnp.pad(x, padding).reshape(n, h, tiles + 1, _TILE, c)
    # Neighbours 4 and 5 of a tile are the first two of the next one.
    d = [padded[:, :, i // _TILE : i // _TILE + tiles, i % _TILE] for i in range(_PRODUCTS)]
    even, odd = d[4] - 4 * d[2], d[3] - 4 * d[1]
    wide, narrow = 2 * (d[3] - d[1]), d[4] - d[2]
    features = (
        4 * d[0] - 5 * d[2] + d[4],
        even + odd,
        even - odd,
        narrow + wide,
        narrow - wide,
        4 * d[1] - 5 * d[3] + d[5],
    )
    m = [_columns(feature, weights[p]) for p, feature in enumerate(features)]
    near, near_odd, far, far_odd = m[1] + m[2], m[1] - m[2], m[3] + m[4], m[3] - m[4]
    outputs = (
        m[0] + near + far,
        near_odd + 2 * far_odd,
        near + 4 * far,
        near_odd + 8 * far_odd + m[5],
    )
    return jnp.stack(outputs, axis=3).reshape(n, h, tiles * _TILE, -1)[:, :, :w]


def _columns(x: Array, kernel: Float[Array, "3 c d"]) -> Array:
    """The sum down the columns."""
    return lax.conv_general_dilated(
        x,
        kernel[:, None],
        (1, 1),
        ((1, 1), (0, 0)),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )
