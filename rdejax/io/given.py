"""Masks that people give to start objects: which frames have them, and which ids begin there.

Ids are the user's: a palette index or a grey value is kept as it is. Images of distinct colours get
their ids from the DAVIS colours, or in sorted order, and keep them through the video.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
from jaxtyping import Bool, Shaped, UInt8

from rdejax.errors import BadFile, RdejaxError
from rdejax.io.datasets import FRAME_SUFFIXES, list_files
from rdejax.io.masks import (
    AS_WRITTEN,
    IdMask,
    Pixels,
    agree,
    holds_void_only,
    load_pixels,
    new_ids,
    settle_void,
)
from rdejax.io.palette import davis_colour_ids
from rdejax.io.snap import colour_name, snap
from rdejax.io.video import FrameSource

MAX_OBJECTS = 100

Background = Literal["auto", "black", "white"]
# Read as painted: the loss of compression is what snapping mends.
_TO_SNAP = dataclasses.replace(AS_WRITTEN, edges="cut")


class MaskReader:
    """Reads the masks of one video; remembers which colour became which id.

    Attributes:
      max_objects: most ids accepted, in one mask and in all of them.
      colours: id -> RGB colour in the file, for ids that came from colours.
      snap: give blurred and compressed masks the few colours that were meant (`rdejax.io.snap`).
      background: what is no object in pictures that are black and white or in colours. "auto" is
        black, and white where there is no black.
      stretched: files that missed the video's size by a pixel or two.
      remarks: files, and what was taken for what in them, where a person should know.
    """

    def __init__(
        self,
        max_objects: int = MAX_OBJECTS,
        *,
        snap: bool = False,
        background: Background = "auto",
    ):
        self.max_objects = max_objects
        self.snap = snap
        self.background = background
        self.stretched: list[Path] = []
        self.remarks: list[tuple[str, str]] = []
        self._ids: dict[tuple[int, int, int], int] = {}

    @property
    def colours(self) -> dict[int, tuple[int, int, int]]:
        """See the class."""
        return {index: colour for colour, index in self._ids.items()}

    def read(self, path: str | Path, size: tuple[int, int] | None = None) -> IdMask:
        """Reads one mask.

        Palette images keep their indices and greyscale ones their values, except that a mask of 0
        and 255 (or 65535) only, or of one bit, is the object 1. In images with colours, black and
        fully transparent pixels are background (see `background`), DAVIS colours get their DAVIS
        ids, and further colours get the lowest free ids, in the sorted order of the colours.

        Args:
          path: image file.
          size: (H, W) the mask must have; one that misses it by rounding (at most 2 pixels and
            0.5 %) is stretched to it, nearest neighbour.

        Returns:
          uint8 [H, W], possibly without any object.

        Raises:
          RdejaxError: unreadable; another size; more ids than `max_objects`, or ids that can only
            come from smoothed edges.
        """
        pixels = self._load(path)
        values = pixels.values // pixels.stretch if pixels.stretch > 1 else pixels.values
        if self.snap and not pixels.indexed and values.dtype == np.uint8:
            values = self._snapped(path, values)
        if values.ndim == 3 and agree(values):
            values = values[..., 0]
        if not pixels.indexed:
            values = self._without_background(path, values)
            values = _binary(values) if values.ndim == 2 else values
        if size is not None and values.shape[:2] != size:
            values = self._fit(path, values, size)
        if values.ndim == 3:
            return self._from_colours(path, values)
        found = np.unique(values)
        _check_plausible(path, values, found[found > 0].tolist(), self.max_objects)
        if found[-1] > 255:
            raise RdejaxError(
                f"{path}: the mask holds the id {found[-1]}; ids must be 1 to 255, renumber them"
            )
        return values.astype(np.uint8)

    def _load(self, path: str | Path) -> Pixels:
        try:
            return load_pixels(path, _TO_SNAP if self.snap else AS_WRITTEN, str(path))
        except BadFile as error:
            if error.problem != "lossy mask":
                raise
            mend = f"{error}, or pass --snap-mask to take its few true colours"
            raise BadFile(mend, error.problem) from None

    def _snapped(
        self, path: str | Path, values: UInt8[np.ndarray, "h w *rgb"]
    ) -> UInt8[np.ndarray, "h w 3"]:
        image = values if values.ndim == 3 else np.repeat(values[..., None], 3, axis=-1)
        result = snap(np.ascontiguousarray(image), str(path), self.max_objects + 1)
        if result.changed or len(np.unique(image.reshape(-1, 3), axis=0)) > len(result.colours):
            self.remarks.append((str(path), f"snapped to {result}"))
        return result.image

    def _without_background(
        self, path: str | Path, values: Shaped[np.ndarray, "h w *rgb"]
    ) -> Shaped[np.ndarray, "h w *rgb"]:
        """The same picture with 0 where the background is, which may be white."""
        if values.dtype != np.uint8:
            return values
        black, white = ((values == level) for level in (0, 255))
        if values.ndim == 3:
            black, white = black.all(axis=-1), white.all(axis=-1)
        mixed = white.any() and not white.all()
        if self.background == "white" or (self.background == "auto" and mixed and not black.any()):
            if self.background == "auto":
                text = (
                    "white was taken for the background, for there is no black; pass --background "
                    "black if it is an object"
                )
                self.remarks.append((str(path), text))
            return _inverted(values, white, black)
        around = np.concatenate([white[0], white[-1], white[:, 0], white[:, -1]])
        if self.background == "auto" and black.any() and around.mean() > 0.5:
            text = (
                "black was taken for the background and white, which surrounds it, for an object; "
                "pass --background white if it is the other way round"
            )
            self.remarks.append((str(path), text))
        return values

    def _fit(
        self, path: str | Path, values: Shaped[np.ndarray, "h w *rgb"], size: tuple[int, int]
    ) -> Shaped[np.ndarray, "H W *rgb"]:
        """Stretches a mask that misses the video's size by rounding (853 for 854) only."""
        height, width = values.shape[:2]
        if any(
            abs(have - want) > min(2, want / 200)
            for have, want in zip((height, width), size, strict=True)
        ):
            raise RdejaxError(
                f"{path}: the mask is {width}x{height} but the video is {size[1]}x{size[0]}; save "
                "the mask at the video's size, without smoothing"
            )
        self.stretched.append(Path(path))
        rows = (np.arange(size[0]) + 0.5) * height / size[0]
        columns = (np.arange(size[1]) + 0.5) * width / size[1]
        return values[rows.astype(int)][:, columns.astype(int)]

    def _from_colours(self, path: str | Path, image: UInt8[np.ndarray, "h w 3"]) -> IdMask:
        codes = image.astype(np.int32) @ np.array([1 << 16, 1 << 8, 1], np.int32)
        present = np.unique(codes)
        _check_plausible(path, codes, present[present > 0].tolist(), self.max_objects)
        colours = [(c >> 16, c >> 8 & 255, c & 255) for c in present.tolist() if c]
        known = davis_colour_ids()
        new = [colour for colour in colours if colour not in self._ids]
        # DAVIS colours first, so that another colour cannot take their ids.
        for colour in sorted(new, key=lambda colour: (colour not in known, colour)):
            taken = set(self._ids.values())
            index = known.get(colour, 0)
            if not index or index in taken:
                index = next((i for i in range(1, 256) if i not in taken), 0)
            if not index:
                raise RdejaxError(f"{path}: more than 255 colours in the masks of one video")
            self._ids[colour] = index
        ids = [0 if not c else self._ids[c >> 16, c >> 8 & 255, c & 255] for c in present.tolist()]
        return np.asarray(ids, np.uint8)[np.searchsorted(present, codes)]


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


