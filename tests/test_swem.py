"""What weighted EM promises: properties of the rule itself, apart from the published numbers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import rdejax
from rdejax.errors import RdejaxError
from rdejax.memory.protocol import Masks
from rdejax.memory.registry import make_rule
from rdejax.memory.swem import Bases, class_weights
from rdejax.models import create
from rdejax.models.settings import Settings

H, W, CK, CV, OBJECTS, K = 4, 5, 8, 6, 2, 7
SMALL = {"bases": K, "top_l": 3}


def rule(**settings):
    known = {**SMALL, **settings}
    return make_rule("swem", key_channels=CK, value_channels=CV, rngs=nnx.Rngs(0), **known)


def entry(seed: int, dtype=jnp.float32):
    rng = np.random.default_rng(seed)
    key = jnp.asarray(rng.normal(size=(H, W, CK)), dtype)
    value = jnp.asarray(rng.normal(size=(OBJECTS, H, W, CV)), dtype)
    soft = jnp.asarray(rng.uniform(size=(OBJECTS, 16 * H, 16 * W)), jnp.float32)
    return key, value, Masks(soft=soft, hard=(soft > 0.5).astype(jnp.float32))


def weights_of(masks):
    return class_weights(masks, H, W).reshape(OBJECTS, 2, H * W)


def test_responsibilities_sum_to_the_pixel_weight() -> None:
    memory = rule(iterations=1)
    key, value, masks = entry(1)
    state = memory.init(*entry(0))
    given = weights_of(masks)
    _, _, z = memory.fit(state.first, key.reshape(-1, CK), given)
    assert float(z.min()) >= 0
    np.testing.assert_allclose(z.sum(-1), given, atol=1e-6)


def test_weights_are_never_negative_and_never_above_the_masks() -> None:
    memory = rule()
    key, _, masks = entry(1)
    state = memory.init(*entry(0))
    given = weights_of(masks)
    _, _, z = memory.fit(state.first, key.reshape(-1, CK), given)
    weights = z.sum(-1)
    assert float(weights.min()) >= 0
    assert bool((weights <= given + 1e-6).all())
    assert float(jnp.abs(weights - given).max()) > 1e-3  # the W steps did something


def test_zeta_is_conserved() -> None:
    """The sum over bases grows by the sum of the last pixel weights."""
    memory = rule()
    key, value, masks = entry(1)
    state = memory.init(*entry(0))
    old = state.update
    _, zeta, z = memory.fit(old, key.reshape(-1, CK), weights_of(masks))
    np.testing.assert_allclose(zeta.sum(-1), old.zeta.sum(-1) + z.sum((-1, -2)), rtol=1e-5)
    new = memory.write(state, key, value, masks).update
    np.testing.assert_allclose(new.zeta, zeta, rtol=1e-6)


def test_em_of_a_von_mises_fisher_mixture() -> None:
    """Unit keys, fixed weights, no earlier statistics: the likelihood never falls.

    With equal mixture weights and the concentration 1 / tau, the E step is the posterior and the M
    step, whose mean the next E step normalises, the maximum of the expected likelihood.
    """
    tau = 0.2
    x = jnp.asarray(np.random.default_rng(0).normal(size=(60, CK)), jnp.float32)
    x = x / jnp.linalg.norm(x, axis=-1, keepdims=True)
    weights = jnp.asarray(np.random.default_rng(1).uniform(size=(1, 2, 60)), jnp.float32)
    kappa = jnp.asarray(np.random.default_rng(2).normal(size=(1, 2, K, CK)), jnp.float32)
    bases = Bases(kappa=kappa, nu=jnp.zeros((1, 2, K, CV)), zeta=jnp.full((1, 2, K), 1e-9))
    once = rule(iterations=1, tau=tau)

    def likelihood(kappa):
        unit = kappa / jnp.linalg.norm(kappa, axis=-1, keepdims=True)
        logits = jnp.einsum("pc,odkc->odpk", x, unit) / tau
        return (weights * jax.nn.logsumexp(logits, axis=-1)).sum((-1, -2))

    history = [likelihood(bases.kappa)]
    for _ in range(15):
        kappa, _, _ = once.fit(bases, x, weights)
        bases = bases.replace(kappa=kappa)
        history.append(likelihood(kappa))
    gains = np.diff(np.asarray(history), axis=0)
    assert (gains > -1e-4).all()
    assert (gains[0] > 0.1).all()


def permuted(bases: Bases, order) -> Bases:
    return jax.tree.map(lambda x: x[:, :, order], bases)


def test_the_order_of_bases_changes_nothing() -> None:
    memory = rule()
    state = memory.init(*entry(0))
    order = np.random.default_rng(3).permutation(K)
    other = state.replace(first=permuted(state.first, order), update=permuted(state.update, order))
    q = entry(9)[0][None]
    for e in (entry(1), entry(2)):
        state, other = memory.write(state, *e), memory.write(other, *e)
        np.testing.assert_allclose(
            memory.read(state, q)[0], memory.read(other, q)[0], rtol=1e-3, atol=1e-4
        )


def test_state_has_a_constant_size() -> None:
    memory = rule()
    state = memory.init(*entry(0))
    shapes = jax.tree.map(lambda x: (x.shape, x.dtype), state)
    write = jax.jit(memory.write)
    for t in range(40):
        state = write(state, *entry(t % 5))
    assert jax.tree.map(lambda x: (x.shape, x.dtype), state) == shapes
    assert all(bool(jnp.isfinite(x).all()) for x in jax.tree.leaves(state))


def test_features_are_shares_of_background_and_foreground() -> None:
    memory = rule()
    readout, _ = memory.read(memory.write(memory.init(*entry(0)), *entry(1)), entry(5)[0][None])
    assert readout.shape == (1, OBJECTS, H, W, CV + memory.features)
    share, rest = readout[..., CV : CV + 3], readout[..., CV + 3 :]
    np.testing.assert_allclose(share + rest, 1.0, atol=1e-6)
    assert float(share.min()) >= 0 and float(share.max()) <= 1


def test_only_the_first_set_is_read_before_an_update() -> None:
    """Reading both (then equal) sets would give other features: each base would be there twice."""
    memory = rule()
    state = memory.init(*entry(0))
    q = entry(5)[0]
    readout, _ = memory.read(state, q[None])
    values, features = memory.match(q.reshape(-1, CK), state.first, jnp.ones(K, bool))
    np.testing.assert_allclose(readout[0].reshape(OBJECTS, H * W, -1)[..., :CV], values, atol=1e-5)
    np.testing.assert_allclose(
        readout[0].reshape(OBJECTS, H * W, -1)[..., CV:], features, atol=1e-5
    )


def test_statistics_stay_float32_beside_bfloat16_networks() -> None:
    memory = rule()
    state = memory.init(*entry(0, jnp.bfloat16))
    new = memory.write(state, *entry(1, jnp.bfloat16))
    kinds = {x.dtype for x in jax.tree.leaves((new.first, new.update))}
    assert kinds == {jnp.dtype(jnp.float32)}
    readout, _ = memory.read(new, entry(2, jnp.bfloat16)[0][None])
    assert readout.dtype == jnp.bfloat16
    # Thousands of frames: rounded to bfloat16, zeta would stop growing at 256.
    big = new.replace(update=new.update.replace(zeta=jnp.full((OBJECTS, 2, K), 4096.0)))
    grown = memory.write(big, *entry(1)).update.zeta
    assert float((grown - 4096.0).sum()) > 1.0


def test_gradients_flow_through_values_only() -> None:
    memory = rule()
    key, value, masks = entry(1)
    q = entry(5)[0][None]

    def total(key, value, soft):
        given = Masks(soft=soft, hard=masks.hard)
        state = memory.write(memory.init(*entry(0)), key, value, given)
        return (memory.read(state, q)[0] ** 2).sum()

    to_key, to_value, to_soft = jax.grad(total, (0, 1, 2))(key, value, masks.soft)
    assert float(jnp.abs(to_key).max()) == 0
    assert float(jnp.abs(to_soft).max()) == 0
    assert float(jnp.abs(to_value).max()) > 0

    def asked(query):
        return (memory.read(memory.init(*entry(0)), query)[0] ** 2).sum()

    assert float(jnp.abs(jax.grad(asked)(q)).max()) > 0


def test_tau_can_be_mapped_over() -> None:
    q = entry(5)[0][None]
    taus = (0.02, 0.05, 0.2)

    def run(tau):
        memory = rule(tau=tau)
        return memory.read(memory.write(memory.init(*entry(0)), *entry(1)), q)[0]

    together = jax.vmap(run)(jnp.asarray(taus))
    for tau, mine in zip(taus, together, strict=True):
        np.testing.assert_allclose(mine, run(tau), rtol=1e-3, atol=1e-4)


def test_small_temperatures_do_not_overflow() -> None:
    memory = rule(tau=0.005)
    state = memory.write(memory.init(*entry(0)), *entry(1))
    readout, _ = memory.read(state, entry(5)[0][None])
    assert bool(jnp.isfinite(readout).all())


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"bases": 0}, "bases=0: give 1 or more"),
        ({"iterations": 0}, "iterations=0"),
        ({"top_l": 8}, "top_l=8 is more than bases=7"),
        ({"tau": 0.0}, "tau=0.0: give a positive"),
    ],
)
def test_impossible_settings(settings, sentence) -> None:
    with pytest.raises(RdejaxError, match=sentence):
        rule(**settings)


# ------------------------------------------------------------------ as a system


@pytest.fixture(scope="module")
def model():
    sizes = {"key_channels": 16, "value_channels": 32, "decoder_widths": (16, 16, 16)}
    return create("swem-lite", config=sizes, bases=8, top_l=4, size=None)


@pytest.fixture(scope="module")
def video():
    rng = np.random.default_rng(0)
    frames = rng.integers(0, 255, (4, 48, 64, 3), np.uint8)
    mask = np.zeros((48, 64), np.uint8)
    mask[8:24, 8:24], mask[24:40, 32:56] = 1, 2
    return frames, mask


def test_the_same_video_gives_the_same_masks(model, video) -> None:
    one = rdejax.segment_video(model, *video, return_probs=True)
    two = rdejax.segment_video(model, *video, return_probs=True)
    np.testing.assert_array_equal(one, two)


def test_given_bases(model, video) -> None:
    """The default bases, given, change nothing; others do; each object gets its own."""
    frames, mask = video
    default = jax.random.normal(jax.random.key(0), (2, 8, 16)).swapaxes(1, 2)
    bases = np.stack([default, default])
    plain = rdejax.segment_video(model, frames, mask, return_probs=True)
    same = rdejax.segment_video(model, frames, mask, return_probs=True, initial_bases=bases)
    np.testing.assert_allclose(plain, same, atol=1e-4)
    other = bases.copy()
    other[1] = np.random.default_rng(1).normal(size=(2, 16, 8))
    changed = rdejax.segment_video(model, frames, mask, return_probs=True, initial_bases=other)
    assert np.abs(changed - plain).max() > 1e-3
    # By id, and with the objects' ids exchanged.
    swapped = np.where(mask > 0, 3 - mask, 0).astype(np.uint8)
    by_id = rdejax.segment_video(
        model, frames, swapped, return_probs=True, initial_bases={1: other[1], 2: other[0]}
    )
    np.testing.assert_allclose(by_id[:, [0, 2, 1]], changed, atol=1e-3)


@pytest.mark.slow
def test_given_bases_of_objects_that_come_later(model, video) -> None:
    frames, mask = video
    masks = {0: np.where(mask == 1, mask, 0), 2: np.where(mask == 2, mask, 0)}
    bases = np.random.default_rng(1).normal(size=(2, 2, 16, 8)).astype(np.float32)
    probs = rdejax.segment_video(model, frames, masks, return_probs=True, initial_bases=bases)
    plain = rdejax.segment_video(model, frames, masks, return_probs=True)
    assert probs.shape == plain.shape and np.abs(probs - plain)[3].max() > 1e-3


@pytest.mark.parametrize(
    ("bases", "sentence"),
    [
        (np.zeros((1, 2, 16, 8)), "initial_bases has 1 entries, but the masks have 2 objects"),
        (np.zeros((2, 2, 8, 16)), r"one object have shape \[2, 8, 16\]; this model takes"),
        ({1: np.zeros((2, 16, 8))}, "initial_bases has no entry for object 2"),
    ],
)
def test_wrong_bases(model, video, bases, sentence) -> None:
    with pytest.raises(RdejaxError, match=sentence):
        rdejax.segment_video(model, *video, initial_bases=bases)


def test_other_rules_take_no_bases(video) -> None:
    with pytest.raises(RdejaxError, match="'initial_bases' is unknown here; with memory 'rde'"):
        rdejax.segment_video(rdejax.load_model("rde-lite"), *video, initial_bases=np.zeros(1))


def test_rules_without_features_are_refused_by_the_fusion() -> None:
    with pytest.raises(RdejaxError, match="memory 'bank' cannot be used with 'swem-lite'"):
        create("swem-lite", memory="bank")


def test_swem_reads_for_bodies_without_a_fusion(video) -> None:
    model = rdejax.load_model("rde-lite", memory="swem", tau=0.2)
    masks = rdejax.segment_video(model, *video)
    assert masks.shape == (4, 48, 64)
    assert isinstance(model.settings, Settings) and dict(model.settings.memory_settings) == {
        "tau": 0.2
    }


def test_rules_that_learn_name_what_is_missing(tmp_path) -> None:
    from rdejax.models.weights import save_weights

    path = tmp_path / "bank.safetensors"
    save_weights(path, create("rde-lite", memory="bank"))
    with pytest.raises(RdejaxError, match="has no weights for memory 'rde', which learns some"):
        rdejax.load_model(str(path), memory="rde")
