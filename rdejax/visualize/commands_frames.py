"""Commands that paint given masks: `overlay`, `sheet`, `strip`."""

import dataclasses
from pathlib import Path
from typing import Annotated

import tyro

from rdejax.errors import RdejaxError
from rdejax.io.overlay import render_overlay
from rdejax.io.video import FrameSource, open_frames
from rdejax.visualize.files import (
    IMAGE_SUFFIXES,
    MaskFolder,
    check_output,
    choose_frames,
    read_frames,
    save_image,
)
from rdejax.visualize.grid import fit
from rdejax.visualize.sheet import contact_sheet
from rdejax.visualize.strip import comparison_strip
from rdejax.visualize.style import TILE

Video = Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="VIDEO")]
Folder = Annotated[Path, tyro.conf.arg(metavar="DIR")]
Image = Annotated[Path, tyro.conf.arg(metavar="FILE")]
Frames = Annotated[tuple[int, ...], tyro.conf.arg(metavar="N ...")]


def check_tile(width: int, alpha: float = 0.5) -> None:
    """Refuses settings that give no picture.

    Raises:
      RdejaxError: a tile without pixels, an opacity outside of [0, 1].
    """
    if not 16 <= width <= 8192:
        raise RdejaxError(f"width={width}: give the width of a tile in pixels, 16 to 8192")
    if not 0 <= alpha <= 1:
        raise RdejaxError(f"alpha={alpha}: give an opacity from 0 (contours only) to 1")


def all_numbers(source: FrameSource) -> list[int]:
    """Numbers of the frames of a video."""
    return list(range(len(source)))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Overlay:
    """One frame with its mask: a colour per object (DAVIS palette by id) and a contour."""

    video: Video
    """Video file or folder of frames."""
    masks: Folder
    """Folder of masks named like the frames, such as infer.py's output."""
    output: Image
    """Picture to write, .png or .jpg."""
    frame: int = 0
    """Number of the frame, from 0."""
    alpha: float = 0.5
    """Opacity of the colour; 0 leaves the contours."""
    width: int | None = None
    """Width of the picture; the frame's own unless given."""

    def run(self) -> None:
        """Writes the picture."""
        check_output(self.output, IMAGE_SUFFIXES)
        check_tile(TILE if self.width is None else self.width, self.alpha)
        source = open_frames(self.video)
        choose_frames(all_numbers(source), [self.frame], 1)
        mask = MaskFolder(self.masks, source).read(self.frame)
        image = render_overlay(
            read_frames(source, [self.frame])[self.frame], mask, alpha=self.alpha
        )
        save_image(self.output, image if self.width is None else fit(image, self.width))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sheet:
    """Contact sheet: frames with overlays and frame numbers, evenly spaced or chosen."""

    video: Video
    """Video file or folder of frames."""
    masks: Folder
    """Folder of masks named like the frames, such as infer.py's output."""
    output: Image
    """Picture to write, .png or .jpg."""
    frames: Frames = ()
    """Numbers of the frames, from 0; evenly spaced unless given."""
    count: int = 8
    """How many, if evenly spaced."""
    columns: int = 4
    """Tiles in a row."""
    alpha: float = 0.5
    """Opacity of the colour; 0 leaves the contours."""
    width: int = TILE
    """Width of a tile in pixels."""

    def run(self) -> None:
        """Writes the picture."""
        check_output(self.output, IMAGE_SUFFIXES)
        check_tile(self.width, self.alpha)
        if self.columns < 1:
            raise RdejaxError(f"columns={self.columns}: give 1 or more")
        source = open_frames(self.video)
        numbers = choose_frames(all_numbers(source), self.frames, self.count)
        folder = MaskFolder(self.masks, source)
        masks = [folder.read(number) for number in numbers]
        frames = read_frames(source, numbers)
        image = contact_sheet(
            [frames[number] for number in numbers],
            masks,
            numbers,
            columns=self.columns,
            width=self.width,
            alpha=self.alpha,
        )
        save_image(self.output, image)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Strip:
    """Comparison: a row per method and one for the truth, the worst errors boxed.

    Without --truth the other methods are held against the first.
    """

    video: Video
    """Video file or folder of frames."""
    results: Annotated[tuple[Path, ...], tyro.conf.arg(metavar="DIR ...")]
    """Folders of masks named like the frames, one per method."""
    output: Image
    """Picture to write, .png or .jpg."""
    truth: Annotated[Path | None, tyro.conf.arg(metavar="DIR")] = None
    """Folder of true masks."""
    names: Annotated[tuple[str, ...], tyro.conf.arg(metavar="NAME ...")] = ()
    """Names of the methods; those of the folders unless given."""
    frames: Frames = ()
    """Numbers of the frames, from 0; evenly spaced unless given."""
    count: int = 4
    """How many, if evenly spaced."""
    boxes: int = 3
    """Most boxes in a tile."""
    void: int | None = None
    """Id of the truth that marks pixels without truth."""
    alpha: float = 0.5
    """Opacity of the colour; 0 leaves the contours."""
    width: int = TILE
    """Width of a tile in pixels."""

    def run(self) -> None:
        """Writes the picture."""
        check_output(self.output, IMAGE_SUFFIXES)
        check_tile(self.width, self.alpha)
        if self.boxes < 0:
            raise RdejaxError(f"boxes={self.boxes}: give 0 or more")
        if len(self.results) + (self.truth is not None) < 2:
            raise RdejaxError(
                "nothing to compare: give --truth, or two or more folders after --results"
            )
        names = self._names()
        source = open_frames(self.video)
        numbers = choose_frames(all_numbers(source), self.frames, self.count)
        results = {}
        for name, path in zip(names, self.results, strict=True):
            folder = MaskFolder(path, source)
            results[name] = [folder.read(number) for number in numbers]
        truth = None
        if self.truth is not None:
            folder = MaskFolder(self.truth, source)
            truth = [folder.read(number) for number in numbers]
        frames = read_frames(source, numbers)
        image = comparison_strip(
            [frames[number] for number in numbers],
            numbers,
            results,
            truth,
            boxes=self.boxes,
            void=self.void,
            width=self.width,
            alpha=self.alpha,
        )
        save_image(self.output, image)

    def _names(self) -> list[str]:
        names = list(self.names) or [path.resolve().name for path in self.results]
        if len(names) != len(self.results):
            raise RdejaxError(
                f"{len(names)} --names for {len(self.results)} --results; give one for each"
            )
        if len({*names, "truth"}) <= len(names):
            raise RdejaxError(
                f"the methods are called {', '.join(names)}: give each a different name with "
                '--names, none of them "truth"'
            )
        return names
