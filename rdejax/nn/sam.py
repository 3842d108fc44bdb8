"""Spatio-temporal aggregation module: two embeddings become one (RDE-VOS, section 3.2)."""

import math

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from rdejax.nn.layers import Conv

_DILATIONS = (2, 4, 6)
_NORM_EPS = 1e-5


class NonLocal(nnx.Module):
    """Non-local block over all positions of both times, normalised by their number (equation 2).

        z = x + W(theta(x)^T phi(x) g(x) / N),   N the number of positions of phi and g

    `phi` and `g` are max-pooled 2x2 in space. There is no softmax, so phi^T g comes first: the
    cost grows with the number of positions, not with its square.
    """

    def __init__(self, channels: int, *, rngs: nnx.Rngs):
        inner = channels // 2
        self.theta = Conv(channels, inner, 1, rngs=rngs)
        self.phi = Conv(channels, inner, 1, rngs=rngs)
        self.g = Conv(channels, inner, 1, rngs=rngs)
        # A zero output makes the block the identity at first (Wang et al., 2018, section 4.1).
        self.out = Conv(inner, channels, 1, kernel_init=nnx.initializers.zeros, rngs=rngs)

    def __call__(self, x: Float[Array, "n t h w c"]) -> Float[Array, "n t h w c"]:
        """Applies the block."""
        phi, g = _max_pool2(self.phi(x)), _max_pool2(self.g(x))
        positions = math.prod(g.shape[1:4])
        mixed = jnp.einsum("nthwc,nthwd->ncd", phi, g) / positions
        return x + self.out(jnp.einsum("nthwc,ncd->nthwd", self.theta(x), mixed))


class SEBlock(nnx.Module):
    """Residual block with squeeze-and-excitation over channels and times (the `repeat` ablation).

    relu(x + norm(se(norm(conv2(relu(norm(conv1(x))))))), norms over time and space, no affine part.
    """

    def __init__(self, channels: int, *, times: int = 2, reduction: int = 8, rngs: nnx.Rngs):
        wide = times * channels
        self.conv1 = Conv(channels, channels, 3, rngs=rngs)
        self.conv2 = Conv(channels, channels, 3, rngs=rngs)
        self.squeeze = nnx.Linear(wide, max(1, wide // reduction), use_bias=False, rngs=rngs)
        self.excite = nnx.Linear(max(1, wide // reduction), wide, use_bias=False, rngs=rngs)

    def __call__(self, x: Float[Array, "n t h w c"]) -> Float[Array, "n t h w c"]:
        """Applies the block."""
        y = jax.nn.relu(_instance_norm(self.conv1(x)))
        y = _instance_norm(self.conv2(y))
        n, t, _, _, c = y.shape
        # The linear layers count channel by channel, the times of one channel side by side.
        means = jnp.swapaxes(y.mean((2, 3)), 1, 2).reshape(n, c * t)
        gate = jax.nn.sigmoid(self.excite(jax.nn.relu(self.squeeze(means))))
        gate = jnp.swapaxes(gate.reshape(n, c, t), 1, 2)[:, :, None, None, :]
        return jax.nn.relu(x + _instance_norm(y * gate))


class ASPP(nnx.Module):
    """Atrous spatial pyramid pooling: a 1x1 and three dilated 3x3 branches, joined by a 3x3.

    Each branch has a quarter of the channels; no biases; ReLU after every convolution.
    """

    def __init__(self, channels: int, *, rngs: nnx.Rngs):
        inner = channels // 4
        branches = [Conv(channels, inner, 1, bias=False, rngs=rngs)]
        for dilation in _DILATIONS:
            branches.append(Conv(channels, inner, 3, dilation=dilation, bias=False, rngs=rngs))
        self.branches = nnx.List(branches)
        self.join = Conv(4 * inner, channels, 3, bias=False, rngs=rngs)
        # Small at the start, so that an untrained SAM passes its input on (see MemoryCompressor).
        self.join.kernel[...] = 0.1 * self.join.kernel[...]

    def __call__(self, x: Float[Array, "n t h w c"]) -> Float[Array, "n t h w c"]:
        """Applies the module to every time on its own."""
        parts = [jax.nn.relu(branch(x)) for branch in self.branches]
        return jax.nn.relu(self.join(jnp.concatenate(parts, axis=-1)))


class MemoryCompressor(nnx.Module):
    """SAM: the recurrent embedding and the latest one become the new recurrent embedding.

        x = [old, new] in time;  z = nonlocal(x), then `repeat` SE blocks;
        result = squeeze(z + ASPP(z)),

    where squeeze is a convolution of kernel (2, 3, 3), equation (3) of the paper. It is written as
    a 3x3 convolution over the channels of both times, which is the same sum.

    Initial weights make it near the mean of both inputs (small ASPP, averaging squeeze): a decoder
    trained on plain embeddings can read that from the first step on.

    Args:
      channels: width of the embeddings (a multiple of 4).
      repeat: SE blocks before ASPP (published: 0).
      aspp: whether ASPP is there (published: True).
      rngs: for the initial weights.
    """

    def __init__(self, channels: int, *, repeat: int = 0, aspp: bool = True, rngs: nnx.Rngs):
        self.non_local = NonLocal(channels, rngs=rngs)
        self.se_blocks = nnx.List([SEBlock(channels, rngs=rngs) for _ in range(repeat)])
        self.aspp = ASPP(channels, rngs=rngs) if aspp else None
        self.squeeze = Conv(2 * channels, channels, 3, rngs=rngs)
        both = jnp.concatenate([jnp.eye(channels), jnp.eye(channels)])
        mean = jnp.zeros(self.squeeze.kernel.shape).at[1, 1].set(0.5 * both)
        self.squeeze.kernel[...] = mean + 0.05 * self.squeeze.kernel[...]

    def aggregate(self, x: Float[Array, "n 2 h w c"]) -> Float[Array, "n 2 h w c"]:
        """Everything before the squeeze."""
        x = self.non_local(x)
        for block in self.se_blocks:
            x = block(x)
        return x if self.aspp is None else x + self.aspp(x)

    def __call__(
        self, old: Float[Array, "n h w c"], new: Float[Array, "n h w c"]
    ) -> Float[Array, "n h w c"]:
        """The new recurrent embedding from the old one and the latest frame's."""
        x = self.aggregate(jnp.stack([old, new], axis=1))
        return self.squeeze(jnp.concatenate([x[:, 0], x[:, 1]], axis=-1))


def _max_pool2(x: Array) -> Array:
    """2x2 max pooling in space, a last odd row or column dropped; a single one is kept."""
    n, t, h, w, c = x.shape
    fh, fw = min(h, 2), min(w, 2)
    x = x[:, :, : h // fh * fh, : w // fw * fw]
    return x.reshape(n, t, h // fh, fh, w // fw, fw, c).max((3, 5))


def _instance_norm(x: Array) -> Array:
    mean = x.mean((1, 2, 3), keepdims=True)
    var = x.var((1, 2, 3), keepdims=True)
    return (x - mean) * jax.lax.rsqrt(var + _NORM_EPS)
