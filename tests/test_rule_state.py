"""What a rule may hold: constants beside its weights, and PRNG keys in its state."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from rdejax.memory.registry import make_rule
from rdejax.models import create
from rdejax.models.weights import load_into, read_model, save_weights, weights_of
from rdejax.propagate.stream import Stream
from rdejax.train.config import TrainConfig
from rdejax.train.step import init_state, merge

ROOT = Path(__file__).parents[1]
RESERVOIR = str(ROOT / "examples" / "reservoir_memory.py")
TINY = {"key_channels": 16, "value_channels": 32, "decoder_widths": (16, 16, 16)}
H, W, T = 32, 48, 9
RULE = """
import jax.numpy as jnp
import numpy as np
from flax import nnx
from rdejax.memory.average import AverageMemory
from rdejax.memory.registry import register


class Part(nnx.Module):
    def __init__(self, width):
        self.ramp = jnp.linspace(0.5, 1.5, width)


@register("constant")
class Constant(AverageMemory):
    def __init__(self, *, key_channels, value_channels, rngs):
        super().__init__(key_channels=key_channels, value_channels=value_channels, rngs=rngs)
        self.numpy = np.linspace(0.5, 1.5, key_channels)
        self.jax = jnp.linspace(0.5, 1.5, key_channels)
        self.variable = nnx.Variable(jnp.linspace(0.5, 1.5, key_channels))
        self.listed = nnx.List([np.linspace(0.5, 1.5, key_channels, dtype=np.float32)])
        self.part = Part(key_channels)

    def write(self, state, key, value, masks):
        parts = (self.numpy, self.jax, self.variable[...], self.listed[0], self.part.ramp)
        for part in parts:
            key = key * jnp.broadcast_to(jnp.asarray(part, key.dtype), key.shape)
        return super().write(state, key, value, masks)
"""


@pytest.fixture(scope="module")
def video():
    rng = np.random.default_rng(0)
    frames = rng.integers(0, 90, (T, H, W, 3)).astype(np.uint8)
    mask = np.zeros((H, W), np.uint8)
    mask[6:20, 4:18], mask[24:30, 30:44] = 2, 7
    return frames, mask


@pytest.fixture(scope="module")
def constant(tmp_path_factory) -> str:
    file = tmp_path_factory.mktemp("rule") / "constant.py"
    file.write_text(RULE)
    return str(file)


def test_constants_are_there_however_a_model_is_made(constant, video, tmp_path) -> None:
    made = create("rde-lite", config=TINY, size=None, memory=constant)
    save_weights(tmp_path / "w.safetensors", made)
    assert not any("memory" in name for name in weights_of(made))
    loaded = read_model(tmp_path / "w.safetensors").build(memory=constant)
    masks = []
    for model in (made, loaded):
        np.testing.assert_allclose(model.memory.numpy, np.linspace(0.5, 1.5, 16), rtol=1e-6)
        masks.append(Stream(model).push_probs(video[0], {0: video[1]})[1])
    np.testing.assert_allclose(*masks, atol=2e-5)


def test_constants_are_fixed_in_training_and_checkpoints_of_it_load(constant) -> None:
    config = TrainConfig(system="rde-lite", memory=constant)
    model = create("rde-lite", config=TINY, size=None, memory=constant)
    _, state = init_state(model, config)
    assert set(state.fixed["memory"]) >= {"numpy", "jax", "variable", "listed", "part"}
    assert "memory" not in state.params
    paths, _ = jax.tree_util.tree_flatten_with_path((state.fixed, state.params))
    arrays = {
        jax.tree_util.keystr(path[1:], simple=True, separator="/"): np.asarray(leaf)
        for path, leaf in paths
    }
    fresh = create("rde-lite", seed=1, config=TINY, size=None, memory=constant)
    load_into(fresh, arrays, source="a checkpoint")  # whose constants are no weights
    merged = merge(model, config, state.params, state.fixed)
    for name, array in weights_of(merged).items():
        np.testing.assert_array_equal(array, weights_of(fresh)[name])


@pytest.mark.slow
def test_a_saved_stream_goes_on_with_the_same_draws(video, tmp_path) -> None:
    model = create(
        "rde-lite", config=TINY, size=None, every=1, memory=RESERVOIR, places=2, top_k=None
    )
    frames, mask = video
    later = np.zeros((H, W), np.uint8)
    later[2:8, 20:30] = 9
    whole = Stream(model)
    expected = whole.push_probs(frames, {0: mask, 6: later})[1]
    cut = Stream(model)
    cut.push(frames[:4], {0: mask})
    before = cut.state
    cut.save(tmp_path / "state")
    again = Stream(model).restore(tmp_path / "state")
    keys = [jax.random.key_data(state.memory.draws) for state in (before, again.state)]
    np.testing.assert_array_equal(*keys)
    assert again.state_bytes == cut.state_bytes > 0
    # The new object makes a second group, which draws for itself.
    got = again.push_probs(frames[4:], {2: later})[1]
    np.testing.assert_allclose(got, expected[4:], atol=2e-5)
    assert again.state.memory.draws.shape == (2,)


def test_a_reservoir_keeps_every_frame_equally_often() -> None:
    """Which frames are held after eight writes, over many seeds: each in 2 / 8 of them."""
    rule = make_rule(RESERVOIR, key_channels=1, value_channels=1, rngs=nnx.Rngs(0), places=2)

    def held(draws):
        state = rule.init(jnp.zeros((1, 1, 1)), jnp.zeros((1, 1, 1, 1)), None)
        state = state.replace(draws=draws)
        for n in range(1, 9):
            state = rule.write(state, jnp.full((1, 1, 1), n), jnp.zeros((1, 1, 1, 1)), None)
        return state.key[1:, 0, 0, 0]

    kept = jax.jit(jax.vmap(held))(jax.random.split(jax.random.key(0), 4000))
    share = np.bincount(np.asarray(kept, int).ravel(), minlength=9)[1:] / 4000
    assert share.sum() == 2.0
    np.testing.assert_allclose(share, 0.25, atol=0.03)  # four standard deviations
