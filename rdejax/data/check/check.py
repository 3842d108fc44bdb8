"""Checks training data on disk: what there is, what is broken and what is missing."""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from rdejax.data.check.findings import Report
from rdejax.data.sources.decoding import read_rgb, size_text
from rdejax.data.sources.image_pairs import find_pairs
from rdejax.data.sources.images import StaticImages
from rdejax.data.sources.spec import Spec, open_source, parse
from rdejax.data.sources.video_layouts import Place, find_videos
from rdejax.data.sources.videos import VideoSource, all_void_only
from rdejax.errors import BadFile, RdejaxError
from rdejax.io.masks import STATIC_IMAGE, VIDEO_FRAME, read_mask, settle_void

Advance = Callable[[int, int], None]
Work = Callable[[], Report]


def check(
    spec: str,
    *,
    quick: bool = False,
    threads: int | None = None,
    advance: Advance = lambda done, total: None,
) -> Report:
    """Looks at every file of a source.

    Args:
      spec: see `rdejax.data.sources.spec.open_source`.
      quick: read the headers of the files only: sizes and modes, but no truncated file, id or empty
        mask is found.
      threads: that read; one per core by default.
      advance: called with the number of sequences or images looked at, and of all.

    Returns:
      The findings; a source that cannot be opened at all is a problem, too.
    """
    report = Report(spec=spec)
    try:
        parsed = parse(spec)
        work = _plan(parsed, report, quick)
    except RdejaxError as error:
        report.kind = report.kind or "cannot be opened"
        report.problem("cannot be opened", spec, str(error))
        return report
    with ThreadPoolExecutor(threads or os.cpu_count() or 1) as pool:
        for done, part in enumerate(pool.map(lambda task: task(), work), 1):
            report.add(part)
            advance(done, len(work))
    return report


def _plan(spec: Spec, report: Report, quick: bool) -> list[Work]:
    """Notes what the folders tell, and gives the work that is left."""
    report.kind = spec.kind
    if spec.kind == "synthetic":
        report.kind = "synthetic, made as it is needed"
        return []
    if spec.kind == "static":
        return _plan_static(spec, report, quick)
    if spec.kind == "tfds":
        return _plan_tfds(spec, report, quick)
    videos = find_videos(spec.kind, spec.path, spec.split)
    return [_task(_check_sequence, place, videos.merge, quick) for place in videos.places]


def _task(work: Callable[..., Report], *arguments: Any) -> Work:
    return lambda: work(*arguments)


def _plan_static(spec: Spec, report: Report, quick: bool) -> list[Work]:
    found = find_pairs(spec.path, spec.split)
    report.kind = f"static, {found.layout}"
    report.counts.update(images=len(found.pairs))
    for path in found.bare_images:
        report.remark("image without mask", path, f"{path}: no mask; not used")
    for path in found.bare_masks:
        report.remark("mask without image", path, f"{path}: no image; not used")
    return [_task(_check_pair, image, mask, quick) for image, mask in found.pairs]


def _plan_tfds(spec: Spec, report: Report, quick: bool) -> list[Work]:
    source = open_source(spec.text, skip_bad=True)
    if isinstance(source, StaticImages):
        report.kind = "tfds, static images"
        report.counts.update(images=len(source))
        return [] if quick else [_task(_check_item, source, i) for i in range(len(source))]
    assert isinstance(source, VideoSource)
    report.kind = f"tfds, videos, a mask every {source.spacing} frames"
    return [_task(_check_record, source, i, quick) for i in range(len(source))]


def _check_pair(image_path: Path, mask_path: Path, quick: bool) -> Report:
    report = Report()
    image_size = _look(report, image_path, quick, upright=False)
    if quick:
        mask_size = _look(report, mask_path, quick, is_mask=True)
        _compare(report, mask_path, image_size, mask_size)
        return report
    try:
        report.modes[_header(mask_path, False)[1]] += 1
        ids = read_mask(mask_path, STATIC_IMAGE)
    except BadFile as error:
        report.problem(error.problem, mask_path, str(error))
        return report
    _compare(report, mask_path, image_size, (ids.shape[1], ids.shape[0]))
    _count_objects(report, mask_path, ids)
    return report


def _count_objects(report: Report, name: object, ids: np.ndarray) -> None:
    objects = len(set(np.unique(ids).tolist()) - {0})
    report.objects[objects] += 1
    if not objects:
        report.problem("empty mask", name, f"{name}: mask holds no object")


def _check_item(source: StaticImages, index: int) -> Report:
    report = Report()
    name = source.name(index)
    try:
        image, ids = source.load(index)
    except RdejaxError as error:
        report.problem(getattr(error, "problem", "unreadable"), name, str(error))
        return report
    report.sizes[image.shape[1], image.shape[0]] += 1
    _count_objects(report, name, ids)
    return report


