"""Scoring sequences against their true masks, whatever the protocol.

A protocol says in a `Plan` which frames count from where on for which object; reading, checking and
scoring are the same for all.
"""

import dataclasses
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from rdejax.errors import RdejaxError, shorten
from rdejax.evaluate.measures import frame_scores
from rdejax.evaluate.scores import ObjectScore, Scores
from rdejax.evaluate.truth import read_truth
from rdejax.io.datasets import VideoSequence
from rdejax.io.masks import BENCHMARK, VOID, ids_of, merged, read_mask


@dataclasses.dataclass(frozen=True)
class FrameScore:
    """One frame's J and F for the ids seen in it; ids in neither mask are absent."""

    values: dict[int, tuple[float, float]]
    in_truth: frozenset[int]


@dataclasses.dataclass(frozen=True)
class Plan:
    """How one sequence is scored; `score` may run for many frames at once.

    Attributes:
      sequence: the true masks.
      results: folder of the result masks.
      stems: the frames that are scored, in order.
      merge: all non-zero labels are one object.
      ids: the objects, each from the first of `stems` on; None for every id found in the true
        masks, each from the frame after the one in which it first appears.
      opening_ids: ids of the true mask before the first of `stems`.
      earliest: id -> index into `stems` before which it must not count.
      categories: id -> what it is, for every object that the data set lists; may be None.
      may_be_empty: a sequence without any object that counts is noted, not refused.
    """

    sequence: VideoSequence
    results: Path
    stems: tuple[str, ...]
    merge: bool
    ids: frozenset[int] | None
    opening_ids: frozenset[int]
    earliest: Mapping[int, int] = dataclasses.field(default_factory=dict)
    categories: Mapping[int, str | None] = dataclasses.field(default_factory=dict)
    may_be_empty: bool = False

    def score(self, stem: str) -> FrameScore:
        """Reads and scores one frame.

        Raises:
          RdejaxError: an unreadable mask, another size, an id that is no object.
        """
        truth_path, path = self.sequence.masks[stem], self.results / f"{stem}.png"
        if self.merge:
            rules = merged(BENCHMARK)
            truth, result = read_mask(truth_path, rules), read_mask(path, rules)
        else:
            truth, result = read_truth(self.sequence, truth_path), read_mask(path, BENCHMARK)
        if truth.shape != result.shape:
            raise RdejaxError(
                f"{path}: mask is {result.shape[1]}x{result.shape[0]} but {truth_path} is "
                f"{truth.shape[1]}x{truth.shape[0]}; write results at the original resolution"
            )
        held = ids_of(truth) - {VOID}
        seen = held | ids_of(result)
        if self.ids is not None and not seen - held <= self.ids:
            raise self._unknown_id(stem, min(seen - held - self.ids))
        scored = tuple(sorted(seen if self.ids is None else seen & self.ids))
        values = frame_scores(truth, result, scored)
        return FrameScore(
            {label: (j, f) for label, (j, f) in zip(scored, values.tolist(), strict=True)}, held
        )

    def collect(self, frames: list[FrameScore]) -> tuple[list[ObjectScore], list[str]]:
        """Puts the frames' scores together; an id in neither mask of a frame scores 1 there.

        Returns:
          The objects in the order of their ids, and notes on those that cannot be scored.

        Raises:
          RdejaxError: an id that no true mask holds, or nothing to score.
        """
        starts = self._starts(frames)
        for stem, frame in zip(self.stems, frames, strict=True):
            for label in frame.values.keys() - starts.keys():
                raise self._unknown_id(stem, label)
        objects = []
        notes = [
            f"{self.sequence.name}: no true mask holds the listed object {label}; left out"
            for label in sorted(self.categories.keys() - starts.keys())
        ]
        for label, start in sorted(starts.items()):
            if start >= len(frames):
                notes.append(
                    f"{self.sequence.name}: object {label} appears too late to be scored; left out"
                )
                continue
            values = np.array([frame.values.get(label, (1.0, 1.0)) for frame in frames[start:]])
            category = self.categories.get(label)
            stems = self.stems[start:]
            j, f = values.T
            objects.append(ObjectScore(self.sequence.name, label, stems, j, f, category))
        if not objects and not self.may_be_empty:
            raise RdejaxError(
                f"{masks_folder(self.sequence)}: no object that can be scored; "
                "the true masks must hold an object before their last two frames"
            )
        return objects, notes

    def _starts(self, frames: list[FrameScore]) -> dict[int, int]:
        """Id -> index of the first frame that counts for it."""
        if self.ids is not None:
            return dict.fromkeys(self.ids, 0)
        starts = dict.fromkeys(self.opening_ids, 0)
        for index, frame in enumerate(frames):
            for label in frame.in_truth:
                # The frame in which an object appears is the one whose mask was given.
                starts.setdefault(label, index + 1)
        return {label: max(at, self.earliest.get(label, 0)) for label, at in starts.items()}

    def _unknown_id(self, stem: str, label: int) -> RdejaxError:
        return RdejaxError(
            f"{self.results / stem}.png: holds id {label}, which is no object of the true masks of "
            f"{self.sequence.name!r}; results must use the ids of the first mask"
        )


def run_plans(plans: Sequence[Plan], workers: int | None = None) -> Scores:
    """Scores every frame of every plan, several at once.

    Args:
      plans: one for each sequence.
      workers: threads; by default one per usable core.

    Raises:
      RdejaxError: see `Plan`; or fewer threads than one.
    """
    if workers is not None and workers < 1:
        raise RdejaxError(f"workers={workers}: give 1 or more")
    objects: list[ObjectScore] = []
    notes: list[str] = []
    with ThreadPoolExecutor(workers or usable_cores()) as pool:
        # Everything is queued before the first result is awaited, so no thread waits for the
        # slowest frame of a sequence.
        pending = [pool.map(plan.score, plan.stems) for plan in plans]
        try:
            for plan, found in zip(plans, pending, strict=True):
                scored, left_out = plan.collect(list(found))
                objects += scored
                notes += left_out
        finally:
            pool.shutdown(cancel_futures=True)
    return Scores(tuple(objects), tuple(notes))


def check_complete(results: Path, wanted: Mapping[str, Sequence[str]]) -> None:
    """Refuses results that lack a sequence or a frame, before any time is spent on them.

    Args:
      results: folder with `<sequence>/<frame>.png`.
      wanted: sequence -> stems of the frames it needs.

    Raises:
      RdejaxError: naming what is missing, or the folder itself.
    """
    if not results.is_dir():
        raise RdejaxError(f"{results}: no such folder of results; give the one rdejax infer wrote")
    missing = [name for name in wanted if not (results / name).is_dir()]
    if missing:
        raise RdejaxError(
            f"{results}: no results for {shorten(missing)} ({len(missing)} of {len(wanted)} "
            "sequences missing); run rdejax infer again, it skips what is there"
        )
    for name, stems in wanted.items():
        there = {path.stem for path in (results / name).glob("*.png")}
        missing = [stem for stem in stems if stem not in there]
        if missing:
            raise RdejaxError(
                f"{results / name}: no mask for frame {shorten(missing)} ({len(missing)} of "
                f"{len(stems)} frames missing); run rdejax infer again on this sequence"
            )


def masks_folder(sequence: VideoSequence) -> Path:
    """Where the true masks of a sequence lie."""
    return next(iter(sequence.masks.values())).parent


def usable_cores() -> int:
    """Cores this process may use."""
    # A container or batch queue may grant fewer cores than the machine has; not every system tells.
    granted = getattr(os, "sched_getaffinity", None)
    return len(granted(0)) if granted else os.cpu_count() or 1
