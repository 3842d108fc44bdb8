"""Chunks encoded in batches of several sizes, and frame by frame, in alternating turns of one run.

python benchmarks/encode_batch.py --models rde-lite rde

Writes benchmarks/results/encode_batch.json: milliseconds a frame of each, ratios, and the cores
that this process had: a ratio means nothing while another program takes one.
"""

import dataclasses
import os
import statistics
import time
from pathlib import Path
from typing import Annotated, Any

import jax
import numpy as np
import tyro
from measure import RESULTS, load_or_create, machine, moving_square, write_results
from rich.console import Console
from rich.table import Table

import rdejax
from rdejax.cli import cli_errors
from rdejax.models import System
from rdejax.propagate.stream import Stream


@dataclasses.dataclass(frozen=True)
class Arguments:
    """Times both ways of encoding on noise with a moving square."""

    models: Annotated[tuple[str, ...], tyro.conf.arg(metavar="NAME ...")] = ("rde-lite", "rde")
    """Systems; those without bundled weights get random ones."""
    height: int = 480
    width: int = 854
    objects: int = 1
    chunk: int = 6
    """Frames per compiled call."""
    batches: tuple[int, ...] = (1, 2, 6)
    """Frames encoded at once."""
    turns: int = 7
    """Chunks timed of each kind."""
    output: Path = RESULTS / "encode_batch.json"


def compare(name: str, args: Arguments) -> dict[str, Any]:
    """Both ways on one system."""
    model, weights = load_or_create(name, size=None)
    frames, mask = moving_square(args.chunk + 1, args.height, args.width, args.objects)
    # As it was before chunks: every block of frames that share a memory is a call of its own.
    ways = {"block by block": _started(model, frames, mask, chunk=1)}
    for n in args.batches:
        ways[f"{n} at once"] = _started(model, frames, mask, chunk=args.chunk, encode_batch=n)
    times: dict[str, list[float]] = {way: [] for way in ways}
    begun, busy = time.perf_counter(), time.process_time()
    for _ in range(args.turns):
        for way, stream in ways.items():
            start = time.perf_counter()
            stream.push(frames[1:])
            times[way].append(1000 * (time.perf_counter() - start) / args.chunk)
    cores = (time.process_time() - busy) / (time.perf_counter() - begun)
    median = {way: statistics.median(values) for way, values in times.items()}
    return {
        "model": name,
        "weights": weights,
        "every": model.settings.every,
        "ms_per_frame": median,
        "speedup": {way: median["block by block"] / ms for way, ms in median.items()},
        "cores_in_use": cores,
        "load": os.getloadavg()[0],
    }


def _started(model: System, frames: np.ndarray, mask: np.ndarray, **options: Any) -> Stream:
    """A stream behind its first chunk, so that everything is compiled."""
    stream = rdejax.stream(model, **options)
    stream.push(frames, {0: mask})
    stream.push(frames[1:])
    return stream


def main() -> None:
    """Measures, prints a table and writes JSON."""
    args = tyro.cli(Arguments)
    with cli_errors():
        rows = [compare(name, args) for name in args.models]
        table = Table("model", *rows[0]["ms_per_frame"], "cores")
        for row in rows:
            cells = (
                f"{ms:.0f} ms, {row['speedup'][way]:.2f}x"
                for way, ms in row["ms_per_frame"].items()
            )
            cores = f"{row['cores_in_use']:.2f} of {os.cpu_count()}"
            table.add_row(row["model"], *cells, cores)
        Console().print(table)
        size = [args.height, args.width]
        content = {"size": size, "objects": args.objects, "chunk": args.chunk, "models": rows}
        write_results(args.output, {**content, "machine": machine(), "jax": jax.__version__})


if __name__ == "__main__":
    main()
