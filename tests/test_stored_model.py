"""Weights and what they are of: what must fit, and what may stay out."""

import numpy as np
import pytest

from rdejax.errors import RdejaxError
from rdejax.models.registry import find_system, outline
from rdejax.models.weights import StoredModel, shapes_of

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
    assert rule_weights(with_gate.build()) == {"memory/gate"}
    for changes in ({"gated": False}, {"memory": "bank"}, {"memory": "average", "decay": 0.1}):
        assert not rule_weights(with_gate.build(**changes))
    # What else changes leaves the weights as necessary as they are.
    assert with_gate.build(every=7).settings.every == 7
    without = StoredModel("rde-lite", SIZES, stored("bank").settings, with_gate.arrays, "a file")
    with pytest.raises(RdejaxError, match="a file: 1 weights do not fit .unexpected memory/gate"):
        without.build(every=7)
    with pytest.raises(RdejaxError, match="has no weights for memory .*which learns some"):
        stored("bank").build(memory=str(path))


def test_sizes_are_those_of_the_config() -> None:
    model = stored("bank").build()
    assert (model.config.key_channels, model.config.decoder_widths) == (4, (16, 8, 8))
    with pytest.raises(RdejaxError, match="'rde-lite' has no size 'depth'; it has key_channels, "):
        outline("rde-lite", config={"depth": 3})
