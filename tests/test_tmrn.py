"""TMRN on its hosts: a fresh one is its host, exactness once it has learned, weights, training."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from helpers_streams import (
    assert_objects_permute,
    assert_padding_changes_nothing,
    assert_saved_it_goes_on_the_same,
    crossing_squares,
    probabilities,
)

import rdejax
from rdejax.data.batch import Clip
from rdejax.errors import RdejaxError
from rdejax.models import create
from rdejax.models.registry import find_system, outline
from rdejax.models.weights import StoredModel, save_weights, shapes_of, weights_of
from rdejax.propagate.programs import segment_blocks
from rdejax.propagate.slots import Layout
from rdejax.train.config import LossConfig, OptimizerConfig, TrainConfig
from rdejax.train.initial_weights import fill
from rdejax.train.load_config import load_config
from rdejax.train.objectives.unroll import UnrollObjective
from rdejax.train.step import init_state, make_optimizer, make_step
from rdejax.train.system import create_system, objective_of

LITE = {"key_channels": 16, "value_channels": 32, "decoder_widths": [16, 16, 16]}
HOSTS = {
    "rde-lite": (LITE, {"memory": "bank", "top_k": None}),
    "stm": (
        {"key_depth": 18, "key_channels": 8, "value_channels": 16, "decoder_width": 16},
        {"keep_every": 2},
    ),
    "stcn": ({"key_depth": 18, "key_channels": 8, "value_channels": 16}, {"top_k": None}),
    "xmem": (
        {
            "key_depth": 18,
            "key_channels": 8,
            "value_channels": 16,
            "hidden_dim": 6,
            "decoder_widths": [16, 8, 8],
        },
        {"enable_long_term": False, "top_k": None},
    ),
}
T = 9
SIZE = (40, 56)


@pytest.fixture(scope="module")
def video():
    return crossing_squares(*SIZE, T)


def learned(model, seed=0, scale=0.2):
    """The model with weights of its rule that are off their start."""
    rng = np.random.default_rng(seed)
    off = jax.tree.map(
        lambda x: x + jnp.asarray(scale * rng.normal(size=x.shape), x.dtype),
        nnx.state(model.memory, nnx.Param),
    )
    nnx.update(model.memory, off)
    return model


@pytest.fixture(scope="module")
def model():
    return learned(create("rde-lite", config=LITE, size=None, memory="tmrn", every=2))


@pytest.fixture(scope="module")
def whole(model, video):
    return probabilities(model, *video)


# ------------------------------------------------------------------------ hosts


@pytest.mark.parametrize(
    "host", [pytest.param(h, marks=[pytest.mark.slow] * (h != "rde-lite")) for h in HOSTS]
)
def test_made_from_weights_of_its_host_it_is_the_host(host, video, tmp_path) -> None:
    """From the file that the host's run would leave, by the name of the rule alone."""
    config, settings = HOSTS[host]
    every = {} if host == "stm" else {"every": 2}
    path = tmp_path / "host.safetensors"
    save_weights(path, create(host, config=config, size=None, **every, **settings))
    frames, mask = video[0][:4], video[1]
    expected = probabilities(rdejax.load_model(str(path)), frames, mask)
    fresh = rdejax.load_model(str(path), memory="tmrn")
    assert fresh.memory.similarity == ("dot" if host == "stm" else "l2")
    np.testing.assert_allclose(probabilities(fresh, frames, mask), expected, atol=2e-5)
    if host == "stm":  # where scores are dot products; the others are below
        trained = probabilities(learned(fresh), frames, mask)
        assert np.abs(trained - expected).max() > 1e-5


def stored(arrays=None, **settings):
    """As a file gives it; random numbers, for making a model takes a compilation."""
    chosen = find_system("rde-lite").default_settings.override(**settings)
    shapes = shapes_of(outline("rde-lite", config=LITE, settings=chosen))
    rng = np.random.default_rng(0)
    drawn = {name: rng.random(shape).astype(np.float32) for name, shape in shapes.items()}
    return StoredModel("rde-lite", LITE, chosen, arrays or drawn, "a file")


