"""TMRN's memory read: trajectories through the frames of a bank (ICCV 2023, pp. 1218-1228).

Published: TMRN replaces the reading of memory in STM, STCN or XMem and nothing else, in two parts:
*spatial alignment*, in which each query pixel looks into each memory frame on its own, and
*temporal aggregation* of the aligned features. An *agent-level correlation* weakens the false
matches of pixels. The similarity is the host's; with XMem the long-term memory is off.

This library's reconstruction: all equations below, for the paper's own could not be found. They are
made so that a fresh TMRN reads exactly as its host's softmax does: softmax_t(logsumexp_p S) times
softmax_p(S) is the softmax over all (t, p), from which training learns a correction.
"""

from collections.abc import Callable, Mapping
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax
from jaxtyping import Array, Bool, Float, Int, Key

from rdejax.errors import RdejaxError
from rdejax.memory import tmrn_views
from rdejax.memory.affinity import anisotropic_l2, in_rows, similarity, top_k_weights
from rdejax.memory.bank import BankMemory, BankState, first_and_random
from rdejax.memory.protocol import Entries, Masks, MemoryRule
from rdejax.memory.registry import register
from rdejax.memory.tmrn_agents import AgentCorrelation
from rdejax.memory.views import View
from rdejax.nn.trajectory import TrajectoryReasoning
from rdejax.nn.xmem import AnisotropicKey

_NEVER = -1e30
_ROWS = 256  # query positions at a time: scores are rows x t x h x w


@flax.struct.dataclass
class TMRNState:
    """A bank, and of each of its places which frame it holds and what agents need of that.

    Attributes:
      bank: the frames.
      time: [t] int32, which memorised frame a place holds, from 1, the group's first; 0: none.
      moments: [t, ck + 1, ck + 1] float32, see `rdejax.nn.agents.moments`; None without SVD agents.
    """

    bank: BankState
    time: Int[Array, " t"]
    moments: Float[Array, "t d d"] | None


@flax.struct.dataclass
class Seen:
    """What a read sees of a state; zero where nothing is held, whatever stands there.

    Attributes:
      key: [t, m, ck] float32, with m = h w positions of each frame.
      shrinkage: [t, m], or None for keys without.
      value: [o, t, m, cv].
      valid: [t].
      age: [t] int32, memorised frames since.
      moments: sum of those of the frames, or None.
    """

    key: Float[Array, "t m ck"]
    shrinkage: Float[Array, "t m"] | None
    value: Float[Array, "o t m cv"]
    valid: Bool[Array, " t"]
    age: Int[Array, " t"]
    moments: Float[Array, "d d"] | None


