"""Loading a model and segmenting a video that is in memory."""

from collections.abc import Mapping
from typing import Any, Literal, overload

import numpy as np
from numpy.typing import NDArray

from rdejax.errors import RdejaxError
from rdejax.hub import locate
from rdejax.models import System
from rdejax.models.weights import read_model
from rdejax.models.workdir import read_workdir
from rdejax.propagate.ids import as_array, checked_index, checked_mask
from rdejax.propagate.slots import starting_ids
from rdejax.propagate.stream import Stream


class _Own:
    """Stands for the model's own value, where None means something else."""

    def __repr__(self) -> str:
        return "<the model's own>"


_OWN: Any = _Own()

stream = Stream


def load_model(
    name_or_path: str,
    *,
    memory: str = _OWN,
    every: int = _OWN,
    size: int | None = _OWN,
    enlarge: float = _OWN,
    zoom: float = _OWN,
    near: float = _OWN,
    pad: int = _OWN,
    precision: Literal["float32", "bfloat16"] = _OWN,
    **settings: Any,
) -> System:
    """A model with its weights, ready to segment.

    Args:
      name_or_path: name of bundled weights ("rde-lite"), a .safetensors file (as `rdejax train` and
        `rdejax convert` write), the work folder of a training run, or a PyTorch .pth of a
        published network; or "hf://OWNER/NAME", weights on the Hugging Face Hub (needs
        `rdejax[hub]`; see `rdejax.hub.download` for what happens offline).
      memory: name of the memory rule, or a Python file that registers one.
      every: memorise every n-th frame, 1 or more.
      size: shorter side, in pixels, that frames are resized to before the network, 16 or more; None
        keeps the source's. Masks always come back at the source's size.
      enlarge: how many times larger the frames of smaller videos are made, at most, towards `size`.
      zoom: how many times larger than `size` frames are worked at, at most, for small objects.
      near: how strongly a pixel goes to the object, of those that claim it, whose latest mask is
        nearest, in logits for each 16 pixels; 0: not at all.
      pad: sides are padded to multiples of this, a multiple of 16.
      precision: "bfloat16" for accelerators, see `Settings`; on CPUs streams refuse it.
      **settings: settings of the memory rule (`top_k`, `tau`, ...) or of the system, by name; those
        that are not given are the model's own. Unknown ones are refused, and the known ones named.

    The bundled weights of "rde-lite" are for non-commercial use only: they were trained on DAVIS,
    whose frames and masks are offered under CC BY-NC 4.0. The code is under Apache-2.0.

    Returns:
      The system; `segment_video` and `stream` take it.

    Raises:
      RdejaxError: no such model or file, weights that do not fit, NaN in weights, unknown settings,
        or a memory rule in a Python file that only the weights name: a program runs where `memory`
        names it, and not otherwise.
    """
    own = {
        "memory": memory,
        "every": every,
        "size": size,
        "enlarge": enlarge,
        "zoom": zoom,
        "near": near,
        "pad": pad,
        "precision": precision,
    }
    settings |= {name: value for name, value in own.items() if value is not _OWN}
    path = locate(str(name_or_path))
    if path.suffix in (".pth", ".pt", ".pkl", ".tar"):
        from rdejax.convert import convert_file

        return convert_file(path, **settings)
    if path.is_dir():
        stored = read_workdir(path, settings.get("memory"))
    else:
        stored = read_model(path)
    return stored.build(**settings)


@overload
def segment_video(
    model: System,
    frames: np.ndarray,
    first_mask: np.ndarray | Mapping[int, np.ndarray],
    *,
    return_probs: Literal[False] = False,
    size: int | None = None,
    chunk: int | None = None,
    encode_batch: int | None = None,
    max_objects: int | None = None,
    **options: Any,
) -> NDArray[np.uint8]: ...


@overload
def segment_video(
    model: System,
    frames: np.ndarray,
    first_mask: np.ndarray | Mapping[int, np.ndarray],
    *,
    return_probs: Literal[True],
    size: int | None = None,
    chunk: int | None = None,
    encode_batch: int | None = None,
    max_objects: int | None = None,
    **options: Any,
) -> NDArray[np.float32]: ...


def segment_video(
    model: System,
    frames: np.ndarray,
    first_mask: np.ndarray | Mapping[int, np.ndarray],
    *,
    return_probs: bool = False,
    size: int | None = None,
    chunk: int | None = None,
    encode_batch: int | None = None,
    max_objects: int | None = None,
    **options: Any,
) -> NDArray[np.uint8] | NDArray[np.float32]:
    """Masks of all frames from the mask of one frame, or of the frames where objects appear.

    Args:
      model: see `load_model`.
      frames: uint8 [T, H, W, 3] RGB.
      first_mask: id mask uint8 [H, W] of frame 0 (0 background), or masks by frame index.
      return_probs: return probabilities instead.
      size: shorter side the frames are resized to; default: the model's setting.
      chunk: frames per compiled call, where that many are at hand; default: a few on CPUs, many on
        accelerators.
      encode_batch: frames of a chunk encoded as one batch; default: as many as pays.
      max_objects: object slots to refuse more than; default: as many as the masks hold.
      **options: others of `Stream`, what the memory takes for each object (SWEM's `initial_bases`,
        [objects, 2, ck, k], ascending by id), and what the system takes for each frame
        (`System.frame_inputs`, arrays [T, ...]).

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
    video = Stream(
        model,
        size=size,
        chunk=chunk,
        encode_batch=encode_batch,
        max_objects=max_objects,
        **options,
    )
    results = video.submit(frames, masks, beside, want_probs=return_probs, last=True)
    return results.probs() if return_probs else results.masks()


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
