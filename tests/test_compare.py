"""Result folders side by side: numbers, what is refused, files and plots."""

import csv
import json
import re
import sys

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from rdejax.compare import (
    compare,
    difference_figure,
    global_figure,
    load_runs,
    print_comparison,
    sequence_figure,
)
from rdejax.compare.__main__ import main
from rdejax.errors import RdejaxError
from rdejax.evaluate import COLUMNS, SEEN_COLUMNS, ObjectScore, Scores, write_files

SETTINGS = {
    "dataset": "davis2017",
    "split": "val",
    "boundary_tolerance": 0.008,
    "frames_that_count": "first and last frame of a sequence left out",
}
CARS = {("car", 1): (0.9, 0.7), ("car", 2): (0.5, 0.3), ("dog_run", 1): (0.8, 0.8)}


def write_run(folder, values, frames=4, seen=None, **settings):
    """A folder scored by rdejax.evaluate; `values` are (J, F) of every frame by object."""
    objects = tuple(
        ObjectScore(
            sequence,
            label,
            tuple(f"{t:05d}" for t in range(frames)),
            np.full(frames, j),
            np.full(frames, f),
            None if seen is None else "thing",
            None if seen is None else seen[sequence],
        )
        for (sequence, label), (j, f) in values.items()
    )
    write_files(Scores(objects), folder, "val", {**SETTINGS, **settings})
    return str(folder)


@pytest.fixture
def two(tmp_path):
    better = {**CARS, ("car", 2): (0.7, 0.6), ("dog_run", 1): (0.6, 0.7)}
    return [write_run(tmp_path / "a", CARS), write_run(tmp_path / "b", better)]


def printed(comparison, **options):
    console = Console(width=200, record=True, file=open("/dev/null", "w"), color_system="truecolor")
    print_comparison(comparison, console, **options)
    return console.export_text(clear=False), console.export_text(styles=True)


def test_numbers_by_hand(two):
    found = compare(load_runs(two))
    assert found.names == ["a", "b"] and found.baseline == "a" and found.columns == COLUMNS
    assert found.counts == {"car": 2, "dog_run": 1}
    assert found.overall["a"]["J-Mean"] == pytest.approx((0.9 + 0.5 + 0.8) / 3)
    assert found.overall["b"]["F-Mean"] == pytest.approx((0.7 + 0.6 + 0.7) / 3)
    assert found.sequences["a"]["car"]["J&F-Mean"] == pytest.approx(0.6)
    assert found.sequences["a"]["car"]["J-Recall"] == 0.5
    differences = found.differences("b")
    assert differences == pytest.approx({"car": (0.2 + 0.3) / 4, "dog_run": -0.15})
    assert found.worst("a", 1) == ["car"] and found.worst("b", 9) == ["dog_run", "car"]
    assert found.falls("b", 5) == ["dog_run"]
    assert found.best("J-Mean") == set() == found.best("J-Decay")  # 2.2 / 3 both
    assert found.best("F-Mean") == {"b"} and found.notes == ()
    assert found.overall["a"] == pytest.approx(found.runs[0].scores.total)


def test_another_baseline_and_metric(two):
    found = compare(load_runs(two), "b", "J-Mean")
    assert found.others == ["a"]
    assert found.differences("a") == pytest.approx({"car": -0.1, "dog_run": 0.2})
    with pytest.raises(RdejaxError, match="baseline 'c' is none of the runs: a, b"):
        compare(load_runs(two), "c")
    with pytest.raises(RdejaxError, match="metric 'J-Recall'"):
        compare(load_runs(two), metric="J-Recall")
    with pytest.raises(RdejaxError, match="two runs or more"):
        compare(load_runs(two[:1]))


def test_decay_is_better_when_lower(tmp_path):
    runs = []
    for name, last in (("flat", 0.9), ("falling", 0.1)):
        values = np.linspace(0.9, last, 8)
        stems = tuple(map(str, range(8)))
        score = ObjectScore("car", 1, stems, values, values)
        write_files(Scores((score,)), tmp_path / name, "val", SETTINGS)
        runs.append(str(tmp_path / name))
    found = compare(load_runs(runs))
    assert found.best("J-Decay") == {"flat"} == found.best("J-Mean")


