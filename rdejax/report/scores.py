"""J and F of a run for the page: from `rdejax.evaluate`, or from the `results.json` it wrote."""

import dataclasses
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from rdejax.errors import RdejaxError
from rdejax.evaluate import ObjectScore, Scores
from rdejax.files import read_json

Row = Mapping[str, float | None]


@dataclasses.dataclass(frozen=True)
class Curve:
    """Scores along a sequence, means over the objects that count in a frame.

    Attributes:
      frames: [T] names.
      j: [T] region similarity, 0 to 1.
      f: [T] contour accuracy, 0 to 1.
    """

    frames: tuple[str, ...]
    j: Float[np.ndarray, " t"]
    f: Float[np.ndarray, " t"]

    @property
    def mean(self) -> Float[np.ndarray, " t"]:
        """Mean of J and F."""
        return (self.j + self.f) / 2


@dataclasses.dataclass(frozen=True)
class ScoreTable:
    """Scores by column name, as fractions; None where a number is not defined.

    Attributes:
      total: the global row.
      sequences: a row per sequence.
      objects: a row per object.
      notes: what was left out of the numbers.
      curves: by sequence; empty if only `results.json` is known.
    """

    total: Row
    sequences: Mapping[str, Row]
    objects: Mapping[str, Row]
    notes: tuple[str, ...] = ()
    curves: Mapping[str, Curve] = dataclasses.field(default_factory=dict)

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the columns, in order; the first one ranks the sequences."""
        return tuple(self.total)

    @property
    def ranking(self) -> list[str]:
        """Sequences that have a number in the first column, worst first."""
        key = self.columns[0]
        known = {name: row[key] for name, row in self.sequences.items()}
        return sorted((n for n, v in known.items() if v is not None), key=lambda n: (known[n], n))


def from_scores(scores: Scores) -> ScoreTable:
    """What the page needs of an evaluation's outcome."""
    groups: dict[str, list[ObjectScore]] = {}
    for score in scores.objects:
        groups.setdefault(score.sequence, []).append(score)
    return ScoreTable(
        _finite(scores.global_row),
        {name: _finite(row) for name, row in scores.sequence_rows.items()},
        {name: _finite(row) for name, row in scores.object_rows.items()},
        tuple(scores.notes),
        {name: mean_curve(group) for name, group in groups.items()},
    )


def from_json(path: Path) -> ScoreTable | None:
    """Reads `results.json`; None if there is none.

    Raises:
      RdejaxError: the file is not what `rdejax.evaluate` writes.
    """
    content = read_json(path)
    if content is None:
        return None
    total, sequences = content.get("global"), content.get("sequences", {})
    objects = content.get("objects", {})
    if not isinstance(total, dict) or not total or not _is_table(sequences, objects):
        raise RdejaxError(
            f"{path}: not written by rdejax.evaluate; evaluate again or move the file away"
        )
    return ScoreTable(
        _finite(total),
        {name: _finite(row) for name, row in sequences.items()},
        {name: _finite(row) for name, row in objects.items()},
        tuple(map(str, content.get("notes", ()))),
    )


def mean_curve(objects: list[ObjectScore]) -> Curve:
    """Means over the objects of one sequence; an object counts from its own first frame on."""
    values: dict[str, list[tuple[float, float]]] = {}
    # The object that entered first knows all frames, in order.
    for score in sorted(objects, key=lambda score: -len(score.frames)):
        for name, j, f in zip(score.frames, score.j, score.f, strict=True):
            values.setdefault(name, []).append((float(j), float(f)))
    means = np.array([np.mean(pairs, axis=0) for pairs in values.values()]).reshape(-1, 2)
    return Curve(tuple(values), means[:, 0], means[:, 1])


def _is_table(*values: Any) -> bool:
    return all(
        isinstance(value, dict) and all(isinstance(row, dict) for row in value.values())
        for value in values
    )


def _finite(row: Mapping[str, Any]) -> dict[str, float | None]:
    """A row whose undefined numbers are None."""
    return {
        column: float(value) if isinstance(value, int | float) and math.isfinite(value) else None
        for column, value in row.items()
    }
