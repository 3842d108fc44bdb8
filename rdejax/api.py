"""Loading a model and segmenting a video that is in memory."""

import dataclasses
import json
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np

from rdejax.convert.build import shapes_of
from rdejax.errors import RdejaxError
from rdejax.models import System, names
from rdejax.models.registry import outline
from rdejax.models.settings import Settings
from rdejax.models.weights import FORMAT, load_into, read_weights, weights_of
from rdejax.propagate.slots import starting_ids
from rdejax.propagate.stream import Stream


def bundled() -> dict[str, Path]:
    """Names and files of the weights that come with the package."""
    folder = Path(str(resources.files("rdejax"))) / "weights"
    return {path.stem: path for path in sorted(folder.glob("*.safetensors"))}


def _weights_file(name: str) -> Path:
    known = bundled()
    if name in known:
        return known[name]
    path = Path(name)
    if (path / "weights.safetensors").is_file():
        return path / "weights.safetensors"
    if name in names():
        raise RdejaxError(
            f"no weights come with {name!r} (only with {', '.join(known) or 'none'}); convert the "
            f"published ones with python -m rdejax.convert and give the resulting file"
        )
    if not path.exists():
        raise RdejaxError(
            f"{name}: no such model or weights file; models with weights: {', '.join(known)}"
        )
    return path


def load_model(name_or_path: str, **settings: Any) -> System:
    """A model with its weights, ready to segment.

    Args:
      name_or_path: name of bundled weights ("rde-lite"), a .safetensors file (as `train.py` and
        `python -m rdejax.convert` write), the work folder of a training run, or a PyTorch .pth of a
        published RDE or STCN network.
      **settings: overrides: every, size, memory, pad, or a setting of the memory rule such as top_k
        or strategy.

    Returns:
      The system; `segment_video` and `stream` take it.

    Raises:
      RdejaxError: no such model or file, weights that do not fit, NaN in weights, unknown settings.
    """
    path = _weights_file(str(name_or_path))
    if path.suffix in (".pth", ".pt", ".pkl", ".tar"):
        from rdejax.convert import convert_file

        return convert_file(path, **settings)
    if path.is_dir():
        from rdejax.train.restore import load_run

        return _with_settings(load_run(path), settings, str(path))
    arrays, metadata = read_weights(path)
    if metadata.get("format") != FORMAT:
        raise RdejaxError(
            f"{path}: not weights of this library (no {FORMAT} mark); "
            "convert PyTorch files with python -m rdejax.convert"
        )
    stored = Settings.from_dict(json.loads(metadata["settings"]))
    return _build(
        metadata["arch"], json.loads(metadata["config"]), stored, arrays, settings, str(path)
    )


def _with_settings(model: System, settings: dict[str, Any], source: str) -> System:
    """The model with other settings, which may mean another memory rule."""
    if not settings:
        return model
    arrays = weights_of(model)
    return _build(
        model.name, dataclasses.asdict(model.config), model.settings, arrays, settings, source
    )


def _build(
    name: str,
    config: dict[str, Any],
    stored: Settings,
    arrays: dict[str, np.ndarray],
    settings: dict[str, Any],
    source: str,
) -> System:
    chosen = stored.override(**settings) if settings else stored
    model = outline(name, config=config, settings=chosen)
    learned = [path for path in shapes_of(model) if path.startswith("memory/")]
    if learned and not any(path.startswith("memory/") for path in arrays):
        raise RdejaxError(
            f"{source}: has no weights for memory {chosen.memory!r}, which learns some; train it "
            f"from these with train.py --init {source} --memory {chosen.memory}"
        )
    # Another rule, or a strategy without the embedding, has no use for the SAMs' weights.
    changed = chosen.memory != stored.memory or "strategy" in settings
    load_into(model, arrays, source=source, ignore=("memory/",) if changed else ())
    return model


def stream(model: System, **options: Any) -> Stream:
    """A video in progress, for videos of any length or live sources; see `Stream`."""
    return Stream(model, **options)


def segment_video(
    model: System,
    frames: np.ndarray,
    first_mask: np.ndarray | Mapping[int, np.ndarray],
    *,
    return_probs: bool = False,
    **options: Any,
) -> np.ndarray:
    """Masks of all frames from the mask of one frame, or of the frames where objects appear.

    Args:
      model: see `load_model`.
      frames: uint8 [T, H, W, 3] RGB.
      first_mask: id mask uint8 [H, W] of frame 0 (0 background), or masks by frame index.
      return_probs: return probabilities instead.
      **options: of `Stream`: size, chunk, max_objects, and what the memory rule takes for each
        object (SWEM's `initial_bases`, [objects, 2, ck, k], ascending by id).

    Returns:
      uint8 [T, H, W] ids, or with `return_probs` float32 [T, O + 1, H, W]: background, then the
      objects by ascending id.

    Raises:
      RdejaxError: wrong shapes or types, no object in any mask, more objects than `max_objects`.
    """
    masks = first_mask if isinstance(first_mask, Mapping) else {0: first_mask}
    masks = {int(t): np.asarray(mask) for t, mask in masks.items()}
    starts = starting_ids(masks)
    if not starts:
        raise RdejaxError("no object in the mask: every pixel is 0; give ids from 1 to 255")
    for name in set(options) & set(model.object_inputs):
        options[name] = _by_id(name, options[name], {i for ids in starts for i in ids})
    video = Stream(model, **options)
    if return_probs:
        return video.push_probs(frames, masks)[1]
    return video.push(frames, masks)


def _by_id(name: str, values: Any, ids: set[int]) -> Any:
    """Arrays for each object by its id; an array has them in the ids' order."""
    if isinstance(values, Mapping):
        return values
    if len(values) != len(ids):
        raise RdejaxError(
            f"{name} has {len(values)} entries, but the masks have {len(ids)} objects; give one "
            "for each object"
        )
    return dict(zip(sorted(ids), values, strict=True))
