"""Sequential weighted EM: a fixed number of bases per object (SWEM, Lin et al., CVPR 2022)."""

import flax.struct
import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from rdejax.errors import RdejaxError
from rdejax.memory.protocol import Masks, MemoryRule, Prototypes
from rdejax.memory.registry import register

_EPS = 1e-6  # of the norms; also the weight a base starts with


@flax.struct.dataclass
class Bases:
    """Bases of each object, background (0) and foreground (1) apart; float32 always.

    Attributes:
      kappa: [o, 2, k, ck], weighted mean of the keys that a base stands for.
      nu: [o, 2, k, cv], weighted mean of their values.
      zeta: [o, 2, k], sum of their weights, in positions.
    """

    kappa: Float[Array, "o 2 k ck"]
    nu: Float[Array, "o 2 k cv"]
    zeta: Float[Array, "o 2 k"]


@flax.struct.dataclass
class SWEMState:
    """Two sets of bases.

    Attributes:
      first: of the first frame; changed by `keep` alone.
      update: of all frames so far; read once there is a second frame.
      updates: frames memorised after the first.
    """

    first: Bases
    update: Bases
    updates: Int[Array, ""]


@register("swem")
class SWEMMemory(MemoryRule):
    """Keys and values of all frames summed up in bases by weighted EM, one pass per frame.

    Memorising a frame with keys x_p, values v_p and weights w_p (hard times soft mask of the class)
    repeats, from the statistics (zeta', kappa', nu') before this frame,

        E  z_pk = w_p softmax_k(x_p . kappa_k / (|kappa_k| tau))
        M  zeta_k = zeta'_k + sum_p z_pk,  kappa_k = (zeta'_k kappa'_k + sum_p z_pk x_p) / zeta_k
        W  w_p = mask_p (1 - P_p),  P_p the share of the class in sum_k exp(cos(x_p, kappa_k) / tau)

    with no W after the last M, and then nu_k = (zeta'_k nu'_k + sum_p z_pk v_p) / zeta_k. Reading
    is a softmax of cos / tau over all bases of both classes. Only nu carries a gradient.

    The readout is followed by the permutation-invariant features: with c_l the sum of the l largest
    exp(cos / tau) of a class, S_l = c_l,bg / (c_l,bg + c_l,fg) for l = 1..L, and 1 - S_l.

    Statistics and affinities are float32 whatever the type of keys and values.

    Args:
      key_channels: width of the keys.
      value_channels: unused, values take any width.
      bases: K, number of bases of each class in each of the two sets.
      iterations: R, EM iterations on each frame.
      tau: temperature; may be a JAX scalar.
      top_l: L; at most `bases`. `features` is 2 L.
      seed: of the random bases that every object starts from, the same for all, so that the same
        video gives the same masks. `segment_video(..., initial_bases=...)` takes given ones,
        [objects, 2, ck, k].
      rngs: unused, nothing is learned.
    """

    object_inputs = ("initial_bases",)
    similarity = "cosine"

    def __init__(
        self,
        *,
        key_channels: int,
        value_channels: int,
        rngs: nnx.Rngs,
        bases: int = 128,
        iterations: int = 4,
        tau: float = 0.05,
        top_l: int = 64,
        seed: int = 0,
    ):
        del value_channels, rngs
        for name, number in (("bases", bases), ("iterations", iterations), ("top_l", top_l)):
            if number < 1:
                raise RdejaxError(f"{name}={number}: give 1 or more")
        if top_l > bases:
            raise RdejaxError(f"top_l={top_l} is more than bases={bases}: give at most that")
        if isinstance(tau, int | float) and not 0 < tau < float("inf"):
            raise RdejaxError(f"tau={tau}: give a positive temperature")
        self.key_channels = key_channels
        self.bases = bases
        self.iterations = iterations
        self.tau = tau
        self.top_l = top_l
        self.seed = seed
        self.features = 2 * top_l

    def init(self, key: Array, value: Array, masks: Masks) -> SWEMState:
        """EM on the first frame, from random or given bases."""
        shape = (2, self.bases, key.shape[-1])
        given = (masks.given or {}).get("initial_bases")
        if given is None:
            kappa = jax.random.normal(jax.random.key(self.seed), shape)
            kappa = jnp.broadcast_to(kappa, (value.shape[0], *shape))
        else:
            wanted = (value.shape[0], shape[0], shape[2], shape[1])
            if given.shape != wanted:
                raise RdejaxError(
                    f"initial_bases of one object have shape {list(given.shape[1:])}; this model "
                    f"takes {list(wanted[1:])} (background and foreground, key width, bases)"
                )
            kappa = given.astype(jnp.float32).swapaxes(2, 3)
        start = Bases(
            kappa=_unit(kappa),
            nu=jnp.zeros((*kappa.shape[:3], value.shape[-1])),
            zeta=jnp.full(kappa.shape[:3], _EPS),
        )
        first = self.absorb(start, key, value, masks)
        return SWEMState(first=first, update=first, updates=jnp.zeros((), jnp.int32))

    def write(self, state: SWEMState, key: Array, value: Array, masks: Masks) -> SWEMState:
        """EM on one more frame; before the first, `update` equals `first`."""
        update = self.absorb(state.update, key, value, masks)
        return SWEMState(first=state.first, update=update, updates=state.updates + 1)

    def keep(self, state: SWEMState, key: Array, value: Array, masks: Masks) -> SWEMState:
        """As `write`; the first frame's bases take the frame in, too (this project's own)."""
        first = self.absorb(state.first, key, value, masks)
        return self.write(state, key, value, masks).replace(first=first)  # type: ignore[attr-defined]

    def absorb(self, old: Bases, key: Array, value: Array, masks: Masks) -> Bases:
        """Bases after weighted EM on one frame."""
        h, w, ck = key.shape
        x = lax.stop_gradient(key.reshape(h * w, ck).astype(jnp.float32))
        weights = lax.stop_gradient(class_weights(masks, h, w).reshape(-1, 2, h * w))
        statistics = lax.stop_gradient(old)
        kappa, zeta, z = self.fit(statistics, x, weights)
        v = value.reshape(-1, h * w, value.shape[-1]).astype(jnp.float32)
        sums = jnp.einsum("ocpk,opv->ockv", z, v)
        nu = (statistics.zeta[..., None] * old.nu + sums) / zeta[..., None]
        return Bases(kappa=kappa, nu=nu, zeta=zeta)

    def fit(
        self, old: Bases, x: Float[Array, "p ck"], masks: Float[Array, "o 2 p"]
    ) -> tuple[Float[Array, "o 2 k ck"], Float[Array, "o 2 k"], Float[Array, "o 2 p k"]]:
        """The EM iterations.

        Args:
          old: statistics before the frame.
          x: keys of its positions.
          masks: weights of background and foreground.

        Returns:
          kappa, zeta and the weighted responsibilities z of the last E step.
        """
        weights, kappa = masks, old.kappa
        zeta, z = old.zeta, jnp.zeros((*masks.shape, self.bases))
        for iteration in range(self.iterations):
            if iteration:
                weights = masks * (1.0 - self.class_posterior(x, kappa))
            z = jax.nn.softmax(_dots(x, _unit(kappa)) / self.tau, axis=-1) * weights[..., None]
            zeta = old.zeta + z.sum(axis=2)
            sums = jnp.einsum("ocpk,pd->ockd", z, x)
            kappa = (old.zeta[..., None] * old.kappa + sums) / zeta[..., None]
        return kappa, zeta, z

    def class_posterior(
        self, x: Float[Array, "p ck"], kappa: Float[Array, "o 2 k ck"]
    ) -> Float[Array, "o 2 p"]:
        """Probability of background and foreground at each position (W step)."""
        evidence = jax.nn.logsumexp(_dots(_unit(x), _unit(kappa)) / self.tau, axis=-1)
        return jax.nn.softmax(evidence, axis=1)

    def read(self, state: SWEMState, query: Array) -> tuple[Array, SWEMState]:
        """Values and permutation-invariant features, [n, o, h, w, cv + 2 L]."""
        n, h, w, ck = query.shape
        both = jax.tree.map(lambda a, b: jnp.concatenate([a, b], 2), state.first, state.update)
        present = jnp.concatenate(
            [jnp.ones(self.bases, bool), jnp.broadcast_to(state.updates > 0, self.bases)]
        )

        def one_frame(frame: Array) -> Array:
            values, invariant = self.match(frame.reshape(h * w, ck), both, present)
            out = jnp.concatenate([values, invariant], axis=-1).astype(query.dtype)
            return out.reshape(out.shape[0], h, w, out.shape[-1])

        # Frame by frame: the affinity is the largest array.
        return (lax.map(one_frame, query) if n > 1 else one_frame(query[0])[None]), state

    def prototypes(self, state: SWEMState) -> Prototypes:
        """The bases of both sets."""
        return Prototypes(state.first.kappa, state.update.kappa, self.tau)

    def match(
        self, x: Float[Array, "q ck"], bases: Bases, present: Bool[Array, " k"]
    ) -> tuple[Float[Array, "o q cv"], Float[Array, "o q f"]]:
        """Readout of the values and the permutation-invariant features for query keys.

        Args:
          x: query keys.
          bases: all sets, joined on the axis of the bases.
          present: bases that count.
        """
        cosine = _dots(_unit(x.astype(jnp.float32)), _unit(lax.stop_gradient(bases.kappa)))
        cosine = jnp.where(present[None, None, None], cosine, -jnp.inf)
        largest = lax.stop_gradient(jnp.max(cosine, axis=(1, 3), keepdims=True))
        e = jnp.exp((cosine - largest) / self.tau)  # [o, 2, q, k]
        total = jnp.sum(e, axis=(1, 3))
        values = jnp.einsum("ocqk,ockv->oqv", e, bases.nu) / total[..., None]
        # Both classes are cumulated before either is divided: no order of the bases can matter.
        sums = jnp.cumsum(lax.top_k(e, self.top_l)[0], axis=-1)
        share = sums[:, 0] / (sums[:, 0] + sums[:, 1])
        return values, jnp.concatenate([share, 1.0 - share], axis=-1)


