"""Reference vectors of XMem, and the system with the weights they were made with.

As in helpers_reference: weights are a function of PyTorch names and shapes (data/fill.py), here
times gains that keep the numbers of the untrained network in a useful range.
"""

import functools
import json
from typing import Any

import numpy as np
from helpers_reference import REFERENCE, fill, stages

from rdejax.convert import convert_state_dict
from rdejax.models import System

# First match wins: text in the name, first input channel it is for, gain.
GAINS = (
    ("value_encoder.conv1.weight", 3, 3.0),
    ("key_proj.key_proj.weight", 0, 1.6),
    ("key_proj.d_proj", 0, 0.5),
    ("key_proj.e_proj", 0, 0.5),
    ("hidden_update.g", 0, 0.3),
    (".transform.weight", 0, 0.3),
    ("decoder.pred.weight", 0, 0.5),
    ("decoder.pred.bias", 0, -0.5),
)
XMEM_NETS = ("xmem", "xmem_single_object", "xmem_no_sensory")


@functools.cache
def xmem_manifest() -> dict[str, Any]:
    """`state_dict`: name -> shape, in order; `num_parameters`, `weights_checksum` by network."""
    return json.loads((REFERENCE / "xmem_manifest.json").read_text())


def xmem_shapes(net: str) -> dict[str, list[int]]:
    """Names and shapes of the state dict of one of `XMEM_NETS`."""
    shapes = dict(xmem_manifest()["state_dict"])
    if net == "xmem_single_object":
        shapes["value_encoder.conv1.weight"] = [64, 4, 7, 7]
    if net == "xmem_no_sensory":
        gone = ("decoder.hidden_update.", "value_encoder.hidden_reinforce.")
        shapes = {name: shape for name, shape in shapes.items() if not name.startswith(gone)}
        for name in ("downsample", "conv1"):
            shapes[f"decoder.fuser.block1.{name}.weight"] = [512, 1536, 3, 3]
    return shapes


def xmem_state_dict(net: str = "xmem") -> dict[str, np.ndarray]:
    """The reference weights in PyTorch's layouts."""
    out = {}
    for name, shape in xmem_shapes(net).items():
        array = fill(name, shape)
        for text, first, gain in GAINS:
            if text in name:
                part = array[:, first:] if first else array
                part *= np.float32(gain)
                break
        out[name] = array
    return out


def xmem_model(net: str = "xmem", **settings: Any) -> System:
    """The system with the reference weights, through the converter.

    Args:
      net: one of `XMEM_NETS`.
      **settings: as for `rdejax.load_model`.
    """
    state_dict = xmem_state_dict(net)
    return convert_state_dict(state_dict, source=net, keep_single_object=True, **settings)


@functools.cache
def xmem_stages() -> dict[str, np.ndarray]:
    """The arrays of xmem_stages.npz, sub-sampled as the README tells."""
    with np.load(REFERENCE / "xmem_stages.npz") as file:
        return {name: file[name] for name in file.files}


@functools.cache
def xmem_videos() -> dict[str, np.ndarray]:
    """The arrays of xmem_videos.npz, by RUN/NAME."""
    with np.load(REFERENCE / "xmem_videos.npz") as file:
        return {name: file[name] for name in file.files}


def xmem_frames() -> np.ndarray:
    """uint8 [12, 100, 148, 3], the frames of the videos."""
    return np.concatenate([stages()["frames"], xmem_stages()["frames"]])
