"""The contract every memory rule keeps, and what is particular to each."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from rdejax.errors import RdejaxError
from rdejax.memory.affinity import (
    largest,
    read_out,
    similarity,
    softmax_weights,
    top_k_places,
    top_k_weights,
)
from rdejax.memory.protocol import Masks
from rdejax.memory.rde import parse_strategy
from rdejax.memory.registry import find_rule, make_rule, rule_settings

H, W, CK, CV, OBJECTS = 3, 4, 8, 12, 2
RULES = (
    ("bank", {}),
    ("bank", {"top_k": None, "max_frames": 3}),
    ("bank", {"top_k": None, "keep_every": 3, "similarity": "dot"}),
    ("rde", {}),
    ("rde", {"strategy": "F+2L", "top_k": None}),
    ("rde", {"strategy": "RDE", "repeat": 1, "aspp": False}),
    ("swem", {"bases": 6, "top_l": 4}),
    ("swem", {"bases": 5, "top_l": 5, "iterations": 1, "tau": 0.5}),
    ("examples/ema_memory.py", {}),
    ("examples/gated_memory.py", {}),
    ("examples/reservoir_memory.py", {"top_k": None, "places": 2}),
    ("average", {}),
    ("average", {"first": True, "top_k": None}),
    ("merge", {}),
    ("merge", {"budget_frames": 1, "threshold": 0.4, "first": True, "top_k": None}),
    ("replace", {}),
    ("replace", {"trigger": 0.6, "first": True, "top_k": None}),
    ("tmrn", {}),
    (
        "tmrn",
        {
            "agents": "orthogonal",
            "profile": "softmax",
            "similarity": "dot",
            "per_frame_top_k": 3,
            "keep_every": 2,
        },
    ),
    ("tmrn", {"agents": "learned", "refine": True, "age_embedding": True, "max_frames": 3}),
    ("template", {"slots": 3}),
    ("xmem", {"enable_long_term": False}),
    (
        "xmem",
        {
            "min_mid_term_frames": 2,
            "max_mid_term_frames": 3,
            "num_prototypes": 4,
            "max_long_term_elements": 6,
            "top_k": None,
        },
    ),
)


# EM amplifies the rounding of a compiled loop; a base that few positions use is a quotient of small
# numbers.
TOLERANCE = {"swem": 1e-3}


def rule(name: str, **settings):
    path = str(Path(__file__).parents[1] / name)
    name = path if name.endswith(".py") else name
    return make_rule(name, key_channels=CK, value_channels=CV, rngs=nnx.Rngs(0), **settings)


def entry(seed: int, objects: int = OBJECTS):
    rng = np.random.default_rng(seed)
    key = jnp.asarray(rng.normal(size=(H, W, CK)), jnp.float32)
    value = jnp.asarray(rng.normal(size=(objects, H, W, CV)), jnp.float32)
    soft = jnp.asarray(rng.uniform(size=(objects, 16 * H, 16 * W)), jnp.float32)
    return key, value, Masks(soft=soft, hard=(soft > 0.5).astype(jnp.float32))


def numbers(tree):
    """The tree with the numbers of its PRNG keys."""
    return jax.tree.map(
        lambda x: jax.random.key_data(x) if jnp.issubdtype(x.dtype, jax.dtypes.prng_key) else x,
        tree,
    )


def query(seed: int = 99, frames: int = 3):
    rng = np.random.default_rng(seed)
    return jnp.asarray(rng.normal(size=(frames, H, W, CK)), jnp.float32)


def started(memory, writes: int = 5):
    state = memory.init(*entry(0))
    capacity = memory.capacity_for(writes)
    return state if capacity is None else memory.reserve(state, capacity)


@pytest.mark.parametrize(("name", "settings"), RULES)
class TestContract:
    def test_scan_equals_loop(self, name, settings) -> None:
        memory = rule(name, **settings)
        entries = [entry(i) for i in range(1, 5)]
        state = started(memory)
        stacked = jax.tree.map(lambda *x: jnp.stack(x), *entries)
        scanned, _ = jax.lax.scan(lambda s, e: (memory.write(s, *e), None), state, stacked)
        write = jax.jit(memory.write)
        for e in entries:
            state = write(state, *e)
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, atol=TOLERANCE.get(name, 1e-5)),
            numbers(scanned),
            numbers(state),
        )

    def test_write_keeps_shapes(self, name, settings) -> None:
        memory = rule(name, **settings)
        state = started(memory)
        new = memory.write(state, *entry(1))
        shapes = [jax.tree.map(lambda x: (x.shape, x.dtype), s) for s in (state, new)]
        assert shapes[0] == shapes[1]

    def test_reads_frames_independently(self, name, settings) -> None:
        memory = rule(name, **settings)
        state = memory.write(started(memory), *entry(1))
        q = query()
        together, same = memory.read(state, q)
        assert together.shape[:4] == (3, OBJECTS, H, W)
        alone = jnp.concatenate([memory.read(state, q[i : i + 1])[0] for i in range(3)])
        np.testing.assert_allclose(together, alone, atol=1e-5)
        assert jax.tree.structure(same) == jax.tree.structure(state)

    def test_objects_are_independent(self, name, settings) -> None:
        memory = rule(name, **settings)

        def run(pick):
            def chosen(seed):
                key, value, masks = entry(seed)
                return key, value[pick], jax.tree.map(lambda x: x[pick], masks)

            state = memory.init(*chosen(0))
            if memory.capacity_for(1) is not None:
                state = memory.reserve(state, memory.capacity_for(1))
            state = memory.write(state, *chosen(1))
            return memory.read(state, query())[0]

        both = run(np.array([0, 1]))
        np.testing.assert_allclose(run(np.array([1, 0]))[:, ::-1], both, atol=1e-5)
        np.testing.assert_allclose(run(np.array([1])), both[:, 1:], atol=1e-5)

    def test_gradients_reach_the_past(self, name, settings) -> None:
        memory = rule(name, **settings)

        def loss(value):
            key, _, masks = entry(0)
            state = memory.init(key, value, masks)
            if memory.capacity_for(1) is not None:
                state = memory.reserve(state, memory.capacity_for(1))
            state = memory.write(state, *entry(1))
            return (memory.read(state, query())[0] ** 2).sum()

        grad = jax.grad(loss)(entry(0)[1])
        assert jnp.isfinite(grad).all()
        # A rule that keeps the latest frame only has rightly forgotten the first.
        assert (jnp.abs(grad).max() > 0) or settings.get("strategy") == "L"

    def test_jitted_writes_compile_once(self, name, settings) -> None:
        memory = rule(name, **settings)
        state = started(memory)
        write = jax.jit(memory.write)
        for i in range(1, 4):
            state = write(state, *entry(i))
        assert write._cache_size() == 1


def test_bank_reads_what_was_written() -> None:
    memory = rule("bank", top_k=None)
    state = started(memory)
    for i in (1, 2):
        state = memory.write(state, *entry(i))
    keys = jnp.concatenate([entry(i)[0].reshape(-1, CK) for i in range(3)])
    values = jnp.concatenate([entry(i)[1].reshape(OBJECTS, -1, CV) for i in range(3)], axis=1)
    q = query(frames=1)
    affinity = similarity("l2", q[0].reshape(-1, CK), keys)
    expected = jnp.einsum("qm,omc->oqc", jax.nn.softmax(affinity), values)
    got = memory.read(state, q)[0][0].reshape(OBJECTS, H * W, CV)
    np.testing.assert_allclose(got, expected, atol=1e-5)


def test_bank_capacity_comes_in_buckets() -> None:
    memory = rule("bank")
    assert [memory.capacity_for(n) for n in (0, 15, 16, 31, 32, 100)] == [16, 16, 32, 32, 64, 128]
    assert all(memory.capacity_for(n) >= n + 1 for n in range(300))


def bank_of(numbers, similarity_name: str = "l2"):
    """What a bank of just these entries reads, by hand."""
    keys = jnp.concatenate([entry(i)[0].reshape(-1, CK) for i in numbers])
    values = jnp.concatenate([entry(i)[1].reshape(OBJECTS, -1, CV) for i in numbers], axis=1)
    q = query(frames=1)
    affinity = similarity(similarity_name, q[0].reshape(-1, CK), keys)
    out = jnp.einsum("qm,omc->oqc", jax.nn.softmax(affinity), values)
    return out.reshape(1, OBJECTS, H, W, CV)


@pytest.mark.parametrize("keep_every", [1, 2, 3, 5, 20])
def test_bank_keeps_each_nth_frame_and_the_latest(keep_every: int) -> None:
    memory = rule("bank", top_k=None, keep_every=keep_every, similarity="dot")
    state = memory.reserve(memory.init(*entry(0)), memory.capacity_for(11))
    for i in range(12):
        if i:
            state = memory.write(state, *entry(i))
        held = sorted({*range(0, i + 1, keep_every), i})
        assert memory.held(state.count) == len(held) <= memory.capacity(state)
        got = memory.read(state, query(frames=1))[0]
        np.testing.assert_allclose(got, bank_of(held, "dot"), atol=1e-5, err_msg=f"frame {i}")


@pytest.mark.parametrize(("keep_every", "held"), [(1, (0, 5, 6)), (2, (0, 4, 6)), (3, (0, 3, 6))])
def test_bounded_bank_keeps_the_first_and_the_newest(keep_every: int, held) -> None:
    memory = rule("bank", top_k=None, keep_every=keep_every, max_frames=3)
    assert memory.capacity_for(100) == 3
    state = started(memory)
    for i in range(1, 7):
        state = memory.write(state, *entry(i))
    assert memory.capacity(state) == 3
    np.testing.assert_allclose(memory.read(state, query(frames=1))[0], bank_of(held), atol=1e-5)


def test_frame_that_does_not_stay_takes_the_oldest_s_place_in_a_full_bank() -> None:
    """The bound holds for it, too: of 0, 2, 4 and the latest, 5, frame 2 has to go."""
    memory = rule("bank", top_k=None, keep_every=2, max_frames=3)
    state = started(memory)
    for i in range(1, 6):
        state = memory.write(state, *entry(i))
    np.testing.assert_allclose(
        memory.read(state, query(frames=1))[0], bank_of((0, 4, 5)), atol=1e-5
    )


def test_bank_capacity_counts_what_stays() -> None:
    memory = rule("bank", keep_every=5)
    assert [memory.capacity_for(n) for n in (0, 5, 75, 76, 155, 156)] == [16, 16, 16, 32, 32, 64]
    assert all(memory.capacity_for(n) >= memory.held(n + 1) for n in range(300))
    with pytest.raises(RdejaxError, match="keep_every=0: give 1"):
        rule("bank", keep_every=0)


def test_l2_is_the_squared_distance_up_to_the_query() -> None:
    q, k = query()[0].reshape(-1, CK), entry(0)[0].reshape(-1, CK)
    distance = ((q[:, None] - k[None]) ** 2).sum(-1)
    expected = -(distance - (q**2).sum(-1, keepdims=True)) / np.sqrt(CK)
    np.testing.assert_allclose(similarity("l2", q, k), expected, atol=1e-4)


def test_cosine_and_dot() -> None:
    q, k = query()[0].reshape(-1, CK), entry(0)[0].reshape(-1, CK)
    np.testing.assert_allclose(similarity("dot", q, k), q @ k.T / np.sqrt(CK), atol=1e-5)
    np.testing.assert_allclose(similarity("cosine", q, q).diagonal(), 20.0, rtol=1e-4)
    with pytest.raises(RdejaxError, match="choose one of"):
        similarity("manhattan", q, k)


@pytest.mark.parametrize("top_k", [1, 3, 4, 7, 20, 100])
def test_top_k_counts_copies_as_concatenation_does(top_k: int) -> None:
    """The reference's way, literally: repeat the position, keep the k largest entries."""
    rng = np.random.default_rng(top_k)
    affinity = jnp.asarray(rng.normal(size=(5, 9)), jnp.float32)
    copies = jnp.asarray([1, 2, 0, 1, 3, 1, 2, 0, 1])
    weights = top_k_weights(affinity, copies, top_k)
    repeated = np.repeat(np.arange(9), copies)
    for row in range(5):
        entries = np.asarray(affinity)[row, repeated]
        kept = np.sort(np.argsort(-entries, kind="stable")[: min(top_k, 9)])
        exp = np.exp(entries[kept])
        expected = np.zeros(9)
        np.add.at(expected, repeated[kept], exp / exp.sum())
        np.testing.assert_allclose(weights[row], expected, atol=1e-6)


