"""Converts a source of training data into a TFDS data set of ArrayRecord files."""

import contextlib
import io
import logging
import os
import re
import tempfile
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import cv2
import numpy as np
from PIL import Image

from rdejax.data.sources.images import StaticFolder, StaticImages
from rdejax.data.sources.spec import open_source, parse
from rdejax.data.sources.tfds import import_tfds
from rdejax.data.sources.videos import VideoFolder, VideoSource
from rdejax.errors import RdejaxError

_log = logging.getLogger(__name__)
_LARGEST = 1_900_000_000  # protocol buffers end at 2 GiB, and a record is one
_AS_THEY_ARE = {".jpg": "JPEG", ".jpeg": "JPEG", ".png": "PNG"}  # what every reader of TFDS decodes

T = TypeVar("T")
U = TypeVar("U")
Tick = Callable[[], None]


def write_tfds(
    specs: Iterable[str],
    output: str | Path,
    *,
    name: str | None = None,
    skip_bad: bool = False,
    threads: int | None = None,
    progress: Callable[[str, int], Tick] = lambda title, total: lambda: None,
) -> Path:
    """Writes sources of one kind as a TFDS data set, one split for each.

    Image files are kept byte for byte where they are JPEG or PNG in RGB; masks are written as PNG
    with ids as grey values. A data set is whole or not there.

    Args:
      specs: see `rdejax.data.sources.spec.open_source`; the split is what follows "@", or "train".
      output: TFDS's data_dir; the data set goes into OUTPUT/NAME/1.0.0.
      name: of the data set; made of the first specification by default.
      skip_bad: leave unusable sequences and images out, with a warning, instead of raising.
      threads: that decode and encode; one per core by default.
      progress: called with a split's name and its number of sequences or images; gives what is
        called after each.

    Returns:
      The folder of the data set, which can be given as "tfds:FOLDER".

    Raises:
      RdejaxError: sources of different kinds or splits of the same name, a data set of this name
        already there, an unusable file, or TFDS not installed.
    """
    specs = list(specs)
    sources = _open_all(specs, skip_bad)
    name = name or _name_of(specs[0])
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name):
        raise RdejaxError(f"name {name!r}: give lower-case letters, digits and underscores")
    import_tfds().disable_progress_bar()  # its own bars cannot be told a total
    from rdejax.data.builders import tfds_builders

    folder = Path(output) / name / tfds_builders.VERSION
    if folder.exists():
        raise RdejaxError(f"{folder}: already there; remove it or choose another --name")
    still = all(isinstance(source, StaticImages) for source in sources.values())
    # Filled while the examples are made, and written with the rest at the end.
    facts: dict[str, Any] = {} if still else {f"rdejax_{split}": {} for split in sources}
    with ThreadPoolExecutor(threads or os.cpu_count() or 1) as pool:

        def examples(split: str) -> Iterator[dict[str, Any]]:
            source, tick = sources[split], progress(split, len(sources[split]))
            if isinstance(source, StaticImages):
                yield from _image_examples(source, pool, skip_bad, tick)
            else:
                noted = facts[f"rdejax_{split}"]
                yield from _video_examples(source, pool, skip_bad, tick, noted)

        make = tfds_builders.image_builder if still else tfds_builders.video_builder
        builder: Any = make(name, str(output), {split: examples(split) for split in sources})
        builder.info.metadata.update(facts)
        _prepare(builder)
    return folder


def _prepare(builder: Any) -> None:
    said = io.StringIO()  # TFDS tells on stdout what our progress tells better
    try:
        with contextlib.redirect_stdout(said), tempfile.TemporaryDirectory() as nothing:
            builder.download_and_prepare(download_dir=nothing)
    except ImportError as error:
        raise RdejaxError(
            f"TFDS cannot write this data set ({error}): pip install 'rdejax[tfds]'"
        ) from None


def _open_all(specs: list[str], skip_bad: bool) -> dict[str, VideoSource | StaticImages]:
    if not specs:
        raise RdejaxError("nothing to convert; give KIND:PATH")
    sources: dict[str, VideoSource | StaticImages] = {}
    for spec in specs:
        split = re.sub(r"\W", "_", parse(spec).split or "train")
        source = open_source(spec, skip_bad)
        if not isinstance(source, (StaticImages, VideoSource)):
            raise RdejaxError(f"{spec}: made as it is needed, so there is nothing to convert")
        if split in sources:
            raise RdejaxError(f"{spec}: another source is the split {split!r} already; name one @")
        sources[split] = source
    if len({isinstance(source, StaticImages) for source in sources.values()}) > 1:
        raise RdejaxError(
            "videos and static images do not fit one data set; convert each by itself"
        )
    return sources


