"""DMN-AOA's objective: detection, matching, coarse and refined masks.

Published by DMM-Net: squared error of the feature similarity against the greedy assignment by true
overlap, and soft IoU of the matched and of the refined mask, weighted alike. The detector's losses
and the shares of true previous masks and oracle proposals are this project's.
"""

import dataclasses
import functools
from typing import Any, ClassVar, Literal

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Key

from rdejax.data.batch import Clip
from rdejax.errors import RdejaxError
from rdejax.models import System
from rdejax.models.dmn_aoa import DMN, DMNFeatures, DMNState, Matched
from rdejax.models.protocol import aggregated, one_frame
from rdejax.nn.dmn_boxes import mask_iou
from rdejax.nn.dmn_networks import coarse_logits, full_size
from rdejax.nn.dmn_proposals import STRIDE, Proposals, oracle
from rdejax.propagate.scanning import scan
from rdejax.train.detection import detection_losses
from rdejax.train.losses import one_hot_masks
from rdejax.train.objectives.protocol import ClipOutputs, Objective, one_of
from rdejax.train.objectives.registry import register
from rdejax.train.objectives.unroll import encode_clip, kept, with_background

# A proposal that overlaps an object less is not what it should be matched with.
_MATCHED = 0.3
_EPS = 1e-6


@register("dmn")
@dataclasses.dataclass(frozen=True)
class DMNObjective(Objective):
    """Losses of the clip's frames as the system goes through them, and of the detector.

    The refined masks are scored by the recipe's loss (cross-entropy and `soft_iou`).

    Attributes:
      stage: "detector" trains trunk, pyramid and detector only; what is scored as the clip's masks
        are then the proposals that overlap the objects most, so that the logged IoU is what
        matching could reach. "joint": all.
      detection: weight of the detector's losses.
      matching: weight of the similarities' squared error.
      coarse: weight of the soft IoU of the matched masks.
      true_previous: share of frames whose previous masks are the true ones.
      oracle: share of clips whose proposals are the true masks, moved a little, among others.
      jitter: how much they are moved, see `rdejax.nn.dmn_proposals.oracle`.
    """

    name: ClassVar[str] = "dmn"
    stage: Literal["joint", "detector"] = "joint"
    detection: float = 1.0
    matching: float = 1.0
    coarse: float = 1.0
    true_previous: float = 0.75
    oracle: float = 0.2
    jitter: float = 0.05

    def __post_init__(self) -> None:
        one_of("objective dmn:", "stage", self.stage, ("joint", "detector"))
        for name in ("true_previous", "oracle"):
            if not 0 <= getattr(self, name) <= 1:
                raise RdejaxError(
                    f"objective dmn: {name}={getattr(self, name)}: give a share from 0 to 1"
                )

    def check(self, model: System, frames: int) -> None:
        """See `Objective`.

        Raises:
          RdejaxError: a system without proposals.
        """
        del frames
        if not isinstance(model, DMN):
            raise RdejaxError(
                f"objective 'dmn' needs a system that matches proposals, which {model.name!r} does "
                f"not; train it with objective {model.objective!r}"
            )

    def notes(self, model: System) -> list[str]:
        """See `Objective`."""
        if self.stage == "detector":
            return ["stage=detector: matching, template memory and RefineNet are not trained"]
        return []

    def __call__(
        self,
        model: System,
        clip: Clip,
        key: Key[Array, ""],
        *,
        remat: bool = False,
        dtype: Any = jnp.float32,
    ) -> ClipOutputs:
        """See `Objective`."""
        assert isinstance(model, DMN)
        run = _ClipRun(self, model, clip, key, remat, dtype)
        detection = run.detection()
        if self.stage == "detector":
            logits, terms = run.best_proposals(), {}
            weights = jnp.zeros(logits.shape[0])
        else:
            logits, terms = run.frames()
            weights = jnp.full(logits.shape[0], 1.0 / logits.shape[0])
        auxiliary = self.detection * sum(detection.values(), jnp.zeros(()))
        auxiliary += sum((getattr(self, n) * v for n, v in terms.items()), jnp.zeros(()))
        return ClipOutputs(logits, weights, auxiliary, {**detection, **terms})


