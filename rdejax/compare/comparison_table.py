"""A comparison on screen, as `compare.json` and as `compare.csv`."""

from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from rdejax.compare.comparison import Comparison
from rdejax.evaluate.score_table import empty_table, json_row, percent, wide, write_csv
from rdejax.evaluate.scores import COLUMNS
from rdejax.files import write_json

_SIGNED = "+.1f"


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
    console = wide(console, 160)
    console.print(_global_table(comparison))
    console.print(_sequence_table(comparison, most))
    for name in comparison.names:
        values = comparison.values(name)
        listed = [f"{key} {percent(values[key])}" for key in comparison.worst(name, worst)]
        console.print(Text(f"worst of {name}: " + ", ".join(listed)))
    for name in comparison.others:
        values = comparison.differences(name)
        listed = [f"{key} {percent(values[key], _SIGNED)}" for key in comparison.falls(name, worst)]
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
    write_csv(paths[1], _csv_rows(comparison))
    return paths


def _global_table(comparison: Comparison) -> Table:
    objects = sum(comparison.counts.values())
    settings = comparison.runs[0].scores.settings
    what = " ".join(str(settings[key]) for key in ("dataset", "split") if key in settings)
    title = f"{what}: {objects} objects of {len(comparison.counts)} sequences"
    columns = comparison.columns
    table = empty_table(title, ("Run",), columns, "per cent; the best is bold")
    best = {column: comparison.best(column) for column in columns}
    for name, row in comparison.overall.items():
        cells = [
            Text(percent(value), "bold" if name in best[column] else "")
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
    table = empty_table(title, ("Sequence",), ("Objects",))
    for name in (comparison.baseline, *comparison.others):
        table.add_column(Text(name), justify="right", no_wrap=True)
    values = {name: comparison.values(name) for name in comparison.names}
    differences = {name: comparison.differences(name) for name in comparison.others}
    for key in shown:
        cells = [percent(values[comparison.baseline][key])]
        for name in comparison.others:
            cells.append(
                f"{percent(values[name][key])} {percent(differences[name][key], _SIGNED):>6}"
            )
        table.add_row(Text(key), str(comparison.counts[key]), *cells)
    return table


def _spread(comparison: Comparison, sequence: str) -> float:
    values = [comparison.sequences[name][sequence][comparison.metric] for name in comparison.names]
    return max(values) - min(values)


def _as_json(comparison: Comparison, worst: int) -> dict[str, Any]:
    runs = {}
    for run in comparison.runs:
        name = run.name
        runs[name] = {
            "results": str(run.path),
            "global": json_row(comparison.overall[name]),
            "global_of_its_own": json_row(run.scores.total),
            "sequences": {k: json_row(row) for k, row in comparison.sequences[name].items()},
            "differences": json_row(comparison.differences(name)),
            "worst": comparison.worst(name, worst),
            "falls": comparison.falls(name, worst),
            "settings": run.scores.settings,
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


def _csv_rows(comparison: Comparison) -> list[tuple[object, ...]]:
    rows: list[tuple[object, ...]] = [
        ("Run", "Sequence", "Objects", *COLUMNS, f"{comparison.metric} difference")
    ]
    base = comparison.overall[comparison.baseline][comparison.metric]
    for name in comparison.names:
        overall, differences = comparison.overall[name], comparison.differences(name)
        total = sum(comparison.counts.values())
        counted = [("global", total, overall, overall[comparison.metric] - base)]
        for key, row in comparison.sequences[name].items():
            counted.append((key, comparison.counts[key], row, differences[key]))
        for key, count, row, difference in counted:
            values = json_row({**{c: row[c] for c in COLUMNS}, "difference": difference})
            rows.append((name, key, count, *values.values()))
    return rows
