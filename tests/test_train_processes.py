"""The loop over two real processes: one batch, one log, one checkpoint, one step to stop at."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from rdejax.models.weights import read_weights
from rdejax.models.workdir import read_workdir

ROOT = Path(__file__).parents[1]

_ONE_OF_TWO = """
import itertools, os, signal, sys, time
import jax, jax.numpy as jnp, numpy as np
import rdejax.train.loop as loop
from rdejax.data.batch import Clip
from rdejax.models import create
from rdejax.data.config import ClipConfig
from rdejax.train.config import ScaleConfig, TrainConfig, ValidateConfig
from rdejax.train.step import TrainState

number, port, workdir = int(sys.argv[1]), sys.argv[2], sys.argv[3]
scale = ScaleConfig(
    fsdp=True, coordinator=f"localhost:{port}", processes=2, process=number, devices=2
)
config = TrainConfig(
    data=("synthetic",), clip=ClipConfig(frames=3, size=48), batch=4, steps=40, save_every=5,
    log_every=5, images_every=5, scale=scale, validate=ValidateConfig(every=5, root="nowhere"),
)

def make_step(model, config, mesh):
    @jax.jit
    def grow(state, batch):
        params = jax.tree.map(lambda x: x + 1.0, state.params)
        mean = batch.frames.astype(jnp.float32).mean()
        metrics = {"loss": mean, "grad_norm": mean, "iou": mean}
        return TrainState(params, state.fixed, params, state.optimizer, state.step + 1), metrics

    def step(state, batch):
        done = int(state.step) + 1
        assert batch.frames.shape[0] == 4
        if done == 13 and number == 1:
            os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.05)
        return grow(state, batch)
    return step

def batches(config, sources, first):
    for _ in itertools.count():
        yield Clip(
            frames=np.full((2, 3, 48, 48, 3), 10 * (number + 1), np.uint8),
            labels=np.zeros((2, 3, 48, 48), np.uint8),
            perturbed=np.zeros((2, 1, 48, 48), np.uint8),
            valid=np.ones((2, 1), bool),
        )

def validate(model, config, sequences, stopped):
    score = float(np.asarray(model.decoder.pred.bias[...]).mean()) / 100
    return {"J&F": score, "J": score, "F": score, "sequences": {}}

loop.make_step, loop._load, loop.validate = make_step, batches, validate
loop.make_predict = lambda model, config, mesh: jax.jit(lambda state, batch: batch.labels[:, 1:])
loop.validation_sequences = lambda config: []
loop.train(config, workdir, resume=True)
"""


def two_processes(workdir: Path) -> list[tuple[int, str]]:
    """Exit codes and output of a run of two processes, of which the second gets a signal."""
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        port = probe.getsockname()[1]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", _ONE_OF_TWO, str(number), str(port), str(workdir)],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for number in range(2)
    ]
    try:
        outputs = [process.communicate(timeout=200)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
    return [(p.returncode, text) for p, text in zip(processes, outputs, strict=True)]


@pytest.mark.slow
def test_two_processes_stop_in_the_same_step_and_go_on(tmp_path) -> None:
    (code, said), (other, silent) = two_processes(tmp_path)
    assert code == other == 143, said + silent
    saved = [p.name for p in (tmp_path / "checkpoints").iterdir()]
    step = max(int(name) for name in saved if name.isdigit())
    assert 13 <= step < 20 and f"step {step} is saved" in said
    assert "batch 4 = 2 per device x 2 devices" in said and '"loss"' not in silent
    text = (tmp_path / "log.jsonl").read_text()
    lines = [json.loads(line) for line in text.splitlines()]
    # Each process gave its half of the batch, and one wrote the log.
    assert [line["step"] for line in lines][:4] == [5, 5, 10, 10]
    assert lines[0]["loss"] == pytest.approx(15.0)
    assert lines[3]["validation"]["J&F"] == pytest.approx(0.1, abs=0.01)
    arrays, metadata = read_weights(tmp_path / "best.safetensors")
    assert json.loads(metadata["extra"])["step"] == 10
    # Weights that were spread over the processes are exported whole.
    np.testing.assert_allclose(arrays["decoder/pred/bias"], 10.0, atol=0.5)
    latest, _ = read_weights(tmp_path / "latest.safetensors")
    np.testing.assert_allclose(latest["decoder/pred/bias"], step, atol=0.5)
    # One process alone, on one device, goes on with what two have saved.
    saved = read_workdir(tmp_path).arrays
    np.testing.assert_allclose(saved["decoder/pred/bias"], step, atol=0.5)
