"""The contract of systems and rules where it goes beyond the bundled ones, on a tiny network."""

import itertools
from pathlib import Path

import flax.struct
import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest
from flax import nnx
from helpers_streams import one_square

import rdejax
from rdejax.data.batch import Clip
from rdejax.memory.average import AverageMemory
from rdejax.memory.protocol import Masks
from rdejax.memory.registry import find_rule
from rdejax.models import create
from rdejax.models.lite import RDELite
from rdejax.models.matching import MatchingState
from rdejax.models.protocol import given_probs, merge_groups
from rdejax.propagate.scanning import scan_some
from rdejax.propagate.slots import Layout
from rdejax.propagate.stream import Stream
from rdejax.train.objectives.unroll import UnrollObjective

TINY = {"key_channels": 16, "value_channels": 32, "decoder_widths": (16, 16, 16)}
GATED = "examples/gated_memory.py"
H, W, T = 32, 48, 9
RULES = ("average", "bank", "merge", "rde", "replace", "swem", "tmrn", GATED)


@flax.struct.dataclass
class UsageState:
    """An average, and how much it was read."""

    average: object
    reads: jax.Array
    seen: jax.Array


class UsageMemory(AverageMemory):
    """Counts the frames that were read and how bright their keys were; reads more of a used one."""

    recurrent = True

    def init(self, key, value, masks):
        average = super().init(key, value, masks)
        return UsageState(average, jnp.zeros((), jnp.int32), jnp.zeros(()))

    def read(self, state, query):
        assert query.shape[0] == 1
        readout, _ = super().read(state.average, query)
        readout = readout * (1.0 + 0.1 * jnp.sin(state.seen))
        seen = 0.9 * state.seen + jnp.abs(query).mean()
        return readout, state.replace(reads=state.reads + 1, seen=seen)

    def write(self, state, key, value, masks):
        average = super().write(state.average, key, value, masks)
        return state.replace(average=average, seen=state.seen + 0.5)


@flax.struct.dataclass
class TallyState(MatchingState):
    """`MatchingState` with the weight of what each group memorised."""

    tally: jax.Array


class Tally(RDELite):
    """A system whose state has a field of its own."""

    def begin(self, entry, valid):
        state = super().begin(entry, valid)
        tally = jnp.full((valid.shape[0],), 100.0)
        return TallyState(valid=state.valid, memory=state.memory, tally=tally)

    def memorize(self, state, features, probs, groups=None):
        new = super().memorize(state, features, probs, groups)
        counted = new.replace(tally=new.tally + 1.0)
        if groups is None:
            return counted
        return merge_groups(groups, counted, new)


@pytest.fixture(scope="module")
def model():
    return create("rde-lite", config=TINY, size=None)


@pytest.fixture(scope="module")
def video():
    return one_square(H, W, T)


def test_shapes_are_checked_while_tests_run() -> None:
    """Or no other test would notice a wrong annotation."""
    with pytest.raises(jaxtyping.TypeCheckError):
        given_probs(jnp.zeros((2, H)), jnp.ones(2, bool))
    with pytest.raises(jaxtyping.TypeCheckError):
        Masks(soft=jnp.zeros((2, H, W)), hard=jnp.zeros((1, H, W)))
    masks = Masks(soft=jnp.zeros((2, H, W)), hard=jnp.zeros((2, H, W)))
    assert jax.tree.map(lambda x: x[0], masks).soft.shape == (H, W)  # rebuilt by JAX, not made


def with_rule(model, rule):
    sizes = {k: TINY[k] for k in ("key_channels", "value_channels")}
    return model.with_memory(rule(**sizes, rngs=nnx.Rngs(0)))


def run(model, frames, mask, pieces, **options):
    stream = Stream(model, **options)
    parts, start = [], 0
    for length in pieces:
        given = {0: mask} if start == 0 else None
        parts.append(stream.push_probs(frames[start : start + length], given)[1])
        start += length
    return np.concatenate(parts), stream


def test_a_rule_that_counts_use_does_not_see_how_a_video_is_cut(model, video) -> None:
    recurrent = with_rule(model, UsageMemory)
    whole, stream = run(recurrent, *video, [T])
    plain, _ = run(with_rule(model, AverageMemory), *video, [T])
    assert np.abs(whole - plain).max() > 1e-3  # what is counted shows
    assert int(stream.state.memory.reads[0]) == T - 1  # real frames after the first, no padding
    for pieces, chunk in (([1] * T, None), ([4, 5], 6), ([2, 7], 3)):
        probs, other = run(recurrent, *video, pieces, chunk=chunk)
        np.testing.assert_allclose(probs, whole, atol=2e-5)
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, atol=1e-4), other.state, stream.state
        )


def test_a_field_of_a_system_s_own_lives_on_and_is_merged_by_group(model, video) -> None:
    frames, mask = video
    tally = Tally(model.config, model.settings, rngs=nnx.Rngs(0))
    first, later = np.where(mask == 2, mask, 0), np.where(mask == 7, mask, 0)
    stream = Stream(tally, layout=Layout(groups=2, slots=1))
    stream.push(frames[:4], {0: first})
    assert isinstance(stream.state, TallyState)
    memorised = sum(tally.memorizes(t, (0,)) for t in range(1, 4))
    before = float(stream.state.tally[0])  # a number: the state is donated
    assert before == 100 + memorised
    stream.push(frames[4:5], {0: later})
    assert stream.state.tally.tolist() == [before, 100.0]
    stream.push(frames[5:])
    more = sum(tally.memorizes(t, (0, 4)) for t in range(5, T))
    assert more and stream.state.tally.tolist() == [before + more, 100.0 + more]


