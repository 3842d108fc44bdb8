"""The example memory rule: its equation, and its use by file name everywhere a name is taken."""

import json
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from PIL import Image

from rdejax.errors import RdejaxError
from rdejax.memory.protocol import Masks
from rdejax.memory.registry import find_rule, make_rule, rule_settings
from rdejax.models.protocol import given_probs
from rdejax.models.registry import create
from rdejax.models.weights import save_weights

ROOT = Path(__file__).resolve().parents[1]
EMA = str(ROOT / "examples" / "ema_memory.py")


def rule(**settings):
    return make_rule(EMA, key_channels=4, value_channels=6, rngs=nnx.Rngs(0), **settings)


def frames(count, h=3, w=4, objects=2):
    rng = np.random.default_rng(0)
    keys = rng.normal(size=(count, h, w, 4)).astype(np.float32)
    values = rng.normal(size=(count, objects, h, w, 6)).astype(np.float32)
    empty = jnp.zeros((objects, 16 * h, 16 * w))
    return jnp.asarray(keys), jnp.asarray(values), Masks(soft=empty, hard=empty)


def test_average_follows_the_equation():
    keys, values, masks = frames(4)
    ema = rule(decay=0.25)
    state = ema.init(keys[0], values[0], masks)
    for key, value in zip(keys[1:], values[1:], strict=True):
        state = ema.write(state, key, value, masks)
    weights = [0.25**3, 0.75 * 0.25**2, 0.75 * 0.25, 0.75]
    np.testing.assert_allclose(
        state.key[1], sum(a * k for a, k in zip(weights, keys, strict=True)), atol=1e-6
    )
    np.testing.assert_allclose(
        state.value[:, 1], sum(a * v for a, v in zip(weights, values, strict=True)), atol=1e-6
    )
    np.testing.assert_array_equal(state.key[0], keys[0])
    np.testing.assert_array_equal(state.value[:, 0], values[0])
    assert int(state.updates) == 3


@pytest.mark.parametrize("top_k", [None, 5])
def test_no_decay_equals_first_and_latest_of_rde(top_k):
    keys, values, masks = frames(4)
    readouts = []
    for memory in (
        rule(decay=0.0, top_k=top_k),
        make_rule(
            "rde", key_channels=4, value_channels=6, rngs=nnx.Rngs(0), strategy="F+L", top_k=top_k
        ),
    ):
        state = memory.init(keys[0], values[0], masks)
        readouts.append(memory.read(state, keys[3:])[0])
        state = memory.write(state, keys[1], values[1], masks)
        state = memory.write(state, keys[2], values[2], masks)
        readouts.append(memory.read(state, keys[3:])[0])
    np.testing.assert_allclose(readouts[0], readouts[2], atol=1e-6)
    np.testing.assert_allclose(readouts[1], readouts[3], atol=1e-6)
    assert np.abs(readouts[0] - readouts[1]).max() > 1e-2


def test_state_keeps_its_structure_and_scans():
    keys, values, masks = frames(6)
    ema = rule()
    start = ema.init(keys[0], values[0], masks)

    def step(state, frame):
        return ema.write(state, *frame, masks), None

    scanned, _ = jax.lax.scan(step, start, (keys[1:], values[1:]))
    looped = start
    for frame in zip(keys[1:], values[1:], strict=True):
        looped, _ = step(looped, frame)
    np.testing.assert_allclose(scanned.key, looped.key, atol=1e-6)
    np.testing.assert_allclose(scanned.value, looped.value, atol=1e-6)


def test_named_by_file_and_by_name():
    assert rule_settings(EMA) == {"decay": 0.5, "top_k": 40}
    assert find_rule("ema").__name__ == "EMAMemory"  # loading the file has registered it
    with pytest.raises(RdejaxError, match="decay=1"):
        rule(decay=1.0)