def test_weights_of_other_rules_make_room_for_fresh_ones() -> None:
    fresh = stored().build(memory="tmrn", agents="learned")
    names = {name for name in shapes_of(fresh) if name.startswith("memory/")}
    assert "memory/correlation/learned" in names and not float(fresh.memory.correlation.gamma[...])
    own = stored(memory="tmrn", agents="learned")
    for changes in ({}, {"per_frame_top_k": 3}, {"refine": True}):
        correlation = own.build(**changes).memory.correlation
        kept = own.arrays["memory/correlation/learned"]
        np.testing.assert_array_equal(correlation.learned[...], kept)
    assert not float(jnp.abs(correlation.refinement.out.kernel[...]).max())
    assert names.isdisjoint(shapes_of(own.build(memory="bank")))
    part = {k: v for k, v in own.arrays.items() if k != "memory/beta"}
    with pytest.raises(RdejaxError, match="missing memory/beta"):
        stored(part, memory="tmrn", agents="learned").build()


def test_training_starts_from_a_host_with_another_rule(model) -> None:
    told: list[str] = []
    host, model = stored().arrays, nnx.clone(model)
    before = weights_of(model)
    fill(model, host, source="host", seed=0, tell=told.append)
    for name, array in weights_of(model).items():
        expected = before[name] if name.startswith("memory/") else host[name]
        np.testing.assert_array_equal(array, expected, err_msg=name)
    assert "memory/reasoning" in told[0] and "changes nothing" in told[0]
    assert "memory/compress_key" in told[1] and "not used" in told[1]


# ------------------------------------------------------------------------ exactness


def test_frames_one_by_one_are_the_whole_video(model, video, whole) -> None:
    frames, mask = video
    stream = rdejax.stream(model)
    parts = [
        stream.push_probs(f[None], {0: mask} if t == 0 else None)[1] for t, f in enumerate(frames)
    ]
    np.testing.assert_allclose(np.concatenate(parts), whole, atol=2e-5)
    assert stream.state.memory.time.shape == (1, 16)  # five frames in the first bucket


def test_chunks_are_the_whole_video(model, video, whole) -> None:
    frames, mask = video
    stream = rdejax.stream(model, chunk=3)
    parts = [
        stream.push_probs(frames[t : t + 4], {0: mask} if t == 0 else None)[1]
        for t in range(0, T, 4)
    ]
    np.testing.assert_allclose(np.concatenate(parts), whole, atol=2e-5)


@pytest.mark.parametrize("layout", [Layout(groups=1, slots=4), Layout(groups=2, slots=2)])
def test_padding_changes_nothing(model, video, whole, layout) -> None:
    assert_padding_changes_nothing(model, video, whole, layout)


def test_objects_permute(model, video, whole) -> None:
    assert_objects_permute(model, video, whole)


def test_saved_it_goes_on_the_same(model, video, tmp_path) -> None:
    assert_saved_it_goes_on_the_same(model, video, 5, tmp_path / "state")


def test_a_late_object_is_read_from_the_frames_since_then(model, video) -> None:
    """It has a bank of its own, so with weights that have learned too; the old do not notice."""
    frames, mask = video
    first, second = np.where(mask == 4, mask, 0), np.zeros(SIZE, np.uint8)
    second[20:34, 28:42] = 9
    stream = rdejax.stream(model)
    probs = stream.push_probs(frames, {0: first, 4: second})[1]
    alone = probabilities(model, frames[:5], first)
    np.testing.assert_allclose(probs[:4, :2], alone[:4], atol=2e-5)
    other = rdejax.stream(model)
    other.push(frames[4:], {0: second})
    memory, its = stream.state.memory, other.state.memory
    # Memorised: 0, 2, 4, 6, 8 and, of the late object, 4, 6, 8.
    assert (memory.time > 0).sum(1).tolist() == [5, 3] and (its.time > 0).sum() == 3
    np.testing.assert_allclose(memory.moments[1, :3], its.moments[0, :3], rtol=1e-4, atol=1e-3)


def test_the_state_is_constant_at_capacity_and_compiles_once(video) -> None:
    frames, mask = video
    bounded = create("rde-lite", config=LITE, size=None, memory="tmrn", every=1, max_frames=3)
    stream = rdejax.stream(bounded)
    stream.push(frames[:4], {0: mask})
    stream.push(frames[:4])
    size, programs = stream.state_bytes, segment_blocks._cache_size()
    for _ in range(3):
        stream.push(frames[:4])
    assert stream.state_bytes == size and segment_blocks._cache_size() == programs
    assert sorted(stream.state.memory.time[0].tolist()) == [1, stream.time - 1, stream.time]


# ------------------------------------------------------------------------ training


def clips(frames=3):
    rng = np.random.default_rng(1)
    images = rng.integers(0, 90, (2, frames, 32, 48, 3)).astype(np.uint8)
    labels = np.zeros((2, frames, 32, 48), np.uint8)
    for t in range(frames):
        images[:, t, 8:24, 4 + 4 * t : 20 + 4 * t] = (230, 60, 60)
        labels[:, t, 8:24, 4 + 4 * t : 20 + 4 * t] = 1
    perturbed = (labels[:, :1] == 1).astype(np.uint8)
    return jax.tree.map(jnp.asarray, Clip(images, labels, perturbed, np.ones((2, 1), bool)))


