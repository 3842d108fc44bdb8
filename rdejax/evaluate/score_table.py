"""Scores as a table: on screen, as `results.json`, and as the DAVIS toolkit's two CSV files."""

import csv
import dataclasses
import io
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from rdejax.evaluate.scores import COLUMNS, SEEN_COLUMNS, Scores
from rdejax.files import atomic, write_json

Row = dict[str, float]


@dataclasses.dataclass(frozen=True)
class ScoreTable:
    """The numbers of a folder of results by column, as fractions; what is undefined is NaN.

    Attributes:
      total: the global row; its first column ranks the sequences.
      sequences: a row per sequence.
      objects: a row per object, called `<sequence>_<id>`.
      frames: number of frames of each object that count; empty if unknown.
      categories: `category` and `seen` of each object; empty if unknown.
      notes: what was left out of the numbers, one sentence each.
      settings: how it was scored.
    """

    total: Row
    sequences: dict[str, Row]
    objects: dict[str, Row]
    frames: dict[str, int] = dataclasses.field(default_factory=dict)
    categories: dict[str, dict[str, Any]] = dataclasses.field(default_factory=dict)
    notes: tuple[str, ...] = ()
    settings: dict[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def ranking(self) -> list[str]:
        """Sequences that have a number in the first column, worst first."""
        key = next(iter(self.total))
        known = {name: row.get(key, math.nan) for name, row in self.sequences.items()}
        return lowest_first(dict(sorted(known.items())))

    @staticmethod
    def of(scores: Scores, settings: Mapping[str, Any] | None = None) -> "ScoreTable":
        """The table of what `rdejax.evaluate.evaluate` found."""
        categories = {
            score.name: {"category": score.category, "seen": score.seen}
            for score in scores.objects
            if score.category is not None
        }
        return ScoreTable(
            scores.global_row,
            scores.sequence_rows,
            scores.object_rows,
            {score.name: len(score.frames) for score in scores.objects},
            categories,
            scores.notes,
            dict(settings or {}),
        )

    @staticmethod
    def from_json(content: Mapping[str, Any]) -> "ScoreTable":
        """The table that `results.json` holds.

        Raises:
          ValueError: it is of another form.
        """
        try:
            table = ScoreTable(
                _numbers(content["global"]),
                {name: _numbers(row) for name, row in content.get("sequences", {}).items()},
                {name: _numbers(row) for name, row in content.get("objects", {}).items()},
                {name: int(count) for name, count in content.get("frames", {}).items()},
                {name: dict(found) for name, found in content.get("categories", {}).items()},
                tuple(map(str, content.get("notes", ()))),
                dict(content.get("settings", {})),
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"no table of scores: {error}") from None
        if not table.total:
            raise ValueError("no table of scores: the global row is empty")
        return table

    def as_json(self) -> dict[str, Any]:
        """Inverse of `from_json`."""
        return {
            "global": json_row(self.total),
            "sequences": {name: json_row(row) for name, row in self.sequences.items()},
            "objects": {name: json_row(row) for name, row in self.objects.items()},
            "frames": self.frames,
            **({"categories": self.categories} if self.categories else {}),
            "notes": list(self.notes),
            "settings": self.settings,
        }


def print_table(
    scores: Scores,
    title: str,
    console: Console | None = None,
    *,
    caption: str = "per cent; first and last frame of a sequence left out",
) -> None:
    """Prints one line per sequence and the global line, in per cent.

    With seen and unseen categories their numbers follow in a line of their own.
    """
    console = wide(console, 120)
    table = empty_table(title, ("Sequence",), ("Objects", *COLUMNS), caption)
    counts = Counter(score.sequence for score in scores.objects)
    for name, row in scores.sequence_rows.items():
        table.add_row(name, str(counts[name]), *map(percent, row.values()))
    table.add_section()
    row = scores.global_row
    values = [percent(row[column]) for column in COLUMNS]
    table.add_row("Global", str(len(scores.objects)), *values, style="bold")
    console.print(table)
    if "G" in row:
        console.print("   ".join(f"{name} {percent(row[name])}" for name in SEEN_COLUMNS))
    for note in scores.notes:
        console.print(f"note: {note}", markup=False)


def write_files(scores: Scores, folder: Path, split: str, settings: dict[str, object]) -> Path:
    """Writes `results.json`, `global_results-<split>.csv`, `per-sequence_results-<split>.csv`.

    The JSON holds fractions at full precision under `global`, `sequences` and `objects`, the number
    of frames of each object that count under `frames`, with seen and unseen categories those of
    each object under `categories`, and `settings` as given; a number that is not defined is null.
    The CSV files have the toolkit's columns (with seen and unseen categories theirs, too) and three
    decimals; like the toolkit's, the second has a row per object.

    Returns:
      The path of `results.json`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    table = ScoreTable.of(scores, settings)
    total = [table.total, [f"{value:.3f}" for value in table.total.values()]]
    each = [
        (name, f"{row['J-Mean']:.3f}", f"{row['F-Mean']:.3f}")
        for name, row in table.objects.items()
    ]
    write_csv(folder / f"global_results-{split}.csv", total)
    write_csv(
        folder / f"per-sequence_results-{split}.csv", [("Sequence", "J-Mean", "F-Mean"), *each]
    )
    path = folder / "results.json"
    write_json(path, table.as_json())
    return path


def write_csv(path: Path, rows: Iterable[Iterable[object]]) -> None:
    """Writes a CSV file whole or not at all."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    with atomic(path) as temporary:
        temporary.write_text(text.getvalue(), encoding="utf-8")


def wide(console: Console | None, width: int) -> Console:
    """The console, or one that writes to the screen; a pipe gets at least this many columns."""
    console = console or Console()
    if not console.is_terminal:
        # A pipe has no width; the usual 80 columns would break long sequence names.
        console.width = max(console.width, width)
    return console


def empty_table(
    title: str, names: Sequence[str], numbers: Sequence[str], caption: str | None = None
) -> Table:
    """A table with columns of names on the left and of numbers on the right."""
    table = Table(title=title, caption=caption)
    for name in names:
        table.add_column(name, no_wrap=True)
    for name in numbers:
        table.add_column(name, justify="right", no_wrap=True)
    return table


def percent(value: float, form: str = ".1f", undefined: str = "-") -> str:
    """A fraction in per cent."""
    return undefined if math.isnan(value) else f"{100 * value:{form}}"


def json_row(row: Mapping[str, float]) -> dict[str, float | None]:
    """A row for JSON, which knows no NaN."""
    return {column: None if math.isnan(value) else value for column, value in row.items()}


def lowest_first(values: Mapping[str, float]) -> list[str]:
    """Names of all known numbers, the lowest first, equal ones in the order given."""
    return sorted((n for n, v in values.items() if not math.isnan(v)), key=lambda n: values[n])


def _numbers(row: Mapping[str, float | None]) -> Row:
    return {name: math.nan if value is None else float(value) for name, value in row.items()}