def test_softmax_multiplicity_is_concatenation() -> None:
    affinity = jnp.asarray(np.random.default_rng(0).normal(size=(5, 4)), jnp.float32)
    weights = softmax_weights(affinity, jnp.asarray([2, 1, 0, 1]))
    literal = jax.nn.softmax(affinity[:, np.array([0, 0, 1, 3])], axis=-1)
    np.testing.assert_allclose(weights[:, 0], literal[:, 0] + literal[:, 1], atol=1e-6)
    np.testing.assert_allclose(weights[:, 2], 0)


def test_large_affinities_do_not_overflow() -> None:
    q, k = 40 * query(frames=1), 40 * entry(0)[0].reshape(-1, CK)
    value = entry(0)[1].reshape(OBJECTS, -1, CV)
    for top_k in (None, 5):
        out = read_out(q, k, value, jnp.ones(H * W, jnp.int32), top_k=top_k)
        assert jnp.isfinite(out).all()


def test_strategies() -> None:
    assert parse_strategy("2F+L+RDE") == {"F": 2, "L": 1, "RDE": 1}
    assert parse_strategy("rde & l & 2f") == {"F": 2, "L": 1, "RDE": 1}
    for wrong in ("", "F+F", "X", "0F", "F,L", "2F+-L"):
        with pytest.raises(RdejaxError, match="not understood"):
            parse_strategy(wrong)


