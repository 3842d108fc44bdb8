"""Layers and modules on small shapes; agreement with the published networks is elsewhere."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from rdejax.nn.aggregate import aggregate, aggregate_logits
from rdejax.nn.cbam import CBAM
from rdejax.nn.decoder import Decoder
from rdejax.nn.encoders import KeyProjection, ValueEncoder
from rdejax.nn.layers import (
    Conv,
    Frozen,
    FrozenBatchNorm,
    ResBlock,
    max_pool3x3s2,
    resize_bilinear,
)
from rdejax.nn.resnet import ResNetTrunk
from rdejax.nn.sam import MemoryCompressor, NonLocal


def normal(seed, *shape):
    return jax.random.normal(jax.random.key(seed), shape)


def randomise(module, seed=0):
    """Random values everywhere, so that zero-initialised parts count too."""
    state = nnx.state(module, nnx.Param)
    for i, (_, leaf) in enumerate(nnx.to_flat_state(state)):
        leaf[...] = 0.3 * jax.random.normal(jax.random.key(seed + i), leaf.shape)
    nnx.update(module, state)
    return module


def test_conv_padding_is_symmetric():
    """At stride 2 and an even size, "SAME" would pad one side only."""
    conv = Conv(1, 1, 3, stride=2, bias=False, rngs=nnx.Rngs(0))
    conv.kernel[...] = jnp.zeros((3, 3, 1, 1)).at[0, 0].set(1.0)
    x = jnp.arange(16.0).reshape(1, 4, 4, 1)
    # The kernel's first tap looks one pixel up and left: zeros, then pixel (1, 1).
    np.testing.assert_array_equal(conv(x)[0, :, :, 0], [[0, 0], [0, 5]])


def test_conv_of_three_dimensions():
    conv = Conv(3, 5, (2, 3, 3), padding=(0, 1, 1), rngs=nnx.Rngs(0))
    assert conv.kernel.shape == (2, 3, 3, 3, 5)
    assert conv(jnp.ones((1, 2, 4, 6, 3))).shape == (1, 1, 4, 6, 5)


@pytest.mark.parametrize("stride", [1, 2])
def test_pointwise_convolution_is_a_product(stride):
    conv = Conv(5, 7, 1, stride=stride, bias=False, rngs=nnx.Rngs(0))
    x, names = normal(0, 2, 6, 9, 5), ("NHWC", "HWIO", "NHWC")
    steps, padding = (stride, stride), ((0, 0), (0, 0))
    want = jax.lax.conv_general_dilated(
        x, conv.kernel[...], steps, padding, dimension_numbers=names
    )
    np.testing.assert_allclose(conv(x), want, atol=1e-6)


@pytest.mark.parametrize("kernel,stride,dilation", [(3, 1, 1), (3, 1, 2), (1, 1, 1), (3, 2, 1)])
def test_conv_split_equals_concatenation(kernel, stride, dilation):
    conv = Conv(7, 4, kernel, stride=stride, dilation=dilation, rngs=nnx.Rngs(0))
    x, shared = normal(0, 2, 3, 6, 8, 5), normal(1, 2, 6, 8, 2)
    both = jnp.concatenate([x, jnp.repeat(shared[:, None], 3, 1)], -1)
    np.testing.assert_allclose(conv.split(x, shared), conv(both), atol=1e-6)


@pytest.mark.parametrize("cout", [7, 4])
def test_res_block_split_equals_concatenation(cout):
    block = ResBlock(7, cout, rngs=nnx.Rngs(0))
    x, shared = normal(0, 2, 3, 6, 8, 5), normal(1, 2, 6, 8, 2)
    both = jnp.concatenate([x, jnp.repeat(shared[:, None], 3, 1)], -1)
    np.testing.assert_allclose(block.split(x, shared), block(both), atol=1e-6)


def test_batch_norm_never_trains():
    norm = FrozenBatchNorm(2)
    norm.mean[...], norm.var[...] = jnp.array([1.0, -1.0]), jnp.array([4.0, 0.25])
    norm.scale[...], norm.bias[...] = jnp.array([2.0, 1.0]), jnp.array([0.5, 0.0])
    np.testing.assert_allclose(norm(jnp.array([[3.0, 0.0]])), [[2.5, 2.0]], rtol=1e-4)
    assert norm(jnp.ones((1, 2), jnp.bfloat16)).dtype == jnp.bfloat16
    assert not jax.tree.leaves(nnx.state(norm, nnx.Param))
    assert len(jax.tree.leaves(nnx.state(norm, Frozen))) == 4


def test_max_pool_ignores_its_padding():
    """Negative values stay: the border is padded with -inf, not with zeros."""
    x = -jnp.arange(1.0, 17).reshape(1, 4, 4, 1)
    np.testing.assert_array_equal(max_pool3x3s2(x)[0, :, :, 0], [[-1, -2], [-5, -6]])


@pytest.mark.parametrize("size", [(10, 14), (20, 28), (10, 28), (15, 21), (7, 9), (3, 4)])
def test_resize_has_half_pixel_centres(size):
    x = normal(0, 2, 5, 7, 3)
    want = jax.image.resize(x, (2, *size, 3), "bilinear", antialias=False)
    np.testing.assert_allclose(resize_bilinear(x, size), want, atol=5e-6)


def test_upsampling_of_a_ramp():
    x = jnp.array([0.0, 4.0]).reshape(1, 2, 1)
    np.testing.assert_array_equal(resize_bilinear(x, (2, 4))[0, :, 0], [0, 1, 3, 4])


@pytest.mark.parametrize("depth,channels", [(18, (64, 128, 256)), (50, (256, 512, 1024))])
def test_trunk_strides(depth, channels):
    trunk = nnx.eval_shape(lambda: ResNetTrunk(depth, rngs=nnx.Rngs(0)))
    features = nnx.eval_shape(lambda t, x: t(x), trunk, jnp.zeros((1, 32, 48, 3)))
    assert trunk.channels == channels
    sizes = ((8, 12), (4, 6), (2, 3))
    expected = [(1, *size, c) for size, c in zip(sizes, channels, strict=True)]
    assert [f.shape for f in features] == expected


def test_trunk_of_unknown_depth():
    with pytest.raises(ValueError, match="34"):
        ResNetTrunk(34, rngs=nnx.Rngs(0))


def test_key_projection_starts_orthogonal():
    kernel = np.asarray(KeyProjection(16, 4, rngs=nnx.Rngs(0)).kernel[...]).reshape(-1, 4)
    np.testing.assert_allclose(kernel.T @ kernel, np.eye(4), atol=1e-5)


def test_cbam_gates_channels_and_positions():
    """With zero weights both gates are a half everywhere."""
    cbam = CBAM(32, rngs=nnx.Rngs(0))
    x = normal(0, 2, 3, 4, 5, 32)
    assert cbam(x).shape == x.shape
    for layer in (cbam.mlp1, cbam.mlp2, cbam.spatial):
        layer.kernel[...] = jnp.zeros_like(layer.kernel[...])
    np.testing.assert_allclose(cbam(x), 0.25 * x, rtol=1e-6)


def test_value_encoder_treats_objects_apart():
    encoder = ValueEncoder(8, 16, rngs=nnx.Rngs(0))
    image, f16 = normal(0, 1, 32, 32, 3), normal(1, 1, 2, 2, 8)
    masks = jax.nn.sigmoid(normal(2, 1, 3, 32, 32))
    others = masks.sum(1, keepdims=True) - masks
    encode = nnx.jit(lambda m, *masks: m(image, f16, *masks))
    values = encode(encoder, masks, others)
    assert values.shape == (1, 3, 2, 2, 16)
    swapped = encode(encoder, masks[:, ::-1], others[:, ::-1])
    np.testing.assert_allclose(swapped[:, ::-1], values, atol=1e-5)


def test_single_object_value_encoder_sees_no_others():
    encoder = ValueEncoder(8, 16, single_object=True, rngs=nnx.Rngs(0))
    assert encoder.trunk.conv1.kernel.shape == (7, 7, 4, 64)
    image, f16, mask = normal(0, 1, 32, 32, 3), normal(1, 1, 2, 2, 8), normal(2, 1, 1, 32, 32)
    encode = nnx.jit(lambda m, others: m(image, f16, mask, others))
    a, b = (encode(encoder, x) for x in (mask, 0 * mask))
    np.testing.assert_array_equal(a, b)


def test_decoder_sizes_and_shared_input():
    decoder = Decoder(10, (6, 5), widths=(8, 4, 4), rngs=nnx.Rngs(0))
    x, thin = normal(0, 2, 3, 2, 4, 7), normal(1, 2, 2, 4, 3)
    f8, f4 = normal(2, 2, 4, 8, 6), normal(3, 2, 8, 16, 5)
    both = jnp.concatenate([x, jnp.repeat(thin[:, None], 3, 1)], -1)
    logits, shared = nnx.jit(lambda m: (m(both, f8, f4), m(x, f8, f4, thin)))(decoder)
    assert logits.shape == (2, 3, 32, 64)
    np.testing.assert_allclose(shared, logits, atol=1e-6)


@pytest.mark.parametrize("repeat,aspp", [(0, True), (2, True), (0, False), (1, False)])
def test_compressor_variants(repeat, aspp):
    """Every ablation runs, the order of time counts, and every weight matters."""
    sam = randomise(MemoryCompressor(16, repeat=repeat, aspp=aspp, rngs=nnx.Rngs(0)))
    assert len(sam.se_blocks) == repeat and (sam.aspp is not None) == aspp
    old, new = normal(0, 2, 5, 6, 16), normal(1, 2, 5, 6, 16)
    out, swapped = nnx.jit(lambda m: (m(old, new), m(new, old)))(sam)
    assert out.shape == old.shape and np.isfinite(out).all()
    assert not np.allclose(out, swapped)
    grads = nnx.jit(nnx.grad(lambda m: (m(old, new) ** 2).sum()))(sam)
    # An instance norm takes out any bias before it.
    unused = [
        "/".join(map(str, path))
        for path, leaf in nnx.to_flat_state(grads)
        if not np.abs(leaf[...]).max() > 0 and not ("se_blocks" in path and path[-1] == "bias")
    ]
    assert unused == []


@pytest.mark.parametrize("size", [(1, 1), (1, 4), (5, 2)])
def test_compressor_of_smallest_and_odd_sizes(size):
    sam = MemoryCompressor(8, rngs=nnx.Rngs(0))
    out = nnx.jit(lambda m: m(jnp.ones((1, *size, 8)), jnp.ones((1, *size, 8))))(sam)
    assert out.shape == (1, *size, 8) and np.isfinite(out).all()


def test_non_local_block_is_its_equation():
    """The reordered product equals theta^T phi g / N over all pairs of positions."""
    block = randomise(NonLocal(8, rngs=nnx.Rngs(0)))
    x = normal(0, 1, 2, 4, 6, 8)

    def pooled(y):
        return y.reshape(1, 2, 2, 2, 3, 2, 4).max((3, 5)).reshape(-1, 4)

    theta = block.theta(x).reshape(-1, 4)
    phi, g = pooled(block.phi(x)), pooled(block.g(x))
    mixed = (theta @ phi.T / phi.shape[0]) @ g
    want = x + block.out(mixed.reshape(1, 2, 4, 6, 4))
    np.testing.assert_allclose(block(x), want, atol=1e-5)


def test_aggregation():
    p = jnp.array([0.8, 0.5]).reshape(2, 1, 1)
    q = np.array([0.2 * 0.5, 0.8, 0.5])
    odds = q / (1 - q)
    np.testing.assert_allclose(aggregate(p)[:, 0, 0], odds / odds.sum(), rtol=1e-5)
    assert aggregate_logits(jnp.zeros((2, 1, 4, 6, 5))).shape == (2, 1, 5, 6, 5)


def test_aggregation_of_an_absent_object_changes_no_other():
    p = jax.nn.sigmoid(normal(0, 2, 3, 4))
    more = jnp.concatenate([p[:1], jnp.zeros((1, 3, 4)), p[1:]])
    np.testing.assert_array_equal(aggregate_logits(more)[jnp.array([0, 1, 3])], aggregate_logits(p))


def test_aggregation_is_finite_at_the_ends():
    logits = aggregate_logits(jnp.array([0.0, 1.0, 1.0]).reshape(3, 1, 1))
    assert np.isfinite(logits).all() and np.abs(logits).max() < 17