class _ClipRun:
    """One clip's unrolling; what its parts share."""

    def __init__(
        self,
        objective: DMNObjective,
        model: DMN,
        clip: Clip,
        key: Key[Array, ""],
        remat: bool,
        dtype: Any,
    ):
        self.objective, self.clip = objective, clip
        self.model = model.as_trained()
        self.keep = kept(remat)
        self.keys = jax.random.split(key, 4)
        features = encode_clip(model, clip.frames, remat=remat, dtype=dtype)
        objects = clip.valid.shape[0]
        self.truth = jax.vmap(lambda labels: one_hot_masks(labels, objects))(clip.labels)
        t, o, h, w = self.truth.shape
        small = self.truth.reshape(t, o, h // STRIDE, STRIDE, w // STRIDE, STRIDE)
        self.small = small.mean((3, 5))
        self.features = self._with_oracle(features)

    def _with_oracle(self, features: DMNFeatures) -> DMNFeatures:
        share, model = self.objective.oracle, self.model
        if not share or self.objective.stage == "detector":
            return features
        own = features.proposals
        true = oracle(self.small, own.valid.shape[1], self.keys[0], jitter=self.objective.jitter)
        chosen = jax.random.bernoulli(self.keys[1], share)
        proposals: Proposals = jax.tree.map(lambda a, b: jnp.where(chosen, a, b), true, own)
        return model.with_proposals(features.f4, features.f8, features.f16, proposals)

    def detection(self) -> dict[str, Float[Array, ""]]:
        """Losses of the detector, means over the clip's frames."""
        head, f = self.model.detector, self.features
        dense = head.dense(f.f8, f.f16)
        keys = jax.random.split(self.keys[2], len(self.truth))
        one = functools.partial(detection_losses, head)
        return jax.tree.map(jnp.mean, jax.vmap(one)(dense, f.f8, self.truth, keys))

    def best_proposals(self) -> Float[Array, "t c H W"]:
        """Logits of the proposals that overlap the objects most."""

        def one(masks: Array, valid: Array, truth: Array) -> Array:
            overlap = jnp.where(valid[None], mask_iou(truth, masks), -1.0)
            p = jax.nn.sigmoid(full_size(coarse_logits(masks[jnp.argmax(overlap, axis=1)])))
            return aggregated(jnp.where(self.clip.valid[:, None, None], p, 0.0), self.clip.valid)

        proposals = lax.stop_gradient(self.features.proposals)
        return jax.vmap(one)(proposals.masks[1:], proposals.valid[1:], self.small[1:])

    def frames(self) -> tuple[Float[Array, "t c H W"], dict[str, Float[Array, ""]]]:
        """Logits of the frames after the first, and the losses of matching, means over them."""
        count = len(self.truth)
        first = one_frame(self.features, 0)

        def start(masks: Array) -> DMNState:
            return self.model.start(first, with_background(masks), self.clip.valid)

        state = self.keep(start)(self.clip.perturbed.astype(jnp.float32))
        true = jax.random.bernoulli(self.keys[3], self.objective.true_previous, (count - 1,))
        inputs = (
            jax.tree.map(lambda x: x[1:, None], self.features),
            self.small[1:],
            self.small[:-1],
            true,
        )
        parts = []
        if count > 2:
            some = jax.tree.map(lambda x: x[:-1], inputs)
            state, out = scan(self.keep(self._frame), state, some)
            parts.append(out)
        last = jax.tree.map(lambda x: x[-1], inputs)
        _, out = self.keep(functools.partial(self._frame, memorize=False))(state, last)
        parts.append(jax.tree.map(lambda x: x[None], out))
        logits, matching, coarse = jax.tree.map(lambda *x: jnp.concatenate(x), *parts)
        return logits, {"matching": matching.mean(), "coarse": coarse.mean()}

    def _frame(
        self, state: DMNState, inputs: tuple, memorize: bool = True
    ) -> tuple[DMNState, tuple[Array, Array, Array]]:
        now, truth, before, true = inputs
        previous = before.reshape(state.previous.shape)
        known: DMNState = state.replace(  # type: ignore[attr-defined]
            previous=jnp.where(true, previous, state.previous)
        )
        matched = self.model.match(known, now)
        logits = self.model.refined(known, now, matched.coarse)
        probs = jax.nn.softmax(logits, axis=0)
        state = self.model.seen(known, probs)
        if memorize:
            state = self.model.memorize(state, now, probs)
        losses = (
            matching_loss(matched, now.proposals.masks[0], truth, self.clip.valid),
            coarse_loss(matched.coarse, truth, self.clip.valid),
        )
        return state, (logits, *losses)


def true_assignment(
    overlap: Float[Array, "o p"], objects: Bool[Array, " o"], proposals: Bool[Array, " p"]
) -> Float[Array, "o p"]:
    """0/1: pairs of largest overlap one after the other, each object and proposal once."""
    left = jnp.where(objects[:, None] & proposals[None], overlap, -1.0)
    chosen = jnp.zeros_like(left)
    for _ in range(left.shape[0]):
        place = jnp.argmax(left)
        o, p = place // left.shape[1], place % left.shape[1]
        hit = (jnp.arange(left.shape[0]) == o)[:, None] & (jnp.arange(left.shape[1]) == p)[None]
        chosen = jnp.where(hit & (left >= _MATCHED), 1.0, chosen)
        gone = (jnp.arange(left.shape[0]) == o)[:, None] | (jnp.arange(left.shape[1]) == p)[None]
        left = jnp.where(gone, -1.0, left)
    return chosen


def matching_loss(
    matched: Matched,
    masks: Float[Array, "p h w"],
    truth: Float[Array, "o h w"],
    valid: Bool[Array, " o"],
) -> Float[Array, ""]:
    """Mean squared error of the similarities against the true assignment.

    Args:
      matched: of one frame.
      masks: of the proposals.
      truth: true masks.
      valid: slots that hold an object.
    """
    target = true_assignment(mask_iou(truth, masks), valid, matched.proposals)
    entry = valid[:, None] & matched.proposals[None]
    error = jnp.where(entry, (matched.similarity - target) ** 2, 0.0)
    return error.sum() / jnp.maximum(entry.sum(), 1)


def coarse_loss(
    coarse: Float[Array, "o h w"], truth: Float[Array, "o h w"], valid: Bool[Array, " o"]
) -> Float[Array, ""]:
    """1 - sum(y m) / sum(y + m - y m), mean over the objects that are in the frame."""
    inter = (coarse * truth).sum((1, 2))
    union = (coarse + truth - coarse * truth).sum((1, 2))
    there = valid & (truth.max((1, 2)) > 0.5)
    loss = jnp.where(there, 1.0 - inter / (union + _EPS), 0.0)
    return loss.sum() / jnp.maximum(there.sum(), 1)
