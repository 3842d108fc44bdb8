"""The EMA family of memory rules: their equation by hand, by a literal reference, by equality."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import rdejax
from rdejax.errors import RdejaxError
from rdejax.memory.ema_family import closest
from rdejax.memory.protocol import Masks
from rdejax.memory.registry import make_rule

H, W, CK, CV, OBJECTS = 3, 4, 5, 6, 2
N = H * W
CONTINUOUS = (
    ("average", "decay", (0.0, 0.3, 1.0)),
    ("merge", "decay", (0.0, 0.3, 1.0)),
    ("merge", "threshold", (-1.0, 0.6, 1.5)),
    ("replace", "trigger", (-1.0, 0.6, 1.5)),
)


def rule(name: str, **settings):
    return make_rule(name, key_channels=CK, value_channels=CV, rngs=nnx.Rngs(0), **settings)


def masks(objects: int = OBJECTS, h: int = H, w: int = W) -> Masks:
    empty = jnp.zeros((objects, 16 * h, 16 * w))
    return Masks(soft=empty, hard=empty)


def frames(count: int, seed: int = 0) -> tuple[jax.Array, jax.Array]:
    """Random keys [t, H, W, CK] and values [t, o, H, W, CV]."""
    rng = np.random.default_rng(seed)
    keys = rng.normal(size=(count, H, W, CK))
    values = rng.normal(size=(count, OBJECTS, H, W, CV))
    return jnp.asarray(keys, jnp.float32), jnp.asarray(values, jnp.float32)


def run(memory, keys, values):
    """State after all frames; one compiled program, which is quicker here than op by op."""
    none = masks(values.shape[1])

    @jax.jit
    def whole(keys, values):
        state = memory.init(keys[0], values[0], none)
        later = (keys[1:], values[1:])
        return jax.lax.scan(lambda s, f: (memory.write(s, *f, none), None), state, later)[0]

    return whole(keys, values)


def reading(memory, keys, values, query):
    @jax.jit
    def read(keys, values, query):
        return memory.read(run(memory, keys, values), query)[0]

    return read(keys, values, query)


def row(*vectors):
    """A frame of one row: keys [1, w, c]; and values [1, 1, w, 1] that number its positions."""
    return jnp.asarray(vectors, jnp.float32)[None]


def numbers(*values):
    return jnp.asarray(values, jnp.float32)[None, None, :, None]


def at_angles(*degrees):
    """Unit keys of a row of positions; the cosine of two is that of the angle between them."""
    angle = np.deg2rad(np.asarray(degrees, np.float64))
    return row(*np.stack([np.cos(angle), np.sin(angle)], axis=-1))


def small(memory, *entries):
    key, value = entries[0]
    state = memory.init(key, value, masks(1, *key.shape[:2]))
    write = jax.jit(memory.write)
    for key, value in entries[1:]:
        state = write(state, key, value, masks(1, *key.shape[:2]))
    return state


# --- average


def test_average_follows_the_equation() -> None:
    keys, values = frames(4)
    state = run(rule("average", decay=0.25), keys, values)
    weights = [0.25**3, 0.75 * 0.25**2, 0.75 * 0.25, 0.75]
    np.testing.assert_allclose(state.key[0], np.tensordot(weights, keys, 1), atol=1e-6)
    np.testing.assert_allclose(state.value[:, 0], np.tensordot(weights, values, 1), atol=1e-6)
    assert state.key.shape[0] == 1
    assert int(state.updates) == 3


@pytest.mark.parametrize("top_k", [None, 5])
@pytest.mark.parametrize(
    ("settings", "strategy"),
    [({"decay": 0.0}, "L"), ({"decay": 1.0}, "F"), ({"decay": 0.0, "first": True}, "F+L")],
)
def test_average_at_its_ends_is_a_strategy_of_rde(settings, strategy, top_k) -> None:
    keys, values = frames(4)
    ours = rule("average", top_k=top_k, **settings)
    theirs = rule("rde", top_k=top_k, strategy=strategy)
    for written in (1, 3):
        got = reading(ours, keys[:written], values[:written], keys[3:])
        expected = reading(theirs, keys[:written], values[:written], keys[3:])
        np.testing.assert_allclose(got, expected, atol=1e-6)


# --- merge


def test_merge_by_hand() -> None:
    """Two close ones are averaged into one place, a third is added, equal directions go first."""
    memory = rule("merge", budget_frames=2, decay=0.75, threshold=0.9)
    state = small(
        memory,
        (at_angles(0, 90, 0), numbers(1, 2, 3)),
        (2.0 * at_angles(0, 10, 45), numbers(10, 20, 30)),
    )
    ten = np.deg2rad(10)
    merged = 0.75 * np.array([1, 0]) + 0.25 * np.array([1 + np.cos(ten), np.sin(ten)])
    np.testing.assert_allclose(state.key[0], merged, atol=1e-6)
    np.testing.assert_allclose(state.value[0, :4, 0], [0.75 * 1 + 0.25 * 15, 2, 3, 30], atol=1e-6)
    np.testing.assert_allclose(state.key[3], np.sqrt([2, 2]), atol=1e-6)
    assert int(state.count) == 4
    # At 45 degrees 0 and 90 are equally close, up to rounding; 10 and 0 chose place 0.
    assert state.use[:3].tolist() in ([3, 0, 0], [2, 1, 0])
    assert state.born.tolist() == [0, 0, 0, 1, 0, 0]


def test_merge_when_nothing_and_when_everything_is_known() -> None:
    first = (at_angles(0, 90, 180), numbers(1, 2, 3))
    second = (at_angles(180, 0, 90), numbers(4, 5, 6))
    state = small(rule("merge", budget_frames=2, threshold=-1.0, decay=0.5), first, second)
    np.testing.assert_allclose(state.value[0, :3, 0], [3, 4, 3.5])
    assert int(state.count) == 3
    state = small(rule("merge", budget_frames=2, threshold=1.5, decay=0.5), first, second)
    np.testing.assert_array_equal(state.value[0, :, 0], [1, 2, 3, 4, 5, 6])
    assert int(state.count) == 6


def test_merge_drops_exactly_the_least_used() -> None:
    """Budget of 3: in turn the unused, the less used per life time, the older of equals goes."""
    memory = rule("merge", budget_frames=1, threshold=0.99, decay=1.0)
    axes = np.eye(6)
    history = [(row(*axes[[0, 1, 2]]), numbers(0, 1, 2))]
    # 0 and 1 are used, 2 is not: axis 3 takes its place. (It is closest to axis 0, the first of
    # equally far ones.)
    history.append((row(*axes[[0, 1, 3]]), numbers(10, 11, 3)))
    state = small(memory, *history)
    assert state.value[0, :, 0].tolist() == [0, 1, 3]
    assert state.use.tolist() == [2, 1, 0]
    # Rates now 4/2, 1/2 and 1/1: place 1 goes, though nothing used place 2 before this frame.
    history.append((row(*axes[[0, 3, 4]]), numbers(20, 21, 4)))
    state = small(memory, *history)
    assert state.value[0, :, 0].tolist() == [0, 4, 3]
    assert state.use.tolist() == [4, 0, 1]
    # Three new at once, all closest to place 0 (similarity 0 to each): everything makes room, the
    # lowest rate first: place 1 (0/1), place 2 (1/2), place 0 (7/3).
    history.append((row(axes[5], axes[5], axes[5]), numbers(7, 8, 9)))
    state = small(memory, *history)
    assert state.value[0, :, 0].tolist() == [9, 7, 8]
    assert state.use.tolist() == [0, 0, 0]
    assert state.born.tolist() == [3, 3, 3]


def test_merge_drops_the_older_of_equally_used_and_never_what_is_merged_into() -> None:
    memory = rule("merge", budget_frames=1, threshold=0.99, decay=0.0)
    axes = np.eye(5)
    history = [
        (row(*axes[[0, 1, 2]]), numbers(0, 1, 2)),
        (row(*axes[[0, 0, 3]]), numbers(10, 12, 3)),  # 1 and 2 unused: 1, of lower index, goes
    ]
    state = small(memory, *history)
    assert state.value[0, :, 0].tolist() == [11, 3, 2]
    # Place 2 (unused for two updates) is older than place 1 (unused for one); place 0 is merged
    # into.
    history.append((row(*axes[[0, 0, 4]]), numbers(20, 22, 4)))
    state = small(memory, *history)
    assert state.value[0, :, 0].tolist() == [21, 3, 4]
    # Place 0 is used most by far. Of the others place 2 is now matched, so place 1 goes.
    history.append((row(axes[4], axes[4], axes[1]), numbers(30, 32, 5)))
    state = small(memory, *history)
    assert state.value[0, :, 0].tolist() == [21, 5, 31]
    # All new but one: even the most used is dropped before the one that is merged into.
    history.append((row(axes[1], axes[2], axes[3]), numbers(40, 41, 42)))
    state = small(memory, *history)
    assert state.value[0, 1, 0] == 40
    assert sorted(state.value[0, :, 0].tolist()) == [40, 41, 42]


def positions(key, value):
    """(key, value of all objects) of each position of a frame."""
    flat = np.moveaxis(value.reshape(OBJECTS, N, CV), 1, 0)
    return list(zip(key.reshape(N, CK), flat, strict=True))


def literal_merge(keys, values, places, threshold, decay):
    """The rule in words of NumPy: position by position, with a list of dictionaries."""
    bank = [{"k": k, "v": v, "use": 0, "born": 0} for k, v in positions(keys[0], values[0])]
    for now in range(1, len(keys)):
        news = positions(keys[now], values[now])
        matched: dict[int, list] = {}
        added = []
        for k, v in news:
            cosine = [k @ e["k"] / np.linalg.norm(k) / np.linalg.norm(e["k"]) for e in bank]
            best = int(np.argmax(cosine))
            bank[best]["use"] += 1
            if cosine[best] > threshold:
                matched.setdefault(best, []).append((k, v))
            else:
                added.append({"k": k, "v": v, "use": 0, "born": now})
        for place, new in matched.items():
            for part, index in (("k", 0), ("v", 1)):
                mean = np.mean([n[index] for n in new], axis=0)
                bank[place][part] = (1 - decay) * mean + decay * bank[place][part]
        spare = sorted(
            (i for i in range(len(bank)) if i not in matched),
            key=lambda i: (bank[i]["use"] / (now - bank[i]["born"]), bank[i]["born"], i),
        )
        for entry in added:
            if len(bank) < places:
                bank.append(entry)
            else:
                bank[spare.pop(0)] = entry
    return bank


@pytest.mark.parametrize(("budget", "threshold"), [(1, 0.5), (1, 0.8), (2, 0.8), (2, 1.5)])
def test_merge_equals_a_literal_reference(budget, threshold) -> None:
    keys, values = frames(7, seed=3)
    memory = rule("merge", budget_frames=budget, threshold=threshold, decay=0.6)
    state = run(memory, keys, values)
    bank = literal_merge(
        np.asarray(keys, np.float64), np.asarray(values, np.float64), budget * N, threshold, 0.6
    )
    assert int(state.count) == len(bank)
    assert state.use[: len(bank)].tolist() == [e["use"] for e in bank]
    assert state.born[: len(bank)].tolist() == [e["born"] for e in bank]
    np.testing.assert_allclose(state.key[: len(bank)], [e["k"] for e in bank], atol=1e-5)
    stored = jnp.moveaxis(state.value[:, : len(bank)], 1, 0)
    np.testing.assert_allclose(stored, [e["v"] for e in bank], atol=1e-5)
    assert len(bank) == budget * N  # full,
    assert max(e["born"] for e in bank) >= 5  # and made room almost to the end


@pytest.mark.parametrize("top_k", [None, 7])
def test_merge_that_never_merges_is_the_growing_bank(top_k) -> None:
    keys, values = frames(6)
    query = frames(2, seed=9)[0]
    got = reading(
        rule("merge", threshold=1.5, budget_frames=5, top_k=top_k), keys[:5], values[:5], query
    )
    bank = rule("bank", top_k=top_k)
    state = bank.reserve(bank.init(keys[0], values[0], masks()), 8)
    for key, value in zip(keys[1:5], values[1:5], strict=True):
        state = bank.write(state, key, value, masks())
    np.testing.assert_allclose(got, bank.read(state, query)[0], atol=1e-5)


def test_merge_keeps_the_first_frame_beside_it() -> None:
    keys, values = frames(5)
    memory = rule("merge", first=True, budget_frames=1, threshold=1.5)
    state = run(memory, keys, values)
    np.testing.assert_array_equal(state.key[N:], keys[0].reshape(N, CK))
    np.testing.assert_array_equal(state.value[:, N:], values[0].reshape(OBJECTS, N, CV))
    # Everything is new and the budget is one frame: the bank itself is the latest frame.
    query = frames(1, seed=9)[0]
    expected = reading(rule("rde", strategy="F+L"), keys, values, query)
    np.testing.assert_allclose(memory.read(state, query)[0], expected, atol=1e-5)


def test_merge_reads_count_no_use() -> None:
    keys, values = frames(3)
    memory = rule("merge")
    state = run(memory, keys[:2], values[:2])
    _, after = memory.read(state, keys)
    jax.tree.map(np.testing.assert_array_equal, after, state)


# --- replace


def test_replace_by_hand() -> None:
    """Position 0 is known; 1 and 2 both choose place 1, where 2 is the more similar."""
    memory = rule("replace", trigger=0.95)
    state = small(
        memory,
        (at_angles(0, 90, 180), numbers(1, 2, 3)),
        (at_angles(5, 60, 65), numbers(4, 5, 6)),
    )
    np.testing.assert_array_equal(state.value[0, 0, 0, :, 0], [1, 6, 3])
    np.testing.assert_allclose(state.key[0], at_angles(0, 65, 180), atol=1e-6)


def test_replace_takes_the_first_of_equally_similar_ones() -> None:
    axes = np.eye(4)
    state = small(
        rule("replace", trigger=0.5),
        (row(*axes[[0, 1, 2]]), numbers(1, 2, 3)),
        (row(axes[3], axes[3], axes[3]), numbers(4, 5, 6)),  # similarity 0 to all three
    )
    np.testing.assert_array_equal(state.value[0, 0, 0, :, 0], [4, 2, 3])


@pytest.mark.parametrize("first", [False, True])
def test_replace_never_triggered_is_the_first_frame(first) -> None:
    keys, values = frames(4)
    state = run(rule("replace", trigger=-1.0, first=first), keys, values)
    for entry in range(1 + first):
        np.testing.assert_array_equal(state.key[entry], keys[0])
        np.testing.assert_array_equal(state.value[:, entry], values[0])


@pytest.mark.parametrize("top_k", [None, 5])
@pytest.mark.parametrize(("first", "strategy"), [(False, "L"), (True, "F+L")])
def test_replace_always_triggered_is_the_latest_up_to_order(first, strategy, top_k) -> None:
    """Well separated keys that move by a permutation and a little noise."""
    rng = np.random.default_rng(1)
    base = np.eye(N, dtype=np.float32)
    keys = [base]
    for _ in range(3):
        keys.append(base[rng.permutation(N)] + 0.05 * rng.normal(size=(N, N)).astype(np.float32))
    keys = jnp.asarray(np.stack(keys)).reshape(4, H, W, N)
    values = frames(4)[1]
    query = jnp.asarray(rng.normal(size=(1, H, W, N)), jnp.float32)
    memory = rule("replace", trigger=1.5, first=first, top_k=top_k)
    state = run(memory, keys, values)
    assert np.abs(np.asarray(state.key[0] - keys[-1])).max() > 0.5  # the order is another one
    expected = reading(rule("rde", strategy=strategy, top_k=top_k), keys, values, query)
    np.testing.assert_allclose(memory.read(state, query)[0], expected, atol=1e-5)


def test_replace_equals_a_literal_reference() -> None:
    keys, values = frames(7, seed=5)
    state = run(rule("replace", trigger=0.8), keys, values)
    stored = np.asarray(keys[0], np.float64).reshape(N, CK)
    content = np.asarray(values[0]).reshape(OBJECTS, N, CV).copy()
    replaced = []
    for key, value in zip(np.asarray(keys[1:], np.float64), np.asarray(values[1:]), strict=True):
        key, value = key.reshape(N, CK), value.reshape(OBJECTS, N, CV)
        cosine = key @ stored.T / np.linalg.norm(key, axis=1)[:, None]
        cosine = cosine / np.linalg.norm(stored, axis=1)
        best, place = cosine.max(1), cosine.argmax(1)
        wanted = {p: [q for q in range(N) if place[q] == p and best[q] < 0.8] for p in range(N)}
        winners = {p: max(q, key=lambda i: best[i]) for p, q in wanted.items() if q}
        replaced.append(len(winners))
        stored = stored.copy()
        for p, q in winners.items():
            stored[p], content[:, p] = key[q], value[:, q]
    assert 0 < min(replaced) <= max(replaced) < N
    np.testing.assert_array_equal(state.key[0].reshape(N, CK), stored.astype(np.float32))
    np.testing.assert_array_equal(state.value[:, 0].reshape(OBJECTS, N, CV), content)


# --- all three

SEVERAL = (
    ("average", {}),
    ("average", {"first": True}),
    ("merge", {"budget_frames": 1, "threshold": 0.6}),
    ("merge", {"budget_frames": 2, "threshold": 0.8, "first": True}),
    ("replace", {"trigger": 0.8}),
    ("replace", {"trigger": 0.8, "first": True}),
)


@pytest.mark.parametrize(("name", "settings"), SEVERAL)
def test_jitted_scan_equals_loop_and_the_state_stays_as_large(name, settings) -> None:
    keys, values = frames(12)
    memory = rule(name, **settings)
    start = looped = memory.init(keys[0], values[0], masks())
    for key, value in zip(keys[1:], values[1:], strict=True):
        looped = memory.write(looped, key, value, masks())
    scanned = run(memory, keys, values)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), scanned, looped)
    sizes = [sum(x.nbytes for x in jax.tree.leaves(s)) for s in (start, looped)]
    assert sizes[0] == sizes[1]
    assert memory.capacity_for(10_000) is None


@pytest.mark.parametrize(("name", "setting", "choices"), CONTINUOUS)
def test_vmap_over_a_setting_equals_separate_runs(name, setting, choices) -> None:
    keys, values = frames(5)
    fixed = {"threshold": 0.6} if (name, setting) == ("merge", "decay") else {}
    fixed |= {"budget_frames": 2} if name == "merge" else {}

    def read(memory):
        return reading(memory, keys[:4], values[:4], keys[4:])

    def swept(choice):
        memory = jax.tree.map(lambda x: x, rule(name, first=True, **fixed))
        setattr(memory, setting, choice)  # as `rdejax.sweep_settings` does
        return read(memory)

    together = jax.jit(jax.vmap(swept))(jnp.asarray(choices))
    alone = jnp.stack([read(rule(name, first=True, **fixed, **{setting: c})) for c in choices])
    np.testing.assert_allclose(together, alone, atol=1e-5)
    assert np.abs(alone[0] - alone[1]).max() > 1e-3
    assert np.abs(alone[1] - alone[2]).max() > 1e-3


@pytest.mark.parametrize(("name", "setting", "choices"), CONTINUOUS)
def test_constructors_take_tracers(name, setting, choices) -> None:
    """Whose range nobody can check; numbers, also those of arrays, become Python floats."""
    got = jax.vmap(lambda x: 2.0 * getattr(rule(name, **{setting: x}), setting))(
        jnp.asarray(choices)
    )
    np.testing.assert_allclose(got, 2.0 * np.asarray(choices), atol=1e-6)
    assert isinstance(getattr(rule(name, **{setting: jnp.float32(0.5)}), setting), float)


@pytest.mark.parametrize(("name", "settings"), SEVERAL)
def test_slots_permute_and_padded_ones_change_nothing(name, settings) -> None:
    keys, values = frames(6)
    memory = rule(name, **settings)
    whole = reading(memory, keys, values, keys[:2])
    swapped = reading(memory, keys, values[:, ::-1], keys[:2])
    np.testing.assert_allclose(swapped[:, ::-1], whole, atol=1e-6)
    padded = jnp.concatenate([values, jnp.full_like(values, 1e3)], axis=1)
    np.testing.assert_allclose(reading(memory, keys, padded, keys[:2])[:, :2], whole, atol=1e-6)


@pytest.mark.parametrize(("name", "settings"), SEVERAL)
def test_gradients_of_every_frame_are_finite(name, settings) -> None:
    """Zero keys, too: padding of a frame may have them, and a norm has no gradient there."""
    keys, values = frames(4)
    keys = keys.at[:, 0, 0].set(0.0)
    memory = rule(name, **settings).as_trained()
    assert memory.top_k is None

    def loss(keys, values):
        return (reading(memory, keys[:3], values[:3], keys[3:]) ** 2).sum()

    for grad in jax.jit(jax.grad(loss, argnums=(0, 1)))(keys, values):
        assert jnp.isfinite(grad).all()
        assert (jnp.abs(grad[:3]).max(axis=tuple(range(1, grad.ndim))) > 0).all()


def test_merging_spreads_the_gradient_over_what_is_merged() -> None:
    """Lambda of it stays with the stored value, the rest is shared by the two that joined it."""
    memory = rule("merge", decay=0.7, threshold=0.9, budget_frames=1)

    def stored(values):
        entries = zip((at_angles(0, 90), at_angles(1, 2)), values, strict=True)
        return small(memory, *entries).value[0, 0, 0]

    old, new = jax.grad(stored)((numbers(1, 2), numbers(3, 4)))
    np.testing.assert_allclose(old[0, 0, :, 0], [0.7, 0], atol=1e-6)
    np.testing.assert_allclose(new[0, 0, :, 0], [0.15, 0.15], atol=1e-6)


@pytest.mark.parametrize("name", ["average", "merge", "replace"])
def test_bfloat16_stays(name) -> None:
    keys, values = (x.astype(jnp.bfloat16) for x in frames(3))
    state = run(rule(name), keys, values)
    assert state.key.dtype == state.value.dtype == jnp.bfloat16


def test_closest_ignores_length_and_what_is_absent() -> None:
    stored = jnp.asarray([[9.0, 1.0], [0.1, 0.0], [0.0, 1.0]])
    present = jnp.asarray([True, True, False])
    similarity, index = closest(jnp.asarray([[5.0, 0.0], [0.0, 2.0]]), stored, present)
    assert index.tolist() == [1, 0]
    np.testing.assert_allclose(similarity, [1.0, 1 / np.sqrt(82)], atol=1e-6)


@pytest.mark.parametrize(
    ("name", "settings", "words"),
    [
        ("average", {"decay": 1.5}, "decay=1.5: give a number from 0 to 1"),
        ("average", {"decay": "half"}, "decay='half' is not a number"),
        ("average", {"decay": float("nan")}, "decay=nan"),
        ("merge", {"decay": jnp.float32(-0.5)}, "decay=-0.5"),
        ("merge", {"threshold": 95}, "threshold=95: give a cosine similarity"),
        ("merge", {"budget_frames": 0}, "budget_frames=0: give a whole number"),
        ("merge", {"budget_frames": 1.5}, "budget_frames=1.5"),
        ("replace", {"trigger": -2}, "trigger=-2: give a cosine similarity"),
    ],
)
def test_settings_out_of_range_are_refused(name, settings, words) -> None:
    with pytest.raises(RdejaxError, match=words):
        rule(name, **settings)


def still_video(count: int) -> tuple[np.ndarray, np.ndarray]:
    """The same 48x64 frame again and again, an orange disc on bluish texture; and its mask."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:48, :64]
    frame = rng.integers(60, 110, (48, 64, 3)) + np.array([0, 10, 60])
    mask = ((y - 24) ** 2 + (x - 28) ** 2 < 14**2).astype(np.uint8)
    frame[mask == 1] = np.array([230, 130, 30]) + rng.integers(-20, 20, (int(mask.sum()), 3))
    return np.repeat(frame[None].astype(np.uint8), count, axis=0), 5 * mask


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "settings"),
    [("average", {}), ("merge", {"budget_frames": 2}), ("replace", {"first": True})],
)
def test_a_still_video_is_segmented(name, settings) -> None:
    video, mask = still_video(8)
    model = rdejax.load_model("rde-lite", memory=name, every=2, size=None, **settings)
    got = rdejax.segment_video(model, video, mask)
    assert got.shape == video.shape[:3]
    assert set(np.unique(got)) == {0, 5}
    for frame in got[1:]:
        both, either = (frame & mask).astype(bool).sum(), (frame | mask).astype(bool).sum()
        assert both / either > 0.85
