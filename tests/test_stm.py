"""What must not change STM's result, what its memory holds, and other memory rules under it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import rdejax
from rdejax.models import System, create
from rdejax.models.protocol import given_probs, one_frame
from rdejax.models.stm import without_border
from rdejax.propagate.slots import Layout
from rdejax.propagate.stream import Stream

T, SIDE = 7, 44  # padded to 48
TINY = {"key_depth": 18, "key_channels": 8, "value_channels": 16, "decoder_width": 16}


@pytest.fixture(scope="module")
def video() -> tuple[np.ndarray, np.ndarray]:
    """Frames uint8 [T, 44, 44, 3]: two discs moving over a gradient; and the first mask."""
    y, x = np.mgrid[:SIDE, :SIDE]
    frames, mask = [], np.zeros((SIDE, SIDE), np.uint8)
    for t in range(T):
        frame = np.stack([5 * y, 5 * x, 2 * (x + y)], -1)
        for k, (cy, cx) in enumerate(((12, 10 + 2 * t), (30, 34 - 2 * t))):
            inside = (y - cy) ** 2 + (x - cx) ** 2 < 80
            frame[inside] = ((220, 60, 30), (20, 60, 240))[k]
            if t == 0:
                mask[inside] = (4, 9)[k]
        frames.append(frame.astype(np.uint8))
    return np.stack(frames), mask


def tiny(**settings) -> System:
    """With random weights, but for strong ones on the masks, so that objects come out different."""
    model = create("stm", config=TINY, **settings)
    for conv in (model.value_encoder.conv_mask, model.value_encoder.conv_others):
        conv.kernel.set_value(10 * conv.kernel[...])
    return model


@pytest.fixture(scope="module")
def model() -> System:
    return tiny(keep_every=2)


def probabilities(model: System, frames: np.ndarray, masks, **options) -> np.ndarray:
    return rdejax.segment_video(model, frames, masks, return_probs=True, **options)


@pytest.fixture(scope="module")
def whole(model, video) -> np.ndarray:
    return probabilities(model, *video)


def test_published_settings() -> None:
    settings = create("stm", config=TINY).settings
    assert settings.every == 1 and settings.memory == "bank"
    assert dict(settings.memory_settings) == {"keep_every": 5, "similarity": "dot", "top_k": None}


def test_objects_permute(model, video, whole) -> None:
    frames, mask = video
    swapped = np.where(mask == 4, 9, np.where(mask == 9, 4, 0)).astype(np.uint8)
    probs = probabilities(model, frames, swapped)
    np.testing.assert_allclose(probs[:, [0, 2, 1]], whole, atol=2e-5)
    # The two differ, or the comparison would show nothing.
    assert np.abs(whole[-1, 1] - whole[-1, 2]).max() > 0.01


@pytest.mark.parametrize("layout", [Layout(2, 1), Layout(1, 4), Layout(2, 2)])
def test_groups_and_slots_change_nothing(model, video, whole, layout) -> None:
    frames, mask = video
    probs = Stream(model, layout=layout).push_probs(frames, {0: mask})[1]
    np.testing.assert_allclose(probs, whole, atol=2e-5)


def test_chunks_equal_the_whole(model, video, whole) -> None:
    frames, mask = video
    stream = rdejax.stream(model, chunk=3)
    parts = [stream.push_probs(frames[:4], {0: mask})[1], stream.push_probs(frames[4:])[1]]
    np.testing.assert_allclose(np.concatenate(parts), whole, atol=2e-5)


def test_save_and_restore_continue(model, video, tmp_path) -> None:
    frames, mask = video
    unbroken = rdejax.stream(model)
    unbroken.push(frames[:4], {0: mask})
    unbroken.save(tmp_path / "state")
    resumed = rdejax.stream(model).restore(tmp_path / "state")
    np.testing.assert_array_equal(
        resumed.push_probs(frames[4:])[1], unbroken.push_probs(frames[4:])[1]
    )


def test_later_object(model, video) -> None:
    """Known from the start or not, that an object comes later changes nothing before it."""
    frames, mask = video
    first, later = np.where(mask == 4, 4, 0), np.where(mask == 9, 9, 0)
    planned = probabilities(model, frames, {0: first, 3: later})
    live = rdejax.stream(model)
    for t in range(T):
        _, probs = live.push_probs(frames[t : t + 1], {0: {0: first}, 3: {0: later}}.get(t))
        channels = [0, 1, 2] if t >= 3 else [0, 1]
        np.testing.assert_allclose(probs[0], planned[t, channels], atol=2e-5)
    np.testing.assert_array_equal(planned[3, 2] > 0.5, later == 9)
    alone = probabilities(model, frames[:3], first)
    np.testing.assert_allclose(planned[:3, :2], alone, atol=2e-5)


def test_memory_holds_every_second_frame_and_the_previous_one(model, video) -> None:
    frames, mask = video
    stream = rdejax.stream(model)
    keys = []
    for t in range(6):
        stream.step(frames[t], mask if t == 0 else None)
        memory = stream.state.memory
        held = int(memory.count[0, 0] + 2) // 2  # all even frames, and the latest
        keys.append(np.asarray(memory.key[0, :, held - 1]))
    stored = np.asarray(stream.state.memory.key[0])  # [objects, frames, h, w, ck]
    for slot, t in enumerate((0, 2, 4, 5)):
        np.testing.assert_array_equal(stored[:, slot], keys[t])
    # Every object has a key of its own: the memory encoder sees the masks.
    assert np.abs(stored[0, 0] - stored[1, 0]).max() > 1e-3


def test_memory_sees_no_object_in_the_padding(model, video) -> None:
    frames, mask = video
    stream = rdejax.stream(model)
    stream.step(frames[0], mask)
    geometry = stream.geometry
    assert geometry.padding == (2, 2, 2, 2)

    @jax.jit
    def predict(state, frame):
        features = model.encode(geometry.prepare(frame, model.mean, model.std), geometry.inside())
        return features, jax.nn.softmax(model.segment(state, features)[1][0], axis=0)

    features, probs = predict(stream.state, frames[1:2])
    assert probs[1:, :2].max() > 1e-3  # so there is something to clear
    cleared = without_border(probs, geometry.inside())
    np.testing.assert_array_equal(cleared[1:, :2], 0)
    np.testing.assert_array_equal(cleared[0, :, -2:], 1)
    np.testing.assert_array_equal(cleared[:, 2:-2, 2:-2], probs[:, 2:-2, 2:-2])
    want = jax.jit(lambda *a: model.entry(*a, 1))(features, cleared)
    stream.step(frames[1])
    np.testing.assert_allclose(stream.state.memory.key[0, :, 1], want.key[0], atol=1e-4)


def test_frames_are_padded_with_black(model) -> None:
    from rdejax.propagate.geometry import Geometry

    white = np.full((1, SIDE, SIDE, 3), 255, np.uint8)
    geometry = Geometry.of((SIDE, SIDE), None)
    frames = geometry.prepare(white, model.mean, model.std)
    out = model.encode(frames, geometry.inside()).image
    mean, std = np.array(model.mean), np.array(model.std)
    np.testing.assert_allclose(out[0, 0, 0], -mean / std, rtol=1e-5)
    np.testing.assert_allclose(out[0, 2, 2], (1 - mean) / std, rtol=1e-5)


def test_others_are_clamped(model) -> None:
    """Three masks that overlap: the sum of two others is 2, and counts as 1."""
    image = jnp.zeros((1, 48, 48, 3))
    masks = jnp.ones((3, 48, 48))
    features = model.encode(image)
    key, value = model.encode_memory(features, masks, 2 * masks)
    same_key, same_value = model.encode_memory(features, masks, masks)
    np.testing.assert_array_equal(key, same_key)
    np.testing.assert_array_equal(value, same_value)
    assert jnp.abs(key - model.encode_memory(features, masks, 0 * masks)[0]).max() > 0


def test_gradients_flow_through_a_clip(video) -> None:
    """From the third frame's logits to every weight, the memory encoder's keys included."""
    frames, mask = video
    model = tiny()
    graph, weights, rest = nnx.split(model, nnx.Param, ...)
    images = (jnp.asarray(frames[:3, :32, :32], jnp.float32) / 255 - 0.45) / 0.23
    masks = jnp.stack([mask[:32, :32] == 4, mask[:32, :32] == 9]).astype(jnp.float32)

    def loss(weights) -> jax.Array:
        model = nnx.merge(graph, weights, rest)
        features = model.encode(images)
        state = model.reserve(
            model.start(one_frame(features, 0), given_probs(masks, jnp.ones(2, bool))), 2
        )
        state, logits = model.segment(state, one_frame(features, 1))
        probs = jax.nn.softmax(logits[0], axis=0)
        state = model.memorize(state, one_frame(features, 1), probs)
        _, logits = model.segment(state, one_frame(features, 2))
        return (logits[0, 1:] * masks).mean()

    gradients = jax.jit(jax.grad(loss))(weights)
    for path, gradient in nnx.to_flat_state(gradients):
        assert jnp.isfinite(gradient[...]).all(), path
        assert jnp.abs(gradient[...]).max() > 0, path


@pytest.mark.slow
@pytest.mark.parametrize("memory", ["rde", "swem"])
def test_other_rules_see_one_object_at_a_time(memory, video) -> None:
    frames, mask = video
    model = tiny(memory=memory)
    stream = rdejax.stream(model)
    labels, probs = stream.push_probs(frames[:3], {0: mask})
    assert labels.shape == (3, SIDE, SIDE) and probs.shape == (3, 3, SIDE, SIDE)
    np.testing.assert_allclose(probs.sum(1), 1, atol=1e-5)
    size = stream.state_bytes
    assert all(leaf.shape[:2] == (1, 2) for leaf in jax.tree.leaves(stream.state.memory))
    swapped = np.where(mask == 4, 9, np.where(mask == 9, 4, 0)).astype(np.uint8)
    other = probabilities(model, frames[:3], swapped)
    np.testing.assert_allclose(other[:, [0, 2, 1]], probs, atol=1e-4)
    stream.push(frames[3:])
    assert stream.state_bytes == size  # constant, unlike the bank's
