"""Scores a folder of results against a data set's masks, as the DAVIS benchmark does.

Semi-supervised protocol of the DAVIS 2017 toolkit: J and F of every object in every frame; the
first frame (whose mask was given) and the last are left out; mean, recall and decay per object;
plain means over the objects of a sequence and over all objects.
"""

import dataclasses
import os
from collections.abc import Sequence as Row
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from rdejax.datasets import Sequence, list_sequences
from rdejax.errors import RdejaxError
from rdejax.evaluate.measures import Statistics, frame_scores, statistics

DATASETS = ("davis2016", "davis2017", "folder")
COLUMNS = ("J&F-Mean", "J-Mean", "J-Recall", "J-Decay", "F-Mean", "F-Recall", "F-Decay")
VOID = 255


@dataclasses.dataclass(frozen=True)
class ObjectScore:
    """J and F of one object.

    Attributes:
      sequence: name of its sequence.
      label: its id in the masks.
      frames: stems of the frames that count.
      j: [frames] region similarity.
      f: [frames] contour accuracy.
    """

    sequence: str
    label: int
    frames: tuple[str, ...]
    j: np.ndarray
    f: np.ndarray

    @property
    def name(self) -> str:
        """`<sequence>_<id>`, the toolkit's row name."""
        return f"{self.sequence}_{self.label}"


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
        """Mean over all objects of all sequences, by column name."""
        return summarise(self.objects)

    @property
    def sequence_rows(self) -> dict[str, dict[str, float]]:
        """Mean over the objects of each sequence, by sequence and column name."""
        groups: dict[str, list[ObjectScore]] = {}
        for score in self.objects:
            groups.setdefault(score.sequence, []).append(score)
        return {name: summarise(group) for name, group in groups.items()}

    @property
    def object_rows(self) -> dict[str, dict[str, float]]:
        """Each object by its own, by object and column name."""
        return {score.name: summarise([score]) for score in self.objects}


def summarise(objects: Row[ObjectScore]) -> dict[str, float]:
    """Means over `objects` of each statistic; J&F-Mean is the mean of the two means."""
    j, f = (
        Statistics(*np.mean([statistics(values) for values in rows], axis=0).tolist())
        for rows in ([score.j for score in objects], [score.f for score in objects])
    )
    return dict(zip(COLUMNS, ((j.mean + f.mean) / 2, *j, *f), strict=True))


def evaluate(
    dataset: str,
    root: str | Path,
    results: str | Path,
    split: str = "val",
    workers: int | None = None,
) -> Scores:
    """Scores `results/<sequence>/<frame>.png` against a data set's masks.

    Objects: DAVIS 2016 merges all labels into one. DAVIS 2017 scores ids 1..K, K being the highest
    id of the first mask. `folder` scores every id the masks hold, each after the frame in which it
    first appears; a sequence whose first object mask holds only 0 and 255 is taken as binary. In
    all other masks 255 is void: background that, as in the toolkit, is not left out.

    Args:
      dataset: `davis2016`, `davis2017` or `folder`.
      root: top folder of the data set; see `rdejax.datasets`.
      results: folder with one folder of PNG id masks per sequence.
      split: name of the list of sequences.
      workers: threads; by default one per usable core.

    Raises:
      RdejaxError: a missing sequence or frame, a mask of another size, an id that no true mask
        holds, an unreadable file, or a sequence too short to score.
    """
    if dataset not in DATASETS:
        raise RdejaxError(f"cannot score data set {dataset!r}: choose one of {', '.join(DATASETS)}")
    results = Path(results)
    if not results.is_dir():
        raise RdejaxError(f"{results}: no such folder of results; give the one infer.py wrote")
    sequences = list_sequences(dataset, root, split, need_frames=False)
    return evaluate_sequences(dataset, sequences, results, workers)


