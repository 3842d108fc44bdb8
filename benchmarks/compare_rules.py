"""All memory rules on one body, the same clips, one run: quality, time and size of the state.

python benchmarks/compare_rules.py --root DAVIS

Rules that learn nothing are put on the body of the first checkpoint as they are; a second
checkpoint, trained with its own memory, may stand beside them. Writes
benchmarks/results/compare_rules.json and a plot beside it: quality against speed, with the
growing bank at several intervals. Quality does not change from run to run, so lines of an earlier
run with the same arguments are not scored again; times are.
"""

import dataclasses
import json
from pathlib import Path
from typing import Any

import tyro
from measure import RESULTS, machine, moving_square
from rich.console import Console
from rich.progress import track
from rich.table import Table
from sweeps import Variant, data, milliseconds, quality, state_bytes

from rdejax.cli import cli_errors
from rdejax.files import read_json, write_json
from rdejax.train.validate import validation_sequences
from rdejax.visualize.charts import chart_style, new_figure, save_figure

RULES = ("rde", "swem", "bank", "tmrn", "xmem", "average", "merge", "replace")
NEVER = 1_000_000


@dataclasses.dataclass(frozen=True)
class Arguments:
    """Scores and times every memory rule on the same sequences."""

    root: Path
    """Top folder of the data set."""
    dataset: str = "davis2016"
    split: str = "val"
    checkpoint: str = "rde-lite"
    """The body all rules are put on."""
    trained: tuple[str, ...] = ("swem-lite",)
    """Further checkpoints, each with its own memory."""
    size: int = 480
    """Shorter side, in pixels."""
    every: int = 3
    """Interval of memorising, for every rule."""
    intervals: tuple[int, ...] = (5, 10, 15, 30, NEVER)
    """Intervals of the bank for the plot of quality against speed."""
    rounds: int = 8
    """Timed blocks of each rule."""
    output: Path = RESULTS / "compare_rules.json"


def variants(args: Arguments) -> list[Variant]:
    """One per rule, then the trained ones, then the bank's intervals."""
    lines = [
        Variant(rule, args.checkpoint, {"memory": rule, "every": args.every}) for rule in RULES
    ]
    growing = {"memory": "xmem", "enable_long_term": False, "every": args.every}
    lines.append(Variant("xmem without long-term memory", args.checkpoint, growing))
    kept = {"every": args.every, "first": True}
    lines += [
        Variant(f"{rule} + first frame", args.checkpoint, {"memory": rule, **kept})
        for rule in ("average", "merge", "replace")
    ]
    lines += [Variant(f"{name} (trained)", name, {}) for name in args.trained]
    lines += [
        Variant(
            f"bank/{'never' if n == NEVER else n}", args.checkpoint, {"memory": "bank", "every": n}
        )
        for n in args.intervals
    ]
    return lines


def cost(variant: Variant, args: Arguments) -> dict[str, Any]:
    """Settings, time per frame and size of the state of one line."""
    model = variant.load()
    row: dict[str, Any] = {"name": variant.name, "checkpoint": variant.checkpoint}
    row["settings"] = model.settings.as_dict()
    height, width = args.size, args.size * 16 // 9
    frames, mask = moving_square(24, height, width, 1)
    # Blocks of a bank that memorises rarely hold at most eight frames, as in a stream.
    every = min(model.settings.every, 8)
    timed = model if every == model.settings.every else _with_every(variant, every)
    row["ms_per_frame"] = milliseconds(timed, frames, mask, args.rounds)
    for frame in (10, 2000):
        row[f"state_bytes_{frame}"] = state_bytes(model, height, width, frame)
    return row


def scored_before(output: Path, settings: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Quality of the lines that an earlier run with the same arguments left; times are new."""
    old = read_json(output)
    if old is None or old.get("arguments") != json.loads(json.dumps(settings)):
        return {}
    keys = ("J&F", "J", "F", "sequences")
    return {row["name"]: {k: row[k] for k in keys} for row in old["rows"] if "J&F" in row}


def _with_every(variant: Variant, every: int) -> Any:
    return dataclasses.replace(variant, settings={**variant.settings, "every": every}).load()


def print_table(rows: list[dict[str, Any]]) -> None:
    """The table, in per cent, milliseconds and megabytes."""
    table = Table(title="memory rules on one body")
    for column in ("rule", "J&F", "J", "F", "ms/frame", "MB at 10", "MB at 2000"):
        table.add_column(column, justify="left" if column == "rule" else "right")
    for row in rows:
        size = [f"{row[f'state_bytes_{n}'] / 1e6:.2f}" for n in (10, 2000)]
        scores = [f"{row[k]:.1f}" for k in ("J&F", "J", "F")]
        table.add_row(row["name"], *scores, f"{row['ms_per_frame']:.0f}", *size)
    Console(width=120).print(table)


def plot(rows: list[dict[str, Any]], path: Path) -> None:
    """Quality against frames per second."""
    with chart_style():
        figure, (axes,) = new_figure(1, (7, 4.5))
    bank = [row for row in rows if row["name"].startswith("bank/")]
    rest = [row for row in rows if row not in bank]
    fps = [1000 / row["ms_per_frame"] for row in bank]
    axes.plot(fps, [row["J&F"] for row in bank], "o-", color="0.5", label="bank, by interval")
    for row, x in zip(bank, fps, strict=True):
        axes.annotate(row["name"][5:], (x, row["J&F"]), textcoords="offset points", xytext=(4, 4))
    for i, row in enumerate(sorted(rest, key=lambda row: row["J&F"])):
        x = 1000 / row["ms_per_frame"]
        axes.plot(x, row["J&F"], "s" if "trained" in row["name"] else "D")
        # Neighbours in quality get their names on opposite sides.
        side: dict[str, Any] = {"xytext": (5, 3)} if i % 2 else {"xytext": (-5, -10), "ha": "right"}
        label = row["name"].replace(" frame", "")
        axes.annotate(label, (x, row["J&F"]), textcoords="offset points", fontsize=8, **side)
    axes.set_xlabel("frames per second")
    axes.set_ylabel("J&F (%)")
    axes.legend(loc="lower left")
    axes.margins(x=0.25)
    save_figure(path, figure)


def main() -> None:
    """Measures all lines, prints the table, writes JSON and plot."""
    args = tyro.cli(Arguments)
    with cli_errors():
        settings = {**dataclasses.asdict(args), "root": args.root.name, "output": args.output.name}
        lines = variants(args)
        # All times first, close together, since machines have moods.
        rows = [cost(variant, args) for variant in track(lines, "times")]
        config = data(args.root, args.size, args.dataset, args.split)
        sequences = validation_sequences(config)
        known = scored_before(args.output, settings)
        for row, variant in zip(rows, lines, strict=True):
            row |= known.get(row["name"]) or quality(variant.load(), config, sequences)
            print(f"{row['name']}: J&F {row['J&F']:.1f}, {row['ms_per_frame']:.0f} ms", flush=True)
            write_json(args.output, {"machine": machine(), "arguments": settings, "rows": rows})
        print_table(rows)
        plot(rows, args.output.with_suffix(".png"))


if __name__ == "__main__":
    main()