def test_only_common_objects_are_averaged(tmp_path, two):
    # A run without the hard sequence must not look better for it.
    few = {("dog_run", 1): (0.8, 0.8)}
    more = {("dog_run", 1): (0.7, 0.7), ("car", 1): (0.9, 0.7), ("zoo", 4): (1.0, 1.0)}
    runs = [two[0], write_run(tmp_path / "few", few), write_run(tmp_path / "more", more)]
    found = compare(load_runs(runs))
    assert found.counts == {"dog_run": 1}
    assert found.overall["a"]["J-Mean"] == pytest.approx(0.8)
    assert found.overall["more"]["J-Mean"] == pytest.approx(0.7)
    notes = " / ".join(found.notes)
    assert "a lacks 1 sequence: zoo" in notes
    assert "few lacks 2 sequences: car, zoo" in notes
    assert "more lacks 1 object: car_2" in notes
    assert "over the 1 objects that every run has, of 4" in notes
    other = write_run(tmp_path / "other", {("zoo", 4): (1.0, 1.0)})
    with pytest.raises(RdejaxError, match="a and other have no object in common"):
        compare(load_runs([two[0], other]))


def test_seen_and_unseen_are_recomputed(tmp_path):
    seen = {"car": True, "dog_run": False}
    data = {"dataset": "youtube-vos"}
    fewer = {("car", 1): (0.5, 0.5), ("dog_run", 1): (1.0, 1.0)}
    runs = [
        write_run(tmp_path / "a", CARS, seen=seen, **data),
        write_run(tmp_path / "b", fewer, seen=seen, **data),
    ]
    found = compare(load_runs(runs))
    assert found.columns == (*COLUMNS, *SEEN_COLUMNS)
    expected = {"J-seen": 0.9, "J-unseen": 0.8, "F-seen": 0.7, "F-unseen": 0.8, "G": 0.8}
    assert {key: found.overall["a"][key] for key in expected} == pytest.approx(expected)
    assert found.overall["b"]["G"] == pytest.approx(0.75)
    other = write_run(tmp_path / "c", CARS, seen={"car": True, "dog_run": True}, **data)
    assert compare(load_runs([runs[0], other])).columns == COLUMNS


def test_names_of_runs(tmp_path):
    for top in ("x", "y"):
        write_run(tmp_path / top / "out", CARS)
    x, y = (str(tmp_path / top / "out") for top in ("x", "y"))
    assert [run.name for run in load_runs([x, y])] == ["x/out", "y/out"]
    assert [run.name for run in load_runs([f"mine={x}", y + "/results.json"])] == ["mine", "out"]
    with pytest.raises(RdejaxError, match="two runs are called 'x/out'; name them"):
        load_runs([x, x])
    odd = write_run(tmp_path / "every=3", CARS)
    assert load_runs([odd])[0].name == "every=3"


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({"dataset": "davis2016"}, "data set davis2017 and davis2016"),
        ({"split": "train"}, "split val and train"),
        ({"boundary_tolerance": 0.02}, "boundary tolerance 0.008 and 0.02"),
        ({"frames_that_count": "all"}, "frames that count first and last"),
    ],
)
def test_other_protocols_are_refused(two, tmp_path, changed, expected):
    other = write_run(tmp_path / "c", CARS, **changed)
    with pytest.raises(RdejaxError, match=f"a and c cannot be compared: {expected}"):
        load_runs([two[0], other])


def test_other_true_masks_are_refused(two, tmp_path):
    other = write_run(tmp_path / "c", CARS, frames=5)
    with pytest.raises(RdejaxError, match="4 frames of car_1 count in one and 5 in the other"):
        load_runs([two[0], other])


