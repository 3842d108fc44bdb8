"""What a result folder holds: its videos, with their frames and true masks where they are known.

Three kinds of folders: one video (`OUT/masks`, by `rdejax infer VIDEO`), a data set
(`OUT/<sequence>`, by `rdejax infer --dataset`), and folders of masks from anywhere else, which need
the data set or a `results.json` to be taken for results.
"""

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from rdejax.errors import RdejaxError
from rdejax.files import read_json
from rdejax.folders import check_name
from rdejax.infer.video import DEFAULT_FPS
from rdejax.io.datasets import VideoSequence, list_files, list_sequences
from rdejax.io.masks import PAINTING, MaskRules, merged
from rdejax.io.video import FolderFrames, FrameSource, open_frames


@dataclasses.dataclass(frozen=True)
class ResultVideo:
    """One video of a run.

    Attributes:
      name: of the sequence or the file; anything that a file may be called.
      masks: result masks by frame name, in order; never empty.
      source: opens the frames, or None where they are not at hand.
      painted: the run's own overlay.mp4, used where there is no source.
      truth: true masks by frame name; may be empty.
      merge: every non-zero label is the same object (DAVIS 2016).
      facts: what the run noted: frames, objects, seconds, ...; may be empty.
      fps: frames per second of a clip.
    """

    name: str
    masks: Mapping[str, Path]
    source: Callable[[], FrameSource] | None = None
    painted: Path | None = None
    truth: Mapping[str, Path] = dataclasses.field(default_factory=dict)
    merge: bool = False
    facts: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    fps: float = DEFAULT_FPS

    @property
    def rules(self) -> MaskRules:
        """How its masks are read for painting."""
        return merged(PAINTING) if self.merge else PAINTING


@dataclasses.dataclass(frozen=True)
class ResultSet:
    """A result folder.

    Attributes:
      path: the folder.
      summary: of `summary.json`; empty if there is none.
      videos: in the order of the data set; never empty.
      single: the result of one video, not of a data set.
      notes: what is worth knowing, one sentence each.
    """

    path: Path
    summary: dict[str, Any]
    videos: tuple[ResultVideo, ...]
    single: bool
    notes: tuple[str, ...] = ()


def read_results(
    path: str | Path,
    *,
    dataset: str | None = None,
    root: str | Path | None = None,
    split: str = "val",
    video: str | Path | FrameSource | None = None,
) -> ResultSet:
    """Looks at a result folder; decodes nothing.

    Args:
      path: the folder.
      dataset: kind of the data set, as for `rdejax.io.datasets.list_sequences`; with `root`.
      root: its top folder.
      split: which sequences.
      video: of a single video's result: the video, to paint its frames.

    Raises:
      RdejaxError: no result, an unfinished one, missing sequences or frames, or anything wrong
        with the data set.
    """
    path = Path(path)
    if not path.is_dir():
        raise RdejaxError(f"{path}: no such folder; give the --output of rdejax infer")
    summary = read_json(path / "summary.json") or {}
    if not summary and ((path / "unfinished").exists() or (path / "progress.json").exists()):
        raise RdejaxError(
            f"{path}: this run is not finished; run rdejax infer again to continue it"
        )
    if (path / "masks").is_dir() and "run" in summary and "sequences" not in summary:
        if root is not None:
            raise RdejaxError(f"{path}: holds one video; --root and --dataset are for data sets")
        return ResultSet(path, summary, (_single(path, summary, video),), single=True)
    if video is not None:
        raise RdejaxError(f"{path}: holds no result of a single video; leave --video out")
    if root is not None:
        sequences, notes = _sequences(dataset or "", root, split)
        videos = tuple(_of_dataset(path, summary, sequence) for sequence in sequences)
        return ResultSet(path, summary, videos, single=False, notes=notes)
    return ResultSet(path, summary, _without_dataset(path, summary), single=False, notes=_NO_FRAMES)


_NO_FRAMES = (
    "The data set is not at hand (give --root and --dataset), so clips show masks without frames, "
    "and nothing is compared with the truth.",
)


