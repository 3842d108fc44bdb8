"""The PyTorch peers of the benchmarks give this library's masks; where PyTorch is there.

`RDEJAX_PEER_PYTHON` names an interpreter that has it, if this one does not.
"""

import importlib.util
import os
import sys
from pathlib import Path

import numpy as np
import pytest

from rdejax.models import create
from rdejax.models.weights import save_weights

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
PYTHON = os.environ.get("RDEJAX_PEER_PYTHON", sys.executable)
if "RDEJAX_PEER_PYTHON" not in os.environ and importlib.util.find_spec("torch") is None:
    pytest.skip("needs PyTorch: rdejax[bench]", allow_module_level=True)

SMALL = {"key_depth": 18, "key_channels": 8, "value_channels": 16}
WIDTHS = {"hidden_dim": 6, "decoder_widths": (16, 8, 8)}
STORES = {"min_mid_term_frames": 2, "max_mid_term_frames": 3, "num_prototypes": 5}
SYSTEMS = {
    "rde": (SMALL, {"every": 2, "top_k": 7}),
    "stcn": (SMALL, {"every": 2, "top_k": 7}),
    "swem": (SMALL, {"every": 1, "bases": 6, "top_l": 3}),
    "xmem": (SMALL | WIDTHS, {"every": 2, "top_k": 7, **STORES}),
}


@pytest.fixture
def benchmark(monkeypatch):
    """The script as a module."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module("side_by_side")


@pytest.mark.parametrize("system", SYSTEMS)
def test_masks_are_ours(benchmark, system, tmp_path):
    sizes, settings = SYSTEMS[system]
    model = benchmark.with_contrast(create(system, config=sizes, **settings))
    save_weights(tmp_path / "weights.safetensors", model)
    clip = benchmark.made_up(model, frames=5, height=72, width=88, objects=2)
    np.savez(tmp_path / "clip.npz", **clip)
    job = {
        **benchmark.job_of(model),
        "weights": str(tmp_path / "weights.safetensors"),
        "clip": str(tmp_path / "clip.npz"),
        "masks": str(tmp_path / "masks.npy"),
        "dtype": "float32",
        "device": "cpu",
        "tf32": False,
        "compile": False,
    }
    benchmark.Peer(PYTHON, job).close()
    ours, theirs = benchmark.segmented(model, clip), np.load(tmp_path / "masks.npy")
    assert len(np.unique(ours)) > 1
    assert (ours == theirs).mean() > 0.999
