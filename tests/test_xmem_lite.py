"""xmem-lite: it starts as rde-lite with XMem's memory; all else is the body it shares with xmem."""

import runpy
from pathlib import Path

import jax
import numpy as np
import pytest

import rdejax
from rdejax.models import create
from rdejax.models.registry import outline
from rdejax.models.weights import StoredModel, load_into, shapes_of, weights_of
from rdejax.train.initial_weights import build_model, completed, initial_weights
from rdejax.train.objectives.unroll import UnrollObjective
from rdejax.train.system import objective_of

TINY = {"key_channels": 16, "value_channels": 32, "decoder_widths": (16, 16, 16)}
STORES = {
    "min_mid_term_frames": 2,
    "max_mid_term_frames": 4,
    "num_prototypes": 3,
    "max_long_term_elements": 6,
}
RUN = {"every": 1, "size": None, "memory": "xmem", **STORES}


@pytest.mark.slow
def test_fresh_it_is_rde_lite_with_xmem_s_memory() -> None:
    """Until it is trained the keys are as before and the sensory memory is not read."""
    rng = np.random.default_rng(0)
    frames = rng.integers(0, 255, (7, 32, 48, 3), np.uint8)
    mask = np.zeros((32, 48), np.uint8)
    mask[4:20, 4:24], mask[18:30, 28:44] = 3, 8
    body = create("rde-lite", config=TINY, **RUN)
    model = create("xmem-lite", config=TINY, **RUN)
    told: list[str] = []
    load_into(model, completed(model, weights_of(body), source="w", tell=told.append), source="w")
    assert len(told) == 1 and "start at random" in told[0]  # and nothing given is left unused
    want = rdejax.segment_video(body, frames, mask, return_probs=True)
    stream = rdejax.stream(model)
    got = stream.push_probs(frames, {0: mask})[1]
    np.testing.assert_allclose(got, want, atol=2e-4)
    assert got[1:].argmax(1).std() > 0  # the random network tells something apart
    memory = stream.state.memory
    assert int(memory.long.valid.sum()) == 6 and int(memory.written[0]) == 7
    assert float(np.abs(stream.state.hidden).max()) > 1e-3


def test_the_bundled_weights_of_rde_lite_fit() -> None:
    """All but the compressor of its memory and what its decoder sees of the latest masks."""
    shapes, given = shapes_of(outline("xmem-lite")), initial_weights("rde-lite")
    left = {name for name, a in given.items() if shapes.get(name) != a.shape}
    assert {name.split("/")[0] for name in left} == {"memory", "place"}
    missing = {name.split("/")[0] for name in set(shapes) - set(given)}
    assert missing == {"anisotropy", "decoder", "value_encoder"}


def test_without_a_sensory_memory_it_has_none_of_its_weights() -> None:
    names = shapes_of(outline("xmem-lite", config={"hidden_dim": 0}))
    assert not [n for n in names if "deep_update" in n or "hidden_update" in n or "sensed" in n]


@pytest.mark.slow
def test_consolidation_loses_little() -> None:
    """After 60 memorised frames of a scene that stands still, but for noise and a moving disc.

    At most one pixel in 200 differs from what an unbounded memory finds, with the networks of the
    bundled rde-lite.
    """
    rng = np.random.default_rng(0)
    back = np.asarray(jax.image.resize(rng.uniform(0, 255, (6, 10, 3)), (96, 160, 3), "cubic"))
    y, x = np.mgrid[:96, :160]
    frames, truth = [], []
    for t in range(61):
        disc = (y - 48) ** 2 + (x - 80 - 20 * np.sin(t / 8)) ** 2 < 22**2
        frame = np.where(disc[..., None], (230, 200, 40), back) + rng.normal(0, 6, (96, 160, 3))
        frames.append(np.clip(frame, 0, 255).astype(np.uint8))
        truth.append(disc)
    model = build_model(_recipe(), lambda text: None)
    stored = StoredModel("xmem-lite", {}, model.settings, weights_of(model), "fresh")
    masks = {}
    for long_term in (True, False):
        run = stored.build(every=1, size=None, enable_long_term=long_term)
        stream = rdejax.stream(run)
        masks[long_term] = stream.push(np.stack(frames), {0: truth[0].astype(np.uint8)})
        if long_term:
            assert int(stream.state.memory.long.valid.sum()) == 128 * 11
    assert (masks[True] != masks[False]).mean() <= 0.005
    found, wanted = masks[True] > 0, np.stack(truth)
    assert (found & wanted).sum() > 0.8 * (found | wanted).sum()  # and it is the object


def _recipe():
    path = Path(__file__).parents[1] / "configs" / "xmem_lite.py"
    return runpy.run_path(str(path))["config"]


def test_recipe() -> None:
    config = _recipe()
    assert (config.system, config.init, config.init_partial) == ("xmem-lite", "rde-lite", True)
    assert isinstance(objective_of(config), UnrollObjective)
