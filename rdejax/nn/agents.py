"""Representative agents of a set of key vectors: by SVD, by greedy orthogonality, or learned.

For TMRN (ICCV 2023). That an agent-level correlation weakens false matches, with agents that start
from an SVD, is published; how the agents are computed here is this library's reconstruction. The
greedy choice follows the public code of trajectory attention (Motionformer, NeurIPS 2021).
"""

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax
from jaxtyping import Array, Bool, Float

_NEVER = -1e30


def moments(rows: Float[Array, "n c"]) -> Float[Array, "d d"]:
    """Gram matrix, sum and number of rows in one, as the Gram matrix of [rows, 1]; float32.

    It is additive: that of two sets of rows together is the sum of theirs, so frames come and go
    without a second look at the others. [:c, :c] is the Gram matrix, [c, :c] the sum, [c, c] the
    number.

    Args:
      rows: feature vectors.
    """
    rows = lax.stop_gradient(rows).astype(jnp.float32)
    rows = jnp.concatenate([rows, jnp.ones((rows.shape[0], 1))], axis=1)
    return jnp.matmul(rows.T, rows, precision=lax.Precision.HIGHEST)


@jax.custom_batching.sequential_vmap
def _eigh(gram: Array) -> tuple[Array, Array]:
    """Eigenvalues, ascending, and eigenvectors, of one matrix at a time.

    On CPUs JAX spreads a batch of decompositions over the threads of the program they are part of,
    and waits for them: where two of its threads do so at once, and there are no others, for ever.
    """
    values, vectors = jnp.linalg.eigh(gram)
    return values, vectors


def svd_agents(total: Float[Array, "d d"], number: int) -> Float[Array, "k c"]:
    """The first right singular vectors of the rows behind `moments`, at their singular values.

    a_k = sqrt(lam_k / rows) sign_k v_k with the k-th largest eigenvalue lam_k of the Gram matrix
    and its eigenvector; the sign makes the sum over rows of row . v_k positive (0 counts as
    positive). No gradient passes: that of eigenvectors is unbounded where eigenvalues meet.

    Args:
      total: see `moments`, d = c + 1.
      number: K, at most c.
    """
    total = lax.stop_gradient(total)
    gram, summed, rows = total[:-1, :-1], total[-1, :-1], total[-1, -1]
    values, vectors = _eigh(gram)
    values, vectors = values[::-1][:number], vectors[:, ::-1][:, :number].T
    towards = jnp.matmul(vectors, summed, precision=lax.Precision.HIGHEST)
    length = jnp.sqrt(jnp.maximum(values, 0.0) / jnp.maximum(rows, 1.0))
    return vectors * (length * jnp.where(towards >= 0, 1.0, -1.0))[:, None]


def orthogonal_agents(
    rows: Float[Array, "n c"], present: Bool[Array, " n"], number: int
) -> Float[Array, "k c"]:
    """Rows that are as orthogonal to each other as a greedy choice makes them.

    The first is the longest row; each next one has the smallest largest absolute cosine to those
    already chosen. Without gradient, and without chance: the related code starts from a random row.

    Args:
      rows: feature vectors.
      present: which rows count; those of length 0 are never chosen while there are others.
      number: how many.
    """
    rows = lax.stop_gradient(rows).astype(jnp.float32)
    length = jnp.linalg.norm(rows, axis=1)
    unit = rows / jnp.maximum(length, 1e-12)[:, None]
    usable = present & (length > 0)
    first = jnp.argmax(jnp.where(usable, length, _NEVER))

    def choose(nearest: Array, _: None) -> tuple[Array, Array]:
        chosen = jnp.argmax(jnp.where(usable, -nearest, _NEVER))
        return jnp.maximum(nearest, jnp.abs(unit @ unit[chosen])), chosen

    start = jnp.abs(unit @ unit[first])
    _, others = lax.scan(choose, start, None, length=number - 1)
    return rows[jnp.concatenate([first[None], others])]


class AgentRefinement(nnx.Module):
    """Agents refined by what they stand for: one cross-attention, then a two-layer perceptron.

    A = A0 + softmax((A0 Wq)(F Wk)^T / sqrt(c)) (F Wv) Wo, then A + MLP(LN(A)). The last layer of
    either is zero at first, so that a fresh one changes nothing. This library's reconstruction.

    Args:
      channels: c, width of the features.
      rngs: for the initial weights.
    """

    def __init__(self, channels: int, *, rngs: nnx.Rngs):
        zero = nnx.initializers.zeros_init()
        self.query = nnx.Linear(channels, channels, use_bias=False, rngs=rngs)
        self.key = nnx.Linear(channels, channels, use_bias=False, rngs=rngs)
        self.value = nnx.Linear(channels, channels, use_bias=False, rngs=rngs)
        self.out = nnx.Linear(channels, channels, use_bias=False, kernel_init=zero, rngs=rngs)
        self.mlp = TwoLayers(channels, rngs=rngs)

    def __call__(
        self, agents: Float[Array, "k c"], rows: Float[Array, "n c"], present: Bool[Array, " n"]
    ) -> Float[Array, "k c"]:
        """The refined agents.

        Args:
          agents: A0.
          rows: F, the features they stand for.
          present: which rows count.
        """
        # (A Wq)(F Wk)^T = ((A Wq) Wk^T) F^T, and (w F) Wv for w (F Wv): agents are few, rows many.
        asked = self.query(agents) @ self.key.kernel[...].T.astype(agents.dtype)
        scores = asked @ rows.T / jnp.sqrt(jnp.float32(agents.shape[1]))
        weights = jax.nn.softmax(jnp.where(present[None], scores, _NEVER), axis=1)
        agents = agents + self.out(self.value(weights @ rows))
        return agents + self.mlp(agents)


class TwoLayers(nnx.Module):
    """MLP(LN(x)), twice as wide inside; zero at first.

    Args:
      channels: width.
      rngs: for the initial weights.
    """

    def __init__(self, channels: int, *, rngs: nnx.Rngs):
        zero = nnx.initializers.zeros_init()
        self.norm = nnx.LayerNorm(channels, rngs=rngs)
        self.wide = nnx.Linear(channels, 2 * channels, rngs=rngs)
        self.out = nnx.Linear(2 * channels, channels, kernel_init=zero, rngs=rngs)

    def __call__(self, x: Float[Array, "... c"]) -> Float[Array, "... c"]:
        """What is to be added to `x`."""
        return self.out(jax.nn.gelu(self.wide(self.norm(x))))
