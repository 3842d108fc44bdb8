"""The differentiable matching layer: against the Hungarian algorithm, as far as it goes."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import linear_sum_assignment

from rdejax.nn.dmn_matching import greedy, match, solve

GENEROUS = {"gradient_steps": 200, "projection_steps": 200, "rate": 0.5, "result": "last"}


def hungarian(cost: np.ndarray) -> np.ndarray:
    """The best assignment, as a 0/1 matrix."""
    best = np.zeros_like(cost)
    best[linear_sum_assignment(cost)] = 1
    return best


def margin(cost: np.ndarray) -> float:
    """How much better the best assignment is than any other."""
    rows, columns = linear_sum_assignment(cost)
    least, others = cost[rows, columns].sum(), []
    for row, column in zip(rows, columns, strict=True):
        without = cost.copy()
        without[row, column] = 100.0
        again = linear_sum_assignment(without)
        others.append(without[again].sum())
    return min(others) - least


def batch(function, *arrays: np.ndarray) -> np.ndarray:
    return np.asarray(jax.jit(jax.vmap(function))(*map(jnp.asarray, arrays)))


def everything(cost: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return tuple(np.ones((len(cost), n), bool) for n in cost.shape[1:])


@pytest.mark.parametrize("size", [(1, 6), (2, 10), (3, 10), (4, 4), (5, 20), (6, 8)])
def test_with_a_generous_budget_it_is_the_hungarian_algorithm(size) -> None:
    rng = np.random.default_rng(sum(size))
    drawn = (rng.uniform(size=size) for _ in range(10_000))
    costs = np.stack(list(itertools.islice((c for c in drawn if margin(c) >= 0.05), 24)))
    costs = costs.astype(np.float32)
    x = batch(lambda c, r, k: solve(c, r, k, **GENEROUS), costs, *everything(costs))
    wanted = np.stack([hungarian(c) for c in costs])
    np.testing.assert_array_equal(x.argmax(2), wanted.argmax(2))
    # The slowest of the last size is still on its way: 0.012.
    assert np.abs(x - wanted).max() <= (2e-2 if size == (6, 8) else 1e-2)
    np.testing.assert_allclose(x.sum(2), 1, atol=1e-5)
    assert x.min() >= -1e-2 and x.sum(1).max() <= 1 + 1e-2


def clear(size: tuple[int, int], count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Similarities with a true pair of 0.7 to 1 in each row, others of 0 to 0.6."""
    rng = np.random.default_rng(seed)
    similarity = rng.uniform(0, 0.6, (count, *size))
    true = np.stack([rng.permutation(size[1])[: size[0]] for _ in range(count)])
    for s, t in zip(similarity, true, strict=True):
        s[np.arange(size[0]), t] = rng.uniform(0.7, 1, size[0])
    return similarity.astype(np.float32), true


@pytest.mark.parametrize("size", [(2, 10), (5, 50), (8, 9)])
def test_the_published_budget_is_enough_where_similarity_is_clear(size) -> None:
    similarity, true = clear(size, 200, seed=size[1])
    x = batch(solve, -similarity, *everything(similarity))
    wanted = np.stack([hungarian(-s) for s in similarity])
    np.testing.assert_array_equal(wanted.argmax(2), true)
    np.testing.assert_array_equal(x.argmax(2), true)
    assert np.abs(x - wanted).max() <= 0.2
    np.testing.assert_allclose(x.sum(2), 1, atol=1e-6)
    assert x.min() >= -0.02 and x.sum(1).max() <= 1.02


def test_the_published_budget_is_not_enough_on_random_costs() -> None:
    """What the docs do not claim: the greedy start decides, a step of 0.1 moves little."""
    costs = np.random.default_rng(0).uniform(size=(200, 8, 9)).astype(np.float32)
    x = batch(solve, costs, *everything(costs))
    wanted = np.stack([hungarian(c) for c in costs])
    right = (x.argmax(2) == wanted.argmax(2)).all(1).mean()
    assert right < 0.3


