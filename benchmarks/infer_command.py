"""`rdejax infer` as a whole: first mask on disk, whole run and cores in use, cold and warm.

python benchmarks/infer_command.py                     # 60 frames of 854x480, rde-lite
python benchmarks/infer_command.py --frames 8 --height 96 --width 176 --repeats 1

Frames are JPEGs with a moving square. A cold run begins with no compiled program on disk; a warm
one finds those of the run before. Times count from the start of the process. Cores are the
processor time of the process over its wall time: a run on a machine that does something else, too,
shows in them. Appends to benchmarks/results/infer_command.json under --label.
"""

import dataclasses
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import tyro
from measure import RESULTS, machine, moving_square, write_results
from PIL import Image
from rich.console import Console
from rich.table import Table

from rdejax.cli import cli_errors
from rdejax.files import read_json
from rdejax.io.masks import write_mask

_POLL = 0.005


@dataclasses.dataclass(frozen=True)
class Arguments:
    """Times the command line."""

    model: str = "rde-lite"
    frames: int = 60
    height: int = 480
    width: int = 854
    cold: int = 1
    """Runs without compiled programs on disk."""
    repeats: int = 3
    """Warm runs."""
    options: tuple[str, ...] = ()
    """Other options of `rdejax infer`."""
    label: str = "now"
    """What the figures are called in the file."""
    output: Path = RESULTS / "infer_command.json"


def write_inputs(folder: Path, args: Arguments) -> None:
    """A folder of frames and the first one's mask."""
    pictures, mask = moving_square(args.frames, args.height, args.width, 1)
    coarse = np.random.default_rng(0).integers(0, 80, (60, 107, 3)).astype(np.uint8)
    ground = cv2.resize(coarse, (args.width, args.height), interpolation=cv2.INTER_CUBIC)
    (folder / "frames").mkdir()
    for index, picture in enumerate(pictures):
        frame = Image.fromarray(picture // 2 + np.minimum(ground, 120))
        frame.save(folder / "frames" / f"{index:05d}.jpg", quality=90)
    write_mask(folder / "mask.png", mask)


def run(folder: Path, cache: Path, args: Arguments) -> dict[str, float]:
    """One run of the command."""
    with tempfile.TemporaryDirectory(dir=folder) as temporary:
        output = Path(temporary) / "out"
        command = [
            *(sys.executable, "-m", "rdejax", "infer", str(folder / "frames")),
            *("--mask", str(folder / "mask.png"), "--output", str(output)),
            *("--checkpoint", args.model, "--quiet", *args.options),
        ]
        environment = {**os.environ, "XDG_CACHE_HOME": str(cache)}
        environment.pop("JAX_COMPILATION_CACHE_DIR", None)
        begun = time.perf_counter()
        process = subprocess.Popen(command, env=environment)
        # The masks lie in the unfinished folder until all are there; the second is the first that
        # the network made.
        seen: dict[int, float] = {}
        while (ended := os.wait4(process.pid, os.WNOHANG))[0] == 0:
            for number in {0, 1} - set(seen):
                if (output / "unfinished" / "masks" / f"{number:05d}.png").exists():
                    seen[number] = time.perf_counter() - begun
            time.sleep(_POLL)
        seconds = time.perf_counter() - begun
        _, status, usage = ended
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            raise SystemExit(f"{' '.join(command)}: ended with {process.returncode}")
        summary = read_json(output / "summary.json") or {}
    busy = usage.ru_utime + usage.ru_stime
    return {
        "first_mask_s": seen.get(0, seconds),
        "first_predicted_mask_s": seen.get(1, seconds),
        "seconds": seconds,
        "processor_s": busy,
        "cores": busy / seconds,
        "compile_s": summary["compile_seconds"],
        "compilations": summary["compilations"],
        "frames_per_second": summary["frames_per_second"],
        "peak_mb": usage.ru_maxrss / (1 << 10 if sys.platform != "darwin" else 1 << 20),
    }


def print_table(runs: dict[str, list[dict[str, float]]]) -> None:
    """Medians."""
    names = list(next(iter(runs.values()))[0])
    table = Table(title="rdejax infer")
    for column in ("", *names):
        table.add_column(column.replace("_", " "), justify="right")
    for name, each in runs.items():
        medians = (statistics.median(run[column] for run in each) for column in names)
        table.add_row(name, *(f"{value:.2f}" for value in medians))
    Console(width=150).print(table)


def main() -> None:
    """Runs the command cold and warm, prints the table, writes JSON."""
    args = tyro.cli(Arguments)
    with cli_errors(), tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        write_inputs(folder, args)
        runs: dict[str, list[dict[str, float]]] = {}
        for index in range(args.cold):
            runs.setdefault("cold", []).append(run(folder, folder / f"cache-{index}", args))
        cache = folder / f"cache-{max(args.cold - 1, 0)}"
        if not args.cold:
            run(folder, cache, args)
        for _ in range(args.repeats):
            runs.setdefault("warm", []).append(run(folder, cache, args))
    print_table(runs)
    content: dict[str, Any] = read_json(args.output) or {}
    about = dataclasses.asdict(args)
    del about["output"], about["label"]
    content[args.label] = {**about, "machine": machine(), "runs": runs}
    write_results(args.output, content)


if __name__ == "__main__":
    main()
