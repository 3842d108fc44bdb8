"""Checks the frames and masks of a sequence."""

from pathlib import Path

import numpy as np

from rdejax.data.check.findings import Findings
from rdejax.data.check.image_files import look_at_image, look_at_mask
from rdejax.data.sources.video_layouts import SequenceFolders
from rdejax.data.sources.videos import VideoSource, all_void_only, too_short
from rdejax.errors import BadFile, RdejaxError
from rdejax.io.masks import VIDEO_FRAME, settle_void
from rdejax.io.sequence_masks import SequenceMasks


def check_sequence(sequence: SequenceFolders, merge: bool, quick: bool) -> Findings:
    """Looks at the files of a sequence; `quick`: at their headers."""
    findings = Findings()
    findings.counts.update(sequences=1)
    try:
        frames, masks = sequence.list()
    except RdejaxError as error:
        findings.problem("frame twice", sequence.frames, str(error))
        return findings
    if not _check_listing(findings, sequence, frames, masks):
        return findings
    sizes = {stem: look_at_image(findings, path, quick) for stem, path in frames.items()}
    if len({size for size in sizes.values() if size}) > 1:
        text = f"{sequence.frames}: the frames have different sizes"
        findings.problem("frames of different sizes", sequence.frames, text)
    known = [p for stem, p in masks.items() if look_at_mask(findings, p, sizes.get(stem))]
    if not quick:
        _check_ids(findings, sequence, known, len(masks), merge)
    return findings


def check_record(source: VideoSource, index: int, quick: bool) -> Findings:
    """Decodes the frames and masks of a sequence that lies in a record; `quick`: its length."""
    findings = Findings()
    try:
        name, length = source.name(index), source.length(index)
    except RdejaxError as error:
        findings.problem("unreadable or too short", index, str(error))
        return findings
    findings.counts.update({"sequences": 1, "images": length, "masks": length})
    objects: set[int] = set()
    for frame in range(0 if quick else length):
        try:
            image, ids = source.read(index, frame)
        except RdejaxError as error:
            findings.problem(getattr(error, "problem", "unreadable"), name, str(error))
            continue
        findings.sizes[image.shape[1], image.shape[0]] += 1
        objects |= set(np.unique(ids).tolist()) - {0}
    if not quick:
        findings.objects[len(objects)] += 1
        if not objects:
            findings.problem("no object", name, f"{name}: no mask of the video holds an object")
    return findings


def _check_listing(
    findings: Findings, sequence: SequenceFolders, frames: dict[str, Path], masks: dict[str, Path]
) -> bool:
    """What the names tell; whether there are files to look at."""
    findings.counts.update(images=len(frames), masks=len(masks))
    for folder, found in ((sequence.frames, frames), (sequence.masks, masks)):
        if not found:
            what = "holds no file" if folder.is_dir() else "no such folder"
            findings.problem("missing sequence", folder, f"{folder}: {what}")
    if not frames or not masks:
        return False
    for stem in masks.keys() - frames.keys():
        text = f"{masks[stem]}: no frame {stem} in {sequence.frames}"
        findings.problem("mask without frame", masks[stem], text)
    bare = len(frames.keys() - masks.keys())
    if bare:
        text = f"{sequence.frames}: {bare} of {len(frames)} frames have no mask; not used"
        findings.remark("frames without mask", sequence.frames, text)
        findings.counts.update({"frames without mask": bare})
    annotated = len(frames.keys() & masks.keys())
    if annotated < 2:
        problem = "one-frame video" if len(frames) < 2 else "fewer than two masks"
        findings.problem(problem, sequence.masks, str(too_short(str(sequence.masks), annotated)))
    return True


def _check_ids(
    findings: Findings, sequence: SequenceFolders, masks: list[Path], listed: int, merge: bool
) -> None:
    values: list[np.ndarray] = []
    of_sequence = SequenceMasks(lambda: masks, VIDEO_FRAME)
    for path in masks:
        try:
            values.append(np.unique(of_sequence.read(path)))
        except BadFile as error:
            findings.problem(error.problem, path, str(error))
    binary = all_void_only(values)
    ids = [settle_void(found[None], binary=binary, merge=merge) for found in values]
    objects = {int(value) for found in ids for value in found.ravel()} - {0}
    findings.objects[len(objects)] += 1
    empty = sum(not found.any() for found in ids)
    if values and not objects:
        text = f"{sequence.masks}: no mask of the video holds an object"
        findings.problem("no object", sequence.masks, text)
    elif empty:
        text = f"{sequence.masks}: {empty} of {listed} masks are empty"
        findings.remark("empty masks", sequence.masks, text)
