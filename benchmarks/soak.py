"""Random kills: each run is killed somewhere, given the same command again, and compared.

python benchmarks/soak.py                               # 200 kills of infer.py, 30 of train.py
python benchmarks/soak.py --inference 6 --training 0    # a look at whether it works

A single video and a small data set are segmented by `infer.py` with the bundled rde-lite; a third
of the trials saves the state of the stream after every chunk, as long videos do now and then.
`train.py` trains with a worker process on synthetic images. Each trial starts anew and ends the
process with SIGKILL: every other time after a random share of the time that an unbroken run takes,
and otherwise a random while after the first file of the run is there. Then the same command
(train.py: with --resume) runs to its end. Every mask, or every weight, must be the unbroken run's,
bit for bit; nothing of the killed run may lie in the folder, and no process or shared memory of it
be left. Runs on the CPU, where results repeat exactly. Adds to the counts in
benchmarks/results/soak.json after each trial, so a soak may be ended and gone on with (give another
--seed).
"""

import dataclasses
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tyro
from measure import RESULTS, machine, moving_square
from PIL import Image
from rich.progress import track

from rdejax.cli import cli_errors
from rdejax.errors import RdejaxError
from rdejax.files import read_json, write_json
from rdejax.io.masks import write_mask
from rdejax.models.weights import read_weights

ROOT = Path(__file__).parents[1]
# Of temporary files, which no run may leave.
_LEFT = (".tmp-", "unfinished", ".partial")


@dataclasses.dataclass(frozen=True)
class Arguments:
    """How much is killed."""

    inference: int = 200
    """Kills of infer.py, a third of them over a data set."""
    training: int = 30
    """Kills of train.py."""
    frames: int = 12
    """Frames of a video."""
    seed: int = 0
    """Of the moments."""


@dataclasses.dataclass(frozen=True)
class Trial:
    """A command, what it is continued by, and where and what its result is."""

    name: str
    command: list[str]
    again: list[str]
    output: Path
    read: Callable[[Path], dict[str, np.ndarray]]


def write_inputs(folder: Path, frames: int) -> None:
    """A data set of two sequences; its first sequence is the single video, too."""
    for number, name in enumerate(("first", "second")):
        images = folder / "data" / "JPEGImages" / name
        images.mkdir(parents=True)
        pictures, mask = moving_square(frames + 3 * number, 96, 128)
        for index, picture in enumerate(pictures):
            Image.fromarray(picture).save(images / f"{index:05d}.png")
        annotations = folder / "data" / "Annotations" / name
        annotations.mkdir(parents=True)
        write_mask(annotations / "00000.png", mask)


def read_masks(output: Path) -> dict[str, np.ndarray]:
    paths = sorted(output.rglob("*.png"))
    return {str(path.relative_to(output)): np.asarray(Image.open(path)) for path in paths}


def read_trained(output: Path) -> dict[str, np.ndarray]:
    return read_weights(output / "weights.safetensors")[0]


# infer.py as it is, but for the half minute between two saves of the stream's state.
SAVES_ALWAYS = """
import functools, sys
from rdejax.infer import run
run.segment_to_folder = functools.partial(run.segment_to_folder, checkpoint_seconds=0)
from rdejax.infer.__main__ import main
main()
"""


def trials(folder: Path) -> tuple[list[Trial], Trial]:
    data, out = folder / "data", folder / "out"
    shared = ["--output", str(out), "--quiet", "--chunk", "3"]
    mask = data / "Annotations" / "first" / "00000.png"
    video = [*shared, str(data / "JPEGImages" / "first"), "--mask", str(mask)]
    several = [*shared, "--dataset", "folder", "--root", str(data)]
    infer = [sys.executable, str(ROOT / "infer.py")]
    commands = {
        "a video": [*infer, *video],
        "a video, saved always": [sys.executable, "-c", SAVES_ALWAYS, *video],
        "a data set": [*infer, *several],
    }
    train = [sys.executable, str(ROOT / "train.py"), "rde_lite_smoke"]
    train += ["--workdir", str(out), "--steps", "12", "--save-every", "2", "--workers", "1"]
    return [
        Trial(f"infer.py, {name}", command, command, out, read_masks)
        for name, command in commands.items()
    ], Trial("train.py, a worker", train, [*train, "--resume"], out, read_trained)


