"""Correcting, forgetting and beginning anew in the middle of a video, on a tiny network."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from helpers_streams import one_square

import rdejax
from rdejax.memory.protocol import Masks
from rdejax.memory.registry import find_rule
from rdejax.models import create
from rdejax.propagate.slots import Layout
from rdejax.propagate.stream import Stream

TINY = {"key_channels": 16, "value_channels": 32, "decoder_widths": (16, 16, 16)}
XMEM = {**TINY, "key_depth": 18, "hidden_dim": 8}
H, W, T = 32, 48, 7
RULES = ("average", "bank", "merge", "rde", "replace", "swem", "examples/gated_memory.py")


@pytest.fixture(scope="module")
def model():
    return create("rde-lite", config=TINY, size=None)


@pytest.fixture(scope="module")
def video():
    return one_square(H, W, T)


def with_rule(model, name):
    file = Path(__file__).parents[1] / name
    rule = find_rule(str(file) if file.suffix == ".py" else name)
    sizes = {k: TINY[k] for k in ("key_channels", "value_channels")}
    return model.with_memory(rule(**sizes, rngs=nnx.Rngs(0)))


def leaves(tree):
    return [np.asarray(leaf) for leaf in jax.tree.leaves(tree)]


def begun(model, video, frames=4, **options):
    """A stream that has seen some frames, whose latest is not one that is memorised."""
    stream = Stream(model, correctable=True, **options)
    masks = stream.push(video[0][:frames], {0: video[1]})
    return stream, masks[-1]


def elsewhere(number):
    """A mask in which this object is where nothing has predicted it."""
    mask = np.zeros((H, W), np.uint8)
    mask[2:12, 36:46] = number
    return mask


def test_a_correction_equal_to_the_prediction_changes_nothing_but_the_memory(model, video) -> None:
    stream, predicted = begun(model, video, 5)
    state, time = stream.state, stream.time
    before = [np.array(leaf) for leaf in leaves(state.memory)]
    corrected = stream.correct(predicted)
    np.testing.assert_array_equal(corrected, predicted)
    assert (stream.time, stream.objects, stream.starts) == (time, [2, 7], [0])
    np.testing.assert_array_equal(stream.state.valid, state.valid)
    after = leaves(stream.state.memory)
    assert [x.shape for x in after] == [x.shape for x in before]
    assert any(not np.array_equal(a, b) for a, b in zip(after, before, strict=True))


@pytest.mark.parametrize("name", RULES)
def test_a_correction_after_the_frame_equals_one_with_it(model, video, name) -> None:
    frames, mask = video
    told = elsewhere(2)
    late, predicted = begun(with_rule(model, name), video)
    assert not np.array_equal(predicted == 2, told == 2)
    corrected = late.correct(told)
    early = Stream(late.model, use_all_masks=True)
    np.testing.assert_array_equal(early.push(frames[:4], {0: mask, 3: told})[-1], corrected)
    for a, b in zip(leaves(late.state), leaves(early.state), strict=True):
        np.testing.assert_array_equal(a, b)
    # The mask is the frame's result; others stay as predicted where it does not cover them.
    np.testing.assert_array_equal(corrected == 2, told == 2)
    others = (predicted != 2) & (told != 2)
    np.testing.assert_array_equal(corrected[others], predicted[others])
    plain = Stream(late.model)
    plain.push(frames[:4], {0: mask})
    later, unmended = late.push_probs(frames[4:])[1], plain.push_probs(frames[4:])[1]
    assert np.isfinite(later).all() and np.abs(later - unmended).max() > 1e-4


def test_objects_of_other_groups_are_exactly_as_before(model, video) -> None:
    """Where no frame is memorised, only the group of a corrected object changes."""
    frames, mask = video
    two = Layout(groups=2, slots=1)
    stream, _ = begun(model, video, 5, layout=two)
    plain = Stream(model, layout=two)
    plain.push(frames[:4], {0: mask})
    assert not model.memorizes(4, (0,))  # so this is the memory after it, too
    stream.correct(elsewhere(2))
    for a, b in zip(leaves(stream.state), leaves(plain.state), strict=True):
        np.testing.assert_array_equal(a[1], b[1])
    assert any(
        not np.array_equal(a[0], b[0])
        for a, b in zip(leaves(stream.state), leaves(plain.state), strict=True)
    )


def test_corrections_of_one_frame_add_up(model, video) -> None:
    at_once, _ = begun(model, video)
    both = elsewhere(2)
    both[20:30, 2:10] = 7
    expected = at_once.correct(both)
    one_by_one, _ = begun(model, video)
    one_by_one.correct(np.full((H, W), 2, np.uint8))  # taken back by the next one
    one_by_one.correct(elsewhere(2))
    result = one_by_one.correct(np.where(both == 7, both, 0))
    np.testing.assert_array_equal(result, expected)
    for a, b in zip(leaves(one_by_one.state), leaves(at_once.state), strict=True):
        np.testing.assert_array_equal(a, b)


def test_an_object_can_be_told_to_be_out_of_the_frame_and_another_to_begin(model, video) -> None:
    stream, predicted = begun(model, video)
    result = stream.correct(np.zeros((H, W), np.uint8), [2])
    assert 2 not in result and (result[predicted == 7] == 7).all()
    result = stream.correct(elsewhere(9))
    assert stream.objects == [2, 7, 9] and 2 not in result
    np.testing.assert_array_equal(result == 9, elsewhere(9) == 9)
    assert stream.push(video[0][4:]).shape == (T - 4, H, W)


def test_the_first_mask_itself_can_be_corrected(model, video) -> None:
    frames, mask = video
    stream = Stream(model, correctable=True)
    stream.step(frames[0], elsewhere(2))
    np.testing.assert_array_equal(stream.correct(mask), mask)
    expected = Stream(model)
    expected.step(frames[0], mask)
    np.testing.assert_array_equal(stream.push(frames[1:]), expected.push(frames[1:]))


def first_entries(state, name):
    memory = state.memory
    return {
        "rde": lambda: (memory.key[0, 0 if memory.key.shape[1] == 1 else -1],),
        "bank": lambda: (memory.key[0, 0],),
        "swem": lambda: (memory.first.kappa,),
        "average": lambda: (memory.key[0, 1],),
    }[name]()


@pytest.mark.parametrize(
    ("name", "settings"),
    [("rde", {}), ("bank", {"max_frames": 3}), ("swem", {}), ("average", {"first": True})],
)
def test_permanent_takes_the_first_frame_s_place(video, name, settings) -> None:
    model = create("rde-lite", config=TINY, size=None, memory=name, **settings)
    first = {}
    for permanent in (None, False, True):
        stream, _ = begun(model, video)
        if permanent is not None:
            stream.correct(elsewhere(2), permanent=permanent)
        first[permanent] = [np.asarray(x) for x in first_entries(stream.state, name)]
        assert np.isfinite(stream.push_probs(video[0][4:])[1]).all()
    for before, plain, kept in zip(first[None], first[False], first[True], strict=True):
        np.testing.assert_array_equal(plain, before)
        assert np.abs(kept - before).max() > 1e-4


@pytest.mark.parametrize("name", ["average", "bank", "merge", "rde", "replace", "swem", "xmem"])
def test_a_kept_frame_leaves_a_state_of_the_same_shapes(name) -> None:
    rng = np.random.default_rng(0)
    options = {"xmem": {"num_prototypes": 4}, "average": {"first": True}, "bank": {"max_frames": 2}}
    sizes = {"key_channels": 8, "value_channels": 16, "rngs": nnx.Rngs(0)}
    rule = find_rule(name)(**sizes, **options.get(name, {}))
    key, value = (jnp.asarray(rng.normal(size=s), jnp.float32) for s in ((2, 3, 8), (2, 2, 3, 16)))
    soft = jnp.asarray(rng.uniform(size=(2, 32, 48)), jnp.float32)
    masks = Masks(soft=soft, hard=(soft > 0.5).astype(jnp.float32))
    state = rule.init(key, value, masks)
    if (capacity := rule.capacity_for(1)) is not None:
        state = rule.reserve(state, capacity)
    kept = rule.keep(state, key + 1, value - 1, masks)
    shapes = [(x.shape, x.dtype) for x in jax.tree.leaves(state)]
    assert [(x.shape, x.dtype) for x in jax.tree.leaves(kept)] == shapes
    assert all(np.isfinite(x).all() for x in leaves(kept))


@pytest.mark.slow
def test_a_recurrent_system_is_corrected_from_before_the_frame(video) -> None:
    """XMem counts use and updates its sensory memory in every frame: none may count twice."""
    frames, mask = video
    model = create("xmem", config=XMEM, size=None, num_prototypes=2, every=3)
    late, _ = begun(model, video)
    corrected = late.correct(elsewhere(2), permanent=True)
    np.testing.assert_array_equal(corrected == 2, elsewhere(2) == 2)
    assert int(late.state.memory.life[0, 0]) == 3
    assert np.isfinite(late.push_probs(frames[4:])[1]).all()


def test_forgotten_objects_are_gone_and_the_others_as_if_alone_in_the_slots(model, video) -> None:
    frames, mask = video
    stream = Stream(model, layout=Layout(groups=2, slots=1))
    stream.push(frames[:4], {0: mask})
    with pytest.raises(rdejax.RdejaxError, match="no object 5"):
        stream.forget([2, 5])
    stream.forget([2])
    assert stream.objects == [7] and 2 not in stream.push(frames[4:5])
    later = stream.step(frames[5], elsewhere(2))
    assert stream.objects == [2, 7] and stream.layout.groups == 2  # in the place that was free
    np.testing.assert_array_equal(later == 2, elsewhere(2) == 2)
    stream.forget([2, 7])
    assert stream.objects == [] and not stream.step(frames[6]).any()


def test_reset_begins_another_video(model, video) -> None:
    frames, mask = video
    stream = Stream(model)
    expected = stream.push(frames, {0: mask})
    stream.reset()
    assert (stream.time, stream.objects, stream.state) == (0, [], None)
    other = np.pad(frames, ((0, 0), (0, 16), (0, 0), (0, 0)))
    stream.push(other[:1], {0: np.pad(mask, ((0, 16), (0, 0)))})  # of another size
    stream.reset()
    np.testing.assert_array_equal(stream.push(frames, {0: mask}), expected)


def test_what_cannot_be_corrected_is_said(model, video) -> None:
    frames, mask = video
    plain = Stream(model)
    plain.push(frames[:2], {0: mask})
    with pytest.raises(rdejax.RdejaxError, match="correctable=True"):
        plain.correct(mask)
    stream = Stream(model, correctable=True, max_objects=2)
    with pytest.raises(rdejax.RdejaxError, match="no frame has been pushed"):
        stream.correct(mask)
    stream.push(frames[:2], {0: mask})
    state = stream.state
    for wrong, ids, says in (
        (mask[:-1], None, "48x31"),
        (np.zeros_like(mask), None, "every pixel is 0"),
        (mask, [5], "object 5 is neither"),
        (elsewhere(9), None, "max_objects"),
    ):
        with pytest.raises(rdejax.RdejaxError, match=says):
            stream.correct(wrong, ids)
        assert stream.state is state and stream.objects == [2, 7]


def test_a_later_mask_that_is_not_used_is_told_once(model, video, recwarn) -> None:
    frames, mask = video
    stream = Stream(model)
    stream.push(frames[:2], {0: mask, 1: mask})
    stream.push(frames[2:4], {1: mask})
    said = [str(each.message) for each in recwarn if "use_all_masks" in str(each.message)]
    assert len(said) == 1 and "mask of frame 1 is not used for object 2" in said[0]
