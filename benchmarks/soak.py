"""Random kills: each run is killed somewhere, given the same command again, and compared.

python benchmarks/soak.py                               # 200 kills of infer.py, 30 of train.py
python benchmarks/soak.py --inference 4 --training 1    # a look at whether it works

A single video and a small data set are segmented by `infer.py` with the bundled rde-lite;
`train.py` trains it for some steps on synthetic images. Each trial starts anew, ends the whole
process group with SIGKILL after a random share of the time that an unbroken run takes, and runs the
same command (train.py: with --resume) to its end. Every mask, or every weight, must be the unbroken
run's, bit for bit, and nothing of the killed run may lie in the folder. Runs on the CPU, where
results repeat exactly. Writes benchmarks/results/soak.json.
"""

import contextlib
import dataclasses
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import tyro
from measure import RESULTS, machine, moving_square, write_results
from PIL import Image
from rich.progress import track

from rdejax.cli import cli_errors
from rdejax.errors import RdejaxError
from rdejax.io.masks import write_mask
from rdejax.models.weights import read_weights

ROOT = Path(__file__).parents[1]
# Of temporary files, which no run may leave.
_LEFT = (".tmp-", "unfinished", ".partial")


@dataclasses.dataclass(frozen=True)
class Arguments:
    """How much is killed."""

    inference: int = 200
    """Kills of infer.py, half of them over a data set."""
    training: int = 30
    """Kills of train.py."""
    frames: int = 40
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


def trials(folder: Path) -> tuple[list[Trial], Trial]:
    data, out = folder / "data", folder / "out"
    infer = [
        sys.executable,
        str(ROOT / "infer.py"),
        "--output",
        str(out),
        "--quiet",
        "--chunk",
        "5",
    ]
    mask = data / "Annotations" / "first" / "00000.png"
    video = [*infer, str(data / "JPEGImages" / "first"), "--mask", str(mask)]
    several = [*infer, "--dataset", "folder", "--root", str(data)]
    train = [sys.executable, str(ROOT / "train.py"), str(ROOT / "configs" / "rde_lite_smoke.py")]
    train += ["--workdir", str(out), "--steps", "12", "--save-every", "2"]
    return [
        Trial("infer.py, a video", video, video, out, read_masks),
        Trial("infer.py, a data set", several, several, out, read_masks),
    ], Trial("train.py", train, [*train, "--resume"], out, read_trained)


def run(command: list[str], kill_after: float | None = None) -> bool:
    """Runs a command to its end, or kills it and all that it started; whether it was killed."""
    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True
    )
    try:
        _, error = process.communicate(timeout=kill_after)
    except subprocess.TimeoutExpired:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        return True
    if process.returncode:
        raise RdejaxError(f"{' '.join(command)}: ended with {process.returncode}: {error.decode()}")
    return False


def soak(trial: Trial, kills: int, rng: np.random.Generator) -> dict[str, object]:
    """Kills a command at random moments; how often the result was another than the unbroken one."""
    shutil.rmtree(trial.output, ignore_errors=True)
    run(trial.command)  # compiles
    shutil.rmtree(trial.output)
    begun = time.perf_counter()
    run(trial.command)
    seconds = time.perf_counter() - begun
    expected = trial.read(trial.output)
    killed = wrong = left = 0
    for _ in track(range(kills), description=trial.name):
        shutil.rmtree(trial.output, ignore_errors=True)
        killed += run(trial.command, kill_after=float(rng.uniform(0, seconds)))
        run(trial.again)
        got = trial.read(trial.output)
        same = got.keys() == expected.keys()
        wrong += not (same and all(np.array_equal(got[name], expected[name]) for name in got))
        left += any(word in path.name for path in trial.output.rglob("*") for word in _LEFT)
    return {"name": trial.name, "seconds": seconds, "killed": killed, "wrong": wrong, "left": left}


def main(args: Arguments) -> None:
    rng = np.random.default_rng(args.seed)
    os.environ["JAX_PLATFORMS"] = "cpu"
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
    with tempfile.TemporaryDirectory() as folder:
        os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", f"{folder}/cache")
        write_inputs(Path(folder), args.frames)
        inference, training = trials(Path(folder))
        counts = [(trial, args.inference // len(inference)) for trial in inference]
        rows = [soak(trial, kills, rng) for trial, kills in [*counts, (training, args.training)]]
    write_results(RESULTS / "soak.json", {"machine": machine(), "rows": rows})
    for row in rows:
        print(row)
    if any(row["wrong"] or row["left"] for row in rows):
        raise RdejaxError("some results differ from the unbroken run's, or something was left")


if __name__ == "__main__":
    with cli_errors():
        main(tyro.cli(Arguments, description=__doc__))
