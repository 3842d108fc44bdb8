"""DMN-AOA as a system: templates, oracle proposals, exactness, state, training; at tiny sizes."""

import runpy
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

import rdejax
from rdejax.data.batch import Clip
from rdejax.errors import RdejaxError
from rdejax.infer.beside import read_beside
from rdejax.models import create
from rdejax.models.protocol import given_probs, one_frame
from rdejax.models.weights import save_weights
from rdejax.nn.dmn_networks import coarse_logits
from rdejax.nn.dmn_proposals import Proposals, oracle
from rdejax.propagate.programs import segment_blocks
from rdejax.propagate.slots import Layout
from rdejax.propagate.stream import Stream
from rdejax.train.clip_loss import clip_loss
from rdejax.train.config import LossConfig
from rdejax.train.initial_weights import completed
from rdejax.train.objectives.dmn import DMNObjective
from rdejax.train.system import objective_of

TINY = {
    "channels": 16,
    "key_channels": 8,
    "value_channels": 8,
    "match_channels": 8,
    "grid": 4,
    "proposals": 6,
    "mask_convs": 1,
    "refine_widths": [16, 8, 8],
}
T = 12
SIZE = (48, 64)


def system(**settings):
    return create("dmn-lite", config=TINY, **{"every": 2, "size": None, "slots": 3, **settings})


def busy(model):
    """The same with weights off the start, so that every part has a say."""
    rng = np.random.default_rng(0)

    def moved(x):
        return x + jnp.asarray(0.05 * rng.normal(size=x.shape), x.dtype)

    for name in ("completion", "refine"):
        part = getattr(model, name)
        nnx.update(part, jax.tree.map(moved, nnx.state(part, nnx.Param)))
    return model


@pytest.fixture(scope="module")
def model():
    return busy(system())


