"""A long stream: time per frame and size of the state of the constant rules and the growing bank.

python benchmarks/stream_growth.py                                # 1000 frames at 240p
python benchmarks/stream_growth.py --frames 60 --height 64 --width 96
python benchmarks/stream_growth.py --memories rde --frames 10000 --height 96 --width 176 \
    --output benchmarks/results/stream_long.json

The same networks, the same frames, the same interval of memorising; only the memory rule differs.
Each rule runs in its own process. Calls that compiled something (the first, and whenever the bank
gets its next, doubled capacity) are left out of the time per frame and reported apart. Where the
machine does something else, too, the processor's time tells more than the clock's. Writes
benchmarks/results/stream_growth.json and .png.
"""

import dataclasses
import multiprocessing
import statistics
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import jax
import numpy as np
import tyro
from measure import (
    RESULTS,
    load_or_create,
    machine,
    moving_square,
    peak_memory_bytes,
    write_results,
)
from rich.console import Console
from rich.progress import track
from rich.table import Table

import rdejax
from rdejax.cli import cli_errors, name_and_value
from rdejax.errors import RdejaxError
from rdejax.files import read_json
from rdejax.visualize.charts import save_figure
from rdejax.visualize.measurements import growth_curves

_COMPILING = "/jax/core/compile/backend_compile_duration"
_POINTS = 500  # of a run, in the file
_LOOP = 40  # distinct synthetic frames, shown over and over


@dataclasses.dataclass(frozen=True)
class Arguments:
    """Streams synthetic frames through each memory rule and records the cost of every block."""

    model: str = "rde-lite"
    memories: tuple[str, ...] = (
        "rde",
        "swem",
        "average",
        "merge",
        "xmem",
        "xmem,enable_long_term=False",
        "bank",
        "tmrn",
        "dmn-lite:template",
    )
    """Rules, each with settings of its own behind it, on `model` or on a system named before it:
    [SYSTEM:]NAME[,SETTING=VALUE ...]."""
    frames: int = 1000
    height: int = 240
    width: int = 432
    objects: int = 1
    every: int = 3
    """Interval of memorising, for every rule."""
    output: Path = RESULTS / "stream_growth.json"
    """The plot goes beside it. Runs of other rules with the same arguments that are in it stay, so
    that a long comparison can be measured in pieces."""


def settings_of(memory: str, default: str) -> tuple[str, dict[str, Any]]:
    """The system, the rule and its settings, as `rdejax.load_model` takes them."""
    place, *settings = memory.split(",")
    system, _, rule = place.rpartition(":")
    given = dict(name_and_value(text, f"--memories {text}") for text in settings)
    return system or default, {"memory": rule, **given}


def run(memory: str, args: Arguments) -> dict[str, Any]:
    """Streams all frames through one rule; one entry per push of `every` frames."""
    compiled = []

    def note(event: str, duration_secs: float, **_: Any) -> None:
        if event == _COMPILING:
            compiled.append(duration_secs)

    jax.monitoring.register_event_duration_secs_listener(note)
    system, settings = settings_of(memory, args.model)
    model, weights_from = load_or_create(system, every=args.every, size=None, **settings)
    video, mask = moving_square(_LOOP, args.height, args.width, args.objects)
    stream = rdejax.stream(model)
    started = time.perf_counter()
    stream.step(video[0], mask)
    first_s = time.perf_counter() - started
    names = ("frame", "ms_per_frame", "processor_ms_per_frame", "state_bytes", "resident_bytes")
    names = (*names, "compiling_call_s")
    rows: dict[str, list[Any]] = {name: [] for name in names}
    for at in track(range(1, args.frames, args.every), memory):
        count = min(args.every, args.frames - at)
        frames = video[np.arange(at, at + count) % _LOOP]
        compiled.clear()
        started, busy = time.perf_counter(), time.process_time()
        stream.push(frames)
        seconds, busy = time.perf_counter() - started, time.process_time() - busy
        rows["frame"].append(at + count)
        rows["ms_per_frame"].append(None if compiled else 1000 * seconds / count)
        rows["processor_ms_per_frame"].append(None if compiled else 1000 * busy / count)
        rows["state_bytes"].append(stream.state_bytes)
        rows["resident_bytes"].append(_resident_bytes())
        rows["compiling_call_s"].append(seconds if compiled else 0.0)
    return {
        "memory": memory,
        "model": args.model,
        "weights": weights_from,
        "size": [args.height, args.width],
        "objects": args.objects,
        "every": args.every,
        "feature_bytes": 4 * sum(getattr(model.config, f"{n}_channels") for n in ("key", "value")),
        "first_frame_s": first_s,
        "peak_rss_bytes": peak_memory_bytes(),
        "machine": machine(),
        **thinned(rows),
    }


