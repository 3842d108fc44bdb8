"""Scores as a table on screen, `results.json` and the DAVIS toolkit's two CSV files."""

import csv
import io
import math
from pathlib import Path

from rich.console import Console
from rich.table import Table

from rdejax.evaluate.scores import COLUMNS, SEEN_COLUMNS, Scores
from rdejax.files import atomic, write_json


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
    console = console or Console()
    if not console.is_terminal:
        # A pipe has no width; the usual 80 columns would break long sequence names.
        console.width = max(console.width, 120)
    table = Table(title=title, caption=caption)
    table.add_column("Sequence", no_wrap=True)
    table.add_column("Objects", justify="right")
    for column in COLUMNS:
        table.add_column(column, justify="right", no_wrap=True)
    counts: dict[str, int] = {}
    for score in scores.objects:
        counts[score.sequence] = counts.get(score.sequence, 0) + 1
    for name, row in scores.sequence_rows.items():
        table.add_row(name, str(counts[name]), *map(_percent, row.values()))
    table.add_section()
    row = scores.global_row
    values = [_percent(row[column]) for column in COLUMNS]
    table.add_row("Global", str(len(scores.objects)), *values, style="bold")
    console.print(table)
    if "G" in row:
        console.print("   ".join(f"{name} {_percent(row[name])}" for name in SEEN_COLUMNS))
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
    rows = scores.object_rows
    first, second = io.StringIO(), io.StringIO()
    writer = csv.writer(first, lineterminator="\n")
    writer.writerow(scores.global_row)
    writer.writerow([f"{value:.3f}" for value in scores.global_row.values()])
    writer = csv.writer(second, lineterminator="\n")
    writer.writerow(("Sequence", "J-Mean", "F-Mean"))
    for name, row in rows.items():
        writer.writerow((name, f"{row['J-Mean']:.3f}", f"{row['F-Mean']:.3f}"))
    for name, table in (("global_results", first), ("per-sequence_results", second)):
        with atomic(folder / f"{name}-{split}.csv") as temporary:
            temporary.write_text(table.getvalue(), encoding="utf-8")
    content = {
        "global": _json_row(scores.global_row),
        "sequences": {name: _json_row(row) for name, row in scores.sequence_rows.items()},
        "objects": {name: _json_row(row) for name, row in rows.items()},
        "frames": {score.name: len(score.frames) for score in scores.objects},
        **_categories(scores),
        "notes": list(scores.notes),
        "settings": settings,
    }
    path = folder / "results.json"
    write_json(path, content)
    return path


def _categories(scores: Scores) -> dict[str, object]:
    found = {
        score.name: {"category": score.category, "seen": score.seen}
        for score in scores.objects
        if score.category is not None
    }
    return {"categories": found} if found else {}


def _percent(value: float) -> str:
    return "-" if math.isnan(value) else f"{100 * value:.1f}"


def _json_row(row: dict[str, float]) -> dict[str, float | None]:
    return {column: None if math.isnan(value) else value for column, value in row.items()}
