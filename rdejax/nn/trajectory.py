"""What one memory frame is worth for a query pixel, told from its trajectory through all frames."""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, Int

from rdejax.errors import RdejaxError
from rdejax.nn.agents import TwoLayers

_NEVER = -1e30
AGES = 8


class TrajectoryReasoning(nnx.Module):
    """Temporal aggregation of TMRN: a correction of each frame's weight for each query pixel.

    The trajectory of a pixel is the sequence of its own key and the keys it is aligned with, one of
    each memory frame. One pre-norm transformer block goes over it; then, as in trajectory attention
    (Motionformer, NeurIPS 2021), a query from the pixel's own token meets a key from each frame's:
    delta_t = (Wq x_0).(Wk x_t) / sqrt(c). Wk and the block's last layers are zero at first, so that
    a fresh one corrects nothing. That aligned features are aggregated over time by their relations
    is published; this block is this library's reconstruction.

    Args:
      channels: c, width of keys.
      heads: attention heads; they divide `channels`.
      age_embedding: whether tokens know how old their frame is, in powers of two.
      rngs: for the initial weights.

    Raises:
      RdejaxError: heads that do not divide the channels.
    """

    def __init__(self, channels: int, *, heads: int = 4, age_embedding: bool, rngs: nnx.Rngs):
        if heads < 1 or channels % heads:
            raise RdejaxError(f"heads={heads}: give a number that divides {channels} channels")
        zero = nnx.initializers.zeros_init()
        self.heads = heads
        self.norm = nnx.LayerNorm(channels, rngs=rngs)
        self.mix = nnx.Linear(channels, 3 * channels, use_bias=False, rngs=rngs)
        self.out = nnx.Linear(channels, channels, kernel_init=zero, rngs=rngs)
        self.mlp = TwoLayers(channels, rngs=rngs)
        self.query = nnx.Linear(channels, channels, use_bias=False, rngs=rngs)
        self.key = nnx.Linear(channels, channels, use_bias=False, kernel_init=zero, rngs=rngs)
        self.ages = nnx.Param(jnp.zeros((AGES, channels))) if age_embedding else None

    def __call__(
        self,
        query: Float[Array, "q c"],
        aligned: Float[Array, "q t c"],
        valid: Bool[Array, " t"],
        age: Int[Array, " t"],
    ) -> Float[Array, "q t"]:
        """Corrections of the logits of the frames' weights; of no meaning for invalid frames.

        Args:
          query: keys of the query pixels, float32.
          aligned: the key that each is aligned with in each memory frame, float32.
          valid: frames that are there.
          age: how many memorised frames ago each was memorised, 1 for the latest.
        """
        if self.ages is not None:
            # floor(log2(1 + age)); at an interval of 5 frames, 1 + age in frames / 5.
            old = jnp.clip(31 - jax.lax.clz(1 + jnp.maximum(age, 0)), 0, AGES - 1)
            embedding = self.ages[...][old].astype(aligned.dtype)
            aligned = aligned + jnp.broadcast_to(embedding, aligned.shape)
        x = jnp.concatenate([query[:, None], aligned], axis=1)
        there = jnp.concatenate([jnp.ones(1, bool), valid])
        x = x + self.out(self._attended(self.norm(x), there))
        x = x + self.mlp(x)
        asked, offered = self.query(x[:, 0]), self.key(x[:, 1:])
        return jnp.einsum("qc,qtc->qt", asked, offered) / jnp.sqrt(jnp.float32(x.shape[-1]))

    def _attended(
        self, x: Float[Array, "q s c"], there: Bool[Array, " s"]
    ) -> Float[Array, "q s c"]:
        n, s, c = x.shape
        parts = self.mix(x).reshape(n, s, 3, self.heads, c // self.heads)
        query, key, value = jnp.unstack(parts, axis=2)
        scores = jnp.einsum("qshd,qzhd->qhsz", query, key) / jnp.sqrt(jnp.float32(c // self.heads))
        weights = jax.nn.softmax(jnp.where(there[None, None, None], scores, _NEVER), axis=-1)
        return jnp.einsum("qhsz,qzhd->qshd", weights, value).reshape(n, s, c)
