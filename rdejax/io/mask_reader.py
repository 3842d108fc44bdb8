"""Masks that people draw: what their colours mean, and which pixels cannot have been meant.

Ids are the user's: a palette index or a grey value is kept as it is. Images of distinct colours get
their ids from the DAVIS colours, or in sorted order, and keep them through the video.
"""

import dataclasses
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
from jaxtyping import Bool, Shaped, UInt8

from rdejax.errors import BadFile, RdejaxError
from rdejax.io.masks import AS_WRITTEN, IdMask, Pixels, agree, load_pixels
from rdejax.io.palette import davis_colour_ids
from rdejax.io.snap import snap

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
        # Black and white beside other masks in colours: white is one of the colours.
        if values.ndim == 3 and agree(values) and not np.isin(values, (0, 255)).all():
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