def test_system_runs_with_it():
    model = nnx.jit(lambda: create("rde-lite", memory=EMA, decay=0.3))()
    assert type(model.memory).__name__ == "EMAMemory"
    assert model.memory.decay == 0.3
    structure, weights = nnx.split(model)

    @jax.jit
    def run(weights, image, mask):
        system = nnx.merge(structure, weights)
        features = system.encode(image)
        first = jax.tree.map(lambda x: x[:1], features)
        state = system.start(first, given_probs(mask, jnp.ones(1, bool)))
        state, logits = system.segment(state, features)
        after = system.memorize(state, first, jax.nn.softmax(logits[1], axis=0))
        return state, after, system.segment(after, features)[1]

    image = jax.random.normal(jax.random.key(0), (2, 32, 48, 3))
    before, after, logits = run(weights, image, jnp.zeros((1, 32, 48)).at[:, 8:24, 8:24].set(1.0))
    assert jax.tree.structure(before) == jax.tree.structure(after)
    assert jax.tree.map(jnp.shape, before) == jax.tree.map(jnp.shape, after)
    assert int(after.memory.updates[0]) == 1
    assert logits.shape == (2, 2, 32, 48)
    assert bool(jnp.isfinite(logits).all())


def test_command_line_takes_the_file(tmp_path):
    clip = tmp_path / "clip"
    clip.mkdir()
    rng = np.random.default_rng(0)
    picture = rng.integers(0, 256, (64, 120, 3), np.uint8)
    for t in range(5):
        Image.fromarray(np.roll(picture, 3 * t, axis=1)[:, :80]).save(clip / f"{t:05d}.png")
    mask = np.zeros((64, 80), np.uint8)
    mask[20:44, 30:60] = 7
    Image.fromarray(mask).save(tmp_path / "first.png")
    # Weights of another memory: those of its learned parts must not get in the way.
    save_weights(tmp_path / "random.safetensors", nnx.jit(lambda: create("rde-lite"))())
    command = [sys.executable, str(ROOT / "infer.py"), str(clip)]
    command += ["--checkpoint", str(tmp_path / "random.safetensors")]
    command += ["--mask", str(tmp_path / "first.png"), "--output", str(tmp_path / "out")]
    command += ["--size", "64", "--memory", EMA]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["frames"] == 5
    assert "ema_memory.py" in json.dumps(summary["settings"])
    assert len(list((tmp_path / "out" / "masks").glob("*.png"))) == 5


@pytest.mark.slow
def test_readme_example_runs(monkeypatch):
    monkeypatch.chdir(ROOT)
    text = (ROOT / "README.md").read_text()
    code = text.split("```python\n")[1].split("```")[0]
    names: dict = {}
    exec(compile(code, "README.md", "exec"), names)
    assert names["masks"].shape == (60, 480, 854)
    assert names["masks"].dtype == np.uint8
    assert set(np.unique(names["masks"])) == {0, 1}


def test_gates_learn():
    keys, values, masks = frames(3)
    path = str(ROOT / "examples" / "gated_memory.py")
    gated = make_rule(path, key_channels=4, value_channels=6, rngs=nnx.Rngs(0), start=0.25)

    def readout(memory):
        state = memory.write(memory.init(keys[0], values[0], masks), keys[1], values[1], masks)
        np.testing.assert_allclose(
            jax.lax.stop_gradient(state.key[1]), 0.25 * keys[0] + 0.75 * keys[1], atol=1e-6
        )
        return (memory.as_trained().read(state, keys[2:])[0] ** 2).sum()

    gradient = nnx.grad(readout)(gated)
    assert float(jnp.abs(gradient.key_gate[...]).min()) > 0
    assert float(jnp.abs(gradient.value_gate[...]).min()) > 0


@pytest.mark.slow
def test_the_page_on_writing_a_rule_runs(monkeypatch, tmp_path):
    """Its commands, in order, as they stand but for the interpreter and the output folder."""
    monkeypatch.chdir(ROOT)
    text = (ROOT / "docs" / "memory_rules.md").read_text()
    blocks = [part.split("```")[0] for part in text.split("```bash\n")[1:]]
    assert len(blocks) == 2
    for block in blocks:
        command = block.replace(".venv/bin/python", sys.executable).replace(
            "outputs/", f"{tmp_path}/"
        )
        done = subprocess.run(["bash", "-ec", command], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[-2000:]
    assert json.loads((tmp_path / "masks" / "results.json").read_text())["global"]["J-Mean"] > 0
