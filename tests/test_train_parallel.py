"""The same losses on one device, on eight, and in two processes; memory savers change nothing."""

import dataclasses
import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from parallel_run import batch_at

from rdejax.data.config import ClipConfig
from rdejax.errors import RdejaxError
from rdejax.models import create
from rdejax.propagate.scanning import scan
from rdejax.train.config import LossConfig, OptimizerConfig, ScaleConfig, TrainConfig
from rdejax.train.parallel import make_mesh, start_processes, state_shardings
from rdejax.train.step import init_state, make_gradients

HERE = Path(__file__).parent
STEPS = 20
# Sums over the batch in another order, twenty steps of Adam on: well above float32's rounding,
# well below what one missing or doubled clip would change.
CLOSE = {"rtol": 2e-3}


def environment(devices: int) -> dict[str, str]:
    flags = f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count={devices}"
    cache = os.environ.get("JAX_COMPILATION_CACHE_DIR", "")
    extra = {"JAX_COMPILATION_CACHE_DIR": cache} if cache else {}
    paths = os.pathsep.join([str(HERE.parent), os.environ.get("PYTHONPATH", "")])
    return {**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu", "PYTHONPATH": paths, **extra}


def start(devices: int, *arguments: str) -> subprocess.Popen:
    command = [sys.executable, str(HERE / "parallel_run.py"), *arguments]
    return subprocess.Popen(
        command,
        env=environment(devices),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def result(process: subprocess.Popen) -> dict:
    out, err = process.communicate(timeout=600)
    assert process.returncode == 0, err[-3000:]
    return json.loads(out.strip().splitlines()[-1])


@pytest.fixture(scope="module")
def single() -> dict:
    return result(start(1, str(STEPS)))


def test_eight_sharded_devices_give_the_losses_of_one(single) -> None:
    eight = result(start(8, str(STEPS), "--fsdp", "--devices", "8"))
    assert single["devices"] == 1 and eight["devices"] == 8
    assert eight["cut"] > 50
    assert single["losses"][0] == pytest.approx(eight["losses"][0], rel=1e-5)
    np.testing.assert_allclose(eight["losses"], single["losses"], **CLOSE)
    assert single["losses"][-1] < single["losses"][0]


@pytest.mark.slow
@pytest.mark.parametrize("arguments", [["--accumulate", "1"], ["--accumulate", "2"]])
def test_replicated_and_accumulated_give_the_losses_of_one(single, arguments) -> None:
    devices = 8 if arguments[1] == "1" else 2
    other = result(start(devices, str(STEPS), *arguments))
    assert other["devices"] == devices and other["cut"] == 0
    np.testing.assert_allclose(other["losses"], single["losses"], **CLOSE)


@pytest.mark.slow
def test_two_processes_give_the_losses_of_one(single) -> None:
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = str(free.getsockname()[1])
    both = [start(2, str(STEPS), "--process", str(i), "--port", port) for i in range(2)]
    one, two = (result(process) for process in both)
    assert one["devices"] == two["devices"] == 4
    assert one["losses"] == two["losses"]
    np.testing.assert_allclose(one["losses"], single["losses"], **CLOSE)


def test_scan_is_a_loop_and_a_loop_is_a_scan() -> None:
    xs = jnp.arange(6.0).reshape(3, 2)

    def body(carry, x):
        return carry + x.sum(), {"y": carry * x}

    carry, ys = scan(body, jnp.asarray(1.0), xs)
    expected, stacked = jax.lax.scan(body, jnp.asarray(1.0), xs)
    assert float(carry) == float(expected)
    np.testing.assert_array_equal(ys["y"], stacked["y"])


TINY = TrainConfig(
    clip=ClipConfig(frames=3, size=48, objects=1),
    batch=2,
    loss=LossConfig(soft_iou=1.0, bootstrap_start=0, bootstrap_end=1),
    optimizer=OptimizerConfig(lr=1e-3, warmup=1),
)


@pytest.fixture(scope="module")
def start_of_tiny():
    model = create("rde-lite")
    batch = jax.tree.map(lambda x: jnp.asarray(x[:2]), batch_at(0))
    return model, batch


def gradients_of(start_of_tiny, **scale):
    model, batch = start_of_tiny
    config = dataclasses.replace(TINY, scale=ScaleConfig(**scale))
    _, state = init_state(model, config)
    metrics, grads = jax.jit(make_gradients(model, config))(state, batch)
    return float(metrics["loss"]), np.concatenate([np.ravel(g) for g in jax.tree.leaves(grads)])


@pytest.mark.slow
def test_rematerialisation_changes_nothing_and_bfloat16_little(start_of_tiny) -> None:
    loss, grads = gradients_of(start_of_tiny)
    remat_loss, remat = gradients_of(start_of_tiny, remat=True)
    assert remat_loss == pytest.approx(loss, rel=1e-5)
    np.testing.assert_allclose(remat, grads, atol=1e-4 * np.abs(grads).max())
    half_loss, half = gradients_of(start_of_tiny, precision="bfloat16")
    assert grads.dtype == half.dtype == np.float32
    assert half_loss == pytest.approx(loss, rel=0.05)
    cosine = np.dot(half, grads) / np.linalg.norm(half) / np.linalg.norm(grads)
    assert cosine > 0.95


def test_wrong_device_counts_are_named() -> None:
    with pytest.raises(RdejaxError, match=r"scale\.devices=64"):
        start_processes(ScaleConfig(devices=64))
    with pytest.raises(RdejaxError, match=r"scale\.coordinator"):
        start_processes(ScaleConfig(processes=2, process=0))
    count = jax.device_count()
    with pytest.raises(RdejaxError, match="does not divide"):
        make_mesh(count * 4 + 1, 2)


def test_fully_sharded_cuts_the_longest_axis_that_fits() -> None:
    mesh = make_mesh(jax.device_count())
    n = mesh.size
    state = {"kernel": jnp.zeros((3, 3, 2 * n, 4 * n)), "step": jnp.zeros(())}
    cut = state_shardings(state, mesh, fsdp=True)
    assert tuple(cut["kernel"].spec) == (None, None, None, "data") and tuple(cut["step"].spec) == ()
    whole = state_shardings(state, mesh, fsdp=False)
    assert all(axis is None for axis in whole["kernel"].spec)
