"""The YouTube-VOS protocol (Xu et al., arXiv 1809.03327, section 5), 2018 and 2019.

Every 5th frame is annotated and objects may appear later than in the first frame. An object is
scored in every annotated frame after the one whose mask was given, to the last; J and F are means
over objects, apart for categories that the training set has (seen) and has not (unseen). The
overall score G is the mean of those four numbers. The public validation and test splits hold the
given masks only; those are scored by the server, see `rdejax.evaluate.submit`.
"""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rdejax.errors import RdejaxError, shorten
from rdejax.evaluate.score_sequences import Plan, check_complete, masks_folder, run_plans
from rdejax.evaluate.scores import ObjectScore, Scores
from rdejax.files import read_json
from rdejax.io.datasets import VideoSequence, list_sequences, locate
from rdejax.io.masks import BENCHMARK, VOID, ids_of, read_mask

Videos = dict[str, dict[int, "MetaObject"]]


@dataclasses.dataclass(frozen=True)
class MetaObject:
    """What meta.json tells of an object: its category, if any, and the frames it is listed in."""

    category: str | None
    frames: tuple[str, ...]


def evaluate(
    root: str | Path,
    results: str | Path,
    split: str = "val",
    workers: int | None = None,
    seen: str | Path | None = None,
) -> Scores:
    """Scores `results/<video>/<frame>.png`, which may hold all frames or the annotated ones only.

    Args:
      root: folder with `<split>/Annotations/<video>/*.png` and `<split>/meta.json`, which tells
        categories and first frames; without it objects start with their first mask and categories
        are unknown.
      results: folder with one folder of PNG id masks per video.
      split: folder name; `val` also finds `valid`.
      workers: threads; by default one per usable core.
      seen: file with the seen categories, a JSON list or one name per line. Without it the list
        `seen` of the split's meta.json is taken, or else the categories of `ROOT/train/meta.json`.
        Where neither exists, or an object has no category, there are overall numbers only, and a
        note says why.

    Raises:
      RdejaxError: a missing video or frame, a mask of another size, an id that no true mask holds,
        an unreadable file, or true masks that are not public.
    """
    results = Path(results)
    sequences = list_sequences("youtube-vos", root, split, need_frames=False)
    meta_file = meta_path(root, split)
    videos = read_meta(meta_file)
    _check_truth(sequences, videos)
    check_complete(results, {sequence.name: tuple(sequence.masks)[1:] for sequence in sequences})
    plans = [_plan(sequence, results, videos.get(sequence.name)) for sequence in sequences]
    scores = run_plans(plans, workers)
    if not scores.objects:
        raise RdejaxError(
            f"{masks_folder(sequences[0]).parent}: no annotated frame after those whose masks are "
            "given, so nothing can be scored here; rdejax submit packs results "
            "for the server"
        )
    objects, note = mark_seen(scores.objects, meta_file, _seen_categories(seen, meta_file, root))
    return Scores(objects, (*scores.notes, *([note] if note else [])))


def meta_path(root: str | Path, split: str) -> Path:
    """Where meta.json of a split lies, beside its Annotations."""
    _, _, masks = locate("youtube-vos", root, split, need_frames=False)
    return masks.parent / "meta.json"


def read_meta(path: Path) -> Videos:
    """Reads meta.json: video -> id -> object; empty if there is no such file.

    Raises:
      RdejaxError: not the file that YouTube-VOS publishes.
    """
    content = read_json(path)
    if content is None:
        return {}
    try:
        return {
            video: {
                int(label): MetaObject(values.get("category"), tuple(values["frames"]))
                for label, values in entry["objects"].items()
            }
            for video, entry in content["videos"].items()
        }
    except (KeyError, TypeError, ValueError, AttributeError):
        raise RdejaxError(
            f'{path}: not a meta.json of YouTube-VOS; expected {{"videos": {{VIDEO: {{"objects": '
            '{ID: {"category": NAME, "frames": [STEM, ...]}}}}}'
        ) from None