@pytest.fixture(scope="module")
def video():
    """Frames uint8 [T, 48, 64, 3] of two squares moving over noise, and all masks."""
    rng = np.random.default_rng(0)
    frames = np.repeat(rng.integers(0, 100, (1, *SIZE, 3)), T, 0).astype(np.uint8)
    masks = np.zeros((T, *SIZE), np.uint8)
    for t in range(T):
        for k, (y, x) in enumerate(((4, 4 + 4 * (t // 2)), (28, 44 - 4 * (t // 2)))):
            frames[t, y : y + 16, x : x + 16] = (220, 60, 20) if k else (30, 200, 240)
            frames[t, y + 4 : y + 8, x : x + 16 : 4 + 4 * k] = 20
            masks[t, y : y + 16, x : x + 16] = (4, 9)[k]
    return frames, masks


def probabilities(model, frames, masks, **options):
    return rdejax.segment_video(model, frames, masks, return_probs=True, **options)


@pytest.fixture(scope="module")
def whole(model, video):
    frames, masks = video
    return probabilities(model, frames, masks[0])


def oracle_arrays(masks, count=5):
    """Arrays of an outside detector that sees the true masks, among ellipses."""
    one_hot = np.stack([masks == 4, masks == 9], 1).astype(np.float32)
    small = one_hot.reshape(T, 2, SIZE[0] // 4, 4, SIZE[1] // 4, 4).mean((3, 5))
    found = jax.jit(oracle, static_argnums=1)(jnp.asarray(small), count, jax.random.key(0))
    return {
        "proposal_masks": np.asarray(found.masks),
        "proposal_scores": np.asarray(found.scores),
    }


# ------------------------------------------------------------------------ exactness


@pytest.mark.parametrize("chunk", [1, 5])
def test_chunks_are_the_whole_video(model, video, whole, chunk) -> None:
    frames, masks = video
    stream, parts = rdejax.stream(model, chunk=chunk), []
    for t in range(0, T, chunk):
        given = {0: masks[0]} if t == 0 else None
        parts.append(stream.push_probs(frames[t : t + chunk], given)[1])
    np.testing.assert_allclose(np.concatenate(parts), whole, atol=2e-5)


@pytest.mark.parametrize("layout", [Layout(groups=1, slots=4), Layout(groups=3, slots=2)])
def test_padding_changes_nothing(model, video, whole, layout) -> None:
    frames, masks = video
    probs = Stream(model, layout=layout).push_probs(frames, {0: masks[0]})[1]
    np.testing.assert_allclose(probs, whole, atol=2e-5)


def test_objects_permute(model, video, whole) -> None:
    frames, masks = video
    swapped = np.where(masks[0] == 4, 9, np.where(masks[0] == 9, 4, 0)).astype(np.uint8)
    probs = probabilities(model, frames, swapped)
    np.testing.assert_allclose(probs[:, [0, 2, 1]], whole, atol=2e-5)


def test_saved_and_restored_it_goes_on_the_same(model, video, tmp_path) -> None:
    frames, masks = video
    unbroken = rdejax.stream(model)
    unbroken.push(frames[:7], {0: masks[0]})
    unbroken.save(tmp_path / "state")
    resumed = rdejax.stream(model).restore(tmp_path / "state")
    np.testing.assert_array_equal(
        resumed.push_probs(frames[7:])[1], unbroken.push_probs(frames[7:])[1]
    )


@pytest.mark.slow
def test_a_late_object_is_not_noticed_by_the_frames_before(model, video) -> None:
    frames, masks = video
    first, late = np.where(masks[0] == 4, 4, 0), np.where(masks[5] == 9, 9, 0)
    stream = rdejax.stream(model)
    before = stream.push_probs(frames[:5], {0: first})[1]
    state = jax.tree.map(np.asarray, stream.state)
    _, probs = stream.push_probs(frames[5:6], {0: late})
    assert (probs[0, 2] > 0.5).sum() == (late == 9).sum()
    alone = probabilities(model, frames[:5], first)
    np.testing.assert_allclose(before, alone, atol=2e-5)
    # What the old group holds is as before, but for the masks of the new frame.
    kept, new = stream.state.memory, state.memory
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(a[:1], b), kept, new)
    assert stream.state.memory.count.tolist() == [3, 1]
    stream.push(frames[6:])
    assert stream.state.memory.count.tolist() == [6, 4]
    # Its query and memory are those of a run that begins with it.
    own = rdejax.stream(model)
    own.push(frames[5:6], {0: late})
    fresh = own.state
    again = rdejax.stream(model)
    again.push(frames[:6], {0: first, 5: late})
    pick = []  # values see the other objects' masks, too
    for group, state in ((1, again.state), (0, fresh)):
        found = (state.memory.key, state.memory.mask, state.query)
        pick.append(jax.tree.map(lambda x, g=group: x[g], found))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-5), *pick)


def test_the_state_has_the_same_shapes_and_nothing_is_compiled_again(model, video) -> None:
    frames, masks = video
    stream = rdejax.stream(model)
    stream.push(frames[:1], {0: masks[0]})
    stream.push(frames[1:10])
    size, programs = stream.state_bytes, segment_blocks._cache_size()
    for _ in range(3):
        stream.push(frames[1:10])
    assert stream.state_bytes == size
    assert segment_blocks._cache_size() == programs
    assert int(stream.state.memory.count[0]) > stream.state.memory.key.shape[1] == 3


@pytest.mark.slow
def test_the_state_does_not_grow_in_10_000_frames(model, video) -> None:
    frames, masks = video
    stream = rdejax.stream(model)
    stream.push(frames[:1], {0: masks[0]})
    stream.push(frames[1:10])
    size = stream.state_bytes
    many = np.concatenate([frames] * 10)
    while stream.time < 10_000:
        stream.push(many)
    assert stream.state_bytes == size
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(stream.state))


def test_padding_of_a_block_changes_no_state(model, video) -> None:
    frames, masks = video
    features, _, state = begun(model, frames[:4], masks[0])
    real = jnp.array([True, True, False, False])
    some, _ = jax.jit(model.segment)(state, features, real)
    two, _ = jax.jit(model.segment)(state, jax.tree.map(lambda x: x[:2], features))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), some, two)


# ------------------------------------------------------------------------ templates


def begun(model, frames, *masks):
    """Features of frames, probabilities of each mask, and the state after the first frame."""
    mean, std = (jnp.asarray(v).reshape(1, 1, 1, 3) for v in (model.mean, model.std))
    features = jax.jit(model.encode)((jnp.asarray(frames) / 255.0 - mean) / std)
    present = jnp.ones(2, bool)
    probs = [
        given_probs(jnp.asarray(np.stack([m == 4, m == 9]), jnp.float32), present) for m in masks
    ]
    return features, probs, jax.jit(model.start)(one_frame(features, 0), probs[0])


