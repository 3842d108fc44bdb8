"""`rdejax COMMAND`: every command is found, answers --help at once, and calls itself as typed."""

import runpy
import subprocess
import sys
from pathlib import Path

import pytest

import rdejax
from rdejax import __main__ as entry
from rdejax.train.load_config import load_config, recipe_files

ROOT = Path(__file__).parents[1]


def said(capsys, *words: str) -> tuple[object, str]:
    """Exit code and output of a command."""
    with pytest.raises(SystemExit) as end:
        entry.main(words)
    out, err = capsys.readouterr()
    return end.value.code, out + err


def typed(monkeypatch, program: str, module: str | None = None) -> None:
    """As if `program` had been started: a script, or `python -m MODULE`."""
    main = type(sys)("__main__")
    main.__spec__ = type("Spec", (), {"name": module}) if module else None  # type: ignore
    monkeypatch.setitem(sys.modules, "__main__", main)
    monkeypatch.setattr(sys, "argv", [program])


def test_help_names_what_is_there(capsys) -> None:
    code, text = said(capsys, "--help")
    assert code == 0
    for name in ("infer", "train", "evaluate", "compare", "visualize", "convert", "data", "report"):
        assert f"\n  {name} " in text
    assert said(capsys)[0] == 2
    entry.main(["--version"])
    assert capsys.readouterr().out == f"rdejax {rdejax.__version__}\n"


@pytest.mark.parametrize("word", ["evaluat", "../train", "os", "", "--nothing"])
def test_unknown_commands_are_refused(capsys, word) -> None:
    code, text = said(capsys, word)
    assert code == 2 and "no such command" in text and "Traceback" not in text
    assert ("did you mean evaluate?" in text) == (word == "evaluat")


@pytest.mark.parametrize("command", entry._available())
def test_usage_names_what_was_typed(capsys, monkeypatch, command) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    typed(monkeypatch, "/some/where/bin/rdejax")
    code, text = said(capsys, command, "--help")
    assert code == 0 and f"rdejax {command}" in text and "python -m" not in text.split("\n")[0]
    typed(monkeypatch, "/lib/rdejax/__main__.py", "rdejax.__main__")
    assert f"python -m rdejax {command}" in said(capsys, command, "--help")[1]


def test_usage_of_scripts_and_modules(capsys, monkeypatch) -> None:
    from rdejax.evaluate.__main__ import main
    from rdejax.infer.cli import parse

    typed(monkeypatch, "infer.py")
    with pytest.raises(SystemExit):
        parse(["--help"])
    assert "usage: infer.py " in capsys.readouterr().out
    typed(monkeypatch, "/lib/rdejax/evaluate/__main__.py", "rdejax.evaluate.__main__")
    with pytest.raises(SystemExit):
        main(["--help"])
    assert "usage: python -m rdejax.evaluate " in capsys.readouterr().out


def test_help_of_a_command_needs_no_jax() -> None:
    code = (
        "import sys; from rdejax.__main__ import main\n"
        "try: main(['train', '--help'])\n"
        "finally: print('JAX' if 'jax' in sys.modules else 'NO-JAX')"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0 and "NO-JAX" in done.stdout, done.stderr
    assert "rde_stage3 " in done.stdout and "straight after stage 0" in done.stdout


def test_every_recipe_is_found_by_name_and_by_its_old_path() -> None:
    files = recipe_files()
    assert set(files) == {file.stem for file in (ROOT / "configs").glob("*.py")}
    for name in files:
        config = load_config(name)
        assert runpy.run_path(str(ROOT / "configs" / f"{name}.py"))["config"] == config


def test_recipes_that_are_none_are_refused(tmp_path) -> None:
    own = tmp_path / "rde_stage3.py"
    own.write_text("from rdejax.train.config import TrainConfig\nconfig = TrainConfig(steps=7)\n")
    assert load_config(str(own)).steps == 7
    with pytest.raises(rdejax.RdejaxError, match="did you mean rde_stage3"):
        load_config("configs/rde_stage33.py")
    for name in ("__init__", "../configs/rde_lite", "rde_lite/", "rdejax/configs"):
        with pytest.raises(rdejax.RdejaxError, match="no such configuration"):
            load_config(name)
