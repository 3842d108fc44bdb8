"""Commands that run a system and look into its memory: `pca`, `relevance`, `bases`."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import tyro

import rdejax
from rdejax.cli import name_and_value
from rdejax.errors import RdejaxError
from rdejax.io.given import GivenMasks, load_given_masks
from rdejax.io.overlay import render_overlay
from rdejax.io.video import FrameSource, open_frames
from rdejax.models.matching import System
from rdejax.visualize.bases import base_rows
from rdejax.visualize.commands_frames import Frames, Image, Video, all_numbers, check_tile
from rdejax.visualize.embeddings import embedding_rows
from rdejax.visualize.files import IMAGE_SUFFIXES, check_output, choose_frames, save_image
from rdejax.visualize.grid import Picture, fit
from rdejax.visualize.heat import mark_pixel, relevance_sheet
from rdejax.visualize.relevance import check_on_grid, relevance
from rdejax.visualize.strides import covered, grid_positions, grid_shape, spread
from rdejax.visualize.style import TILE
from rdejax.visualize.trace import Step, entry_names, frame_key, walk, written_frames


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Traced:
    """What the commands share: a video, its masks, a model and an object."""

    video: Video
    """Video file or folder of frames."""
    mask: Annotated[Path, tyro.conf.arg(metavar="PATH")]
    """Mask of the first frame, or a folder of masks named like their frames."""
    output: Image
    """Picture to write, .png or .jpg."""
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
    width: int = TILE
    """Width of a tile in pixels."""

    def load(self, memory: str | None) -> System:
        """The model with these settings."""
        settings: dict[str, Any] = {"size": self.size, "every": self.every, "memory": memory}
        settings = {name: value for name, value in settings.items() if value is not None}
        if self.top_k is not None:
            settings["top_k"] = None if self.top_k == "all" else self.top_k
        settings |= dict(name_and_value(text, f"--set {text}") for text in self.set)
        return rdejax.load_model(self.checkpoint, **settings)

    def open(self) -> tuple[FrameSource, GivenMasks, int]:
        """The video, its masks, and the object's id.

        Raises:
          RdejaxError: unusable files or settings; the object is in no mask.
        """
        check_output(self.output, IMAGE_SUFFIXES)
        check_tile(self.width)
        source = open_frames(self.video)
        given = load_given_masks(self.mask, source, max_objects=255)
        number = min(given.objects) if self.object is None else self.object
        if number not in given.objects:
            known = ", ".join(map(str, sorted(given.objects)))
            raise RdejaxError(
                f"object {number} is in no mask of {self.mask}; choose one of {known} with --object"
            )
        return source, given, number


def _steps(model: System, source: FrameSource, given: GivenMasks, last: int) -> Iterator[Step]:
    """Steps up to frame `last`, which the video must reach."""
    for step in walk(model, (frame for _, frame in source), given.masks):
        yield step
        if step.time == last:
            return
    raise RdejaxError(f"{source.path}: the video ends before frame {last}; choose an earlier one")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Pca(_Traced):
    """Value embeddings as colours along a video: the recurrent embedding, the growing bank.

    The first three principal components of all values shown are red, green and blue. Of rde the
    recurrent embedding after each frame is shown, of bank the value it keeps of that frame; the
    contour is that of the mask each found.
    """

    memories: tuple[Literal["rde", "bank"], ...] = ("bank", "rde")
    """Memory rules, one row each."""
    frames: Frames = ()
    """Numbers of memorised frames; evenly spaced unless given."""
    count: int = 5
    """How many, if evenly spaced."""

    def run(self) -> None:
        """Writes the picture."""
        source, given, number = self.open()
        if not self.memories:
            raise RdejaxError("no memory named: give --memories rde, bank or both")
        frames: dict[int, Picture] = {}
        values: dict[str, list[np.ndarray]] = {}
        masks: dict[str, list[np.ndarray]] = {}
        numbers: list[int] = []
        geometry = None
        for memory in self.memories:
            model = self.load(memory)
            start, last = given.objects[number], len(source) - 1
            written = written_frames(model.settings.every, start, last)
            numbers = choose_frames(written, self.frames, self.count)
            found = {}
            name = {"rde": "RDE", "bank": "growing bank"}[memory]
            for step in _steps(model, source, given, max(numbers)):
                if step.time in numbers:
                    value = _value(model, step, number, start)
                    found[step.time] = (value, _only(step.mask, number))
                    frames[step.time] = step.frame
                geometry = step.geometry
            values[name], masks[name] = map(list, zip(*(found[t] for t in numbers), strict=True))
        assert geometry is not None
        image = embedding_rows(
            [frames[t] for t in numbers], numbers, values, geometry, masks, width=self.width
        )
        save_image(self.output, image)


def _only(mask: np.ndarray, number: int) -> np.ndarray:
    return np.where(mask == number, mask, 0)


def _value(model: System, step: Step, number: int, start: int) -> np.ndarray:
    """[h, w, cv] of an object in the entry that stands for this memorised frame."""
    memory, slot = step.memory_of(number)
    written = written_frames(model.settings.every, start, step.time)
    entries = entry_names(model.memory, memory, written)
    names = [name for name, _ in entries]
    wanted = "RDE" if "RDE" in names else f"frame {step.time}"
    if wanted not in names:
        raise RdejaxError(
            f"memory {model.settings.memory!r} as it is set here keeps no recurrent embedding, but "
            f"{', '.join(names)}; choose a model whose strategy has RDE"
        )
    return np.array(memory.value[slot, names.index(wanted)], np.float32)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Relevance(_Traced):
    """Where a pixel or an object of a frame looks in the memory, and how much in each entry.

    Heat is the weight of each memory position in what the query reads, on one scale for all tiles;
    the per cents are the entries' shares in the whole weight.
    """

    frame: int
    """Number of the frame that looks; its memory is that of the frames before it."""
    pixel: Annotated[tuple[int, int] | None, tyro.conf.arg(metavar="X Y")] = None
    """Pixel of the video that looks; the mean over the object unless given."""
    memory: str | None = None
    """Memory rule by name, or a .py file; the model's own unless given."""
    count: int = 7
    """Most entries to show, those with the largest shares."""
    columns: int = 4
    """Tiles in a row."""

    def run(self) -> None:
        """Writes the picture."""
        source, given, number = self.open()
        self._check(source, given.objects[number], number)
        model = self.load(self.memory)
        tiles: dict[int, Picture] = {}
        before, slot = None, 0
        for step in _steps(model, source, given, self.frame):
            if step.time == self.frame - 1:
                # A copy: the next step takes the state back.
                before, slot = step.memory_of(number)
            tiles[step.time] = fit(step.frame, self.width)
        positions = self._positions(step, number)
        grid = grid_shape(step.geometry)
        check_on_grid(model.settings.memory, before, grid)
        key = frame_key(model, step.frame, geometry=step.geometry)
        weights = np.asarray(relevance(model.memory, before, key, positions, slot))
        written = written_frames(model.settings.every, given.objects[number], self.frame - 1)
        entries = entry_names(model.memory, before, written)
        shares = weights.sum(axis=(1, 2))
        largest = np.argsort(-shares[: len(entries)], kind="stable")[: self.count]
        shown = np.sort(largest)
        heats = np.stack([spread(weights[i], step.geometry) for i in shown])
        sizes = [tiles[entries[i][1]] for i in shown]
        heats = np.stack([_resize(heat, tile) for heat, tile in zip(heats, sizes, strict=True)])
        image = relevance_sheet(
            self._query(step, number),
            f"query: frame {self.frame}",
            sizes,
            heats,
            shares[shown],
            [entries[i][0] for i in shown],
            columns=self.columns,
            width=self.width,
        )
        save_image(self.output, image)

    def _check(self, source: FrameSource, start: int, number: int) -> None:
        choose_frames(all_numbers(source), [self.frame], 1)
        if self.frame <= start:
            raise RdejaxError(
                f"frame {self.frame} has no memory of object {number} to look at, which starts in "
                f"frame {start}; choose a later --frame"
            )
        height, width = source.size
        if self.pixel is not None:
            x, y = self.pixel
            if not (0 <= x < width and 0 <= y < height):
                raise RdejaxError(
                    f"pixel {x} {y} is outside of the frame, which is {width}x{height}; "
                    f"give --pixel X Y with X below {width} and Y below {height}"
                )
        for name in ("count", "columns"):
            if getattr(self, name) < 1:
                raise RdejaxError(f"{name}={getattr(self, name)}: give 1 or more")

    def _positions(self, step: Step, number: int) -> np.ndarray:
        """Query positions bool [h, w]."""
        if self.pixel is None:
            positions = covered(step.mask == number, step.geometry)
            if not positions.any():
                raise RdejaxError(
                    f"object {number} has no pixel in frame {self.frame}; choose another frame, or "
                    "a --pixel"
                )
            return positions
        rows, columns = grid_positions(step.geometry)
        positions = np.zeros(grid_shape(step.geometry), bool)
        positions[rows[self.pixel[1]], columns[self.pixel[0]]] = True
        return positions

    def _query(self, step: Step, number: int) -> Picture:
        if self.pixel is None:
            return render_overlay(step.frame, _only(step.mask, number))
        return mark_pixel(step.frame, self.pixel)