@pytest.mark.slow
def test_a_tiny_run_overfits() -> None:
    config = TrainConfig(
        memory="tmrn",
        objective="unroll",
        batch=2,
        steps=30,
        loss=LossConfig(soft_iou=1.0, top_p=1.0),
        optimizer=OptimizerConfig(lr=2e-3, warmup=4, ema=0.0, rule_lr=5.0, rule_lr_steps=20),
    )
    model = create("rde-lite", config=LITE, memory="tmrn")
    _, state = init_state(model, config)
    start = jax.tree.map(np.array, state.params["memory"])
    step, history = make_step(model, config), []
    for _ in range(config.steps):
        state, metrics = step(state, clips())
        history.append(float(metrics["loss"]))
    assert np.isfinite(history).all() and history[-1] < 0.5 * history[0], history[::10]
    moved = jax.tree.map(
        lambda a, b: bool((a != np.asarray(b)).any()), start, state.params["memory"]
    )
    assert all(jax.tree.leaves(moved)), moved


def test_weights_of_the_rule_learn_faster_for_a_while() -> None:
    weights = {"memory": {"gamma": jnp.ones(3)}, "key_encoder": jnp.ones(3), "new": jnp.ones(3)}
    gradients = jax.tree.map(jnp.ones_like, weights)
    optimizer = OptimizerConfig(
        name="adam", schedule="steps", lr=0.1, trunk_lr=0.5, warmup=0, weight_decay=0.0,
        clip_norm=0.0, rule_lr=10.0, rule_lr_steps=2,
    )  # fmt: skip
    transform = make_optimizer(TrainConfig(optimizer=optimizer), "key_encoder")
    state, factors = transform.init(weights), []
    for _ in range(3):
        updates, state = transform.update(gradients, state, weights)
        factors.append(float((updates["memory"]["gamma"] / updates["new"])[0]))
        np.testing.assert_allclose(updates["key_encoder"] / updates["new"], 0.5, rtol=1e-4)
    np.testing.assert_allclose(factors, [10, 10, 1], rtol=1e-4)
    for wrong in ({"rule_lr": 0.0}, {"rule_lr_steps": -1}):
        with pytest.raises(RdejaxError, match="rule_lr"):
            OptimizerConfig(**wrong)


def test_recipes_are_those_of_the_hosts() -> None:
    for host, name in (
        ("stm_images", "tmrn_stm_images"),
        ("stm_video", "tmrn_stm_video"),
        ("stcn_stage0", "tmrn_stcn_images"),
        ("stcn_stage3", "tmrn_stcn_video"),
        ("xmem_stage0", "tmrn_xmem_images"),
        ("xmem_stage3", "tmrn_xmem_video"),
    ):
        plain, mine = load_config(host), load_config(name)
        optimizer = dataclasses.replace(plain.optimizer, rule_lr=10.0, rule_lr_steps=2000)
        assert mine == dataclasses.replace(plain, memory="tmrn", optimizer=optimizer)
    without = dataclasses.replace(load_config("tmrn_stm_video"), memory_settings=("agents=none",))
    model = nnx.eval_shape(lambda: create_system(without))  # as a command line spells it
    assert model.memory.correlation is None
    lite = load_config("tmrn_lite")
    assert lite.memory == "tmrn" and objective_of(lite) == UnrollObjective()


@pytest.mark.parametrize("name", ["tmrn_stm_video", "tmrn_stcn_video", "tmrn_xmem_video"])
def test_recipes_make_their_systems(name) -> None:
    config = load_config(name)
    model = nnx.eval_shape(lambda: create_system(config))  # shapes only
    assert model.name == config.system and model.memory.reasoning is not None
    assert model.memory.similarity == ("dot" if model.name == "stm" else "l2")
    assert model.as_trained().memory.most_read == 3


def test_settings_are_kept_with_the_weights(model, tmp_path) -> None:
    save_weights(tmp_path / "w.safetensors", model)
    again = rdejax.load_model(str(tmp_path / "w.safetensors"))
    assert again.settings == model.settings
    assert json.loads(json.dumps(again.settings.as_dict()))["memory"] == "tmrn"
    for name, array in weights_of(model).items():
        np.testing.assert_array_equal(weights_of(again)[name], array, err_msg=name)
