"""STM at its published sizes: two encoders, and keys that see the object."""

import dataclasses

import flax.struct
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float

from rdejax.errors import RdejaxError
from rdejax.models.grouped import OwnKeys
from rdejax.models.matching import Matching, MatchingFeatures, MatchingState
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


@flax.struct.dataclass
class STMFeatures(MatchingFeatures):
    """`MatchingFeatures`, and where the frames' own pixels are.

    Attributes:
      inside: [n, H, W], false in the padding.
    """

    inside: Bool[Array, "n H W"]


def _check_intervals(settings: Settings) -> None:
    """Refuses two intervals at once: the previous frame would be missing from the bank.

    `keep_every` counts the frames that are memorised, and the latest of those is kept as well: it
    is the previous frame only where every frame is memorised.
    """
    keep_every = dict(settings.memory_settings).get("keep_every", 1)
    if settings.every > 1 and keep_every > 1:
        raise RdejaxError(
            f"every={settings.every}: stm memorises every frame, so that the previous one is in "
            f"the bank, and keeps each keep_every-th ({keep_every}); leave every at 1 and give "
            f"keep_every={settings.every} for that interval"
        )


@register("stm")
class STM(Matching):
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

    Raises:
      RdejaxError: `every` other than 1 beside the bank's `keep_every`.
    """

    name = "stm"
    Config = STMConfig
    over = OwnKeys
    default_settings = Settings(
        every=1,
        memory="bank",
        memory_settings=(("keep_every", 5), ("similarity", "dot"), ("top_k", None)),
    )

    value_encoder: MemoryEncoder

    def __init__(self, config: STMConfig, settings: Settings, *, rngs: nnx.Rngs):
        _check_intervals(settings)
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

    def encode(
        self,
        frames: Float[Array, "n H W 3"],
        inside: Bool[Array, "H W"] | None = None,
        beside: dict[str, Array] | None = None,
    ) -> STMFeatures:
        """Features of normalised frames; the published code pads them with black."""
        if inside is None:
            inside = jnp.ones(frames.shape[1:3], bool)
        black = -jnp.asarray(self.mean, frames.dtype) / jnp.asarray(self.std, frames.dtype)
        del beside
        seen = super().encode(jnp.where(inside[..., None], frames, black))
        each = jnp.broadcast_to(inside, (frames.shape[0], *inside.shape))
        return STMFeatures(**vars(seen), inside=each)

    def add(
        self,
        state: MatchingState,
        features: STMFeatures,
        probs: Float[Array, "c H W"],
        new: Bool[Array, "g s"],
        given: dict[str, Array] | None = None,
    ) -> MatchingState:
        """State with groups of new objects; see `without_border`."""
        return super().add(state, features, without_border(probs, features.inside[0]), new, given)

    def memorize(
        self,
        state: MatchingState,
        features: STMFeatures,
        probs: Float[Array, "c H W"],
        groups: Bool[Array, " g"] | None = None,
    ) -> MatchingState:
        """State after one frame is written to memory; see `without_border`."""
        return super().memorize(state, features, without_border(probs, features.inside[0]), groups)

    def encode_memory(
        self, features: STMFeatures, masks: Float[Array, "o H W"], others: Float[Array, "o H W"]
    ) -> tuple[Float[Array, "o h w ck"], Float[Array, "o h w cv"]]:
        """Keys and values of the objects in the one frame of `features`."""
        return self.value_encoder(features.image[0], masks, jnp.clip(others, 0.0, 1.0))


def without_border(
    probs: Float[Array, "c H W"], inside: Bool[Array, "H W"]
) -> Float[Array, "c H W"]:
    """The same probabilities, but nothing but background (index 0) in the padding.

    The published code cuts the padding off before it memorises a frame, and pads anew.
    """
    return jnp.where(inside, probs, jnp.zeros_like(probs).at[0].set(1.0))
