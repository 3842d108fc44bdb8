"""DMN-AOA: proposals are matched with templates that a memory completes, then refined.

Liang et al., "Video Object Segmentation with Dynamic Memory Networks and Adaptive Object
Alignment", ICCV 2021. Published are the parts and their order: detection, matching with dynamic
templates, adaptive alignment, DMM-Net's matching layer (10 and 5 steps, rate 0.1), a RefineNet. No
code and no equations were found: those of the networks, the template memory and the alignment are
this project's reconstruction. Each module says which is which.
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Bool, Float

from rdejax.errors import RdejaxError
from rdejax.memory.protocol import Masks
from rdejax.memory.template import TemplateMemory
from rdejax.memory.views import Remembered, View
from rdejax.models.dmn_state import (
    DMNConfig,
    DMNFeatures,
    DMNLiteConfig,
    DMNSettings,
    DMNSizes,
    DMNState,
    Matched,
    TemplateQuery,
)
from rdejax.models.dmn_views import dmn_views
from rdejax.models.grouped import SharedKeys
from rdejax.models.protocol import (
    System,
    add_groups,
    aggregated,
    frame_by_frame,
    merge_groups,
)
from rdejax.models.registry import register
from rdejax.models.settings import Settings
from rdejax.nn.dmn_alignment import LEAST, ObjectAlignment
from rdejax.nn.dmn_boxes import box_of, crop, crop_masks, mask_iou, paste
from rdejax.nn.dmn_detector import DenseHead, best_boxes
from rdejax.nn.dmn_matching import match
from rdejax.nn.dmn_networks import (
    Pyramid,
    RefineNet,
    TemplateValueEncoder,
    coarse_logits,
    full_size,
)
from rdejax.nn.dmn_proposals import NAMES, STRIDE, Proposals, checked_arrays, from_arrays
from rdejax.nn.efficientnet import EfficientNetLite0
from rdejax.nn.layers import Conv
from rdejax.nn.replaced import replaced
from rdejax.nn.resnet import ResNetTrunk

# Below it, a proposal has no share in a soft coarse mask (DMM-Net's public code).
_LEAST_SHARE = 0.01


class DMN(System):
    """What the two sizes share; subclasses make the trunk."""

    frame_inputs = NAMES
    objective = "dmn"
    config: DMNSizes
    key_encoder: Any
    memory: TemplateMemory

    def _build(self, config: DMNSizes, settings: Settings, *, rngs: nnx.Rngs) -> None:
        c = config.channels
        self.config, self.settings = config, settings
        self.soft = False
        # Whether memorised frames renew the templates' queries.
        self.renews = _of(settings, "template_query") == "latest"
        self.pyramid = Pyramid(self.key_encoder.channels, c, rngs=rngs)
        self.detector = DenseHead(c, config.mask_convs, rngs=rngs)
        self.template_key = Conv(c, config.key_channels, 3, rngs=rngs)
        self.template_value = TemplateValueEncoder(c, config.value_channels, rngs=rngs)
        zeros = nnx.initializers.zeros_init()
        self.completion = nnx.Linear(config.value_channels, c, kernel_init=zeros, rngs=rngs)
        self.alignment = ObjectAlignment(c, config.match_channels, rngs=rngs)
        # sigmoid(-0.847) = 0.3, DMM-Net's fixed weight.
        self.overlap = nnx.Param(jnp.float32(-0.8473))
        self.refine = RefineNet(c, config.refine_widths, rngs=rngs)
        rule = settings.make_rule(config.key_channels, config.value_channels, rngs=rngs)
        if not isinstance(rule, TemplateMemory):
            raise RdejaxError(
                f"memory {settings.memory!r} cannot be used with {self.name!r}, whose objects read "
                "their own pixels with queries of their own; leave it at 'template'"
            )
        self.memory = rule

    def checked_beside(self, beside: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """See `System.checked_beside`."""
        return checked_arrays(beside)

    def views(self) -> Mapping[str, View]:
        """Where the object looks in memory, alignment, and coarse beside refined masks."""
        return dmn_views(self)

    def remembered(self, state: DMNState, group: int, slot: int) -> Remembered:
        """The template memory of the object's group."""
        return Remembered(self.memory, jax.tree.map(lambda x: x[group], state.memory), slot)

    def query(self, features: DMNFeatures) -> Float[Array, "n h w ck"]:
        """The frame's keys."""
        return features.key

    def as_trained(self):
        """Coarse masks are sums of proposals by their shares in training."""
        return replaced(self, soft=True)

    @property
    def lam(self) -> Float[Array, ""]:
        """Share of overlap with the previous mask in the similarity, lambda."""
        given = _of(self.settings, "iou_weight")
        return jax.nn.sigmoid(self.overlap[...]) if given is None else jnp.float32(given)

    # ------------------------------------------------------------------ encode

    def encode(
        self,
        frames: Float[Array, "n H W 3"],
        inside: Bool[Array, "H W"] | None = None,
        beside: dict[str, Array] | None = None,
    ) -> DMNFeatures:
        """Features and proposals of normalised frames whose sides are multiples of 16."""
        f4, f8, f16 = self.pyramid(*self.key_encoder(frames))
        if beside:
            if inside is None:
                inside = jnp.ones(frames.shape[1:3], bool)
            proposals = from_arrays(beside, inside, self.config.proposals)
        else:
            proposals = self.detect(f8, f16)
        return self.with_proposals(f4, f8, f16, proposals)

    def detect(self, f8: Float[Array, "n h8 w8 c"], f16: Float[Array, "n h w c"]) -> Proposals:
        """Proposals of the model's own head; gradients flow through their masks only."""
        boxes, scores, valid = best_boxes(self.detector.dense(f8, f16), self.config.proposals)
        size = (2 * f8.shape[1], 2 * f8.shape[2])

        def masks(f8: Array, boxes: Array) -> Array:
            return paste(jax.nn.sigmoid(self.detector.masks(f8, boxes)), boxes, STRIDE, size)

        return Proposals(boxes, jax.vmap(masks)(f8, boxes), scores, valid)

    def with_proposals(
        self,
        f4: Float[Array, "n h4 w4 c"],
        f8: Float[Array, "n h8 w8 c"],
        f16: Float[Array, "n h w c"],
        proposals: Proposals,
    ) -> DMNFeatures:
        """Features of frames with these proposals."""
        grid = self.config.grid

        def one(f8: Array, boxes: Array, masks: Array) -> tuple[Array, Array]:
            phi = crop(f8, boxes, 8, grid)
            return phi.reshape(-1, grid * grid, phi.shape[-1]), crop_masks(
                masks, boxes, STRIDE, grid
            ).reshape(-1, grid * grid)

        phi, foreground = jax.vmap(one)(f8, proposals.boxes, proposals.masks)
        return DMNFeatures(f4, f8, f16, self.template_key(f16), proposals, phi, foreground)

    # ------------------------------------------------------------------ start, memorize, add

    def start(
        self,
        features: DMNFeatures,
        probs: Float[Array, "c H W"],
        valid: Bool[Array, " o"] | None = None,
        *,
        groups: int = 1,
        given: dict[str, Array] | None = None,
        key: Array | None = None,
    ) -> DMNState:
        """State after the frame in which the first objects are given."""
        del given, key
        if valid is None:
            valid = jnp.ones(probs.shape[0] - 1, bool)
        entry, masks = self._entry(features, probs, groups)
        query, _ = self.asking(features, _at_stride(probs[1:], STRIDE))
        first = _grouped(_at_stride(probs[1:], STRIDE), groups)
        return DMNState(
            valid=valid.reshape(groups, -1),
            memory=SharedKeys.init(self.memory, features.key[0], entry, masks),
            query=_grouped(query, groups),
            previous=first,
            first=first,
        )

    def add(
        self,
        state: DMNState,
        features: DMNFeatures,
        probs: Float[Array, "c H W"],
        new: Bool[Array, "g s"],
        given: dict[str, Array] | None = None,
    ) -> DMNState:
        """State with groups of new objects, whose first masks are in this frame."""
        fresh = self.start(features, probs, new.reshape(-1), groups=len(new), given=given)
        return add_groups(state, fresh, new)

    def memorize(
        self,
        state: DMNState,
        features: DMNFeatures,
        probs: Float[Array, "c H W"],
        groups: Bool[Array, " g"] | None = None,
    ) -> DMNState:
        """State after one frame and its masks are in the memory; objects not seen ask as before.

        Its masks are the previous ones of the next frame: where somebody corrected them, these.
        """
        count = len(state.valid)
        entry, masks = self._entry(features, probs, count)
        small = _at_stride(probs[1:], STRIDE)
        memory = SharedKeys.write(self.memory, state.memory, features.key[0], entry, masks)
        query, previous = state.query, _grouped(small, count)
        if self.renews:
            new, seen = self.asking(features, small)
            write = jnp.repeat(state.memory.count, state.valid.shape[1])
            new = new.replace(write=write)  # type: ignore[attr-defined]
            old = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), query)
            query = _grouped(merge_groups(seen, new, old), count)
        if groups is not None:
            memory, query, previous = merge_groups(
                groups, (memory, query, previous), (state.memory, state.query, state.previous)
            )
        changed = {"memory": memory, "query": query, "previous": previous}
        return state.replace(**changed)  # type: ignore[attr-defined]

    def keep(
        self,
        state: DMNState,
        features: DMNFeatures,
        probs: Float[Array, "c H W"],
        groups: Bool[Array, " g"] | None = None,
    ) -> DMNState:
        """As `memorize`, in place of the first frame."""
        memory = replaced(self.memory, write=self.memory.keep)
        keeping = replaced(self, memory=memory, renews=True)
        kept: Any = keeping.memorize(state, features, probs, groups)
        first = _grouped(_at_stride(probs[1:], STRIDE), len(state.valid))
        if groups is not None:
            first = merge_groups(groups, first, state.first)
        return kept.replace(first=first)

    def _entry(
        self, features: DMNFeatures, probs: Float[Array, "c H W"], groups: int
    ) -> tuple[Float[Array, "g s h w cv"], Masks]:
        soft = probs[1:]
        hard = jax.nn.one_hot(jnp.argmax(probs, axis=0), probs.shape[0], axis=0)[1:]
        mask = _at_stride(soft, 16)
        value = self.template_value(features.f16[0], mask, mask.sum(0, keepdims=True) - mask)
        return _grouped(value, groups), _grouped(Masks(soft=soft, hard=hard), groups)

    def asking(
        self, features: DMNFeatures, masks: Float[Array, "o h4 w4"]
    ) -> tuple[TemplateQuery, Bool[Array, " o"]]:
        """Objects of one frame as they ask the memory, and which of them are to be seen in it."""
        boxes, seen = box_of(masks, STRIDE)
        grid = self.config.grid
        phi = crop(features.f8[0], boxes, 8, grid)
        key = crop(features.key[0], boxes, 16, grid)
        mask = crop_masks(masks, boxes, STRIDE, grid)
        flat = lambda x: x.reshape(len(boxes), grid * grid, *x.shape[3:])  # noqa: E731
        none = jnp.zeros(len(boxes), jnp.int32)
        return TemplateQuery(flat(phi), flat(key), flat(mask), boxes, none), seen

    # ------------------------------------------------------------------ segment

    def segment(
        self, state: DMNState, features: DMNFeatures, real: Array | None = None
    ) -> tuple[DMNState, Float[Array, "n c H W"]]:
        """Logits of background and objects, frame after frame."""
        return frame_by_frame(self._segment, state, features, real)

    def _segment(self, state: DMNState, features: DMNFeatures) -> tuple[DMNState, Array]:
        logits = self.refined(state, features, self.match(state, features).coarse)
        return self.seen(state, jax.nn.softmax(logits, axis=0)), logits[None]

    def template(
        self, state: DMNState, features: DMNFeatures
    ) -> tuple[Float[Array, "o u c"], Float[Array, "o u"]]:
        """Dynamic templates on their grids, and the objects' masks there.

        D_o[u] = phi_query[u] + W_out sum_{t,p} R[u, (t, p)] V_{t,o}[p],    W_out 0 at first
        """
        query = self._query(state, features)
        phi, mask = query.phi, query.mask
        if _of(self.settings, "dynamic"):
            read = jax.vmap(self.memory.complete)(state.memory, query.key)
            phi = phi + self.completion(read)
        flat = lambda x: x.reshape(-1, *x.shape[2:])  # noqa: E731
        return flat(phi), flat(mask)

    def _query(self, state: DMNState, features: DMNFeatures) -> TemplateQuery:
        """Who asks the memory, see `DMNSettings.template_query`."""
        if _of(self.settings, "template_query") != "current":
            return state.query
        previous = state.previous.reshape(-1, *state.previous.shape[2:])
        overlap = mask_iou(previous, features.proposals.masks[0])
        overlap = jnp.where(features.proposals.valid, overlap, -1.0)
        query, _ = self.asking(features, features.proposals.masks[0][jnp.argmax(overlap, axis=1)])
        return _grouped(query, len(state.valid))

    def match(self, state: DMNState, features: DMNFeatures) -> Matched:
        """Which proposal of one frame is which object, and the coarse masks.

        C = -[(1 - lambda) s + lambda IoU(mask, previous mask)]
        """
        there = (features.foreground[0] >= LEAST).any(-1) & features.proposals.valid[0]
        template, mask = self.template(state, features)
        similarity = self.alignment.similarity(
            template,
            mask,
            features.phi[0],
            features.foreground[0],
            align=_of(self.settings, "align"),
        )
        masks = features.proposals.masks[0].astype(jnp.float32)
        overlap = mask_iou(state.previous.reshape(-1, *state.previous.shape[2:]), masks)
        mixed = (1.0 - self.lam) * similarity + self.lam * overlap
        assignment = match(mixed, state.valid.reshape(-1), there)
        count = len(there)
        if self.soft:
            share = assignment[:, :count]
            share = jnp.where(share > _LEAST_SHARE, share, 0.0)
        else:
            share = jax.nn.one_hot(jnp.argmax(assignment, axis=1), assignment.shape[1])[:, :count]
            share = jnp.where(state.valid.reshape(-1, 1), share, 0.0)
        coarse = jnp.clip(jnp.einsum("op,phw->ohw", share, masks), 0.0, 1.0)
        return Matched(similarity, there, assignment, coarse)

    def refined(
        self, state: DMNState, features: DMNFeatures, coarse: Float[Array, "o h4 w4"]
    ) -> Float[Array, "c H W"]:
        """Aggregated logits of one frame."""
        if _of(self.settings, "refine"):
            previous, first = (x.reshape(coarse.shape) for x in (state.previous, state.first))
            pyramid = (features.f4, features.f8, features.f16)
            logits = self.refine(coarse, previous, first, pyramid)
        else:
            logits = coarse_logits(coarse)
        valid = state.valid.reshape(-1)
        p = jax.nn.sigmoid(full_size(logits))
        return aggregated(jnp.where(valid[:, None, None], p, 0.0), valid)

    def seen(self, state: DMNState, probs: Float[Array, "c H W"]) -> DMNState:
        """State for the next frame: its previous masks are these."""
        previous = _at_stride(probs[1:], STRIDE).reshape(state.previous.shape)
        return state.replace(previous=previous)  # type: ignore[attr-defined]