def _inverted(
    values: UInt8[np.ndarray, "h w *rgb"],
    white: Bool[np.ndarray, "h w"],
    black: Bool[np.ndarray, "h w"],
) -> UInt8[np.ndarray, "h w *rgb"]:
    """White as background; black, which would be no object otherwise, as white."""
    out = values.copy()
    out[black] = 255
    out[white] = 0
    return out


def _binary(values: Shaped[np.ndarray, "h w"]) -> Shaped[np.ndarray, "h w"]:
    """Black and white only means one object, not the object number 255."""
    top = values.max(initial=0)
    if top in (255, 65535) and ((values == 0) | (values == top)).all():
        return (values > 0).astype(np.uint8)
    return values


def _check_plausible(
    path: str | Path, values: Shaped[np.ndarray, "h w"], ids: list[int], max_objects: int
) -> None:
    """Refuses smoothed, resized or lossily compressed masks, whose edges look like many ids."""
    if len(ids) > max_objects:
        many = f", or pass --max-objects {len(ids)} if it really has that many objects"
        raise RdejaxError(
            f"{path}: the mask holds {len(ids)} different ids, as smoothed or JPEG-compressed "
            "masks do, and photographs; save it as PNG without smoothing, or pass --snap-mask to "
            f"take its few true colours{many if len(ids) <= 255 else ''}"
        )
    if len(ids) < 2:
        return
    rims = [_is_rim(values == index) for index in ids]
    # One smoothed object on black: every id but the brightest is a rim. Otherwise: most are.
    shaded = all(rims[:-1]) and not rims[-1] and ids[-1] in (255, 65535)
    if shaded or (len(ids) >= 4 and sum(rims) > len(ids) / 2):
        raise RdejaxError(
            f"{path}: {sum(rims)} of the {len(ids)} ids in the mask are only thin, scattered "
            "pixels, as smoothed or JPEG-compressed edges give; save it as PNG without smoothing "
            "(anti-aliasing), or pass --snap-mask to take its few true colours"
        )


def _is_rim(pixels: Bool[np.ndarray, "h w"]) -> bool:
    """Whether pixels are too thin for any 3x3 square and spread over much more than their area."""
    rows, columns = np.flatnonzero(pixels.any(1)), np.flatnonzero(pixels.any(0))
    crop = pixels[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].astype(np.uint8)
    crop = np.pad(crop, 1)
    if cv2.erode(crop, np.ones((3, 3), np.uint8)).any():
        return False
    return crop.size > 6 * int(crop.sum())
