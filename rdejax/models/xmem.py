"""XMem at its published sizes, and a small one on the body of rde-lite."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, Int, Key

from rdejax.errors import RdejaxError
from rdejax.memory.views import Embedding, Moment, View
from rdejax.models.lite import LiteConfig, RDELite
from rdejax.models.matching import Entry, Matching, MatchingFeatures, MatchingState
from rdejax.models.protocol import aggregated_probs, merge_groups
from rdejax.models.registry import register
from rdejax.models.settings import Settings
from rdejax.nn.encoders import KeyProjection
from rdejax.nn.resnet import ResNetTrunk
from rdejax.nn.xmem import (
    Anisotropy,
    SensoryDecoder,
    XMemDecoder,
    XMemLiteDecoder,
    XMemLiteValueEncoder,
    XMemValueEncoder,
)

# Probability of a deep update of a memorised frame in training (the public code's).
_DEEP_UPDATE_IN_TRAINING = 0.2

_PUBLISHED = {
    "every": 5,
    "top_k": 30,
    "enable_long_term": True,
    "min_mid_term_frames": 5,
    "max_mid_term_frames": 10,
    "num_prototypes": 128,
    "max_long_term_elements": 10_000,
}


@dataclasses.dataclass(frozen=True)
class XMemConfig:
    """Sizes of the networks; the published ones by default.

    Attributes:
      key_depth: depth of the key encoder's ResNet (50 published, 18).
      key_channels: width of keys.
      value_channels: width of values.
      hidden_dim: width of the sensory memory; 0: there is none.
      decoder_widths: widths of the decoder's features of stride 16, 8 and 4.
      single_object: value encoder without the "other objects" channel (static-image stage).
    """

    key_depth: int = 50
    key_channels: int = 64
    value_channels: int = 512
    hidden_dim: int = 64
    decoder_widths: tuple[int, int, int] = (512, 256, 256)
    single_object: bool = False


@dataclasses.dataclass(frozen=True)
class XMemSettings(Settings):
    """`Settings` with the schedule of the sensory memory.

    Attributes:
      deep_update_every: frames between two deep updates. -1, as published: every memorised frame
        has one, in place of the decoder's update of that frame. 0 or more: the decoder's update is
        done for every frame, and a deep update on top of it for the first memorised frame that is
        at least so many frames after the last one.
    """

    deep_update_every: int = -1

    def __post_init__(self):
        super().__post_init__()
        if self.deep_update_every < -1:
            raise RdejaxError(
                f"deep_update_every={self.deep_update_every}: give a number of frames, or -1 for "
                "every memorised frame"
            )


@flax.struct.dataclass
class XMemSystemState(MatchingState):
    """`MatchingState` with the sensory memory.

    Attributes:
      hidden: [g, s, h, w, hidden_dim], the sensory memory.
      before: the same before the latest frame, which is what a deep update starts from.
      since: [g] frames since the last deep update.
      key: [g] PRNG keys; None but in training.
    """

    hidden: Float[Array, "g s h w d"]
    before: Float[Array, "g s h w d"]
    since: Int[Array, " g"]
    key: Key[Array, " g"] | None


class _Sensory(Matching):
    """What both have in common: keys with shrinkage and selection, and a sensory memory.

    Other rules can take the memory's place; those that do not take shrinkage and selection get the
    keys without.

    In training (where `start` gets a key) a frame reads the first frame and two random others, and
    a memorised frame has a deep update with probability 0.2, on top of the decoder's.

    Objects that appear later have keys and stores of their own, so that they are read from the
    frames since then; the first frame of a video with them is memorised for all objects, and the
    masks of that frame are aggregated anew.
    """

    config: Any
    anisotropy: Anisotropy
    value_encoder: XMemValueEncoder | XMemLiteValueEncoder
    decoder: SensoryDecoder

    @property
    def synchronised(self) -> bool:
        """Whether deep updates are those of memorised frames."""
        return getattr(self.settings, "deep_update_every", -1) < 0

    def encode(
        self,
        frames: Float[Array, "n H W 3"],
        inside: Bool[Array, "H W"] | None = None,
        beside: dict[str, Array] | None = None,
    ) -> MatchingFeatures:
        """Features of normalised frames; the keys have what the memory takes."""
        features = super().encode(frames, inside, beside)
        if not self.memory.anisotropic:
            return features
        key = self.anisotropy(features.key, features.f16)
        return features.replace(key=key)  # type: ignore[attr-defined]

    def start(
        self,
        features: MatchingFeatures,
        probs: Float[Array, "c H W"],
        valid: Bool[Array, " o"] | None = None,
        *,
        groups: int = 1,
        given: dict[str, Array] | None = None,
        key: Array | None = None,
    ) -> XMemSystemState:
        """State after the frame in which the first objects are given."""
        state = super().start(features, probs, valid, groups=groups, given=given)
        keys = None if key is None else jax.random.split(key, groups)
        return state.replace(key=keys)  # type: ignore[attr-defined]

    def begin(self, entry: Entry, valid: Bool[Array, "g s"]) -> XMemSystemState:
        """State after a first frame that is already encoded; its deep update starts from 0."""
        state = super().begin(entry, valid)
        shape = (*entry.value.shape[:-1], self.config.hidden_dim)
        hidden = self.deep_update(entry.value, jnp.zeros(shape, entry.value.dtype))
        return XMemSystemState(
            valid=valid,
            memory=state.memory,
            hidden=hidden,
            before=hidden,
            since=jnp.zeros(len(valid), jnp.int32),
            key=None,
        )

    def add(
        self,
        state: XMemSystemState,
        features: MatchingFeatures,
        probs: Float[Array, "c H W"],
        new: Bool[Array, "g s"],
        given: dict[str, Array] | None = None,
    ) -> XMemSystemState:
        """State with groups of new objects, whose first masks are in this frame."""
        added: Any = super().add(state, features, probs, new, given)
        if self.synchronised:
            return added
        # Deep updates of all objects go together: the new ones have had one if one was due.
        since = jnp.max(jnp.where(state.valid.any(axis=1), state.since, 0))
        fresh = new.any(axis=1)
        waits = fresh & (since > 0)
        hidden = jnp.where(waits[:, None, None, None, None], 0.0, added.hidden)
        return added.replace(  # type: ignore[attr-defined]
            hidden=hidden, before=hidden, since=jnp.where(fresh, since, added.since)
        )

    def given_beside(
        self,
        probs: Float[Array, "c H W"],
        masks: Float[Array, "o H W"],
        valid: Bool[Array, " o"],
    ) -> Float[Array, "o+1 H W"]:
        """Probabilities of a frame with new masks; see `System.given_beside`.

        As in the public code, those of the old objects are zero under the new masks, and all are
        aggregated anew.
        """
        covered = masks.sum(0, keepdims=True) > 0.5
        return aggregated_probs(jnp.where(covered, 0.0, probs[1:]) + masks, valid)

    def memorizes(self, time: int, given: Any) -> bool:
        """Frames with new masks, and each `every`-th one after them.

        A deep update that is due in between waits for the next of these, as in the public code,
        which encodes no values in others.
        """
        return (time - max(given, default=0)) % self.settings.every == 0

    @property
    def frame_by_frame(self) -> bool:
        """The sensory memory goes from frame to frame."""
        return True

    def segment_each(
        self, state: XMemSystemState, features: MatchingFeatures
    ) -> tuple[XMemSystemState, Array]:
        """Probability of each object on its own; leaves the sensory memory from before."""
        state, readout = self.read(state, features)
        g16, g8, g4, coarse = self._decoder_features(state, features, readout)
        hidden = state.hidden
        if self.decoder.hidden_update is not None:
            own = (g16[0], g8[0], g4[0], coarse[0])
            hidden = self.decoder.hidden_update(*own, _objects(hidden)).reshape(hidden.shape)
        state = state.replace(  # type: ignore[attr-defined]
            hidden=hidden, before=state.hidden, since=state.since + 1
        )
        return state, self._each(state, coarse)

    def read(
        self, state: XMemSystemState, features: MatchingFeatures
    ) -> tuple[XMemSystemState, Float[Array, "n o h w c"]]:
        """The state and the readout of every object for every frame.

        In training from frames drawn at random; there usage is of no use and is not counted.
        """
        read: Any = super().read
        if state.key is None:
            return read(state, features)
        key, draw = jnp.unstack(jax.vmap(jax.random.split)(state.key), axis=1)
        memory = jax.vmap(self.memory.drawn)(state.memory, draw)
        seen = state.replace(memory=memory)  # type: ignore[attr-defined]
        _, readout = read(seen, features)
        return state.replace(key=key), readout  # type: ignore[attr-defined]

    def decode_each(
        self,
        state: XMemSystemState,
        features: MatchingFeatures,
        readout: Float[Array, "n o h w c"],
    ) -> Float[Array, "n o H W"]:
        """Probability of each object on its own, from the readout and the sensory memory."""
        return self._each(state, self._decoder_features(state, features, readout)[3])

    def _decoder_features(
        self, state: XMemSystemState, features: MatchingFeatures, readout: Array
    ) -> tuple[Array, Array, Array, Array]:
        hidden = _objects(state.hidden)
        hidden = jnp.broadcast_to(hidden, (len(readout), *hidden.shape))
        f = features
        return self.decoder.features(readout, hidden, f.query_value, f.f8, f.f4)

    def _each(self, state: XMemSystemState, coarse: Array) -> Float[Array, "n o H W"]:
        valid = state.valid.reshape(-1)
        return jnp.where(valid[:, None, None], jax.nn.sigmoid(self.decoder.logits(coarse)), 0.0)

    def views(self) -> Mapping[str, View]:
        """Those of the memory rule, and the sensory memory."""
        if not self.config.hidden_dim:
            return super().views()

        def hidden(moment: Moment) -> Embedding:
            return Embedding(moment.after.hidden[moment.group, moment.slot])

        view = View(Embedding, hidden, "the sensory memory after each frame")
        return {**super().views(), "hidden": view}

    def deep_update(
        self, value: Float[Array, "g s h w c"], hidden: Float[Array, "g s h w d"]
    ) -> Float[Array, "g s h w d"]:
        """The sensory memory updated from values."""
        if self.value_encoder.deep_update is None:
            return hidden
        new = self.value_encoder.deep_update(_objects(value), _objects(hidden))
        return new.reshape(hidden.shape)

    def write(
        self, state: XMemSystemState, entry: Entry, groups: Bool[Array, " g"] | None = None
    ) -> XMemSystemState:
        """State after an encoded frame is written to memory, with its deep update."""
        written: Any = super().write(state, entry, groups)
        key = state.key
        if key is not None:
            # Drawn for the clip, hence for all its objects together.
            key, draw = jnp.unstack(jax.vmap(jax.random.split)(key), axis=1)
            due = jax.vmap(lambda k: jax.random.bernoulli(k, _DEEP_UPDATE_IN_TRAINING))(draw)
            old = state.hidden
        elif self.synchronised:
            due, old = jnp.ones(len(state.valid), bool), state.before
        else:
            every = self.settings.deep_update_every  # type: ignore[attr-defined]
            due, old = state.since >= every, state.hidden
        if groups is not None:
            due &= groups
        hidden, since = merge_groups(
            due,
            (self.deep_update(entry.value, old), jnp.zeros_like(state.since)),
            (state.hidden, state.since),
        )
        return written.replace(hidden=hidden, since=since, key=key)


@register("xmem")
class XMem(_Sensory):
    """XMem (Cheng and Schwing, ECCV 2022).

    The STCN body with keys that have shrinkage and selection, a sensory memory that a gated unit
    updates in every frame, and the working and long-term memory of the rule "xmem". Its query value
    is the stride-16 feature itself.

    Args:
      config: sizes of the networks.
      settings: inference settings.
      rngs: for the initial weights.
    """

    name = "xmem"
    Config = XMemConfig
    default_settings = XMemSettings(every=5, memory="xmem", memory_settings=(("top_k", 30),))
    # The same on every data set but the authors' long videos at three times their length.
    published = {
        **dict.fromkeys(("davis2016", "davis2017", "youtube-vos", "long-videos"), _PUBLISHED),
        "long-videos-3x": {**_PUBLISHED, "every": 10},
    }

    def __init__(self, config: XMemConfig, settings: Settings, *, rngs: nnx.Rngs):
        self.config = config
        self.settings = settings
        self.key_encoder = ResNetTrunk(config.key_depth, rngs=rngs)
        c4, c8, c16 = self.key_encoder.channels
        values, hidden = config.value_channels, config.hidden_dim
        self.key_proj = KeyProjection(c16, config.key_channels, rngs=rngs)
        self.anisotropy = Anisotropy(c16, config.key_channels, rngs=rngs)
        self.value_encoder = XMemValueEncoder(
            c16, values, hidden, single_object=config.single_object, rngs=rngs
        )
        self.decoder = XMemDecoder((c16, c8, c4), values, hidden, config.decoder_widths, rngs=rngs)
        self.memory = settings.make_rule(config.key_channels, values, rngs=rngs)

    @staticmethod
    def key_comp(f16: Float[Array, "n h w c"]) -> Float[Array, "n h w c"]:
        """The frames' own values."""
        return f16


