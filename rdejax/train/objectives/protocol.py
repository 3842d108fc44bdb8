"""The contract of an objective, and objectives by name.

An objective runs a clip through a system and says how its frames are weighted and what is added to
their losses. It is a frozen dataclass of its settings, so that a recipe names it and gives settings
as NAME=VALUE, and no other objective's schema knows them.
"""

import dataclasses
from typing import Any, ClassVar

import flax.struct
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from rdejax.data.batch import Clip
from rdejax.errors import RdejaxError
from rdejax.models import System


@flax.struct.dataclass
class ClipOutputs:
    """What is scored of a clip of T frames, whose first mask is given.

    Attributes:
      logits: [T-1, o+1, H, W] of the frames after the first.
      weights: [T-1], of each frame's cross-entropy.
      auxiliary: loss added to that of the frames; a scalar.
      terms: parts of it by name, before their weights, for the log.
    """

    logits: Float[Array, "t c H W"]
    weights: Float[Array, " t"]
    auxiliary: Float[Array, ""]
    terms: dict[str, Float[Array, ""]]


@dataclasses.dataclass(frozen=True)
class Objective:
    """Base of all objectives; fields are its settings."""

    name: ClassVar[str]

    def __call__(
        self,
        model: System,
        clip: Clip,
        key: Key[Array, ""],
        *,
        remat: bool = False,
        dtype: Any = jnp.float32,
    ) -> ClipOutputs:
        """Runs a clip.

        Args:
          model: the system, with the memory rule that inference reads.
          clip: one clip, without a batch axis.
          key: for what is drawn at random, on the device, for this clip in this step.
          remat: recompute activations in the backward pass instead of keeping them.
          dtype: of the networks' activations; logits and losses are float32.
        """
        raise NotImplementedError

    def check(self, model: System, frames: int) -> None:
        """Refuses what cannot be trained so.

        Args:
          model: the system.
          frames: of a clip.

        Raises:
          RdejaxError: it does not fit the system or the clips.
        """

    def notes(self, model: System) -> list[str]:
        """Sentences on what this objective leaves out, for the beginning of a run."""
        del model
        return []


def make_objective(kind: type[Objective], settings: dict[str, Any]) -> Objective:
    """The objective with its settings.

    Raises:
      RdejaxError: a setting it does not have, or a value it does not take.
    """
    known = {field.name: field.default for field in dataclasses.fields(kind)}
    for name, value in settings.items():
        if name not in known:
            raise RdejaxError(
                f"objective {kind.name!r} has no setting {name!r}; it has "
                f"{', '.join(sorted(known)) or 'none'}"
            )
        if type(known[name]) in (int, float) and type(value) not in (int, float):
            raise RdejaxError(f"objective {kind.name} {name}={value}: give a number")
    return kind(**settings)


def one_of(owner: str, name: str, value: Any, choices: tuple[str, ...]) -> None:
    """Checks a setting that is a word.

    Raises:
      RdejaxError: another word.
    """
    if value not in choices:
        raise RdejaxError(f"{owner} {name}={value}: give one of {', '.join(choices)}")
