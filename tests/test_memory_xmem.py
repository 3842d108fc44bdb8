"""XMem's working and long-term memory at tiny sizes, and its similarity."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from rdejax.errors import RdejaxError
from rdejax.memory import xmem_store
from rdejax.memory.affinity import anisotropic_l2, similarity, softmax_weights
from rdejax.memory.protocol import Masks
from rdejax.memory.registry import make_rule
from rdejax.memory.xmem_store import NEW_LIFE, LongTermElements
from rdejax.nn.xmem import AnisotropicKey

H, W, CK, CV, OBJECTS = 3, 4, 6, 5, 2
HW = H * W
P = 4
TINY = {"num_prototypes": P, "max_long_term_elements": 40}


def rule(**settings):
    given = {"key_channels": CK, "value_channels": CV, "rngs": nnx.Rngs(0)}
    return make_rule("xmem", **given, **{**TINY, **settings})


def frame(seed: int, scale: float = 1.0):
    """Key, value and masks of a frame."""
    rng = np.random.default_rng(seed)
    key = AnisotropicKey(
        jnp.asarray(scale * rng.normal(size=(H, W, CK)), jnp.float32),
        jnp.asarray(1 + rng.uniform(size=(H, W, 1)), jnp.float32),
        jnp.asarray(rng.uniform(0.2, 1, size=(H, W, CK)), jnp.float32),
    )
    value = jnp.asarray(rng.normal(size=(OBJECTS, H, W, CV)), jnp.float32)
    none = jnp.zeros((OBJECTS, 16 * H, 16 * W))
    return key, value, Masks(none, none)


def query(seed: int):
    return jax.tree.map(lambda x: x[None], frame(1000 + seed)[0])


def run(memory, writes: int, *, reads: bool = True):
    """States after the first frame and each of `writes` more, with a read before each."""
    write, read = jax.jit(memory.write), jax.jit(memory.read)
    state = memory.init(*frame(0))
    if (capacity := memory.capacity_for(writes)) is not None:
        state = memory.reserve(state, capacity)
    states = [state]
    for t in range(1, writes + 1):
        if reads:
            _, state = read(state, query(t))
        state = write(state, *frame(t))
        states.append(state)
    return states


def sizes(state) -> tuple[int, int]:
    return int((state.time > 0).sum()), int(state.long.valid.sum())


def nbytes(state) -> int:
    return sum(x.nbytes for x in jax.tree.leaves(state))


# ------------------------------------------------------------------------ similarity


def random_keys(seed: int, count: int, scale: float = 1.0):
    rng = np.random.default_rng(seed)
    draw = lambda *shape: rng.normal(size=shape).astype(np.float32)  # noqa: E731
    return scale * draw(count, 64), 1 + draw(count) ** 2, 1 / (1 + np.exp(-draw(count, 64)))


def scores(*arrays):
    return anisotropic_l2(*(None if x is None else jnp.asarray(x) for x in arrays))


def test_similarity_is_the_double_loop() -> None:
    query, _, selection = random_keys(0, 7)
    key, shrinkage, _ = random_keys(1, 9)
    got = scores(query, selection, key, shrinkage)
    for q in range(7):
        for m in range(9):
            square = (key[m].astype(np.float64) - query[q]) ** 2
            want = -shrinkage[m] * (selection[q] * square).sum() / 8
            np.testing.assert_allclose(got[q, m], want, rtol=1e-5)


def test_one_product_of_width_129_is_the_two() -> None:
    query, _, selection = random_keys(0, 7)
    key, shrinkage, _ = random_keys(1, 9)
    rows = np.concatenate([-(key**2), key, -np.ones((9, 1))], 1)
    weighted = selection * query
    columns = np.concatenate(
        [selection, 2 * weighted, (weighted * query).sum(1, keepdims=True)], axis=1
    )
    want = (rows @ columns.T * shrinkage[:, None] / 8).T
    np.testing.assert_allclose(scores(query, selection, key, shrinkage), want, rtol=1e-5)


def test_without_shrinkage_and_selection_it_is_stcn_s() -> None:
    query, key = random_keys(0, 7)[0], random_keys(1, 9)[0]
    plain = similarity("l2", jnp.asarray(query), jnp.asarray(key))
    ones = np.ones(9, np.float32)
    np.testing.assert_allclose(scores(query, None, key, ones), plain, atol=1e-5)
    full = scores(query, np.ones_like(query), key, ones)
    # |k_q|^2 is the same for every memory position: gone after the softmax.
    each = jnp.ones(9, jnp.int32)
    np.testing.assert_allclose(softmax_weights(full, each), softmax_weights(plain, each), atol=1e-5)


def test_shrinkage_is_the_memory_s_and_selection_the_query_s() -> None:
    query, _, selection = random_keys(0, 7)
    key, shrinkage, _ = random_keys(1, 9)
    before = scores(query, selection, key, shrinkage)
    larger, other = shrinkage.copy(), selection.copy()
    larger[3] *= 2
    other[5] *= 0.5
    changed = np.asarray(scores(query, selection, key, larger) != before)
    assert changed[:, 3].all() and not np.delete(changed, 3, 1).any()
    changed = np.asarray(scores(query, other, key, shrinkage) != before)
    assert changed[5].all() and not np.delete(changed, 5, 0).any()


# ------------------------------------------------------------------------ the stores


def test_store_trace() -> None:
    states = run(rule(), 21)
    trace = {n: sizes(states[n - 1]) for n in (1, 9, 10, 14, 15, 20)}
    assert trace == {1: (1, 0), 9: (9, 0), 10: (5, P), 14: (9, P), 15: (5, 2 * P), 20: (5, 3 * P)}
    # The first frame stays for ever, beside the last four.
    assert states[19].time.tolist() == [1, 17, 18, 19, 20, 0, 0, 0, 0, 0]
    np.testing.assert_array_equal(states[19].key.key[0], frame(0)[0].key)
    np.testing.assert_array_equal(states[19].value[:, 1], frame(16)[1])


def test_the_state_is_as_large_after_thousands_of_frames() -> None:
    memory = rule()
    states = run(memory, 10)

    def step(state, t):
        state = memory.read(state, jax.tree.map(lambda x: x[None] + t, frame(1)[0]))[1]
        key, value, masks = frame(2)
        key = key.replace(key=key.key * jnp.cos(t))
        state = memory.write(state, key, value + t, masks)
        return state, (jnp.sum(state.time > 0), jnp.sum(state.long.valid))

    last, (working, long) = jax.jit(lambda s: jax.lax.scan(step, s, jnp.arange(2000.0)))(states[9])
    assert nbytes(last) == nbytes(states[9])
    assert working.max() <= 9 and long.max() == 40
    # Full with the 10th consolidation, at memory frame 55, and from then on.
    assert long[43] == 36 and (long[45:] == 40).all()
    assert jnp.isfinite(last.long.use / last.long.life).all()


class ListStore:
    """Drops down to what leaves room, then appends: the public code's order of things."""

    def __init__(self, places: int):
        self.places = places
        self.elements: list[tuple[int, float]] = []

    def append(self, names, usage) -> None:
        room = self.places - len(names)
        kept = sorted(self.elements, key=lambda name: usage[name], reverse=True)[:room]
        self.elements = [name for name in self.elements if name in kept] + list(names)


