"""Losses, optimisers, gradients, overfitting and weight files; on tiny clips."""

import dataclasses
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rdejax.data.batch import Clip
from rdejax.data.config import ClipConfig
from rdejax.data.loader import clip_loader
from rdejax.models import create
from rdejax.models.weights import load_into, read_weights, save_weights, weights_of
from rdejax.train.config import LossConfig, OptimizerConfig, TrainConfig
from rdejax.train.losses import (
    bootstrap_fraction,
    bootstrapped_mean,
    channel_kl,
    cross_entropy,
    dice_loss,
    lovasz_loss,
    slot_dice_loss,
    soft_iou_loss,
)
from rdejax.train.objectives.rde import RDEObjective
from rdejax.train.step import (
    init_state,
    learning_rate,
    make_optimizer,
    make_predict,
    make_step,
    merge,
)

SIZE = 48
TINY = TrainConfig(
    clip=ClipConfig(frames=3, size=SIZE, objects=1),
    batch=2,
    steps=4,
    save_every=2,
    log_every=2,
    loss=LossConfig(soft_iou=1.0, bootstrap_start=0, bootstrap_end=1),
    optimizer=OptimizerConfig(lr=2e-3, warmup=1, freeze_stride=8),
)


def clip_batch() -> Clip:
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
    return Clip(frames, labels, perturbed, np.ones((2, 1), bool))


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


def test_dice_and_lovasz() -> None:
    labels = jnp.zeros((4, 4), jnp.int32).at[:2].set(1)
    truth = (labels == 1).astype(jnp.float32)[None]
    valid = jnp.ones(1, bool)
    for loss in (dice_loss, lovasz_loss):
        assert float(loss(truth, labels, valid)) == pytest.approx(0, abs=1e-5)
        assert float(loss(1 - truth, labels, valid)) == pytest.approx(1, abs=1e-5)
        assert float(loss(truth, labels, ~valid)) == 0
    half = truth * 0.5
    assert float(dice_loss(half, labels, valid)) == pytest.approx(1 - 8 / 12, rel=1e-5)
    # With 1 in numerator and denominator; a slot without an object has no loss, but counts.
    assert float(slot_dice_loss(half, labels)) == pytest.approx(1 - 9 / 13, rel=1e-5)
    with_empty = jnp.concatenate([half, 0 * half])
    assert float(slot_dice_loss(with_empty, labels)) == pytest.approx((1 - 9 / 13) / 2, rel=1e-5)
    # For hard predictions the Lovasz extension is the Jaccard loss itself.
    wrong = truth.at[0, 0, 0].set(0.0).at[0, 3, :2].set(1.0)
    jaccard = 1 - 7 / 10
    assert float(lovasz_loss(wrong, labels, valid)) == pytest.approx(jaccard, rel=1e-5)
    gradient = jax.grad(lambda p: lovasz_loss(p, labels, valid))(half)
    assert (gradient[truth > 0] <= 0).all() and (gradient[truth == 0] >= 0).all()
    assert float(jnp.abs(gradient).sum()) > 0


def test_schedules_and_optimisers() -> None:
    steps = OptimizerConfig(schedule="steps", lr=1.0, warmup=0, decay_at=(10, 20))
    rate = learning_rate(dataclasses.replace(TINY, steps=30, optimizer=steps))
    assert [float(rate(t)) for t in (0, 9, 11, 21)] == pytest.approx([1, 1, 0.1, 0.01])
    cosine = OptimizerConfig(lr=1.0, warmup=10, final=0.02)
    rate = learning_rate(dataclasses.replace(TINY, steps=100, optimizer=cosine))
    assert float(rate(5)) == pytest.approx(0.5) and float(rate(100)) == pytest.approx(0.02)
    weights = {"new": jnp.ones(3), "key_encoder": jnp.ones(3)}
    gradients = jax.tree.map(jnp.zeros_like, weights)
    for name in ("adamw", "adam"):
        optimizer = OptimizerConfig(
            name=name, schedule="steps", lr=0.1, trunk_lr=0.0, warmup=0, weight_decay=0.1
        )
        transform = make_optimizer(dataclasses.replace(TINY, optimizer=optimizer), "key_encoder")
        updates, _ = transform.update(gradients, transform.init(weights), weights)
        # Decoupled decay scales with the rate; decay in the gradient is normalised by Adam.
        expected = -0.01 if name == "adamw" else -0.1
        np.testing.assert_allclose(updates["new"], expected, rtol=1e-3)
        np.testing.assert_allclose(updates["key_encoder"], 0.0)


