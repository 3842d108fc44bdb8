"""XMem: its sensory memory and schedule, late objects, exactness, training; at tiny sizes."""

import json
import runpy
from pathlib import Path

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
from rdejax.memory.registry import rule_settings
from rdejax.models import create
from rdejax.models.protocol import given_probs, one_frame
from rdejax.models.registry import find_system
from rdejax.models.weights import save_weights
from rdejax.nn.xmem import gated
from rdejax.propagate.geometry import Geometry
from rdejax.propagate.slots import Layout
from rdejax.train.clip_loss import clip_loss
from rdejax.train.config import LossConfig
from rdejax.train.objectives.unroll import UnrollObjective, unroll
from rdejax.train.system import objective_of

TINY = {
    "key_depth": 18,
    "key_channels": 8,
    "value_channels": 16,
    "hidden_dim": 6,
    "decoder_widths": [16, 8, 8],
}
STORES = {
    "min_mid_term_frames": 2,
    "max_mid_term_frames": 4,
    "num_prototypes": 5,
    "max_long_term_elements": 12,
}
T = 14
SIZE = (40, 56)


def system(**settings):
    return create("xmem", config=TINY, **{"every": 2, **STORES, **settings})


@pytest.fixture(scope="module")
def model():
    return system()


@pytest.fixture(scope="module")
def video():
    return crossing_squares(*SIZE, T)


@pytest.fixture(scope="module")
def whole(model, video):
    return probabilities(model, *video)


# ------------------------------------------------------------------------ exactness


def test_frames_one_by_one_are_the_whole_video(model, video, whole) -> None:
    frames, mask = video
    stream = rdejax.stream(model, chunk=1)
    parts = [
        stream.push_probs(f[None], {0: mask} if t == 0 else None)[1] for t, f in enumerate(frames)
    ]
    np.testing.assert_allclose(np.concatenate(parts), whole, atol=2e-5)
    # Seven frames memorised of stores of four: consolidated at the fourth and the sixth.
    memory = stream.state.memory
    assert int(memory.written[0]) == 7 and int(memory.long.valid.sum()) == 10


@pytest.mark.parametrize("layout", [Layout(groups=1, slots=4), Layout(groups=2, slots=2)])
def test_padding_changes_nothing(model, video, whole, layout) -> None:
    assert_padding_changes_nothing(model, video, whole, layout)


def test_objects_permute(model, video, whole) -> None:
    assert_objects_permute(model, video, whole)


def test_saved_between_two_consolidations_it_goes_on_the_same(model, video, tmp_path) -> None:
    assert_saved_it_goes_on_the_same(model, video, 9, tmp_path / "state")


def test_the_state_does_not_grow(model, video) -> None:
    frames, mask = video
    stream = rdejax.stream(model)
    stream.push(frames[:2], {0: mask})
    before = stream.state_bytes
    stream.push(frames[2:])
    assert stream.state_bytes == before


def test_without_a_long_term_memory_it_grows_in_buckets(video) -> None:
    frames, mask = video
    unbounded = system(enable_long_term=False, every=1)
    stream = rdejax.stream(unbounded, chunk=1)
    capacities = []
    for t in range(18):
        stream.push(frames[t % T : t % T + 1], {0: mask} if t == 0 else None)
        capacities.append(stream.state.memory.time.shape[1])
    assert capacities == [*[16] * 16, *[32] * 2]


def test_long_term_memory_does_not_show_before_it_is_used(model, video, whole) -> None:
    """The first six frames are those of an unbounded memory, later ones are not."""
    probs = probabilities(system(enable_long_term=False), *video)
    np.testing.assert_allclose(probs[:7], whole[:7], atol=1e-6)
    assert np.abs(probs[7:] - whole[7:]).max() > 1e-6


# ------------------------------------------------------------------------ sensory memory


def test_gates() -> None:
    rng = np.random.default_rng(0)
    hidden, new = jnp.asarray(rng.normal(size=(2, 3, 4))), jnp.asarray(rng.normal(size=(2, 3, 4)))

    def update(forget, update):
        shape = hidden.shape
        gates = jnp.concatenate([jnp.full(shape, forget), jnp.full(shape, update), new], -1)
        return gated(gates, hidden)

    np.testing.assert_allclose(update(0.0, 100.0), jnp.tanh(new), atol=1e-6)
    np.testing.assert_allclose(update(100.0, -100.0), hidden, atol=1e-6)
    np.testing.assert_allclose(update(-100.0, -100.0), 0, atol=1e-6)
    for f, u in rng.normal(size=(20, 2)) * 3:
        assert (jnp.abs(update(f, u)) <= jnp.maximum(jnp.abs(hidden), 1) + 1e-6).all()


