"""Objectives by name and file, and their settings as command lines give them."""

import dataclasses

import pytest

from rdejax.errors import RdejaxError
from rdejax.train.config import TrainConfig
from rdejax.train.objectives.rde import RDEObjective
from rdejax.train.objectives.unroll import UnrollObjective
from rdejax.train.system import objective_of

MINE = """
import dataclasses
from rdejax.train.objectives.registry import register
from rdejax.train.objectives.unroll import UnrollObjective

@register("mine")
@dataclasses.dataclass(frozen=True)
class Mine(UnrollObjective):
    name = "mine"
    share: float = 0.5
"""


def chosen(name: str | None, *settings: str, system: str = "rde-lite"):
    return objective_of(TrainConfig(system=system, objective=name, objective_settings=settings))


def test_a_system_names_its_own_and_a_recipe_another() -> None:
    assert chosen(None) == RDEObjective()
    assert chosen(None, system="stcn") == UnrollObjective()
    assert chosen("unroll", "reduce=sum") == UnrollObjective(reduce="sum")
    assert chosen(None, "patterns=stm", "guidance=5") == RDEObjective("stm", guidance=5)


@pytest.mark.parametrize(
    ("name", "setting", "sentence"),
    [
        ("rde", "guidance=much", "objective rde guidance=much: give a number"),
        ("rde", "patterns=sam", "patterns=sam: give one of alternate, stm"),
        (
            "unroll",
            "guidance=1",
            "objective 'unroll' has no setting 'guidance'; it has memory, reduce",
        ),
        ("nobody", "reduce=sum", "objective 'nobody' is unknown; choose one of dmn, rde, unroll"),
    ],
)
def test_wrong_settings(name, setting, sentence) -> None:
    with pytest.raises(RdejaxError, match=sentence):
        chosen(name, setting)


def test_a_file_of_ones_own(tmp_path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(MINE)
    mine = chosen(str(file), "share=0.25", "reduce=sum")
    assert dataclasses.asdict(mine) == {"reduce": "sum", "memory": "trained", "share": 0.25}
    assert isinstance(mine, type(chosen(str(file)))) and mine == chosen(
        str(file), "share=0.25", "reduce=sum"
    )
