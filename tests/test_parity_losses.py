"""Losses and gradients of the clip step against the published PyTorch code, term by term."""

import dataclasses
import functools
import json
from typing import Any

import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers_reference import REFERENCE, filled_model

from rdejax.convert.archs import ARCHS
from rdejax.convert.names import targets
from rdejax.data.batch import Clip
from rdejax.data.config import ClipConfig
from rdejax.models import create
from rdejax.models.weights import shapes_of
from rdejax.train.clip_loss import batch_loss
from rdejax.train.config import LossConfig, OptimizerConfig, TrainConfig
from rdejax.train.losses import cross_entropy
from rdejax.train.objectives.rde import RDEObjective, frame_weights
from rdejax.train.step import TrainState, init_state, make_gradients, merge

# All weights of the auxiliary terms are 1 in the reference's run.
PUBLIC = ("convention=public", "guidance=1.0", "consistency=1.0")
KEYS = jax.random.split(jax.random.key(0), 2)
OPTIMIZER = OptimizerConfig(freeze_stride=0, freeze_depthwise=False, train_norm=True)


@functools.cache
def vectors() -> dict[str, np.ndarray]:
    with np.load(REFERENCE / "rde_losses.npz") as file:
        return {name: file[name] for name in file.files}


@functools.cache
def numbers(net: str) -> dict[str, Any]:
    return json.loads((REFERENCE / "rde_losses.json").read_text())[net]


def the_batch(frames: int, objects: int) -> Clip:
    """The two samples: the clip, and the clip mirrored with object 1 only."""
    v = vectors()
    clip = v["frames"][:frames]
    labels = v["labels"][:, :frames]
    return Clip(
        frames=np.stack([clip, clip[:, :, ::-1]]),
        labels=np.where(labels <= objects, labels, 0),
        perturbed=v["pgt"][:, :objects],
        valid=v["selector"][:, :objects] > 0,
    )


class Run:
    """Loss terms and gradients of one network, compiled once for all steps."""

    def __init__(self, net: str, frames: int, objects: int, objective: tuple[str, ...]):
        single = net == "rde_single"
        self.net = net
        self.config = TrainConfig(
            system="rde",
            single_object=single,
            clip=ClipConfig(frames=frames, objects=objects),
            batch=2,
            objective="rde",
            objective_settings=objective,
            optimizer=OPTIMIZER,
        )
        self.model = filled_model(net)
        _, self.state = init_state(self.model, self.config)
        self.batch = the_batch(frames, objects)
        self._gradients = jax.jit(make_gradients(self.model, self.config))

    def at(self, step: int) -> tuple[dict[str, float], dict[str, np.ndarray]]:
        state = TrainState(**{**vars(self.state), "step": jnp.asarray(step)})
        metrics, grads = self._gradients(state, self.batch)
        flat = flax.traverse_util.flatten_dict(grads)
        by_path = {"/".join(map(str, path)): np.asarray(leaf) for path, leaf in flat.items()}
        names = targets(shapes_of(self.model), ARCHS["rde"].rules)
        torch = {n: (t.path, t.layout) for n, t in names.items() if t.path in by_path}
        return (
            {k: float(v) for k, v in metrics.items()},
            {name: (by_path[path]) for name, (path, _) in torch.items()},
        )


@functools.cache
def multi() -> Run:
    return Run("rde", 5, 2, PUBLIC)


def check_terms(metrics: dict[str, float], want: dict[str, Any], guidance: float) -> None:
    assert metrics["segmentation"] == pytest.approx(want["segmentation_total"], rel=2e-5)
    assert metrics["consistency"] == pytest.approx(want["L_MC"], rel=1e-4)
    assert metrics["guidance"] == pytest.approx(guidance, rel=1e-4, abs=1e-12)
    assert metrics["loss"] == pytest.approx(want["total"], rel=2e-5)


def check_gradients(grads: dict[str, np.ndarray], want: dict[str, Any], skip: str = "\0") -> None:
    norms = {k: v for k, v in want["grad_norms"].items() if not k.startswith(skip)}
    assert set(norms) == {k for k in grads if not k.startswith(skip)}
    if "grad_norm_total" in want:
        total = np.sqrt(sum(np.sum(np.square(g, dtype=np.float64)) for g in grads.values()))
        assert total == pytest.approx(want["grad_norm_total"], rel=1e-3)
    for name, norm in norms.items():
        mine = np.linalg.norm(grads[name].astype(np.float64))
        assert mine == pytest.approx(norm, rel=5e-3, abs=1e-4), name