def test_templates_are_completed_by_later_frames() -> None:
    """The first frame shows the left half, a memorised one the right half too."""
    rng = np.random.default_rng(3)
    model = system(template_query="first")
    # Values are the features themselves, and so is what is read of them.
    c, cv = TINY["channels"], TINY["value_channels"]
    model.completion.kernel[...] = jnp.asarray(rng.normal(size=(cv, c)), jnp.float32)
    frames = np.full((2, *SIZE, 3), 90, np.uint8)
    left, right = (rng.integers(0, 255, (32, 16, 3)) for _ in range(2))
    frames[0, 8:40, 16:32] = left
    frames[1, 8:40, 16:32], frames[1, 8:40, 32:48] = left, right
    half, full = np.zeros((2, *SIZE), np.uint8)
    half[8:40, 16:32], full[8:40, 16:48] = 4, 4
    features, probs, state = begun(model, frames, half, full)
    memorised = jax.jit(model.memorize)(state, one_frame(features, 1), probs[1])
    # The memory's values of the whole object, as a template of it would hold them.
    whole = memorised.memory.value[0, 0, 1]
    there = memorised.memory.mask[0, 0, 1] >= 0.02
    target = jnp.where(there[..., None], whole, 0).sum((0, 1)) / there.sum()

    def cosine(state) -> float:
        read = jax.vmap(model.memory.complete)(state.memory, state.query.key)[0, 0].mean(0)
        return float(read @ target / jnp.linalg.norm(read) / jnp.linalg.norm(target))

    assert cosine(memorised) > cosine(state) + 1e-3
    template = jax.jit(model.template)
    now = one_frame(features, 1)
    assert np.abs(template(memorised, now)[0][0] - template(state, now)[0][0]).max() > 1e-3


def test_what_is_not_the_object_s_changes_no_template(model, video) -> None:
    frames, masks = video
    features, probs, state = begun(model, frames[:2], masks[0], masks[1])
    now = one_frame(features, 1)
    state = jax.jit(model.memorize)(state, now, probs[1])
    memory = state.memory

    def changed(inside):
        def one(m):
            hit = ((m.mask >= 0.02) == inside)[..., None]
            return m.replace(value=jnp.where(hit, 1e3, m.value))

        return state.replace(memory=jax.vmap(one)(memory))

    template = jax.jit(model.template)
    plain = template(state, now)[0]
    np.testing.assert_array_equal(template(changed(False), now)[0], plain)
    assert (template(changed(True), now)[0] != plain).any()


def test_an_object_that_is_not_seen_asks_as_before(model, video) -> None:
    frames, masks = video
    features, probs, state = begun(model, frames[:5], masks[0], masks[4], 0 * masks[0])
    memorize = jax.jit(model.memorize)
    now = one_frame(features, 4)
    seen, gone = memorize(state, now, probs[1]), memorize(state, now, probs[2])
    assert (seen.query.phi != state.query.phi).any()
    jax.tree.map(np.testing.assert_array_equal, gone.query, state.query)
    first = system(template_query="first")
    kept = jax.jit(first.memorize)(state, now, probs[1])
    jax.tree.map(np.testing.assert_array_equal, kept.query, state.query)


# ------------------------------------------------------------------------ oracle proposals


def coarsely(a, b):
    """IoU at stride 4, which coarse masks are of: at the second pixel of four."""
    a, b = a[1::4, 1::4], b[1::4, 1::4]
    return (a & b).sum() / (a | b).sum()


@pytest.mark.parametrize("query", ["latest", "first", "current"])
def test_with_true_masks_among_the_proposals_coarse_masks_are_true(video, query) -> None:
    frames, masks = video
    model = system(refine=False, template_query=query)
    found = rdejax.segment_video(model, frames, masks[0], **oracle_arrays(masks))
    overlaps = [coarsely(found[t] == k, masks[t] == k) for t in range(1, T) for k in (4, 9)]
    assert overlaps == [1.0] * 22


def test_features_alone_tell_the_objects_apart(video) -> None:
    """Previous masks of swapped identity mislead nobody with lambda = 0, and do with lambda = 1."""
    frames, masks = video
    arrays = {k: jnp.asarray(v) for k, v in oracle_arrays(masks).items()}
    truth = jnp.asarray(np.stack([masks[3] == 4, masks[3] == 9]), jnp.float32)
    for weight, right in ((0.0, True), (1.0, False)):
        model = system(iou_weight=weight)
        features, _, state = begun(model, frames[:1], masks[0])
        mean, std = (jnp.asarray(v).reshape(1, 1, 1, 3) for v in (model.mean, model.std))
        images = (jnp.asarray(frames[3:4]) / 255.0 - mean) / std
        now = jax.jit(model.encode)(images, None, {k: v[3:4] for k, v in arrays.items()})
        swapped = state.replace(previous=state.previous[:, ::-1])
        coarse = jax.jit(model.match)(swapped, now).coarse
        same = np.asarray((coarse > 0.5) == (truth[:, ::4, ::4] > 0.5)).all()
        assert bool(same) == right