@register("tmrn")
class TMRNMemory(MemoryRule):
    """Reads a bank by the trajectory of each query pixel through its frames.

    For query position q, frame t and its position p, with the host's similarity S,

        S' = S + gamma G (see `AgentCorrelation`),
        a[q,t,:] = softmax_p S'[q,t,:],   e[q,t] = logsumexp_p S'[q,t,:],   z[q,t] = sum_p a k[t,p],
        pi[q,:] = softmax_t (beta e[q,t] + delta[q,t]),   read[q] = sum_tp pi a v[t,p]

    where delta comes from the trajectory q, z[q,:] by `TrajectoryReasoning`. A fresh one has gamma
    = 0, beta = 1 and delta = 0, which is the host's full softmax.

    Objects that appear later have a bank of their own, and so agents and trajectories of their own.

    Args:
      key_channels: width of the keys.
      value_channels: unused, values take any width.
      rngs: for the initial weights.
      agents: where agents come from: "svd" of the query's and the memory's keys, from Gram matrices
        that are kept for each memorised frame; "orthogonal", the keys that are most orthogonal to
        each other; "learned", a weight; None (or "none"): no agent-level correlation.
      K: number of agents; more than `key_channels` mean that many.
      profile: form of the correlation, "linear" or "softmax", see `AgentCorrelation`.
      refine: whether agents are refined by `AgentRefinement`.
      temporal: whether frames are weighted by trajectories; otherwise as the host does.
      per_frame_top_k: positions of each frame that alignment keeps; None for all.
      age_embedding: whether trajectories know how old each frame is.
      heads: attention heads over a trajectory; they divide `key_channels`.
      similarity: the host's, "l2" or "dot"; keys with shrinkage and selection have their own.
      max_frames: see `BankMemory`.
      keep_every: see `BankMemory`.

    Raises:
      RdejaxError: settings out of range, or a similarity of another host.
    """

    anisotropic = True
    keeps_frames = True
    neutral_start = True
    trained_with = {"per_frame_top_k": None, "most_read": 3}

    def __init__(
        self,
        *,
        key_channels: int,
        value_channels: int,
        rngs: nnx.Rngs,
        agents: str | None = "svd",
        K: int = 16,
        profile: str = "linear",
        refine: bool = False,
        temporal: bool = True,
        per_frame_top_k: int | None = None,
        age_embedding: bool = False,
        heads: int = 4,
        similarity: str = "l2",
        max_frames: int | None = None,
        keep_every: int = 1,
    ):
        if similarity not in ("l2", "dot"):
            raise RdejaxError(f"similarity={similarity}: tmrn takes l2 or dot")
        if per_frame_top_k is not None and per_frame_top_k < 1:
            raise RdejaxError(f"per_frame_top_k={per_frame_top_k}: give 1 or more, or None for all")
        sizes = {"key_channels": key_channels, "value_channels": value_channels, "rngs": rngs}
        self.bank = BankMemory(**sizes, top_k=None, max_frames=max_frames, keep_every=keep_every)
        self.similarity = similarity
        self.per_frame_top_k = per_frame_top_k
        self.most_read: int | None = None  # frames that XMem's training reads at a time
        self.correlation = (
            None
            if agents is None or agents == "none"
            else AgentCorrelation(
                key_channels,
                agents=agents,
                number=K,
                profile=profile,
                refine=refine,
                similarity_name=similarity,
                rngs=rngs,
            )
        )
        self.beta = nnx.Param(jnp.ones(())) if temporal else None
        self.reasoning = (
            TrajectoryReasoning(key_channels, heads=heads, age_embedding=age_embedding, rngs=rngs)
            if temporal
            else None
        )

    def as_trained(self) -> "TMRNMemory":
        """Without a top-k, the bank without buckets; XMem's training reads three frames at most."""
        rule = super().as_trained()
        rule.bank = self.bank.as_trained()
        return rule

    def init(self, key: Any, value: Array, masks: Masks) -> TMRNState:
        """A bank of one frame."""
        bank = self.bank.init(_kept(key), value, masks)
        found = self._moments(key)
        first = None if found is None else found[None]
        return TMRNState(bank=bank, time=jnp.ones(1, jnp.int32), moments=first)

    def write(self, state: TMRNState, key: Any, value: Array, masks: Masks) -> TMRNState:
        """Puts the frame into the bank, and its Gram matrix beside it."""
        slot = self.bank.slot(state.bank.count, state.time.shape[0])
        bank = self.bank.write(state.bank, _kept(key), value, masks)
        found = self._moments(key)
        if found is not None and state.moments is not None:
            found = state.moments.at[slot].set(found)
        return TMRNState(bank=bank, time=state.time.at[slot].set(bank.count), moments=found)

    def keep(self, state: TMRNState, key: Any, value: Array, masks: Masks) -> TMRNState:
        """As `write`; where frames go again, this one takes the first one's place as well."""
        written = self.write(state, key, value, masks)
        if not self.bank.forgets:
            return written
        bank = self.bank.keep(state.bank, _kept(key), value, masks)
        found = written.moments
        if found is not None:
            found = found.at[0].set(self._moments(key))
        time = written.time.at[0].set(bank.count)
        return TMRNState(bank=bank, time=time, moments=found)

    def _moments(self, key: Any) -> Float[Array, "d d"] | None:
        """Of one frame's keys, for SVD agents."""
        # One for each place and not a running sum, in which what leaves would leave its rounding.
        return None if self.correlation is None else self.correlation.moments(in_rows(_plain(key)))

    def read(self, state: TMRNState, query: Any) -> tuple[Float[Array, "n o h w cv"], TMRNState]:
        """The mean of all values by alignment and temporal weight."""
        seen = self._seen(state)

        def mean(alignment: Array, weights: Array) -> Float[Array, "q o cv"]:
            weights = (weights[..., None] * alignment).astype(seen.value.dtype)
            out = jnp.einsum(
                "qtm,otmc->qoc", weights, seen.value, preferred_element_type=jnp.float32
            )
            return out.astype(seen.value.dtype)

        def one_frame(frame: Any) -> Float[Array, "o h w cv"]:
            h, w, _ = _plain(frame).shape
            out = self._answers(seen, frame, mean)
            return jnp.moveaxis(out, 1, 0).reshape(-1, h, w, out.shape[-1])

        if _plain(query).shape[0] == 1:
            return one_frame(jax.tree.map(lambda x: x[0], query))[None], state
        return lax.map(one_frame, query), state

    def _seen(self, state: TMRNState) -> Seen:
        valid, key, value = state.time > 0, state.bank.key, state.bank.value
        t, h, w, ck = _plain(key).shape

        def held(x: Array, axis: int = 0) -> Array:
            shape = [1] * x.ndim
            shape[axis] = t
            return jnp.where(valid.reshape(shape), x, jnp.zeros((), x.dtype))

        shrinkage = None
        if isinstance(key, AnisotropicKey):
            shrinkage = held(key.shrinkage).reshape(t, h * w)
        return Seen(
            key=held(_plain(key)).astype(jnp.float32).reshape(t, h * w, ck),
            shrinkage=shrinkage,
            value=held(value, 1).reshape(value.shape[0], t, h * w, value.shape[-1]),
            valid=valid,
            age=state.bank.count + 1 - state.time,
            moments=None if state.moments is None else held(state.moments).sum(0),
        )

    def _answers(self, seen: Seen, query: Any, answer: Callable[[Array, Array], Any]) -> Any:
        """What `answer` gives for the alignment [q, t, m] and temporal weights [q, t] of a frame.

        Args:
          seen: the memory.
          query: [h, w, ck], or a pytree of such.
          answer: gives arrays with a leading axis q.
        """
        rows, correlation = jax.tree.map(in_rows, query), self.correlation
        agents: Array | None = None
        profiles: Any = None
        if correlation is not None:
            present = jnp.repeat(seen.valid, seen.key.shape[1])
            own = _plain(rows).astype(jnp.float32)
            agents = correlation.of(own, in_rows(seen.key), present, seen.moments)
            profiles = correlation.profiles(agents, in_rows(seen.key))

        def some(rows: Any) -> Any:
            scores = self._scores(seen, rows)
            if correlation is not None and agents is not None:
                own = correlation.profiles(agents, _plain(rows).astype(jnp.float32))
                scores = scores + correlation(own, profiles)
            scores = scores.reshape(-1, *seen.key.shape[:2])
            alignment = self._aligned(scores)
            return answer(alignment, self._weights(seen, rows, scores, alignment))

        number = _plain(rows).shape[0]
        if number <= 2 * _ROWS:
            return some(rows)
        # In pieces, the last one filled up: scores of all at once are far larger than the bank.
        pieces = -(-number // _ROWS)
        rows = jax.tree.map(
            lambda x: jnp.pad(x, ((0, pieces * _ROWS - number), (0, 0))).reshape(
                pieces, _ROWS, x.shape[-1]
            ),
            rows,
        )
        found = lax.map(some, rows)
        return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:])[:number], found)

    def _scores(self, seen: Seen, rows: Any) -> Float[Array, "q tm"]:
        """The host's similarity."""
        key = in_rows(seen.key)
        if isinstance(rows, AnisotropicKey) and seen.shrinkage is not None:
            return anisotropic_l2(rows.key, rows.selection, key, seen.shrinkage.reshape(-1))
        return similarity(self.similarity, _plain(rows), key)

    def _aligned(self, scores: Float[Array, "q t m"]) -> Float[Array, "q t m"]:
        """Attention over the positions of each frame."""
        if self.per_frame_top_k is None:
            return jax.nn.softmax(scores, axis=-1)
        flat = in_rows(scores)
        once = jnp.ones(flat.shape[1], jnp.int32)
        return top_k_weights(flat, once, self.per_frame_top_k).reshape(scores.shape)

    def _weights(
        self, seen: Seen, rows: Any, scores: Float[Array, "q t m"], alignment: Array
    ) -> Float[Array, "q t"]:
        """Temporal weights of the frames for each query position."""
        logits = jax.nn.logsumexp(scores, axis=-1)
        if self.reasoning is not None and self.beta is not None:
            aligned = jnp.einsum("qtm,tmc->qtc", alignment, seen.key)
            query = _plain(rows).astype(jnp.float32)
            delta = self.reasoning(query, aligned, seen.valid, seen.age)
            logits = self.beta[...].astype(jnp.float32) * logits + delta.astype(jnp.float32)
        return jax.nn.softmax(jnp.where(seen.valid[None], logits, _NEVER), axis=-1)

    def drawn(self, state: TMRNState, key: Key[Array, ""]) -> TMRNState:
        """The state as XMem's training reads it once; see `first_and_random`."""
        if self.most_read is None:
            return state
        time = first_and_random(state.time, self.most_read, key)
        return state.replace(time=time)  # type: ignore[attr-defined]

    def contents(self, state: TMRNState) -> Entries:
        """The frames in the bank, each called by its number."""
        times = [int(t) - 1 for t in state.time if t > 0]
        key, value = _plain(state.bank.key), state.bank.value
        return Entries(key, value, ("",) * len(times), tuple(times))

    def views(self) -> Mapping[str, View]:
        """Trajectories of an object's positions, or of a pixel, and temporal weights."""
        return tmrn_views.views(self.trajectories)

    def trajectories(
        self, state: TMRNState, query: Any
    ) -> tuple[Int[Array, "h w t 2"], Float[Array, "h w t"]]:
        """What each position of a frame is aligned with in each place of the bank, and its weight.

        Args:
          state: the rule's state.
          query: [h, w, ck], or the system's pytree, the key of one frame.

        Returns:
          Row and column of the best aligned position; temporal weights, which sum to 1.
        """
        h, w, _ = _plain(query).shape

        def found(alignment: Array, weights: Array) -> tuple[Array, Array]:
            return jnp.argmax(alignment, axis=-1), weights

        index, weights = self._answers(self._seen(state), query, found)
        position = jnp.stack([index // w, index % w], axis=-1)
        return position.reshape(h, w, -1, 2), weights.reshape(h, w, -1)

    def capacity_for(self, writes: int) -> int | None:
        """Frames to make room for, see `BankMemory`."""
        return self.bank.capacity_for(writes)

    def capacity(self, state: TMRNState) -> int:
        """Frames the bank has places for."""
        return state.time.shape[0]

    def reserve(self, state: TMRNState, capacity: int) -> TMRNState:
        """Adds free places up to `capacity`."""
        extra = capacity - state.time.shape[0]
        if extra <= 0:
            return state
        more = state.moments
        if more is not None:
            more = jnp.pad(more, ((0, extra), (0, 0), (0, 0)))
        bank = self.bank.reserve(state.bank, capacity)
        return TMRNState(bank=bank, time=jnp.pad(state.time, (0, extra)), moments=more)


def _plain(key: Any) -> Array:
    """Keys without shrinkage and selection."""
    return key.key if isinstance(key, AnisotropicKey) else key


def _kept(key: Any) -> Any:
    """What memory keeps of a key: selection is the query's."""
    if isinstance(key, AnisotropicKey):
        return key.replace(selection=None)  # type: ignore[attr-defined]
    return key
