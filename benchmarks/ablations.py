"""The ablation tables of the papers, from one command over a data set, beside the papers' figures.

python benchmarks/ablations.py --root DAVIS --tables rde-strategy rde-theta swem-tau swem-l

Strategy, theta and tau need no training: they are settings of one checkpoint. L, the width of
SWEM's features, changes the fusion's weights; give a checkpoint for each value, as
`rdejax train swem_lite --memory-settings top_l=8 --workdir runs/l8` writes them:
`--l-checkpoints 8=runs/l8 16=runs/l16`. Writes benchmarks/results/ablations.json.
"""

import dataclasses
from pathlib import Path
from typing import Any, Literal

import tyro
from measure import RESULTS, machine
from rich.console import Console
from rich.table import Table
from sweeps import Variant, data, quality

from rdejax.cli import cli_errors
from rdejax.errors import RdejaxError
from rdejax.files import read_json, write_json
from rdejax.models.matching import Matching
from rdejax.train.validate import validation_sequences

# J&F on DAVIS 2017 val: RDE-VOS, main paper, and SWEM, supplementary.
PAPER: dict[str, dict[str, float]] = {
    "rde-strategy": {
        "RDE": 81.8,
        "F": 71.6,
        "F+RDE": 85.3,
        "L": 80.4,
        "L+RDE": 82.2,
        "F+L": 84.6,
        "F+L+RDE": 85.4,
        "2F+L": 85.1,
        "F+2L": 84.0,
        "2F+L+RDE": 86.1,
    },
    "rde-theta": {"2": 85.1, "3": 86.1, "4": 85.1, "5": 84.2},
    "swem-tau": {"0.01": 79.6, "0.02": 80.5, "0.05": 81.9, "0.1": 81.7, "0.2": 72.8, "1": 66.7},
    "swem-l": {"8": 81.0, "16": 81.4, "32": 81.5, "64": 81.9, "128": 81.6},
}
_TABLES = Literal["rde-strategy", "rde-theta", "swem-tau", "swem-l"]


@dataclasses.dataclass(frozen=True)
class Arguments:
    """Runs the chosen tables; lines that are in the output already are not run again."""

    root: Path
    """Top folder of the data set."""
    tables: tuple[_TABLES, ...] = ("rde-strategy", "rde-theta", "swem-tau", "swem-l")
    dataset: str = "davis2017"
    split: str = "val"
    rde: str = "rde-lite"
    """Checkpoint with the RDE memory."""
    swem: str = "swem-lite"
    """Checkpoint with SWEM's memory."""
    l_checkpoints: tuple[str, ...] = ()
    """L=CHECKPOINT for each L that was trained; the one of `swem` needs none."""
    every: int = 3
    """Interval of memorising of the strategies (theta)."""
    size: int = 480
    """Shorter side, in pixels."""
    frames: int = 0
    """At most this many frames of each sequence; 0: all."""
    output: Path = RESULTS / "ablations.json"


def variants(table: str, args: Arguments) -> dict[str, Variant | None]:
    """The lines of a table; None for those that no checkpoint is given for."""
    names = list(PAPER[table])
    if table == "rde-strategy":
        settings: list[dict[str, Any]] = [{"strategy": n, "every": args.every} for n in names]
    elif table == "rde-theta":
        settings = [{"every": int(n)} for n in names]
    elif table == "swem-tau":
        settings = [{"tau": float(n)} for n in names]
    else:
        return _trained_with(names, args)
    checkpoint = args.rde if table.startswith("rde") else args.swem
    return {n: Variant(n, checkpoint, s) for n, s in zip(names, settings, strict=True)}


def _trained_with(names: list[str], args: Arguments) -> dict[str, Variant | None]:
    given: dict[str, str] = {}
    for text in args.l_checkpoints:
        number, sign, where = text.partition("=")
        if not sign or number not in names:
            raise RdejaxError(f"--l-checkpoints {text}: give L=CHECKPOINT, L one of {names}")
        given[number] = where
    model = Variant("", args.swem, {}).load()
    assert isinstance(model, Matching)
    own = str(model.memory.features // 2)
    given.setdefault(own, args.swem)
    return {n: Variant(n, given[n], {}) if n in given else None for n in names}


def run(table: str, args: Arguments, done: dict[str, Any], save: Any) -> None:
    """Fills `done` with the lines of a table, saving after each."""
    config = data(args.root, args.size, args.dataset, args.split, args.frames)
    sequences = validation_sequences(config)
    for name, variant in variants(table, args).items():
        if variant is None:
            print(f"{table} {name}: no checkpoint was trained with it, see --l-checkpoints")
        elif name not in done:
            done[name] = quality(variant.load(), config, sequences)
            print(f"{table} {name}: J&F {done[name]['J&F']:.1f}", flush=True)
            save()


def print_table(table: str, rows: dict[str, Any], dataset: str) -> None:
    """Ours beside the paper's."""
    shown = Table(title=f"{table}: J&F, per cent")
    for column in (table.split("-")[1], "paper, DAVIS 2017 val", f"here, {dataset}", "J", "F"):
        shown.add_column(column, justify="right")
    for name, paper in PAPER[table].items():
        row = rows.get(name)
        mine = [f"{row[k]:.1f}" for k in ("J&F", "J", "F")] if row else ["-"] * 3
        shown.add_row(name, f"{paper:.1f}", *mine)
    Console(width=100).print(shown)


def main() -> None:
    """Runs the tables, prints them, writes JSON."""
    args = tyro.cli(Arguments)
    with cli_errors():
        plain = {k: v for k, v in dataclasses.asdict(args).items() if k not in ("tables", "output")}
        settings = {**plain, "root": args.root.name, "l_checkpoints": list(args.l_checkpoints)}
        old = read_json(args.output) if args.output.is_file() else None
        same = old is not None and old.get("arguments") == settings
        tables: dict[str, Any] = old["tables"] if old is not None and same else {}

        def save() -> None:
            write_json(args.output, {"machine": machine(), "arguments": settings, "tables": tables})

        for table in args.tables:
            run(table, args, tables.setdefault(table, {}), save)
        for table in args.tables:
            print_table(table, tables[table], args.dataset)


if __name__ == "__main__":
    main()
