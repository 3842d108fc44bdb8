"""Reference vectors of RDE-VOS and STCN, and models with the weights they were made with.

The vectors come from the published PyTorch code (see data/reference/README.md); weights are a
function of PyTorch names and shapes (data/fill.py), converted as a checkpoint would be.
"""

import functools
import importlib.util
import json
from pathlib import Path
from typing import Any

import numpy as np

from rdejax.convert import convert_state_dict
from rdejax.models import System

DATA = Path(__file__).parent / "data"
REFERENCE = DATA / "reference"
NETS = ("rde", "rde_single", "rde_repeat2", "stcn")
SWEM_NETS = ("swem", "swem_resnet18")
MEAN = np.array((0.485, 0.456, 0.406), np.float32)
STD = np.array((0.229, 0.224, 0.225), np.float32)


@functools.cache
def _fill() -> Any:
    spec = importlib.util.spec_from_file_location("reference_fill", DATA / "fill.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.fill


def fill(name: str, shape: Any) -> np.ndarray:
    """One entry of a reference state dict, see data/fill.py."""
    return _fill()(name, shape)


@functools.cache
def manifest() -> dict[str, Any]:
    """`state_dicts[net]`: name -> shape, in order; `num_parameters[net]`."""
    swem = json.loads((REFERENCE / "swem_manifest.json").read_text())
    stored = json.loads((REFERENCE / "rde_manifest.json").read_text())
    largest = stored["rde_repeat2"]
    rde = {k: v for k, v in largest.items() if ".se_block." not in k}
    stcn = {k: v for k, v in rde.items() if not k.startswith("mem_compress.")}
    single = {**stcn, "value_encoder.conv1.weight": [64, 4, 7, 7]}
    state_dicts = {"rde": rde, "rde_single": single, "rde_repeat2": largest, "stcn": stcn}
    return {
        "state_dicts": {**state_dicts, **swem["state_dicts"]},
        "num_parameters": {**stored["num_parameters"], **swem["num_parameters"]},
    }


@functools.cache
def filled_state_dict(net: str) -> dict[str, np.ndarray]:
    """The reference weights of a network ("rde", "rde_single", ...) in PyTorch's layouts."""
    fill = _fill()
    return {name: fill(name, shape) for name, shape in manifest()["state_dicts"][net].items()}


def filled_model(net: str, **settings: Any) -> System:
    """The system with the reference weights, through the converter.

    Args:
      net: "rde", "rde_repeat2", "stcn", "swem", "swem_resnet18", or
        "rde_single" (its value encoder keeps 4 channels).
      **settings: as for `rdejax.load_model`.
    """
    state_dict = filled_state_dict(net)
    return convert_state_dict(state_dict, source=net, keep_single_object=True, **settings)


@functools.cache
def stages() -> dict[str, np.ndarray]:
    """The arrays of rde_stages.npz; those in the README's list keep every fourth channel."""
    with np.load(REFERENCE / "rde_stages.npz") as file:
        return {name: file[name] for name in file.files}


@functools.cache
def swem_stages() -> dict[str, np.ndarray]:
    """The arrays of swem_stages.npz, see data/reference/README.md."""
    with np.load(REFERENCE / "swem_stages.npz") as file:
        return {name: file[name] for name in file.files}


def swem_initial_bases(objects: int, samples: int = 1) -> np.ndarray:
    """The bases the published run started from, float32 [samples, objects, 2, 128, 128].

    Axes after the object: background and foreground, key channel, base.
    """
    draw = np.random.default_rng(0).standard_normal((samples, objects, 2, 128, 128))
    kappa = (draw * np.sqrt(2 / 128)).astype(np.float32)
    return kappa / (np.linalg.norm(kappa, axis=3, keepdims=True) + 1e-6)


def normalised(frames: np.ndarray) -> np.ndarray:
    """uint8 [..., 3] RGB to what the published networks take."""
    return (frames.astype(np.float32) / 255 - MEAN) / STD


def pad16(x: np.ndarray) -> np.ndarray:
    """[..., H, W] zero padded to multiples of 16; the odd pixel goes to the bottom and right."""
    extra = [-x.shape[-2] % 16, -x.shape[-1] % 16]
    pads = [(e // 2, e - e // 2) for e in extra]
    return np.pad(x, [(0, 0)] * (x.ndim - 2) + pads)
