"""What the benchmarks over memory rules share: a variant of a model, scored on a data set."""

import dataclasses
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np

import rdejax
from rdejax.errors import RdejaxError
from rdejax.io.datasets import VideoSequence
from rdejax.models import System
from rdejax.models.protocol import State, given_probs
from rdejax.train.config import ValidateConfig
from rdejax.train.validate import validate


@dataclasses.dataclass(frozen=True)
class Variant:
    """One line of a table.

    Attributes:
      name: as printed.
      checkpoint: name or path of weights.
      settings: overrides, as `rdejax.load_model` takes them.
    """

    name: str
    checkpoint: str
    settings: dict[str, Any]

    def load(self) -> System:
        """The model."""
        return rdejax.load_model(self.checkpoint, **self.settings)


def quality(
    model: System, config: ValidateConfig, sequences: list[VideoSequence]
) -> dict[str, Any]:
    """J, F, J&F in per cent over the sequences, and of each sequence."""
    scores = validate(model, config, sequences)
    assert scores is not None
    each = {name: 100 * value for name, value in scores["sequences"].items()}
    return {k: 100 * scores[k] for k in ("J&F", "J", "F")} | {"sequences": each}


def data(root: Path, size: int, dataset: str, split: str, frames: int = 0) -> ValidateConfig:
    """What to score on.

    Raises:
      RdejaxError: no such folder.
    """
    if not root.is_dir():
        raise RdejaxError(f"{root}: no such folder; give the top folder of a data set as --root")
    return ValidateConfig(
        every=1, dataset=dataset, root=str(root), split=split, size=size, frames=frames
    )


def milliseconds(model: System, frames: np.ndarray, mask: np.ndarray, rounds: int) -> float:
    """Time per frame of a stream whose functions are compiled: median over pushes of one block."""
    stream = rdejax.stream(model)
    stream.push(frames[:1], {0: mask})
    block = model.settings.every
    times = []
    for i in range(rounds + 2):
        part = frames[np.arange(1 + i * block, 1 + (i + 1) * block) % len(frames)]
        before = time.perf_counter()
        stream.push(part)
        times.append((time.perf_counter() - before) / block)
    return 1000 * float(np.median(times[2:]))


def state_bytes(model: System, height: int, width: int, frame: int, objects: int = 1) -> int:
    """Bytes of the state after `frame` frames, from its shapes; nothing is computed."""
    size = (-(-height // 16) * 16, -(-width // 16) * 16)

    def start(model: System) -> State:
        image = jax.numpy.zeros((1, *size, 3))
        valid = jax.numpy.ones(objects, bool)
        probs = given_probs(jax.numpy.zeros((objects, *size)), valid)
        state = model.start(model.encode(image), probs, valid)
        return model.reserve(state, (frame - 1) // model.settings.every)

    shapes = jax.eval_shape(start, model)
    return sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(shapes.memory))