def test_a_fresh_refinenet_returns_the_coarse_mask(video) -> None:
    frames, masks = video
    fresh = system()
    features, _, state = begun(fresh, frames[:2], masks[0])
    coarse = jnp.asarray(np.random.default_rng(0).uniform(size=(2, 12, 16)), jnp.float32)
    now = one_frame(features, 1)
    pyramid = (now.f4, now.f8, now.f16)
    previous = state.previous[0]
    logits = jax.jit(fresh.refine)(coarse, previous, state.first[0], pyramid)
    np.testing.assert_array_equal(logits, coarse_logits(coarse))
    with_, without = (
        rdejax.segment_video(m, frames, masks[0], **oracle_arrays(masks))
        for m in (fresh, system(refine=False))
    )
    np.testing.assert_array_equal(with_, without)


def test_an_object_without_a_like_proposal_is_absent(video) -> None:
    """Its coarse mask is empty; the other one's is not."""
    frames, masks = video
    model = system(refine=False, iou_weight=1.0)  # similar is what overlaps the previous mask
    arrays = oracle_arrays(np.where(masks == 4, 4, 0))
    small = (masks[:, None, 1::4, 1::4] == 4) == (arrays["proposal_masks"] > 0.5)
    arrays["proposal_scores"] = arrays["proposal_scores"] * small.all((2, 3))
    assert (arrays["proposal_scores"] > 0).sum() == T  # of object 4 only
    found = rdejax.segment_video(model, frames, masks[0], **arrays)
    assert coarsely(found[1] == 4, masks[1] == 4) == 1
    assert not (found[1:] == 9).any()


def test_invalid_proposals_change_nothing(model, video, whole) -> None:
    frames, masks = video
    features, _, state = begun(model, frames[:2], masks[0])
    now = one_frame(features, 1)
    own = now.proposals
    wide = jax.tree.map(lambda x: jnp.concatenate([x, x[:, :2]], axis=1), own)
    wide = wide.replace(valid=wide.valid.at[:, -2:].set(False))
    wide = wide.replace(masks=wide.masks.at[:, -2:].set(0.7))
    other = jax.jit(model.with_proposals)(now.f4, now.f8, now.f16, Proposals(**vars(wide)))
    segment = jax.jit(model.segment)
    np.testing.assert_allclose(segment(state, now)[1], segment(state, other)[1], atol=1e-5)


# ------------------------------------------------------------------------ outside proposals


def test_proposals_come_from_a_file(model, video, tmp_path) -> None:
    frames, masks = video
    path = tmp_path / "a.npz"
    arrays = oracle_arrays(masks)
    np.savez_compressed(path, **arrays)
    read = read_beside(path, model, T)
    assert read.keys() == arrays.keys()
    whole = probabilities(model, frames, masks[0], **read)
    stream, parts = rdejax.stream(model), []
    for t in range(0, T, 5):
        given = {0: masks[0]} if t == 0 else None
        part = {k: v[t : t + 5] for k, v in read.items()}
        parts.append(stream.push_probs(frames[t : t + 5], given, part)[1])
    np.testing.assert_allclose(np.concatenate(parts), whole, atol=2e-5)
    arrays["proposal_scores"] = arrays["proposal_scores"] * 100
    np.savez(path, **arrays)
    with pytest.raises(
        RdejaxError, match=r"a\.npz: proposal_scores holds values from .* to 100; g"
    ):
        read_beside(path, model, T)
    with pytest.raises(RdejaxError, match="proposal_scores holds"):
        rdejax.segment_video(model, frames, masks[0], **arrays)
    np.savez(path, boxes=np.zeros((T, 2, 4)))
    with pytest.raises(RdejaxError, match="takes proposal_masks, proposal_boxes, proposal_scores"):
        read_beside(path, model, T)


# ------------------------------------------------------------------------ settings