def test_settings_of_inference_are_told(two, tmp_path):
    for name, every in (("a", 3), ("b", 5)):
        run = {"checkpoint": "rde-lite", "settings": {"every": every, "size": 480}}
        (tmp_path / name / "summary.json").write_text(json.dumps({"run": run}))
    assert compare(load_runs(two)).notes == ("settings, a -> b: every 3 -> 5",)
    (tmp_path / "b" / "summary.json").write_text("[]")
    assert compare(load_runs(two)).notes == ()


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (None, "no results.json; make it with rdejax evaluate"),
        ("{", "not a JSON object"),
        ("{}", "not the results of rdejax evaluate"),
        ('{"global": {}, "objects": {"a_1": {"J-Mean": 1}}, "settings": {}}', "not the results"),
    ],
)
def test_folders_without_scores(two, tmp_path, content, expected, capsys):
    bad = tmp_path / "bad"
    bad.mkdir()
    if content is not None:
        (bad / "results.json").write_text(content)
    with pytest.raises(SystemExit) as caught:
        main([two[0], str(bad)])
    message = capsys.readouterr().err
    assert caught.value.code == 2 and message.count("\n") == 1
    assert message.startswith("error: ") and str(bad) in message and expected in message
    with pytest.raises(RdejaxError, match="nowhere: no such folder"):
        load_runs([two[0], str(tmp_path / "nowhere")])


def test_screen(two):
    text, styled = printed(compare(load_runs(two)))
    assert "davis2017 val: 3 objects of 2 sequences" in text
    bold = re.findall("\x1b\\[1m *([0-9.-]+)\x1b", styled)
    assert bold == ["70.0", "100.0", "66.7", "100.0"]  # J&F, J-Recall, F, F-Recall: all b's
    row = next(line for line in text.splitlines() if "dog_run" in line)
    assert "80.0" in row and "65.0  -15.0" in row
    assert "worst of b: dog_run 65.0, car 72.5" in text
    assert "b falls behind a most: dog_run -15.0" in text
    text, _ = printed(compare(load_runs(two)), most=1, worst=1)
    assert "the 1 of 2 that differ most" in text and "│ car" not in text


def test_files_and_plots(two, tmp_path, capsys):
    output = tmp_path / "new" / "out"
    main([*two, "--output", str(output), "--worst", "1"])
    assert sorted(path.name for path in output.iterdir()) == [
        "compare.csv",
        "compare.json",
        "difference-b.png",
        "global.png",
        "sequences.png",
    ]
    assert str(output) in capsys.readouterr().out
    content = json.loads((output / "compare.json").read_text())
    assert content["baseline"] == "a" and content["objects"] == 3
    b = content["runs"]["b"]
    assert b["differences"]["dog_run"] == pytest.approx(-0.15) and b["worst"] == ["dog_run"]
    assert b["global"] == pytest.approx(b["global_of_its_own"]) and tuple(b["global"]) == COLUMNS
    with open(output / "compare.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["Run"], row["Sequence"]) for row in rows] == [
        (run, key) for run in "ab" for key in ("global", "car", "dog_run")
    ]
    assert float(rows[4]["J&F-Mean difference"]) == pytest.approx(0.125)
    for path in output.glob("*.png"):
        with Image.open(path) as image:
            assert min(image.size) > 150 and len(image.convert("RGB").getcolors(1 << 24)) > 20


def test_nothing_is_written_unless_asked(two, tmp_path, capsys):
    before = sorted(tmp_path.rglob("*"))
    main(two)
    assert sorted(tmp_path.rglob("*")) == before
    main([*two, "--output", str(tmp_path / "out"), "--no-plots"])
    assert not list((tmp_path / "out").glob("*.png"))


def test_without_matplotlib(two, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(SystemExit):
        main([*two, "--output", str(tmp_path / "out")])
    assert "pip install 'rdejax[viz]'" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    main([*two, "--output", str(tmp_path / "out"), "--no-plots"])


def test_figures_show_the_numbers(two):
    found = compare(load_runs(two))
    axes = global_figure(found).axes[0]
    heights = [patch.get_height() for patch in axes.patches]
    row = [found.overall[name]["J&F-Mean"] for name in "ab"]
    assert [heights[0], heights[len(heights) // 2]] == pytest.approx([100 * v for v in row])
    axes = difference_figure(found, "b").axes[0]
    assert [patch.get_width() for patch in axes.patches] == pytest.approx([-15, 12.5])
    assert [label.get_text() for label in axes.get_yticklabels()] == ["dog_run", "car"]
    axes = sequence_figure(found, most=1).axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["car"]
    assert "the 1 lowest of 2 sequences" in axes.get_title()
