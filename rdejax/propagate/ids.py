"""The user's ids and arrays: what is taken of them, and what they become."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float32, UInt8

from rdejax.errors import RdejaxError
from rdejax.models.protocol import System
from rdejax.propagate.slots import Layout

Given = Mapping[str, Mapping[int, np.ndarray] | np.ndarray]


def as_array(values: Any, what: str) -> np.ndarray:
    """What was given as an array.

    Raises:
      RdejaxError: it cannot be one, as a list of rows of several lengths.
    """
    try:
        return np.asarray(values)
    except (ValueError, TypeError) as error:
        reason = (str(error).splitlines() or ["?"])[0]
        raise RdejaxError(f"{what}: not an array ({reason}); give a NumPy array") from None


def checked_index(index: Any) -> int:
    """The number of a frame.

    Raises:
      RdejaxError: no whole number.
    """
    if isinstance(index, bool) or not isinstance(index, int | np.integer):
        raise RdejaxError(f"a mask is given for frame {index!r}; give whole numbers of frames")
    return int(index)


def checked_ids(ids: Any) -> list[int]:
    """Ids of objects, each once, in the order given.

    Raises:
      RdejaxError: no collection of whole numbers.
    """
    if not isinstance(ids, Iterable) or (isinstance(ids, np.ndarray) and ids.ndim != 1):
        raise RdejaxError(f"ids={ids!r}: give a list of ids, such as [3]")
    found = list(ids)
    for number in found:
        if isinstance(number, bool | np.bool_) or not isinstance(number, int | np.integer):
            raise RdejaxError(f"{number!r} is no id of an object; give whole numbers")
    return list(dict.fromkeys(map(int, found)))


def checked_mapping(values: Any, what: str, example: str) -> Mapping[Any, Any]:
    """What was given by name or number; None is nothing.

    Args:
      values: what was given.
      what: it is, for the message.
      example: of what to give.

    Raises:
      RdejaxError: no mapping.
    """
    if values is None:
        return {}
    if not isinstance(values, Mapping):
        raise RdejaxError(f"{what} came as {type(values).__name__}; give a mapping: {example}")
    return values


def checked_frames(frames: Any, size: tuple[int, int] | None) -> UInt8[np.ndarray, "n h w 3"]:
    """The frames as an array.

    Args:
      frames: what was given.
      size: (H, W) of the video so far; None: these are its first frames.

    Raises:
      RdejaxError: other than uint8 [n, H, W, 3], of another size, or without a pixel.
    """
    frames = as_array(frames, "frames")
    if frames.ndim != 4 or frames.shape[-1] != 3 or frames.dtype != np.uint8:
        raise RdejaxError(
            f"frames are {frames.dtype} {list(frames.shape)}; give uint8 [frames, H, W, 3] RGB"
        )
    if 0 in frames.shape[1:3]:
        raise RdejaxError(f"frames are {frames.shape[2]}x{frames.shape[1]}: there is no pixel")
    if size is not None and frames.shape[1:3] != size:
        h, w = size
        raise RdejaxError(
            f"frames are {frames.shape[2]}x{frames.shape[1]}, the video so far was {w}x{h}; "
            "resize them, or start another stream"
        )
    return frames


def checked_mask(
    index: int, mask: Any, count: int, size: tuple[int, int]
) -> UInt8[np.ndarray, "h w"]:
    """A mask as an array of ids.

    Args:
      index: frame that it is given for.
      mask: what was given.
      count: frames there are.
      size: (H, W) of the video.

    Raises:
      RdejaxError: no such frame; other than integers [H, W] from 0 to 255.
    """
    mask = as_array(mask, f"the mask of frame {index}")
    if not 0 <= index < count:
        raise RdejaxError(f"a mask is given for frame {index}, but there are {count} frames")
    if mask.dtype == bool:
        mask = mask.astype(np.uint8)
    if mask.ndim != 2 or not np.issubdtype(mask.dtype, np.integer):
        raise RdejaxError(
            f"the mask of frame {index} is {mask.dtype} {list(mask.shape)}; "
            "give an integer id mask [H, W]"
        )
    if mask.shape != size:
        h, w = size
        raise RdejaxError(
            f"the mask of frame {index} is {mask.shape[1]}x{mask.shape[0]}, the video {w}x{h}; "
            "resize it without interpolation (nearest)"
        )
    if mask.min() < 0 or mask.max() > 255:
        raise RdejaxError(f"the mask of frame {index} has ids outside 0..255; renumber them")
    return mask.astype(np.uint8)


def checked_beside(beside: Mapping[str, Any], count: int, model: System) -> dict[str, np.ndarray]:
    """What was given for each frame beside its picture, as arrays.

    Args:
      beside: arrays by name.
      count: frames there are.
      model: the system.

    Raises:
      RdejaxError: a name that the system does not take, another number of entries than frames, or
        see `System.checked_beside`.
    """
    out = {}
    for name, values in beside.items():
        if name not in model.frame_inputs:
            known = ", ".join(model.frame_inputs) or "nothing"
            raise RdejaxError(
                f"{name!r} was given for each frame, but {model.name!r} takes {known} beside frames"
            )
        out[name] = as_array(values, name)
        if out[name].shape[:1] != (count,):
            entries = out[name].shape[0] if out[name].ndim else "no"
            raise RdejaxError(
                f"{name} has {entries} entries for {count} frames; give one for each frame"
            )
    return model.checked_beside(out)


def one_hot(
    mask: UInt8[np.ndarray, "h w"], ids: Sequence[int], slots: Sequence[int], total: int
) -> tuple[Float32[np.ndarray, "o h w"], Bool[np.ndarray, " o"]]:
    """Masks of the ids in their slots, zeros in the others, and which slots they are."""
    masks = np.zeros((total, *mask.shape), np.float32)
    valid = np.zeros(total, bool)
    for number, slot in zip(ids, slots, strict=True):
        masks[slot] = mask == number
        valid[slot] = True
    return masks, valid


def given_in_slots(
    given: Given, ids: Sequence[int], slots: Sequence[int], total: int
) -> dict[str, np.ndarray] | None:
    """What was given for these objects beside their masks, in their slots; zeros in the others.

    Args:
      given: by name; by id or, as an array, in the order of the ids.
      ids: the objects that start now.
      slots: their slots.
      total: number of slots.

    Raises:
      RdejaxError: an object without an entry, or entries of several shapes.
    """
    out = {}
    for name, values in given.items():
        if not isinstance(values, Mapping):
            if len(values) != len(ids):
                raise RdejaxError(
                    f"{name} has {len(values)} entries for the {len(ids)} objects of this "
                    "frame; give one for each, or a mapping from id to array"
                )
            values = dict(zip(sorted(ids), values, strict=True))
        missing = [number for number in ids if number not in values]
        if missing:
            raise RdejaxError(f"{name} has no entry for object {missing[0]}; give one for each")
        rows = [np.asarray(values[number]) for number in ids]
        if len({row.shape for row in rows}) > 1:
            raise RdejaxError(f"{name} has arrays of several shapes; give all the same one")
        out[name] = np.zeros((total, *rows[0].shape), np.float32)
        out[name][list(slots)] = rows
    return out or None


def id_of_label(layout: Layout) -> UInt8[np.ndarray, " labels"]:
    """The user's id of each label (0, then slots)."""
    table = np.zeros(layout.groups * layout.slots + 1, np.uint8)
    for number, slot in layout.ids.items():
        table[slot + 1] = number
    return table


def by_ascending_id(
    probs: Float32[np.ndarray, "n c H W"], ids_then: Mapping[int, int], ids: Sequence[int]
) -> Float32[np.ndarray, "n k H W"]:
    """Probabilities of background and slots as those of background and ids, ascending.

    Args:
      probs: as a system gives them.
      ids_then: slot of each id at the time of these frames.
      ids: all ids by now; those that were not there yet get 0.
    """
    out = np.zeros((probs.shape[0], len(ids) + 1, *probs.shape[2:]), np.float32)
    out[:, 0] = probs[:, 0]
    for k, number in enumerate(ids):
        if number in ids_then:
            out[:, k + 1] = probs[:, ids_then[number] + 1]
    return out
