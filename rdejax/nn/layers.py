"""The layers all networks are made of: convolution, frozen batch norm, residual block, resizing."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import lax
from jaxtyping import Array, Float

from rdejax.nn import winograd

# The usual start of convolutions trained from scratch: uniform, variance 1 / (3 fan_in).
_DEFAULT_INIT = nnx.initializers.variance_scaling(1 / 3, "fan_in", "uniform")


# Convolutions that pay by Winograd: their window, of stride 1 and padding 1; the fewest channels;
# the largest product of channels, beyond which the kernel, twice as large, takes too long to read.
_PLAIN = ((1, 1), ((1, 1), (1, 1)), None, (1, 1))
_WINOGRAD_CHANNELS = 32
_WINOGRAD_KERNEL = 512 * 256


class Frozen(nnx.Variable):
    """A weight that training never changes: not an `nnx.Param`, so it gets no gradient."""


class _Splitting:
    """Convolutions whose input is partly the same for all objects of an image."""

    bias: Any

    def __call__(self, x: Array) -> Array:
        """The convolution of [..., h, w, c]."""
        raise NotImplementedError

    @property
    def _weights(self) -> Array:
        """What `_plain` takes; input channels on axis 2."""
        raise NotImplementedError

    def _plain(self, x: Array, weights: Array) -> Array:
        """The convolution without the bias."""
        raise NotImplementedError

    def split(
        self,
        x: Float[Array, "n o h w c"],
        shared: Float[Array, "n h w d"],
        *,
        leading: bool = False,
    ) -> Float[Array, "n o i j e"]:
        """The convolution of `x` with `shared` appended to the channels of every object.

        Convolution is linear in its input, so the part of `shared` is computed once per image:
        conv(concat(x, s)) = conv_x(x) + conv_s(s). Two dimensions only.

        Args:
          x: what objects have of their own.
          shared: what they have in common.
          leading: the channels of `shared` stand before those of `x`, not behind them.
        """
        if x.shape[1] == 1:  # nothing to share
            both = (shared[:, None], x) if leading else (x, shared[:, None])
            return self(jnp.concatenate(both, axis=-1))
        count = (shared if leading else x).shape[-1]
        first, second = jnp.split(self._weights, [count], axis=2)
        own = self._plain(x, second if leading else first)
        return own + self._with_bias(self._plain(shared, first if leading else second))[:, None]

    def _with_bias(self, x: Array) -> Array:
        if self.bias is None:
            return x
        return x + jnp.broadcast_to(self.bias[...].astype(x.dtype), x.shape)


class Conv(nnx.Conv, _Splitting):
    """Convolution with symmetric zero padding.

    `kernel` is [*kernel, cin, cout]: HWIO in two dimensions, THWIO in three; `bias` is [cout].

    Args:
      cin: input channels.
      cout: output channels.
      kernel: size, one integer for a square of two dimensions.
      stride: step, the same in every dimension.
      padding: zeros added on either side, per dimension or for all; by default the size stays the
        same at stride 1 (for odd kernels).
      dilation: distance of kernel taps, the same in every dimension.
      bias: whether there is a bias.
      kernel_init: initial kernel.
      rngs: for the initial weights.
    """

    def __init__(
        self,
        cin: int,
        cout: int,
        kernel: int | Sequence[int],
        *,
        stride: int = 1,
        padding: int | Sequence[int] | None = None,
        dilation: int = 1,
        bias: bool = True,
        kernel_init: Any = _DEFAULT_INIT,
        rngs: nnx.Rngs,
    ):
        size = (kernel, kernel) if isinstance(kernel, int) else tuple(kernel)
        if padding is None:
            padding = tuple(k // 2 * dilation for k in size)
        elif isinstance(padding, int):
            padding = (padding,) * len(size)
        steps, pads = (stride,) * len(size), tuple((p, p) for p in padding)
        dilations = (dilation,) * len(size)
        # The arguments of `lax.conv_general_dilated`, for `split`.
        self._window = (steps, pads, None, dilations)
        super().__init__(
            cin,
            cout,
            size,
            strides=steps,
            padding=pads,
            kernel_dilation=dilations,
            use_bias=bias,
            kernel_init=kernel_init,
            rngs=rngs,
        )

    def __call__(self, x: Float[Array, "..."]) -> Float[Array, "..."]:
        """The convolution of [..., h, w, cin], or in three dimensions of [..., t, h, w, cin]."""
        if self.kernel.ndim != 4:
            return super().__call__(x)
        return self._with_bias(self._plain(x, self._weights))

    @property
    def _weights(self) -> Array:
        return self.kernel[...]

    def _plain(self, x: Array, weights: Array) -> Array:
        flat, weights = self.promote_dtype(
            (x.reshape(-1, *x.shape[-3:]), weights), dtype=self.dtype
        )
        on_cpu = jax.default_backend() == "cpu"
        if on_cpu and weights.shape[:2] == (1, 1) and self._window[1] == ((0, 0), (0, 0)):
            # A product, bit for bit; as a convolution its gradient takes ten times as long.
            steps = self._window[0]
            out = flat[:, :: steps[0], :: steps[1]] @ weights[0, 0]
            return out.reshape(*x.shape[:-3], *out.shape[1:])
        out = lax.conv_general_dilated(
            flat, weights, *self._window, ("NHWC", "HWIO", "NHWC"), precision=self.precision
        )
        return out.reshape(*x.shape[:-3], *out.shape[1:])

    def prepared(self) -> "Conv | WinogradConv":
        """The same convolution for inference, in the form that suits the default backend."""
        *size, cin, cout = self.kernel.shape
        fits = size == [3, 3] and self._window == _PLAIN and cin * cout <= _WINOGRAD_KERNEL
        pays = fits and min(cin, cout) >= _WINOGRAD_CHANNELS
        return WinogradConv(self) if pays and jax.default_backend() == "cpu" else self


class WinogradConv(nnx.Module, _Splitting):
    """A 3x3 `Conv` of stride 1 whose kernel is transformed beforehand, see `winograd`.

    Takes and gives what that does; for inference, where kernels do not change.
    """

    def __init__(self, conv: Conv):
        self.weights = nnx.Param(jax.device_put(winograd.transformed(np.asarray(conv.kernel[...]))))
        self.bias = conv.bias

    @property
    def kernel(self) -> Float[Array, "3 3 c d"]:
        """That of the plain convolution."""
        return winograd.restored(self.weights[...])

    def __call__(self, x: Float[Array, "*n h w c"]) -> Float[Array, "*n h w d"]:
        """The convolution."""
        return self._with_bias(self._plain(x, self._weights))

    @property
    def _weights(self) -> Array:
        return self.weights[...]

    def _plain(self, x: Array, weights: Array) -> Array:
        flat = x.reshape(-1, *x.shape[-3:])
        out = winograd.convolve(flat, weights.astype(x.dtype))
        return out.reshape(*x.shape[:-1], out.shape[-1])


class FrozenBatchNorm(nnx.Module):
    """Batch norm with fixed statistics: y = (x - mean) / sqrt(var + eps) * scale + bias.

    Its four vectors [c] are `Frozen`. The published systems never update the statistics, in
    training either.
    """

    def __init__(self, channels: int, *, eps: float = 1e-5):
        self.eps = eps
        self.scale = Frozen(jnp.ones(channels))
        self.bias = Frozen(jnp.zeros(channels))
        self.mean = Frozen(jnp.zeros(channels))
        self.var = Frozen(jnp.ones(channels))

    def __call__(self, x: Float[Array, "... c"]) -> Float[Array, "... c"]:
        """Normalises the last axis; the result has the type of `x`."""
        var = self.var[...].astype(jnp.float32)
        scale = self.scale[...] * lax.rsqrt(var + self.eps)
        shift = self.bias[...] - self.mean[...] * scale
        scale, shift = (jnp.broadcast_to(v.astype(x.dtype), x.shape) for v in (scale, shift))
        return x * scale + shift

    def factors(self) -> tuple[Float[np.ndarray, " c"], Float[np.ndarray, " c"]]:
        """Factor and term of each channel."""
        scale, bias, mean, var = (
            np.asarray(x[...], np.float32) for x in (self.scale, self.bias, self.mean, self.var)
        )
        scale = scale / np.sqrt(var + np.float32(self.eps))
        return scale, bias - mean * scale


class ResBlock(nnx.Module):
    """Pre-activation residual block: downsample(x) + conv2(relu(conv1(relu(x)))).

    `downsample` is a 3x3 convolution where the widths differ, else the identity.
    """

    def __init__(self, cin: int, cout: int, *, rngs: nnx.Rngs):
        self.downsample = None if cin == cout else Conv(cin, cout, 3, rngs=rngs)
        self.conv1 = Conv(cin, cout, 3, rngs=rngs)
        self.conv2 = Conv(cout, cout, 3, rngs=rngs)

    def __call__(self, x: Float[Array, "... h w c"]) -> Float[Array, "... h w d"]:
        """Applies the block."""
        r = self.conv2(jax.nn.relu(self.conv1(jax.nn.relu(x))))
        return (x if self.downsample is None else self.downsample(x)) + r

    def split(
        self,
        x: Float[Array, "n o h w c"],
        shared: Float[Array, "n h w s"],
        *,
        leading: bool = False,
    ) -> Float[Array, "n o h w d"]:
        """The block on `x` with `shared` appended to every object's channels, see `Conv.split`."""
        r = self.conv1.split(jax.nn.relu(x), jax.nn.relu(shared), leading=leading)
        r = self.conv2(jax.nn.relu(r))
        if self.downsample is None:
            each = jnp.broadcast_to(shared[:, None], (*x.shape[:-1], shared.shape[-1]))
            skip = jnp.concatenate([each, x] if leading else [x, each], axis=-1)
        else:
            skip = self.downsample.split(x, shared, leading=leading)
        return skip + r


