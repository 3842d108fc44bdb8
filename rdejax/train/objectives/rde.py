"""RDE-VOS' objective (Li et al., CVPR 2022, section 3.4, equations 4 to 7).

The memory that is trained learns beside a growing bank of the same networks, which reads every
frame (the STM pattern) and gives what is remembered of it. Every second frame is scored as read
from the trained memory (the SAM pattern) and drawn to the bank's reading of the same frame (L_UG).
The memory starts from a perturbed first mask, whose value is drawn to that of the true one (L_MC).
"""

import dataclasses
import functools
from typing import Any, ClassVar, Literal

import flax.struct
import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Key

from rdejax.data.batch import Clip
from rdejax.errors import RdejaxError
from rdejax.memory.bank import BankMemory
from rdejax.models import System
from rdejax.models.matching import Entry, Matching, MatchingFeatures, MatchingState
from rdejax.models.protocol import one_frame
from rdejax.propagate.scanning import scan
from rdejax.train.losses import channel_kl, one_hot_masks
from rdejax.train.objectives.protocol import ClipOutputs, Objective, one_of
from rdejax.train.objectives.registry import register
from rdejax.train.objectives.unroll import encode_clip, kept, with_background


@flax.struct.dataclass
class _Past:
    bank: MatchingState
    own: MatchingState | None
    guidance: Float[Array, ""]


@register("rde")
@dataclasses.dataclass(frozen=True)
class RDEObjective(Objective):
    """L_Seg + mu L_UG + gamma L_MC, for any memory rule on the shared body.

    Attributes:
      patterns: "alternate": odd frames are scored as read from the bank, even ones as read from the
        system's own memory, so clips have an odd number of frames; "stm": all as read from the
        bank (stage 0, before there is an embedding): the system's own memory is not trained.
      convention: "paper" weighs the frames alike (half the sum where the patterns alternate, else
        their mean); "public" follows the published code: the running sum is halved after each
        frame, so the last counts most, and absent objects' embeddings count in L_UG and L_MC.
      guidance: mu, weight of L_UG.
      consistency: gamma, weight of L_MC; it costs the encoding of one more value.
    """

    name: ClassVar[str] = "rde"
    patterns: Literal["alternate", "stm"] = "alternate"
    convention: Literal["paper", "public"] = "paper"
    guidance: float = 10.0
    consistency: float = 10.0

    def __post_init__(self) -> None:
        one_of("objective rde:", "patterns", self.patterns, ("alternate", "stm"))
        one_of("objective rde:", "convention", self.convention, ("paper", "public"))

    def check(self, model: System, frames: int) -> None:
        """See `Objective`.

        Raises:
          RdejaxError: a system of another body, a memory that is a bank itself, or an even number
            of frames.
        """
        if not isinstance(model, Matching):
            raise RdejaxError(
                f"objective 'rde' needs a system that matches keys, which {model.name!r} does not; "
                f"train it with objective {model.objective!r}"
            )
        if self.patterns == "stm":
            return
        if frames < 3 or frames % 2 == 0:
            raise RdejaxError(
                f"clip.frames={frames}: objective 'rde' with patterns=alternate needs an odd "
                "number of frames, 3 or more; change it, or set patterns=stm or objective unroll"
            )
        if model.memory.keeps_frames:
            raise RdejaxError(
                "objective 'rde' with patterns=alternate trains a memory beside a bank, but memory "
                f"{model.settings.memory!r} of system {model.name!r} is the bank; train it with "
                "objective unroll, or set memory to rde"
            )

    def notes(self, model: System) -> list[str]:
        """See `Objective`."""
        learned = jax.tree.leaves(nnx.state(model.memory)) if isinstance(model, Matching) else []
        if self.patterns != "stm" or not learned:
            return []
        return [
            f"patterns=stm reads every frame from a bank: the weights of memory "
            f"{model.settings.memory!r} are not trained"
        ]

    def __call__(
        self,
        model: System,
        clip: Clip,
        key: Key[Array, ""],
        *,
        remat: bool = False,
        dtype: Any = jnp.float32,
    ) -> ClipOutputs:
        """See `Objective`."""
        del key
        assert isinstance(model, Matching)
        run = _ClipRun(self, model, clip, remat, dtype)
        logits, guidance = run.frames()
        consistency = run.consistency() if self.consistency else jnp.zeros(())
        return ClipOutputs(
            logits=logits,
            weights=frame_weights(logits.shape[0], self.convention, self.patterns),
            auxiliary=self.guidance * guidance + self.consistency * consistency,
            terms={"guidance": guidance, "consistency": consistency},
        )