@pytest.mark.parametrize(
    ("places", "new"), [(63, 16), (40, 16), (1000, 16), (64, 16), (128, 128), (16, 16)]
)
def test_one_scatter_is_drop_then_append(places, new) -> None:
    rng = np.random.default_rng(places)
    store = xmem_store.empty(places, jnp.zeros((1, 1)), jnp.zeros((1, 1, 1)))
    append = jax.jit(lambda *a: xmem_store.append(*a, counted=True))
    oracle = ListStore(places)
    for round_ in range(60):
        names = np.arange(round_ * new, (round_ + 1) * new)
        usage = dict(
            zip(np.asarray(store.key[:, 0]).tolist(), np.asarray(store.use).tolist(), strict=True)
        )
        oracle.append(names.astype(float).tolist(), usage)
        column = jnp.asarray(names, jnp.float32)
        elements = LongTermElements(column[:, None], column, column[None, :, None])
        store = append(store, elements, jnp.int32(round_ + 1))
        held = np.asarray(store.key[:, 0])[np.asarray(store.valid)]
        assert sorted(held) == sorted(oracle.elements)
        use = rng.permutation(places * 7)[:places].astype(np.float32)
        store = store.replace(use=jnp.asarray(use), life=jnp.ones(places))


def test_uncounted_the_oldest_prototypes_go_first() -> None:
    memory = rule(enable_long_term_count_usage=False, max_long_term_elements=2 * P)
    states = run(memory, 24)
    assert float(states[-1].long.use.sum()) == 0
    assert sorted(states[-1].long.born.tolist()) == [20] * P + [25] * P