def _check_record(source: VideoSource, index: int, quick: bool) -> Report:
    report = Report()
    try:
        name, length = source.name(index), source.length(index)
    except RdejaxError as error:
        report.problem("unreadable or too short", index, str(error))
        return report
    report.counts.update({"sequences": 1, "images": length, "masks": length})
    objects: set[int] = set()
    for frame in range(0 if quick else length):
        try:
            image, ids = source.read(index, frame)
        except RdejaxError as error:
            report.problem(getattr(error, "problem", "unreadable"), name, str(error))
            continue
        report.sizes[image.shape[1], image.shape[0]] += 1
        objects |= set(np.unique(ids).tolist()) - {0}
    if not quick:
        report.objects[len(objects)] += 1
        if not objects:
            report.problem("no object", name, f"{name}: no mask of the video holds an object")
    return report


def _check_sequence(place: Place, merge: bool, quick: bool) -> Report:
    report = Report()
    report.counts.update(sequences=1)
    try:
        frames, masks = place.list()
    except RdejaxError as error:
        report.problem("frame twice", place.frames, str(error))
        return report
    if not _check_listing(report, place, frames, masks):
        return report
    sizes = {stem: _look(report, path, quick) for stem, path in frames.items()}
    if len({size for size in sizes.values() if size}) > 1:
        text = f"{place.frames}: the frames have different sizes"
        report.problem("frames of different sizes", place.frames, text)
    if quick:
        for stem, path in masks.items():
            _compare(report, path, sizes.get(stem), _look(report, path, quick, is_mask=True))
    else:
        _check_masks(report, place, masks, sizes, merge)
    return report


def _check_listing(
    report: Report, place: Place, frames: dict[str, Path], masks: dict[str, Path]
) -> bool:
    """What the names tell; whether there are files to look at."""
    report.counts.update(images=len(frames), masks=len(masks))
    for folder, found in ((place.frames, frames), (place.masks, masks)):
        if not found:
            what = "holds no file" if folder.is_dir() else "no such folder"
            report.problem("missing sequence", folder, f"{folder}: {what}")
    if not frames or not masks:
        return False
    for stem in masks.keys() - frames.keys():
        path = masks[stem]
        report.problem("mask without frame", path, f"{path}: no frame {stem} in {place.frames}")
    bare = len(frames.keys() - masks.keys())
    if bare:
        text = f"{place.frames}: {bare} of {len(frames)} frames have no mask; not used"
        report.remark("frames without mask", place.frames, text)
        report.counts.update({"frames without mask": bare})
    annotated = len(frames.keys() & masks.keys())
    if annotated < 2:
        problem = "one-frame video" if len(frames) < 2 else "fewer than two masks"
        text = f"{place.masks}: {annotated} frames with a mask; a clip needs two"
        report.problem(problem, place.masks, text)
    return True


def _check_masks(
    report: Report,
    place: Place,
    masks: dict[str, Path],
    sizes: dict[str, tuple[int, int] | None],
    merge: bool,
) -> None:
    values: dict[Path, np.ndarray] = {}
    for stem, path in masks.items():
        try:
            report.modes[_header(path, False)[1]] += 1
            labels = read_mask(path, VIDEO_FRAME)
        except BadFile as error:
            report.problem(error.problem, path, str(error))
            continue
        _compare(report, path, sizes.get(stem), (labels.shape[1], labels.shape[0]))
        values[path] = np.unique(labels)
    binary = all_void_only(values.values())
    ids = [settle_void(found[None], binary=binary, merge=merge) for found in values.values()]
    objects = {int(value) for found in ids for value in found.ravel()} - {0}
    report.objects[len(objects)] += 1
    empty = sum(not found.any() for found in ids)
    if values and not objects:
        text = f"{place.masks}: no mask of the video holds an object"
        report.problem("no object", place.masks, text)
    elif empty:
        text = f"{place.masks}: {empty} of {len(masks)} masks are empty"
        report.remark("empty masks", place.masks, text)


def _look(
    report: Report, path: Path, quick: bool, *, is_mask: bool = False, upright: bool = True
) -> tuple[int, int] | None:
    """Width and height of an image, counted; None and a problem if it cannot be read."""
    try:
        if quick:
            size, mode = _header(path, upright and not is_mask)
        else:
            size, mode = read_rgb(path, upright=upright).shape[1::-1], ""
    except BadFile as error:
        report.problem(error.problem, path, str(error))
        return None
    if is_mask:
        report.modes[mode] += 1
    else:
        report.sizes[size[0], size[1]] += 1
    return size[0], size[1]


def _header(path: Path, upright: bool) -> tuple[tuple[int, int], str]:
    try:
        with Image.open(path) as opened:
            # Pillow decodes a whole PNG to look for an orientation at its end.
            stored = opened.format != "PNG" or "exif" in opened.info
            turned = upright and stored and opened.getexif().get(0x0112, 1) >= 5
            width, height = opened.size
            return ((height, width) if turned else (width, height)), opened.mode
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise BadFile(f"{path}: cannot be read ({error})") from None


def _compare(
    report: Report,
    path: Path,
    image: tuple[int, int] | None,
    mask: tuple[int, int] | None,
) -> None:
    if image is not None and mask is not None and image != mask:
        report.problem("mask of another size", path, size_text(str(path), mask, image))