@pytest.mark.parametrize("at_once", [1, 2, 5])
def test_encoding_in_batches_changes_nothing(model, video, at_once) -> None:
    whole, _ = run(model, *video, [T])
    probs, _ = run(model, *video, [T], encode_batch=at_once)
    np.testing.assert_allclose(probs, whole, atol=2e-5)


def test_submitting_before_fetching_equals_pushing(model, video) -> None:
    frames, mask = video
    pushed = Stream(model)
    expected = [pushed.push(frames[:4], {0: mask}), pushed.push(frames[4:])]
    stream = Stream(model)
    pending = [stream.submit(frames[:4], {0: mask}), stream.submit(frames[4:])]
    for result, masks in zip(reversed(pending), reversed(expected), strict=True):
        np.testing.assert_array_equal(result.masks(), masks)


@pytest.mark.parametrize("used", [0, 2, 4])
def test_a_scan_that_ends_early(used: int) -> None:
    """What it leaves out is not computed: here it would divide by 0."""
    xs = np.array([1.0, 2.0, *[0.0] * 2], np.float32) if used < 4 else np.ones(4, np.float32)

    def body(carry, x):
        return carry + 1 / x, {"sum": carry, "x": 3 * x}

    carry, ys = jax.jit(lambda count: scan_some(body, jnp.float32(5), xs, count))(used)
    wanted, rows = jax.lax.scan(body, jnp.float32(5), xs[:used])
    np.testing.assert_array_equal(carry, wanted)
    for name, row in rows.items():
        np.testing.assert_array_equal(ys[name], np.pad(row, (0, 4 - used)))


@pytest.mark.parametrize("cut", [[0, 7], [0, 1, 7]])
def test_the_last_frame_is_not_memorised(model, video, cut) -> None:
    """Nothing reads what would become of the memory; the masks are the same."""
    frames, mask = video
    whole, ended = Stream(model), Stream(model)
    for begin, end in itertools.pairwise(cut):
        masks = {0: mask} if begin == 0 else None
        expected = whole.push(frames[begin:end], masks)
        found = ended.submit(frames[begin:end], masks, last=end == 7)
        np.testing.assert_array_equal(found.masks(), expected)
    assert model.memorizes(6, [0])
    assert (whole.writes, ended.writes) == (2, 1)


def test_a_refused_push_leaves_the_stream_as_it_was(model, video) -> None:
    frames, mask = video
    stream, untouched = Stream(model, max_objects=2), Stream(model, max_objects=2)
    for each in (stream, untouched):
        each.push(frames[:3], {0: mask})
    state, third = stream.state, np.full((H, W), 9, np.uint8)
    for wrong in (
        (frames[3:5], {0: third}),  # more than max_objects
        (frames[3:5], {1: third, 5: mask}),  # no such frame
        (frames[3:5, :-1], None),
        (frames[3:5].astype(np.float32), None),
    ):
        with pytest.raises(rdejax.RdejaxError):
            stream.push(*wrong)
        assert (stream.time, stream.objects, stream.starts) == (3, [2, 7], [0])
        assert stream.state is state and stream.layout == untouched.layout
    np.testing.assert_array_equal(stream.push(frames[3:]), untouched.push(frames[3:]))


def clip(frames: int) -> Clip:
    rng = np.random.default_rng(1)
    images = rng.integers(0, 255, (frames, H, W, 3)).astype(np.uint8)
    labels = np.zeros((frames, H, W), np.uint8)
    labels[:, 8:24, 8:24], labels[:, 2:14, 30:44] = 1, 2
    perturbed = np.stack([labels[0] == k for k in (1, 2)]).astype(np.uint8)
    return jax.tree.map(jnp.asarray, Clip(images, labels, perturbed, np.ones(2, bool)))


def loss_and_gradients(model, frames: int, remat: bool):
    graph, params, rest = nnx.split(model, nnx.Param, ...)

    def loss(params):
        whole = nnx.merge(graph, params, rest)
        out = UnrollObjective()(whole, clip(frames), jax.random.key(0), remat=remat)
        truth = jax.nn.one_hot(clip(frames).labels[1:], 3, axis=1)
        return -(jax.nn.log_softmax(out.logits, axis=1) * truth).mean()

    return jax.jit(jax.value_and_grad(loss))(params)


@pytest.mark.slow
def test_unroll_with_remat_equals_without(model) -> None:
    plain = loss_and_gradients(model, 3, remat=False)
    again = loss_and_gradients(model, 3, remat=True)
    np.testing.assert_allclose(plain[0], again[0], rtol=1e-5)
    scale = max(float(jnp.abs(g).max()) for g in jax.tree.leaves(plain[1]))
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=1e-4 * scale), plain[1], again[1]
    )


@pytest.mark.parametrize("name", RULES)
def test_unroll_gives_every_weight_of_a_rule_a_gradient(model, name) -> None:
    file = str(Path(__file__).parents[1] / name)
    trained = with_rule(model, find_rule(file if name == GATED else name))
    weights = nnx.state(trained.memory, nnx.Param)
    if not jax.tree.leaves(weights):
        pytest.skip(f"{name} learns nothing")
    # Off the start, where a weight that is zero hides those before it (the SAM's non-local block).
    rng = np.random.default_rng(0)
    nnx.update(
        trained.memory,
        jax.tree.map(lambda x: x + jnp.asarray(0.05 * rng.normal(size=x.shape), x.dtype), weights),
    )
    gradients = nnx.to_pure_dict(loss_and_gradients(trained, 4, remat=False)[1])["memory"]
    still = [
        jax.tree_util.keystr(path)
        for path, g in jax.tree_util.tree_leaves_with_path(gradients)
        if not float(jnp.abs(g).max()) > 0
    ]
    assert not still, still
