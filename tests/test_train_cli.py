"""train.py as a program: help, errors, signals, and a killed run that ends as an unbroken one."""

import dataclasses
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest

from rdejax.data.config import ClipConfig, VideoConfig
from rdejax.models.weights import read_weights
from rdejax.train.config import (
    LossConfig,
    OptimizerConfig,
    ScaleConfig,
    TrainConfig,
    ValidateConfig,
)
from rdejax.train.loop import train

ROOT = Path(__file__).parents[1]
STEPS = 24
CONFIG = """
from rdejax.data.config import ClipConfig
from rdejax.train.config import LossConfig, OptimizerConfig, TrainConfig

config = TrainConfig(
    clip=ClipConfig(frames=3, size=48, objects=1),
    batch=2,
    steps=24,
    save_every=3,
    log_every=1,
    loss=LossConfig(soft_iou=1.0, bootstrap_start=2, bootstrap_end=9),
    optimizer=OptimizerConfig(lr=2e-3, warmup=2),
)
"""


@pytest.fixture(scope="module")
def images(tmp_path_factory) -> Path:
    """Three images with a disk each, and their masks."""
    root = tmp_path_factory.mktemp("data")
    rng = np.random.default_rng(0)
    for name in ("images", "masks"):
        (root / name).mkdir()
    for i in range(3):
        image = rng.integers(0, 255, (60, 80, 3)).astype(np.uint8)
        mask = np.zeros((60, 80), np.uint8)
        cv2.circle(mask, (40, 30), 18 + i, 255, -1)
        image[mask > 0] = (200, 40 * i, 90)
        cv2.imwrite(str(root / "images" / f"{i}.png"), image)
        cv2.imwrite(str(root / "masks" / f"{i}.png"), mask)
    return root


def command(*arguments: object) -> list[str]:
    return [sys.executable, str(ROOT / "train.py"), *map(str, arguments)]


def run(*arguments: object) -> subprocess.CompletedProcess:
    return subprocess.run(command(*arguments), capture_output=True, text=True, timeout=300)


def fails(*arguments: object) -> str:
    """What a run that must fail with status 2 and without a traceback says."""
    done = run(*arguments)
    text = done.stdout + done.stderr
    assert done.returncode == 2, text
    assert "Traceback" not in text
    return " ".join(text.split())


def test_help_explains_every_field_without_loading_jax() -> None:
    code = (
        "import runpy, sys; sys.argv = ['train.py', 'configs/rde_lite.py', '--help']\n"
        "try: runpy.run_path('train.py', run_name='__main__')\n"
        "finally: print('JAX' if 'jax' in sys.modules else 'NO-JAX')"
    )
    environment = {**os.environ, "COLUMNS": "100", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    text = done.stdout
    assert done.returncode == 0 and "NO-JAX" in text, done.stderr
    parts = {"clip": ClipConfig, "video": VideoConfig, "loss": LossConfig, "scale": ScaleConfig}
    parts |= {"optimizer": OptimizerConfig, "validate": ValidateConfig}
    names = [f.name for f in dataclasses.fields(TrainConfig) if f.name not in parts]
    names += [f"{p}.{f.name}" for p, kind in parts.items() for f in dataclasses.fields(kind)]
    for name in ["workdir", "resume", *names]:
        assert f"--{name.replace('_', '-')}" in text, name
    assert "keep the key encoder's features up to this stride" in " ".join(
        text.replace("│", " ").split()
    )


def test_what_is_wrong_is_said_in_one_sentence(tmp_path) -> None:
    broken = tmp_path / "broken.py"
    broken.write_text(
        "from rdejax.train.config import TrainConfig\nconfig = TrainConfig(batsh=3)\n"
    )
    assert "broken.py, line 2: TypeError" in fails(broken, "--workdir", tmp_path)
    broken.write_text("config = 3\n")
    assert "defines no `config = TrainConfig(...)`" in fails(broken, "--workdir", tmp_path)
    assert "none.py: no such configuration" in fails("none.py", "--workdir", tmp_path)
    config = ROOT / "configs" / "rde_lite.py"
    assert "--batsh" in fails(config, "--workdir", tmp_path, "--batsh", 3)
    assert "freeze_stride=3: give 0, 4 or 8" in fails(
        config, "--workdir", tmp_path, "--optimizer.freeze-stride", 3
    )
    nowhere = tmp_path / "nowhere"
    assert "nowhere" in fails(config, "--workdir", tmp_path / "w", "--data", nowhere, nowhere)
    assert "--workdir" in fails(config)


def wait_for_step(process: subprocess.Popen, workdir: Path, step: int) -> None:
    """Until a step is in the log."""
    end = time.monotonic() + 240
    while time.monotonic() < end:
        log = workdir / "log.jsonl"
        lines = log.read_text().splitlines() if log.exists() else []
        if len(lines) >= step:
            return
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)
    raise AssertionError("the run does not get on")


@pytest.mark.slow
def test_terminated_and_killed_runs_end_as_an_unbroken_one(images, tmp_path) -> None:
    config = tmp_path / "tiny.py"
    config.write_text(CONFIG)
    workdir = tmp_path / "broken"
    arguments = command(config, "--workdir", workdir, "--data", images, "--resume")

    first = subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    wait_for_step(first, workdir, random.randrange(2, 8))
    first.send_signal(signal.SIGTERM)
    out, err = first.communicate(timeout=60)
    assert first.returncode == 143, out + err
    stopped = json.loads((workdir / "log.jsonl").read_text().splitlines()[-1])["step"]
    assert f"step {stopped} is saved" in out and "Traceback" not in err
    assert (workdir / "checkpoints" / str(stopped)).is_dir() and stopped < STEPS

    second = subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    killed = random.randrange(stopped + 2, stopped + 8)
    wait_for_step(second, workdir, killed)
    second.kill()
    out, _ = second.communicate()
    assert f"continuing from step {stopped}" in out
    assert not (workdir / "weights.safetensors").exists(), f"killed too late, at {killed}"

    default = {}
    exec(CONFIG, default)
    whole = dataclasses.replace(default["config"], data=(str(images),))
    unbroken = read_weights(train(whole, tmp_path / "unbroken"))[0]
    resumed = read_weights(train(whole, workdir, resume=True))[0]
    message = f"terminated at {stopped}, killed at {killed}"
    for name, array in unbroken.items():
        np.testing.assert_array_equal(array, resumed[name], err_msg=f"{message}: {name}")
    logs = [(tmp_path / d / "log.jsonl").read_text().splitlines() for d in ("unbroken", "broken")]
    losses = [[(json.loads(x)["step"], json.loads(x)["loss"]) for x in log] for log in logs]
    assert losses[0] == losses[1] and len(losses[0]) == STEPS


_SLEEPER = """
import time
from rdejax.signals import StopSignals
with StopSignals() as stop:
    print("ready", flush=True)
    while not stop.asked:
        time.sleep(0.01)
    print("asked", stop.status, flush=True)
    time.sleep(60)
"""


def test_a_second_signal_ends_at_once() -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(
        [sys.executable, "-c", _SLEEPER],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None and process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGINT)
    assert process.stdout.readline() == "asked 130\n"
    process.send_signal(signal.SIGINT)  # the same one, sent to the group as well
    time.sleep(1.2)
    assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=10)
    assert process.returncode == 143
    assert "once more to end at once" in err and "ended without saving" in err
