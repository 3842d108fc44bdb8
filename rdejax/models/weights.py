"""Weights on disk: one safetensors file per model, with what is needed to rebuild it."""

import dataclasses
import json
import os
from importlib import resources
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import nnx
from safetensors import SafetensorError

from rdejax.errors import RdejaxError
from rdejax.files import read_arrays, write_arrays
from rdejax.memory.registry import require_asked
from rdejax.models.protocol import System
from rdejax.models.registry import find_system, fresh_rule, names, outline
from rdejax.models.settings import Settings
from rdejax.nn.constants import WEIGHTS, constants_of

FORMAT = "rdejax-1"
_RULE = "memory/"  # weights of the memory rule


@dataclasses.dataclass(frozen=True)
class StoredModel:
    """Weights, and what they are of.

    Attributes:
      system: registered name of the system.
      config: sizes of its networks, fields of its `Config`.
      settings: how it is run.
      arrays: weights by "/"-joined path.
      source: where they come from, for messages.
    """

    system: str
    config: dict[str, Any]
    settings: Settings
    arrays: dict[str, np.ndarray]
    source: str

    def build(self, **overrides: Any) -> System:
        """The model.

        Args:
          **overrides: changes to the settings, see `Settings.override`. Where they change the
            memory rule, weights of the rule that it has no use for are left out, and those it lacks
            are fresh if the rule may start so (`MemoryRule.neutral_start`).

        Raises:
          RdejaxError: weights that do not fit or are not finite, unknown settings, or a memory rule
            in a Python file that `overrides` do not name.
        """
        require_asked(self.settings.memory, overrides.get("memory"), self.source)
        settings = self.settings.override(**overrides) if overrides else self.settings
        model = outline(self.system, config=self.config, settings=settings)
        same = settings.memory == self.settings.memory
        same = same and settings.memory_settings == self.settings.memory_settings
        arrays = self.arrays if same else {**neutral_weights(model), **self.arrays}
        learned = [path for path in shapes_of(model) if path.startswith(_RULE)]
        lacking = [path for path in learned if path not in arrays]
        another = settings.memory != self.settings.memory
        if lacking and (another or lacking == learned):
            names = ", ".join(lacking[:3]) + (", ..." if len(lacking) > 3 else "")
            raise RdejaxError(
                f"{self.source}: has no weights for memory {settings.memory!r}, which learns some "
                f"({names}); train it from these with rdejax train RECIPE --init {self.source} "
                f"--init-partial --memory {settings.memory}"
            )
        load_into(model, arrays, source=self.source, ignore=() if same else (_RULE,))
        return model


def bundled() -> dict[str, Path]:
    """Names and files of the weights that come with the package."""
    folder = Path(str(resources.files("rdejax"))) / "weights"
    return {path.stem: path for path in sorted(folder.glob("*.safetensors"))}


def find_weights(name: str) -> Path:
    """The file of bundled weights, or the one that a path names.

    Args:
      name: of bundled weights, of a file, or of a folder with weights.safetensors (of a finished
        run or a conversion) or latest.safetensors (of a run that goes on) in it.

    Returns:
      An existing path; a folder if it has neither of those files.

    Raises:
      RdejaxError: there is no such thing.
    """
    known = bundled()
    if name in known:
        return known[name]
    path = Path(name)
    for file in (path / "weights.safetensors", path / "latest.safetensors"):
        if file.is_file():
            return file
    if name in names():
        raise RdejaxError(
            f"no weights come with {name!r} (only with {', '.join(known) or 'none'}); convert the "
            f"published ones with rdejax convert and give the resulting file"
        )
    if not path.exists():
        raise RdejaxError(
            f"{name}: no such model or weights file; models with weights: {', '.join(known)}"
        )
    return path


def shapes_of(module: nnx.Module) -> dict[str, tuple[int, ...]]:
    """Shape of every weight of a module, by "/"-joined path."""
    flat = nnx.to_flat_state(nnx.state(module, WEIGHTS))
    return {"/".join(map(str, path)): tuple(leaf.shape) for path, leaf in flat}


def weights_of(model: nnx.Module) -> dict[str, np.ndarray]:
    """All weights of a module by "/"-joined path, as float32 arrays."""
    flat = nnx.to_flat_state(nnx.state(model, WEIGHTS))
    return {"/".join(map(str, path)): np.asarray(leaf[...]) for path, leaf in flat}


def neutral_weights(model: System) -> dict[str, np.ndarray]:
    """Weights that a model's memory rule may start with unseen, by path; none if it must learn.

    Args:
      model: the model; its own weights may be shapes only.
    """
    if not getattr(getattr(model, "memory", None), "neutral_start", False):
        return {}
    return {f"{_RULE}{path}": array for path, array in weights_of(fresh_rule(model)).items()}


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
    state = nnx.state(model, WEIGHTS)
    flat = {"/".join(map(str, path)): leaf for path, leaf in nnx.to_flat_state(state)}
    # Checkpoints of a run hold a rule's constants, too, which it makes itself.
    constants = {"/".join(map(str, path)) for path, _ in nnx.to_flat_state(constants_of(model))}
    weights = {
        k: v
        for k, v in weights.items()
        if k in flat or not (k in constants or k.startswith(ignore or ("\0",)))
    }
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
    # Widened here: on the device each shape would be a compilation.
    filled = [
        (
            path,
            leaf.replace(jax.device_put(np.array(weights["/".join(map(str, path))], np.float32))),
        )
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
    write_arrays(path, arrays, metadata)


def read_model(path: str | os.PathLike) -> StoredModel:
    """What `save_weights` wrote.

    Raises:
      RdejaxError: missing, truncated, or not weights of this library, or without what they are of.
    """
    arrays, metadata = read_weights(path)
    if metadata.get("format") != FORMAT:
        raise RdejaxError(
            f"{path}: not weights of this library (no {FORMAT} mark); "
            "convert PyTorch files with rdejax convert"
        )
    try:
        system, config = metadata["arch"], json.loads(metadata["config"])
        kind = find_system(system).default_settings
        settings = kind.from_dict(json.loads(metadata["settings"]))
        if not isinstance(config, dict):
            raise TypeError("config is not a JSON object")
    except RdejaxError as error:
        raise RdejaxError(f"{path}: {error}") from None
    except (KeyError, ValueError, TypeError, AttributeError, RecursionError) as error:
        raise RdejaxError(
            f"{path}: its description of the model is missing or damaged "
            f"({type(error).__name__}: {error}); export or convert the weights again"
        ) from None
    return StoredModel(system, config, settings, arrays, source=str(path))


def read_weights(path: str | os.PathLike) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Arrays and metadata of a weights file.

    Raises:
      RdejaxError: missing, truncated, changed since it was written, or not a weights file.
    """
    path = Path(path)
    if not path.is_file():
        raise RdejaxError(f"{path}: no such weights file; give a .safetensors file or a model name")
    try:
        return read_arrays(path)
    except (SafetensorError, OSError) as error:
        raise RdejaxError(
            f"{path}: not a readable safetensors file ({error}); "
            "convert PyTorch files with rdejax convert"
        ) from None
