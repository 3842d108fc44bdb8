"""The scores of a folder of results and what they are condensed into."""

import dataclasses
import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float64

from rdejax.evaluate.measures import Statistics, statistics

COLUMNS = ("J&F-Mean", "J-Mean", "J-Recall", "J-Decay", "F-Mean", "F-Recall", "F-Decay")
SEEN_COLUMNS = ("G", "J-seen", "J-unseen", "F-seen", "F-unseen")


@dataclasses.dataclass(frozen=True)
class ObjectScore:
    """J and F of one object.

    Attributes:
      sequence: name of its sequence.
      label: its id in the masks.
      frames: stems of the frames that count.
      j: [frames] region similarity.
      f: [frames] contour accuracy.
      category: what it is, where the data set tells.
      seen: whether training data hold its category; None where that does not matter or is unknown.
    """

    sequence: str
    label: int
    frames: tuple[str, ...]
    j: Float64[np.ndarray, " t"]
    f: Float64[np.ndarray, " t"]
    category: str | None = None
    seen: bool | None = None

    @property
    def name(self) -> str:
        """`<sequence>_<id>`, the toolkit's row name."""
        return f"{self.sequence}_{self.label}"


@dataclasses.dataclass(frozen=True)
class Curve:
    """J and F along a sequence, means over the objects that count in a frame.

    Attributes:
      frames: stems of the frames in which some object counts.
      j: [frames] region similarity.
      f: [frames] contour accuracy.
    """

    frames: tuple[str, ...]
    j: Float64[np.ndarray, " t"]
    f: Float64[np.ndarray, " t"]

    @property
    def mean(self) -> Float64[np.ndarray, " t"]:
        """Mean of J and F."""
        return (self.j + self.f) / 2


@dataclasses.dataclass(frozen=True)
class Scores:
    """Every object's scores and the three summaries, all numbers as fractions.

    Attributes:
      objects: in the order of the data set's list.
      notes: what was left out of the numbers, one sentence each; normally empty.
    """

    objects: tuple[ObjectScore, ...]
    notes: tuple[str, ...] = ()

    @property
    def global_row(self) -> dict[str, float]:
        """Mean over all objects of all sequences, by column name.

        Where every object is known to be of a seen or an unseen category, `SEEN_COLUMNS` too.
        """
        return {**summarise(self.objects), **summarise_seen(self.objects)}

    @property
    def sequence_rows(self) -> dict[str, dict[str, float]]:
        """Mean over the objects of each sequence, by sequence and column name."""
        return {name: summarise(group) for name, group in self._groups().items()}

    @property
    def object_rows(self) -> dict[str, dict[str, float]]:
        """Each object by its own, by object and column name."""
        return {score.name: summarise([score]) for score in self.objects}

    @property
    def curves(self) -> dict[str, Curve]:
        """Means over the objects of each sequence, frame by frame."""
        return {name: mean_curve(group) for name, group in self._groups().items()}

    def _groups(self) -> dict[str, list[ObjectScore]]:
        groups: dict[str, list[ObjectScore]] = {}
        for score in self.objects:
            groups.setdefault(score.sequence, []).append(score)
        return groups


def mean_curve(objects: Sequence[ObjectScore]) -> Curve:
    """Means over the objects of one sequence; an object counts from its own first frame on."""
    values: dict[str, list[tuple[float, float]]] = {}
    # The object that entered first knows all frames, in order.
    for score in sorted(objects, key=lambda score: -len(score.frames)):
        for name, j, f in zip(score.frames, score.j, score.f, strict=True):
            values.setdefault(name, []).append((float(j), float(f)))
    means = np.array([np.mean(pairs, axis=0) for pairs in values.values()]).reshape(-1, 2)
    return Curve(tuple(values), means[:, 0], means[:, 1])


def summarise(objects: Sequence[ObjectScore]) -> dict[str, float]:
    """Means over `objects` of each statistic; J&F-Mean is the mean of the two means."""
    j, f = (
        Statistics(*np.mean([statistics(values) for values in rows], axis=0).tolist())
        for rows in ([score.j for score in objects], [score.f for score in objects])
    )
    return dict(zip(COLUMNS, ((j.mean + f.mean) / 2, *j, *f), strict=True))


def summarise_seen(objects: Sequence[ObjectScore]) -> dict[str, float]:
    """J and F over the objects of seen and of unseen categories, and G, the mean of the four.

    YouTube-VOS (Xu et al., arXiv 1809.03327, section 5). NaN where there is no such object.

    Returns:
      By `SEEN_COLUMNS`; empty if it is unknown for some object.
    """
    if not objects or any(score.seen is None for score in objects):
        return {}
    return seen_row([(bool(s.seen), float(np.mean(s.j)), float(np.mean(s.f))) for s in objects])


def seen_row(objects: Sequence[tuple[bool, float, float]]) -> dict[str, float]:
    """The numbers by `SEEN_COLUMNS`, from (of a seen category?, J, F) of each object."""
    means = [
        _mean([scores[which] for is_seen, *scores in objects if is_seen is seen])
        for which in (0, 1)
        for seen in (True, False)
    ]
    return dict(zip(SEEN_COLUMNS, (sum(means) / 4, *means), strict=True))


def _mean(values: list[float]) -> float:
    return sum(values) / len(values) if values else math.nan
