"""Training data by a word: "davis2017:/data/DAVIS", "tfds:davis/480p", a path, "synthetic"."""

import dataclasses
import re
from pathlib import Path

from rdejax.data.sources.images import StaticFolder, StaticImages
from rdejax.data.sources.video_layouts import VIDEO_KINDS, find_videos, recognise_videos
from rdejax.data.sources.videos import VideoFolder, VideoSource
from rdejax.data.synthetic.procedural import ProceduralImages
from rdejax.errors import RdejaxError

KINDS = ("static", *VIDEO_KINDS, "tfds", "synthetic")

Source = StaticImages | VideoSource | ProceduralImages


@dataclasses.dataclass(frozen=True)
class Spec:
    """What a specification says.

    Attributes:
      text: as given.
      kind: one of `KINDS`.
      path: a folder, or the name of a TFDS data set; empty for synthetic data.
      split: which part of it, or None for the one to train on.
      options: what follows "?" (TFDS only).
    """

    text: str
    kind: str
    path: str
    split: str | None = None
    options: dict[str, str] = dataclasses.field(default_factory=dict)


def parse(spec: str) -> Spec:
    """Reads KIND:PATH@SPLIT, where a plain path's kind is recognised by its layout.

    Raises:
      RdejaxError: an unknown kind, a kind without its path, or a path of no known layout.
    """
    if spec == "synthetic":
        return Spec(spec, "synthetic", "")
    kind, colon, rest = spec.partition(":")
    if kind == "tfds" and rest:
        return _parse_tfds(spec, rest)
    if colon and kind in KINDS and kind != "synthetic" and rest:
        path, split = _split_of(rest)
        return Spec(spec, kind, path, split)
    if colon and re.fullmatch(r"[\w-]{2,}", kind) and not Path(spec).exists():
        raise RdejaxError(
            f"data {spec!r}: give KIND:PATH with one of {', '.join(KINDS[:-1])}, or 'synthetic'"
        )
    path, split = _split_of(spec)
    return _recognise(spec, Path(path), split)


def open_source(spec: str, skip_bad: bool = False) -> Source:
    """Opens a source of training data; only names are read.

    Args:
      spec: "KIND:PATH" with one of `KINDS`, or a path whose layout is recognised, or "synthetic";
        "@SPLIT" at the end chooses a part.
      skip_bad: leave sequences without two frames with masks out, with a warning, instead of
        raising.

    Raises:
      RdejaxError: see `parse`; no such data, data that is not as its kind promises, or a library
        that has to be installed.
    """
    parsed = parse(spec)
    if parsed.kind == "synthetic":
        return ProceduralImages()
    if parsed.kind == "tfds":
        from rdejax.data.sources.tfds import open_tfds

        return open_tfds(parsed.path, parsed.split, parsed.options, skip_bad=skip_bad)
    if parsed.kind == "static":
        return StaticFolder(parsed.path, split=parsed.split)
    return VideoFolder(find_videos(parsed.kind, parsed.path, parsed.split), skip_bad=skip_bad)


def _split_of(text: str) -> tuple[str, str | None]:
    path, at, split = text.rpartition("@")
    # A folder may have an @ in its name.
    if not at or not path or "/" in split or Path(text).exists():
        return text, None
    if not split:
        raise RdejaxError(f"data {text!r}: give the name of a split after @, or leave the @ out")
    return path, split


def _parse_tfds(spec: str, rest: str) -> Spec:
    # Both tfds:name@train?data_dir=/x and tfds:name?data_dir=/x@train are natural to write.
    before, mark, query = rest.partition("?")
    path, split = _split_of(before)
    if mark and split is None:
        query, split = _split_of(query)
    options: dict[str, str] = {}
    for part in query.split("&") if mark else ():
        key, equals, value = part.partition("=")
        if not equals or key not in ("data_dir", "image", "mask"):
            raise RdejaxError(
                f"data {spec!r}: after ? give data_dir=, image= or mask=, joined by &"
            )
        options[key] = value
    return Spec(spec, "tfds", path, split, options)


def _recognise(spec: str, path: Path, split: str | None) -> Spec:
    if not path.is_dir():
        raise RdejaxError(
            f"{path}: no such folder; give one, or KIND:PATH with one of {', '.join(KINDS[:-1])}, "
            "or 'synthetic'"
        )
    if (path / "dataset_info.json").is_file() and (path / "features.json").is_file():
        return Spec(spec, "tfds", str(path), split)
    videos = recognise_videos(path)
    if videos is None:
        return Spec(spec, "static", str(path), split)
    kind, root, found = videos
    return Spec(spec, kind, str(root), split or found)
