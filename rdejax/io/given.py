"""Masks that people give to start objects: which frames have them, and which ids begin there."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rdejax.errors import RdejaxError
from rdejax.io.datasets import FRAME_SUFFIXES, list_files
from rdejax.io.mask_reader import MAX_OBJECTS, Background, MaskReader
from rdejax.io.masks import IdMask, holds_void_only, new_ids, settle_void
from rdejax.io.snap import colour_name
from rdejax.io.video import FrameSource

__all__ = [
    "MAX_OBJECTS",
    "Background",
    "GivenMasks",
    "MaskReader",
    "collect_masks",
    "load_given_masks",
]


@dataclasses.dataclass(frozen=True)
class GivenMasks:
    """The masks that start a video's objects.

    Attributes:
      masks: frame number -> uint8 [H, W] holding the ids that are told of in that frame: only those
        that are new in it, or all where later masks correct; never empty, and every mask holds an
        object.
      objects: id -> number of the frame whose mask introduced it.
      colours: id -> RGB colour in the files, for ids that came from colours.
      notes: sentences worth showing to the user.
      files: what was read.
    """

    masks: dict[int, IdMask]
    objects: dict[int, int]
    colours: dict[int, tuple[int, int, int]]
    notes: tuple[str, ...] = ()
    files: tuple[Path, ...] = ()


def load_given_masks(
    path: str | Path,
    source: FrameSource,
    *,
    max_objects: int = MAX_OBJECTS,
    by_name: bool = False,
    **options: Any,
) -> GivenMasks:
    """Reads the mask of the first frame, or a folder of masks named like their frames.

    Args:
      path: one mask file, which belongs to the first frame; or a folder.
      source: the video.
      max_objects: most objects accepted.
      by_name: one file that is named like a frame belongs to that one.
      **options: see `collect_masks`.

    Raises:
      RdejaxError: see `MaskReader.read`; a mask of no frame; no object in any mask.
    """
    path = Path(path)
    if path.is_dir():
        files = list_files(path, FRAME_SUFFIXES)
        if not files:
            raise RdejaxError(f"{path}: no masks (PNG files) in this folder")
        found = _match(files, source)
        return collect_masks(found, source.size, max_objects=max_objects, **options)
    if not path.exists():
        raise RdejaxError(f"{path}: no such mask; give the first frame's mask or a folder of masks")
    frame = _frame_numbers(source)(path.stem) if by_name else None
    given = collect_masks({frame or 0: path}, source.size, max_objects=max_objects, **options)
    if path.stem in source.names[1:] and frame is None:
        note = (
            f"{path} is taken as the mask of the first frame ({source.names[0]}); "
            f"put it in a folder and pass that, if it belongs to frame {path.stem}"
        )
        given = dataclasses.replace(given, notes=(*given.notes, note))
    return given


def collect_masks(
    files: Mapping[int, Path],
    size: tuple[int, int],
    *,
    max_objects: int = MAX_OBJECTS,
    merge_objects: bool = False,
    drop_void: bool = False,
    all_masks: bool = False,
    last_first: bool = False,
    snap: bool = False,
    background: Background = "auto",
) -> GivenMasks:
    """Reads masks in frame order and keeps of each one the ids not seen before.

    Args:
      files: frame number -> mask file.
      size: (H, W) of the video.
      max_objects: most objects accepted.
      merge_objects: everything but the background is the one object 1.
      drop_void: `VOID` marks pixels without truth and is background; but where it is the only id of
        the first mask with any, that mask is black and white and holds the object 1.
      all_masks: keep ids seen before, too, for later masks to correct them.
      last_first: the masks are met from the last frame to the first.
      snap: see `MaskReader`.
      background: see `MaskReader`.

    Raises:
      RdejaxError: see `MaskReader.read`; no object in any mask; more objects than `max_objects`.
    """
    reader = MaskReader(max_objects, snap=snap, background=background)
    masks: dict[int, IdMask] = {}
    objects: dict[int, int] = {}
    empty, unused = [], []
    for frame in sorted(files, reverse=last_first):
        mask = reader.read(files[frame], size)
        if drop_void:
            mask = settle_void(mask, binary=not objects and holds_void_only(mask))
        if merge_objects:
            mask = (mask > 0).astype(np.uint8)
        ids, new = new_ids(mask, ()), new_ids(mask, objects)
        if not ids:
            empty.append(files[frame])
        objects.update(dict.fromkeys(new, frame))
        if new != ids and not all_masks:
            unused.append(files[frame])
            mask = np.where(np.isin(mask, new), mask, 0)
        if new or (ids and all_masks):
            masks[frame] = mask
        if len(objects) > max_objects:
            raise RdejaxError(
                f"{files[frame]}: with this mask the video has {len(objects)} objects, more than "
                f"{max_objects}; {_raised(len(objects))}"
            )
    if not masks:
        where = files[min(files)]
        raise RdejaxError(
            f"{where}: the mask holds no object (every pixel is background); mark an object"
            + (f" in it or in one of the other {len(files) - 1} masks" if len(files) > 1 else "")
        )
    notes = _notes(reader, len(files), size)
    if empty:
        notes.append(f"{len(empty)} of {len(files)} masks hold no object (the first: {empty[0]})")
    if unused:
        notes.append(
            f"{len(unused)} of {len(files)} masks hold objects that began with another one and are "
            f"not used for those (the first: {unused[0]}); pass --use-all-masks to correct with "
            "them"
        )
    return GivenMasks(masks, objects, reader.colours, tuple(notes), tuple(files.values()))


def _notes(reader: MaskReader, count: int, size: tuple[int, int]) -> list[str]:
    """What the reader did to masks, in sentences."""
    notes = []
    if reader.stretched:
        notes.append(
            f"{len(reader.stretched)} of {count} masks miss the size {size[1]}x{size[0]}"
            f" by a pixel or two and were stretched to it (the first: {reader.stretched[0]})"
        )
    # The same remark on a hundred masks is one; those of snapping differ in numbers.
    said: dict[str, list[tuple[str, str]]] = {}
    for path, text in reader.remarks:
        said.setdefault(text.split()[0], []).append((path, text))
    for (path, text), *more in said.values():
        notes.append(f"{path}{f' (and {len(more)} more)' if more else ''}: {text}")
    for index, colour in sorted(reader.colours.items()) if reader.snap else ():
        notes.append(f"{colour_name(colour)} is object {index}")
    return notes


def _raised(count: int) -> str:
    if count > 255:
        return "255 is the most there can be"
    return f"pass --max-objects {count} or more if that is meant"


def _match(files: Sequence[Path], source: FrameSource) -> dict[int, Path]:
    """Frame number of each mask, by the same name or else by the same number ("5" and "00005")."""
    frame_of = _frame_numbers(source)
    matched: dict[int, Path] = {}
    for file in files:
        index = frame_of(file.stem)
        if index is None:
            raise RdejaxError(
                f"{file}: no frame of this name in {source.path}, whose frames are called "
                f"{source.names[0]} to {source.names[-1]}; name each mask like its frame"
            )
        if index in matched:
            raise RdejaxError(
                f"{file}: frame {source.names[index]} has two masks ({matched[index].name} too); "
                "keep one"
            )
        matched[index] = file
    return matched


def _frame_numbers(source: FrameSource) -> Callable[[str], int | None]:
    """Finds the number of the frame that a mask's name means; see `_match`."""
    exact = {name: index for index, name in enumerate(source.names)}
    numbers: dict[int, int] = {}
    for index, name in enumerate(source.names):
        if name.isdecimal():
            numbers.setdefault(int(name), index)

    def find(stem: str) -> int | None:
        index = exact.get(stem)
        return numbers.get(int(stem)) if index is None and stem.isdecimal() else index

    return find
