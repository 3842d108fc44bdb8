"""Objects that look alike are told apart by where they were (setting `near`)."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers_streams import passing_squares

import rdejax
from rdejax.errors import RdejaxError
from rdejax.models import create
from rdejax.models.settings import Settings
from rdejax.propagate.nearness import distances, moved_on, prefer_near
from rdejax.propagate.slots import Layout
from rdejax.propagate.stream import Stream

TINY = {"key_channels": 16, "value_channels": 32, "decoder_widths": (16, 16, 8)}
H, W, T = 32, 64, 7


def masks_of(*boxes: tuple[int, int, int, int]) -> np.ndarray:
    masks = np.zeros((len(boxes), H, W), np.float32)
    for mask, (top, left, bottom, right) in zip(masks, boxes, strict=True):
        mask[top:bottom, left:right] = 1
    return masks


def test_distances_are_those_to_the_nearest_position_of_the_object() -> None:
    masks = masks_of((0, 0, 16, 8), (24, 40, 32, 64), (5, 5, 5, 5))
    away, seen = distances(jnp.asarray(masks))
    y, x = np.mgrid[: H // 8, : W // 8]
    for found, mask in zip(away[:2], masks, strict=False):
        at = np.argwhere(mask[::8, ::8])
        nearest = np.stack([np.hypot(y - j, x - i) for j, i in at]).min(0)
        np.testing.assert_allclose(found, nearest / 2, rtol=1e-6)  # two positions to a cell
    assert seen.tolist() == [True, True, False]


def test_a_small_object_has_a_place_and_a_lost_one_may_return_anywhere_in_time() -> None:
    small, none = masks_of((2, 2, 8, 8), (5, 5, 5, 5))
    away, seen = distances(jnp.asarray(small)[None])
    assert seen.all() and away[0, 0, 0] == 0 and away[0, 0, 7] == 3.5
    for expected in (2.5, 1.5, 0.5, 0, 0):
        away = moved_on(away, jnp.asarray(none)[None])
        assert away[0, 0, 7] == expected


def test_twins_go_to_the_nearer_one_and_the_background_stays() -> None:
    away, _ = distances(jnp.asarray(masks_of((0, 0, 32, 16), (0, 48, 32, 64))))
    logits = jnp.zeros((3, H, W)).at[1].set(0.1)  # alike, the first a little more
    probs = jax.nn.softmax(logits, axis=0)
    near = prefer_near(probs, away, jnp.ones(2, bool), 1.0)
    np.testing.assert_allclose(near[0], probs[0], atol=1e-6)
    np.testing.assert_allclose(near.sum(0), 1, atol=1e-6)
    assert (probs[1] > probs[2]).all()
    assert (near[1] > near[2])[:, :28].all() and (near[1] < near[2])[:, 40:].all()


def test_clear_evidence_and_free_places_win_over_distance() -> None:
    away, _ = distances(jnp.asarray(masks_of((0, 0, 32, 8), (0, 56, 32, 64))))
    logits = jnp.stack([jnp.zeros((H, W)), jnp.full((H, W), 6.0), jnp.full((H, W), -6.0)])
    probs, valid = jax.nn.softmax(logits, axis=0), jnp.ones(2, bool)
    assert (prefer_near(probs, away, valid, 100.0).argmax(0) == 1).all()
    one = probs.at[2].set(0) / (1 - probs[2:])
    alone = prefer_near(one, away, jnp.array([True, False]), 100.0)
    np.testing.assert_allclose(alone, one, atol=1e-6)
    nothing = jnp.zeros((3, H, W)).at[0].set(1.0)
    np.testing.assert_array_equal(prefer_near(nothing, away, valid, 1.0), nothing)


@pytest.fixture(scope="module")
def model():
    return create("rde-lite", config=TINY, size=None, near=2.0, every=2)


@pytest.fixture(scope="module")
def video():
    return passing_squares(H, W, T)


def test_blocks_slots_and_pauses_change_nothing(model, video, tmp_path) -> None:
    frames, mask = video
    whole = rdejax.segment_video(model, frames, mask, return_probs=True)
    plain = rdejax.segment_video(
        create("rde-lite", config=TINY, size=None, every=2), frames, mask, return_probs=True
    )
    assert np.abs(whole - plain).max() > 1e-3
    np.testing.assert_allclose(whole[1, 0], plain[1, 0], atol=1e-5)  # background of one frame
    stream = Stream(model, layout=Layout(groups=2, slots=3))
    parts = [stream.push_probs(frames[:1], {0: mask})[1]]
    parts += [stream.push_probs(frames[t : t + 1])[1] for t in range(1, 4)]
    stream.save(tmp_path / "state")
    resumed = Stream(model, layout=Layout(groups=2, slots=3)).restore(tmp_path / "state")
    parts.append(resumed.push_probs(frames[4:])[1])
    np.testing.assert_allclose(np.concatenate(parts), whole, atol=2e-5)


def test_objects_that_appear_later_have_distances_of_their_own(model, video) -> None:
    frames, mask = video
    stream = rdejax.stream(model)
    stream.push(frames[:3], {0: np.where(mask == 4, mask, 0)})
    later = np.zeros_like(mask)
    later[17:30, 31:44] = 9
    stream.push(frames[3:4], {0: later})
    away = np.asarray(stream.state.away)
    assert away.shape == (2, 1, H // 8, W // 8)
    assert away[1, 0, 2, 4] == 0 and away[1, 0, 0, 0] > 1
    assert stream.push(frames[4:]).shape == (3, H, W)


def test_it_is_off_unless_asked_for_and_checked(video) -> None:
    stream = rdejax.stream(create("rde-lite", config=TINY, size=None))
    stream.push(video[0][:2], {0: video[1]})
    assert stream.state.away is None
    for bad in (-1.0, float("inf"), float("nan")):
        with pytest.raises(RdejaxError, match="near"):
            Settings(near=bad)
