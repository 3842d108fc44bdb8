"""Where the time of a frame goes, by the function of this library that asks for the work.

    python benchmarks/op_profile.py rde-lite --objects 1 --height 480 --width 854

Frames go through a stream under JAX's profiler. Every instruction of the compiled program knows the
line of Python that it came from; its time is added to that function's. Instructions run beside each
other, so the sum may be more than the time of a frame. The same command profiles a GPU.
"""

import collections
import dataclasses
import os
import re
import tempfile
import time
from pathlib import Path
from typing import Any

DUMP = tempfile.mkdtemp(prefix="op_profile-")
os.environ["XLA_FLAGS"] = (
    f"{os.environ.get('XLA_FLAGS', '')} --xla_dump_to={DUMP} --xla_dump_hlo_as_text"
)
# A program from a cache is not compiled, so nothing tells of its instructions.
os.environ["JAX_ENABLE_COMPILATION_CACHE"] = "false"

import jax  # noqa: E402
import tyro  # noqa: E402
from measure import RESULTS, load_or_create, machine, moving_square, write_results  # noqa: E402
from rich.console import Console  # noqa: E402
from rich.table import Table  # noqa: E402

import rdejax  # noqa: E402
from rdejax.cli import cli_errors  # noqa: E402

# Its time is that of the instructions inside.
_CONTAINERS = ("while", "cond", "call", "conditional")


@dataclasses.dataclass(frozen=True)
class Arguments:
    """What to profile."""

    model: tyro.conf.Positional[str] = "rde-lite"
    """System or bundled weights by name."""
    objects: int = 1
    height: int = 480
    width: int = 854
    frames: int = 6
    """Frames in a chunk; four chunks are profiled, one of which may overlap the next."""
    top: int = 30
    """Functions shown."""
    by: str = "function"
    """`function`, or `op`: single instructions."""
    output: Path | None = None
    """JSON file; default: benchmarks/results/op_profile_MODEL.json."""


def sources(text: str) -> dict[str, tuple[str, str]]:
    """Function of this library, and shape, of every instruction of a dumped program."""

    def table(name: str, pattern: str) -> dict[int, tuple[str, ...]]:
        section = re.search(rf"^{name}\n(.*?)\n\n", text, re.M | re.S)
        rows = re.findall(rf"^(\d+) {pattern}$", section[1] if section else "", re.M)
        return {int(row[0]): row[1:] for row in rows}

    files = table("FileNames", '"(.*)"')
    functions = table("FunctionNames", '"(.*)"')
    places = table("FileLocations", r"{file_name_id=(\d+) function_name_id=(\d+) line=(\d+) .*}")
    frames = table("StackFrames", r"{file_location_id=(\d+)(?: parent_frame_id=(\d+))?}")

    def place(frame: int) -> str:
        seen = set()
        while frame in frames and frame not in seen:
            seen.add(frame)
            location, parent = frames[frame]
            file, function, line = (int(x) for x in places[int(location)])
            path = files[file][0]
            if "/rdejax/" in path:
                return f"{path.rsplit('/rdejax/', 1)[1]}:{line} {functions[function][0]}"
            # A frame that is its own parent is the outermost.
            frame = int(parent or frame) - 1 if int(parent or 0) > 1 else 0
        return "elsewhere"

    found = {}
    for name, shape, rest in re.findall(
        r"^\s*(?:ROOT )?%?([\w.-]+) = (\(?[\w\[\],{}() ]*?\)?) (?:[\w-]+)\((.*)$", text, re.M
    ):
        frame = re.search(r"stack_frame_id=(\d+)", rest)
        found[name] = (place(int(frame[1])) if frame else "elsewhere", shape)
    return found


def profile(args: Arguments) -> dict[str, Any]:
    """Time of a frame, and of each function in it."""
    model, weights = load_or_create(args.model, size=None)
    count = 4 * args.frames
    frames, mask = moving_square(count + 1, args.height, args.width, args.objects)
    stream = rdejax.stream(model, chunk=args.frames)
    stream.push(frames, {0: mask})
    stream.push(frames[1:])
    times = []
    busy, begun = time.process_time(), time.perf_counter()
    for _ in range(5):
        start = time.perf_counter()
        stream.push(frames[1:])
        times.append(1000 * (time.perf_counter() - start) / count)
    cores = (time.process_time() - busy) / (time.perf_counter() - begun)
    folder = Path(DUMP) / "trace"
    with jax.profiler.trace(str(folder)):
        stream.push(frames[1:])
    known: dict[tuple[str, str], tuple[str, str]] = {}
    for path in sorted(Path(DUMP).glob("*_blocks*after_optimizations.txt")):
        program = path.name.split(".")[1]
        found = sources(path.read_text())
        known |= {(program, name): place for name, place in found.items()}
    spent: collections.Counter[str] = collections.Counter()
    for plane in jax.profiler.ProfileData.from_file(str(next(folder.rglob("*.xplane.pb")))).planes:
        for line in plane.lines:
            for event in line.events:
                stats = dict(event.stats)
                op = stats.get("hlo_op")
                if op is None or str(op).split(".")[0] in _CONTAINERS:
                    continue
                where, shape = known.get((str(stats.get("hlo_module")), str(op)), ("elsewhere", ""))
                key = where if args.by == "function" else f"{op} {shape} {where}"
                spent[key] += event.duration_ns / 1e6 / count
    return {
        "model": args.model,
        "weights": weights,
        "objects": args.objects,
        "size": [args.height, args.width],
        "ms_per_frame": sorted(times)[len(times) // 2],
        "cores_in_use": cores,
        "functions": dict(spent.most_common()),
        "machine": machine(),
    }


def main() -> None:
    """Profiles, prints a table and writes JSON."""
    args = tyro.cli(Arguments)
    with cli_errors():
        result = profile(args)
        title = f"{args.model}: {result['ms_per_frame']:.1f} ms a frame"
        table = Table("ms", "where", title=f"{title}, {result['cores_in_use']:.2f} cores in use")
        for where, ms in list(result["functions"].items())[: args.top]:
            table.add_row(f"{ms:.2f}", where)
        console = Console(width=150)
        console.print(table)
        console.print(f"sum of all: {sum(result['functions'].values()):.1f} ms a frame")
        write_results(args.output or RESULTS / f"op_profile_{args.model}.json", result)


if __name__ == "__main__":
    main()
