"""Similarity of queries to memory positions, and the readout weighted by it.

Position axes: `q` query positions, `m` memory positions. A memory position may count several times
(RDE reads the first frame twice): its *multiplicity*, 0 for a position that is not there.
"""

import math

import flax.struct
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int

from rdejax.errors import RdejaxError

_NEVER = -1e30  # stands for -inf, which would give nan where a whole row is masked
# Most places that are gathered; see `Places.read`.
_GATHERED = 64
# Scores for each of those wanted from which on groups are looked at first; see `largest`.
_GROUPED = 200


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


def in_rows(x: Float[Array, "*n c"]) -> Float[Array, "m c"]:
    """All positions, of however many axes, one below the other."""
    return x.reshape(-1, x.shape[-1])


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


@flax.struct.dataclass
class Places:
    """The memory positions that each query position reads, and how much of each.

    Attributes:
      index: memory positions.
      weight: of each, rows summing to 1.
    """

    index: Int[Array, "q k"]
    weight: Float[Array, "q k"]

    def dense(self, positions: int) -> Float[Array, "q m"]:
        """The weights of all memory positions, of which there are `positions`."""
        rows = jnp.arange(len(self.index))[:, None]
        none = jnp.zeros((len(self.index), positions), self.weight.dtype)
        return none.at[rows, self.index].set(self.weight, unique_indices=True)

    def totals(self, positions: int) -> Float[Array, " m"]:
        """How much of each memory position all queries read together."""
        return jnp.zeros(positions, self.weight.dtype).at[self.index].add(self.weight)

    def read(self, value: Float[Array, "o m c"]) -> Float[Array, "o q c"]:
        """The weighted sum of the values, in float32.

        Few places are gathered, one after the other into one sum, which XLA makes a single pass
        over the queries; with many the product with dense weights is faster.
        """
        k = self.index.shape[1]
        if k > _GATHERED:
            weight = self.dense(value.shape[1]).astype(value.dtype)
            return jnp.einsum("qm,omc->oqc", weight, value, preferred_element_type=jnp.float32)
        total = jnp.zeros((), jnp.float32)
        for i in range(k):
            # The positions are in range; to check that would take longer than to read them.
            rows = value.at[:, self.index[:, i]].get(mode="promise_in_bounds")
            total = total + rows.astype(jnp.float32) * self.weight[None, :, i, None]
        return total


def top_k_places(
    affinity: Float[Array, "q m"], multiplicity: Int[Array, " m"], top_k: int
) -> Places:
    """Softmax over the `top_k` largest entries of each query, copies counted one by one.

    The reference concatenates a repeated entry, so each copy takes one of the k places. Sorted
    distinct positions with cumulative counts give the same without the copies: a position enters
    min(multiplicity, places left) times.

    Args:
      affinity: similarity.
      multiplicity: how often each position is in the memory (0: absent).
      top_k: places; clipped to the number of positions.
    """
    # Added and not chosen, for XLA makes that part of the product that the affinity comes from.
    absent = jnp.where(multiplicity > 0, 0.0, _NEVER).astype(affinity.dtype)
    values, index = largest(affinity + absent[None], min(top_k, affinity.shape[-1]))
    top_k = index.shape[1]
    count = multiplicity[index]
    before = jnp.cumsum(count, axis=-1) - count
    taken = jnp.clip(top_k - before, 0, count).astype(affinity.dtype)
    # The maximum and not values[:, :1], the same number: slicing a top-k makes XLA give up its fast
    # top-k on CPUs for a full sort, 30 times slower.
    top = lax.stop_gradient(jnp.max(values, axis=-1, keepdims=True))
    weights = taken * jnp.exp(values - top)
    weights = weights / jnp.sum(weights, axis=-1, keepdims=True)
    # Behind a barrier, for the readout slices both (see above).
    return Places(*lax.optimization_barrier((index, weights)))


def top_k_weights(
    affinity: Float[Array, "q m"], multiplicity: Int[Array, " m"], top_k: int
) -> Float[Array, "q m"]:
    """Dense weights of `top_k_places`, rows summing to 1."""
    return top_k_places(affinity, multiplicity, top_k).dense(affinity.shape[-1])


def largest(
    scores: Float[Array, "q m"], count: int
) -> tuple[Float[Array, "q k"], Int[Array, "q k"]]:
    """The `count` largest scores of each row and where they are; `lax.top_k` in every respect.

    XLA's CPU backend has one thread look at every score. Where few are wanted, the maxima of groups
    of neighbours tell which groups hold them, and only those are looked at.
    """
    q, m = scores.shape
    size = _group_size(m, count)
    if jax.default_backend() != "cpu" or m < _GROUPED * count or size == 1:
        values, index = lax.top_k(scores, count)
        return values, index
    grouped = scores.reshape(q, m // size, size)
    # In ascending order, so that of equal scores the first wins, as it does in `lax.top_k`.
    chosen = jnp.sort(lax.top_k(grouped.max(axis=-1), count)[1], axis=-1)
    members = jnp.take_along_axis(grouped, chosen[:, :, None], axis=1).reshape(q, count * size)
    values, place = lax.top_k(members, count)
    return values, jnp.take_along_axis(chosen, place // size, axis=1) * size + place % size


def _group_size(m: int, count: int) -> int:
    """The divisor of `m` with the fewest groups and members of the chosen groups to look at."""
    sizes = [size for size in range(1, 1 + math.isqrt(4 * m // count)) if m % size == 0]
    return min(sizes, key=lambda size: m // size + count * size, default=1)


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
            # The weights are float32; the sum is, too, and only its operands are rounded in
            # bfloat16.
            weights = softmax_weights(affinity, multiplicity).astype(value.dtype)
            out = jnp.einsum("qm,omc->oqc", weights, value, preferred_element_type=jnp.float32)
        else:
            out = top_k_places(affinity, multiplicity, top_k).read(value)
        out = out.astype(value.dtype)
        return out.reshape(value.shape[0], h, w, value.shape[-1])

    # Frame by frame: an affinity is h*w x m, the largest array of a long video.
    return lax.map(one_frame, query) if n > 1 else one_frame(query[0])[None]