def mark_seen(
    objects: Sequence[ObjectScore], meta_file: Path, seen: frozenset[str] | None
) -> tuple[tuple[ObjectScore, ...], str]:
    """Says for each object whether its category is a seen one.

    Args:
      objects: with their categories.
      meta_file: where those come from, for messages.
      seen: the seen categories; None if unknown.

    Returns:
      The objects, and a sentence on what is undefined or why it cannot be told (then the objects
      are as given); empty if all is well.
    """
    without = [score.name for score in objects if score.category is None]
    if without:
        where = meta_file if meta_file.is_file() else f"{meta_file} (no such file)"
        return tuple(objects), (
            f"no seen and unseen numbers: {where} has no category for {shorten(without)} "
            f"({len(without)} of {len(objects)} objects)"
        )
    if seen is None:
        return tuple(objects), (
            "no seen and unseen numbers: the seen categories are unknown; put the training set's "
            f"meta.json to {meta_file.parent.parent / 'train' / 'meta.json'} or give --seen FILE"
        )
    marked = tuple(dataclasses.replace(s, seen=s.category in seen) for s in objects)
    kinds = {score.seen for score in marked}
    if len(kinds) == 1:
        lacking = "unseen" if True in kinds else "seen"
        return marked, f"no object of a category that is {lacking}: its numbers and G are undefined"
    return marked, ""


def _plan(sequence: VideoSequence, results: Path, meta: dict[int, MetaObject] | None) -> Plan:
    stems = tuple(sequence.masks)
    first = ids_of(read_mask(sequence.masks[stems[0]], BENCHMARK))
    # Frame k of the annotated ones is frame k - 1 of the scored ones, and the frame in which an
    # object starts does not count: its index here is that of the next one there.
    earliest = {
        label: stems.index(entry.frames[0])
        for label, entry in (meta or {}).items()
        if entry.frames and entry.frames[0] in sequence.masks
    }
    return Plan(
        sequence,
        results / sequence.name,
        stems[1:],
        False,
        None,
        first - {VOID},
        earliest,
        {label: entry.category for label, entry in (meta or {}).items()},
        may_be_empty=True,
    )


def _check_truth(sequences: Sequence[VideoSequence], videos: Videos) -> None:
    """Refuses a split of which only the given masks are there, whose numbers would be wrong."""
    for sequence in sequences:
        listed = {stem for entry in videos.get(sequence.name, {}).values() for stem in entry.frames}
        missing = sorted(listed - sequence.masks.keys())
        if missing:
            raise RdejaxError(
                f"{masks_folder(sequence)}: no true mask for frame {shorten(missing)} "
                f"({len(missing)} of the {len(listed)} that meta.json lists), so it cannot be "
                "scored here; rdejax submit packs results for the server"
            )


def _seen_categories(
    given: str | Path | None, meta_file: Path, root: str | Path
) -> frozenset[str] | None:
    """The seen categories, from the first place that tells them; None if none does."""
    if given is not None:
        return _read_names(Path(given))
    listed = (read_json(meta_file) or {}).get("seen")
    if isinstance(listed, list):
        return frozenset(map(str, listed))
    train = Path(root) / "train" / "meta.json"
    names = {entry.category for objects in read_meta(train).values() for entry in objects.values()}
    return frozenset(name for name in names if name) or None


def _read_names(path: Path) -> frozenset[str]:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        raise RdejaxError(
            f"{path}: no readable file; --seen takes a JSON list or one category per line"
        ) from None
    names: Any = [line.strip() for line in text.splitlines() if line.strip()]
    if path.suffix == ".json":
        try:
            names = json.loads(text)
        except ValueError:
            names = None
    if not names or not isinstance(names, list):
        raise RdejaxError(f"{path}: no list of categories; give a JSON list or one name per line")
    return frozenset(map(str, names))
