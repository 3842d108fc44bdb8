"""Several runs over the objects they have in common."""

import dataclasses
import math
from collections.abc import Sequence

from rdejax.compare.scored_runs import ScoredRun, describe_inference, sequence_of
from rdejax.errors import RdejaxError
from rdejax.evaluate.score_table import Row, lowest_first
from rdejax.evaluate.scores import COLUMNS, seen_row

METRICS = ("J&F-Mean", "J-Mean", "F-Mean")
LOWER_IS_BETTER = ("J-Decay", "F-Decay")


@dataclasses.dataclass(frozen=True)
class Comparison:
    """The runs' numbers over the common objects, as fractions; what is undefined is NaN.

    Attributes:
      runs: in the order given.
      baseline: name of the run that the others are compared with.
      metric: the column by which sequences are compared.
      overall: run -> global numbers over the common objects, by column.
      sequences: run -> sequence -> numbers over its common objects, by column.
      counts: sequence -> number of common objects.
      notes: what is not averaged over and why, one sentence each; empty where all is in all.
    """

    runs: tuple[ScoredRun, ...]
    baseline: str
    metric: str
    overall: dict[str, Row]
    sequences: dict[str, dict[str, Row]]
    counts: dict[str, int]
    notes: tuple[str, ...]

    @property
    def names(self) -> list[str]:
        """Names of the runs."""
        return [run.name for run in self.runs]

    @property
    def others(self) -> list[str]:
        """Names of the runs but the baseline's."""
        return [name for name in self.names if name != self.baseline]

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that every run has."""
        return tuple(self.overall[self.baseline])

    def values(self, name: str) -> dict[str, float]:
        """Sequence -> the metric of a run."""
        return {sequence: row[self.metric] for sequence, row in self.sequences[name].items()}

    def differences(self, name: str) -> dict[str, float]:
        """Sequence -> the metric of a run less the baseline's."""
        base = self.values(self.baseline)
        return {sequence: value - base[sequence] for sequence, value in self.values(name).items()}

    def worst(self, name: str, most: int) -> list[str]:
        """The sequences in which a run scores lowest, the lowest first."""
        return lowest_first(self.values(name))[:most]

    def falls(self, name: str, most: int) -> list[str]:
        """The sequences in which a run falls behind the baseline furthest, furthest first."""
        behind = {key: value for key, value in self.differences(name).items() if value < 0}
        return lowest_first(behind)[:most]

    def best(self, column: str) -> set[str]:
        """The runs with the best global number of a column; empty where all are equal."""
        values = {name: row[column] for name, row in self.overall.items()}
        known = {name: value for name, value in values.items() if not math.isnan(value)}
        if len(known) < 2 or len(set(known.values())) == 1:
            return set()
        top = (min if column in LOWER_IS_BETTER else max)(known.values())
        return {name for name, value in known.items() if value == top}


def compare(
    runs: Sequence[ScoredRun], baseline: str | None = None, metric: str = "J&F-Mean"
) -> Comparison:
    """Puts runs side by side.

    Every number is a mean over the objects that all runs have, so that no run is better for lack of
    a hard sequence.

    Args:
      runs: two or more, see `load_runs`.
      baseline: name of one of them; the first unless given.
      metric: one of `METRICS`.

    Raises:
      RdejaxError: fewer than two runs, an unknown baseline or metric, no object in common.
    """
    names = [run.name for run in runs]
    if len(runs) < 2:
        raise RdejaxError("a comparison needs two runs or more: give their result folders")
    if baseline is not None and baseline not in names:
        raise RdejaxError(f"baseline {baseline!r} is none of the runs: {', '.join(names)}")
    if metric not in METRICS:
        raise RdejaxError(f"metric {metric!r}: choose one of {', '.join(METRICS)}")
    common = [
        name for name in runs[0].scores.objects if all(name in run.scores.objects for run in runs)
    ]
    if not common:
        raise RdejaxError(
            f"{' and '.join(names)} have no object in common; score results of the same sequences"
        )
    first = baseline or names[0]
    groups: dict[str, list[str]] = {}
    for name in common:
        groups.setdefault(sequence_of(name), []).append(name)
    seen = _common_seen(runs, common)
    return Comparison(
        tuple(runs),
        first,
        metric,
        {run.name: {**_mean(run, common), **_mean_seen(run, seen)} for run in runs},
        {run.name: {key: _mean(run, group) for key, group in groups.items()} for run in runs},
        {key: len(group) for key, group in groups.items()},
        (*_missing(runs, common), *_settings(runs, first)),
    )


def _mean(run: ScoredRun, objects: Sequence[str]) -> Row:
    """Means over objects by the toolkit's columns."""
    rows = [run.scores.objects[name] for name in objects]
    return {column: sum(row[column] for row in rows) / len(rows) for column in COLUMNS}


def _common_seen(runs: Sequence[ScoredRun], objects: Sequence[str]) -> dict[str, bool]:
    """Object -> whether its category is a seen one; empty unless all runs know and agree."""
    known = [{name: run.seen.get(name) for name in objects} for run in runs]
    agreed = None not in known[0].values() and all(found == known[0] for found in known)
    return {name: bool(seen) for name, seen in known[0].items()} if agreed else {}


def _mean_seen(run: ScoredRun, seen: dict[str, bool]) -> Row:
    """J and F of seen and unseen categories and G, by `SEEN_COLUMNS`; empty without categories."""
    if not seen:
        return {}
    rows = [(is_seen, run.scores.objects[name]) for name, is_seen in seen.items()]
    return seen_row([(is_seen, row["J-Mean"], row["F-Mean"]) for is_seen, row in rows])


def _missing(runs: Sequence[ScoredRun], common: Sequence[str]) -> list[str]:
    """Names what some run lacks."""
    everything = list(dict.fromkeys(name for run in runs for name in run.scores.objects))
    sequences = list(dict.fromkeys(map(sequence_of, everything)))
    notes = []
    for run in runs:
        there = set(map(sequence_of, run.scores.objects))
        gone = [name for name in sequences if name not in there]
        if gone:
            notes.append(f"{run.name} lacks {_count(gone, 'sequence')}: {', '.join(gone)}")
        lost = [n for n in everything if n not in run.scores.objects and sequence_of(n) in there]
        if lost:
            notes.append(f"{run.name} lacks {_count(lost, 'object')}: {', '.join(lost)}")
    if notes:
        notes.append(
            f"all numbers are over the {len(common)} objects that every run has, of "
            f"{len(everything)}; they differ from those in results.json"
        )
    return notes


def _settings(runs: Sequence[ScoredRun], baseline: str) -> list[str]:
    """Names the settings of rdejax infer in which runs differ from the baseline."""
    first = next(run for run in runs if run.name == baseline)
    found = [(run.name, describe_inference(first, run)) for run in runs if run is not first]
    return [f"settings, {baseline} -> {name}: {text}" for name, text in found if text]


def _count(names: list[str], what: str) -> str:
    return f"{len(names)} {what}{'s' * (len(names) != 1)}"