def test_gradients_are_those_of_finite_differences() -> None:
    rows = np.array([True, True, False, True])
    columns = np.array([True] * 5 + [False, True])
    with jax.enable_x64(True):
        cost = jnp.asarray(np.random.default_rng(1).uniform(size=(4, 7)))
        weight = jnp.asarray(np.random.default_rng(2).normal(size=(4, 7)))
        flags = jnp.asarray(rows), jnp.asarray(columns)
        value = jax.jit(lambda c: (solve(c, *flags) * weight).sum())
        found = np.asarray(jax.jit(jax.grad(value))(cost))
        step, wanted = 1e-6, np.zeros(cost.shape)
        for at in np.ndindex(cost.shape):
            more, less = cost.at[at].add(step), cost.at[at].add(-step)
            wanted[at] = (value(more) - value(less)) / (2 * step)
    np.testing.assert_allclose(found, wanted, atol=1e-7)
    assert np.abs(found[rows][:, columns]).max() > 1e-2
    assert not found[~rows].any() and not found[:, ~columns].any()


BUDGETS = (
    {},
    {"gradient_steps": 40},
    {"gradient_steps": 3, "projection_steps": 1},
    {"result": "public"},
)


@pytest.mark.parametrize("budget", BUDGETS)
def test_orders_and_padding_change_nothing(budget) -> None:
    rng = np.random.default_rng(3)
    similarity = rng.uniform(-0.2, 1, (4, 9)).astype(np.float32)
    yes = jnp.ones(4, bool), jnp.ones(9, bool)
    run = jax.jit(lambda s, o, p: match(s, o, p, **budget))
    x = np.asarray(run(jnp.asarray(similarity), *yes))
    rows, columns = rng.permutation(4), rng.permutation(9)
    moved = np.asarray(run(jnp.asarray(similarity[rows][:, columns]), *yes))
    dummies = 9 + rows
    np.testing.assert_allclose(moved, x[rows][:, [*columns, *dummies]], atol=1e-6)
    # Empty slots and places, whatever stands in them.
    padded = np.full((6, 12), np.nan, np.float32)
    at_rows, at_columns = np.array([0, 2, 3, 5]), np.array([0, 1, 3, 4, 5, 7, 8, 9, 11])
    padded[np.ix_(at_rows, at_columns)] = similarity
    objects, proposals = np.isin(np.arange(6), at_rows), np.isin(np.arange(12), at_columns)
    wide = np.asarray(run(*map(jnp.asarray, (padded, objects, proposals))))
    np.testing.assert_allclose(wide[np.ix_(at_rows, [*at_columns, *(12 + at_rows)])], x, atol=1e-6)
    assert not wide[~objects].any()
    assert not wide[:, [*~proposals, *~objects]].any()


def test_an_absent_object_takes_its_dummy_and_leaves_the_others_theirs() -> None:
    rng = np.random.default_rng(4)
    similarity = rng.uniform(0, 0.5, (200, 5, 12)).astype(np.float32)
    objects = np.array([True, True, False, True, True])
    proposals = np.isin(np.arange(12), (1, 4, 10), invert=True)
    true = np.stack([rng.permutation(np.flatnonzero(proposals))[:3] for _ in range(200)])
    absent = 3
    for s, t in zip(similarity, true, strict=True):
        s[[0, 1, 4], t] = rng.uniform(0.6, 1, 3)
        s[absent] = rng.uniform(-0.6, -0.1, 12)
    ones = np.ones((200, 1), bool)
    x = batch(match, similarity, ones & objects, ones & proposals)
    np.testing.assert_array_equal(x[:, [0, 1, 4]].argmax(2), true)
    assert (x[:, absent].argmax(1) == 12 + absent).all()
    assert not x[:, 2].any()


def test_the_greedy_start_by_hand() -> None:
    cost = jnp.asarray([[0.2, 0.1, 0.9], [0.3, 0.4, 0.5], [0.6, 0.7, 0.8]])
    entry = jnp.ones((3, 3), bool)
    # Row 0 is the cheapest of columns 0 and 1, row 1 of column 2; row 2 of none.
    np.testing.assert_array_equal(greedy(cost, entry), [[0, 1, 0], [0, 0, 1], [1, 0, 0]])


def test_no_proposals_no_objects() -> None:
    nobody = np.asarray(match(jnp.zeros((2, 3)), jnp.zeros(2, bool), jnp.ones(3, bool)))
    assert not nobody.any()
    nothing = np.asarray(match(jnp.zeros((2, 3)), jnp.ones(2, bool), jnp.zeros(3, bool)))
    np.testing.assert_array_equal(nothing.argmax(1), [3, 4])
    assert np.isfinite(nothing).all()
