"""Reads the scores that `rdejax evaluate` wrote, and checks that they are comparable."""

import dataclasses
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rdejax.errors import RdejaxError
from rdejax.evaluate.score_table import ScoreTable
from rdejax.evaluate.scores import COLUMNS
from rdejax.files import read_json
from rdejax.infer.results import describe_difference

# What decides which numbers are comparable, and how a person knows it.
_MUST_AGREE = {
    "dataset": "data set",
    "split": "split",
    "boundary_tolerance": "boundary tolerance",
    "frames_that_count": "frames that count",
}


@dataclasses.dataclass(frozen=True)
class ScoredRun:
    """The scores of one result folder.

    Attributes:
      name: what it is called here.
      path: its results.json.
      scores: its own numbers; each object has all of `COLUMNS`.
      inference: how rdejax infer made the masks; empty if unknown.
    """

    name: str
    path: Path
    scores: ScoreTable
    inference: dict[str, Any]

    @property
    def seen(self) -> dict[str, bool]:
        """Object -> whether its category is a seen one; empty if unknown."""
        found = {name: what.get("seen") for name, what in self.scores.categories.items()}
        return {name: seen for name, seen in found.items() if seen is not None}


def load_runs(arguments: Sequence[str]) -> list[ScoredRun]:
    """Reads several runs.

    Args:
      arguments: each a folder with results.json or such a file, or NAME=PATH.

    Raises:
      RdejaxError: no or damaged results.json; two runs of one name; runs that are not comparable:
        another data set, split, boundary tolerance, or other frames of an object.
    """
    named = [_split_name(argument) for argument in arguments]
    counts = Counter(name for name, _, _ in named)
    runs = [
        # Folders of one name are told apart by the folder around them.
        _load(name if counts[name] == 1 or chosen else _longer_name(path), path)
        for name, path, chosen in named
    ]
    twice = [name for name, count in Counter(run.name for run in runs).items() if count > 1]
    if twice:
        raise RdejaxError(f"two runs are called {twice[0]!r}; name them: NAME=FOLDER")
    for run in runs[1:]:
        _check_comparable(runs[0], run)
    return runs


def sequence_of(name: str) -> str:
    """The sequence of an object called `<sequence>_<id>`."""
    return name.rpartition("_")[0]


def describe_inference(first: ScoredRun, other: ScoredRun) -> str:
    """The first settings of rdejax infer in which two runs differ, as "every 3 -> 5"; or empty."""
    if not first.inference or not other.inference:
        return ""
    return describe_difference(first.inference, other.inference)


def _split_name(argument: str) -> tuple[str, Path, bool]:
    """Name, path, and whether the name was chosen."""
    name, sign, path = argument.partition("=")
    if sign and name and path and "/" not in name and not Path(argument).exists():
        return name, Path(path), True
    return _folder(Path(argument)).resolve().name, Path(argument), False


def _folder(path: Path) -> Path:
    return path.parent if path.suffix == ".json" else path


def _longer_name(path: Path) -> str:
    return "/".join(_folder(path).resolve().parts[-2:])


def _load(name: str, path: Path) -> ScoredRun:
    folder = _folder(path)
    file = path if path.suffix == ".json" else path / "results.json"
    content = read_json(file) if folder.is_dir() else None
    if content is None:
        there = "no results.json" if folder.is_dir() else "no such folder"
        raise RdejaxError(
            f"{path}: {there}; make it with rdejax evaluate --dataset NAME --root DIR "
            f"--results {folder}"
        )
    try:
        table = ScoreTable.from_json(content)
        complete = bool(table.objects) and "settings" in content
        complete &= all(set(COLUMNS) <= row.keys() for row in table.objects.values())
    except ValueError:
        complete = False
    if not complete:
        raise RdejaxError(f"{file}: not the results of rdejax evaluate; run that again on {folder}")
    return ScoredRun(name, file, table, _inference(folder))


def _inference(folder: Path) -> dict[str, Any]:
    """Model and settings of rdejax infer; a summary of something else is no reason to stop."""
    try:
        summary = read_json(folder / "summary.json") or {}
    except RdejaxError:
        return {}
    run = summary.get("run")
    if not isinstance(run, dict) or not isinstance(run.get("settings"), dict):
        return {}
    return {"checkpoint": run.get("checkpoint"), **run["settings"]}


def _check_comparable(first: ScoredRun, other: ScoredRun) -> None:
    for key, title in _MUST_AGREE.items():
        one, two = (run.scores.settings.get(key) for run in (first, other))
        if one != two:
            raise RdejaxError(
                f"{first.name} and {other.name} cannot be compared: {title} {one} and {two}; score "
                "both with the same rdejax evaluate command"
            )
    for name, one in first.scores.frames.items():
        two = other.scores.frames.get(name, one)
        if one != two:
            raise RdejaxError(
                f"{first.name} and {other.name} cannot be compared: {one} frames of {name} count "
                f"in one and {two} in the other, so their true masks differ; score both again"
            )
