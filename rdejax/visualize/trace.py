"""A system's memory while it goes through a video, for looking at.

The frames go through a `Stream`, one by one: what is shown is what inference does.
"""

import dataclasses
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, UInt8

from rdejax.errors import RdejaxError
from rdejax.memory.bank import BankMemory
from rdejax.memory.ema_family import FrameState
from rdejax.memory.protocol import MemoryRule
from rdejax.models.matching import System
from rdejax.propagate.blocks import prepare
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
        if self.stream.model.own_keys:
            return jax.tree.map(lambda x: x[group, slot], state.memory), 0
        return jax.tree.map(lambda x: x[group], state.memory), slot


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


@partial(jax.jit, static_argnames="geometry")
def frame_key(model: System, frame: Array, *, geometry: Geometry) -> Any:
    """Key [1, h, w, ck] (or the system's pytree) of one uint8 frame [H, W, 3]."""
    return model.encode(prepare(model, geometry, frame[None])).key


def written_frames(every: int, start: int, time: int) -> list[int]:
    """Frames in an object's memory after frame `time`: its first and every `every`-th one."""
    return [start, *(t for t in range(start + 1, time + 1) if t % every == 0)]


def entry_names(rule: MemoryRule, memory: Any, written: list[int]) -> list[tuple[str, int]]:
    """Name of each entry of a memory on the grid, and the frame it stands for.

    A recurrent embedding stands for all frames so far; it is aligned with the latest one.

    Args:
      rule: the memory rule.
      memory: its state; `value` is [o, e, h, w, cv].
      written: numbers of the frames memorised.
    """
    first, latest = written[0], written[-1]
    if isinstance(rule, BankMemory):
        return [(f"frame {t}", t) for t in _bank_frames(rule, memory, written)]
    entries = range(memory.value.shape[1])
    names = getattr(rule, "entries", None) or [f"entry {i}" for i in entries]
    if isinstance(memory, FrameState):
        names = ["updated", "F"][: len(names)]
    long = {"F": f"F (frame {first})", "L": f"L (frame {latest})"}
    return [(long.get(name, name), first if name == "F" else latest) for name in names]


def _bank_frames(rule: Any, memory: Any, written: list[int]) -> list[int]:
    """Frame in each slot of a bank: the numbers themselves go through the rule's `write`."""
    numbers = [jnp.full((1, 1, 1), t, jnp.float32) for t in written]
    nothing: Any = None
    value = jnp.zeros((1, 1, 1, 1))
    state = rule.reserve(rule.init(numbers[0], value, nothing), memory.key.shape[0])
    for number in numbers[1:]:
        state = rule.write(state, number, value, nothing)
    kept = min(int(rule.held(state.count)), state.key.shape[0])
    return [int(t) for t in np.asarray(state.key[:kept, 0, 0, 0])]