def test_any_memory_rule_can_take_the_place_of_the_embedding() -> None:
    clip = jax.tree.map(lambda x: jnp.asarray(x[0]), clip_batch())
    logits = {}
    for memory in ("rde", str(Path(__file__).parents[1] / "examples" / "ema_memory.py")):
        model = create("rde-lite", memory=memory)
        assert model.as_trained().memory.top_k is None and model.memory.top_k is not None
        out = jax.jit(lambda model: RDEObjective()(model, clip, jax.random.key(0)))(model)
        logits[memory] = np.asarray(out.logits)
        assert float(out.terms["guidance"]) > 0 and np.isfinite(out.logits[:, :2]).all()
    rde, ema = logits.values()
    # The first predicted frame is read from the bank, the second from the rule itself.
    np.testing.assert_allclose(rde[0], ema[0], atol=1e-4)
    assert np.abs(rde[1] - ema[1]).max() > 1e-3


def test_what_is_trained_is_a_setting() -> None:
    model = create("rde-lite")

    def names(**changes) -> set[str]:
        config = dataclasses.replace(TINY, optimizer=OptimizerConfig(**changes))
        _, state = init_state(model, config)
        flat = jax.tree_util.tree_leaves_with_path(state.params)
        return {jax.tree_util.keystr(path) for path, _ in flat}

    frozen, open_ = names(), names(freeze_stride=0, freeze_depthwise=False)
    assert frozen < open_
    assert any("depthwise" in n for n in open_) and any("stem" in n for n in open_)
    norms = names(freeze_stride=0, freeze_depthwise=False, train_norm=True) - open_
    assert norms and all(n.endswith("['scale']") or n.endswith("['bias']") for n in norms)


@pytest.mark.slow
def test_a_run_overfits_synthetic_clips() -> None:
    """J above 0.95 on three clips made from nothing, of two objects, SAM pattern included."""
    clip = ClipConfig(frames=3, size=96, objects=2, distractors=0, smallest=0.3, jump=0.0)
    loader = clip_loader(("synthetic",), (), clip, batch_size=3, seed=2, steps=1)
    batch = jax.tree.map(jnp.asarray, next(loader))
    config = TrainConfig(
        clip=clip,
        batch=3,
        steps=300,
        loss=LossConfig(soft_iou=1.0, top_p=1.0),
        optimizer=OptimizerConfig(lr=2e-3, warmup=10, ema=0.9, freeze_stride=0),
    )
    model = create("rde-lite")
    _, state = init_state(model, config)
    step, predict = make_step(model, config), make_predict(model, config)
    for _ in range(config.steps):
        state, _ = step(state, batch)
    predicted, labels = np.asarray(predict(state, batch)), np.asarray(batch.labels[:, 1:])
    scores = []
    for b, o in zip(*np.nonzero(np.asarray(batch.valid)), strict=True):
        for mine, truth in zip(predicted[b] == o + 1, labels[b] == o + 1, strict=True):
            if truth.any():
                scores.append((mine & truth).sum() / (mine | truth).sum())
    assert len(scores) >= 6 and np.mean(scores) > 0.95, scores


@pytest.fixture(scope="module")
def overfitted():
    model = create("rde-lite")
    # At twice this rate the first steps overshoot, and rounding decides whether it recovers.
    config = dataclasses.replace(
        TINY, steps=140, optimizer=dataclasses.replace(TINY.optimizer, lr=1e-3)
    )
    _, state = init_state(model, config)
    step = make_step(model, config)
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