def test_settings(model, video, tmp_path) -> None:
    save_weights(tmp_path / "a.safetensors", system(align=False, iou_weight=0.5, slots=4))
    loaded = rdejax.load_model(str(tmp_path / "a.safetensors"))
    assert (loaded.settings.align, loaded.settings.iou_weight) == (False, 0.5)
    assert loaded.memory.slots == 4 and float(loaded.lam) == 0.5
    again = rdejax.load_model(str(tmp_path / "a.safetensors"), align=True, iou_weight=None)
    np.testing.assert_allclose(again.lam, 0.3, atol=1e-4)
    for wrong, says in (
        ({"template_query": "last"}, "give one of latest, first, current"),
        ({"align": 1}, "give True or False"),
        ({"iou_weight": 2}, "share from 0 to 1"),
        ({"memory": "bank", "slots": None}, "whose objects read their own pixels"),
    ):
        settings = {k: v for k, v in {"slots": 3, **wrong}.items() if v is not None}
        with pytest.raises(RdejaxError, match=says):
            create("dmn-lite", config=TINY, **settings)


@pytest.mark.slow
def test_every_switch_has_an_effect(model, video) -> None:
    frames, masks = video
    features, _, state = begun(model, frames[:2], masks[0])
    now = one_frame(features, 1)
    found = jax.jit(model.match)(state, now)
    for change in ({"dynamic": False}, {"align": False}, {"iou_weight": 0.9}):
        other = jax.jit(busy(system(**change)).match)(state, now)
        parts = (found.similarity, found.assignment), (other.similarity, other.assignment)
        assert any(np.abs(a - b).max() > 1e-3 for a, b in zip(*parts, strict=True)), change
    logits = jax.jit(model.refined)(state, now, found.coarse)
    coarse = jax.jit(system(refine=False).refined)(state, now, found.coarse)
    assert np.abs(logits - coarse).max() > 1e-3


def test_published_sizes() -> None:
    shapes = nnx.eval_shape(lambda: create("dmn-aoa"))
    assert shapes.key_encoder.channels == (256, 512, 1024)
    assert shapes.detector.mask_convs[3].kernel.shape == (3, 3, 256, 256)
    assert shapes.template_key.kernel.shape == (3, 3, 256, 128)
    assert shapes.alignment.theta.kernel.shape == (1, 1, 256, 64)
    assert shapes.memory.slots == 8 and shapes.settings.every == 5


# ------------------------------------------------------------------------ training


@pytest.fixture(scope="module")
def clip():
    rng = np.random.default_rng(1)
    frames = rng.integers(0, 120, (3, 64, 64, 3)).astype(np.uint8)
    labels = np.zeros((3, 64, 64), np.uint8)
    for t in range(3):
        labels[t, 8 : 8 + 28, 4 + 4 * t : 36 + 4 * t] = 1
        labels[t, 44:60, 40 - 4 * t : 60 - 4 * t] = 2
    frames[labels == 1], frames[labels == 2] = (220, 90, 30), (40, 90, 230)
    given = np.stack([labels[0] == 1, labels[0] == 2, labels[0] > 2]).astype(np.uint8)
    valid = np.array([True, True, False])
    return jax.tree.map(jnp.asarray, Clip(frames, labels, given, valid))


def loss_of(objective, clip, graph, rest):
    def loss(params, key):
        model = nnx.merge(graph, params, rest)
        return clip_loss(
            model,
            clip,
            key,
            jnp.zeros((), jnp.int32),
            objective,
            LossConfig(soft_iou=1.0, top_p=1.0),
        )

    return jax.jit(jax.value_and_grad(loss, has_aux=True))


def test_every_weight_learns_and_the_loss_falls(clip) -> None:
    model = busy(system())
    graph, params, rest = nnx.split(model, nnx.Param, ...)
    objective = DMNObjective(oracle=0.5, true_previous=0.5)
    step = loss_of(objective, clip, graph, rest)
    (_, terms), gradients = step(params, jax.random.key(0))
    assert {"objectness", "box", "mask", "matching", "coarse", "iou"} <= terms.keys()
    flat = jax.tree_util.tree_leaves_with_path(nnx.to_pure_dict(gradients))
    assert all(np.isfinite(g).all() for _, g in flat)
    names = {jax.tree_util.keystr(path): float(jnp.abs(g).max()) for path, g in flat}
    still = [n for n, g in names.items() if not g > 0]
    assert not still, still
    optimizer = optax.adam(4e-3)
    moments, losses = optimizer.init(params), []
    update = jax.jit(optimizer.update)
    for _ in range(25):
        (loss, _), gradients = step(params, jax.random.key(0))
        updates, moments = update(gradients, moments)
        params = optax.apply_updates(params, updates)
        losses.append(float(loss))
    assert losses[-1] < 0.75 * losses[0]


