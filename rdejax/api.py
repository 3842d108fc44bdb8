"""Loading a model and segmenting a video that is in memory."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from rdejax.errors import RdejaxError
from rdejax.models import System
from rdejax.models.weights import find_weights, read_model
from rdejax.models.workdir import read_workdir
from rdejax.propagate.ids import as_array, checked_index, checked_mask
from rdejax.propagate.slots import starting_ids
from rdejax.propagate.stream import Stream


def load_model(name_or_path: str, **settings: Any) -> System:
    """A model with its weights, ready to segment.

    Args:
      name_or_path: name of bundled weights ("rde-lite"), a .safetensors file (as `rdejax train` and
        `rdejax convert` write), the work folder of a training run, or a PyTorch .pth of a
        published RDE or STCN network.
      **settings: overrides: every, size, memory, pad, or a setting of the memory rule.

    Returns:
      The system; `segment_video` and `stream` take it.

    Raises:
      RdejaxError: no such model or file, weights that do not fit, NaN in weights, unknown settings,
        or a memory rule in a Python file that only the weights name: a program runs where `memory`
        names it, and not otherwise.
    """
    path = find_weights(str(name_or_path))
    if path.suffix in (".pth", ".pt", ".pkl", ".tar"):
        from rdejax.convert import convert_file

        return convert_file(path, **settings)
    if path.is_dir():
        stored = read_workdir(path, settings.get("memory"))
    else:
        stored = read_model(path)
    return stored.build(**settings)


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
      **options: of `Stream`: size, chunk, max_objects, what the memory takes for each object
        (SWEM's `initial_bases`, [objects, 2, ck, k], ascending by id), and what the system takes
        for each frame (`System.frame_inputs`, arrays [T, ...]).

    Returns:
      uint8 [T, H, W] ids, or with `return_probs` float32 [T, O + 1, H, W]: background, then the
      objects by ascending id.

    Raises:
      RdejaxError: wrong shapes or types, no object in any mask, more objects than `max_objects`.
    """
    masks = first_mask if isinstance(first_mask, Mapping) else {0: first_mask}
    masks = {
        checked_index(t): as_array(mask, f"the mask of frame {t}") for t, mask in masks.items()
    }
    for t, mask in masks.items():
        if mask.dtype != bool and not np.issubdtype(mask.dtype, np.number):
            checked_mask(t, mask, t + 1, mask.shape[:2])
    starts = starting_ids(masks)
    if not starts:
        raise RdejaxError("no object in the mask: every pixel is 0; give ids from 1 to 255")
    for name in set(options) & set(model.object_inputs):
        options[name] = _by_id(name, options[name], {i for ids in starts for i in ids})
    beside = {name: options.pop(name) for name in model.frame_inputs if name in options}
    video = Stream(model, **options)
    if return_probs:
        return video.push_probs(frames, masks, beside)[1]
    return video.push(frames, masks, beside)


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
