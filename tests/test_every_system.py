"""The contract, for every registered system and every registered rule, at tiny sizes.

A system that is registered runs through all of it; it only needs sizes in helpers_systems. Two
layouts are compiled for each: two slots, and two groups of two.
"""

import functools
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers_systems import tiny, video

from rdejax.memory.registry import names as rule_names
from rdejax.models.protocol import given_probs
from rdejax.models.registry import names as system_names
from rdejax.propagate.programs import segment_blocks
from rdejax.propagate.slots import Layout
from rdejax.propagate.stream import Stream

GATED = str(Path(__file__).parents[1] / "examples" / "gated_memory.py")
RULES = {
    "swem": {"bases": 4, "top_l": 2},
    "xmem": {
        "min_mid_term_frames": 2,
        "max_mid_term_frames": 4,
        "num_prototypes": 5,
        "max_long_term_elements": 12,
    },
}
# The rules beside those that systems have by default, on one body.
CASES = [
    *system_names(),
    *(f"rde-lite, {rule}" for rule in (*rule_names(), GATED) if rule not in ("rde",)),
]
# Whole videos compile what they run; these go beyond what other files run often.
VIDEOS = [
    case if case in ("stm", "xmem-lite") else pytest.param(case, marks=pytest.mark.slow)
    for case in CASES
]
T, CHUNK = 9, 2
ONE, TWO = Layout(groups=1, slots=2), Layout(groups=2, slots=2)


@functools.cache
def system(case: str):
    name, _, rule = case.partition(", ")
    return tiny(name, memory=rule, **RULES.get(rule, {})) if rule else tiny(name)


def run(model, frames, masks, layout, pieces=(T,), stream=None):
    """Probabilities of a video that is pushed in pieces, and its stream."""
    stream = stream or Stream(model, layout=layout, chunk=CHUNK)
    parts, start = [], stream.time
    for length in pieces:
        end = start + length
        given = {t - start: mask for t, mask in masks.items() if start <= t < end}
        parts.append(stream.push_probs(frames[start:end], given)[1])
        start = end
    return np.concatenate([_widened(p, parts[-1].shape[1]) for p in parts]), stream


def _widened(probs, channels):
    """With zeros for objects that come later."""
    return np.pad(probs, ((0, 0), (0, channels - probs.shape[1]), (0, 0), (0, 0)))


def _started(model, mask):
    images = jnp.zeros((1, *mask.shape, 3))
    masks = jnp.asarray(np.stack([mask == 4, mask == 9]), jnp.float32)
    probs = given_probs(masks, jnp.ones(2, bool))
    return model.encode(images), probs


@pytest.mark.parametrize("case", CASES)
def test_states_do_not_grow(case) -> None:
    """What a memorised frame leaves has the shapes that it found: by induction, for ever."""
    model, mask = system(case), video(1)[1]

    def whole(model, frames_before: int):
        features, probs = _started(model, mask)
        state = model.reserve(model.start(features, probs), frames_before)
        state, _ = model.segment(state, features)
        return state, model.memorize(state, features, probs)

    shapes = lambda tree: jax.tree.map(lambda x: (x.shape, x.dtype), tree)  # noqa: E731
    ten, after = jax.eval_shape(functools.partial(whole, frames_before=10), model)
    assert shapes(ten) == shapes(after)
    many, after = jax.eval_shape(functools.partial(whole, frames_before=10_000), model)
    assert shapes(many) == shapes(after)
    grows = model.memory.capacity_for(10) is not None
    assert (shapes(ten) == shapes(many)) != grows
    assert not grows or model.settings.memory in ("bank", "tmrn")


@pytest.mark.parametrize("case", VIDEOS)
def test_what_must_not_change_a_result(case, tmp_path) -> None:
    model, (frames, mask) = system(case), video(T)
    whole, stream = run(model, frames, {0: mask}, ONE)
    close = functools.partial(np.testing.assert_allclose, atol=2e-4)
    assert np.isfinite(whole).all() and whole[1:].std() > 0.01
    # How it is cut, with a stream that is saved and restored on the way; nothing is compiled.
    compiled = segment_blocks._cache_size()
    first, before = run(model, frames, {0: mask}, ONE, pieces=(1, 2, 2))
    before.save(tmp_path / "state")
    resumed = Stream(model, chunk=CHUNK).restore(tmp_path / "state")
    rest, _ = run(model, frames, {}, ONE, pieces=(2, 2), stream=resumed)
    close(np.concatenate([first, rest]), whole)
    unbroken, _ = run(model, frames, {}, ONE, pieces=(2, 2), stream=before)
    np.testing.assert_array_equal(rest, unbroken)
    # The order of objects.
    swapped = np.where(mask == 4, 9, np.where(mask == 9, 4, 0)).astype(np.uint8)
    close(run(model, frames, {0: swapped}, ONE)[0][:, [0, 2, 1]], whole)
    assert segment_blocks._cache_size() <= compiled + (model.memory.capacity_for(1) is not None)
    # Slots and groups that hold nothing.
    close(run(model, frames, {0: mask}, TWO)[0], whole)


@pytest.mark.parametrize("case", VIDEOS)
def test_a_late_object_changes_nothing_before_it(case) -> None:
    """And is there from then on; the state is as large as it was."""
    model, (frames, mask) = system(case), video(T)
    early, late = np.where(mask == 4, mask, 0), np.where(mask == 9, mask, 0)
    both, stream = run(model, frames, {0: early, 5: late}, TWO, pieces=(5, 1, 3))
    alone, single = run(model, frames, {0: early}, TWO)
    np.testing.assert_allclose(both[:5, :2], alone[:5], atol=2e-4)
    assert stream.objects == [4, 9] and both[5, 2][late > 0].min() > 0.5
    assert np.isfinite(both).all() and np.abs(both[6:, 2]).max() > 0
    np.testing.assert_allclose(both.sum(1), 1, atol=1e-4)
    assert stream.state_bytes == single.state_bytes
