"""What a push brings: frames, what lies beside them, and first masks."""

import dataclasses

import numpy as np
from jaxtyping import Shaped, UInt8

from rdejax.propagate.schedule import Block
from rdejax.propagate.slots import Layout


@dataclasses.dataclass(frozen=True)
class Start:
    """A frame in which objects get their first masks, and where they go."""

    index: int
    mask: UInt8[np.ndarray, "h w"]
    ids: list[int]
    slots: list[int]
    layout: Layout
    given: dict[str, np.ndarray] | None


@dataclasses.dataclass(frozen=True)
class Inputs:
    """Frames, and what was given for each of them beside its picture."""

    frames: UInt8[np.ndarray, "n h w 3"]
    beside: dict[str, np.ndarray]

    def part(self, begin: int, end: int) -> "Inputs":
        """Those of the frames from `begin` up to `end`."""
        return Inputs(
            self.frames[begin:end], {name: x[begin:end] for name, x in self.beside.items()}
        )


def in_blocks(
    frames: Shaped[np.ndarray, "n ..."], blocks: list[Block], width: int
) -> Shaped[np.ndarray, "b m ..."]:
    """A copy of frames, cut into blocks of `width`; a shorter one is filled with its last frame."""
    ends = np.cumsum([block.length for block in blocks])
    index = [
        np.minimum(np.arange(end - block.length, end - block.length + width), end - 1)
        for block, end in zip(blocks, ends, strict=True)
    ]
    return frames[np.stack(index)]
