"""Several validation sets in one run: how they are named, and what their scores become."""

import json

import pytest

from rdejax.errors import RdejaxError
from rdejax.train.config import ValidateConfig
from rdejax.train.monitor import Monitor
from rdejax.train.validate import mean_scores, validation_sets

_ONE = {"J&F": 0.8, "J": 0.7, "F": 0.9, "sequences": {"cow": 0.8}}
_TWO = {"J&F": 0.4, "J": 0.3, "F": 0.5, "sequences": {"cow-2": 0.5, "cow-3": 0.3}}


def test_each_set_is_a_configuration_of_its_own(tmp_path):
    odd = tmp_path / "a@b"
    odd.mkdir()
    config = ValidateConfig(
        every=5, root="A", size=240, also=("davis2016:B@train", "folder:C", f"folder:{odd}")
    )
    sets = validation_sets(config)
    assert [(s.dataset, s.root, s.split) for s in sets] == [
        ("davis2017", "A", "val"),
        ("davis2016", "B", "train"),
        ("folder", "C", "val"),
        ("folder", str(odd), "val"),
    ]
    assert all(s.every == 5 and s.size == 240 and not s.also for s in sets)
    for bad in ("B", "davis2016:"):
        with pytest.raises(RdejaxError, match=r"validate\.also"):
            validation_sets(ValidateConfig(every=5, root="A", also=(bad,)))


def test_scores_of_several_sets_are_averaged():
    assert mean_scores([("a", _ONE)]) is _ONE
    assert set(mean_scores([("x/a", _ONE), ("y/a", _TWO)])["sets"]) == {"x/a", "y/a"}
    both = mean_scores([("x/a", _ONE), ("x/b", _TWO)])
    assert both["J&F"] == pytest.approx(0.6) and both["J"] == pytest.approx(0.5)
    assert both["sets"] == {"a": 0.8, "b": 0.4}
    assert both["sequences"] == {"a/cow": 0.8, "b/cow-2": 0.5, "b/cow-3": 0.3}


def test_the_log_tells_each_set(tmp_path):
    with Monitor(tmp_path, first=0, total=10) as monitor:
        monitor.validation(5, mean_scores([("a", _ONE), ("b", _TWO)]))
        monitor.validation(6, _ONE)
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert lines[0]["validation"]["sets"] == {"a": 0.8, "b": 0.4}
    assert "sets" not in lines[1]["validation"]
