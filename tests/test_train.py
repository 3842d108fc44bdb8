"""Losses, gradients, overfitting, resuming, and train.py end to end; on tiny clips."""

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rdejax.data.config import ClipConfig
from rdejax.models import create
from rdejax.models.weights import load_into, read_weights, save_weights, weights_of
from rdejax.train.config import LossConfig, OptimizerConfig, TrainConfig
from rdejax.train.loop import train
from rdejax.train.losses import (
    bootstrap_fraction,
    bootstrapped_mean,
    channel_kl,
    cross_entropy,
    soft_iou_loss,
)
from rdejax.train.step import init_state, make_step, merge

ROOT = Path(__file__).parents[1]
SIZE = 48
TINY = TrainConfig(
    clip=ClipConfig(frames=3, size=SIZE, objects=1),
    batch=2,
    steps=4,
    save_every=2,
    log_every=2,
    loss=LossConfig(sam=True, soft_iou=1.0, bootstrap_start=0, bootstrap_end=1),
    optimizer=OptimizerConfig(lr=2e-3, warmup=1, freeze_stride=8),
)


def clip_batch() -> dict[str, np.ndarray]:
    """Two clips of a bright square that moves over noise."""
    rng = np.random.default_rng(0)
    frames = rng.integers(0, 90, (2, 3, SIZE, SIZE, 3)).astype(np.uint8)
    labels = np.zeros((2, 3, SIZE, SIZE), np.uint8)
    for b in range(2):
        for t in range(3):
            window = np.s_[10 + 3 * t : 32 + 3 * t, 6 + 8 * b + 2 * t : 26 + 8 * b + 2 * t]
            frames[(b, t, *window)] = (220, 180, 60 + 100 * b)
            labels[(b, t, *window)] = 1
    perturbed = labels[:, :1].copy()
    return {
        "frames": frames,
        "labels": labels,
        "perturbed": perturbed,
        "valid": np.ones((2, 1), bool),
    }


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
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


def test_cross_entropy_and_bootstrapping() -> None:
    logits = jnp.asarray(np.random.default_rng(0).normal(size=(3, 4, 5)), jnp.float32)
    labels = jnp.asarray(np.random.default_rng(1).integers(0, 3, (4, 5)))
    loss = cross_entropy(logits, labels)
    p = np.asarray(jax.nn.softmax(logits, axis=0))
    expected = -np.log(np.take_along_axis(p, np.asarray(labels)[None], 0)[0])
    np.testing.assert_allclose(loss, expected, rtol=1e-5)
    hardest = np.sort(np.asarray(loss).ravel())[::-1]
    np.testing.assert_allclose(bootstrapped_mean(loss, 0.15), hardest[:3].mean(), rtol=1e-5)
    np.testing.assert_allclose(bootstrapped_mean(loss, 1.0), loss.mean(), rtol=1e-5)
    assert [float(bootstrap_fraction(s, 10, 20)) for s in (0, 10, 20, 99)] == pytest.approx(
        [1, 1, 0.15, 0.15]
    )
    assert float(bootstrap_fraction(15, 10, 20)) == pytest.approx(0.575)


def test_soft_iou_and_kl() -> None:
    labels = jnp.zeros((4, 4), jnp.int32).at[:2].set(1)
    perfect = (labels == 1).astype(jnp.float32)[None]
    valid = jnp.ones(1, bool)
    assert float(soft_iou_loss(perfect, labels, valid)) == pytest.approx(0, abs=1e-5)
    assert float(soft_iou_loss(1 - perfect, labels, valid)) == pytest.approx(1, abs=1e-5)
    assert float(soft_iou_loss(perfect * 0, labels, ~valid)) == 0
    rng = np.random.default_rng(0)
    s, t = (jnp.asarray(rng.normal(size=(2, 3, 3, 7)), jnp.float32) for _ in range(2))
    both = jnp.ones(2, bool)
    assert float(channel_kl(s, s, both)) == pytest.approx(0, abs=1e-6)
    assert float(channel_kl(s, t, both)) > 0
    only = channel_kl(s, t, jnp.asarray([True, False]))
    assert float(only) == pytest.approx(float(channel_kl(s[:1], t[:1], both[:1])), rel=1e-5)


@pytest.fixture(scope="module")
def overfitted():
    model = create("rde-lite")
    _, state = init_state(model, dataclasses.replace(TINY, steps=140))
    step = make_step(model, dataclasses.replace(TINY, steps=140))
    start = jax.tree.map(np.array, (state.params, state.fixed))
    history = []
    for _ in range(140):
        state, metrics = step(state, clip_batch())
        history.append({k: float(v) for k, v in metrics.items()})
    return start, state, history