def _begun(model, video):
    """Features of the first frames and the state after the first."""
    frames, mask = video
    geometry = Geometry.of(SIZE, None)
    images = geometry.prepare(jnp.asarray(frames[:4]), model.mean, model.std)
    masks = geometry.prepare_masks(jnp.asarray(np.stack([mask == 4, mask == 9]), jnp.float32))
    probs = given_probs(masks, jnp.ones(2, bool))
    features = jax.jit(model.encode)(images)
    return features, probs, jax.jit(model.start)(one_frame(features, 0), probs)


def _deep_update(model, features, probs, hidden):
    def run(features, probs, hidden):
        return model.deep_update(model.entry(features, probs, 1).value, hidden)

    return jax.jit(run)(features, probs, hidden)


def test_a_memorised_frame_is_deeply_updated_from_the_hidden_state_before_it(model, video) -> None:
    features, probs, state = _begun(model, video)
    now = one_frame(features, 1)
    after, _ = jax.jit(model.segment)(state, now)
    assert jnp.abs(after.hidden - state.hidden).max() > 1e-4
    np.testing.assert_array_equal(after.before, state.hidden)
    memorised = jax.jit(model.memorize)(after, now, probs)
    want = _deep_update(model, now, probs, state.hidden)
    np.testing.assert_allclose(memorised.hidden, want, atol=1e-6)


def test_deep_updates_out_of_step(video) -> None:
    """Due three frames after the last, on top of the decoder's; else a memorised frame has none."""
    model = system(deep_update_every=3)
    features, probs, state = _begun(model, video)
    assert state.since.tolist() == [0]
    now = one_frame(features, 1)
    segment, memorize = jax.jit(model.segment), jax.jit(model.memorize)
    for since in (1, 2, 3):
        state, _ = segment(state, now)
        assert state.since.tolist() == [since]
        memorised = memorize(state, now, probs)
        due = since == 3
        want = _deep_update(model, now, probs, state.hidden) if due else state.hidden
        np.testing.assert_allclose(memorised.hidden, want, atol=1e-6)
        assert memorised.since.tolist() == [0 if due else since]


def test_deep_updates_out_of_step_change_the_video(video, whole) -> None:
    probs = probabilities(system(deep_update_every=3), *video)
    assert np.abs(probs - whole).max() > 1e-5
    np.testing.assert_allclose(probs[:3], whole[:3], atol=1e-6)  # until after the first memorised


def test_padding_of_a_block_changes_no_state(model, video) -> None:
    features, _, state = _begun(model, video)
    real = jnp.array([True, True, False, False])
    some, _ = jax.jit(model.segment)(state, features, real)
    two, _ = jax.jit(model.segment)(state, jax.tree.map(lambda x: x[:2], features))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), some, two)


def test_schedule() -> None:
    model = system(every=5)
    assert [t for t in range(20) if model.memorizes(t, (0,))] == [0, 5, 10, 15]
    # A frame with new masks is memorised, and counts for those after it.
    assert model.memorizes(7, (0, 7))
    assert [t for t in range(8, 20) if model.memorizes(t, (0, 7))] == [12, 17]


@pytest.mark.slow
def test_no_sensory_memory(video) -> None:
    model = create("xmem", config={**TINY, "hidden_dim": 0}, every=2, **STORES)
    assert model.decoder.hidden_update is None and model.value_encoder.deep_update is None
    probs = probabilities(model, *video)
    assert np.isfinite(probs).all() and probs.shape == (T, 3, *SIZE)


# ------------------------------------------------------------------------ late objects


def late_masks(mask):
    second = np.zeros(SIZE, np.uint8)
    second[20:34, 26:40] = 9
    return {0: np.where(mask == 4, mask, 0), 5: second}


@pytest.mark.slow
@pytest.mark.parametrize("long_term", [False, True])
def test_a_late_object_is_read_from_the_frames_since_then(video, long_term) -> None:
    """Its keys are those of these frames, whatever was consolidated for the others before."""
    frames, mask = video
    stream = rdejax.stream(system(enable_long_term=long_term))
    stream.push(frames, late_masks(mask))
    memory = stream.state.memory
    # Memorised: 0, 2, 4, 5 (given), 7, 9, 11, 13.
    assert memory.written.tolist() == [8, 5]
    other = rdejax.stream(system(enable_long_term=long_term))
    other.push(frames[5:], {0: late_masks(mask)[5]})
    alone = other.state.memory
    assert alone.written.tolist() == [5]
    np.testing.assert_allclose(memory.key.key[1, :2], alone.key.key[0, :2], atol=1e-5)
    np.testing.assert_array_equal(memory.time[1, :2], alone.time[0, :2])
    if long_term:
        assert memory.long.valid.sum(1).tolist() == [12, 5]


