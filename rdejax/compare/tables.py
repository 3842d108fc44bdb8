"""A comparison on screen, as `compare.json` and as `compare.csv`."""

import csv
import io
import math
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from rdejax.compare.comparison import Comparison
from rdejax.compare.runs import Row
from rdejax.evaluate.scores import COLUMNS
from rdejax.files import atomic, write_json


def print_comparison(
    comparison: Comparison,
    console: Console | None = None,
    *,
    worst: int = 5,
    most: int = 60,
) -> None:
    """Prints the global numbers, the sequences and the worst of them, in per cent.

    Args:
      comparison: see `compare`.
      console: where to.
      worst: how many worst sequences of each run.
      most: with more sequences than this only those that differ most are shown.
    """
    console = console or Console()
    if not console.is_terminal:
        console.width = max(console.width, 160)
    console.print(_global_table(comparison))
    console.print(_sequence_table(comparison, most))
    for name in comparison.names:
        values = comparison.values(name)
        listed = [f"{key} {_percent(values[key])}" for key in comparison.worst(name, worst)]
        console.print(Text(f"worst of {name}: " + ", ".join(listed)))
    for name in comparison.others:
        values = comparison.differences(name)
        listed = [f"{key} {_signed(values[key])}" for key in comparison.falls(name, worst)]
        text = ", ".join(listed) or "nowhere"
        console.print(Text(f"{name} falls behind {comparison.baseline} most: {text}"))
    for note in comparison.notes:
        console.print(Text(f"note: {note}"))


def write_comparison(comparison: Comparison, folder: str | Path, *, worst: int = 5) -> list[Path]:
    """Writes `compare.json` and `compare.csv`, fractions at full precision.

    The CSV has a row for each run's global numbers (sequence "global") and one for each run and
    sequence, with the difference of the metric to the baseline. An undefined number is null or
    empty.

    Args:
      comparison: see `compare`.
      folder: made if missing.
      worst: how many worst sequences of each run.

    Returns:
      The two paths.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / "compare.json", folder / "compare.csv"]
    write_json(paths[0], _as_json(comparison, worst))
    with atomic(paths[1]) as temporary:
        temporary.write_text(_as_csv(comparison), encoding="utf-8")
    return paths


def _global_table(comparison: Comparison) -> Table:
    objects = sum(comparison.counts.values())
    table = Table(
        title=f"{_title(comparison)}: {objects} objects of {len(comparison.counts)} sequences",
        caption="per cent; the best is bold",
    )
    table.add_column("Run", no_wrap=True)
    for column in comparison.columns:
        table.add_column(column, justify="right", no_wrap=True)
    best = {column: comparison.best(column) for column in comparison.columns}
    for name, row in comparison.overall.items():
        cells = [
            Text(_percent(value), "bold" if name in best[column] else "")
            for column, value in row.items()
        ]
        table.add_row(Text(name), *cells)
    return table


def _sequence_table(comparison: Comparison, most: int) -> Table:
    sequences = list(comparison.counts)
    shown = sequences
    if len(sequences) > most:
        spread = {key: _spread(comparison, key) for key in sequences}
        kept = set(sorted(sequences, key=lambda key: -spread[key])[:most])
        shown = [key for key in sequences if key in kept]
    title = f"{comparison.metric} by sequence, and the difference to {comparison.baseline}"
    if len(shown) < len(sequences):
        title += f"; the {len(shown)} of {len(sequences)} that differ most"
    table = Table(title=title)
    table.add_column("Sequence", no_wrap=True)
    table.add_column("Objects", justify="right")
    for name in (comparison.baseline, *comparison.others):
        table.add_column(Text(name), justify="right", no_wrap=True)
    values = {name: comparison.values(name) for name in comparison.names}
    differences = {name: comparison.differences(name) for name in comparison.others}
    for key in shown:
        cells = [_percent(values[comparison.baseline][key])]
        for name in comparison.others:
            cells.append(f"{_percent(values[name][key])} {_signed(differences[name][key]):>6}")
        table.add_row(Text(key), str(comparison.counts[key]), *cells)
    return table


def _spread(comparison: Comparison, sequence: str) -> float:
    values = [comparison.sequences[name][sequence][comparison.metric] for name in comparison.names]
    return max(values) - min(values)


def _title(comparison: Comparison) -> str:
    settings = comparison.runs[0].settings
    return " ".join(str(settings[key]) for key in ("dataset", "split") if key in settings)


def _as_json(comparison: Comparison, worst: int) -> dict[str, Any]:
    runs = {}
    for run in comparison.runs:
        name = run.name
        runs[name] = {
            "results": str(run.path),
            "global": _json_row(comparison.overall[name]),
            "global_of_its_own": _json_row(run.overall),
            "sequences": {k: _json_row(row) for k, row in comparison.sequences[name].items()},
            "differences": _json_row(comparison.differences(name)),
            "worst": comparison.worst(name, worst),
            "falls": comparison.falls(name, worst),
            "settings": run.settings,
            "inference": run.inference,
        }
    return {
        "baseline": comparison.baseline,
        "metric": comparison.metric,
        "objects": sum(comparison.counts.values()),
        "sequences": len(comparison.counts),
        "runs": runs,
        "notes": list(comparison.notes),
    }


def _as_csv(comparison: Comparison) -> str:
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(("Run", "Sequence", "Objects", *COLUMNS, f"{comparison.metric} difference"))
    base = comparison.overall[comparison.baseline][comparison.metric]
    for name in comparison.names:
        row = comparison.overall[name]
        total = sum(comparison.counts.values())
        difference = row[comparison.metric] - base
        writer.writerow((name, "global", total, *_cells(row), _cell(difference)))
        differences = comparison.differences(name)
        for key, row in comparison.sequences[name].items():
            cells = (*_cells(row), _cell(differences[key]))
            writer.writerow((name, key, comparison.counts[key], *cells))
    return file.getvalue()


def _cells(row: Row) -> list[str]:
    return [_cell(row[column]) for column in COLUMNS]


def _cell(value: float) -> str:
    return "" if math.isnan(value) else repr(value)


def _json_row(row: Row) -> dict[str, float | None]:
    return {key: None if math.isnan(value) else value for key, value in row.items()}


def _percent(value: float) -> str:
    return "-" if math.isnan(value) else f"{100 * value:.1f}"


def _signed(value: float) -> str:
    return "-" if math.isnan(value) else f"{100 * value:+.1f}"
