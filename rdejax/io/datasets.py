"""Where the frames and masks of a benchmark lie on disk: DAVIS, YouTube-VOS and plain folders.

Only paths are listed here; nothing is decoded. `rdejax infer` (which needs the frames) and
`rdejax.evaluate` (which needs the masks) share these listings, so both agree on what a sequence is.
"""

import dataclasses
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from rdejax.errors import RdejaxError, shorten
from rdejax.folders import check_name

DATASETS = ("davis2016", "davis2017", "youtube-vos", "folder")
FRAME_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp")
MASK_SUFFIXES = (".png",)

_LAYOUTS = {
    "davis2016": "ROOT/JPEGImages/480p/<sequence>/*.jpg, ROOT/Annotations/480p/<sequence>/*.png and"
    " ROOT/ImageSets/2016/<split>.txt",
    "davis2017": "ROOT/JPEGImages/480p/<sequence>/*.jpg, ROOT/Annotations/480p/<sequence>/*.png and"
    " ROOT/ImageSets/2017/<split>.txt",
    "youtube-vos": "ROOT/<split>/JPEGImages/<video>/*.jpg and"
    " ROOT/<split>/Annotations/<video>/*.png",
    "folder": "ROOT/JPEGImages/<sequence>/* and ROOT/Annotations/<sequence>/*.png",
}


@dataclasses.dataclass(frozen=True)
class VideoSequence:
    """One video of a benchmark.

    Attributes:
      name: folder name, also the name of its results folder.
      frames: every frame in order (empty when listed with `need_frames=False`).
      masks: annotated frames in order, frame stem -> mask file; never empty.
      merge_objects: every non-zero label is the same single object (DAVIS 2016).
      first_mask_only: only the first mask may be shown to a segmenter (DAVIS); otherwise each mask
        may be, and an object enters with the first mask that holds it.
    """

    name: str
    frames: tuple[Path, ...]
    masks: dict[str, Path]
    merge_objects: bool = False
    first_mask_only: bool = False

    @property
    def given_masks(self) -> dict[str, Path]:
        """The masks a segmenter may see, frame stem -> mask file."""
        if not self.first_mask_only:
            return self.masks
        stem = next(iter(self.masks))
        return {stem: self.masks[stem]}


def list_sequences(
    dataset: str,
    root: str | Path,
    split: str = "val",
    *,
    need_frames: bool = True,
) -> list[VideoSequence]:
    """Lists the sequences of a benchmark on disk.

    Without an `ImageSets` folder, DAVIS layouts take every sequence found; `folder` honours
    `ROOT/ImageSets/<split>.txt` if it exists and otherwise takes every sequence too.

    Args:
      dataset: one of `DATASETS`.
      root: top folder of the data set (see the layouts in the error messages).
      split: name of the list, for example `val`, `test-dev`; for YouTube-VOS the folder name
        (`val` also finds `valid`).
      need_frames: look for the frames too; evaluation needs only the masks.

    Returns:
      Sequences in the order of the list, or sorted by name.

    Raises:
      RdejaxError: unknown data set; a missing folder, list or sequence; a sequence without frames
        or masks; a mask that belongs to no frame.
    """
    names, frames_root, masks_root = locate(dataset, root, split, need_frames=need_frames)
    return [
        _read_sequence(dataset, name, frames_root if need_frames else None, masks_root)
        for name in names
    ]


def locate(
    dataset: str, root: str | Path, split: str = "val", *, need_frames: bool = True
) -> tuple[list[str], Path, Path]:
    """Names of the sequences that are meant, and the two folders theirs should lie in.

    Sequences of a list may be missing on disk.

    Args:
      dataset: as for `list_sequences`.
      root: as for `list_sequences`.
      split: as for `list_sequences`.
      need_frames: the folder of frames must exist, and tells the names where there is no list.

    Raises:
      RdejaxError: unknown data set, a missing folder or list, or a name that leads elsewhere.
    """
    root = Path(root)
    if dataset not in DATASETS:
        raise RdejaxError(f"unknown data set {dataset!r}: choose one of {', '.join(DATASETS)}")
    _need_folder(root, dataset)
    if dataset == "youtube-vos":
        frames_root, masks_root = _youtube_folders(root, split)
    else:
        frames_root = _with_resolution(root / "JPEGImages")
        masks_root = _with_resolution(root / "Annotations")
    _need_folder(masks_root, dataset)
    if need_frames:
        _need_folder(frames_root, dataset)
    names = _sequence_names(dataset, root, split, frames_root if need_frames else masks_root)
    return names, frames_root, masks_root


