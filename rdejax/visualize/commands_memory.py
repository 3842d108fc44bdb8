"""Commands that run a system and look into its memory: `pca`, `relevance`, `bases`."""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import cv2
import numpy as np
import tyro

import rdejax
from rdejax.cli import name_and_value
from rdejax.errors import RdejaxError
from rdejax.folders import keep_inputs
from rdejax.io.given import GivenMasks, load_given_masks
from rdejax.io.overlay import render_overlay
from rdejax.io.video import FrameSource
from rdejax.models.protocol import System
from rdejax.propagate.geometry import Geometry
from rdejax.visualize.bases import base_rows
from rdejax.visualize.commands import Frames, OfVideo
from rdejax.visualize.embeddings import embedding_rows
from rdejax.visualize.grid import Picture, fit
from rdejax.visualize.picture_files import IMAGE_SUFFIXES, choose_frames, save_image
from rdejax.visualize.relevance import check_on_grid, mark_pixel, relevance, relevance_sheet
from rdejax.visualize.strides import covered, grid_positions, grid_shape, spread
from rdejax.visualize.trace import (
    Step,
    entry_names,
    entry_of_latest,
    memorises,
    walk,
    written_frames,
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Traced(OfVideo):
    """What the commands share: a video, its masks, a model and an object."""

    mask: Annotated[Path, tyro.conf.arg(metavar="PATH")]
    """Mask of the first frame, or a folder of masks named like their frames."""
    checkpoint: Annotated[str, tyro.conf.arg(metavar="NAME_OR_PATH")] = "rde-lite"
    """Bundled weights by name, or a checkpoint."""
    size: int | None = None
    """Shorter side the network works at; the model's own unless given."""
    every: int | None = None
    """Memorise every n-th frame; the model's own unless given."""
    top_k: int | Literal["all"] | None = None
    """Memory positions read per position; the model's own unless given."""
    set: Annotated[tuple[str, ...], tyro.conf.arg(metavar="NAME=VALUE ...")] = ()
    """Further settings of the model or its memory rule."""
    object: int | None = None
    """Id of the object; the lowest unless given."""

    def load(self, memory: str | None) -> System:
        """The model with these settings."""
        settings: dict[str, Any] = {"size": self.size, "every": self.every, "memory": memory}
        settings = {name: value for name, value in settings.items() if value is not None}
        if self.top_k is not None:
            settings["top_k"] = None if self.top_k == "all" else self.top_k
        settings |= dict(name_and_value(text, f"--set {text}") for text in self.set)
        return rdejax.load_model(self.checkpoint, **settings)

    def open(
        self, suffixes: Sequence[str] = IMAGE_SUFFIXES, **least: int
    ) -> tuple[FrameSource, GivenMasks, int]:
        """The video, its masks, and the object's id; see `OfVideo.open_video`.

        Raises:
          RdejaxError: unusable files or settings; the object is in no mask.
        """
        source = self.open_video(suffixes, least=least)
        given = load_given_masks(self.mask, source, max_objects=255)
        keep_inputs([self.mask, *given.files], self.output)
        number = min(given.objects) if self.object is None else self.object
        if number not in given.objects:
            known = ", ".join(map(str, sorted(given.objects)))
            raise RdejaxError(
                f"object {number} is in no mask of {self.mask}; choose one of {known} with --object"
            )
        return source, given, number

    def collect(
        self,
        model: System,
        video: tuple[FrameSource, GivenMasks, int],
        numbers: list[int],
        look: Callable[[Step], Any],
    ) -> tuple[list[Picture], list[np.ndarray], list[Any], Geometry]:
        """Of these frames: themselves, the object's masks, and what `look` finds after each."""
        source, given, number = video
        found = {}
        for step in steps_to(model, source, given, max(numbers)):
            if step.time in numbers:
                found[step.time] = (step.frame, step.mask_of(number), look(step))
        frames, masks, seen = map(list, zip(*(found[t] for t in numbers), strict=True))
        return frames, masks, seen, step.geometry


def steps_to(model: System, source: FrameSource, given: GivenMasks, last: int) -> Iterator[Step]:
    """Steps up to frame `last`, which the video must reach."""
    for step in walk(model, (frame for _, frame in source), given.masks):
        yield step
        if step.time == last:
            return
    raise RdejaxError(f"{source.path}: the video ends before frame {last}; choose an earlier one")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Pca(Traced):
    """Value embeddings as colours along a video: the recurrent embedding, the growing bank.

    The first three principal components of all values shown are red, green and blue. Of rde the
    recurrent embedding after each frame is shown, of bank the value it keeps of that frame; the
    contour is that of the mask each found.
    """

    memories: tuple[str, ...] = ("bank", "rde")
    """Memory rules by name, or .py files; one row each."""
    frames: Frames = ()
    """Numbers of memorised frames; evenly spaced unless given."""
    count: int = 5
    """How many, if evenly spaced."""

    def run(self) -> None:
        """Writes the picture."""
        source, given, number = video = self.open()
        if not self.memories:
            raise RdejaxError("no memory named: give --memories rde, bank or both")
        values: dict[str, list[np.ndarray]] = {}
        masks: dict[str, list[np.ndarray]] = {}
        for memory in self.memories:
            model = self.load(memory)
            memorised = memorises(model, given.masks)
            start, last = given.objects[number], len(source) - 1
            written = written_frames(memorised, start, last)
            numbers = choose_frames(written, self.frames, self.count)
            name = {"rde": "RDE", "bank": "growing bank"}.get(memory, memory)
            frames, masks[name], values[name], geometry = self.collect(
                model, video, numbers, lambda step, model=model: _value(model, step, number, given)
            )
        image = embedding_rows(frames, numbers, values, geometry, masks, width=self.width)
        save_image(self.output, image)


def _value(model: System, step: Step, number: int, given: GivenMasks) -> np.ndarray:
    """[h, w, cv] of an object in the entry that stands for this memorised frame."""
    held = step.memory_of(number)
    entries = held.rule.contents(held.state)
    index = None if entries is None else entry_of_latest(entries)
    if entries is None or index is None:
        written = written_frames(memorises(model, given.masks), given.objects[number], step.time)
        names = [name for name, _ in entry_names(entries, written)] if entries else []
        raise RdejaxError(
            f"memory {model.settings.memory!r} as it is set here keeps no recurrent embedding, but "
            f"{', '.join(names) or 'nothing on the grid'}; choose a model whose strategy has RDE"
        )
    return np.array(entries.value[held.slot, index], np.float32)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Asking(Traced):
    """What the commands share in which an object or a pixel of a frame asks."""

    pixel: Annotated[tuple[int, int] | None, tyro.conf.arg(metavar="X Y")] = None
    """Pixel of the video that looks; the mean over the object unless given."""

    def check_pixel(self, source: FrameSource) -> None:
        """Refuses a pixel that is not in the video."""
        if self.pixel is None:
            return
        (height, width), (x, y) = source.size, self.pixel
        if not (0 <= x < width and 0 <= y < height):
            raise RdejaxError(
                f"pixel {x} {y} is outside of the frame, which is {width}x{height}; "
                f"give --pixel X Y with X below {width} and Y below {height}"
            )

    def positions(self, step: Step, number: int) -> np.ndarray:
        """Query positions bool [h, w]; none for an object without a pixel."""
        if self.pixel is None:
            return covered(step.mask == number, step.geometry)
        rows, columns = grid_positions(step.geometry)
        positions = np.zeros(grid_shape(step.geometry), bool)
        positions[rows[self.pixel[1]], columns[self.pixel[0]]] = True
        return positions

    def asked(self, step: Step, number: int) -> Picture:
        """The frame with what asks."""
        if self.pixel is None:
            return render_overlay(step.frame, step.mask_of(number))
        return mark_pixel(step.frame, self.pixel)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Relevance(Asking):
    """Where a pixel or an object of a frame looks in the memory, and how much in each entry.

    Heat is the weight of each memory position in what the query reads, on one scale for all tiles;
    the per cents are the entries' shares in the whole weight.
    """

    frame: int
    """Number of the frame that looks; its memory is that of the frames before it."""
    memory: str | None = None
    """Memory rule by name, or a .py file; the model's own unless given."""
    count: int = 7
    """Most entries to show, those with the largest shares."""
    columns: int = 4
    """Tiles in a row."""

    def run(self) -> None:
        """Writes the picture."""
        source, given, number = self.open(count=1, columns=1)
        self._check(source, given.objects[number], number)
        model = self.load(self.memory)
        tiles: dict[int, Picture] = {}
        held = None
        for step in steps_to(model, source, given, self.frame):
            if step.time == self.frame - 1:
                # A copy: the next step takes the state back.
                held = step.memory_of(number)
            tiles[step.time] = fit(step.frame, self.width)
        positions = self.positions(step, number)
        if not positions.any():
            raise RdejaxError(
                f"object {number} has no pixel in frame {self.frame}; choose another frame, or "
                "a --pixel"
            )
        grid = grid_shape(step.geometry)
        assert held is not None
        entries = check_on_grid(model.settings.memory, held.rule.contents(held.state), grid)
        weights = relevance(held.rule, held.state, step.query(), positions, held.slot)
        weights = np.asarray(weights)
        memorised = memorises(model, given.masks)
        written = written_frames(memorised, given.objects[number], self.frame - 1)
        names = entry_names(entries, written)
        shares = weights.sum(axis=(1, 2))
        largest = np.argsort(-shares[: len(names)], kind="stable")[: self.count]
        shown = np.sort(largest)
        sizes = [tiles[names[i][1]] for i in shown]
        # Nearest: positions stay squares.
        heats = [
            cv2.resize(
                spread(weights[i], step.geometry),
                tile.shape[1::-1],
                interpolation=cv2.INTER_NEAREST_EXACT,
            )
            for i, tile in zip(shown, sizes, strict=True)
        ]
        image = relevance_sheet(
            self.asked(step, number),
            self._title(shares.sum()),
            sizes,
            np.stack(heats),
            shares[shown],
            [names[i][0] for i in shown],
            columns=self.columns,
            width=self.width,
        )
        save_image(self.output, image)

    def _check(self, source: FrameSource, start: int, number: int) -> None:
        self.check_pixel(source)
        choose_frames(range(len(source)), [self.frame], 1)
        if self.frame <= start:
            raise RdejaxError(
                f"frame {self.frame} has no memory of object {number} to look at, which starts in "
                f"frame {start}; choose a later --frame"
            )

    def _title(self, shown: float) -> str:
        """The query's caption, with the weight of what lies on no frame's grid, if there is any."""
        elsewhere = f", {100 * (1 - shown):.1f} % off the grid" if shown < 0.999 else ""
        return f"query: frame {self.frame}{elsewhere}"


@dataclasses.dataclass(frozen=True, kw_only=True)
class BasesPicture(Traced):
    """SWEM's bases: a colour for each, at the positions that are most like it.

    Bright colours are bases of the object, pale ones those of the background. A base keeps its
    colour through the video.
    """

    checkpoint: Annotated[str, tyro.conf.arg(metavar="NAME_OR_PATH")] = "swem-lite"
    """Bundled weights by name, or a checkpoint."""
    memory: str | None = None
    """Memory rule, which must keep bases as swem does; the model's own unless given."""
    frames: Frames = ()
    """Numbers of the frames; evenly spaced unless given."""
    count: int = 5
    """How many, if evenly spaced."""
    fixed: bool = False
    """Show the bases of the first frame, which never change, instead of the updated ones."""

    def run(self) -> None:
        """Writes the picture."""
        source, given, number = video = self.open()
        start = given.objects[number]
        numbers = choose_frames(range(start, len(source)), self.frames, self.count)
        model = self.load(self.memory)
        temperature = 0.05

        def look(step: Step) -> tuple[np.ndarray, np.ndarray]:
            nonlocal temperature
            held = step.memory_of(number)
            found = held.rule.prototypes(held.state)
            if found is None:
                raise RdejaxError(
                    f"memory rule {model.settings.memory!r} keeps no bases to show; use --memory "
                    "swem"
                )
            temperature = float(found.temperature)
            bases = found.first if self.fixed else found.latest
            return np.asarray(step.plain_key()), np.array(bases[held.slot], np.float32)

        frames, masks, seen, geometry = self.collect(model, video, numbers, look)
        keys, kappas = zip(*seen, strict=True)
        image = base_rows(
            frames, numbers, masks, keys, kappas, geometry, tau=temperature, width=self.width
        )
        save_image(self.output, image)
