"""Weights and what they are of: what must fit, and what may stay out."""

import json

import jax
import numpy as np
import pytest
from flax import nnx
from io_helpers import tiny_weights
from safetensors.numpy import save_file

import rdejax
from rdejax.errors import RdejaxError
from rdejax.models.registry import find_system, outline, resettled
from rdejax.models.weights import FORMAT, StoredModel, shapes_of
from rdejax.nn.constants import WEIGHTS
from rdejax.train.initial_weights import initial_weights

GATED = """
import jax.numpy as jnp
from flax import nnx
from rdejax.memory.average import AverageMemory
from rdejax.memory.registry import register


@register("gated or not")
class Gated(AverageMemory):
    def __init__(self, *, key_channels, value_channels, rngs, gated=True, decay=0.5):
        sizes = {"key_channels": key_channels, "value_channels": value_channels}
        super().__init__(**sizes, rngs=rngs, decay=decay)
        self.gate = nnx.Param(jnp.zeros(key_channels)) if gated else None
"""
SIZES = {"key_channels": 4, "value_channels": 32, "decoder_widths": [16, 8, 8]}


def stored(memory: str, **settings) -> StoredModel:
    """As a file gives it; the weights are zeros."""
    chosen = find_system("rde-lite").default_settings.override(memory=memory, **settings)
    shapes = shapes_of(outline("rde-lite", config=SIZES, settings=chosen))
    arrays = {name: np.zeros(shape, np.float32) for name, shape in shapes.items()}
    return StoredModel("rde-lite", SIZES, chosen, arrays, "a file")


def rule_weights(model) -> set[str]:
    return {name for name in shapes_of(model) if name.startswith("memory/")}


def test_weights_of_the_rule_stay_out_where_its_settings_leave_it_no_use_for_them(tmp_path) -> None:
    path = tmp_path / "gated.py"
    path.write_text(GATED)
    with_gate = stored(str(path))
    named = {"memory": str(path)}
    assert rule_weights(with_gate.build(**named)) == {"memory/gate"}
    others = ({**named, "gated": False}, {"memory": "bank"}, {"memory": "average", "decay": 0.1})
    for changes in others:
        assert not rule_weights(with_gate.build(**changes))
    # What else changes leaves the weights as necessary as they are.
    assert with_gate.build(**named, every=7).settings.every == 7
    without = StoredModel("rde-lite", SIZES, stored("bank").settings, with_gate.arrays, "a file")
    with pytest.raises(RdejaxError, match="a file: 1 weights do not fit .unexpected memory/gate"):
        without.build(every=7)
    with pytest.raises(RdejaxError, match="has no weights for memory .*which learns some"):
        stored("bank").build(memory=str(path))
    # Weights of another rule are no reason to name a single missing one without saying what to do.
    with pytest.raises(RdejaxError, match=r"learns some .memory/gate.; train .* --init-partial"):
        stored("rde").build(memory=str(path))


def test_sizes_are_those_of_the_config() -> None:
    model = stored("bank").build()
    assert (model.config.key_channels, model.config.decoder_widths) == (4, (16, 8, 8))
    with pytest.raises(RdejaxError, match="'rde-lite' has no size 'depth'; it has key_channels, "):
        outline("rde-lite", config={"depth": 3})


HOSTILE = """
from pathlib import Path

Path(__file__).with_suffix(".ran").touch()
raise SystemExit(0)
"""


@pytest.fixture
def hostile(tmp_path):
    """A program that weights may name as their memory rule."""
    path = tmp_path / "hostile.py"
    path.write_text(HOSTILE)
    return path


def weights_file(path, **metadata):
    """Weights with some of what describes them exchanged; None leaves it out."""
    given = {
        "format": FORMAT,
        "arch": "rde-lite",
        "config": json.dumps(SIZES),
        "settings": json.dumps({"memory": "rde"}),
        **metadata,
    }
    save_file(
        {"x": np.zeros(3, np.float32)}, path, {k: v for k, v in given.items() if v is not None}
    )
    return path


