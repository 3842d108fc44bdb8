"""What the documentation names is there: commands, their flags, recipes, files."""

import ast
import contextlib
import dataclasses
import io
import re
import tomllib
from pathlib import Path

import pytest

from rdejax import __main__ as entry
from rdejax.memory.registry import _RULES, rule_settings
from rdejax.models.registry import find_system, names
from rdejax.train.load_config import recipe_files

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
FLAG = re.compile(r"(?<![\w-])--[a-z][a-z0-9_.-]*[a-z0-9]")
SUBCOMMANDS = {
    "data": ("convert",),
    "visualize": ("overlay", "sheet", "strip", "pca", "relevance", "bases", "times", "growth"),
}
# Flags of programs that are not ours, in running text or behind another command.
FOREIGN = {"--rm", "--gpus", "--user", "--nv", "--bind", "--build-arg", "--help", "--version"}


def flags_of(*words: str) -> set[str]:
    """What `--help` of a command lists."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
        with contextlib.suppress(SystemExit):
            entry.main([*words, "--help"])
    return set(FLAG.findall(out.getvalue()))


@pytest.fixture(scope="module")
def flags() -> dict[str, set[str]]:
    """Flags by command; those of rules and systems belong to `infer`."""
    found = {name: flags_of(name) for name in entry._available() if name != "train"}
    found["train"] = flags_of("train", "rde_lite") | {"--resume"}
    for name, more in SUBCOMMANDS.items():
        for word in more:
            found[name] |= flags_of(name, word)
    settings = {setting for rule in _RULES.names() for setting in rule_settings(rule)}
    settings |= {
        f.name for n in names() for f in dataclasses.fields(find_system(n).default_settings)
    }
    settings |= {"decay"}  # of examples/ema_memory.py
    found["infer"] |= {"--" + name.replace("_", "-") for name in settings}
    found["benchmarks"] = set()
    for path in [*(ROOT / "benchmarks").glob("*.py"), *(ROOT / "examples").glob("*.py")]:
        tree = ast.parse(path.read_text("utf-8"))
        fields = [
            n.target.id
            for n in ast.walk(tree)
            if isinstance(n, ast.AnnAssign) and isinstance(n.target, ast.Name)
        ]
        fields += [
            a.arg
            for n in ast.walk(tree)
            if isinstance(n, ast.arguments)
            for a in n.args + n.kwonlyargs
        ]
        found["benchmarks"] |= {"--" + name.replace("_", "-") for name in fields}
    return found


def commands(text: str) -> list[str]:
    """Lines of shell in a page, continued ones as one; inline code is a line, too."""
    fenced = re.findall(r"```(?:bash|sh|shell)?\n(.*?)```", text, re.DOTALL)
    lines = [line for block in fenced for line in block.replace("\\\n", " ").splitlines()]
    prose = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
    return [line.partition("  #")[0] for line in lines] + re.findall(r"`([^`\n]+)`", prose)


@pytest.mark.parametrize("page", PAGES, ids=[page.name for page in PAGES])
def test_every_command_and_flag_exists(page, flags) -> None:
    every = set().union(*flags.values()) | FOREIGN
    for line in commands(page.read_text("utf-8")):
        called = re.search(r"(?:\brdejax|infer\.py|train\.py)(?= |$)(?: ([a-z]+))?", line)
        known = every
        if called and line.strip().startswith((called[0], ".venv", "python")):
            script = {"infer.py": "infer", "train.py": "train"}.get(called[0].split()[0])
            name = script or called[1]
            if name is not None:
                assert name in entry._COMMANDS, f"{page.name}: rdejax {name}: {line}"
                if name in flags:
                    known = flags[name] | {"--help"}
        elif line.strip().startswith(("docker", "apptainer", "pip", "git ", "hf ", "make", "tfds")):
            continue
        for flag in FLAG.findall(line):
            flag = flag.replace("_", "-")
            negated = flag.replace("--no-", "--", 1)
            assert flag in known or negated in known, f"{page.name}: {flag} in: {line}"


@pytest.mark.parametrize("page", PAGES, ids=[page.name for page in PAGES])
def test_every_recipe_exists(page) -> None:
    for name in re.findall(r"rdejax train ([a-z][a-z0-9_]+)", page.read_text("utf-8")):
        assert name in recipe_files(), f"{page.name}: {name}"


def test_the_readme_is_short_and_its_links_lead_somewhere() -> None:
    text = (ROOT / "README.md").read_text("utf-8")
    assert len(text.splitlines()) <= 150
    for target in re.findall(r"\]\(([^)#:\s]+)\)", text):
        assert (ROOT / target).exists(), target


def test_the_source_distribution_has_what_the_readme_uses() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    include = project["tool"]["hatch"]["build"]["targets"]["sdist"]["include"]
    for target in ("Makefile", ".ci/run", "CITATION.cff", "examples/demo/cockatoo.mp4", "configs"):
        path = "/" + target
        assert any(path == i or path.startswith(i + "/") for i in include), target
        assert (ROOT / target).exists()