def _resize(heat: np.ndarray, tile: Picture) -> np.ndarray:
    """Heat at the size of a tile, nearest: positions stay squares."""
    height, width = tile.shape[:2]
    rows = (np.arange(height) + 0.5) * heat.shape[0] / height
    columns = (np.arange(width) + 0.5) * heat.shape[1] / width
    return heat[rows.astype(int)][:, columns.astype(int)]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Bases(_Traced):
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
        source, given, number = self.open()
        start = given.objects[number]
        numbers = choose_frames(list(range(start, len(source))), self.frames, self.count)
        model = self.load(self.memory)
        shown: dict[int, tuple] = {}
        geometry = None
        for step in _steps(model, source, given, max(numbers)):
            geometry = step.geometry
            if step.time in numbers:
                memory, slot = step.memory_of(number)
                kappa = self._kappa(memory, model.settings.memory)[slot]
                key = np.asarray(frame_key(model, step.frame, geometry=geometry))[0]
                mask = _only(step.mask, number)
                shown[step.time] = (step.frame, mask, key, np.array(kappa, np.float32))
        assert geometry is not None
        frames, masks, keys, kappas = zip(*(shown[t] for t in numbers), strict=True)
        tau = float(getattr(model.memory, "tau", 0.05))
        image = base_rows(frames, numbers, masks, keys, kappas, geometry, tau=tau, width=self.width)
        save_image(self.output, image)

    def _kappa(self, memory: Any, name: str) -> Any:
        """[o, 2, K, ck]."""
        bases = getattr(memory, "first" if self.fixed else "update", None)
        kappa = getattr(bases, "kappa", None)
        if kappa is None:
            raise RdejaxError(f"memory rule {name!r} keeps no bases to show; use --memory swem")
        return kappa