def _single(
    path: Path, summary: dict[str, Any], video: str | Path | FrameSource | None
) -> ResultVideo:
    masks = _masks(path / "masks", summary.get("frames", 1))
    name = str(summary.get("run", {}).get("source", {}).get("name", path.resolve().name))
    source = None
    if isinstance(video, FrameSource):
        source = video
    elif video is not None:
        source = open_frames(video)
    if source is not None and not set(source.names) & masks.keys():
        raise RdejaxError(
            f"{source.path}: none of its frames has a mask in {path / 'masks'}; give the video "
            "the result was made from"
        )
    overlay = path / "overlay.mp4"
    return ResultVideo(
        name,
        masks,
        source=None if source is None else lambda: source,
        painted=overlay if overlay.is_file() else None,
        facts=summary,
        fps=float(summary.get("fps") or DEFAULT_FPS),
    )


def _sequences(
    dataset: str, root: str | Path, split: str
) -> tuple[list[VideoSequence], tuple[str, ...]]:
    """The data set's sequences, without frames where those are missing."""
    try:
        return list_sequences(dataset, root, split), ()
    except RdejaxError as error:
        # Scores need the masks only; whatever is wrong with those is raised here.
        found = list_sequences(dataset, root, split, need_frames=False)
        return found, (f"Clips show masks without frames: {error}.",)


def _of_dataset(path: Path, summary: dict[str, Any], sequence: VideoSequence) -> ResultVideo:
    names = [file.stem for file in sequence.frames] or list(sequence.masks)
    folder = path / sequence.name
    if not folder.is_dir():
        raise RdejaxError(
            f"{folder}: no results for this sequence; run rdejax infer again, it skips what is "
            "there"
        )
    masks = _masks(folder, 1)
    facts = _facts(path, summary).get(sequence.name, {})
    missing = [name for name in names if name not in masks]
    # Masks of other tools may be of some frames only; which ones scoring needs, scoring tells.
    if facts and missing:
        raise RdejaxError(
            f"{folder}: no mask for frame {missing[0]} ({len(missing)} of {len(names)} frames "
            "missing); run rdejax infer again on this sequence"
        )
    masks = {name: masks[name] for name in names if name in masks}
    if not masks:
        raise RdejaxError(f"{folder}: no mask is called like a frame of {sequence.name!r}")
    frames = sequence.frames
    return ResultVideo(
        sequence.name,
        masks,
        source=(lambda: FolderFrames(frames[0].parent, frames)) if frames else None,
        truth=sequence.masks,
        merge=sequence.merge_objects,
        facts=facts,
    )


def _without_dataset(path: Path, summary: dict[str, Any]) -> tuple[ResultVideo, ...]:
    known = _facts(path, summary)
    if "sequences" not in summary:
        if not (path / "results.json").exists():
            raise RdejaxError(
                f"{path}: not a result (neither summary.json of rdejax infer nor results.json); "
                "for masks from elsewhere give --dataset and --root"
            )
        folders = sorted(item for item in path.iterdir() if item.is_dir() and any(_pngs(item)))
        known = {folder.name: {} for folder in folders}
    if not known:
        raise RdejaxError(f"{path}: no folder of masks here; run rdejax infer first")
    videos = []
    for name, facts in known.items():
        masks = _masks(path / check_name(name, path / "summary.json"), facts.get("frames", 1))
        videos.append(ResultVideo(name, masks, facts=facts))
    return tuple(videos)


def _facts(path: Path, summary: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """What the run noted of each sequence; empty if it noted nothing."""
    known = summary.get("sequences", {})
    if not isinstance(known, dict) or not all(isinstance(item, dict) for item in known.values()):
        raise RdejaxError(f"{path / 'summary.json'}: not written by rdejax infer; move it away")
    return known


def _masks(folder: Path, count: int) -> dict[str, Path]:
    """Masks of a folder by frame name; at least `count`."""
    masks = {file.stem: file for file in _pngs(folder)} if folder.is_dir() else {}
    if len(masks) < max(1, count):
        raise RdejaxError(
            f"{folder}: {len(masks)} masks where {max(1, count)} should be; run rdejax infer "
            "again, it writes the missing ones"
        )
    return masks


def _pngs(folder: Path) -> list[Path]:
    return list_files(folder, (".png",))
