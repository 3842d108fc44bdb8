"""Reference vectors of STM, and the system with the weights they were made with.

As in helpers_reference: weights are a function of PyTorch names and shapes (data/fill.py), here
times gains that keep the numbers of the untrained network in a useful range.
"""

import functools
import importlib.util
import json
from typing import Any

import numpy as np
from helpers_reference import DATA, REFERENCE

from rdejax.convert import convert_state_dict
from rdejax.models import System

# First match wins: text in the name, first input channel it is for, gain.
GAINS = (
    ("Encoder_M.conv1_", 0, 6.0),
    ("KV_M_r4.Key.weight", 0, 0.4),
    ("KV_Q_r4.Key.weight", 0, 0.4),
    ("KV_M_r4.Value.weight", 0, 0.6),
    ("Decoder.convFM.weight", 512, 0.25),
    (".convFS.weight", 0, 0.3),
    ("Decoder.pred2.weight", 0, -0.4),
    ("Decoder.pred2.bias", 0, -290.0),
)


@functools.cache
def stm_manifest() -> dict[str, Any]:
    """`state_dict`: name -> shape, in order; `num_parameters`; `weights_checksum`."""
    return json.loads((REFERENCE / "stm_manifest.json").read_text())


@functools.cache
def stm_state_dict() -> dict[str, np.ndarray]:
    """The reference weights in PyTorch's layouts."""
    spec = importlib.util.spec_from_file_location("reference_fill", DATA / "fill.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    out = {}
    for name, shape in stm_manifest()["state_dict"].items():
        array = module.fill(name, shape)
        for text, first, gain in GAINS:
            if text in name:
                part = array[:, first:] if first else array
                part *= np.float32(gain)
                break
        out[name] = array
    return out


def stm_model(**settings: Any) -> System:
    """The system with the reference weights, through the converter.

    Args:
      **settings: as for `rdejax.load_model`.
    """
    return convert_state_dict(stm_state_dict(), source="stm", **settings)


@functools.cache
def stm_stages() -> dict[str, np.ndarray]:
    """The arrays of stm_stages.npz, sub-sampled as the README tells."""
    with np.load(REFERENCE / "stm_stages.npz") as file:
        return {name: file[name] for name in file.files}
