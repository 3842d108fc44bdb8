"""Which object sits in which slot: groups of objects that got their first mask together."""

import dataclasses
import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from rdejax.io.masks import new_ids


@dataclasses.dataclass(frozen=True)
class Layout:
    """Groups of equally many slots, and who is in them.

    Attributes:
      groups: number of groups.
      slots: slots per group.
      ids: slot (counted over all groups) of each of the user's ids.
      used: groups that have started, up to the last one that holds an object.
    """

    groups: int
    slots: int
    ids: dict[int, int] = dataclasses.field(default_factory=dict)
    used: int = 0

    def place(self, new_ids: Sequence[int]) -> tuple["Layout", list[int]]:
        """Layout with the new ids in the next free groups (added if need be), and their slots."""
        taken = {slot // self.slots for slot in self.ids.values()}
        free = (group for group in itertools.count() if group not in taken)
        groups = list(itertools.islice(free, -(-len(new_ids) // self.slots)))
        places = [
            groups[k // self.slots] * self.slots + k % self.slots for k in range(len(new_ids))
        ]
        used = max([self.used, *(group + 1 for group in groups)])
        ids = {**self.ids, **dict(zip(new_ids, places, strict=True))}
        return Layout(max(self.groups, used), self.slots, ids, used), places

    def without(self, ids: Iterable[int]) -> "Layout":
        """Layout without these ids; a group that holds none any more is free for others."""
        left = {number: slot for number, slot in self.ids.items() if number not in set(ids)}
        used = max((slot // self.slots + 1 for slot in left.values()), default=0)
        return Layout(self.groups, self.slots, left, used)

    def as_dict(self) -> dict[str, Any]:
        """Plain dictionary, for JSON."""
        return dataclasses.asdict(self)

    @staticmethod
    def from_dict(values: dict[str, Any]) -> "Layout":
        """Inverse of `as_dict`, also after JSON made the ids strings."""
        ids = {int(k): v for k, v in values["ids"].items()}
        return Layout(values["groups"], values["slots"], ids, values["used"])


def plan_layout(counts: Sequence[int]) -> Layout:
    """The cheapest layout for objects that start in several frames.

    A slot costs a decoding, used or not; a group costs an affinity. Objects of one frame may be
    split over several groups.

    Args:
      counts: objects that start in each of the frames.
    """

    def groups_for(slots: int) -> int:
        return sum(-(-count // slots) for count in counts)

    def cost(slots: int) -> float:
        return groups_for(slots) * (slots + 0.5)

    best = min(range(1, max(counts) + 1), key=lambda s: (cost(s), -s))
    return Layout(groups_for(best), best)


def known_layout(masks: Mapping[int, np.ndarray]) -> Layout | None:
    """The layout of a video whose masks are all known beforehand, so that it compiles less.

    Args:
      masks: see `starting_ids`.

    Returns:
      None where the masks hold no object.
    """
    starts = starting_ids(masks)
    return plan_layout([len(ids) for ids in starts]) if starts else None


def starting_ids(masks: Mapping[int, np.ndarray]) -> list[list[int]]:
    """Ids that start together, for each frame whose mask holds new ones, in the frames' order.

    Args:
      masks: id masks by frame number; every id starts with the first mask that holds it.
    """
    seen: set[int] = set()
    starts = []
    for time in sorted(masks):
        new = new_ids(masks[time], seen)
        seen |= set(new)
        starts += [new] if new else []
    return starts
