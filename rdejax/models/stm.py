"""STM at its published sizes: two encoders, and keys that see the object."""

import dataclasses

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from rdejax.models.matching import Features, System
from rdejax.models.registry import register
from rdejax.models.settings import Settings
from rdejax.nn.layers import Conv
from rdejax.nn.resnet import ResNetTrunk
from rdejax.nn.stm import MemoryEncoder, STMDecoder


@dataclasses.dataclass(frozen=True)
class STMConfig:
    """Sizes of the networks; the published ones by default.

    Attributes:
      key_depth: depth of both encoders' ResNets (50 published, 18).
      key_channels: width of keys.
      value_channels: width of values and of the query's own value.
      decoder_width: width of the decoder's features.
    """

    key_depth: int = 50
    key_channels: int = 128
    value_channels: int = 512
    decoder_width: int = 256


@register("stm")
class STM(System):
    """STM (Oh et al., *Video Object Segmentation using Space-Time Memory Networks*, ICCV 2019).

    Two ResNet-50: the query encoder sees the frame; the memory encoder sees frame, object and other
    objects, and gives key and value of each object. The memory is a bank of every fifth frame and
    the previous one, read by softmax(k_m . k_q / sqrt(ck)) over all positions. A memory rule sees
    one object at a time, so any rule can take the bank's place.

    Which frame is a fifth one is counted from an object's own first frame; the published script,
    whose objects all start in the first frame, does not tell.

    Args:
      config: sizes of the networks.
      settings: inference settings; every frame is memorised, and `keep_every` chooses which stay.
      rngs: for the initial weights.
    """

    name = "stm"
    Config = STMConfig
    own_keys = True
    pad_value = 0.0
    clear_border = True
    default_settings = Settings(
        every=1,
        memory="bank",
        memory_settings=(("keep_every", 5), ("similarity", "dot"), ("top_k", None)),
    )

    value_encoder: MemoryEncoder

    def __init__(self, config: STMConfig, settings: Settings, *, rngs: nnx.Rngs):
        self.config = config
        self.settings = settings
        self.key_encoder = ResNetTrunk(config.key_depth, rngs=rngs)
        c4, c8, c16 = self.key_encoder.channels
        self.key_proj = Conv(c16, config.key_channels, 3, rngs=rngs)
        self.key_comp = Conv(c16, config.value_channels, 3, rngs=rngs)
        self.value_encoder = MemoryEncoder(
            config.key_depth, config.key_channels, config.value_channels, rngs=rngs
        )
        self.decoder = STMDecoder(
            2 * config.value_channels, (c8, c4), config.decoder_width, rngs=rngs
        )
        self.memory = settings.make_rule(config.key_channels, config.value_channels, rngs=rngs)

    def encode_memory(
        self, features: Features, masks: Float[Array, "o H W"], others: Float[Array, "o H W"]
    ) -> tuple[Float[Array, "o h w ck"], Float[Array, "o h w cv"]]:
        """Keys and values of the objects in the one frame of `features`."""
        return self.value_encoder(features.image[0], masks, jnp.clip(others, 0.0, 1.0))