@register("dmn-aoa")
class DMNAOA(DMN):
    """DMN-AOA on a ResNet-50 to stride 16 with a pyramid of 256 channels.

    Args:
      config: sizes of the networks.
      settings: inference settings.
      rngs: for the initial weights.
    """

    name = "dmn-aoa"
    Config = DMNConfig
    default_settings = DMNSettings(every=5, memory="template")
    published = {}

    def __init__(self, config: DMNConfig, settings: Settings, *, rngs: nnx.Rngs):
        self.key_encoder = ResNetTrunk(config.key_depth, rngs=rngs)
        self._build(config, settings, rngs=rngs)


@register("dmn-lite")
class DMNLite(DMN):
    """DMN-AOA on an EfficientNet-Lite0 trunk with small widths.

    Args:
      config: sizes of the networks.
      settings: inference settings.
      rngs: for the initial weights.
    """

    name = "dmn-lite"
    Config = DMNLiteConfig
    # What the ImageNet weights of the trunk were trained with.
    mean = (0.498, 0.498, 0.498)
    std = (0.502, 0.502, 0.502)
    default_settings = DMNSettings(every=5, size=480, memory="template")
    published = {}

    def __init__(self, config: DMNLiteConfig, settings: Settings, *, rngs: nnx.Rngs):
        self.key_encoder = EfficientNetLite0(rngs=rngs)
        self._build(config, settings, rngs=rngs)


def _of(settings: Settings, name: str) -> Any:
    """A setting of `DMNSettings`; plain `Settings` stand for its defaults."""
    return getattr(settings, name, getattr(DMNSettings, name))


def _at_stride(masks: Float[Array, "o H W"], stride: int) -> Float[Array, "o h w"]:
    """Masks as means over the positions of a stride."""
    o, h, w = masks.shape
    return masks.reshape(o, h // stride, stride, w // stride, stride).mean((2, 4))


def _grouped(tree: Any, groups: int) -> Any:
    """Leaves [o, ...] as [groups, slots, ...]."""
    return jax.tree.map(lambda x: x.reshape(groups, -1, *x.shape[1:]), tree)