def test_public_weights_halve_the_running_total() -> None:
    losses = np.array([3.0, 5.0, 7.0, 11.0])
    total = 0.0
    for loss in losses:
        total = (total + loss) / 2
    weights = frame_weights(4, "public", "alternate")
    assert float(jnp.dot(weights, jnp.asarray(losses))) == pytest.approx(total)
    assert frame_weights(4, "paper", "alternate").tolist() == [0.5] * 4
    assert float(frame_weights(2, "paper", "stm").sum()) == 1.0


def test_terms_and_gradients_equal_the_published_code() -> None:
    run, want = multi(), numbers("rde")
    metrics, grads = run.at(0)
    check_terms(metrics, want["it_0"], want["it_0"]["L_UG_f2"] + want["it_0"]["L_UG_f4"])
    check_gradients(grads, want["it_0"])
    v = vectors()
    pred = np.transpose(grads["decoder.pred.weight"], (3, 2, 0, 1))
    np.testing.assert_allclose(pred, v["grad_it0/decoder.pred.weight"], rtol=2e-3, atol=2e-3)
    proj = np.transpose(grads["key_proj.key_proj.weight"], (3, 2, 0, 1))[::4, ::16]
    reference = v["grad_it0/key_proj.key_proj.weight"]
    assert np.abs(proj - reference).max() < 5e-3 * np.abs(reference).max()


def test_bootstrapped_terms_and_gradients_equal_the_published_code() -> None:
    want = numbers("rde")["it_45000"]
    metrics, grads = multi().at(45_000)
    check_terms(metrics, want, want["L_UG_f2"] + want["L_UG_f4"])
    check_gradients(grads, want)


def test_logits_of_every_frame_equal_the_published_code() -> None:
    run, v = multi(), vectors()
    batch = jax.tree.map(jnp.asarray, run.batch)

    @jax.jit
    def outputs(params, fixed):
        model = merge(run.model, run.config, params, fixed)
        return jax.vmap(lambda clip: RDEObjective()(model, clip, KEYS[0]).logits)(batch)

    logits = np.asarray(outputs(run.state.params, run.state.fixed))
    for t in range(1, 5):
        mine, reference = logits[:, t - 1, :, ::4, ::4], v[f"logits_{t}"]
        np.testing.assert_allclose(mine[0], reference[0], atol=2e-3, rtol=1e-4)
        # The second sample has one object; the absent one can win nowhere, here and there.
        np.testing.assert_allclose(mine[1, :2], reference[1, :2], atol=2e-3, rtol=1e-4)
        loss = cross_entropy(jnp.asarray(logits[0, t - 1]), jnp.asarray(run.batch.labels[0, t]))
        assert np.isfinite(loss).all()


@pytest.mark.slow
@pytest.mark.parametrize("step", [0, 45_000])
def test_single_object_stage_equals_the_published_code(step: int) -> None:
    objective = ("patterns=stm", *PUBLIC)
    run, want = Run("rde_single", 3, 1, objective), numbers("rde_single")[f"it_{step}"]
    metrics, grads = run.at(step)
    check_terms(metrics, want, 0.0)
    check_gradients(grads, want, skip="memory")


def test_paper_convention_leaves_absent_objects_out() -> None:
    """An unused slot changes nothing, which is not so of the published code."""
    model = create("rde-lite")
    one = jax.tree.map(lambda x: jnp.asarray(x[1:]), the_batch(3, 2))
    alone = dataclasses.replace(one, perturbed=one.perturbed[:, :1], valid=one.valid[:, :1])

    @jax.jit
    def total(batch: Clip):
        keys = KEYS[: len(batch.frames)]
        return batch_loss(
            model, batch, keys, jnp.zeros((), jnp.int32), RDEObjective(), LossConfig()
        )

    (a, terms), (b, _) = total(one), total(alone)
    assert float(a) == pytest.approx(float(b), rel=1e-5) and float(terms["consistency"]) > 0