def test_a_tiny_run_overfits(overfitted) -> None:
    _, _, history = overfitted
    assert history[-1]["loss"] < 0.35 * history[0]["loss"]
    assert history[-1]["iou"] > 0.85


def test_every_trained_weight_moves_and_no_fixed_one(overfitted) -> None:
    start, state, _ = overfitted
    moved = jax.tree.map(lambda a, b: bool((a != np.asarray(b)).any()), start[0], state.params)
    flat = jax.tree_util.tree_leaves_with_path(moved)
    # rde-lite with one object: nothing drives the "others" channels apart from their shared kernel.
    still = [jax.tree_util.keystr(path) for path, value in flat if not value]
    assert not still, still
    jax.tree.map(np.testing.assert_array_equal, start[1], state.fixed)
    names = {jax.tree_util.keystr(p) for p, _ in flat}
    assert any("compress_key" in n for n in names) and any("blocks" in n for n in names)
    assert not any("stem" in n or "depthwise" in n for n in names)


def test_killed_and_resumed_equals_unbroken(folder, tmp_path) -> None:
    config = dataclasses.replace(TINY, data=(str(folder),))
    unbroken = train(config, tmp_path / "a")
    # The schedule belongs to the whole run, so the first half must know its length.
    half = tmp_path / "b"
    (half).mkdir()
    import rdejax.train.loop as loop

    class Killed(Exception):
        pass

    original = loop._check_finite

    def kill_at_three(metrics, step):
        original(metrics, step)
        if step == 2:
            raise Killed

    loop._check_finite = kill_at_three
    try:
        with pytest.raises(Killed):
            train(config, half)
    finally:
        loop._check_finite = original
    resumed = train(config, half)
    one, two = read_weights(unbroken)[0], read_weights(resumed)[0]
    for name, array in one.items():
        np.testing.assert_array_equal(array, two[name], err_msg=name)


def test_weights_round_trip_and_say_what_does_not_fit(tmp_path) -> None:
    model = create("rde-lite", seed=1)
    save_weights(tmp_path / "w.safetensors", model, note="x")
    arrays, metadata = read_weights(tmp_path / "w.safetensors")
    other = create("rde-lite", seed=2)
    load_into(other, arrays, source="w")
    for name, array in weights_of(other).items():
        np.testing.assert_array_equal(array, arrays[name])
    assert json.loads(metadata["extra"]) == {"note": "x"}
    name = "decoder/pred/kernel"
    broken = {k: v for k, v in arrays.items() if k != name}
    broken["surplus"] = np.zeros(3, np.float32)
    broken["decoder/pred/bias"] = np.zeros(7, np.float32)
    with pytest.raises(ValueError, match="missing decoder/pred/kernel") as error:
        load_into(other, broken, source="w")
    assert "unexpected surplus" in str(error.value) and "shape (7,)" in str(error.value)
    nan = {**arrays, name: arrays[name] * np.nan}
    with pytest.raises(ValueError, match="NaN"):
        load_into(other, nan, source="w")
    (tmp_path / "w.safetensors").write_bytes(b"garbage")
    with pytest.raises(ValueError, match="not a readable"):
        read_weights(tmp_path / "w.safetensors")


def test_merge_gives_back_the_model() -> None:
    model = create("rde-lite", seed=3)
    _, state = init_state(model, TINY)
    again = merge(create("rde-lite", seed=4), TINY, state.params, state.fixed)
    x = jnp.ones((1, 32, 32, 3))
    np.testing.assert_allclose(again.encode(x).key, model.encode(x).key, atol=1e-6)


def run_script(*arguments: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "train.py", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)


def test_train_script_names_what_is_wrong(tmp_path) -> None:
    missing = run_script("configs/none.py", "--workdir", str(tmp_path))
    assert missing.returncode == 2 and "configs/none.py" in missing.stderr
    config = "configs/rde_lite.py"
    uneven = run_script(config, "--workdir", str(tmp_path), "--data", str(tmp_path))
    assert uneven.returncode == 2 and "2 data weights" in uneven.stderr
    nodata = run_script(
        config, "--workdir", str(tmp_path), "--data", str(tmp_path / "nowhere"), str(tmp_path)
    )
    assert nodata.returncode == 2 and "nowhere" in nodata.stderr
    assert "Traceback" not in missing.stderr + nodata.stderr
