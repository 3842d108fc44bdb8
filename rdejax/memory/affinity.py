"""Similarity of queries to memory positions, and the readout weighted by it.

Position axes: `q` query positions, `m` memory positions. A memory position may count several times
(RDE reads the first frame twice): its *multiplicity*, 0 for a position that is not there.
"""

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int

from rdejax.errors import RdejaxError

_NEVER = -1e30  # stands for -inf, which would give nan where a whole row is masked


def _l2(query: Array, key: Array) -> Array:
    """(2 q.k - |k|^2) / sqrt(c): negative squared distance; |q|^2 cancels in the softmax."""
    dots = query @ key.T
    return (2.0 * dots - jnp.sum(key * key, axis=-1)[None]) / jnp.sqrt(jnp.float32(key.shape[-1]))


def _dot(query: Array, key: Array) -> Array:
    """q.k / sqrt(c) (STM)."""
    return query @ key.T / jnp.sqrt(jnp.float32(key.shape[-1]))


def _cosine(query: Array, key: Array, temperature: float = 0.05) -> Array:
    """cos(q, k) / tau, tau = 0.05 (SWEM)."""

    def normalise(x: Array) -> Array:
        return x / (jnp.sqrt(jnp.sum(x * x, axis=-1, keepdims=True) + 1e-12) + 1e-6)

    return normalise(query) @ normalise(key).T / temperature


SIMILARITIES = {"l2": _l2, "dot": _dot, "cosine": _cosine}


def similarity(
    name: str, query: Float[Array, "q c"], key: Float[Array, "m c"]
) -> Float[Array, "q m"]:
    """Similarity of every query position to every memory position, in float32.

    Args:
      name: "l2" (STCN and RDE), "dot" (STM) or "cosine" (SWEM).
      query: query keys.
      key: memory keys.

    Raises:
      RdejaxError: unknown name.
    """
    compare = SIMILARITIES[checked_similarity(name)]
    return compare(query.astype(jnp.float32), key.astype(jnp.float32))


def anisotropic_l2(
    query: Float[Array, "q c"],
    selection: Float[Array, "q c"] | None,
    key: Float[Array, "m c"],
    shrinkage: Float[Array, " m"],
) -> Float[Array, "q m"]:
    """-s_m sum_c e_qc (k_mc - k_qc)^2 / sqrt(c), in float32 (XMem, ECCV 2022).

    Written as two matrix products, as in the public code:
    s_m / sqrt(c) (-(k_m^2).e_q + 2 k_m.(e_q k_q) - sum_c e_qc k_qc^2). The last term is the same
    for all memory positions, but it is multiplied by s_m, so it does not cancel in the softmax.

    Args:
      query: query keys.
      selection: weight of each channel for each query, e. None: all 1, and without the last term,
        which the public code leaves out then.
      key: memory keys.
      shrinkage: of the memory positions, s.
    """
    query, key = query.astype(jnp.float32), key.astype(jnp.float32)

    def product(a: Array, b: Array) -> Array:
        # Squares cancel: rounded operands (bfloat16, TF32) would leave nothing of small distances.
        return jnp.matmul(a, b.T, precision=lax.Precision.HIGHEST)

    if selection is None:
        distance = jnp.sum(key * key, axis=-1)[None] - 2.0 * product(query, key)
    else:
        weight = selection.astype(jnp.float32)
        distance = product(weight, key * key) - 2.0 * product(weight * query, key)
        distance += jnp.sum(weight * query * query, axis=-1, keepdims=True)
    scale = shrinkage.astype(jnp.float32) / jnp.sqrt(jnp.float32(key.shape[-1]))
    return -distance * scale[None]


