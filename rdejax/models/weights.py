"""Weights on disk: one safetensors file per model, with what is needed to rebuild it."""

import dataclasses
import json
import os
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import nnx
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from rdejax.errors import RdejaxError
from rdejax.models.protocol import System
from rdejax.nn.layers import Frozen

FORMAT = "rdejax-1"
_WEIGHTS = nnx.Any(nnx.Param, Frozen)


def weights_of(model: nnx.Module) -> dict[str, np.ndarray]:
    """All weights of a module by "/"-joined path, as float32 arrays."""
    flat = nnx.to_flat_state(nnx.state(model, _WEIGHTS))
    return {"/".join(map(str, path)): np.asarray(leaf[...]) for path, leaf in flat}


def load_into(
    model: nnx.Module, weights: dict[str, np.ndarray], *, source: str, ignore: tuple[str, ...] = ()
) -> None:
    """Puts weights into a module, in place, or changes nothing.

    Args:
      model: the module; its own weights may be shapes only (`rdejax.models.registry.outline`).
      weights: arrays by "/"-joined path; float16 is widened.
      source: where they come from, for messages.
      ignore: path prefixes whose unexpected weights are left out.

    Raises:
      RdejaxError: naming all missing, unexpected and misshapen weights, or one that is not finite.
    """
    state = nnx.state(model, _WEIGHTS)
    flat = {"/".join(map(str, path)): leaf for path, leaf in nnx.to_flat_state(state)}
    weights = {k: v for k, v in weights.items() if k in flat or not k.startswith(ignore or ("\0",))}
    problems = [f"missing {k}" for k in flat if k not in weights]
    problems += [f"unexpected {k}" for k in weights if k not in flat]
    problems += [
        f"{k} has shape {tuple(weights[k].shape)}, expected {tuple(flat[k].shape)}"
        for k in flat
        if k in weights and tuple(weights[k].shape) != tuple(flat[k].shape)
    ]
    if problems:
        shown = "; ".join(problems[:20]) + ("; ..." if len(problems) > 20 else "")
        raise RdejaxError(
            f"{source}: {len(problems)} weights do not fit ({shown}); "
            "give weights of the same system and configuration"
        )
    for name, array in weights.items():
        if not np.isfinite(array).all():
            raise RdejaxError(f"{source}: {name} holds NaN or infinity; the file is of no use")
    filled = [
        (path, leaf.replace(jnp.asarray(weights["/".join(map(str, path))], jnp.float32)))
        for path, leaf in nnx.to_flat_state(state)
    ]
    nnx.update(model, nnx.from_flat_state(filled))


def save_weights(
    path: str | os.PathLike, model: System, *, half: bool = False, **extra: Any
) -> None:
    """Writes a model's weights and description; to a temporary name first, so never half a file.

    Args:
      path: of the .safetensors file.
      model: the model.
      half: store float16 (half the size, relative error up to 5e-4).
      **extra: further JSON-able metadata (training step, data, ...).

    Raises:
      OSError: the file cannot be written.
    """
    path = Path(path)
    arrays = weights_of(model)
    if half:
        arrays = {k: v.astype(np.float16) for k, v in arrays.items()}
    metadata = {
        "format": FORMAT,
        "arch": model.name,
        "config": json.dumps(dataclasses.asdict(model.config)),
        "settings": json.dumps(model.settings.as_dict()),
        "extra": json.dumps(extra),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".partial")
    try:
        save_file({k: np.ascontiguousarray(v) for k, v in arrays.items()}, temporary, metadata)
        mask = os.umask(0)
        os.umask(mask)
        temporary.chmod(0o666 & ~mask)  # safetensors makes files that only their owner can read
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def read_weights(path: str | os.PathLike) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Arrays and metadata of a weights file.

    Raises:
      RdejaxError: missing, truncated, or not a weights file.
    """
    path = Path(path)
    if not path.is_file():
        raise RdejaxError(f"{path}: no such weights file; give a .safetensors file or a model name")
    try:
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise RdejaxError(
            f"{path}: not a readable safetensors file ({error}); "
            "convert PyTorch files with python -m rdejax.convert"
        ) from None
    return arrays, metadata
