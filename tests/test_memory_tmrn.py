"""TMRN's read: what it is at its limits, its agents, and what must not change it."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from rdejax.errors import RdejaxError
from rdejax.memory import tmrn
from rdejax.memory.affinity import anisotropic_l2, similarity
from rdejax.memory.check import check_rule
from rdejax.memory.protocol import Masks
from rdejax.memory.registry import make_rule, rule_settings
from rdejax.memory.views import Moment
from rdejax.nn.agents import moments, orthogonal_agents, svd_agents
from rdejax.nn.xmem import AnisotropicKey

H, W, CK, CV, OBJECTS = 7, 10, 16, 6, 2
# Scores of all three with a standard deviation of about 4.
SCALE = {"l2": 1.25, "dot": 2.0, "xmem": 1.2}
HOSTS = tuple(SCALE)


def rule(host="l2", ck=CK, **settings):
    if host == "dot":
        settings["similarity"] = "dot"
    return make_rule("tmrn", key_channels=ck, value_channels=CV, rngs=nnx.Rngs(0), **settings)


def moved(memory, seed=0, scale=0.3, only=""):
    """The rule with weights that are off their start."""
    rng = np.random.default_rng(seed)

    def off(path, x):
        if only not in jax.tree_util.keystr(path):
            return x
        return x + jnp.asarray(scale * rng.normal(size=x.shape), x.dtype)

    nnx.update(memory, jax.tree_util.tree_map_with_path(off, nnx.state(memory, nnx.Param)))
    return memory


def keys(host, rng, *frames, h=H, w=W, ck=CK):
    key = jnp.asarray(SCALE[host] * rng.normal(size=(*frames, h, w, ck)), jnp.float32)
    if host != "xmem":
        return key
    shrinkage = jnp.asarray(1 + rng.uniform(size=(*frames, h, w, 1)), jnp.float32)
    selection = jnp.asarray(rng.uniform(0.1, 0.9, size=(*frames, h, w, ck)), jnp.float32)
    return AnisotropicKey(key, shrinkage, selection)


def values(rng, objects=OBJECTS):
    return jnp.asarray(rng.normal(size=(objects, H, W, CV)), jnp.float32)


def masks(objects=OBJECTS):
    soft = jnp.zeros((objects, 16 * H, 16 * W))
    return Masks(soft=soft, hard=soft)


def entries(host, frames=6, seed=0):
    rng = np.random.default_rng(seed)
    return [(keys(host, rng), values(rng)) for _ in range(frames)]


def filled(memory, frames, capacity=None):
    state = memory.init(*frames[0], masks())
    state = memory.reserve(state, capacity or len(frames))
    for frame in frames[1:]:
        state = memory.write(state, *frame, masks())
    return state


def query(host, seed=7, n=2):
    return keys(host, np.random.default_rng(seed), n)


def read(memory, frames, q, capacity=None):
    return memory.read(filled(memory, frames, capacity), q)[0]


def host_scores(host, frames, q):
    """[q, t m] of one frame, as the host compares keys."""

    def flat(x):
        return x.reshape(-1, x.shape[-1])

    if host == "xmem":
        key = jnp.concatenate([flat(k.key) for k, _ in frames])
        shrinkage = jnp.concatenate([k.shrinkage.reshape(-1) for k, _ in frames])
        return anisotropic_l2(flat(q.key), flat(q.selection), key, shrinkage)
    return similarity(host, flat(q), jnp.concatenate([flat(k) for k, _ in frames]))


def host_read(host, frames, q):
    value = jnp.concatenate([v.reshape(OBJECTS, -1, CV) for _, v in frames], axis=1)

    def one(q):
        weights = jax.nn.softmax(host_scores(host, frames, q), axis=-1)
        return jnp.einsum("qm,omc->oqc", weights, value).reshape(OBJECTS, H, W, CV)

    return jnp.stack([one(jax.tree.map(lambda x, i=i: x[i], q)) for i in range(2)])


# ------------------------------------------------------------------------ limits


@pytest.mark.parametrize("host", HOSTS)
@pytest.mark.parametrize("capacity", [6, 8])
def test_a_fresh_one_reads_as_its_host(host, capacity) -> None:
    frames, q = entries(host), query(host)
    assert 3 < float(host_scores(host, frames, jax.tree.map(lambda x: x[0], q)).std()) < 5
    for settings in ({}, {"agents": "none", "temporal": False}, {"profile": "softmax"}):
        got = read(rule(host, **settings), frames, q, capacity)
        np.testing.assert_allclose(got, host_read(host, frames, q), atol=1e-5)


def test_in_double_precision_it_is_the_host_to_the_last_digits() -> None:
    """Alignment in each frame times temporal weights is the softmax over all positions."""
    memory, frames = rule(), entries("l2")
    seen = memory._seen(filled(memory, frames))
    with jax.enable_x64(True):
        rng = np.random.default_rng(0)
        scores = jnp.asarray(4 * rng.normal(size=(H * W, 6, H * W)), jnp.float64)
        alignment = memory._aligned(scores)
        rows = query("l2")[0].reshape(-1, CK)
        weights = memory._weights(seen, rows, scores, alignment)[..., None] * alignment
        assert weights.dtype == jnp.float64
        expected = jax.nn.softmax(scores.reshape(H * W, -1), axis=-1)
        np.testing.assert_allclose(weights.reshape(H * W, -1), expected, atol=1e-12)


@pytest.mark.parametrize("host", HOSTS)
def test_of_one_frame_any_temporal_weights_read_as_the_host(host) -> None:
    frames, q = entries(host, 1), query(host)
    memory = moved(moved(rule(host, age_embedding=True), only="reasoning"), only="beta", scale=2.0)
    np.testing.assert_allclose(read(memory, frames, q, 4), host_read(host, frames, q), atol=1e-5)


def test_without_temporal_weights_it_is_the_mean_of_the_frames() -> None:
    frames, q = entries("l2"), query("l2")
    memory = rule()
    memory.beta.set_value(jnp.zeros(()))
    alone = jnp.stack([host_read("l2", [frame], q) for frame in frames]).mean(0)
    np.testing.assert_allclose(read(memory, frames, q, 8), alone, atol=1e-5)


def test_frames_that_are_stored_twice_change_nothing() -> None:
    """While no agents speak: to them, the query counts less among more frames."""
    frames, q = entries("l2", 3), query("l2")
    memory = rule()
    memory.beta.set_value(jnp.asarray(0.7))
    once = read(memory, frames, q)
    np.testing.assert_allclose(read(memory, [*frames, *frames], q), once, atol=1e-6)


@pytest.mark.parametrize("host", HOSTS)
def test_temporal_weights_follow_the_equations(host) -> None:
    """Steps 5 to 8 by a plain double loop, for the attention of weights that were trained."""
    frames = entries(host, 3)
    q = jax.tree.map(lambda x: x[:1], query(host))
    memory = moved(rule(host, age_embedding=True), scale=0.2)
    state = filled(memory, frames, 4)
    got = memory.read(state, q)[0][0]
    plain = q.key if host == "xmem" else q
    own = plain[0].reshape(-1, CK)
    rows = [k.key if host == "xmem" else k for k, _ in frames]
    rows = [k.reshape(-1, CK) for k in rows]
    agents = svd_agents(moments(jnp.concatenate([own, *rows])), 16) * np.exp(
        -memory.correlation.log_tau_a[...]
    )
    scores = host_scores(host, frames, jax.tree.map(lambda x: x[0], q)).reshape(-1, 3, H * W)
    aligned, energy = [], []
    for t, k in enumerate(rows):
        mine, its = own @ agents.T, k @ agents.T
        if host == "dot":
            g = mine @ its.T / 4
        else:
            g = -((mine[:, None] - its[None]) ** 2).sum(-1) / 4 + (mine**2).sum(-1)[:, None] / 4
        s = scores[:, t] + memory.correlation.gamma[...] * g
        aligned.append(jax.nn.softmax(s, axis=-1))
        energy.append(jax.nn.logsumexp(s, axis=-1))
    z = jnp.stack([a @ k for a, k in zip(aligned, rows, strict=True)], axis=1)
    delta = memory.reasoning(own, z, jnp.ones(3, bool), jnp.array([3, 2, 1]))
    pi = jax.nn.softmax(memory.beta[...] * jnp.stack(energy, 1) + delta, axis=1)
    assert float(jnp.abs(delta).max()) > 0.05
    parts = [
        pi[None, :, t, None] * (aligned[t] @ v.reshape(OBJECTS, -1, CV))
        for t, (_, v) in enumerate(frames)
    ]
    np.testing.assert_allclose(got, sum(parts).reshape(got.shape), atol=2e-5)


def test_a_trajectory_of_keys_is_the_permutation() -> None:
    """A frame whose positions are permuted, keys x 10: each position finds itself."""
    rng = np.random.default_rng(3)
    key, place = 10 * keys("l2", rng), rng.permutation(H * W)
    flat = key.reshape(-1, CK)
    other = flat[place].reshape(H, W, CK)
    memory = rule()
    state = filled(memory, [(key, values(rng)), (other, values(rng))], 4)
    position, weight = memory.trajectories(state, key)
    index = np.asarray(position @ np.array([W, 1])).reshape(H * W, 4)
    np.testing.assert_array_equal(index[:, 0], np.arange(H * W))
    np.testing.assert_array_equal(place[index[:, 1]], np.arange(H * W))
    np.testing.assert_allclose(weight[..., :2], 0.5, atol=1e-3)
    seen = memory._seen(state)

    def aligned(alignment, weights):
        return jnp.einsum("qtm,tmc->qtc", alignment, seen.key)

    z = memory._answers(seen, key, aligned)
    np.testing.assert_allclose(z[:, :2], jnp.stack([flat, flat], 1), atol=1e-3)


# ------------------------------------------------------------------------ invariances

KINDS = (
    {},
    {"agents": "orthogonal", "profile": "softmax"},
    {"agents": "learned", "refine": True},
    {"agents": "none", "per_frame_top_k": 5},
)


@pytest.mark.parametrize("settings", KINDS)
def test_places_and_what_stands_in_free_ones_change_nothing(settings) -> None:
    frames, q = entries("xmem", 4), query("xmem")
    memory = moved(rule(**settings, age_embedding=True), scale=0.15)
    state = filled(memory, frames, 4)
    got = memory.read(state, q)[0]
    assert np.abs(got - host_read("xmem", frames, q)).max() > 1e-3

    padded = memory.reserve(state, 7)
    free = padded.time == 0

    def garbage(x):
        axis = 1 if x.shape[:1] == (OBJECTS,) else 0
        if x.ndim == 0 or not jnp.issubdtype(x.dtype, jnp.floating):
            return x
        return jnp.where(jnp.expand_dims(free, [a for a in range(x.ndim) if a != axis]), jnp.nan, x)

    padded = jax.tree.map(garbage, padded)
    assert bool(jnp.isnan(padded.bank.value).any() and jnp.isnan(padded.bank.key.key).any())
    np.testing.assert_allclose(memory.read(padded, q)[0], got, atol=1e-5)

    order = np.array([2, 0, 3, 1])
    bank = state.bank.replace(
        key=jax.tree.map(lambda x: x[order], state.bank.key), value=state.bank.value[:, order]
    )
    found = None if state.moments is None else state.moments[order]
    swapped = state.replace(bank=bank, time=state.time[order], moments=found)
    np.testing.assert_allclose(memory.read(swapped, q)[0], got, atol=1e-5)


def test_pieces_of_the_query_change_nothing(monkeypatch) -> None:
    frames, q = entries("xmem", 3), query("xmem")
    memory = moved(rule())
    whole = read(memory, frames, q)
    monkeypatch.setattr(tmrn, "_ROWS", 32)  # 70 positions: three pieces, the last one filled up
    np.testing.assert_allclose(read(memory, frames, q), whole, atol=1e-5)


def test_a_bounded_bank_forgets_the_frames_that_left_it() -> None:
    """The agents too: nothing of what went stays behind."""
    frames, q = entries("l2", 6), query("l2")
    memory = moved(rule(max_frames=3), scale=0.15)
    ring = filled(memory, frames, 3)
    assert sorted(ring.time.tolist()) == [1, 5, 6]
    other = moved(rule(), scale=0.15)
    fresh = filled(other, [frames[0], *frames[4:]], 3)
    np.testing.assert_allclose(memory.read(ring, q)[0], other.read(fresh, q)[0], atol=1e-5)


def test_a_frame_that_is_vouched_for_is_the_first_one_where_frames_go() -> None:
    frames = entries("xmem", 4)
    memory = rule(max_frames=3)
    state = memory.keep(filled(memory, frames[:3], 3), *frames[3], masks())
    assert state.time.tolist() == [4, 4, 3]
    np.testing.assert_array_equal(state.bank.key.key[0], frames[3][0].key)
    np.testing.assert_allclose(state.moments[0], state.moments[1])
    grown = rule()
    state = grown.keep(filled(grown, frames[:3], 4), *frames[3], masks())
    assert state.time.tolist() == [1, 2, 3, 4]


@pytest.mark.slow
def test_it_keeps_the_contract() -> None:
    assert "keeps the contract" in str(check_rule("tmrn"))


def test_views() -> None:
    """Arrows end where alignment is best; weights of the frames sum to 1."""
    frames = entries("l2", 3)
    memory = rule()
    state = filled(memory, frames, 4)
    positions = np.zeros((H, W), bool)
    positions[2, 3:5] = True
    moment = Moment(state, state, frames[1][0][None], 0, 0, positions, (0, 5, 10))
    found = memory.views()["trajectories"].at(moment)
    assert found.frames == (0, 5, 10) and found.begin.shape == (3, 2, 2)
    np.testing.assert_array_equal(found.begin[1], [[40, 56], [40, 72]])
    np.testing.assert_array_equal(found.end[1], found.begin[1])  # the frame finds itself
    assert found.names[1].startswith("frame 5: ") and found.weights.shape == (3, 2)
    lines = memory.views()["temporal"].at(moment)
    assert sum(lines.values.values()) == pytest.approx(1, abs=1e-5) and len(lines.values) == 3


def test_per_frame_top_k() -> None:
    frames, q = entries("l2", 2), query("l2")
    everything = read(rule(per_frame_top_k=H * W + 5), frames, q)
    np.testing.assert_allclose(everything, host_read("l2", frames, q), atol=1e-5)
    memory = rule(per_frame_top_k=2)
    state = filled(memory, frames)

    def kept(alignment, weights):
        return (alignment > 0).sum(-1)

    assert (memory._answers(memory._seen(state), q[0], kept) == 2).all()
    assert rule(per_frame_top_k=2).as_trained().per_frame_top_k is None


def test_xmem_s_training_reads_the_first_frame_and_two_others() -> None:
    memory = rule().as_trained()
    assert memory.most_read == 3 and memory.capacity_for(5) == 6
    state = filled(memory, entries("l2"))
    drawn = [memory.drawn(state, jax.random.key(i)).time.tolist() for i in range(20)]
    assert all(sum(t > 0 for t in times) == 3 and times[0] == 1 for times in drawn)
    assert len({tuple(times) for times in drawn}) > 5
    assert rule().drawn(state, jax.random.key(0)) is state


# ------------------------------------------------------------------------ agents


def rows(n=60, c=8, seed=0):
    rng = np.random.default_rng(seed)
    return jnp.asarray(rng.normal(size=(n, c)) * np.linspace(2, 0.5, c), jnp.float32)


def test_svd_agents_span_the_first_right_singular_vectors() -> None:
    f = rows()
    agents = np.asarray(svd_agents(moments(f), 3))
    gram = agents @ agents.T
    np.testing.assert_allclose(gram, np.diag(np.diag(gram)), atol=1e-5)
    _, lengths, vectors = np.linalg.svd(np.asarray(f, np.float64), full_matrices=False)
    unit = agents / np.linalg.norm(agents, axis=1, keepdims=True)
    np.testing.assert_allclose(unit.T @ unit, vectors[:3].T @ vectors[:3], atol=1e-4)
    np.testing.assert_allclose(np.linalg.norm(agents, axis=1), lengths[:3] / np.sqrt(60), rtol=1e-5)
    assert (np.asarray(f).sum(0) @ unit.T > 0).all()
    mirrored = np.asarray(svd_agents(moments(-f), 3))
    np.testing.assert_allclose(mirrored, -agents, atol=1e-5)


def test_the_order_of_rows_and_rows_of_nothing_are_no_matter() -> None:
    f = rows()
    agents = svd_agents(moments(f), 4)
    shuffled = f[np.random.default_rng(1).permutation(60)]
    np.testing.assert_allclose(svd_agents(moments(shuffled), 4), agents, atol=1e-5)
    present = jnp.arange(80) < 60
    padded = jnp.concatenate([f, jnp.zeros((20, 8))])
    chosen = orthogonal_agents(f, jnp.ones(60, bool), 4)
    np.testing.assert_array_equal(orthogonal_agents(padded, present, 4), chosen)
    np.testing.assert_array_equal(orthogonal_agents(shuffled, jnp.ones(60, bool), 4), chosen)


def test_decompositions_are_never_a_batch() -> None:
    """On CPUs with few threads two batches at once wait for each other for ever (training did)."""
    many = jnp.stack([moments(rows(seed=i)) for i in range(3)])
    each = jax.vmap(lambda m: svd_agents(m, 3))
    text = str(jax.make_jaxpr(jax.vmap(each))(jnp.stack([many, many])))
    assert re.findall(r"f32(\[[\d,]+\]) \w+:f32\[[\d,]+\] = eigh\[", text) == ["[8,8]"]
    np.testing.assert_allclose(each(many)[1], svd_agents(many[1], 3), atol=1e-5)


def test_moments_add_up() -> None:
    f = rows(64)
    parts = sum(moments(f[i : i + 16]) for i in range(0, 64, 16))
    scale = float(jnp.abs(moments(f)).max())
    np.testing.assert_allclose(parts, moments(f), atol=1e-4 * scale)
    memory, frames = rule(), entries("l2", 3)
    state = memory.reserve(filled(memory, frames), 5)
    flat = jnp.concatenate([k.reshape(-1, CK) for k, _ in frames])
    kept = memory._seen(state).moments
    np.testing.assert_allclose(kept, moments(flat), rtol=1e-4, atol=1e-2)
    assert float(kept[-1, -1]) == 3 * H * W


def test_orthogonal_agents_are_a_greedy_choice() -> None:
    f = np.asarray(rows(30))
    unit = f / np.linalg.norm(f, axis=1, keepdims=True)
    chosen = [int(np.argmax(np.linalg.norm(f, axis=1)))]
    while len(chosen) < 5:
        chosen.append(int(np.abs(unit @ unit[chosen].T).max(1).argmin()))
    got = orthogonal_agents(jnp.asarray(f), jnp.ones(30, bool), 5)
    np.testing.assert_allclose(got, f[chosen], rtol=1e-6)


def matches(noise, seed, number, gamma, profile="linear", tau=1.0):
    """Share of positions whose best match is right: pixels alone, and with agents."""
    rng, n, ck = np.random.default_rng(seed), 256, 64
    signal = rng.normal(size=(n, 8)) @ rng.normal(size=(8, ck)) / np.sqrt(8)
    place = rng.permutation(n)
    one, two = (signal + noise * rng.normal(size=(n, ck)) for _ in range(2))
    memory = rule(ck=ck, K=number, profile=profile, temporal=False)
    soft = jnp.zeros((1, 16 * 16, 16 * 16))
    key = jnp.asarray(two[place].reshape(16, 16, ck), jnp.float32)
    state = memory.init(key, jnp.zeros((1, 16, 16, CV)), Masks(soft=soft, hard=soft))
    asked = jnp.asarray(one.reshape(16, 16, ck), jnp.float32)
    right = []
    for weight in (0.0, gamma):
        memory.correlation.gamma.set_value(jnp.asarray(weight))
        memory.correlation.log_tau_a.set_value(jnp.log(tau))
        found = memory.trajectories(state, asked)[0][:, :, 0] @ np.array([16, 1])
        right.append((place[np.asarray(found).reshape(-1)] == np.arange(n)).mean())
    return right


def mean_matches(*args, **kwargs):
    return np.mean([matches(args[0], seed, *args[1:], **kwargs) for seed in range(6)], axis=0)


def test_agents_rectify_matches_of_noisy_pixels() -> None:
    alone, together = mean_matches(1.0, 8, 1.0)
    assert alone <= 0.45 and together >= 0.60
    alone, together = mean_matches(0.5, 8, 1.0)
    assert together > alone > 0.9
    # Fewer agents than the signal has dimensions do not.
    alone, together = mean_matches(0.5, 4, 1.0)
    assert together < alone
    # The related papers' form gains less.
    alone, softer = mean_matches(1.0, 8, 32.0, profile="softmax", tau=4.0)
    assert alone + 0.03 < softer < 0.60


# ------------------------------------------------------------------------ gradients


@pytest.mark.parametrize("settings", [*KINDS, {"profile": "softmax"}])
@pytest.mark.parametrize("same", [False, True])
def test_gradients_are_finite(settings, same) -> None:
    memory = moved(rule(**settings), scale=0.1)
    start = jnp.ones((H, W, CK)) if same else keys("l2", np.random.default_rng(0))
    value = values(np.random.default_rng(1))

    def loss(key, q):
        state = memory.reserve(memory.init(key, value, masks()), 4)
        return (memory.read(state, q[None])[0] ** 2).sum()

    for g in jax.grad(loss, argnums=(0, 1))(start, start + 0.0):
        assert np.isfinite(np.asarray(g)).all()


def test_every_weight_of_every_form_learns() -> None:
    frames, q = entries("l2", 3), query("l2")
    for settings in (
        {"agents": "learned", "refine": True, "age_embedding": True},
        {"agents": "orthogonal", "profile": "softmax", "refine": True},
    ):
        memory = moved(rule(**settings), scale=0.2)
        graph, params, rest = nnx.split(memory, nnx.Param, ...)

        def loss(params, graph=graph, rest=rest):
            return (read(nnx.merge(graph, params, rest), frames, q) ** 2).sum()

        for path, g in jax.tree_util.tree_leaves_with_path(jax.grad(loss)(params)):
            name = jax.tree_util.keystr(path)
            assert np.isfinite(np.asarray(g)).all(), name
            # Old ages are not in memory; a key's bias-free start token has no age.
            assert float(jnp.abs(g).max()) > 0, name


def test_sizes() -> None:
    """About 41 000 weights at the published width of keys, 33 000 more with refinement."""

    def size(**settings):
        memory = rule(ck=64, **settings)
        return sum(x.size for x in jax.tree.leaves(nnx.state(memory, nnx.Param)))

    assert abs(size() - 41_000) < 1_000
    assert abs(size(refine=True) - size() - 33_000) < 1_000
    assert size(agents="none", temporal=False) == 0


def test_settings_are_typed_and_checked() -> None:
    known = rule_settings("tmrn")
    assert {"agents", "K", "profile", "temporal", "per_frame_top_k", "refine"} <= set(known)
    assert (known["agents"], known["K"], known["profile"]) == ("svd", 16, "linear")
    for settings, says in (
        ({"agents": "many"}, "agents=many: give one of svd"),
        ({"profile": "round"}, "profile=round"),
        ({"K": 0}, "K=0"),
        ({"per_frame_top_k": 0}, "per_frame_top_k=0"),
        ({"similarity": "cosine"}, "similarity=cosine"),
        ({"heads": 5}, "heads=5"),
        ({"keep_every": 0}, "keep_every=0"),
        ({"temporal": 3}, "True or False"),
        ({"top_k": 20}, "no setting 'top_k'"),
    ):
        with pytest.raises(RdejaxError, match=says):
            rule(**settings)
    assert rule(ck=8, K=16).correlation.number == 8
