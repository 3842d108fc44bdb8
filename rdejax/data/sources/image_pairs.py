"""Where images and their masks lie, in the layouts that data sets of static images have."""

import dataclasses
import os
import re
from pathlib import Path

from rdejax.errors import RdejaxError

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")
MASK_SUFFIXES = (".png", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".jpg", ".jpeg")  # best first

_IMAGE_WORDS = ("jpegimages", "images?", "imgs?", "im")
# Of several folders of masks the first is taken: instances before classes.
_MASK_WORDS = (
    "segmentationobject",
    "masks?",
    "ground_?truth_masks?",
    "ground_?truth",
    "gts?",
    "annotations?",
    "segmentations?",
    "labels?",
    "segmentationclass",
)
_MASK_ENDING = re.compile(r"(.+)[_-](?:masks?|gt|seg)", re.IGNORECASE)
_IMAGE_ENDING = re.compile(r"(.+)[_-](?:im|img|image|rgb)", re.IGNORECASE)
_EXPECTED = (
    "expected images/NAME.jpg with masks/NAME.png, or NAME.jpg beside NAME.png, in the folder or "
    "in one folder per class"
)


@dataclasses.dataclass(frozen=True)
class Pairs:
    """Images with masks.

    Attributes:
      layout: how they lie, in words.
      pairs: image and mask files, sorted by image; never empty.
      bare_images: images without a mask.
      bare_masks: masks without an image.
    """

    layout: str
    pairs: list[tuple[Path, Path]]
    bare_images: list[Path]
    bare_masks: list[Path]


def find_pairs(root: str | Path, split: str | None = None) -> Pairs:
    """Finds images and masks by the first of these rules that fits.

    1. A folder of images beside one of masks, told by a word in their names (`images` and `masks`,
       `Imgs` and `GT`, `im` and `gt`, `DUTS-TR-Image` and `DUTS-TR-Mask`, `HRSOD_train` and
       `HRSOD_train_mask`, `JPEGImages` and `SegmentationObject`); files match by name without
       suffix, also in folders inside.
    2. `x.jpg` beside `x.png`, or `x.jpg` or `x_im.jpg` beside `x_gt.png` or `x_mask.png`.
    3. The same in folders inside the folder, at any depth (FSS-1000).

    Args:
      root: the folder.
      split: a folder inside it to take instead, or what precedes the word in the names of several
        pairs of folders.

    Raises:
      RdejaxError: no such folder, no image with a mask, or several pairs of folders.
    """
    root = Path(root)
    if not root.is_dir():
        raise RdejaxError(f"{root}: no such folder; give one with images/ and masks/ in it")
    if split and (root / split).is_dir():
        root, split = root / split, None
    folders = _pair_folders(root, split)
    if folders is not None:
        found = _match(*(_by_name(folder) for folder in folders))
        layout = f"{folders[0].name}/ with {folders[1].name}/"
    elif split:
        raise RdejaxError(f"{root}: holds no folder {split!r}, nor {split}-images with masks")
    elif (root / "images").is_dir():
        raise RdejaxError(
            f"{root / 'masks'}: no such folder; put the masks of {root / 'images'} there"
        )
    else:
        found, layout = _beside(root), "image beside mask"
        if not found[0]:
            found, layout = _nested(root), "folders of images beside masks"
    if not found[0]:
        raise RdejaxError(f"{root}: no image with a mask; {_EXPECTED}")
    return Pairs(layout, *found)


_Found = tuple[list[tuple[Path, Path]], list[Path], list[Path]]


def _rest(name: str, word: str) -> str | None:
    """What a folder's name says beside a word at its end or beginning; None without the word."""
    match = re.fullmatch(rf"(?:(.+)[ _-])?{word}|{word}[ _-](.+)", name.lower())
    return None if match is None else (match[1] or match[2] or "")


def _pair_folders(root: Path, split: str | None) -> tuple[Path, Path] | None:
    folders = sorted(p for p in root.iterdir() if p.is_dir() and p.name[0] != ".")
    images = {
        rest: p
        for p in folders
        for word in _IMAGE_WORDS
        if (rest := _rest(p.name, word)) is not None
    }
    masks: dict[str, Path] = {}
    for word in _MASK_WORDS:
        for folder in folders:
            rest = _rest(folder.name, word)
            if rest is not None:
                masks.setdefault(rest, folder)
    plain = {p.name.lower(): p for p in folders}
    both = {
        rest: (image, mask)
        for rest, mask in masks.items()
        if (image := images.get(rest) or plain.get(rest)) is not None
    }
    if split is not None:
        return both.get(split.lower())
    if len(both) > 1 and "" not in both:
        raise RdejaxError(
            f"{root}: holds several pairs of folders ({', '.join(sorted(both))}); choose one by "
            f"writing static:{root}@{min(both)}"
        )
    return both.get("") or next(iter(both.values()), None)


def _by_name(folder: Path) -> dict[str, list[Path]]:
    """Every file inside, by its path without suffix."""
    found: dict[str, list[Path]] = {}
    for where, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if name[0] != ".")
        for name in names:
            if name[0] != ".":
                path = Path(where, name)
                found.setdefault(str(path.relative_to(folder).with_suffix("")), []).append(path)
    return found


def _match(images: dict[str, list[Path]], masks: dict[str, list[Path]]) -> _Found:
    usable = {name: _best(files, MASK_SUFFIXES) for name, files in masks.items()}
    pairs, bare = [], []
    for name, files in images.items():
        mask = usable.get(name)
        for path in files:
            if path.suffix.lower() not in IMAGE_SUFFIXES:
                continue
            if mask is None:
                bare.append(path)
            else:
                pairs.append((path, mask))
    alone = [p for name, p in usable.items() if p is not None and name not in images]
    return sorted(pairs), sorted(bare), sorted(alone)


def _best(files: list[Path], suffixes: tuple[str, ...]) -> Path | None:
    usable = [path for path in files if path.suffix.lower() in suffixes]
    return min(usable, key=lambda p: (suffixes.index(p.suffix.lower()), p.name), default=None)


def _beside(folder: Path) -> _Found:
    files = sorted(
        p for p in folder.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES and p.name[0] != "."
    )
    masks = {p.stem: p for p in files if p.suffix.lower() == ".png"}
    images = {p: p.stem for p in files if p.suffix.lower() != ".png"}
    if not any(stem in masks for stem in images.values()):
        masks = {match[1]: p for p in files if (match := _MASK_ENDING.fullmatch(p.stem))}
        taken = set(masks.values())
        images = {
            p: match[1] if (match := _IMAGE_ENDING.fullmatch(p.stem)) else p.stem
            for p in files
            if p not in taken
        }
    pairs = [(p, masks[stem]) for p, stem in images.items() if stem in masks]
    known = set(images.values())
    return (
        pairs,
        [p for p, stem in images.items() if stem not in masks],
        [p for stem, p in masks.items() if stem not in known],
    )


def _nested(root: Path) -> _Found:
    found: _Found = ([], [], [])
    for where, folders, _ in os.walk(root):
        folders[:] = sorted(name for name in folders if name[0] != ".")
        if Path(where) != root:
            for whole, part in zip(found, _beside(Path(where)), strict=True):
                whole.extend(part)  # type: ignore[arg-type]
    return found