def thinned(rows: dict[str, list[Any]]) -> dict[str, list[Any]]:
    """At most so many points of a long run: each stands for some pushes, by the median time."""
    together = -(-len(rows["frame"]) // _POINTS)

    def median(values: list[float | None]) -> float | None:
        steady = [value for value in values if value is not None]
        return statistics.median(steady) if steady else None

    join = {name: median for name in rows if "ms_per" in name} | {"compiling_call_s": sum}
    return {
        name: [
            join.get(name, max)(values[at : at + together])
            for at in range(0, len(values), together)
        ]
        for name, values in rows.items()
    }


def _resident_bytes() -> int:
    """What this process holds now; 0 where the system does not tell."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except OSError:
        return 0
    return pages * 4096


def ends(values: list[float | None]) -> tuple[float, float]:
    """Medians of the first and of the last tenth, without calls that compiled."""
    steady = [value for value in values if value is not None]
    share = max(1, len(steady) // 10)
    return statistics.median(steady[:share]), statistics.median(steady[-share:])


def kept(args: Arguments) -> list[dict[str, Any]]:
    """Earlier runs of the output file that belong beside those of these arguments."""
    same = {
        "model": args.model,
        "size": [args.height, args.width],
        "objects": args.objects,
        "every": args.every,
    }
    runs = (read_json(args.output) or {}).get("runs", [])
    return [
        run
        for run in runs
        if run["memory"] not in args.memories
        and run["frame"][-1] == args.frames
        and all(run[name] == value for name, value in same.items())
    ]


def print_table(runs: list[dict[str, Any]], frames: int) -> None:
    """Start, end and ratio of time and size."""
    table = Table(title=f"{frames} frames, first tenth -> last tenth")
    for column in (
        *("memory", "ms per frame", "ratio", "processor ms", "state MB", "resident MB"),
        "compiling s",
    ):
        table.add_column(column, justify="right", no_wrap=True)
    for result in runs:
        before, after = ends(result["ms_per_frame"])
        size = [value / 1e6 for value in (result["state_bytes"][0], result["state_bytes"][-1])]
        resident = [value / 1e6 for value in ends(result["resident_bytes"])]
        table.add_row(
            result["memory"],
            f"{before:.1f} -> {after:.1f}",
            f"{after / before:.2f}",
            " -> ".join(f"{x:.1f}" for x in ends(result["processor_ms_per_frame"]))
            if "processor_ms_per_frame" in result
            else "",
            f"{size[0]:.2f} -> {size[1]:.2f}",
            f"{resident[0]:.0f} -> {resident[1]:.0f}",
            f"{sum(result['compiling_call_s']):.1f}",
        )
    Console(width=120).print(table)


def plot(runs: list[dict[str, Any]], path: Path) -> None:
    """Two panels: time per frame and state size against the frame number."""
    names = {
        "rde": "RDE",
        "swem": "SWEM",
        "bank": "growing bank",
        "xmem": "XMem",
        "xmem,enable_long_term=False": "XMem without long-term memory",
    }
    figure = growth_curves(
        [{**run, "label": names.get(run["memory"], run["memory"])} for run in runs],
        log_size=True,
    )
    first, right = runs[0], figure.axes[1]
    per_mb = 1e6 / first["feature_bytes"] / first["objects"]
    second = right.secondary_yaxis(
        "right", functions=(lambda mb: mb * per_mb, lambda count: count / per_mb)
    )
    second.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    second.set_ylabel("stored features of an object (a key and a value each)", fontsize=8)
    figure.supxlabel(
        f"{first['model']}, {first['size'][1]}x{first['size'][0]}, {first['objects']} object(s), a "
        f"frame memorised every {first['every']}; {first['machine']['cores']} cores, "
        f"{first['machine']['backend']}",
        fontsize=9,
    )
    figure.set_size_inches(10, 4)
    save_figure(path, figure)
    print(f"wrote {path}")


def main() -> None:
    """Runs every rule, prints the table, writes JSON and the plot."""
    args = tyro.cli(Arguments)
    with cli_errors():
        if args.frames < 4 * args.every + 1:
            raise RdejaxError(f"frames={args.frames}: give at least {4 * args.every + 1}")
        runs = kept(args)
        for memory in args.memories:
            spawn = multiprocessing.get_context("spawn")
            with ProcessPoolExecutor(1, mp_context=spawn) as pool:
                runs.append(pool.submit(run, memory, args).result())
            write_results(args.output, {"runs": runs})
        print_table(runs, args.frames)
        plot(runs, args.output.with_suffix(".png"))


if __name__ == "__main__":
    main()
