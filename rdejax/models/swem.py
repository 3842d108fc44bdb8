"""SWEM at its published sizes, and a small one on the trunk of rde-lite."""

from typing import Any

from flax import nnx
from jaxtyping import Array, Float

from rdejax.errors import RdejaxError
from rdejax.models.lite import RDELite
from rdejax.models.matching import Matching
from rdejax.models.rde import RDE
from rdejax.models.registry import register
from rdejax.models.settings import Settings
from rdejax.nn.decoder import Decoder
from rdejax.nn.fusion import GatedFusion


class _Fused(Matching):
    """What both have in common: a gated fusion in front of the decoder."""

    fusion: GatedFusion

    def decoder_input(
        self, readout: Float[Array, "n o h w c"], query_value: Float[Array, "n h w cq"]
    ) -> Float[Array, "n o h w cq"]:
        """Gated fusion of readout, permutation-invariant features and the query's own value."""
        return self.fusion(readout, query_value)

    def _fuse(self, channels: int, skips: tuple[int, int], widths: Any, *, rngs: nnx.Rngs) -> None:
        if not self.memory.features:
            raise RdejaxError(
                f"memory {self.settings.memory!r} cannot be used with {self.name!r}, whose fusion "
                "needs the features that the memory 'swem' gives beside the values; use it with "
                "'rde', 'stcn' or 'rde-lite'"
            )
        self.fusion = GatedFusion(channels, self.memory.features, rngs=rngs)
        self.decoder = Decoder(channels, skips, widths, rngs=rngs)


@register("swem")
class SWEM(_Fused, RDE):
    """SWEM (Lin et al., CVPR 2022): the STCN body with bases for a memory and a gated fusion.

    Args:
      settings: inference settings; every frame is memorised, as published.
      key_depth: depth of the key encoder's ResNet (50 or 18, both published).
      key_channels: width of keys.
      value_channels: width of values and of the query's own value.
      single_object: value encoder without the "other objects" channel.
      rngs: for the initial weights.
    """

    name = "swem"
    default_settings = Settings(every=1, memory="swem")

    def __init__(
        self,
        *,
        settings: Settings,
        key_depth: int = 50,
        key_channels: int = 128,
        value_channels: int = 512,
        single_object: bool = False,
        rngs: nnx.Rngs,
    ):
        super().__init__(
            settings=settings,
            key_depth=key_depth,
            key_channels=key_channels,
            value_channels=value_channels,
            single_object=single_object,
            rngs=rngs,
        )
        c4, c8, _ = self.key_encoder.channels
        self._fuse(value_channels, (c8, c4), (512, 256, 256), rngs=rngs)


@register("swem-lite")
class SWEMLite(_Fused, RDELite):
    """SWEM's memory and fusion on an EfficientNet-Lite0 trunk with small widths.

    Args:
      settings: inference settings.
      key_channels: width of keys.
      value_channels: width of values and of the query's own value.
      decoder_widths: decoder widths at strides 16, 8, 4.
      rngs: for the initial weights.
    """

    name = "swem-lite"
    default_settings = Settings(every=1, size=480, memory="swem")

    def __init__(
        self,
        *,
        settings: Settings,
        key_channels: int = 64,
        value_channels: int = 128,
        decoder_widths: tuple[int, int, int] = (128, 64, 32),
        rngs: nnx.Rngs,
    ):
        super().__init__(
            settings=settings,
            key_channels=key_channels,
            value_channels=value_channels,
            decoder_widths=decoder_widths,
            rngs=rngs,
        )
        c4, c8, _ = self.key_encoder.channels
        self._fuse(value_channels, (c8, c4), decoder_widths, rngs=rngs)
