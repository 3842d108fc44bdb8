"""A small RDE for CPUs and quick experiments; the system whose weights come with the package."""

import dataclasses

from flax import nnx
from jaxtyping import Array, Float

from rdejax.models.matching import Matching, MatchingFeatures
from rdejax.models.registry import register
from rdejax.models.settings import Settings
from rdejax.nn.decoder import Decoder
from rdejax.nn.efficientnet import EfficientNetLite0
from rdejax.nn.encoders import KeyProjection
from rdejax.nn.layers import Conv
from rdejax.nn.lite import LiteValueEncoder


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
    Config = LiteConfig
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

    def encode_value(
        self,
        features: MatchingFeatures,
        masks: Float[Array, "n o H W"],
        others: Float[Array, "n o H W"],
    ) -> Float[Array, "n o h w cv"]:
        """Values of the objects, from the trunk's features and the masks."""
        return self.value_encoder(features.f4, features.f8, features.f16, masks, others)