def test_usage_is_the_attention_and_life_the_reads() -> None:
    memory = rule(top_k=5)
    states = run(memory, 11)
    state = states[-1]
    _, after = memory.read(state, query(5))
    gain = (after.use - state.use).sum() + (after.long.use - state.long.use).sum()
    np.testing.assert_allclose(gain, HW, rtol=1e-5)
    held = np.asarray(state.time > 0)
    np.testing.assert_allclose((after.life - state.life)[held], 1, rtol=1e-6)
    assert (np.asarray(after.life)[~held] == np.asarray(state.life)[~held]).all()
    # The first frame was there for eleven reads, the latest for none.
    np.testing.assert_allclose(state.life[0], 11, rtol=1e-6)
    np.testing.assert_allclose(state.life[held][-1], NEW_LIFE)


def nearly_full(memory):
    """The state whose next write consolidates, read a few times."""
    return run(memory, memory.max_mid_term_frames - 2)[-1]


def test_prototypes_are_the_most_used_in_falling_order() -> None:
    memory = rule()
    found = memory.candidates(nearly_full(memory))
    new, index = xmem_store.prototypes(found, P)
    usage = np.asarray(found.usage)
    np.testing.assert_array_equal(index, np.argsort(-usage)[:P])
    np.testing.assert_array_equal(new.key, found.key[index])


def test_prototypes_of_sharp_similarities_are_the_candidates() -> None:
    """With scores a thousandfold the softmax is one-hot, and all candidates are prototypes."""
    memory = rule()
    found = memory.candidates(nearly_full(memory))
    count = len(found.usage)
    sharp = found.replace(key=found.key * 1000**0.5)
    new, index = xmem_store.prototypes(sharp, count)
    assert sorted(index.tolist()) == list(range(count))
    np.testing.assert_allclose(new.value, found.value[:, index], atol=1e-5)
    np.testing.assert_allclose(new.shrinkage, found.shrinkage[index], atol=1e-5)


def test_prototype_values_lie_between_those_of_the_candidates() -> None:
    memory = rule()
    found = memory.candidates(nearly_full(memory))
    new, _ = xmem_store.prototypes(found, P)
    low, high = found.value.min(1, keepdims=True), found.value.max(1, keepdims=True)
    assert (new.value >= low - 1e-6).all() and (new.value <= high + 1e-6).all()


def test_potentiation_weights_candidates_by_the_equation() -> None:
    memory = rule()
    found = memory.candidates(nearly_full(memory))
    new, index = xmem_store.prototypes(found, P)
    one = int(index[1])
    score = -found.shrinkage * jnp.sum(
        found.selection[one][None] * (found.key - found.key[one][None]) ** 2, axis=1
    )
    weights = jax.nn.softmax(score / jnp.sqrt(CK))
    np.testing.assert_allclose(new.value[:, 1], weights @ found.value, atol=1e-5)
    np.testing.assert_allclose(new.shrinkage[1], weights @ found.shrinkage, rtol=1e-5)


