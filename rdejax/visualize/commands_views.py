"""The command `view`: what a system or a memory rule lets one see of it, under its names."""

import dataclasses
from pathlib import Path
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np
import tyro

from rdejax.io.given import GivenMasks
from rdejax.io.video import FrameSource
from rdejax.memory import views
from rdejax.models.protocol import System
from rdejax.visualize.charts import need_matplotlib, save_figure
from rdejax.visualize.commands import Frames
from rdejax.visualize.commands_memory import Asking, steps_to
from rdejax.visualize.embeddings import embedding_rows
from rdejax.visualize.grid import Picture, fit
from rdejax.visualize.picture_files import (
    CHART_SUFFIXES,
    IMAGE_SUFFIXES,
    choose_frames,
    save_image,
)
from rdejax.visualize.trace import Step, memorises, view_of, written_frames
from rdejax.visualize.views import arrow_sheet, heat_sheet, histograms, mask_rows, number_lines

_CHARTS = (views.Numbers, views.Distribution)
_OF_ONE_FRAME = (views.Heat, views.Arrows)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Seen:
    """A frame in which something was looked at.

    Attributes:
      frame: RGB.
      mask: of the object.
      found: what was seen.
      asked: the frame with the object or pixel that asks.
    """

    frame: Picture
    mask: np.ndarray
    found: Any
    asked: Picture


@dataclasses.dataclass(frozen=True, kw_only=True)
class ViewPicture(Asking):
    """What a system or its memory rule lets one see: lines, histograms, colours, heat, arrows.

    Without --name, or with a wrong one, says what there is.
    """

    output: Annotated[Path, tyro.conf.arg(metavar="FILE")]
    """Picture to write; lines and histograms .png, .pdf or .svg, others .png or .jpg."""
    name: str = ""
    """Name of the view."""
    memory: str | None = None
    """Memory rule by name, or a .py file; the model's own unless given."""
    frames: Frames = ()
    """Numbers of the frames; evenly spaced unless given, of heat and arrows the last."""
    count: int = 5
    """How many, if evenly spaced."""
    columns: int = 4
    """Tiles in a row."""

    def run(self) -> None:
        """Writes the picture."""
        model = self.load(self.memory)
        view = view_of(model, self.name)
        chart = view.kind in _CHARTS
        if chart:
            need_matplotlib()
        suffixes = CHART_SUFFIXES if chart else IMAGE_SUFFIXES
        source, given, number = self.open(suffixes, count=1, columns=1)
        self.check_pixel(source)
        seen, tiles, step = self._look(model, view, (source, given, number))
        if chart:
            found = {time: at.found for time, at in seen.items()}
            draw: Any = number_lines if view.kind is views.Numbers else histograms
            save_figure(self.output, draw(found))
        else:
            save_image(self.output, self._image(view, seen, tiles, step))

    def _numbers(self, view: views.View, start: int, length: int) -> list[int]:
        """Frames that are looked at, ascending; the first one reads nothing."""
        available = range(start + 1, length)
        if view.kind is views.Numbers:
            return list(available)
        if view.kind in _OF_ONE_FRAME:
            wanted = self.frames[:1] or (length - 1,)
            return choose_frames(available, wanted, 1)
        return sorted(choose_frames(available, self.frames, self.count))

    def _look(
        self, model: System, view: views.View, video: tuple[FrameSource, GivenMasks, int]
    ) -> tuple[dict[int, Seen], dict[int, Picture], Step]:
        source, given, number = video
        start = given.objects[number]
        numbers = self._numbers(view, start, len(source))
        memorised = memorises(model, given.masks)
        seen: dict[int, Seen] = {}
        tiles: dict[int, Picture] = {}
        before, step = None, None
        for step in steps_to(model, source, given, max(numbers)):
            tiles[step.time] = fit(step.frame, self.width)
            if step.time in numbers:
                group, slot = step.place_of(number)
                positions = self.positions(step, number)
                moment = views.Moment(
                    before=before,
                    after=step.stream.state,
                    query=step.features(),
                    group=group,
                    slot=slot,
                    positions=jnp.asarray(positions),
                    written=tuple(written_frames(memorised, start, step.time - 1)),
                )
                # What is found must not be part of the state, which the next step takes back.
                found = _copied(view.at(moment))
                mask, asked = step.mask_of(number), self.asked(step, number)
                seen[step.time] = Seen(frame=step.frame, mask=mask, found=found, asked=asked)
            if step.time + 1 in numbers:
                before = jax.tree.map(jnp.copy, step.stream.state)
        assert step is not None
        return seen, tiles, step

    def _image(
        self, view: views.View, seen: dict[int, Seen], tiles: dict[int, Picture], step: Step
    ) -> Picture:
        numbers, of = list(seen), list(seen.values())
        frames, geometry = [at.frame for at in of], step.geometry
        if view.kind is views.Embedding:
            values = {self.name: [np.asarray(at.found.values, np.float32) for at in of]}
            masks = {self.name: [at.mask for at in of]}
            return embedding_rows(frames, numbers, values, geometry, masks, width=self.width)
        if view.kind is views.Masks:
            object_id = max(1, *(int(at.mask.max()) for at in of))
            rows = {
                name: [_restored(at.found.probs[name], geometry) * np.uint8(object_id) for at in of]
                for name in of[0].found.probs
            }
            return mask_rows(frames, numbers, rows, width=self.width)
        at, look = of[-1], {"columns": self.columns, "width": self.width}
        if view.kind is views.Heat:
            return heat_sheet(
                at.asked, f"query: frame {numbers[-1]}", at.found, tiles, geometry, **look
            )
        return arrow_sheet(at.asked, at.found, tiles, geometry, **look)


def _copied(found: views.Kind) -> views.Kind:
    """With NumPy arrays in place of JAX's."""

    def copy(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: copy(x) for name, x in value.items()}
        return np.array(value) if isinstance(value, jax.Array) else value

    fields = {f.name: copy(getattr(found, f.name)) for f in dataclasses.fields(found)}
    return dataclasses.replace(found, **fields)


def _restored(probs: np.ndarray, geometry: Any) -> np.ndarray:
    """Bool [H, W] of the video's size, where an object is more likely than not."""
    return np.asarray(geometry.restore(jnp.asarray(probs)[None, None])[0, 0]) > 0.5