@dataclasses.dataclass(frozen=True)
class XMemLiteConfig(LiteConfig):
    """Sizes of the networks, see `LiteConfig`.

    Attributes:
      hidden_dim: width of the sensory memory; 0: there is none.
    """

    hidden_dim: int = 32


@register("xmem-lite")
class XMemLite(_Sensory, RDELite):
    """XMem's three memories on an EfficientNet-Lite0 trunk with small widths.

    With the weights of `rde-lite` and the rest as it starts it is `rde-lite` with the memory rule
    "xmem": shrinkage and selection start neutral, and the sensory memory unread.

    Args:
      config: sizes of the networks.
      settings: inference settings.
      rngs: for the initial weights.
    """

    name = "xmem-lite"
    objective = "unroll"
    Config = XMemLiteConfig
    default_settings = XMemSettings(
        every=5, size=480, memory="xmem", memory_settings=(("top_k", 30),)
    )

    def __init__(self, config: XMemLiteConfig, settings: Settings, *, rngs: nnx.Rngs):
        super().__init__(config, settings, rngs=rngs)
        channels, values = self.key_encoder.channels, config.value_channels
        c4, c8, c16 = channels
        self.anisotropy = Anisotropy(c16, config.key_channels, neutral=True, rngs=rngs)
        self.value_encoder = XMemLiteValueEncoder(channels, values, config.hidden_dim, rngs=rngs)
        self.decoder = XMemLiteDecoder(
            values, (c8, c4), config.hidden_dim, config.decoder_widths, rngs=rngs
        )


def _objects(x: Float[Array, "g s h w c"]) -> Float[Array, "o h w c"]:
    return x.reshape(x.shape[0] * x.shape[1], *x.shape[2:])  # not -1: hidden_dim may be 0