def class_weights(masks: Masks, h: int, w: int) -> Float[Array, "o 2 h w"]:
    """Weights of background and foreground on the key grid: hard times soft mask.

    The hard mask is taken at the top-left pixel of each cell (nearest), the soft one at its centre
    (bilinear), as the published code resizes them.
    """
    step = masks.soft.shape[-1] // w
    hard = masks.hard[:, ::step, ::step]
    rows = (masks.soft[:, step // 2 - 1 :: step] + masks.soft[:, step // 2 :: step]) / 2
    soft = (rows[:, :, step // 2 - 1 :: step] + rows[:, :, step // 2 :: step]) / 2
    both = jnp.stack([(1.0 - hard) * (1.0 - soft), hard * soft], axis=1)
    return both.reshape(-1, 2, h, w).astype(jnp.float32)


def _unit(x: Float[Array, "... c"]) -> Float[Array, "... c"]:
    # The square root has no gradient at 0, where a key of black padding may lie.
    square = jnp.sum(x * x, axis=-1, keepdims=True)
    norm = jnp.where(square > 0, jnp.sqrt(jnp.where(square > 0, square, 1.0)), 0.0)
    return x / (norm + _EPS)


def _dots(x: Float[Array, "p c"], kappa: Float[Array, "o 2 k c"]) -> Float[Array, "o 2 p k"]:
    return jnp.einsum("pc,odkc->odpk", x, kappa)
