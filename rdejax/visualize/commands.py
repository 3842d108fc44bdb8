"""Commands that paint given masks and plot measurements; what all commands share."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import numpy as np
import tyro
from jaxtyping import UInt8

from rdejax.errors import RdejaxError
from rdejax.folders import keep_inputs
from rdejax.io.overlay import render_overlay
from rdejax.io.video import FrameSource, open_frames
from rdejax.visualize.charts import save_figure
from rdejax.visualize.grid import Picture, fit
from rdejax.visualize.measurements import component_times, growth_curves, read_runs
from rdejax.visualize.picture_files import (
    CHART_SUFFIXES,
    IMAGE_SUFFIXES,
    MaskFolder,
    check_output,
    choose_frames,
    frames_by_number,
    save_image,
)
from rdejax.visualize.sheet import contact_sheet
from rdejax.visualize.strip import comparison_strip
from rdejax.visualize.style import TILE

Folder = Annotated[Path, tyro.conf.arg(metavar="DIR")]
Frames = Annotated[tuple[int, ...], tyro.conf.arg(metavar="N ...")]


@dataclasses.dataclass(frozen=True, kw_only=True)
class OfVideo:
    """What all pictures of a video share."""

    video: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="VIDEO")]
    """Video file or folder of frames."""
    output: Annotated[Path, tyro.conf.arg(metavar="FILE")]
    """Picture to write, .png or .jpg."""
    width: int = TILE
    """Width of a tile in pixels."""

    def open_video(
        self,
        suffixes: Sequence[str] = IMAGE_SUFFIXES,
        *,
        alpha: float = 0.5,
        least: dict[str, int] | None = None,
    ) -> FrameSource:
        """The video, once the settings are known to give a picture.

        Args:
          suffixes: that the output may have.
          alpha: opacity of the paint.
          least: name of a setting -> the least it may be.

        Raises:
          RdejaxError: a setting that gives no picture; no such video.
        """
        check_output(self.output, suffixes)
        if not 16 <= self.width <= 8192:
            raise RdejaxError(f"width={self.width}: give the width of a tile in pixels, 16 to 8192")
        if not 0 <= alpha <= 1:
            raise RdejaxError(f"alpha={alpha}: give an opacity from 0 (contours only) to 1")
        for name, low in (least or {}).items():
            if getattr(self, name) < low:
                raise RdejaxError(f"{name}={getattr(self, name)}: give {low} or more")
        source = open_frames(self.video)
        keep_inputs([self.video, *getattr(source, "files", ())], self.output)
        return source


@dataclasses.dataclass(frozen=True, kw_only=True)
class OfMasks(OfVideo):
    """What the pictures of given masks share."""

    frames: Frames = ()
    """Numbers of the frames, from 0; evenly spaced unless given."""
    count: int = 8
    """How many, if evenly spaced."""
    alpha: float = 0.5
    """Opacity of the colour; 0 leaves the contours."""

    def read(
        self, source: FrameSource, *folders: Path
    ) -> tuple[list[int], list[Picture], list[list[UInt8[np.ndarray, "_ _"]]]]:
        """Numbers of the frames to show, the frames, and the masks of each folder for them."""
        numbers = choose_frames(range(len(source)), self.frames, self.count)
        masks = []
        for path in folders:
            folder = MaskFolder(path, source)
            keep_inputs(folder.files.values(), self.output)
            masks.append([folder.read(number) for number in numbers])
        frames = frames_by_number(source, numbers)
        return numbers, [frames[number] for number in numbers], masks


@dataclasses.dataclass(frozen=True, kw_only=True)
class Overlay(OfVideo):
    """One frame with its mask: a colour per object (DAVIS palette by id) and a contour."""

    masks: Folder
    """Folder of masks named like the frames, such as rdejax infer's output."""
    frame: int = 0
    """Number of the frame, from 0."""
    alpha: float = 0.5
    """Opacity of the colour; 0 leaves the contours."""
    width: int | None = None  # type: ignore[assignment]
    """Width of the picture; the frame's own unless given."""

    def run(self) -> None:
        """Writes the picture."""
        chosen = OfMasks(
            video=self.video,
            output=self.output,
            width=TILE if self.width is None else self.width,
            frames=(self.frame,),
        )
        _, (frame,), ((mask,),) = chosen.read(chosen.open_video(alpha=self.alpha), self.masks)
        image = render_overlay(frame, mask, alpha=self.alpha)
        save_image(self.output, image if self.width is None else fit(image, self.width))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sheet(OfMasks):
    """Contact sheet: frames with overlays and frame numbers, evenly spaced or chosen."""

    masks: Folder
    """Folder of masks named like the frames, such as rdejax infer's output."""
    columns: int = 4
    """Tiles in a row."""

    def run(self) -> None:
        """Writes the picture."""
        source = self.open_video(alpha=self.alpha, least={"columns": 1})
        numbers, frames, (masks,) = self.read(source, self.masks)
        look = {"columns": self.columns, "width": self.width}
        save_image(self.output, contact_sheet(frames, masks, numbers, alpha=self.alpha, **look))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Strip(OfMasks):
    """Comparison: a row per method and one for the truth, the worst errors boxed.

    Without --truth the other methods are held against the first.
    """

    results: Annotated[tuple[Path, ...], tyro.conf.arg(metavar="DIR ...")]
    """Folders of masks named like the frames, one per method."""
    truth: Annotated[Path | None, tyro.conf.arg(metavar="DIR")] = None
    """Folder of true masks."""
    names: Annotated[tuple[str, ...], tyro.conf.arg(metavar="NAME ...")] = ()
    """Names of the methods; those of the folders unless given."""
    count: int = 4
    """How many, if evenly spaced."""
    boxes: int = 3
    """Most boxes in a tile."""
    void: int | None = None
    """Id of the truth that marks pixels without truth."""

    def run(self) -> None:
        """Writes the picture."""
        folders = [*self.results, *([] if self.truth is None else [self.truth])]
        if len(folders) < 2:
            raise RdejaxError(
                "nothing to compare: give --truth, or two or more folders after --results"
            )
        names = self._names()
        source = self.open_video(alpha=self.alpha, least={"boxes": 0})
        numbers, frames, masks = self.read(source, *folders)
        image = comparison_strip(
            frames,
            numbers,
            dict(zip(names, masks, strict=False)),
            None if self.truth is None else masks[-1],
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


@dataclasses.dataclass(frozen=True, kw_only=True)
class OfRuns:
    """What charts of measurements share."""

    files: Annotated[
        tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="JSON [JSON ...]")
    ]
    """What a benchmark wrote, or files of that form."""
    output: Annotated[Path, tyro.conf.arg(metavar="FILE")]
    """Chart to write, .png, .pdf or .svg."""

    def read(self) -> tuple[list[dict], str]:
        """The runs of all files, and the files' names."""
        check_output(self.output, CHART_SUFFIXES)
        keep_inputs(self.files, self.output)
        if not self.files:
            raise RdejaxError("nothing to plot: give one or more JSON files of a benchmark")
        return [run for path in self.files for run in read_runs(path)], ", ".join(
            map(str, self.files)
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Times(OfRuns):
    """Time per frame by stage, a bar for each system: encode, read, decode, memorise.

    Plots what benchmarks/profile_inference.py wrote.
    """

    labels: Annotated[tuple[str, ...], tyro.conf.arg(metavar="NAME ...")] = ()
    """Names of the runs; model and number of objects unless given."""

    def run(self) -> None:
        """Writes the chart."""
        runs, source = self.read()
        if self.labels and len(self.labels) != len(runs):
            raise RdejaxError(
                f"{len(self.labels)} --labels for {len(runs)} runs in {source}; give one for each"
            )
        save_figure(self.output, component_times(runs, self.labels or None, source))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Growth(OfRuns):
    """Time per frame and size of the memory along a long video, a line for each rule.

    Plots what benchmarks/stream_growth.py wrote.
    """

    log: bool = False
    """Logarithmic axes for time and size."""

    def run(self) -> None:
        """Writes the chart."""
        runs, source = self.read()
        save_figure(self.output, growth_curves(runs, log=self.log, source=source))