class _ClipRun:
    """One clip's unrolling; what its parts share."""

    def __init__(
        self, objective: RDEObjective, model: Matching, clip: Clip, remat: bool, dtype: Any
    ):
        self.clip = clip
        self.bank = model.with_memory(full_bank(model))
        self.own = model.as_trained() if objective.patterns == "alternate" else None
        everyone = objective.convention == "public"
        self.counts = jnp.ones_like(clip.valid) if everyone else clip.valid
        self.keep = kept(remat)
        self.features = encode_clip(model, clip.frames, remat=remat, dtype=dtype)
        self.first = one_frame(self.features, 0)
        self.given = self.keep(self._entry)(clip.perturbed.astype(jnp.float32))

    def _entry(self, masks: Array) -> Entry:
        return self.bank.entry(self.first, with_background(masks), 1, self.clip.given)

    def consistency(self) -> Float[Array, ""]:
        """L_MC."""
        true = self.keep(self._entry)(one_hot_masks(self.clip.labels[0], self.counts.shape[0]))
        return channel_kl(self.given.value[0], true.value[0], self.counts)

    def frames(self) -> tuple[Float[Array, "t c H W"], Float[Array, ""]]:
        """Logits of the frames after the first, as they are scored, and L_UG."""
        count, period = self.clip.frames.shape[0], 2 if self.own else 1
        valid = self.clip.valid[None]
        past = _Past(
            bank=self.bank.reserve(self.bank.begin(self.given, valid), count - 2),
            own=self.own.begin(self.given, valid) if self.own else None,
            guidance=jnp.zeros(()),
        )
        blocks = jax.tree.map(lambda x: x[1:].reshape(-1, period, *x.shape[1:]), self.features)
        # The last frame is not memorised, so its block stands outside of the scan.
        parts = []
        if count > period + 1:
            past, logits = scan(self._block, past, jax.tree.map(lambda x: x[:-1], blocks))
            parts.append(logits)
        past, tail = self._block(past, jax.tree.map(lambda x: x[-1], blocks), last=True)
        logits = jnp.concatenate([*parts, tail[None]])
        return logits.reshape(-1, *logits.shape[2:]), past.guidance

    def _block(
        self, past: _Past, now: MatchingFeatures, last: bool = False
    ) -> tuple[_Past, Float[Array, "p c H W"]]:
        period, out = 2 if self.own else 1, []
        for i in range(period):
            memorize = not (last and i == period - 1)
            step = self.keep(functools.partial(self._frame, guided=i == 1, memorize=memorize))
            past, scored = step(past, one_frame(now, i))
            out.append(scored)
        return past, jnp.stack(out)

    def _frame(
        self, past: _Past, now: MatchingFeatures, guided: bool, memorize: bool
    ) -> tuple[_Past, Float[Array, "c H W"]]:
        bank, own, guidance = past.bank, past.own, past.guidance
        bank, logits, teacher = _seen(self.bank, bank, now)
        scored = logits
        if guided:
            assert self.own is not None and own is not None
            own, scored, student = _seen(self.own, own, now)
            guidance = guidance + channel_kl(student, teacher, self.counts)
        if memorize:
            entry = self.bank.entry(now, jax.nn.softmax(logits, axis=0), 1)
            bank = self.bank.write(bank, entry)
            own = self.own.write(own, entry) if self.own and own else None
        return _Past(bank, own, guidance), scored


def _seen(
    model: Matching, state: MatchingState, now: MatchingFeatures
) -> tuple[MatchingState, Float[Array, "c H W"], Float[Array, "o h w d"]]:
    """`Matching.segment` of one frame, and what the decoder saw."""
    state, readout = model.read(state, now)
    logits = model.decode(state, now, readout)[0]
    return state, logits, model.decoder_input(readout, now.query_value)[0]


def full_bank(model: Matching) -> BankMemory:
    """A bank of all frames, read by a full softmax, that compares keys as the model's rule does."""
    rule = BankMemory(
        key_channels=0,
        value_channels=0,
        rngs=nnx.Rngs(0),
        similarity=model.memory.similarity,
    )
    return rule.as_trained()


def frame_weights(frames: int, convention: str, patterns: str) -> Float[Array, " t"]:
    """Weights of the segmentation losses of a clip's predicted frames.

    Args:
      frames: predicted frames, one fewer than the clip has.
      convention: "paper": one half each (L_Seg, equation 7), or their mean where the patterns do
        not alternate; "public": the running total is halved after each frame is added.
      patterns: see `RDEObjective`.
    """
    if convention == "public":
        return 0.5 ** jnp.arange(frames, 0, -1, dtype=jnp.float32)
    return jnp.full(frames, 0.5 if patterns == "alternate" else 1.0 / frames)
