"""A system's memory while it goes through a video, for looking at.

The frames go through a `Stream`, one by one: what is shown is what inference does. All that
pictures use of a system and its rule beyond `MemoryRule.contents` is called here.
"""

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, UInt8

from rdejax.errors import RdejaxError
from rdejax.memory.protocol import Entries, MemoryRule
from rdejax.models.matching import Matching
from rdejax.models.protocol import System
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

    def memory_of(self, number: int) -> tuple[Any, int]:
        """The memory rule's state that holds an object, and the object's place in it.

        That is its group's and its slot; in systems whose keys see the masks each object has its
        own state, and the place is 0.

        Raises:
          RdejaxError: the object has not appeared yet.
        """
        layout, state = self.stream.layout, self.stream.state
        if layout is None or state is None or number not in layout.ids:
            known = ", ".join(map(str, self.stream.objects)) or "none"
            raise RdejaxError(
                f"object {number} has not appeared by frame {self.time}; there are: {known}"
            )
        group, slot = divmod(layout.ids[number], layout.slots)
        memory, axes = memory_of_system(self.stream.model, state)
        if axes == 2:
            return jax.tree.map(lambda x: x[group, slot], memory), 0
        return jax.tree.map(lambda x: x[group], memory), slot


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


def matching(model: System) -> Matching:
    """The model, if it has a memory to look into.

    Raises:
      RdejaxError: it is no system that matches keys with those of a memory rule.
    """
    if not isinstance(model, Matching):
        raise RdejaxError(
            f"model {model.name!r} does not match keys with a memory's, which is what this picture "
            "shows; choose one that does, such as --checkpoint rde-lite"
        )
    return model


def memory_of_system(model: Any, state: Any) -> tuple[Any, int]:
    """The memory rule's state of all objects, and its leading axes: groups, or groups and slots."""
    return state.memory, model.over.axes


@partial(jax.jit, static_argnames="geometry")
def frame_key(model: Matching, frame: Array, *, geometry: Geometry) -> Any:
    """Key [1, h, w, ck] (or the system's pytree) of one uint8 frame [H, W, 3]."""
    return encode(model, geometry, frame[None]).key


def read_memory(rule: MemoryRule, memory: Any, query: Any) -> Array:
    """Readout [n, o, h, w, c] of a rule's state for the keys of n frames."""
    return rule.read(memory, query)[0]


def memorises(model: Matching, given: Iterable[int]) -> Callable[[int], bool]:
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