def test_rde_entries_follow_the_strategy() -> None:
    memory = rule("rde", strategy="F+L+RDE")
    state = memory.init(*entry(0))
    state = memory.write(memory.write(state, *entry(1)), *entry(2))
    by_name = dict(zip(memory.entries, state.key, strict=True))
    np.testing.assert_array_equal(by_name["F"], entry(0)[0])
    np.testing.assert_array_equal(by_name["L"], entry(2)[0])
    once = memory.compress_key(entry(0)[0][None], entry(1)[0][None])
    twice = memory.compress_key(once, entry(2)[0][None])[0]
    np.testing.assert_allclose(by_name["RDE"], twice, atol=1e-5)


def test_registry(tmp_path) -> None:
    assert rule_settings("rde")["strategy"] == "2F+L+RDE"
    with pytest.raises(RdejaxError, match="unknown"):
        find_rule("no such")
    with pytest.raises(RdejaxError, match="no such file"):
        find_rule(str(tmp_path / "x.py"))
    (tmp_path / "empty.py").write_text("")
    with pytest.raises(RdejaxError, match="registers 0"):
        find_rule(str(tmp_path / "empty.py"))
    with pytest.raises(RdejaxError, match="has no setting"):
        rule("bank", strategy="F")


@pytest.mark.parametrize(("m", "k"), [(1200, 5), (1201, 3), (1600, 4), (30, 30)])
def test_largest_is_top_k_in_every_respect(m, k):
    """Scores repeat, so that the order among equals counts."""
    scores = jnp.asarray(np.random.default_rng(m).integers(0, 50, (6, m)), jnp.float32)
    for got, want in zip(largest(scores, k), jax.lax.top_k(scores, k), strict=True):
        np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize("top_k", [3, 70])
def test_gathered_and_dense_readout_agree(top_k):
    rng = np.random.default_rng(0)
    affinity = jnp.asarray(rng.normal(size=(9, 90)), jnp.float32)
    value = jnp.asarray(rng.normal(size=(2, 90, 5)), jnp.float32)
    places = top_k_places(affinity, jnp.ones(90, jnp.int32), top_k)
    dense = places.dense(90)
    np.testing.assert_allclose(
        places.read(value), jnp.einsum("qm,omc->oqc", dense, value), atol=1e-5
    )
    np.testing.assert_allclose(places.totals(90), dense.sum(0), atol=1e-5)
