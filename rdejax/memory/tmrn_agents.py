"""TMRN's agent-level correlation: pixels compared by their likeness to a few agents.

Published (ICCV 2023): an agent-level correlation weakens the false matches of a direct correlation
of pixels, and agents start from an SVD. A later paper of the group (RankMatch, CVPR 2024) defines
such a correlation as softmax(f A^T), which the profile "softmax" follows; the profile "linear" and
how the two correlations are joined are this library's reconstruction.
"""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float

from rdejax.errors import RdejaxError
from rdejax.memory.affinity import similarity
from rdejax.nn.agents import AgentRefinement, moments, orthogonal_agents, svd_agents

AGENTS = ("svd", "orthogonal", "learned")
PROFILES = ("linear", "softmax")


class AgentCorrelation(nnx.Module):
    """The term gamma G(r(q), r(p)) that is added to the scores of pixels.

    r(x) = A x / tau_a are the profiles; G is the host's similarity between them ("linear"), or
    log(sum_k sqrt(c_k(q) c_k(p)) + 1e-6) with c = softmax_k r ("softmax"). gamma starts at 0, tau_a
    at 1.

    Args:
      channels: width of the keys.
      agents: "svd", "orthogonal" or "learned", see `TMRNMemory`.
      number: K; at most `channels`.
      profile: "linear" or "softmax".
      refine: whether agents are refined by `AgentRefinement`.
      similarity_name: the host's, see `rdejax.memory.affinity.similarity`.
      rngs: for the initial weights.

    Raises:
      RdejaxError: a choice there is not.
    """

    def __init__(
        self,
        channels: int,
        *,
        agents: str,
        number: int,
        profile: str,
        refine: bool,
        similarity_name: str,
        rngs: nnx.Rngs,
    ):
        if agents not in AGENTS:
            raise RdejaxError(f"agents={agents}: give one of {', '.join(AGENTS)} or none")
        if profile not in PROFILES:
            raise RdejaxError(f"profile={profile}: give one of {', '.join(PROFILES)}")
        if number < 1:
            raise RdejaxError(f"K={number}: give 1 agent or more")
        self.agents = agents
        self.number = min(number, channels)
        self.profile = profile
        self.similarity = similarity_name
        self.gamma = nnx.Param(jnp.zeros(()))
        self.log_tau_a = nnx.Param(jnp.zeros(()))
        drawn = nnx.initializers.normal(channels**-0.5)
        shape = (self.number, channels)
        self.learned = nnx.Param(drawn(rngs.params(), shape)) if agents == "learned" else None
        self.refinement = AgentRefinement(channels, rngs=rngs) if refine else None

    def moments(self, key: Float[Array, "m c"]) -> Float[Array, "d d"] | None:
        """What is to be kept of a frame's keys, d = c + 1; None where agents need nothing."""
        return moments(key) if self.agents == "svd" else None

    def of(
        self,
        query: Float[Array, "q c"],
        key: Float[Array, "n c"],
        present: Bool[Array, " n"],
        kept: Float[Array, "d d"] | None,
    ) -> Float[Array, "k c"]:
        """Agents of the keys of a frame and those in memory.

        Args:
          query: keys of the frame.
          key: keys in memory.
          present: which of them count.
          kept: sum of the `moments` of the frames in memory.
        """
        rows = jnp.concatenate([query, key])
        present = jnp.concatenate([jnp.ones(query.shape[0], bool), present])
        if self.learned is not None:
            agents = self.learned[...].astype(jnp.float32)
        elif self.agents == "svd":
            assert kept is not None
            agents = svd_agents(kept + moments(query), self.number)
        else:
            agents = orthogonal_agents(rows, present, self.number)
        return agents if self.refinement is None else self.refinement(agents, rows, present)

    def profiles(
        self, agents: Float[Array, "k c"], keys: Float[Array, "n c"]
    ) -> Float[Array, "n k"]:
        """The profile r of each key; for "softmax" log c."""
        r = keys @ agents.T * jnp.exp(-self.log_tau_a[...].astype(jnp.float32))
        return r if self.profile == "linear" else jax.nn.log_softmax(r, axis=-1)

    def __call__(self, query: Float[Array, "q k"], key: Float[Array, "n k"]) -> Float[Array, "q n"]:
        """What is added to the scores, from `profiles`."""
        if self.profile == "linear":
            # Up to |r(q)|^2, which cancels in every softmax.
            found = similarity(self.similarity, query, key)
        else:
            found = jnp.log(jnp.exp(0.5 * query) @ jnp.exp(0.5 * key).T + 1e-6)
        return self.gamma[...].astype(jnp.float32) * found