def read_names(path: Path, known: Sequence[str]) -> frozenset[str]:
    """The names in a text file, one on a line; empty lines and those that begin with # are not.

    Raises:
      RdejaxError: unreadable, empty, or a name that is not known.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        raise RdejaxError(f"{path}: no such file; give a text file, one name on a line") from None
    except (UnicodeDecodeError, IsADirectoryError):
        raise RdejaxError(f"{path}: not a text file; expected one name on a line") from None
    names = [line.strip() for line in lines if line.strip() and not line.startswith("#")]
    if not names:
        raise RdejaxError(f"{path}: the list is empty; expected one name on a line")
    if strange := [name for name in names if name not in known]:
        raise RdejaxError(f"{path}: no {shorten(strange)} here; there are {shorten(list(known))}")
    return frozenset(names)


def natural_key(path: str | Path) -> tuple[tuple[int, int | str], ...]:
    """Sorting key that puts `frame2` before `frame10`."""
    parts = re.split(r"(\d+)", Path(path).stem)
    return tuple((0, int(part)) if part.isdecimal() else (1, part) for part in parts)


def list_files(folder: Path, suffixes: Iterable[str]) -> list[Path]:
    """Files of `folder` with one of `suffixes` (any case), naturally sorted, none hidden."""
    wanted = tuple(suffixes)
    found = [
        path
        for path in folder.iterdir()
        if path.suffix.lower() in wanted and not path.name.startswith(".")
    ]
    return sorted(found, key=lambda path: (natural_key(path), path.name))


def left_out(folder: Path, suffixes: Iterable[str]) -> list[Path]:
    """Files of `folder` that `list_files` leaves out, sorted; hidden ones are not among them."""
    wanted = tuple(suffixes)
    return sorted(
        path
        for path in folder.iterdir()
        if path.suffix.lower() not in wanted and not path.name.startswith(".") and path.is_file()
    )


def _need_folder(folder: Path, dataset: str) -> None:
    if not folder.is_dir():
        raise RdejaxError(f"{folder}: no such folder; {dataset} expects {_LAYOUTS[dataset]}")


def _with_resolution(folder: Path) -> Path:
    """Official DAVIS folders hold one folder per resolution; the benchmark runs at 480p."""
    inner = folder / "480p"
    return inner if inner.is_dir() else folder


def _youtube_folders(root: Path, split: str) -> tuple[Path, Path]:
    base = root / split
    if not base.is_dir() and split == "val" and (root / "valid").is_dir():
        base = root / "valid"
    _need_folder(base, "youtube-vos")
    masks = base / "Annotations"
    if not masks.is_dir() and base.name.endswith("_all_frames"):
        # The all-frames release holds images only; its masks are those of the plain split.
        masks = root / base.name.removesuffix("_all_frames") / "Annotations"
    return base / "JPEGImages", masks


def _split_file(dataset: str, root: Path, split: str) -> Path | None:
    """The list of sequences, or None where every sequence is meant."""
    if dataset == "youtube-vos":
        return None
    sets = root / "ImageSets"
    if dataset == "folder":
        plain = sets / f"{split}.txt"
        return plain if plain.is_file() else None
    if not sets.is_dir():
        return None
    year = dataset.removeprefix("davis")
    # The first release of DAVIS 2016 keeps its lists by resolution instead of by year.
    folders = (year, "480p") if year == "2016" else (year,)
    for folder in folders:
        path = sets / folder / f"{split}.txt"
        if path.is_file():
            return path
    known = sorted(path.stem for folder in folders for path in (sets / folder).glob("*.txt"))
    mend = (
        f"use --split with one of {', '.join(known)}" if known else f"expected {_LAYOUTS[dataset]}"
    )
    raise RdejaxError(f"{sets / year / (split + '.txt')}: no such list; {mend}")


def _sequence_names(dataset: str, root: Path, split: str, where: Path) -> list[str]:
    path = _split_file(dataset, root, split)
    if path is None:
        names = sorted(
            entry.name for entry in where.iterdir() if entry.is_dir() and entry.name[0] != "."
        )
        if not names:
            raise RdejaxError(
                f"{where}: no sequence folders; {dataset} expects {_LAYOUTS[dataset]}"
            )
        return [check_name(name, where) for name in names]
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError:
        raise RdejaxError(f"{path}: not a text file; expected one sequence name per line") from None
    # Either one name per line, or "/JPEGImages/480p/<name>/00000.jpg /Annotations/..." per frame.
    entries = [line.split()[0] for line in lines if line.strip()]
    names = [Path(entry).parent.name if "/" in entry else entry for entry in entries]
    if not names:
        raise RdejaxError(f"{path}: the list is empty; expected one sequence name per line")
    return [check_name(name, path) for name in dict.fromkeys(names)]


def _read_sequence(
    dataset: str, name: str, frames_root: Path | None, masks_root: Path
) -> VideoSequence:
    masks_dir = masks_root / name
    if not masks_dir.is_dir():
        raise RdejaxError(
            f"{masks_dir}: no such folder; sequence {name!r} has no masks, "
            f"{dataset} expects {_LAYOUTS[dataset]}"
        )
    masks = {path.stem: path for path in list_files(masks_dir, MASK_SUFFIXES)}
    if not masks:
        raise RdejaxError(f"{masks_dir}: no PNG masks; at least the first frame needs one")
    frames: list[Path] = []
    if frames_root is not None:
        frames_dir = frames_root / name
        _need_folder(frames_dir, dataset)
        frames = list_files(frames_dir, FRAME_SUFFIXES)
        if not frames:
            raise RdejaxError(f"{frames_dir}: no images ({', '.join(FRAME_SUFFIXES)})")
        for path, following in zip(frames, frames[1:], strict=False):
            if path.stem == following.stem:
                raise RdejaxError(f"{path}: {following.name} is the same frame; remove one of them")
        stray = masks.keys() - {path.stem for path in frames}
        if stray:
            raise RdejaxError(
                f"{masks[min(stray)]}: no frame of this name in {frames_dir}; "
                "a mask must carry the name of its frame"
            )
    davis = dataset in ("davis2016", "davis2017")
    return VideoSequence(name, tuple(frames), masks, dataset == "davis2016", davis)
