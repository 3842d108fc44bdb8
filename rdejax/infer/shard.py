"""A part of a data set: what one of several processes segments."""

import dataclasses
import heapq
import re
from collections.abc import Callable, Sequence
from typing import TypeVar

from rdejax.errors import RdejaxError

T = TypeVar("T")


@dataclasses.dataclass(frozen=True)
class Shard:
    """Part `index` of `count`, from 1 to `count`; the whole unless said otherwise."""

    index: int = 1
    count: int = 1

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"


WHOLE = Shard()


def parse_shard(text: str) -> Shard:
    """The part that "3/16" names: the third of sixteen.

    Raises:
      RdejaxError: it does not look like that, or there is no such part.
    """
    match = re.fullmatch(r"([0-9]{1,6})/([0-9]{1,6})", text.strip())
    if match is None:
        raise RdejaxError(f"--shard {text}: give I/N, such as 3/16 for the third of 16 parts")
    index, count = int(match[1]), int(match[2])
    if not 1 <= index <= count:
        raise RdejaxError(f"--shard {text}: parts are numbered from 1 to {max(count, 1)}")
    return Shard(index, count)


def part_of(
    items: Sequence[T], shard: Shard, name: Callable[[T], str], cost: Callable[[T], float]
) -> list[T]:
    """The items of one part, in their order.

    The parts are disjoint and together all of `items`. Which items a part holds depends on names
    and costs alone, not on the order of `items` nor on what was done before, so processes that
    know nothing of each other agree. The longest comes first, always to the part with least to do.

    Args:
      items: all of them.
      shard: which part.
      name: of an item; no two are the same.
      cost: what an item takes, in any unit, such as its frames.
    """
    # (cost so far, part): the part of the lower number among equals.
    parts = [(0.0, index) for index in range(1, shard.count + 1)]
    mine: set[str] = set()
    for item in sorted(items, key=lambda item: (-cost(item), name(item))):
        total, index = heapq.heappop(parts)
        heapq.heappush(parts, (total + cost(item), index))
        if index == shard.index:
            mine.add(name(item))
    return [item for item in items if name(item) in mine]
