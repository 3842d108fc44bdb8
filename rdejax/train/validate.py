"""J and F of the averaged parameters on a data set on disk, as inference and evaluation give."""

import dataclasses
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from rdejax.api import stream
from rdejax.errors import RdejaxError
from rdejax.evaluate.davis import DATASETS, evaluate_sequences
from rdejax.infer.dataset import read_given
from rdejax.infer.video import Written, run_stream
from rdejax.io.datasets import VideoSequence, list_sequences
from rdejax.io.masks import write_mask
from rdejax.io.threads import AsyncWriter
from rdejax.io.video import FolderFrames
from rdejax.models import System
from rdejax.propagate.geometry import DEFAULT_SIZE, Geometry
from rdejax.propagate.schedule import frames_per_call
from rdejax.propagate.slots import known_layout
from rdejax.train.config import ValidateConfig


def validation_sets(config: ValidateConfig) -> list[ValidateConfig]:
    """One configuration for each data set: that of `root`, then those of `also`.

    Raises:
      RdejaxError: an entry of `also` that is not DATASET:ROOT.
    """
    sets = [dataclasses.replace(config, also=())]
    for entry in config.also:
        dataset, colon, path = entry.partition(":")
        root, at, split = path.rpartition("@")
        if not at or Path(path).exists():
            root, split = path, config.split
        if not colon or not root:
            raise RdejaxError(f"validate.also={entry!r}: give DATASET:ROOT or DATASET:ROOT@SPLIT")
        sets.append(dataclasses.replace(sets[0], dataset=dataset, root=root, split=split))
    return sets


def mean_scores(each: list[tuple[str, dict[str, Any]]]) -> dict[str, Any]:
    """Scores of several data sets as `validate` gives those of one.

    Args:
      each: folder and scores of each set.

    Returns:
      The scores, if there is one set. Else the sets' mean "J&F", "J" and "F", the sequences of all
      as "SET/SEQUENCE", and "sets": the J&F of each. A set is called after its folder, by the
      whole path where names repeat.
    """
    if len(each) == 1:
        return each[0][1]
    if len({Path(root).name for root, _ in each}) == len(each):
        each = [(Path(root).name, scores) for root, scores in each]
    means = {n: sum(scores[n] for _, scores in each) / len(each) for n in ("J&F", "J", "F")}
    sequences = {f"{n}/{k}": v for n, scores in each for k, v in scores["sequences"].items()}
    return {**means, "sequences": sequences, "sets": {n: scores["J&F"] for n, scores in each}}


def validation_sequences(config: ValidateConfig) -> list[VideoSequence]:
    """The sequences to validate on, cut to their first `config.frames` frames.

    Raises:
      RdejaxError: no such data, or a sequence with too few masks to be scored.
    """
    if config.dataset not in DATASETS:
        raise RdejaxError(
            f"validate.dataset={config.dataset!r}: choose one of {', '.join(DATASETS)}"
        )
    assert config.root is not None
    everything = list_sequences(config.dataset, config.root, config.split)
    chosen = everything
    if 0 < config.sequences < len(everything):
        numbers = np.linspace(0, len(everything) - 1, config.sequences).round().astype(int)
        chosen = [everything[n] for n in numbers]
    cut = [_first_frames(sequence, config.frames) for sequence in chosen]
    for sequence in cut:
        if len(sequence.masks) < 3:
            raise RdejaxError(
                f"validation on {sequence.name!r} of {config.root}: {len(sequence.masks)} true "
                f"masks in {len(sequence.frames)} frames, of which the first and the last do not "
                "count; give validate.frames more, or 0 for all"
            )
    return cut


def validate(
    model: System,
    config: ValidateConfig,
    sequences: list[VideoSequence],
    *,
    stopped: Callable[[], bool] = lambda: False,
) -> dict[str, Any] | None:
    """Segments and scores the sequences.

    The first frame, whose mask is given, and the last do not count; means are over objects, as in
    the DAVIS toolkit. With several processes each does its share and all get the same answer. Each
    size of frames and number of objects compiles once, in the first validation.

    Args:
      model: with the parameters to validate, on this process's own device.
      config: data set and size.
      sequences: see `validation_sequences`.
      stopped: asked between sequences; validation is given up when it says yes.

    Returns:
      "J&F", "J", "F", fractions in [0, 1], and "sequences": the J&F of each by name. None if it was
      given up.

    Raises:
      RdejaxError: unreadable frames or masks.
    """
    sums = np.zeros((len(sequences), 3))
    for i in range(jax.process_index(), len(sequences), jax.process_count()):
        if stopped():
            return None
        sums[i] = _score(model, config, sequences[i])
    if jax.process_count() > 1:
        sums = np.asarray(multihost_utils.process_allgather(sums)).sum(0)
    j, f = (sums[:, :2].sum(0) / sums[:, 2].sum()).tolist()
    each = (sums[:, 0] + sums[:, 1]) / (2 * sums[:, 2])
    return {
        "J&F": (j + f) / 2,
        "J": j,
        "F": f,
        "sequences": {s.name: float(v) for s, v in zip(sequences, each, strict=True)},
    }


def _first_frames(sequence: VideoSequence, count: int) -> VideoSequence:
    if not count:
        return sequence
    frames = sequence.frames[:count]
    stems = {path.stem for path in frames}
    masks = {stem: path for stem, path in sequence.masks.items() if stem in stems}
    return dataclasses.replace(sequence, frames=frames, masks=masks)


def _score(
    model: System, config: ValidateConfig, sequence: VideoSequence
) -> tuple[float, float, int]:
    """Sums of J and F over the objects of a sequence, and their number."""
    with tempfile.TemporaryDirectory(prefix="rdejax-validate-") as folder:
        _segment(model, config, sequence, Path(folder) / sequence.name)
        scores = evaluate_sequences(config.dataset, [sequence], folder)
    j = [float(np.mean(score.j)) for score in scores.objects]
    f = [float(np.mean(score.f)) for score in scores.objects]
    return sum(j), sum(f), len(j)


def _segment(model: System, config: ValidateConfig, sequence: VideoSequence, folder: Path) -> None:
    """Writes the masks of a sequence, through the same parts as rdejax infer."""
    source = FolderFrames(sequence.frames[0].parent, sequence.frames)
    given = read_given(sequence, source)
    size = config.size or model.settings.size or DEFAULT_SIZE
    video = stream(model, layout=known_layout(given.masks), size=size)
    inner = Geometry.under(model.settings, source.size, size).inner
    chunk = frames_per_call(None, model.settings.every, source.size, inner)
    folder.mkdir(parents=True)

    def save(item: Written) -> None:
        write_mask(folder / f"{item.name}.png", item.mask)

    with AsyncWriter[Written](save, 32) as out:
        run_stream(video, source.frames(), given.masks, out.put, chunk=chunk, where=source.path)
