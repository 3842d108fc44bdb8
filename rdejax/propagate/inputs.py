"""What a push brings: frames, what lies beside them, and first masks."""

import dataclasses
from collections.abc import Collection, Iterable, Mapping

import numpy as np
from jaxtyping import Shaped, UInt8

from rdejax.io.masks import new_ids
from rdejax.propagate import ids
from rdejax.propagate.schedule import Block
from rdejax.propagate.slots import Layout, plan_layout


@dataclasses.dataclass(frozen=True)
class Told:
    """A mask, and what it says of which objects.

    Attributes:
      index: of its frame among those of a push.
      mask: the ids.
      new: ids that begin with it.
      corrected: ids that were there before and are as it says, from here on.
      ignored: ids that were there before and are left as predicted.
      permanent: whether the frame is memorised like a first one.
    """

    index: int
    mask: UInt8[np.ndarray, "h w"]
    new: list[int]
    corrected: list[int]
    ignored: list[int] = dataclasses.field(default_factory=list)
    permanent: bool = False

    @property
    def smallest(self) -> int:
        """Pixels of the smallest of the new objects."""
        return min(int((self.mask == number).sum()) for number in self.new)


@dataclasses.dataclass(frozen=True)
class Start:
    """A frame with a mask, and where its objects are.

    Attributes:
      told: the mask.
      slots: of the new objects, in the order of `told.new`.
      layout: all objects and their slots, the new ones among them.
      given: what was given for the new objects beside their masks.
    """

    told: Told
    slots: list[int]
    layout: Layout
    given: dict[str, np.ndarray] | None


def what_is_told(
    masks: Mapping[int, UInt8[np.ndarray, "h w"]],
    known: Iterable[int],
    *,
    all_masks: bool = False,
    corrections: Mapping[int, Collection[int]] | None = None,
    permanent: bool = False,
) -> list[Told]:
    """What masks say of new objects and, where they are to be believed, of known ones.

    Args:
      masks: by index.
      known: ids that are there before the first of them.
      all_masks: whether masks correct the known objects that they hold.
      corrections: by index, ids that the mask corrects, whether it holds them or not.
      permanent: see `Told`; of the masks with corrections.

    Returns:
      In order; masks that hold nothing new, corrected or ignored are left out.
    """
    there, found = set(known), []
    for index in sorted(masks):
        mask, asked = masks[index], (corrections or {}).get(index, ())
        new = new_ids(mask, there)
        old = sorted(set(new_ids(mask, new)) | (set(asked) & there))
        corrected = old if all_masks else [number for number in old if number in asked]
        ignored = [number for number in old if number not in corrected]
        if new or old:
            kept = permanent and bool(corrected)
            found.append(Told(index, mask, new, corrected, ignored, kept))
        there |= set(new)
    return found


def placed(told: Iterable[Told], layout: Layout | None, given: ids.Given) -> list[Start]:
    """Where the objects of masks go.

    Args:
      told: the masks; of those without new or corrected objects nothing comes.
      layout: of the objects so far; None: there are none.
      given: what was given for objects beside their masks, see `ids.given_in_slots`.

    Raises:
      RdejaxError: see `ids.given_in_slots`.
    """
    told = [each for each in told if each.new or each.corrected]
    starts = []
    for each in told:
        layout = layout or plan_layout([len(one.new) for one in told if one.new])
        layout, slots = layout.place(each.new)
        total = layout.groups * layout.slots
        beside = ids.given_in_slots(given, each.new, slots, total) if each.new else None
        starts.append(Start(each, slots, layout, beside))
    return starts


@dataclasses.dataclass(frozen=True)
class Inputs:
    """Frames, and what was given for each of them beside its picture."""

    frames: UInt8[np.ndarray, "n h w 3"]
    beside: dict[str, np.ndarray]

    def copy(self) -> "Inputs":
        """The same in arrays of its own: callers may reuse theirs."""
        return Inputs(self.frames.copy(), {name: x.copy() for name, x in self.beside.items()})

    def part(self, begin: int, end: int) -> "Inputs":
        """Those of the frames from `begin` up to `end`."""
        return Inputs(
            self.frames[begin:end], {name: x[begin:end] for name, x in self.beside.items()}
        )


def in_blocks(
    frames: Shaped[np.ndarray, "n ..."], blocks: list[Block], width: int
) -> Shaped[np.ndarray, "b m ..."]:
    """A copy of frames, cut into blocks of `width`.

    A shorter block is filled with its last frame, one of none with zeros.
    """
    cut = np.zeros((len(blocks), width, *frames.shape[1:]), frames.dtype)
    begin = 0
    for row, length in zip(cut, (block.length for block in blocks if block.length), strict=False):
        row[:length] = frames[begin : begin + length]
        row[length:] = frames[begin + length - 1]
        begin += length
    return cut
