"""SWEM at its published sizes, and a small one on the trunk of rde-lite."""

import dataclasses
from typing import Any

from flax import nnx
from jaxtyping import Array, Float

from rdejax.errors import RdejaxError
from rdejax.models.lite import LiteConfig, RDELite
from rdejax.models.matching import Matching
from rdejax.models.rde import RDE, RDEConfig
from rdejax.models.registry import register
from rdejax.models.settings import Settings
from rdejax.nn.decoder import Decoder
from rdejax.nn.fusion import GatedFusion


class _Fused(Matching):
    """What both have in common: a gated fusion in front of the decoder."""

    fusion: GatedFusion

    def decoder_parts(
        self, readout: Float[Array, "n o h w c"], query_value: Float[Array, "n h w cq"]
    ) -> tuple[Float[Array, "n o h w cq"], None]:
        """Gated fusion of readout, permutation-invariant features and the query's own value."""
        return self.fusion(readout, query_value), None

    def _fuse(self, channels: int, skips: tuple[int, int], widths: Any, *, rngs: nnx.Rngs) -> None:
        if not self.memory.features:
            raise RdejaxError(
                f"memory {self.settings.memory!r} cannot be used with {self.name!r}, whose fusion "
                "needs the features that the memory 'swem' gives beside the values; use it with "
                "'rde', 'stcn' or 'rde-lite'"
            )
        self.fusion = GatedFusion(channels, self.memory.features, rngs=rngs)
        self.decoder = Decoder(channels, skips, widths, rngs=rngs)


@dataclasses.dataclass(frozen=True)
class SWEMConfig(RDEConfig):
    """Sizes of the networks, see `RDEConfig`; both depths of the key encoder are published."""

    key_channels: int = 128


@register("swem")
class SWEM(_Fused, RDE):
    """SWEM (Lin et al., CVPR 2022): the STCN body with bases for a memory and a gated fusion.

    Args:
      config: sizes of the networks.
      settings: inference settings; every frame is memorised, as published.
      rngs: for the initial weights.
    """

    name = "swem"
    objective = "unroll"
    Config = SWEMConfig
    default_settings = Settings(every=1, memory="swem")
    published = {}  # the same on every data set

    def __init__(self, config: SWEMConfig, settings: Settings, *, rngs: nnx.Rngs):
        super().__init__(config, settings, rngs=rngs)
        c4, c8, _ = self.key_encoder.channels
        self._fuse(config.value_channels, (c8, c4), (512, 256, 256), rngs=rngs)


@register("swem-lite")
class SWEMLite(_Fused, RDELite):
    """SWEM's memory and fusion on an EfficientNet-Lite0 trunk with small widths.

    Args:
      config: sizes of the networks.
      settings: inference settings.
      rngs: for the initial weights.
    """

    name = "swem-lite"
    objective = "unroll"
    Config = LiteConfig
    default_settings = Settings(every=1, size=480, memory="swem")

    def __init__(self, config: LiteConfig, settings: Settings, *, rngs: nnx.Rngs):
        super().__init__(config, settings, rngs=rngs)
        c4, c8, _ = self.key_encoder.channels
        self._fuse(config.value_channels, (c8, c4), config.decoder_widths, rngs=rngs)