def test_copies_of_one_element_leave_its_value() -> None:
    memory = rule()
    found = memory.candidates(nearly_full(memory))
    same = found.replace(
        key=jnp.broadcast_to(found.key[:1], found.key.shape),
        value=jnp.broadcast_to(found.value[:, :1], found.value.shape),
    )
    new, _ = xmem_store.prototypes(same, P)
    np.testing.assert_allclose(
        new.value, jnp.broadcast_to(found.value[:, :1], new.value.shape), atol=1e-5
    )


def test_what_was_never_read_is_no_prototype() -> None:
    memory = rule()
    state = nearly_full(memory)
    state = state.replace(use=state.use.at[2].set(0.0).at[3].set(5.0))
    full = memory.write(state, *frame(50))
    unread = frame(2)[0].key.reshape(-1, CK)
    keys = full.long.key[full.long.valid]
    assert len(keys) == P
    assert (jnp.abs(keys[:, None] - unread[None]).max(-1) > 0).all()


# ------------------------------------------------------------------------ reading


def test_nothing_consolidated_is_as_without_a_long_term_memory() -> None:
    """For the first nine memorised frames."""
    on, off = (run(rule(enable_long_term=x), 8) for x in (True, False))
    for t, (a, b) in enumerate(zip(on, off, strict=True)):
        with_long, _ = rule().read(a, query(t))
        without, _ = rule(enable_long_term=False).read(b, query(t))
        np.testing.assert_allclose(with_long, without, atol=1e-6)


def test_top_k_larger_than_the_memory_is_the_full_softmax() -> None:
    states = run(rule(), 3)
    few, _ = rule(top_k=1000).read(states[-1], query(1))
    full, _ = rule(top_k=None).read(states[-1], query(1))
    np.testing.assert_allclose(few, full, atol=1e-6)


def test_both_memories_are_read_by_one_softmax() -> None:
    memory = rule(top_k=None)
    state = run(memory, 12)[-1]
    got, _ = memory.read(state, query(3))
    asked = frame(1003)[0]
    held = np.asarray(state.time > 0)
    key = jnp.concatenate([state.long.key[state.long.valid], state.key.key[held].reshape(-1, CK)])
    shrinkage = jnp.concatenate(
        [state.long.shrinkage[state.long.valid], state.key.shrinkage[held].reshape(-1)]
    )
    value = jnp.concatenate(
        [state.long.value[:, state.long.valid], state.value[:, held].reshape(OBJECTS, -1, CV)], 1
    )
    scores = anisotropic_l2(
        asked.key.reshape(-1, CK), asked.selection.reshape(-1, CK), key, shrinkage
    )
    want = jax.nn.softmax(scores, axis=1) @ value
    np.testing.assert_allclose(got[0].reshape(OBJECTS, HW, CV), want, atol=1e-5)


def test_training_reads_the_first_frame_and_two_others() -> None:
    memory = rule().as_trained()
    assert memory.top_k is None and not memory.enable_long_term
    state = run(memory, 6, reads=False)[-1]
    drawn = jax.vmap(lambda k: memory.drawn(state, k).time)(
        jax.random.split(jax.random.key(0), 200)
    )
    assert ((drawn > 0).sum(1) == 3).all() and (drawn[:, 0] == 1).all()
    # Each of the six others in a third of the draws; five standard deviations are 0.17.
    share = np.asarray((drawn[:, 1:] > 0).mean(0))
    assert (np.abs(share - 1 / 3) < 0.17).all()
    early = run(memory, 2, reads=False)[-1]
    np.testing.assert_array_equal(memory.drawn(early, jax.random.key(1)).time, early.time)


def test_settings_that_do_not_go_together() -> None:
    for settings, text in (
        ({"min_mid_term_frames": 5, "max_mid_term_frames": 5}, "a larger maximum"),
        ({"num_prototypes": 50}, "no fewer elements than prototypes"),
        ({"top_k": 0}, "top_k=0"),
    ):
        with pytest.raises(RdejaxError, match=text):
            rule(**settings)
    small = rule(num_prototypes=61, max_long_term_elements=100)
    with pytest.raises(RdejaxError, match="have 60 elements of stride 16"):
        small.init(*frame(0))