def softmax_weights(
    affinity: Float[Array, "q m"], multiplicity: Int[Array, " m"]
) -> Float[Array, "q m"]:
    """Softmax over all memory positions, each counted `multiplicity` times.

    A copy adds log(multiplicity) to the affinity, which equals concatenating the position again.
    """
    present = multiplicity > 0
    log_count = jnp.log(jnp.maximum(multiplicity, 1).astype(affinity.dtype))
    affinity = jnp.where(present[None], affinity + log_count[None], _NEVER)
    return jax.nn.softmax(affinity, axis=-1)


def top_k_weights(
    affinity: Float[Array, "q m"], multiplicity: Int[Array, " m"], top_k: int
) -> Float[Array, "q m"]:
    """Softmax over the `top_k` largest entries of each query, copies counted one by one.

    The reference concatenates a repeated entry, so each copy takes one of the k places. Sorted
    distinct positions with cumulative counts give the same without the copies: a position enters
    min(multiplicity, places left) times.

    Args:
      affinity: similarity.
      multiplicity: how often each position is in the memory (0: absent).
      top_k: places; clipped to the number of positions.

    Returns:
      Dense weights, rows summing to 1.
    """
    top_k = min(top_k, affinity.shape[-1])
    present = multiplicity > 0
    values, index = lax.top_k(jnp.where(present[None], affinity, _NEVER), top_k)
    count = multiplicity[index]
    before = jnp.cumsum(count, axis=-1) - count
    taken = jnp.clip(top_k - before, 0, count).astype(affinity.dtype)
    # The maximum and not values[:, :1], the same number: slicing a top-k makes XLA give up its fast
    # top-k on CPUs for a full sort, 30 times slower.
    largest = lax.stop_gradient(jnp.max(values, axis=-1, keepdims=True))
    weights = taken * jnp.exp(values - largest)
    weights = weights / jnp.sum(weights, axis=-1, keepdims=True)
    rows = jnp.arange(affinity.shape[0])[:, None]
    return jnp.zeros_like(affinity).at[rows, index].set(weights, unique_indices=True)


def checked_similarity(name: str) -> str:
    """The setting `similarity` of a rule, checked when the rule is made.

    Raises:
      RdejaxError: none that is known.
    """
    if name not in SIMILARITIES:
        raise RdejaxError(
            f"similarity {name!r} is unknown; choose one of {', '.join(SIMILARITIES)}"
        )
    return name


def checked_top_k(top_k: int | None) -> int | None:
    """The setting `top_k` of a rule, checked when the rule is made.

    Raises:
      RdejaxError: below 1.
    """
    if top_k is not None and top_k < 1:
        raise RdejaxError(f"top_k={top_k}: give 1 or more, or None for the full softmax")
    return top_k


def read_out(
    query: Float[Array, "n h w ck"],
    key: Float[Array, "m ck"],
    value: Float[Array, "o m cv"],
    multiplicity: Int[Array, " m"],
    *,
    top_k: int | None,
    similarity_name: str = "l2",
) -> Float[Array, "n o h w cv"]:
    """Weighted sum of memory values for every position of `n` frames; one affinity for all objects.

    Args:
      query: keys of the frames that are read for.
      key: memory keys.
      value: memory values of each object.
      multiplicity: copies of each memory position.
      top_k: memory positions kept per query position; None for the full softmax (training).
      similarity_name: see `similarity`.
    """
    n, h, w, c = query.shape

    def one_frame(frame: Array) -> Array:
        affinity = similarity(similarity_name, frame.reshape(h * w, c), key)
        if top_k is None:
            weights = softmax_weights(affinity, multiplicity)
        else:
            weights = top_k_weights(affinity, multiplicity, top_k)
        # The weights are float32; the sum is, too, and only its operands are rounded in bfloat16.
        out = jnp.einsum(
            "qm,omc->oqc", weights.astype(value.dtype), value, preferred_element_type=jnp.float32
        ).astype(value.dtype)
        return out.reshape(value.shape[0], h, w, value.shape[-1])

    # Frame by frame: an affinity is h*w x m, the largest array of a long video.
    return lax.map(one_frame, query) if n > 1 else one_frame(query[0])[None]
