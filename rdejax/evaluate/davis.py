"""The DAVIS protocols, and the same for any folder of masks.

Semi-supervised protocol of the DAVIS 2017 toolkit: J and F of every object in every frame; the
first frame (whose mask was given) and the last are left out; mean, recall and decay per object;
plain means over the objects of a sequence and over all objects.
"""

from collections.abc import Sequence
from pathlib import Path

from rdejax.errors import RdejaxError
from rdejax.evaluate.score_sequences import Plan, check_complete, masks_folder, run_plans
from rdejax.evaluate.scores import Scores
from rdejax.evaluate.truth import read_truth
from rdejax.io.datasets import VideoSequence, list_sequences
from rdejax.io.masks import BENCHMARK, VOID, ids_of, read_mask

DATASETS = ("davis2016", "davis2017", "folder")


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
      root: top folder of the data set; see `rdejax.io.datasets`.
      results: folder with one folder of PNG id masks per sequence.
      split: name of the list of sequences.
      workers: threads; by default one per usable core.

    Raises:
      RdejaxError: a missing sequence or frame, a mask of another size, an id that no true mask
        holds, an unreadable file, or a sequence too short to score.
    """
    if dataset not in DATASETS:
        raise RdejaxError(f"cannot score data set {dataset!r}: choose one of {', '.join(DATASETS)}")
    sequences = list_sequences(dataset, root, split, need_frames=False)
    return evaluate_sequences(dataset, sequences, results, workers)


def evaluate_sequences(
    dataset: str,
    sequences: Sequence[VideoSequence],
    results: str | Path,
    workers: int | None = None,
) -> Scores:
    """As `evaluate`, for sequences that are listed already, of which masks may be left out."""
    results = Path(results)
    for sequence in sequences:
        if len(sequence.masks) < 3:
            raise RdejaxError(
                f"{masks_folder(sequence)}: only {len(sequence.masks)} true masks; the first and "
                "the last do not count, so at least 3 are needed (a split whose masks are not "
                "public goes to its server: rdejax submit)"
            )
    check_complete(results, {sequence.name: scored_stems(sequence) for sequence in sequences})
    return run_plans([_plan(dataset, sequence, results) for sequence in sequences], workers)


def scored_stems(sequence: VideoSequence) -> tuple[str, ...]:
    """The annotated frames but the first, whose mask was given, and the last."""
    return tuple(sequence.masks)[1:-1]


def objects_of(first: Path) -> frozenset[int]:
    """Ids 1..K of a DAVIS 2017 sequence, K being the highest id of its first mask.

    Raises:
      RdejaxError: the mask is unreadable or holds no object.
    """
    opening = ids_of(read_mask(first, BENCHMARK))
    highest = max(opening - {VOID}, default=0)
    if not highest:
        hint = "for 0/255 masks use --dataset davis2016" if VOID in opening else "it needs one"
        raise RdejaxError(f"{first}: the first mask holds no object; {hint}")
    return frozenset(range(1, highest + 1))


def _plan(dataset: str, sequence: VideoSequence, results: Path) -> Plan:
    folder, stems = results / sequence.name, scored_stems(sequence)
    first = next(iter(sequence.masks.values()))
    binary = sequence.merge_objects or (dataset == "folder" and _is_binary(sequence))
    if binary:
        return Plan(sequence, folder, stems, True, frozenset({1}), frozenset({1}))
    if dataset == "davis2017":
        ids = objects_of(first)
        return Plan(sequence, folder, stems, False, ids, ids)
    opening = ids_of(read_truth(sequence, first))
    return Plan(sequence, folder, stems, False, None, opening - {VOID})


def _is_binary(sequence: VideoSequence) -> bool:
    """Whether the first true mask that holds anything holds 0 and 255 only."""
    for path in sequence.masks.values():
        if found := ids_of(read_truth(sequence, path)):
            return found == {VOID}
    raise RdejaxError(
        f"{masks_folder(sequence)}: every true mask is empty; scoring needs at least one object"
    )