def max_pool3x3s2(x: Float[Array, "n h w c"]) -> Float[Array, "n i j c"]:
    """Largest value of 3x3 windows, stride 2, padding 1."""
    return lax.reduce_window(
        x,
        # NumPy's, not JAX's: only for a constant does JAX see that this is a maximum, and has its
        # gradient.
        np.array(-np.inf, x.dtype),
        lax.max,
        (1, 3, 3, 1),
        (1, 2, 2, 1),
        ((0, 0), (1, 1), (1, 1), (0, 0)),
    )


def resize_bilinear(
    x: Float[Array, "... h w c"], size: tuple[int, int]
) -> Float[Array, "... i j c"]:
    """Bilinear resize to `size` with half-pixel centres and no antialiasing.

    Whole-number enlargement is written as shifted sums, which is far faster on CPUs.
    """
    height, width = x.shape[-3:-1]
    if size[0] % height == 0 and size[1] % width == 0:
        x = _enlarge(x, size[0] // height, x.ndim - 3)
        return _enlarge(x, size[1] // width, x.ndim - 2)
    shape = (*x.shape[:-3], *size, x.shape[-1])
    return jax.image.resize(x, shape, "bilinear", antialias=False)


def _enlarge(x: Array, factor: int, axis: int) -> Array:
    if factor == 1:
        return x
    size = x.shape[axis]
    first, last = lax.slice_in_dim(x, 0, 1, axis=axis), lax.slice_in_dim(x, -1, None, axis=axis)
    before = jnp.concatenate([first, lax.slice_in_dim(x, 0, size - 1, axis=axis)], axis)
    after = jnp.concatenate([lax.slice_in_dim(x, 1, size, axis=axis), last], axis)
    phases = []
    for phase in range(factor):
        # Output factor * i + phase has its centre at i + offset in the input; the border repeats.
        offset = (phase + 0.5) / factor - 0.5
        other = before if offset < 0 else after
        phases.append(x * (1 - abs(offset)) + other * abs(offset))
    shape = (*x.shape[:axis], factor * size, *x.shape[axis + 1 :])
    return jnp.stack(phases, axis + 1).reshape(shape)