def run(command: list[str], kill_after: Callable[[], bool] = lambda: False) -> bool:
    """Runs a command to its end, or kills it once it is time; whether it was killed.

    Raises:
      RdejaxError: it fails by itself, or leaves processes behind.
    """
    with tempfile.TemporaryFile() as told:
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=told, process_group=0)
        while process.poll() is None and not kill_after():
            time.sleep(0.01)
        killed = process.poll() is None
        process.kill()
        code = process.wait()
        if not ends_alone(process.pid):
            os.killpg(process.pid, signal.SIGKILL)
            raise RdejaxError(f"{' '.join(command)}: left processes behind")
        if code and not killed:
            told.seek(0)
            text = told.read().decode(errors="replace")
            raise RdejaxError(f"{' '.join(command)}: ended with {code}: {text}")
    return killed


def ends_alone(group: int, seconds: float = 15.0) -> bool:
    """Whether every process of a group ends within this time."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.05)
    return False


def moments(
    output: Path, seconds: float, rng: np.random.Generator, *, written: bool
) -> Callable[[], bool]:
    """Tells when to kill: a random while after the start, or after something is in `output`."""
    begun = time.monotonic()
    wait, after = float(rng.uniform(0, seconds)), float(rng.uniform(0, seconds / 4))

    def now() -> bool:
        nonlocal begun, written, wait
        if written and output.is_dir() and any(output.iterdir()):
            begun, wait, written = time.monotonic(), after, False
        return not written and time.monotonic() - begun >= wait

    return now


def shared_memory() -> int:
    return len(list(Path("/dev/shm").iterdir())) if Path("/dev/shm").is_dir() else 0


def soak(trial: Trial, kills: int, rng: np.random.Generator) -> Iterator[Counter[str]]:
    """Kills a command at random moments; for each what became of it and of its continuation."""
    shutil.rmtree(trial.output, ignore_errors=True)
    run(trial.command)  # compiles
    shutil.rmtree(trial.output)
    begun = time.perf_counter()
    run(trial.command)
    seconds = time.perf_counter() - begun
    expected = trial.read(trial.output)
    before = shared_memory()
    for number in track(range(kills), description=trial.name):
        shutil.rmtree(trial.output, ignore_errors=True)
        due = moments(trial.output, seconds, rng, written=bool(number % 2))
        killed = run(trial.command, due)
        begun_writing = trial.output.is_dir() and any(trial.output.iterdir())
        run(trial.again)
        got = trial.read(trial.output)
        same = got.keys() == expected.keys()
        same = same and all(np.array_equal(got[name], expected[name]) for name in got)
        left = any(word in path.name for path in trial.output.rglob("*") for word in _LEFT)
        counts = {"trials": 1, "killed": killed, "begun_writing": begun_writing}
        counts |= {"wrong": not same, "left": left}
        # Of training alone: other programs' would be taken for its own.
        counts["shared_memory_left"] = trial.again != trial.command and shared_memory() > before
        yield Counter({name: int(value) for name, value in counts.items()})


def add(name: str, counts: Counter[str]) -> dict[str, object]:
    """Adds a trial to the file of results; the row that it belongs to."""
    file = RESULTS / "soak.json"
    rows = (read_json(file) or {}).get("rows", [])
    before: dict[str, Any] = next((row for row in rows if row["name"] == name), {"name": name})
    row = {"name": name, **{key: before.get(key, 0) + counts[key] for key in counts}}
    write_json(file, {"machine": machine(), "rows": [r for r in rows if r is not before] + [row]})
    return row


def main(args: Arguments) -> None:
    rng = np.random.default_rng(args.seed)
    os.environ["JAX_PLATFORMS"] = "cpu"
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
    with tempfile.TemporaryDirectory() as folder:
        os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", f"{folder}/cache")
        write_inputs(Path(folder), args.frames)
        inference, training = trials(Path(folder))
        shares = [args.inference * (i + 1) // 3 - args.inference * i // 3 for i in range(3)]
        counts = [*zip(inference, shares, strict=True), (training, args.training)]
        rows = {}
        for trial, kills in counts:
            for found in soak(trial, kills, rng) if kills else ():
                rows[trial.name] = add(trial.name, found)
    for row in rows.values():
        print(row)
    if any(row["wrong"] or row["left"] or row["shared_memory_left"] for row in rows.values()):
        raise RdejaxError("some results differ from the unbroken run's, or something was left")


if __name__ == "__main__":
    with cli_errors():
        main(tyro.cli(Arguments, description=__doc__))
