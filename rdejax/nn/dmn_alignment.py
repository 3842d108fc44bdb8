"""Adaptive object alignment: proposals moved onto a template's grid, in feature space.

Published (DMN-AOA, supplement): each location of a template is compared with a weighted average of
all locations of a proposal, the weights being similarities of their features. The equations are
this project's reconstruction.
"""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from rdejax.nn.layers import Conv
from rdejax.nn.masked_softmax import softmax_over

# A position whose share of the mask is below it is no position of the object.
LEAST = 0.02
_EPS = 1e-12


class ObjectAlignment(nnx.Module):
    """Region translation and the similarity of templates and proposals.

        W[u, v]  = softmax_v( theta(D_o[u]) . theta(phi_j[v]) / tau + log g_j[v] ),  g >= 0.02
        Z_oj[u]  = sum_v W[u, v] phi_j[v]
        s[o, j]  = sum_u m_o[u] cos(D_o[u], Z_oj[u]) / sum_u m_o[u]

    theta: a 1x1 convolution, normalised to length 1; tau is learned.

    Args:
      channels: of templates and proposals.
      match_channels: of theta.
      tau: temperature at the start.
      rngs: for the initial weights.
    """

    def __init__(
        self, channels: int, match_channels: int = 64, tau: float = 0.1, *, rngs: nnx.Rngs
    ):
        orthogonal = nnx.initializers.orthogonal()  # no direction of the features is favoured
        self.theta = Conv(
            channels, match_channels, 1, bias=False, kernel_init=orthogonal, rngs=rngs
        )
        self.log_tau = nnx.Param(jnp.log(jnp.float32(tau)))

    def weights(
        self,
        template: Float[Array, "o u c"],
        proposal: Float[Array, "p v c"],
        foreground: Float[Array, "p v"],
    ) -> Float[Array, "o p u v"]:
        """Where each location of a template looks in each proposal.

        Args:
          template: features of the templates on their grids.
          proposal: of the proposals, on theirs.
          foreground: mask of each proposal on its grid, 0 to 1.
        """
        return translation(
            self._projected(template), self._projected(proposal), foreground, self.tau
        )

    def similarity(
        self,
        template: Float[Array, "o u c"],
        mask: Float[Array, "o u"],
        proposal: Float[Array, "p v c"],
        foreground: Float[Array, "p v"],
        *,
        align: bool = True,
    ) -> Float[Array, "o p"]:
        """Mean over a template's own locations of the cosine to what is aligned with them.

        Args:
          template: see `weights`.
          mask: of the templates on their grids, 0 to 1.
          proposal: see `weights`.
          foreground: see `weights`.
          align: False: each location is compared with the one at the same place.
        """
        template, proposal = template.astype(jnp.float32), proposal.astype(jnp.float32)
        if align:
            w = self.weights(template, proposal, foreground)
            moved = jnp.einsum("opuv,pvc->opuc", w, proposal)
            cosines = jnp.einsum("ouc,opuc->opu", unit(template), unit(moved))
        else:
            cosines = jnp.einsum("ouc,puc->opu", unit(template), unit(proposal))
        mask = mask.astype(jnp.float32)
        total = jnp.einsum("opu,ou->op", cosines, mask)
        return total / jnp.maximum(mask.sum(-1, keepdims=True), 1e-6)

    @property
    def tau(self) -> Float[Array, ""]:
        """Temperature of the softmax."""
        return jnp.exp(self.log_tau[...].astype(jnp.float32))

    def _projected(self, x: Float[Array, "n u c"]) -> Float[Array, "n u d"]:
        return unit(self.theta(x[:, :, None])[:, :, 0].astype(jnp.float32))


def translation(
    template: Float[Array, "o u d"],
    proposal: Float[Array, "p v d"],
    foreground: Float[Array, "p v"],
    tau: Float[Array, ""] | float,
) -> Float[Array, "o p u v"]:
    """Softmax over a proposal's foreground; 0 for a proposal without any.

    Args:
      template: of length 1 along the last axis.
      proposal: likewise.
      foreground: 0 to 1.
      tau: temperature.
    """
    scores = jnp.einsum("oud,pvd->opuv", template, proposal) / tau
    there = foreground >= LEAST
    prior = jnp.where(there, jnp.log(jnp.where(there, foreground, 1.0)), -jnp.inf)
    return softmax_over(scores + prior[None, :, None, :], there[None, :, None, :])


def unit(x: Float[Array, "*n c"]) -> Float[Array, "*n c"]:
    """Vectors of length 1; finite gradients at 0."""
    return x * jax.lax.rsqrt(jnp.sum(x * x, axis=-1, keepdims=True) + _EPS)
