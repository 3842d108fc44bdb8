"""Recurrent dynamic embedding: a bank of constant size (RDE-VOS, Li et al., CVPR 2022)."""

import re

import flax.struct
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int

from rdejax.errors import RdejaxError
from rdejax.memory.affinity import checked_similarity, checked_top_k, read_out
from rdejax.memory.protocol import Entries, Masks, MemoryRule
from rdejax.memory.registry import register
from rdejax.nn.sam import MemoryCompressor

ENTRIES = ("RDE", "L", "F")
# Of a SAM; the ablation has at most a few.
_MOST_BLOCKS = 64


def parse_strategy(strategy: str) -> dict[str, int]:
    """Copies of each bank entry, from a string as in the paper's table, such as "2F+L+RDE".

    F is the first frame, L the latest memorised one, RDE the recurrent dynamic embedding; a number
    in front repeats an entry. Separators "+" or "&", any order, upper or lower case.

    Raises:
      RdejaxError: an unknown or repeated entry, or an empty strategy.
    """
    counts: dict[str, int] = {}
    for part in re.split(r"[+&]", strategy.replace(" ", "").upper()):
        match = re.fullmatch(r"([1-9]?)(F|L|RDE)", part)
        if match is None or match[2] in counts:
            raise RdejaxError(
                f"memory strategy {strategy!r} is not understood; "
                'join F, L and RDE, each at most once, with "+", for example "2F+L+RDE"'
            )
        counts[match[2]] = int(match[1] or 1)
    return counts


@flax.struct.dataclass
class RDEState:
    """The bank's distinct entries, in the order of `ENTRIES` without those the strategy lacks.

    Attributes:
      key: [e, h, w, ck].
      value: [o, e, h, w, cv].
      updates: frames memorised after the first.
    """

    key: Float[Array, "e h w ck"]
    value: Float[Array, "o e h w cv"]
    updates: Int[Array, ""]


@register("rde")
class RDEMemory(MemoryRule):
    """First frame, latest memorised frame and recurrent dynamic embedding, read as one bank.

    On memorising frame t (equations 1 to 3 of the paper), with one SAM for keys and one for values,

        k_RDE <- SAM_k(k_RDE, k_t),  v_RDE <- SAM_v(v_RDE, v_t),  L <- (k_t, v_t).

    At the start every entry is the first frame. Until the first update the bank reads it once, or
    twice for strategies with both F and RDE, as the public code does (only top-k can tell).

    Args:
      key_channels: width of the keys.
      value_channels: width of the values.
      strategy: entries and their copies, see `parse_strategy`. All rows of the paper's table.
      top_k: memory positions kept per query position; None for the full softmax.
      similarity: "l2", "dot" or "cosine".
      repeat: squeeze-and-excitation blocks before ASPP in each SAM (ablation; published: 0).
      aspp: whether the SAMs have their ASPP (ablation; published: True).
      rngs: for the SAMs' initial weights.

    Raises:
      RdejaxError: a strategy or similarity that is not known, top_k below 1, or repeat outside
        [0, 64].
    """

    trained_with = {"top_k": None}

    def __init__(
        self,
        *,
        key_channels: int,
        value_channels: int,
        rngs: nnx.Rngs,
        strategy: str = "2F+L+RDE",
        top_k: int | None = 40,
        similarity: str = "l2",
        repeat: int = 0,
        aspp: bool = True,
    ):
        self.strategy = strategy
        counts = parse_strategy(strategy)
        self.entries = tuple(name for name in ENTRIES if name in counts)
        self.copies = tuple(counts[name] for name in self.entries)
        if not 0 <= repeat <= _MOST_BLOCKS:
            raise RdejaxError(f"repeat={repeat}: give a number of blocks from 0 to {_MOST_BLOCKS}")
        self.top_k = checked_top_k(top_k)
        self.similarity = checked_similarity(similarity)
        compressors = [
            MemoryCompressor(channels, repeat=repeat, aspp=aspp, rngs=rngs)
            for channels in (key_channels, value_channels)
            if "RDE" in counts
        ]
        self.compress_key, self.compress_value = compressors or (None, None)

    def as_trained(self) -> "RDEMemory":
        """The recurrent embedding alone (the paper's SAM pattern), if the strategy has it."""
        rule = super().as_trained()
        if "RDE" in self.entries:
            rule.strategy, rule.entries, rule.copies = "RDE", ("RDE",), (1,)
        return rule

    def init(self, key: Array, value: Array, masks: Masks) -> RDEState:
        """Every entry is the first frame."""
        del masks
        e = len(self.entries)
        return RDEState(
            key=jnp.repeat(key[None], e, axis=0),
            value=jnp.repeat(value[:, None], e, axis=1),
            updates=jnp.zeros((), jnp.int32),
        )

    def read(self, state: RDEState, query: Array) -> tuple[Array, RDEState]:
        """Attention over the entries, repeated ones counted by multiplicity."""
        e, h, w, ck = state.key.shape
        o, cv = state.value.shape[0], state.value.shape[-1]
        twice = "F" in self.entries and "RDE" in self.entries
        before = jnp.zeros(e, jnp.int32).at[0].set(2 if twice else 1)
        copies = jnp.where(state.updates > 0, jnp.asarray(self.copies, jnp.int32), before)
        readout = read_out(
            query,
            state.key.reshape(e * h * w, ck),
            state.value.reshape(o, e * h * w, cv),
            jnp.repeat(copies, h * w),
            top_k=self.top_k,
            similarity_name=self.similarity,
        )
        return readout, state

    def write(self, state: RDEState, key: Array, value: Array, masks: Masks) -> RDEState:
        """Moves the embedding on by one frame; the frame becomes the latest."""
        del masks
        new_key, new_value = state.key, state.value
        for i, name in enumerate(self.entries):
            if name == "L":
                entry_key, entry_value = key, value
            elif name == "RDE":
                assert self.compress_key is not None and self.compress_value is not None
                entry_key = self.compress_key(state.key[i][None], key[None])[0]
                entry_value = self.compress_value(state.value[:, i], value)
            else:
                continue
            new_key = new_key.at[i].set(entry_key)
            new_value = new_value.at[:, i].set(entry_value)
        return RDEState(key=new_key, value=new_value, updates=state.updates + 1)

    def keep(self, state: RDEState, key: Array, value: Array, masks: Masks) -> RDEState:
        """As `write`; the frame also takes the place of the first one (this project's own)."""
        state = self.write(state, key, value, masks)
        if "F" not in self.entries:
            return state
        i = self.entries.index("F")
        return state.replace(  # type: ignore[attr-defined]
            key=state.key.at[i].set(key), value=state.value.at[:, i].set(value)
        )

    def contents(self, state: RDEState) -> Entries:
        """The bank's entries; the embedding sums up all frames."""
        writes = {"RDE": None, "L": int(state.updates), "F": 0}
        return Entries(state.key, state.value, self.entries, tuple(writes[n] for n in self.entries))
