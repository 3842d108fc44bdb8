"""Command line: `rdejax compare A B [C ...] [--output DIR]`."""

import dataclasses
import re
from pathlib import Path
from typing import Annotated, Literal

import tyro

from rdejax.cli import cli_errors
from rdejax.compare.comparison import Comparison, compare
from rdejax.compare.comparison_table import print_comparison, write_comparison
from rdejax.compare.figures import difference_figure, global_figure, sequence_figure
from rdejax.compare.scored_runs import load_runs
from rdejax.options import parse_options, whole
from rdejax.visualize.charts import need_matplotlib, save_figure

Runs = Annotated[
    tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="[NAME=]FOLDER [...]")
]


@dataclasses.dataclass(frozen=True)
class Arguments:
    """Compares result folders that rdejax evaluate has scored.

    Prints the global numbers of all runs, their differences by sequence and the worst sequences;
    with --output also writes compare.json, compare.csv and bar plots. Every number is over the
    objects that all runs have.
    """

    runs: Runs
    """Folders that hold results.json, or such files; NAME=FOLDER gives a run its name."""
    baseline: Annotated[str | None, tyro.conf.arg(metavar="NAME")] = None
    """The run that the others are compared with; the first unless given."""
    metric: Literal["J&F-Mean", "J-Mean", "F-Mean"] = "J&F-Mean"
    """By which sequences are compared."""
    worst: Annotated[int, whole("--worst")] = 5
    """How many worst sequences to name."""
    output: Annotated[Path | None, tyro.conf.arg(metavar="DIR")] = None
    """Folder for compare.json, compare.csv and the plots; nothing is written unless given."""
    no_plots: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Write no plots, which need matplotlib."""


def write_plots(comparison: Comparison, folder: Path) -> list[Path]:
    """Writes `global.png`, `sequences.png` and `difference-<run>.png`; returns their paths."""
    figures = {"global": global_figure(comparison), "sequences": sequence_figure(comparison)}
    for name in comparison.others:
        stem = re.sub(r"[^\w.+-]+", "-", name)
        figures[f"difference-{stem}"] = difference_figure(comparison, name)
    paths = {stem: folder / f"{stem}.png" for stem in figures}
    for stem, figure in figures.items():
        save_figure(paths[stem], figure)
    return list(paths.values())


def main(argv: list[str] | None = None) -> None:
    """Parses `argv` (the process's own by default), compares, prints and writes."""
    with cli_errors():
        args = parse_options(Arguments, args=argv)
        plots = args.output is not None and not args.no_plots
        if plots:
            need_matplotlib(", or leave them out with --no-plots")
        comparison = compare(load_runs(args.runs), args.baseline, args.metric)
        print_comparison(comparison, worst=args.worst)
        if args.output is None:
            return
        paths = write_comparison(comparison, args.output, worst=args.worst)
        if plots:
            paths += write_plots(comparison, args.output)
        print(f"wrote {', '.join(path.name for path in paths)} to {args.output}")


if __name__ == "__main__":
    main()