def test_a_late_object_is_not_noticed_by_the_frames_before(model, video, whole) -> None:
    frames, mask = video
    probs = probabilities(model, frames, late_masks(mask))
    single = probabilities(model, frames, late_masks(mask)[0])
    np.testing.assert_allclose(probs[:5, :2], single[:5], atol=2e-5)
    # In its own frame the masks are aggregated anew: it is where it was given, and sums are 1.
    assert (probs[5, 2] > 0.99).sum() == 14 * 14
    np.testing.assert_allclose(probs.sum(1), 1, atol=1e-5)


def test_given_masks_are_aggregated_with_the_predicted_ones(model) -> None:
    predicted = np.zeros((3, 2, 2), np.float32)
    predicted[1] = [[0.7, 0.9], [0.2, 0.0]]
    predicted[0] = 1 - predicted[1]
    new = np.zeros((2, 2, 2), np.float32)
    new[1, 0, 1] = 1
    got = model.given_beside(jnp.asarray(predicted), jnp.asarray(new), jnp.ones(2, bool))
    old = predicted[1] * (new[1] == 0)
    p = np.clip([(1 - old) * (1 - new[1]), old, new[1]], 1e-7, 1 - 1e-7)
    np.testing.assert_allclose(got, p / (1 - p) / (p / (1 - p)).sum(0), rtol=1e-4, atol=1e-7)


def test_a_late_object_waits_for_a_deep_update_that_is_not_due(video) -> None:
    frames, mask = video
    stream = rdejax.stream(system(deep_update_every=4))
    stream.push(frames[:6], late_masks(mask))
    # Deep updates at 0 and 4, so that none is due at 5.
    assert stream.state.since.tolist() == [1, 1]
    assert float(jnp.abs(stream.state.hidden[1]).max()) == 0
    assert float(jnp.abs(stream.state.hidden[0]).max()) > 0


# ------------------------------------------------------------------------ settings


def test_settings_are_kept_with_the_weights(model, tmp_path) -> None:
    changed = system(deep_update_every=3, enable_long_term_count_usage=False)
    save_weights(tmp_path / "a.safetensors", changed)
    loaded = rdejax.load_model(str(tmp_path / "a.safetensors"))
    assert loaded.settings == changed.settings and loaded.settings.deep_update_every == 3
    again = rdejax.load_model(str(tmp_path / "a.safetensors"), deep_update_every=-1, every=5)
    assert again.synchronised and again.settings.every == 5
    with pytest.raises(RdejaxError, match="deep_update_every=-2: give"):
        system(deep_update_every=-2)
    with pytest.raises(RdejaxError, match="'deep_updates' is unknown"):
        system(deep_updates=3)


def test_other_rules_get_keys_without_shrinkage_and_selection(video) -> None:
    frames, mask = video
    model = create("xmem", config=TINY, every=2, memory="average")
    assert np.isfinite(probabilities(model, frames[:5], mask)).all()


def test_recipes() -> None:
    """Steps, batch, drop of the rate and clip of each stage as published."""
    known = {}
    for stage in range(4):
        path = Path(__file__).parents[1] / "configs" / f"xmem_stage{stage}.py"
        config = runpy.run_path(str(path))["config"]
        assert config.system == "xmem" and config.loss.slot_dice == config.clip.frames - 1
        assert config.optimizer.name == "adamw" and config.optimizer.weight_decay == 0.05
        assert objective_of(config) == UnrollObjective(reduce="sum")
        at = config.optimizer.decay_at
        known[stage] = (config.batch, config.steps, at, config.clip.frames, config.clip.objects)
    assert known == {
        0: (16, 150_000, (), 3, 1),
        1: (8, 250_000, (200_000,), 8, 3),
        2: (8, 160_000, (120_000,), 8, 3),
        3: (8, 110_000, (80_000,), 8, 3),
    }


def test_published_settings() -> None:
    settings = create("xmem", config=TINY).settings.as_dict()
    assert settings.pop("memory_settings") == {"top_k": 30}
    published = {"every": 5, "size": None, "memory": "xmem", "deep_update_every": -1}
    assert {name: settings[name] for name in published} == published
    assert json.loads(json.dumps(settings)) == settings
    presets = find_system("xmem").published
    assert {name: preset["every"] for name, preset in presets.items()} == {
        "davis2016": 5,
        "davis2017": 5,
        "youtube-vos": 5,
        "long-videos": 5,
        "long-videos-3x": 10,
    }
    usual = rule_settings("xmem")
    for preset in presets.values():
        assert {name: usual[name] for name in preset if name != "every"} == {
            name: value for name, value in preset.items() if name != "every"
        }


