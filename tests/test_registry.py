"""Classes by name or by a user's file: run once, again when changed, undone when it fails."""

import logging
import os
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

import rdejax
from rdejax.errors import RdejaxError
from rdejax.memory.average import AverageMemory
from rdejax.memory.registry import find_rule
from rdejax.models.registry import find_system, names
from rdejax.models.settings import Settings
from rdejax.registry import Registry
from rdejax.train.objectives.registry import find_objective

RULE = """
from rdejax.memory.average import AverageMemory
from rdejax.memory.registry import register

with open(__file__ + ".runs", "a") as file:
    file.write(".")


@register("{name}")
class Mine(AverageMemory):
    number = {number}
"""


def written(path: Path, name: str, number: int = 0) -> str:
    path.parent.mkdir(exist_ok=True)
    path.write_text(RULE.format(name=name, number=number))
    return str(path)


def runs(path: str) -> int:
    return len(Path(path + ".runs").read_text())


def test_a_rule_file_runs_once_and_compiles_once(tmp_path, caplog) -> None:
    file = written(tmp_path / "mine.py", "mine")
    frames = np.random.default_rng(0).integers(0, 256, (4, 32, 48, 3), np.uint8)
    mask = np.zeros((32, 48), np.uint8)
    mask[8:24, 8:32] = 1

    def segmented() -> tuple[type, np.ndarray, int]:
        with jax.log_compiles(), caplog.at_level(logging.WARNING, "jax"):
            caplog.clear()
            model = rdejax.load_model("rde-lite", memory=file, size=None)
            masks = rdejax.segment_video(model, frames, mask)
        compiled = [r for r in caplog.records if r.getMessage().startswith("Compiling")]
        return type(model.memory), masks, len(compiled)

    first, masks, compiled = segmented()
    assert compiled > 0 and first.__name__ == "Mine"
    second, again, compiled = segmented()
    assert second is first and compiled == 0
    np.testing.assert_array_equal(masks, again)
    assert runs(file) == 1


def test_by_path_and_by_name_it_is_the_same_class(tmp_path, monkeypatch) -> None:
    file = written(tmp_path / "one.py", "one")
    rule = find_rule(file)
    monkeypatch.chdir(tmp_path)
    assert find_rule("one.py") is rule and find_rule("one") is rule
    (tmp_path / "link.py").symlink_to(file)
    assert find_rule("link.py") is rule
    assert runs(file) == 1


def test_a_changed_file_is_run_again(tmp_path) -> None:
    path = tmp_path / "changing.py"
    file = written(path, "changing", 1)
    before, stamp = find_rule(file), path.stat()
    # Same length, same second: what a bytecode cache would take for the same.
    written(path, "changing", 2)
    os.utime(path, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    after = find_rule(file)
    assert (before.number, after.number) == (1, 2) and runs(file) == 2
    assert find_rule("changing") is after is find_rule(file)
    find_rule(written(path, "renamed", 3))
    assert find_rule("renamed").number == 3
    with pytest.raises(RdejaxError, match="'changing' is unknown"):
        find_rule("changing")


def test_two_files_of_one_stem_do_not_clash(tmp_path) -> None:
    a = written(tmp_path / "a" / "rule.py", "of a", 1)
    b = written(tmp_path / "b" / "rule.py", "of b", 2)
    rules = find_rule(a), find_rule(b)
    assert [rule.number for rule in rules] == [1, 2]
    assert rules[0].__module__ != rules[1].__module__
    for rule in rules:
        assert sys.modules[rule.__module__].Mine is rule
    assert (find_rule(a), find_rule("of b")) == rules and runs(a) == runs(b) == 1


@pytest.mark.parametrize(
    ("more", "error"),
    [
        ("raise OSError('no')", "failing.py, line 12: OSError: no"),
        ("def broken(:", "failing.py, line 12: SyntaxError: "),
        ("import no_such_thing", "failing.py, line 12: ModuleNotFoundError: No module named"),
        ("raise SystemExit(0)", "failing.py, line 12: SystemExit: 0"),
        ("register('second of two')(type('Two', (AverageMemory,), {}))", "registers 2 memory"),
    ],
)
def test_a_failed_load_changes_nothing(tmp_path, more: str, error: str) -> None:
    path = tmp_path / "failing.py"
    file = written(path, "failing", 1)
    rule = find_rule(file)
    good = path.read_text()
    path.write_text(good.replace("number = 1", "number = 2") + more)
    with pytest.raises(RdejaxError, match=error):
        find_rule(file)
    assert find_rule("failing") is rule and sys.modules[rule.__module__].Mine is rule
    with pytest.raises(RdejaxError, match="unknown"):
        find_rule("second of two")
    path.write_text(good)
    assert find_rule(file) is rule


def test_a_file_with_a_rule_and_an_objective_runs_once(tmp_path) -> None:
    file = written(tmp_path / "both.py", "both")
    with open(file, "a") as text:
        text.write(
            "\nfrom rdejax.train.objectives.registry import register as objective\n"
            "from rdejax.train.objectives.unroll import UnrollObjective\n"
            "@objective('both')\nclass Goal(UnrollObjective):\n    pass\n"
        )
    rule, goal = find_rule(file), find_objective(file)
    assert runs(file) == 1 and goal.__module__ == rule.__module__
    assert find_rule("both") is rule and find_objective("both") is goal
    only = written(tmp_path / "only.py", "only")
    assert find_rule(only)
    with pytest.raises(RdejaxError, match="registers 0 objectives"):
        find_objective(only)
    # Without the objective it is forgotten.
    written(tmp_path / "both.py", "both")
    find_rule(file)
    with pytest.raises(RdejaxError, match="objective 'both' is unknown"):
        find_objective("both")


def test_a_file_cannot_take_a_name_of_the_package(tmp_path) -> None:
    file = written(tmp_path / "average.py", "average")
    assert find_rule(file).__name__ == "Mine"
    assert find_rule("average") is AverageMemory


BODIES = ("rde", "rde-lite", "stcn", "stm", "swem", "swem-lite", "xmem", "xmem-lite")


def test_names_and_what_is_unknown() -> None:
    assert names() == ("dmn-aoa", "dmn-lite", *BODIES)
    with pytest.raises(
        RdejaxError, match="system 'no.py' is unknown; choose one of dmn-aoa, dmn-lite, rde"
    ):
        find_system("no.py")
    with pytest.raises(
        RdejaxError, match="'no' is unknown; choose one of average.*give a .py file"
    ):
        find_rule("no")
    with pytest.raises(RdejaxError, match="no such file; give a thing's name"):
        Registry("thing", "rdejax.memory", files=True).find("nowhere.py")


@pytest.mark.parametrize(
    ("memory", "setting", "wanted"),
    [
        ("rde", {"top_k": "few"}, "top_k=few: memory 'rde' takes a whole number or None"),
        ("rde", {"strategy": 3}, "strategy=3: memory 'rde' takes text"),
        ("swem", {"tau": "x"}, "tau=x: memory 'swem' takes a number"),
        ("swem", {"bases": 1.5}, "bases=1.5: memory 'swem' takes a whole number"),
    ],
)
def test_settings_of_another_type_are_refused(memory, setting, wanted) -> None:
    with pytest.raises(RdejaxError, match=wanted):
        Settings(memory=memory).override(**setting)


def test_numbers_and_none_are_taken() -> None:
    assert dict(Settings(memory="swem").override(tau=1).memory_settings) == {"tau": 1}
    assert dict(Settings(memory="rde").override(top_k=None).memory_settings) == {"top_k": None}