def test_the_detector_stage_leaves_the_rest_alone(clip) -> None:
    model = system()
    graph, params, rest = nnx.split(model, nnx.Param, ...)
    step = loss_of(DMNObjective(stage="detector"), clip, graph, rest)
    (_, terms), gradients = step(params, jax.random.key(0))
    grads = nnx.to_pure_dict(gradients)
    for name in ("refine", "template_value", "alignment", "completion"):
        assert all(not np.asarray(g).any() for g in jax.tree.leaves(grads[name])), name
    for name in ("detector", "pyramid", "key_encoder"):
        assert any(np.asarray(g).any() for g in jax.tree.leaves(grads[name])), name
    assert "matching" not in terms and 0 <= float(terms["iou"]) <= 1


def test_objectives_that_do_not_fit_are_refused() -> None:
    with pytest.raises(RdejaxError, match="needs a system that matches proposals"):
        DMNObjective().check(create("rde-lite"), 3)
    with pytest.raises(RdejaxError, match="give one of joint, detector"):
        DMNObjective(stage="all")
    with pytest.raises(RdejaxError, match="oracle=2: give a share"):
        DMNObjective(oracle=2)


def test_recipes() -> None:
    for name in ("dmn_lite_detector", "dmn_lite_joint", "dmn_aoa_detector", "dmn_aoa_joint"):
        path = Path(__file__).parents[1] / "configs" / f"{name}.py"
        config = runpy.run_path(str(path))["config"]
        assert config.system == ("dmn-lite" if "lite" in name else "dmn-aoa")
        stage = "detector" if "detector" in name else "joint"
        assert objective_of(config).stage == stage  # type: ignore[attr-defined]


def test_weights_of_another_system_on_the_same_trunk_fit() -> None:
    told: list[str] = []
    model = system()
    weights = {"key_encoder/stem/kernel": np.zeros((3, 3, 3, 32), np.float32)}
    completed(model, weights, source="other", tell=told.append)
    assert "overlap (1 weights)" in told[0]


# ------------------------------------------------------------------------ corrections, pictures


def test_a_correction_counts_in_the_next_frame(model, video) -> None:
    """What it says is the previous mask, and, kept, the first one and the first template."""
    frames, masks = video
    features, probs, state = begun(model, frames[:3], masks[0], masks[2][:, ::-1])
    now = one_frame(features, 2)
    for name in ("memorize", "keep"):
        after = jax.jit(getattr(model, name))(state, now, probs[1])
        wanted = probs[1][1:].reshape(2, 12, 4, 16, 4).mean((2, 4))
        np.testing.assert_allclose(after.previous[0], wanted, atol=1e-6)
        first = after.first[0] if name == "keep" else state.first[0]
        np.testing.assert_allclose(after.first[0], first, atol=1e-6)
        kept = after.memory.key[0, 0] == now.key[0]
        assert bool(kept.all()) == (name == "keep")
    np.testing.assert_allclose(after.first, after.previous, atol=1e-6)


def test_views(model, video, tmp_path) -> None:
    from PIL import Image

    from rdejax.visualize.__main__ import main

    frames, masks = video
    save_weights(tmp_path / "a.safetensors", model)
    (tmp_path / "v").mkdir()
    for t, frame in enumerate(frames[:7]):
        Image.fromarray(frame).save(tmp_path / "v" / f"{t:05d}.png")
    Image.fromarray(masks[0]).save(tmp_path / "m.png")
    common = [str(tmp_path / "v"), "--mask", str(tmp_path / "m.png"), "--width", "80"]
    common += ["--checkpoint", str(tmp_path / "a.safetensors"), "--object", "9"]
    for name, columns in (("relevance", 3), ("alignment", 2), ("refinement", 2)):
        out = tmp_path / f"{name}.png"
        pixel = ["--pixel", "50", "36"] if name == "relevance" else []
        main(["view", *common, "--name", name, "--count", "2", "--output", str(out), *pixel])
        assert Image.open(out).width >= columns * 80
    with pytest.raises(SystemExit):
        main(["view", *common, "--name", "no", "--output", str(tmp_path / "x.png")])