def evaluate_sequences(
    dataset: str, sequences: Row[Sequence], results: str | Path, workers: int | None = None
) -> Scores:
    """As `evaluate`, for sequences that are listed already, of which masks may be left out."""
    results = Path(results)
    for sequence in sequences:
        if len(sequence.masks) < 3:
            raise RdejaxError(
                f"{next(iter(sequence.masks.values())).parent}: only {len(sequence.masks)} true "
                "masks; the first and the last do not count, so at least 3 are needed"
            )
    _check_complete(sequences, results)
    objects: list[ObjectScore] = []
    notes: list[str] = []
    with ThreadPoolExecutor(workers or _usable_cores()) as pool:
        plans = [_plan(dataset, sequence, results / sequence.name) for sequence in sequences]
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


@dataclasses.dataclass(frozen=True)
class FrameScore:
    """One frame's J and F for the ids seen in it; ids in neither mask are absent."""

    values: dict[int, tuple[float, float]]
    in_truth: frozenset[int]


@dataclasses.dataclass(frozen=True)
class _Plan:
    """How one sequence is scored; `score` may run for many frames at once.

    Attributes:
      sequence: the true masks.
      results: folder of the result masks.
      merge: all non-zero labels are one object.
      ids: the objects, or None for every id found in the true masks.
      opening_ids: ids of the first true mask.
    """

    sequence: Sequence
    results: Path
    merge: bool
    ids: tuple[int, ...] | None
    opening_ids: frozenset[int]

    @property
    def stems(self) -> list[str]:
        return list(self.sequence.masks)[1:-1]

    def score(self, stem: str) -> FrameScore:
        truth_path, path = self.sequence.masks[stem], self.results / f"{stem}.png"
        truth = read_labels(truth_path, self.merge)
        result = read_labels(path, self.merge)
        if truth.shape != result.shape:
            raise RdejaxError(
                f"{path}: mask is {result.shape[1]}x{result.shape[0]} but {truth_path} is "
                f"{truth.shape[1]}x{truth.shape[0]}; write results at the original resolution"
            )
        held = _ids(truth) - {VOID}
        seen = held | _ids(result)
        if self.ids is not None and not seen - held <= set(self.ids):
            raise self.unknown_id(stem, min(seen - held - set(self.ids)))
        scored = tuple(sorted(seen if self.ids is None else seen & set(self.ids)))
        values = frame_scores(truth, result, scored)
        return FrameScore(
            {label: (j, f) for label, (j, f) in zip(scored, values.tolist(), strict=True)}, held
        )

    def unknown_id(self, stem: str, label: int) -> RdejaxError:
        return RdejaxError(
            f"{self.results / stem}.png: holds id {label}, which is no object of the true masks of "
            f"{self.sequence.name!r}; results must use the ids of the first mask"
        )

    def collect(self, frames: list[FrameScore]) -> tuple[list[ObjectScore], list[str]]:
        """Puts the frames' scores together; an id in neither mask of a frame scores 1 there."""
        stems = self.stems
        entry = dict.fromkeys(self.opening_ids, -1)
        for index, frame in enumerate(frames):
            for label in frame.in_truth:
                entry.setdefault(label, index)
        if self.ids is not None:
            entry = dict.fromkeys(self.ids, -1)
        for stem, frame in zip(stems, frames, strict=True):
            for label in frame.values.keys() - entry.keys():
                raise self.unknown_id(stem, label)
        objects, notes = [], []
        for label, start in sorted(entry.items()):
            kept = slice(start + 1, None)
            values = np.array([frame.values.get(label, (1.0, 1.0)) for frame in frames[kept]])
            if len(values):
                names = tuple(stems[kept])
                objects.append(
                    ObjectScore(self.sequence.name, label, names, values[:, 0], values[:, 1])
                )
            else:
                notes.append(
                    f"{self.sequence.name}: object {label} appears too late to be scored; left out"
                )
        if not objects:
            raise RdejaxError(
                f"{next(iter(self.sequence.masks.values())).parent}: no object that can be scored; "
                "the true masks must hold an object before their last two frames"
            )
        return objects, notes