def _name_of(spec: str) -> str:
    parsed = parse(spec)
    last = [part for part in Path(parsed.path).parts if not re.fullmatch(r"[\d.]+|/", part)][-1:]
    text = parsed.kind if parsed.kind not in ("static", "folder", "tfds") else "".join(last)
    name = re.sub(r"\W+", "_", text.lower(), flags=re.ASCII).strip("_")
    return name if name[:1].isalpha() else f"set_{name}".rstrip("_")


def _video_examples(
    source: VideoSource, pool: ThreadPoolExecutor, skip_bad: bool, tick: Tick, facts: dict[str, Any]
) -> Iterator[dict[str, Any]]:
    facts.update({"spacing": source.spacing, "repeat": source.repeat, "names": [], "lengths": []})
    for index in range(len(source)):
        try:
            frames = [(index, frame) for frame in range(source.length(index))]
            parts = list(_ahead(pool, lambda at: _encode_frame(source, *at), frames))
            name = source.name(index)
            size = sum(len(image) + len(mask) for image, mask in parts)
            if size > _LARGEST:
                raise RdejaxError(f"{name}: {size / 1e9:.1f} GB of frames; cut the video in parts")
        except RdejaxError as error:
            if not skip_bad:
                raise
            _log.warning("skipped: %s", error)
            continue
        finally:
            tick()
        facts["names"].append(name)
        facts["lengths"].append(len(parts))
        yield {
            "video": {
                "frames": [image for image, _ in parts],
                "segmentations": [mask for _, mask in parts],
            },
            "metadata": {"num_frames": len(parts), "video_name": name},
        }


def _image_examples(
    source: StaticImages, pool: ThreadPoolExecutor, skip_bad: bool, tick: Tick
) -> Iterator[dict[str, Any]]:
    def encode(index: int) -> dict[str, Any] | RdejaxError:
        try:
            image, ids = source.load(index)
            path = source.pairs[index][0] if isinstance(source, StaticFolder) else None
            if not ids.any():
                raise RdejaxError(f"{source.name(index)}: mask holds no object; leave it out")
        except RdejaxError as error:
            return error
        return {
            "image": _image_bytes(image, path),
            "segmentation_mask": _png(ids),
            "file_name": path.name if path else f"{index:08d}",
        }

    for example in _ahead(pool, encode, range(len(source))):
        tick()
        if isinstance(example, RdejaxError):
            if not skip_bad:
                raise example
            _log.warning("skipped: %s", example)
        else:
            yield example


def _encode_frame(source: VideoSource, index: int, frame: int) -> tuple[bytes, bytes]:
    image, ids = source.read(index, frame)
    path = source.files(index, frame)[0] if isinstance(source, VideoFolder) else None
    return _image_bytes(image, path), _png(ids)


def _image_bytes(image: np.ndarray, path: Path | None) -> bytes:
    """The file itself where every reader decodes it to the same pixels, otherwise a PNG."""
    if path is not None and path.suffix.lower() in _AS_THEY_ARE:
        content = path.read_bytes()
        with Image.open(io.BytesIO(content)) as opened:
            plain = opened.mode == "RGB" and opened.getexif().get(0x0112, 1) == 1
            if plain and opened.format == _AS_THEY_ARE[path.suffix.lower()]:
                return content
    return _png(cv2.cvtColor(image, cv2.COLOR_RGB2BGR))


def _png(pixels: np.ndarray) -> bytes:
    return cv2.imencode(".png", pixels)[1].tobytes()


def _ahead(pool: ThreadPoolExecutor, work: Callable[[T], U], items: Iterable[T]) -> Iterator[U]:
    """`pool.map` that holds only a few results at a time."""
    waiting: deque[Any] = deque()
    most = 2 * pool._max_workers
    for item in items:
        waiting.append(pool.submit(work, item))
        if len(waiting) >= most:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()
