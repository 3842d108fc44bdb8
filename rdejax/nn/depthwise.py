"""Depthwise convolution that is fast on CPUs and accelerators alike."""

from functools import partial

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float


def _output_size(size: int, stride: int) -> int:
    return (size - 1) // stride + 1


def _same_padding(size: int, kernel: int, stride: int) -> tuple[int, int]:
    """TensorFlow's "SAME" padding, which EfficientNet's weights were trained with."""
    total = max((_output_size(size, stride) - 1) * stride + kernel - size, 0)
    return total // 2, total - total // 2


def _taps(padded: Array, kernel: int, stride: int, height: int, width: int) -> list[Array]:
    n, _, _, c = padded.shape
    h_end, w_end = (height - 1) * stride + 1, (width - 1) * stride + 1
    return [
        lax.slice(padded, (0, i, j, 0), (n, i + h_end, j + w_end, c), (1, stride, stride, 1))
        for i in range(kernel)
        for j in range(kernel)
    ]


def _weighted_taps(padded: Array, weight: Array, stride: int, height: int, width: int) -> Array:
    kernel = weight.shape[0]
    taps = _taps(padded, kernel, stride, height, width)
    flat = weight.reshape(kernel * kernel, -1)
    return sum(
        (tap * flat[i][None, None, None] for i, tap in enumerate(taps)),
        start=jnp.zeros((), padded.dtype),
    )


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def depthwise_shifted(
    x: Float[Array, "n h w c"], weight: Float[Array, "k k 1 c"], stride: int = 1
) -> Float[Array, "n i j c"]:
    """Depthwise "SAME" convolution as a sum of k*k shifted products.

    XLA's CPU backend runs grouped convolutions 10 to 40 times slower than this sum, which it fuses
    into one pass over memory. The gradient with respect to `x` is the same sum with the kernel
    reversed; autodiff's own transpose (k*k pads and additions) is many times slower.
    """
    k = weight.shape[0]
    _, h, w, _ = x.shape
    pads = _same_padding(h, k, stride), _same_padding(w, k, stride)
    padded = jnp.pad(x, ((0, 0), *pads, (0, 0)))
    return _weighted_taps(padded, weight, stride, _output_size(h, stride), _output_size(w, stride))


def _forward(x, weight, stride):
    return depthwise_shifted(x, weight, stride), (x, weight)


def _backward(stride, residuals, grad):
    x, weight = residuals
    k = weight.shape[0]
    _, h, w, _ = x.shape
    _, gh, gw, _ = grad.shape
    pads = _same_padding(h, k, stride), _same_padding(w, k, stride)
    low = [k - 1 - pad[0] for pad in pads]
    high = [
        size + k - 1 - lo - ((g - 1) * stride + 1)
        for size, lo, g in zip((h, w), low, (gh, gw), strict=True)
    ]
    dilated = lax.pad(
        grad,
        jnp.zeros((), grad.dtype),
        ((0, 0, 0), (low[0], high[0], stride - 1), (low[1], high[1], stride - 1), (0, 0, 0)),
    )
    grad_x = _weighted_taps(dilated, weight[::-1, ::-1], 1, h, w)
    padded = jnp.pad(x, ((0, 0), *pads, (0, 0)))
    products = [(tap * grad).sum((0, 1, 2)) for tap in _taps(padded, k, stride, gh, gw)]
    return grad_x, jnp.stack(products).reshape(weight.shape)


depthwise_shifted.defvjp(_forward, _backward)


def depthwise_grouped(
    x: Float[Array, "n h w c"], weight: Float[Array, "k k 1 c"], stride: int = 1
) -> Float[Array, "n i j c"]:
    """The same function as `depthwise_shifted`, as the grouped convolution accelerators like."""
    return lax.conv_general_dilated(
        x,
        weight,
        (stride, stride),
        "SAME",
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=x.shape[-1],
    )


def depthwise(
    x: Float[Array, "n h w c"], weight: Float[Array, "k k 1 c"], stride: int = 1
) -> Float[Array, "n i j c"]:
    """Depthwise convolution with "SAME" padding, in the form that suits the default backend.

    Args:
      x: input, [n, h, w, c].
      weight: one kernel a channel, [k, k, 1, c].
      stride: step in both directions.

    Returns:
      [n, ceil(h / stride), ceil(w / stride), c].
    """
    on_cpu = jax.default_backend() == "cpu"
    return (depthwise_shifted if on_cpu else depthwise_grouped)(x, weight, stride)
