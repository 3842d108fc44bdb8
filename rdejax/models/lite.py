"""A small RDE for CPUs and quick experiments; the system whose weights come with the package."""

import dataclasses
from typing import Any

import flax.struct
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float

from rdejax.models.matching import Entry, Matching, MatchingFeatures, MatchingState, others_of
from rdejax.models.protocol import merge_groups
from rdejax.models.registry import register
from rdejax.models.settings import Settings
from rdejax.nn.decoder import Decoder
from rdejax.nn.efficientnet import EfficientNetLite0
from rdejax.nn.encoders import KeyProjection
from rdejax.nn.layers import Conv
from rdejax.nn.lite import MASK_CHANNELS, LiteValueEncoder, folded


@dataclasses.dataclass(frozen=True)
class LiteConfig:
    """Sizes of the networks; those of the bundled weights by default.

    Attributes:
      key_channels: width of keys.
      value_channels: width of values and of the query's own value.
      decoder_widths: decoder widths at strides 16, 8, 4.
    """

    key_channels: int = 64
    value_channels: int = 128
    decoder_widths: tuple[int, int, int] = (128, 64, 32)


@dataclasses.dataclass(frozen=True)
class RDELiteConfig(LiteConfig):
    """Sizes of the networks, see `LiteConfig`.

    Attributes:
      latest_masks: whether the decoder sees, at every position, the latest memorised masks there,
        the object's own and the others'. Keys know no places, so objects that look alike can only
        be told apart by these. As this module starts, nothing changes.
    """

    latest_masks: bool = False


@flax.struct.dataclass
class LiteState(MatchingState):
    """`MatchingState` with the latest masks.

    Attributes:
      latest: [g, s, h, w, 2 * 16] of the object and of all others, see `rdejax.nn.lite.folded`.
    """

    latest: Float[Array, "g s h w m"]


@register("rde-lite")
class RDELite(Matching):
    """RDE memory on an EfficientNet-Lite0 trunk with small widths.

    Args:
      config: sizes of the networks.
      settings: inference settings.
      rngs: for the initial weights.
    """

    name = "rde-lite"
    objective = "rde"
    Config = RDELiteConfig
    # What the ImageNet weights of the trunk were trained with.
    mean = (0.498, 0.498, 0.498)
    std = (0.502, 0.502, 0.502)
    default_settings = Settings(
        every=3,
        size=480,
        memory="rde",
        memory_settings=(("strategy", "2F+L+RDE"), ("top_k", 40)),
    )

    def __init__(self, config: LiteConfig, settings: Settings, *, rngs: nnx.Rngs):
        self.config = config
        self.settings = settings
        self.key_encoder = EfficientNetLite0(rngs=rngs)
        channels = self.key_encoder.channels
        self.key_proj = KeyProjection(channels[2], config.key_channels, rngs=rngs)
        self.key_comp = Conv(channels[2], config.value_channels, 3, rngs=rngs)
        self.value_encoder = LiteValueEncoder(channels, config.value_channels, rngs=rngs)
        self.decoder = Decoder(
            2 * config.value_channels,
            (channels[1], channels[0]),
            widths=config.decoder_widths,
            rngs=rngs,
        )
        self.memory = settings.make_rule(config.key_channels, config.value_channels, rngs=rngs)
        self.place = _place(config, rngs) if getattr(config, "latest_masks", False) else None

    def begin(self, entry: Entry, valid: Bool[Array, "g s"]) -> MatchingState:
        """State after a first frame that is already encoded."""
        state = super().begin(entry, valid)
        if self.place is None:
            return state
        return LiteState(valid=valid, memory=state.memory, latest=_latest(entry.masks.soft))

    def write(
        self, state: Any, entry: Entry, groups: Bool[Array, " g"] | None = None
    ) -> MatchingState:
        """State after an encoded frame is written to memory; see `memorize`."""
        written: Any = super().write(state, entry, groups)
        if self.place is None:
            return written
        latest = _latest(entry.masks.soft)
        if groups is not None:
            latest = merge_groups(groups, latest, state.latest)
        return written.replace(latest=latest)

    def decoder_added(self, state: Any) -> Float[Array, "1 o h w d"] | None:
        """What the latest masks tell about places."""
        if self.place is None:
            return None
        latest = state.latest
        return self.place(latest.reshape(1, -1, *latest.shape[2:]))

    def encode_value(
        self,
        features: MatchingFeatures,
        masks: Float[Array, "n o H W"],
        others: Float[Array, "n o H W"],
    ) -> Float[Array, "n o h w cv"]:
        """Values of the objects, from the trunk's features and the masks."""
        return self.value_encoder(features.f4, features.f8, features.f16, masks, others)


def _place(config: LiteConfig, rngs: nnx.Rngs) -> Conv:
    """Latest masks to what they add to the decoder's input; nothing as it starts."""
    zero = nnx.initializers.zeros_init()
    return Conv(2 * MASK_CHANNELS, config.decoder_widths[0], 3, kernel_init=zero, rngs=rngs)


def _latest(masks: Float[Array, "g s H W"]) -> Float[Array, "g s h w m"]:
    every = masks.reshape(-1, *masks.shape[2:])
    both = jnp.concatenate([folded(every), folded(others_of(every))], axis=-1)
    return both.reshape(*masks.shape[:2], *both.shape[1:])