def _usable_cores() -> int:
    # A container or batch queue may grant fewer cores than the machine has; not every system tells.
    granted = getattr(os, "sched_getaffinity", None)
    return len(granted(0)) if granted else os.cpu_count() or 1


def _plan(dataset: str, sequence: Sequence, results: Path) -> _Plan:
    first = next(iter(sequence.masks.values()))
    if sequence.merge_objects:
        return _Plan(sequence, results, True, (1,), frozenset({1}))
    opening = _ids(read_labels(first, merge=False))
    if dataset == "davis2017":
        highest = max(opening - {VOID}, default=0)
        if not highest:
            hint = "; for 0/255 masks use --dataset davis2016" if VOID in opening else ""
            raise RdejaxError(f"{first}: the first mask holds no object{hint or '; it needs one'}")
        ids = tuple(range(1, highest + 1))
        return _Plan(sequence, results, False, ids, frozenset(ids))
    if _first_ids(sequence) == {VOID}:
        return _Plan(sequence, results, True, (1,), frozenset({1}))
    return _Plan(sequence, results, False, None, opening - {VOID})


def _first_ids(sequence: Sequence) -> frozenset[int]:
    """Ids of the first true mask that holds any."""
    for path in sequence.masks.values():
        if found := _ids(read_labels(path, merge=False)):
            return found
    raise RdejaxError(
        f"{next(iter(sequence.masks.values())).parent}: every true mask is empty; "
        "scoring needs at least one object"
    )


def _ids(labels: np.ndarray) -> frozenset[int]:
    # OpenCV's histogram of bytes is some ten times faster than np.unique or np.bincount.
    counts = cv2.calcHist([labels], [0], None, [256], [0, 256])
    return frozenset(np.flatnonzero(counts).tolist()) - {0}


def _check_complete(sequences: Row[Sequence], results: Path) -> None:
    """Refuses results that lack a sequence or a frame, before any time is spent on scoring."""
    missing = [sequence.name for sequence in sequences if not (results / sequence.name).is_dir()]
    if missing:
        raise RdejaxError(
            f"{results}: no results for {_some(missing)} ({len(missing)} of {len(sequences)} "
            "sequences missing); run infer.py again, it skips what is there"
        )
    for sequence in sequences:
        folder = results / sequence.name
        there = {path.stem for path in folder.glob("*.png")}
        missing = [stem for stem in list(sequence.masks)[1:-1] if stem not in there]
        if missing:
            raise RdejaxError(
                f"{folder}: no mask for frame {_some(missing)} ({len(missing)} of "
                f"{len(sequence.masks) - 2} frames missing); run infer.py again on this sequence"
            )


def _some(names: list[str], most: int = 5) -> str:
    return ", ".join(names[:most]) + (", ..." if len(names) > most else "")


def read_labels(path: Path, merge: bool) -> np.ndarray:
    """Reads a palette, greyscale or 1-bit PNG as ids.

    Args:
      path: the file.
      merge: every non-zero pixel becomes 1; only then are colour images taken as well.

    Returns:
      uint8 [H, W].

    Raises:
      RdejaxError: missing or damaged file, or a colour or 16-bit image.
    """
    try:
        with Image.open(path) as image:
            mode = image.mode
            if merge and mode in ("RGBA", "LA", "RGB"):
                image = image.convert("RGB")
            labels = np.asarray(image)
    except FileNotFoundError:
        raise RdejaxError(f"{path}: no such mask; run infer.py again on this sequence") from None
    except Exception as error:  # Pillow raises many kinds for a damaged file
        raise RdejaxError(f"{path}: not a readable image ({error}); write it again") from None
    if merge:
        inside = labels != 0
        return (inside if inside.ndim == 2 else inside.any(axis=-1)).astype(np.uint8)
    if mode == "1":
        return labels.view(np.uint8)
    if labels.dtype != np.uint8 or labels.ndim != 2:
        raise RdejaxError(f"{path}: image mode {mode} holds no ids; write a palette or grey PNG")
    return labels
