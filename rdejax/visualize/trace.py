"""A system's memory while it goes through a video, for looking at.

The frames go through a `Stream`, one by one: what is shown is what inference does. All that
pictures use of a system is called here; what they use of a rule is in `Remembered`.
"""

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Float, UInt8

from rdejax.errors import RdejaxError
from rdejax.memory.protocol import Entries
from rdejax.memory.views import Remembered, View
from rdejax.models.protocol import Features, System
from rdejax.nn.xmem import AnisotropicKey
from rdejax.propagate.blocks import encode
from rdejax.propagate.geometry import Geometry
from rdejax.propagate.slots import known_layout
from rdejax.propagate.stream import Stream


@dataclasses.dataclass(frozen=True)
class Step:
    """What there is after one frame.

    Attributes:
      time: number of the frame.
      frame: RGB.
      mask: the ids found in it.
      stream: the video in progress, of which `stream.state` is taken back by the next step: copy
        what is to be kept.
    """

    time: int
    frame: UInt8[np.ndarray, "H W 3"]
    mask: UInt8[np.ndarray, "H W"]
    stream: Stream

    @property
    def geometry(self) -> Geometry:
        """Of the video."""
        assert self.stream.geometry is not None
        return self.stream.geometry

    def mask_of(self, number: int) -> UInt8[np.ndarray, "H W"]:
        """The mask with one object only."""
        return np.where(self.mask == number, self.mask, 0)

    def memory_of(self, number: int) -> Remembered:
        """What holds an object; see `System.remembered`.

        Raises:
          RdejaxError: the object has not appeared yet, or the system shows no memory.
        """
        model, place = self.stream.model, self.place_of(number)
        assert self.stream.state is not None
        found = model.remembered(self.stream.state, *place)
        if found is None:
            raise RdejaxError(
                f"model {model.name!r} has no memory that this picture can show; {_offered(model)}"
            )
        return found

    def place_of(self, number: int) -> tuple[int, int]:
        """Group and slot of an object.

        Raises:
          RdejaxError: it has not appeared yet.
        """
        layout = self.stream.layout
        if layout is None or self.stream.state is None or number not in layout.ids:
            known = ", ".join(map(str, self.stream.objects)) or "none"
            raise RdejaxError(
                f"object {number} has not appeared by frame {self.time}; there are: {known}"
            )
        return divmod(layout.ids[number], layout.slots)

    def features(self) -> Features:
        """What the networks know of the frame."""
        return _encoded(self.stream.model, self.frame, geometry=self.geometry)

    def query(self) -> Any:
        """The frame's key [1, h, w, ck] (or the system's pytree)."""
        return self.stream.model.query(self.features())

    def plain_key(self) -> Float[Array, "h w ck"]:
        """The frame's key, without shrinkage and selection."""
        key = self.query()
        return (key.key if isinstance(key, AnisotropicKey) else key)[0]


def walk(
    model: System,
    frames: Iterable[UInt8[np.ndarray, "H W 3"]],
    given: Mapping[int, UInt8[np.ndarray, "H W"]],
) -> Iterator[Step]:
    """Segments a video frame by frame and lets one look at the memory after each.

    Args:
      model: see `rdejax.load_model`.
      frames: RGB, all frames from the first on.
      given: id masks by frame number.

    Raises:
      RdejaxError: see `Stream.push`.
    """
    stream = Stream(model, layout=known_layout(given))
    for time, frame in enumerate(frames):
        yield Step(time, frame, stream.step(frame, given.get(time)), stream)


def view_of(model: System, name: str) -> View:
    """What a system or its rule lets one see under a name.

    Raises:
      RdejaxError: nothing of that name.
    """
    views = model.views()
    if name not in views:
        raise RdejaxError(f"view {name!r} is unknown; {_offered(model)}")
    return views[name]


def _offered(model: System) -> str:
    views = "; ".join(f"{name} ({view.text})" for name, view in sorted(model.views().items()))
    memory = f" with memory {model.settings.memory!r}" if model.settings.memory else ""
    return f"of model {model.name!r}{memory} the command view shows: {views or 'nothing'}"


@partial(jax.jit, static_argnames="geometry")
def _encoded(model: System, frame: Array, *, geometry: Geometry) -> Features:
    """Features of one uint8 frame [H, W, 3]."""
    return encode(model, geometry, frame[None])


def memorises(model: System, given: Iterable[int]) -> Callable[[int], bool]:
    """Whether a frame is memorised in a video whose first masks are in the frames `given`."""
    given = sorted(given)
    return lambda time: model.memorizes(time, [start for start in given if start <= time])


def written_frames(memorised: Callable[[int], bool], start: int, time: int) -> list[int]:
    """Frames in an object's memory after frame `time`: its first and those memorised since."""
    return [start, *(t for t in range(start + 1, time + 1) if memorised(t))]


def entry_names(entries: Entries, written: Sequence[int]) -> list[tuple[str, int]]:
    """Name of each entry that holds something, and the frame to show it on.

    What sums up all frames so far is aligned with the latest one.

    Args:
      entries: see `MemoryRule.contents`.
      written: numbers of the frames memorised.
    """
    named = []
    for name, write in zip(entries.names, entries.writes, strict=True):
        frame = written[-1 if write is None else write]
        if write is not None:
            name = f"{name} (frame {frame})" if name else f"frame {frame}"
        named.append((name, frame))
    return named


def entry_of_latest(entries: Entries) -> int | None:
    """Index of the entry that stands for the latest frame in a row of embeddings; None if none.

    That is the one that sums up all frames, or else the latest of those called by their frames.
    """
    if None in entries.writes:
        return entries.writes.index(None)
    pairs = zip(entries.names, entries.writes, strict=True)
    frames = [write for name, write in pairs if write is not None and not name]
    return entries.writes.index(max(frames)) if frames else None
