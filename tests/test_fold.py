"""Networks made ready for inference compute what they did before."""

import gc

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import rdejax
from rdejax.errors import RdejaxError
from rdejax.models import create
from rdejax.models.settings import Settings
from rdejax.nn import winograd
from rdejax.nn.fold import Nothing, fold
from rdejax.nn.layers import Conv, Frozen, FrozenBatchNorm, ResBlock, WinogradConv
from rdejax.nn.stm import MemoryEncoder
from rdejax.propagate import ready as ready_models

CPU_ONLY = pytest.mark.skipif(jax.default_backend() != "cpu", reason="chosen on CPUs")


def shaken(module, seed: int = 0):
    """The module with frozen statistics that are not those of an untrained one."""
    rng = np.random.default_rng(seed)
    state = nnx.state(module, Frozen)
    state = jax.tree.map(lambda x: jnp.asarray(rng.uniform(0.5, 1.5, x.shape), jnp.float32), state)
    nnx.update(module, state)
    return module


def close(a, b) -> None:
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_allclose(x, y, atol=2e-5 * float(jnp.abs(x).max() + 1e-6))


@pytest.mark.parametrize("size", [(1, 1), (3, 5), (4, 8), (2, 13)])
def test_winograd_is_the_convolution(size):
    x = jax.random.normal(jax.random.key(0), (2, *size, 5))
    conv = Conv(5, 7, 3, rngs=nnx.Rngs(1))
    weights = winograd.transformed(np.asarray(conv.kernel[...]))
    bias = jnp.broadcast_to(conv.bias[...], (2, *size, 7))
    got = jax.jit(winograd.convolve)(x, jnp.asarray(weights)) + bias
    np.testing.assert_allclose(got, conv(x), atol=1e-5)


@CPU_ONLY
def test_a_prepared_convolution_keeps_its_kernel_and_its_split():
    conv = Conv(48, 32, 3, rngs=nnx.Rngs(0))
    fast = conv.prepared()
    assert isinstance(fast, WinogradConv)
    np.testing.assert_allclose(fast.kernel, conv.kernel[...], atol=1e-6)
    x = jax.random.normal(jax.random.key(0), (1, 2, 5, 6, 32))
    shared = jax.random.normal(jax.random.key(1), (1, 5, 6, 16))
    for leading in (False, True):
        close(conv.split(x, shared, leading=leading), fast.split(x, shared, leading=leading))
        one = conv.split(x[:, :1], shared, leading=leading)
        close(one, fast.split(x[:, :1], shared, leading=leading))
        close(one, conv.split(x, shared, leading=leading)[:, :1])


@CPU_ONLY
@pytest.mark.parametrize(
    "conv",
    [
        Conv(32, 32, 1, rngs=nnx.Rngs(0)),
        Conv(32, 32, 3, stride=2, rngs=nnx.Rngs(0)),
        Conv(32, 32, 3, dilation=2, rngs=nnx.Rngs(0)),
        Conv(32, 32, (3, 3, 3), rngs=nnx.Rngs(0)),
        Conv(16, 64, 3, rngs=nnx.Rngs(0)),
        Conv(512, 512, 3, rngs=nnx.Rngs(0)),
    ],
)
def test_what_does_not_pay_stays_as_it_is(conv):
    assert conv.prepared() is conv


@pytest.mark.parametrize("name", ["rde-lite", pytest.param("stcn", marks=pytest.mark.slow)])
def test_a_folded_system_gives_the_same_features(name):
    model = shaken(create(name))
    folded = fold(model)
    x = jax.random.normal(jax.random.key(0), (1, 32, 48, 3))
    close(jax.jit(lambda m, x: m.encode(x))(model, x), jax.jit(lambda m, x: m.encode(x))(folded, x))
    norms = [m for _, m in nnx.iter_modules(folded) if isinstance(m, FrozenBatchNorm)]
    assert not norms and any(isinstance(m, FrozenBatchNorm) for _, m in nnx.iter_modules(model))


def test_a_norm_behind_a_sum_of_convolutions():
    encoder = shaken(MemoryEncoder(18, 8, 8, rngs=nnx.Rngs(0)))
    folded = fold(encoder)
    assert isinstance(folded.trunk.bn1, Nothing)
    image = jax.random.normal(jax.random.key(0), (32, 32, 3))
    masks = jax.random.uniform(jax.random.key(1), (2, 32, 32))
    stem = jax.jit(lambda e, *a: e.stem(*a))
    close(stem(encoder, image, masks, masks[::-1]), stem(folded, image, masks, masks[::-1]))


def test_a_stream_takes_weights_as_they_are_now():
    """A model is prepared once; another weight, and it is prepared anew; it is let go, too."""
    block = ResBlock(32, 32, rngs=nnx.Rngs(0))
    block.settings = Settings()
    first = ready_models.ready(block)
    assert ready_models.ready(block) is first and isinstance(block.conv1, Conv)
    block.conv1.kernel[...] = block.conv1.kernel[...] + 1.0
    second = ready_models.ready(block)
    x = jnp.ones((1, 4, 5, 32))
    close(block(x), second(x))
    known = id(block)
    del block
    gc.collect()
    assert known not in ready_models._MADE


def test_a_model_that_has_segmented_is_still_the_one_that_was_loaded():
    model = rdejax.load_model("rde-lite")
    before = jax.tree.leaves(model)
    frames = np.zeros((1, 32, 48, 3), np.uint8)
    mask = np.zeros((32, 48), np.uint8)
    mask[8:20, 8:20] = 1
    rdejax.segment_video(model, frames, mask)
    assert all(a is b for a, b in zip(before, jax.tree.leaves(model), strict=True))


def test_bfloat16_is_refused_on_cpus_with_a_reason():
    model = rdejax.load_model("rde-lite", precision="bfloat16")
    assert model.settings.as_dict()["precision"] == "bfloat16"
    with pytest.raises(RdejaxError, match="accelerators"):
        rdejax.stream(model)
    with pytest.raises(RdejaxError, match="precision"):
        rdejax.load_model("rde-lite", precision="float16")


@pytest.mark.slow
@CPU_ONLY
def test_networks_in_bfloat16_give_masks_close_to_those_in_float32(monkeypatch):
    """As accelerators run it: the refusal is all that is left out."""
    full = rdejax.load_model("rde-lite", size=None)
    half = rdejax.load_model("rde-lite", size=None, precision="bfloat16")
    rng = np.random.default_rng(0)
    frames = rng.integers(0, 80, (3, 64, 96, 3), np.uint8)
    mask = np.zeros((64, 96), np.uint8)
    mask[16:48, 24:64] = 1
    frames[:, 16:48, 24:64] += 120
    want = rdejax.segment_video(full, frames, mask, return_probs=True)
    monkeypatch.setattr(
        "rdejax.propagate.stream.ready", lambda model: ready_models.in_bfloat16(fold(model))
    )
    got = rdejax.segment_video(half, frames, mask, return_probs=True)
    assert got.dtype == np.float32
    assert 0 < np.abs(got - want).mean() < 0.02
    assert (got.argmax(1) == want.argmax(1)).mean() > 0.98