@pytest.mark.parametrize("settings", [{}, {"every": 2}, {"memory": None}, {"memory": ""}])
def test_weights_cannot_run_a_program(tmp_path, hostile, settings) -> None:
    chosen = json.dumps({"every": 3, "memory": str(hostile)})
    path = weights_file(tmp_path / "w.safetensors", settings=chosen)
    with pytest.raises(RdejaxError, match=r"w\.safetensors: .*hostile\.py.*--memory"):
        rdejax.load_model(str(path), **settings)
    with pytest.raises(RdejaxError, match="weights do not fit"):
        rdejax.load_model(str(path), memory="bank")
    assert set(initial_weights(str(path))) == {"x"}
    assert not hostile.with_suffix(".ran").exists()


def test_a_work_folder_cannot_run_a_program(tmp_path, hostile, monkeypatch) -> None:
    monkeypatch.setattr("rdejax.models.workdir._last_averaged", lambda folder: {"x": np.zeros(3)})
    run = {"system": "rde-lite", "save_every": 5, "memory": str(hostile)}
    (tmp_path / "config.json").write_text(json.dumps(run))
    with pytest.raises(RdejaxError, match=r"hostile\.py.*not run.*--memory"):
        rdejax.load_model(str(tmp_path))
    with pytest.raises(RdejaxError, match="weights do not fit"):
        rdejax.load_model(str(tmp_path), memory="bank")
    assert set(initial_weights(str(tmp_path))) == {"x"}
    assert not hostile.with_suffix(".ran").exists()


@pytest.mark.parametrize(
    ("metadata", "expected"),
    [
        ({"arch": None}, "description of the model is missing"),
        ({"config": None}, "description of the model is missing"),
        ({"settings": "{"}, "description of the model is missing or damaged"),
        ({"settings": "[1]"}, "description of the model is missing or damaged"),
        ({"config": "[" * 100_000}, "description of the model is missing or damaged"),
        ({"config": "[]"}, "config is not a JSON object"),
        ({"settings": '{"speed": 3}'}, "speed"),
        ({"settings": '{"every": 2.5}'}, "every=2.5: give a whole number"),
        ({"settings": '{"every": true}'}, "every=True: give a whole number"),
        ({"settings": '{"memory": ["rde"]}'}, "memory=.*give text"),
        ({"settings": '{"size": -5}'}, "size=-5"),
        ({"settings": '{"near": "x"}'}, "near='x': give a number"),
        ({"settings": '{"enlarge": [1]}'}, "enlarge=.*: give a number"),
        ({"settings": '{"enlarge": NaN}'}, "enlarge=nan: give a factor"),
    ],
)
def test_damaged_descriptions_are_sentences(tmp_path, metadata, expected) -> None:
    path = weights_file(tmp_path / "w.safetensors", **metadata)
    with pytest.raises(RdejaxError, match=rf"w\.safetensors: .*{expected}"):
        rdejax.load_model(str(path))


@pytest.mark.parametrize("value", ["x", [1], True, 2.5])
def test_settings_of_another_type_are_refused(value) -> None:
    settings = find_system("rde-lite").default_settings
    with pytest.raises(RdejaxError, match="top_k=.*takes a whole number or None"):
        settings.override(top_k=value)
    with pytest.raises(RdejaxError, match="every=.*whole number"):
        settings.override(every=value)


def test_other_settings_share_the_weights(tmp_path) -> None:
    model = rdejax.load_model(tiny_weights(tmp_path / "tiny.safetensors"))
    other = resettled(model, every=7, top_k=3, size=32)
    assert (other.settings.every, other.settings.size, other.memory.top_k) == (7, 32, 3)
    assert model.settings.every != 7 and model.memory.top_k != 3
    before, after = (jax.tree.leaves(nnx.state(m, WEIGHTS)) for m in (model, other))
    assert len(before) == len(after) and all(a is b for a, b in zip(before, after, strict=True))