# ------------------------------------------------------------------------ training


def clip(frames: int = 6) -> Clip:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 90, (frames, 32, 48, 3)).astype(np.uint8)
    labels = np.zeros((frames, 32, 48), np.uint8)
    for t in range(frames):
        for k, (y, x) in enumerate(((2, 4 + t), (16, 30 - t))):
            images[t, y : y + 12, x : x + 12] = (220, 180, 60 + 100 * k)
            labels[t, y : y + 12, x : x + 12] = k + 1
    given = np.stack([labels[0] == 1, labels[0] == 2]).astype(np.uint8)
    return jax.tree.map(jnp.asarray, Clip(images, labels, given, np.ones(2, bool)))


LOSS = LossConfig(slot_dice=5.0, bootstrap_start=0, bootstrap_end=1)


@pytest.fixture(scope="module")
def gradients(model):
    graph, params, rest = nnx.split(model, nnx.Param, ...)

    @jax.jit
    def run(params, key):
        def loss(params):
            merged = nnx.merge(graph, params, rest)
            objective = UnrollObjective(reduce="sum")
            return clip_loss(merged, clip(), key, jnp.int32(9), objective, LOSS)

        return jax.value_and_grad(loss, has_aux=True)(params)

    return lambda key: run(params, key)


def test_gradients_reach_every_part(gradients) -> None:
    """Shrinkage, selection and both gated units among them."""
    totals: dict[str, float] = {}
    for seed in range(3):  # deep updates are drawn
        (loss, _), grads = gradients(jax.random.key(seed))
        assert jnp.isfinite(loss)
        for path, leaf in nnx.to_flat_state(grads):
            assert jnp.isfinite(leaf[...]).all(), path
            name = "/".join(map(str, path))
            totals[name] = totals.get(name, 0.0) + float(jnp.abs(leaf[...]).sum())
    for part in (
        "key_proj",
        "anisotropy/shrinkage",
        "anisotropy/selection",
        "value_encoder/deep_update/transform",
        "decoder/hidden_update/gate/transform",
        "decoder/hidden_update/g4_conv",
    ):
        assert totals[f"{part}/kernel"] > 0, part
    # At these widths the attention's perceptrons have one hidden unit, which may never be on.
    unreached = [name for name, total in totals.items() if total == 0 and "kernel" in name]
    assert [name for name in unreached if "/attention/mlp" not in name] == []


@pytest.mark.slow
def test_what_is_drawn_in_training_comes_from_the_key(gradients) -> None:
    losses = [float(gradients(jax.random.key(seed))[0][0]) for seed in (0, 0, 1, 2, 3)]
    assert losses[0] == losses[1] and len(set(losses)) > 2


def test_deep_updates_in_training_are_one_in_five(model, video) -> None:
    features, probs, state = _begun(model, video)
    now = one_frame(features, 1)
    after, _ = jax.jit(model.segment)(state, now)
    entry = jax.jit(lambda f, p: model.entry(f, p, 1))(now, probs)

    def deeply(key):
        return jnp.any(model.write(after.replace(key=key[None]), entry).hidden != after.hidden)

    keys = jax.random.split(jax.random.key(0), 150)
    share = jax.jit(lambda keys: jax.lax.map(deeply, keys))(keys)
    assert 0.05 < float(share.mean()) < 0.37  # five standard deviations


def test_training_is_inference_where_nothing_is_drawn(model, video) -> None:
    """Three frames of one video: all are read, and with no key nothing is drawn."""
    frames, mask = video
    labels = np.broadcast_to(mask, (3, *SIZE))
    given = np.stack([mask == 4, mask == 9]).astype(np.uint8)
    # Sides of clips are multiples of 16.
    cut = lambda x: jnp.asarray(x[..., :32, :48])  # noqa: E731
    one = Clip(jnp.asarray(frames[:3, :32, :48]), cut(labels), cut(given), jnp.ones(2, bool))
    logits = jax.jit(lambda clip: unroll(model.as_trained(), clip, None))(one)
    full = system(every=1, enable_long_term=False, top_k=None)
    probs = probabilities(full, frames[:3, :32, :48], np.asarray(mask[:32, :48]))
    trained = np.asarray(jax.nn.softmax(logits, axis=1))
    np.testing.assert_allclose(trained, probs[1:], atol=5e-3)
