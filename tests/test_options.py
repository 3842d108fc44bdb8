"""Wrong command lines: one sentence each, whatever the command."""

import importlib

import pytest

from rdejax.__main__ import main

EVALUATE = "evaluate --dataset folder --root a --results b"
WRONG = {
    "evaluate --dataset davis2016": "missing: --root DIR, --results DIR; see",
    f"{EVALUATE} --dataset x": "invalid choice 'x' for argument '--dataset'",
    f"{EVALUATE} --workers -3": "--workers -3: must be a whole number, 1 or more",
    f"{EVALUATE} --workers 0": "--workers 0: must be",
    f"{EVALUATE} --workers x": "--workers x: must be",
    f"{EVALUATE} --workerss 3": "--workerss, 3; perhaps --workers is meant",
    f"{EVALUATE} --output=": "--output: its value is empty",
    "compare a b --worst -1": "--worst -1: must be",
    "convert": "missing: CHECKPOINT.pth, --output DEST",
    "data a --limit ²": "--limit ²: must be",
    "data convert a --output b --threads 0": "--threads 0: must be",
    "report a --megabytes nan": "--megabytes nan: give a number of 0 or more",
    "report a --megabytes -1": "--megabytes -1.0: give",
    "report a --megabytes x": "could not convert string to float: 'x'",
    "visualize": "Expected one of {overlay, sheet,",
    "visualize strip": "missing: VIDEO, --output FILE, --results DIR",
    "push": "missing: ",
    "app": "missing: VIDEO_OR_FRAMES_DIR",
    "app a --port x": "Error parsing --port: no type matching",
    "app a --output=": "--output: its value is empty",
    "report a --output b.mp4": "b.mp4: the page is HTML; end its name in .html",
    "submit --dataset davis2017 --root a --split b --results c --zip d.png": "d.png: the servers",
    "submit": "missing: --dataset {",
    "train rde_lite_smoke": "missing: --workdir PATH",
    "train rde_lite_smoke --workdir w --steps x": "Error parsing --steps: invalid literal",
    "train rde_lite_smoke --workdir w --stepz 3": "perhaps --steps is meant",
    "train rde_lite_smoke --workdir w --steps 0": "steps=0: give 1 or more",
    "infer a --mask b --output c --size": "Missing value for argument '--size'",
    "infer a --mask b --output c --chunk ³": "--chunk ³: must be a whole number",
}


@pytest.mark.parametrize("line", WRONG)
def test_a_wrong_command_line_is_one_sentence(line, capsys, monkeypatch, tmp_path) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as caught:
        main(line.split(" "))
    error = capsys.readouterr().err
    assert caught.value.code == 2
    assert error.startswith("error: ") and error.count("\n") == 1 and WRONG[line] in error
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["evaluate", "compare", "convert", "report", "infer", "data"])
def test_help_is_a_page_on_stdout(name, capsys) -> None:
    with pytest.raises(SystemExit) as caught:
        importlib.import_module(f"rdejax.{name}.__main__").main(["--help"])
    told = capsys.readouterr()
    assert caught.value.code == 0 and told.out.count("\n") > 5 and not told.err
