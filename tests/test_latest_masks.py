"""A decoder that sees the latest masks (size `latest_masks`), and blocks of many objects."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from helpers_streams import passing_squares

import rdejax
from rdejax.data.batch import Clip
from rdejax.errors import RdejaxError
from rdejax.models import create
from rdejax.models.weights import load_into, save_weights, weights_of
from rdejax.propagate.slots import Layout
from rdejax.propagate.stream import Stream
from rdejax.train.config import TrainConfig
from rdejax.train.objectives.unroll import UnrollObjective
from rdejax.train.system import create_system

TINY = {"key_channels": 16, "value_channels": 32, "decoder_widths": (16, 16, 8)}
H, W, T = 32, 64, 7
PLACE = "place/kernel"


@pytest.fixture(scope="module")
def video() -> tuple[np.ndarray, np.ndarray]:
    return passing_squares(H, W, T)


@pytest.fixture(scope="module")
def model():
    """With weights at random where they start at zero."""
    made = create("rde-lite", config={**TINY, "latest_masks": True}, size=None, every=1)
    weights = weights_of(made)
    assert not weights[PLACE].any()
    weights[PLACE] = np.random.default_rng(1).normal(size=weights[PLACE].shape) / 8
    load_into(made, weights, source="the test")
    return made


@pytest.mark.slow
def test_as_it_starts_nothing_changes(model, video) -> None:
    plain = create("rde-lite", config=TINY, size=None, every=1)
    own = weights_of(plain)
    assert set(weights_of(model)) - set(own) == {PLACE, "place/bias"}
    fresh = create("rde-lite", config={**TINY, "latest_masks": True}, size=None, every=1)
    load_into(fresh, {**weights_of(fresh), **own}, source="the test")
    wanted = rdejax.segment_video(plain, *video, return_probs=True)
    np.testing.assert_allclose(
        rdejax.segment_video(fresh, *video, return_probs=True), wanted, atol=1e-6
    )
    assert np.abs(rdejax.segment_video(model, *video, return_probs=True) - wanted).max() > 1e-2


def test_latest_masks_are_those_of_the_object_and_of_all_others(model, video) -> None:
    frames, mask = video
    stream = rdejax.stream(model)
    stream.push(frames[:1], {0: mask})
    latest = np.asarray(stream.state.latest)
    assert latest.shape == (1, 2, H // 16, W // 16, 32)
    own, others = latest[0, ..., :16], latest[0, ..., 16:]
    np.testing.assert_allclose(own, others[::-1], atol=1e-6)
    # 4 x 4 points to a position; the first of them lies at rows 2 and columns 4 of object 4.
    np.testing.assert_allclose(own[0, 0, 0].reshape(4, 4)[1:3, 1:3], 1, atol=1e-3)
    np.testing.assert_allclose(own[0, :, 2:], -1, atol=1e-3)


def test_pieces_slots_and_pauses_change_nothing(model, video, tmp_path) -> None:
    frames, mask = video
    whole = rdejax.segment_video(model, frames, mask, return_probs=True)
    stream = Stream(model, layout=Layout(groups=2, slots=3))
    parts = [stream.push_probs(frames[:3], {0: mask})[1]]
    stream.save(tmp_path / "state")
    resumed = Stream(model, layout=Layout(groups=2, slots=3)).restore(tmp_path / "state")
    parts.append(resumed.push_probs(frames[3:])[1])
    np.testing.assert_allclose(np.concatenate(parts), whole, atol=2e-5)


def test_objects_that_appear_later_join(model, video) -> None:
    frames, mask = video
    stream = rdejax.stream(model)
    stream.push(frames[:3], {0: np.where(mask == 4, mask, 0)})
    later = np.zeros_like(mask)
    later[17:30, 31:44] = 9
    stream.push(frames[3:4], {0: later})
    first, second = np.asarray(stream.state.latest)[:, 0, ..., :16]
    assert second.max() > 0.9 and first.shape == second.shape
    assert stream.push(frames[4:]).shape == (3, H, W)


def test_weights_come_back_with_their_size(model, video, tmp_path) -> None:
    save_weights(tmp_path / "some.safetensors", model)
    again = rdejax.load_model(tmp_path / "some.safetensors")
    np.testing.assert_array_equal(
        rdejax.segment_video(again, *video), rdejax.segment_video(model, *video)
    )
    with pytest.raises(RdejaxError, match="latest_masks"):
        create("swem-lite", config={"latest_masks": True})


def test_training_reads_what_inference_reads(model, video) -> None:
    frames, mask = video
    first = np.stack([mask == 4, mask == 9]).astype(np.uint8)
    clip = Clip(
        frames=jnp.asarray(frames[:4]),
        labels=jnp.zeros((4, H, W), jnp.uint8),
        perturbed=jnp.asarray(first),
        valid=jnp.ones(2, bool),
    )
    run = nnx.jit(
        lambda model, clip: UnrollObjective(memory="inference")(model, clip, jax.random.key(0))
    )
    probs = jax.nn.softmax(run(model, clip).logits, axis=1)
    wanted = rdejax.segment_video(model, frames[:4], mask, return_probs=True)
    np.testing.assert_allclose(probs, wanted[1:], atol=2e-4)


def test_a_recipe_says_the_sizes() -> None:
    made = create_system(TrainConfig(sizes=("latest_masks=True", "key_channels=16")))
    assert made.config.latest_masks and made.config.key_channels == 16
    with pytest.raises(RdejaxError, match="no size 'width'"):
        create_system(TrainConfig(sizes=("width=3",)))


def test_training_goes_on_in_the_networks_it_starts_from(model, tmp_path) -> None:
    save_weights(tmp_path / "some.safetensors", model)
    start = str(tmp_path / "some.safetensors")
    assert create_system(TrainConfig(init=start)).config == model.config
    plain = create_system(TrainConfig(init=start, sizes=("latest_masks=False",)))
    assert plain.place is None and plain.config.key_channels == 16
    assert "latest_masks" not in vars(create_system(TrainConfig("swem-lite", init=start)).config)


def test_a_block_of_many_objects_is_decoded_in_parts(video) -> None:
    frames = video[0]
    mask = np.zeros((H, W), np.uint8)
    for i in range(10):
        mask[2:20, 6 * i : 6 * i + 5] = i + 1
    together = create("rde-lite", config=TINY, size=None, every=3)
    parts = rdejax.segment_video(together, frames[:4], mask, return_probs=True)
    stream = rdejax.stream(together)
    alone = [stream.push_probs(frames[t : t + 1], {} if t else {0: mask})[1] for t in range(4)]
    np.testing.assert_allclose(parts, np.concatenate(alone), atol=2e-5)
    assert jnp.isfinite(parts).all()


def test_distances_and_latest_masks_go_together(model, video) -> None:
    near = model.with_memory(model.memory)
    near.settings = model.settings.override(near=1.0)
    stream = rdejax.stream(near)
    stream.push(video[0][:3], {0: video[1]})
    assert stream.state.away.shape == (1, 2, H // 8, W // 8)
    assert stream.state.latest.shape == (1, 2, H // 16, W // 16, 32)
