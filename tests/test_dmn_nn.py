"""DMN-AOA's parts: boxes, suppression, alignment, template memory, proposals, losses."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from rdejax.errors import RdejaxError
from rdejax.memory.protocol import Masks
from rdejax.memory.registry import make_rule
from rdejax.nn.dmn_alignment import ObjectAlignment, translation, unit
from rdejax.nn.dmn_boxes import (
    box_iou,
    box_of,
    crop,
    crop_masks,
    generalised_iou,
    mask_iou,
    paste,
    suppress,
)
from rdejax.nn.dmn_proposals import checked_arrays, from_arrays, oracle
from rdejax.train.detection import _targets, focal_loss
from rdejax.train.objectives.dmn import true_assignment


def normal(*shape: int, seed: int = 0) -> jax.Array:
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


# ------------------------------------------------------------------------ boxes


def test_crops_are_means_of_bilinear_samples() -> None:
    features = normal(6, 8, 2)
    box = np.array([13.0, 9.0, 45.0, 40.0])
    found = crop(features, jnp.asarray(box, jnp.float32)[None], 8, 3)[0]
    padded = np.pad(np.asarray(features), ((0, 1), (0, 1), (0, 0)), mode="edge")

    def sample(y: float, x: float) -> np.ndarray:
        y, x = np.clip(y / 8 - 0.5, 0, 5), np.clip(x / 8 - 0.5, 0, 7)
        i, j = int(y), int(x)
        a, b = y - i, x - j
        top = padded[i, j] * (1 - b) + padded[i, j + 1] * b
        return top * (1 - a) + (padded[i + 1, j] * (1 - b) + padded[i + 1, j + 1] * b) * a

    for i in range(3):
        for j in range(3):
            parts = [
                sample(
                    box[1] + (i + (k + 0.5) / 2) / 3 * (box[3] - box[1]),
                    box[0] + (j + (m + 0.5) / 2) / 3 * (box[2] - box[0]),
                )
                for k in range(2)
                for m in range(2)
            ]
            np.testing.assert_allclose(found[i, j], np.mean(parts, 0), atol=1e-5)


def test_what_is_pasted_is_what_was_cropped() -> None:
    y, x = np.mgrid[:32, :40]
    mask = ((y - 16) ** 2 / 80 + (x - 22) ** 2 / 140 < 1).astype(np.float32)[None]
    box, seen = box_of(jnp.asarray(mask), 4)
    assert bool(seen[0])
    small = crop_masks(jnp.asarray(mask), box, 4, 28)
    back = paste(small, box, 4, (32, 40))
    assert float(mask_iou(back, jnp.asarray(mask))[0, 0]) > 0.97
    away = jnp.asarray([[60.0, 20.0, 60.0, 20.0]])  # no area
    assert not np.asarray(paste(small, away, 4, (32, 40))).any()


def test_boxes_of_masks() -> None:
    masks = np.zeros((4, 8, 10), np.float32)
    masks[0, 2:5, 3:9] = 1
    masks[1, 1, 1], masks[1, 5, 5] = 0.3, 0.2  # never above one half: the part above its own half
    masks[3, 7, 9] = 0.9
    boxes, seen = box_of(jnp.asarray(masks), 4)
    wanted = [[12, 8, 36, 20], [4, 4, 24, 24], [0, 0, 40, 32], [36, 28, 40, 32]]
    np.testing.assert_array_equal(boxes, wanted)
    assert seen.tolist() == [True, False, False, True]


def test_overlaps() -> None:
    a = jnp.asarray([[0.0, 0, 10, 10], [20, 20, 30, 30]])
    b = jnp.asarray([[0.0, 0, 10, 20], [20, 20, 30, 30]])
    np.testing.assert_allclose(box_iou(a, b), [[0.5, 0], [0, 1]], atol=1e-6)
    np.testing.assert_allclose(generalised_iou(a, b), [0.5, 1], atol=1e-6)
    apart = generalised_iou(a, b[::-1])[0]
    np.testing.assert_allclose(apart, (0 - (900 - 200) / 900), atol=1e-6)


def test_suppression_is_the_greedy_one() -> None:
    rng = np.random.default_rng(0)
    low = rng.uniform(0, 60, (50, 2))
    boxes = np.concatenate([low, low + rng.uniform(10, 40, (50, 2))], 1).astype(np.float32)
    scores = rng.normal(size=50).astype(np.float32)
    overlap = np.asarray(box_iou(jnp.asarray(boxes), jnp.asarray(boxes)))
    wanted: list[int] = []
    for i in np.argsort(-scores):
        if all(overlap[i, j] <= 0.3 for j in wanted):
            wanted.append(int(i))
    for count in (4, 40):
        run = jax.jit(lambda b, s, n=count: suppress(b, s, n, 0.3))
        chosen, valid = run(jnp.asarray(boxes), jnp.asarray(scores))
        assert valid.sum() == min(count, len(wanted))
        assert np.asarray(chosen)[np.asarray(valid)].tolist() == wanted[:count]


# ------------------------------------------------------------------------ alignment


@pytest.mark.parametrize(
    ("width", "tau", "most"), [(256, 0.05, 1e-5), (256, 0.1, 1e-2), (64, 0.1, 2e-2)]
)
def test_alignment_recovers_a_permutation(width, tau, most) -> None:
    """Random unit features, theta the identity: what is aligned is the template again."""
    template = unit(normal(1, 196, width))
    order = np.random.default_rng(1).permutation(196)
    proposal = template[:, order]
    weights = translation(template, proposal, jnp.ones((1, 196)), tau)[0, 0]
    assert np.abs(np.asarray(weights @ proposal[0] - template[0])).max() <= most
    np.testing.assert_array_equal(order[np.asarray(weights.argmax(1))], np.arange(196))
    aligned = (unit(weights @ proposal[0]) * template[0]).sum(1).mean()
    apart = (proposal[0] * template[0]).sum(1).mean()
    assert float(aligned) > 0.999 and abs(float(apart)) < 0.05


def _identity(width: int, tau: float = 0.1) -> ObjectAlignment:
    module = ObjectAlignment(width, width, tau, rngs=nnx.Rngs(0))
    module.theta.kernel[...] = jnp.eye(width)[None, None]
    return module


@pytest.mark.parametrize("change", ["flipped", "turned", "shifted"])
def test_alignment_finds_moved_objects_among_others(change) -> None:
    """One of nine proposals is the object, its parts elsewhere on the grid, and noise on all."""
    side, width, trials = 8, 32, 20
    module = _identity(width)
    rng = np.random.default_rng(2)
    right = {True: 0, False: 0}
    run = {a: jax.jit(lambda *x, a=a: module.similarity(*x, align=a)) for a in right}
    for _ in range(trials):
        grids = rng.normal(size=(9, side, side, width))
        template = grids[3] + 0.3 * rng.normal(size=grids[3].shape)
        moves = {
            "flipped": lambda g: g[:, :, ::-1],
            "turned": lambda g: np.rot90(g, axes=(1, 2)),
            "shifted": lambda g: np.roll(g, 3, axis=2),
        }
        moved = moves[change](grids).reshape(9, -1, width)
        arguments = (
            template.reshape(1, -1, width),
            np.ones((1, side**2)),
            moved,
            np.ones((9, side**2)),
        )
        arrays = [jnp.asarray(x, jnp.float32) for x in arguments]
        for align in right:
            right[align] += int(run[align](*arrays)[0].argmax() == 3)
    assert right[True] == trials
    assert right[False] < trials / 2


def test_alignment_looks_at_the_foreground_only() -> None:
    module = _identity(8)
    template, proposal = normal(2, 9, 8), normal(3, 9, 8, seed=1)
    foreground = jnp.asarray(np.random.default_rng(0).uniform(0.3, 1, (3, 9)), jnp.float32)
    foreground = foreground.at[0, :4].set(0.01).at[2].set(0.0)
    run = jax.jit(module.similarity)
    mask = jnp.ones((2, 9))
    s = run(template, mask, proposal, foreground)
    changed = run(template, mask, proposal.at[0, :4].set(7.0), foreground)
    np.testing.assert_array_equal(s, changed)
    assert np.asarray(s[:, 2] == 0).all()  # no foreground, no similarity
    weights = np.asarray(module.weights(template, proposal, foreground))
    np.testing.assert_allclose(weights[:, :2].sum(-1), 1, atol=1e-6)
    # Twice the share, twice the weight.
    half = np.asarray(module.weights(template, proposal, foreground.at[1, 0].multiply(0.5)))
    ratio = (half[:, 1, :, 0] / half[:, 1, :, 1]) / (weights[:, 1, :, 0] / weights[:, 1, :, 1])
    np.testing.assert_allclose(ratio, 0.5, rtol=1e-4)


def test_alignment_has_finite_gradients_where_all_is_zero() -> None:
    module = _identity(8)

    def loss(x, y, g):
        return module.similarity(x, jnp.ones((1, 4)), y, g).sum()

    for g in (jnp.ones((2, 4)), jnp.zeros((2, 4))):
        zeros = jnp.zeros((1, 4, 8)), jnp.zeros((2, 4, 8))
        for gradient in jax.jit(jax.grad(loss, (0, 1, 2)))(*zeros, g):
            assert np.isfinite(gradient).all()


# ------------------------------------------------------------------------ template memory


def _entry(seed: int):
    masks = jax.nn.sigmoid(3 * normal(2, 3, 4, seed=seed + 100))
    masks = jnp.where(masks > 0.4, masks, 0.0)
    big = jnp.repeat(jnp.repeat(masks, 16, 1), 16, 2)
    return normal(3, 4, 8, seed=seed), normal(2, 3, 4, 5, seed=seed + 50), Masks(big, big), masks


def test_a_template_is_read_from_the_object_s_own_positions() -> None:
    rule = make_rule("template", key_channels=8, value_channels=5, rngs=nnx.Rngs(0), slots=3)
    entries = [_entry(seed) for seed in range(2)]
    state = rule.write(rule.init(*entries[0][:3]), *entries[1][:3])
    query = normal(2, 6, 8, seed=9)
    out = np.asarray(rule.complete(state, query))
    for o in range(2):
        key = np.concatenate([np.asarray(e[0]).reshape(-1, 8) for e in entries])
        value = np.concatenate([np.asarray(e[1][o]).reshape(-1, 5) for e in entries])
        mask = np.concatenate([np.asarray(e[3][o]).ravel() for e in entries])
        scores = np.asarray(query[o]) @ key.T / np.sqrt(8)
        weights = np.where(mask >= 0.02, mask * np.exp(scores), 0)
        np.testing.assert_allclose(
            out[o], weights / weights.sum(1, keepdims=True) @ value, atol=1e-5
        )
    # Nothing that is not an object's changes anything, not even what is not a number.
    nowhere = (state.mask < 0.02)[..., None]
    broken = state.replace(value=jnp.where(nowhere, jnp.nan, state.value))
    np.testing.assert_array_equal(rule.complete(broken, query), out)
    key = state.key.at[2].set(jnp.nan)  # an empty slot
    np.testing.assert_array_equal(rule.complete(state.replace(key=key), query), out)
    gone = state.replace(mask=jnp.zeros_like(state.mask))
    np.testing.assert_array_equal(rule.complete(gone, query), 0)


def test_the_first_frame_stays_and_the_oldest_other_goes() -> None:
    rule = make_rule("template", key_channels=8, value_channels=5, rngs=nnx.Rngs(0), slots=3)
    entries = [_entry(seed)[:3] for seed in range(6)]
    state = rule.init(*entries[0])
    kept = []
    for entry in entries[1:]:
        state = rule.write(state, *entry)
        kept.append(rule.contents(state).writes)
    assert kept == [(0, 1), (0, 1, 2), (0, 3, 2), (0, 3, 4), (0, 5, 4)]
    np.testing.assert_array_equal(state.key[1], entries[5][0])
    for settings in ({"slots": 1}, {"least": 0.0}):
        with pytest.raises(RdejaxError, match="give"):
            make_rule("template", key_channels=8, value_channels=5, rngs=nnx.Rngs(0), **settings)


# ------------------------------------------------------------------------ proposals


def _outside():
    rng = np.random.default_rng(0)
    masks = np.zeros((2, 3, 20, 30), np.float32)
    masks[0, 0, 5:15, 6:18], masks[0, 1, 2:6, 20:28], masks[1, 2, 8:18, 2:12] = 1, 0.9, 1
    boxes = np.zeros((2, 3, 4), np.float32)
    boxes[0, 0], boxes[0, 1], boxes[1, 2] = (
        (0.2, 0.25, 0.6, 0.75),
        (0.66, 0.1, 0.94, 0.3),
        (0, 0.4, 0.4, 0.9),
    )
    scores = rng.uniform(0.1, 0.9, (2, 3)).astype(np.float32) * masks.any((2, 3))
    return {"proposal_masks": masks, "proposal_boxes": boxes, "proposal_scores": scores}


def test_an_outside_detector_s_proposals_lie_where_they_should() -> None:
    arrays = checked_arrays(_outside())
    inside = np.zeros((96, 128), bool)
    inside[8:88, 4:124] = True  # 80 x 120 pixels, four to a sample of the masks
    found = from_arrays({k: jnp.asarray(v) for k, v in arrays.items()}, jnp.asarray(inside), 5)
    assert found.valid.tolist() == [[True, True, False], [False, False, True]]
    np.testing.assert_allclose(
        found.masks[0, 0, 2:22, 1:31], arrays["proposal_masks"][0, 0], atol=1e-5
    )
    assert not np.asarray(found.masks[0, 0, :2]).any()
    np.testing.assert_allclose(found.boxes[0, 0], [28, 28, 76, 68], atol=1e-4)
    # Without boxes they are those of the masks; without scores empty masks are no proposals.
    alone = {"proposal_masks": jnp.asarray(arrays["proposal_masks"])}
    other = from_arrays(alone, jnp.asarray(inside), 5)
    np.testing.assert_array_equal(other.valid, found.valid)
    np.testing.assert_allclose(other.boxes[0, 0], [28, 28, 76, 68], atol=1e-4)
    # Of more than there is room for the best stay.
    best = from_arrays({k: jnp.asarray(v) for k, v in arrays.items()}, jnp.asarray(inside), 1)
    np.testing.assert_array_equal(best.scores[:, 0], arrays["proposal_scores"].max(1))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"proposal_masks": None}, "without proposal_masks: give the masks"),
        ({"proposal_masks": np.zeros((2, 20, 30))}, r"has shape \[2, 20, 30\]; give \[frames"),
        (
            {"proposal_boxes": np.zeros((2, 4, 4))},
            r"beside masks \[2, 3, 20, 30\]; give \[2, 3, 4\]",
        ),
        ({"proposal_scores": np.full((2, 3), 1.5)}, "values from 1.5 to 1.5; give numbers from 0"),
        ({"proposal_masks": np.full((2, 3, 20, 30), np.nan)}, "values from nan to nan"),
        ({"proposal_masks": np.full((2, 3, 20, 30), 255, np.uint8)}, "from 255 to 255; give numb"),
        ({"proposal_boxes": _outside()["proposal_boxes"] * 480}, "shares of the frame, 0 to 1"),
        ({"proposal_boxes": _outside()["proposal_boxes"][..., ::-1]}, "left below right"),
        ({"proposal_masks": np.full((2, 3, 20, 30), "a")}, "no numbers"),
    ],
)
def test_malformed_proposals_are_named(change, says) -> None:
    arrays = {k: v for k, v in {**_outside(), **change}.items() if v is not None}
    with pytest.raises(RdejaxError, match=says):
        checked_arrays(arrays)


def test_oracle_proposals() -> None:
    masks = np.zeros((2, 2, 16, 24), np.float32)
    masks[:, 0, 2:9, 3:10], masks[0, 1, 8:14, 12:22] = 1, 1
    run = jax.jit(lambda m, k, j: oracle(m, 6, k, jitter=j), static_argnums=2)
    found = run(jnp.asarray(masks), jax.random.key(0), 0.0)
    overlap = jax.vmap(mask_iou)(jnp.asarray(masks), found.masks)
    np.testing.assert_array_equal(overlap.max(2), [[1, 1], [1, 0]])
    assert found.valid.sum(1).tolist() == [6, 5]  # an object that is not there is no proposal
    assert overlap.argmax(2)[0, 0] != overlap.argmax(2)[1, 0]  # in another order in each frame
    moved = run(jnp.asarray(masks), jax.random.key(0), 0.1)
    near = np.asarray(jax.vmap(mask_iou)(jnp.asarray(masks), moved.masks).max(2))
    assert 0.3 < near[0, 0] < 1
    with pytest.raises(RdejaxError, match="cannot hold"):
        oracle(jnp.asarray(masks), 1, jax.random.key(0))


# ------------------------------------------------------------------------ losses


def test_focal_loss_by_hand() -> None:
    logits = jnp.asarray([2.0, -1.0])
    p = 1 / (1 + np.exp(-np.asarray(logits)))
    wanted = [-0.25 * (1 - p[0]) ** 2 * np.log(p[0]), -0.75 * p[1] ** 2 * np.log(1 - p[1])]
    np.testing.assert_allclose(focal_loss(logits, jnp.asarray([True, False])), wanted, rtol=1e-5)


def test_targets_are_in_the_middle_of_boxes_at_the_stride_of_their_size() -> None:
    boxes = jnp.asarray([[8.0, 8, 40, 40], [0, 0, 96, 96], [50, 50, 53, 90], [0, 0, 9, 9]])
    there = jnp.asarray([True, True, True, False])
    positive, target = _targets(boxes, there, 96, 96)
    fine, coarse = (
        np.asarray(positive[:144]).reshape(12, 12),
        np.asarray(positive[144:]).reshape(6, 6),
    )
    np.testing.assert_array_equal(np.argwhere(fine[:5, :5]).min(0), [1, 1])
    assert fine[:5, :5].sum() == 16 and coarse.sum() == 16 and coarse[1:5, 1:5].all()
    assert fine[5:].sum() >= 3  # a slim one, too
    assert (np.asarray(target[144:])[np.asarray(positive[144:])] == [0, 0, 96, 96]).all()


def test_true_assignment_takes_the_largest_overlaps_first() -> None:
    overlap = jnp.asarray([[0.9, 0.8, 0.1], [0.95, 0.4, 0.0], [0.2, 0.1, 0.25], [1.0, 1.0, 1.0]])
    valid = jnp.asarray([True, True, True, False])
    chosen = true_assignment(overlap, valid, jnp.ones(3, bool))
    # Row 2 overlaps what is left too little.
    np.testing.assert_array_equal(chosen, [[0, 1, 0], [1, 0, 0], [0, 0, 0], [0, 0, 0]])
