"""RDE-VOS and STCN at their published sizes: one body, two memories."""

import dataclasses

from flax import nnx

from rdejax.models.matching import Matching
from rdejax.models.registry import register
from rdejax.models.settings import Settings
from rdejax.nn.decoder import Decoder
from rdejax.nn.encoders import KeyProjection, ValueEncoder
from rdejax.nn.layers import Conv
from rdejax.nn.resnet import ResNetTrunk


@dataclasses.dataclass(frozen=True)
class RDEConfig:
    """Sizes of the networks; the published ones by default.

    Attributes:
      key_depth: depth of the key encoder's ResNet (50 published, 18).
      key_channels: width of keys.
      value_channels: width of values and of the query's own value.
      single_object: value encoder without the "other objects" channel (static-image stage).
    """

    key_depth: int = 50
    key_channels: int = 64
    value_channels: int = 512
    single_object: bool = False


@register("rde")
class RDE(Matching):
    """RDE-VOS (Li et al., CVPR 2022): the STCN body with a constant-size memory.

    ResNet-50 key encoder, ResNet-18 value encoder with CBAM fusion, keys of 64 and values of 512
    channels; `settings.memory` chooses what is remembered.

    Args:
      config: sizes of the networks.
      settings: inference settings.
      rngs: for the initial weights.
    """

    name = "rde"
    objective = "rde"
    Config = RDEConfig
    default_settings = Settings(
        every=3, memory="rde", memory_settings=(("strategy", "2F+L+RDE"), ("top_k", 40))
    )
    # Li et al., section 5.1 and the public scripts: theta and top-k.
    published = {
        "davis2016": {"every": 3, "top_k": 40},
        "davis2017": {"every": 3, "top_k": 40},
        "youtube-vos": {"every": 4, "top_k": 20},
    }

    def __init__(self, config: RDEConfig, settings: Settings, *, rngs: nnx.Rngs):
        self.config = config
        self.settings = settings
        self.key_encoder = ResNetTrunk(config.key_depth, rngs=rngs)
        c4, c8, c16 = self.key_encoder.channels
        self.key_proj = KeyProjection(c16, config.key_channels, rngs=rngs)
        self.key_comp = Conv(c16, config.value_channels, 3, rngs=rngs)
        self.value_encoder = ValueEncoder(
            c16, config.value_channels, single_object=config.single_object, rngs=rngs
        )
        self.decoder = Decoder(2 * config.value_channels, (c8, c4), rngs=rngs)
        self.memory = settings.make_rule(config.key_channels, config.value_channels, rngs=rngs)


@register("stcn")
class STCN(RDE):
    """STCN (Cheng et al., NeurIPS 2021): the same body with a bank of every fifth frame."""

    name = "stcn"
    objective = "unroll"
    default_settings = Settings(every=5, memory="bank", memory_settings=(("top_k", 20),))
    published = {}  # the same on every data set
