"""Which videos a data set on disk holds, and how they are sampled; nothing is decoded."""

import dataclasses
from pathlib import Path

from rdejax.errors import RdejaxError
from rdejax.io.datasets import FRAME_SUFFIXES, MASK_SUFFIXES, list_files, locate

VIDEO_KINDS = ("davis2016", "davis2017", "youtube-vos", "bl30k", "folder")
_BL30K_DEPTH = 3  # the published archives unpack to folders within folders


@dataclasses.dataclass(frozen=True)
class SequenceFolders:
    """Where a sequence's files should be."""

    name: str
    frames: Path
    masks: Path

    def list(self) -> tuple[dict[str, Path], dict[str, Path]]:
        """Frames and masks in order, by stem; empty where there is no such folder.

        Raises:
          RdejaxError: two files for one frame.
        """
        frames: dict[str, Path] = {}
        for path in list_files(self.frames, FRAME_SUFFIXES) if self.frames.is_dir() else ():
            if path.stem in frames:
                other = frames[path.stem].name
                raise RdejaxError(f"{path}: {other} is the same frame; remove one of them")
            frames[path.stem] = path
        masks = list_files(self.masks, MASK_SUFFIXES) if self.masks.is_dir() else []
        return frames, {path.stem: path for path in masks}


@dataclasses.dataclass(frozen=True)
class VideoSet:
    """The videos of a data set.

    Attributes:
      kind: one of `VIDEO_KINDS`.
      root: its top folder.
      sequences: the sequences, of which some may be missing on disk.
      spacing: see `rdejax.data.sources.videos.VideoSource`; None: as the frames without masks tell.
      repeat: see `rdejax.data.sources.videos.VideoSource`.
      merge: all objects are one (DAVIS 2016).
      lazy: too many files to list them all before training.
    """

    kind: str
    root: Path
    sequences: tuple[SequenceFolders, ...]
    spacing: int | None = 1
    repeat: int = 1
    merge: bool = False
    lazy: bool = False


def find_videos(kind: str, root: str | Path, split: str | None = None) -> VideoSet:
    """Lists the sequences of a data set.

    Args:
      kind: one of `VIDEO_KINDS`.
      root: its top folder.
      split: name of the list of sequences (YouTube-VOS: of the folder; BL30K: of a part). By
        default "train", for BL30K every part, and for plain folders every sequence if there is no
        such list.

    Raises:
      RdejaxError: a missing folder, a missing list, or no sequence.
    """
    root = Path(root)
    if kind == "bl30k":
        return _bl30k(root, split)
    if kind == "folder" and split is not None:
        wanted = root / "ImageSets" / f"{split}.txt"
        if not wanted.is_file():
            raise RdejaxError(f"{wanted}: no such list; write it, one sequence name per line")
    try:
        names, frames, masks = locate(kind, root, split or "train")
    except RdejaxError as error:  # which speaks of another command line's option
        text = str(error).replace("use --split with one of", "choose by @ one of")
        raise RdejaxError(text) from None
    sequences = tuple(SequenceFolders(name, frames / name, masks / name) for name in names)
    # The published recipes take DAVIS's few videos five times as often as YouTube-VOS's.
    if kind.startswith("davis"):
        return VideoSet(kind, root, sequences, repeat=5, merge=kind == "davis2016")
    return VideoSet(kind, root, sequences, spacing=5 if kind == "youtube-vos" else None)


def recognise_videos(root: Path) -> tuple[str, Path, str | None] | None:
    """Kind, root and split of a folder of videos whose layout is unmistakable, or None."""
    if (root / "train" / "meta.json").is_file() and _has_videos(root / "train"):
        return "youtube-vos", root, None
    if (root / "meta.json").is_file() and _has_videos(root):
        return "youtube-vos", root.parent, root.name
    for year in ("2017", "2016"):
        if (root / "ImageSets" / year).is_dir() and _has_videos(root):
            return f"davis{year}", root, None
    if "bl30k" in root.name.lower() and _parts(root):
        return "bl30k", root, None
    if _has_videos(root):
        return "folder", root, None
    return None


def _has_videos(root: Path) -> bool:
    frames = root / "JPEGImages"
    if not frames.is_dir() or not (root / "Annotations").is_dir():
        return False
    return any(p.is_dir() and p.name[0] != "." for p in frames.iterdir())


def _parts(root: Path, depth: int = _BL30K_DEPTH) -> list[Path]:
    if _has_videos(root):
        return [root]
    if depth == 0 or not root.is_dir():
        return []
    inner = sorted(p for p in root.iterdir() if p.is_dir() and p.name[0] != ".")
    return [part for folder in inner for part in _parts(folder, depth - 1)]


def _bl30k(root: Path, split: str | None) -> VideoSet:
    parts = _parts(root / split if split else root)
    if not parts:
        raise RdejaxError(
            f"{root / split if split else root}: no videos; bl30k expects JPEGImages/<video>/ and "
            "Annotations/<video>/ in the folder or in each of its parts (a, b, c, ...)"
        )
    sequences = []
    for part in parts:
        prefix = "" if part == root else f"{part.relative_to(root).as_posix()}/"
        for folder in sorted((part / "JPEGImages").iterdir()):
            if folder.is_dir() and folder.name[0] != ".":
                masks = part / "Annotations" / folder.name
                sequences.append(SequenceFolders(prefix + folder.name, folder, masks))
    return VideoSet("bl30k", root, tuple(sequences), lazy=True)
