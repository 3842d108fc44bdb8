"""`--shard I/N`: which sequences a process segments."""

import random

import pytest

from rdejax.errors import RdejaxError
from rdejax.infer.shard import WHOLE, Shard, parse_shard, part_of

LENGTHS = {f"clip-{index}": 5 + index * 7 % 40 for index in range(23)}


def parts(names: list[str], count: int) -> list[list[str]]:
    return [
        part_of(names, Shard(index, count), str, lambda name: LENGTHS[name])
        for index in range(1, count + 1)
    ]


@pytest.mark.parametrize("count", [1, 2, 5, 23, 40])
def test_parts_are_disjoint_and_all(count):
    names = list(LENGTHS)
    found = parts(names, count)
    assert sorted(name for part in found for name in part) == sorted(names)
    assert found[0] == names if count == 1 else len(found) == count


def test_parts_do_not_depend_on_the_order_of_the_list():
    names = list(LENGTHS)
    shuffled = random.Random(0).sample(names, len(names))
    assert list(map(set, parts(names, 4))) == list(map(set, parts(shuffled, 4)))


def test_a_part_keeps_the_order_of_the_list():
    names = list(LENGTHS)
    for part in parts(names, 4):
        assert part == [name for name in names if name in part]


def test_parts_take_about_equally_long():
    totals = [sum(LENGTHS[name] for name in part) for part in parts(list(LENGTHS), 4)]
    assert max(totals) - min(totals) <= max(LENGTHS.values())


def test_parse():
    assert parse_shard("3/16") == Shard(3, 16)
    assert str(Shard(3, 16)) == "3/16"
    assert parse_shard("1/1") == WHOLE


@pytest.mark.parametrize("text", ["", "3", "0/4", "5/4", "0/0", "-1/4", "a/b", "1/2/3", "1.5/2"])
def test_what_names_no_part_is_refused(text):
    with pytest.raises(RdejaxError, match="--shard"):
        parse_shard(text)
