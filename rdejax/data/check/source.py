"""Checks training data on disk: what there is, what is broken and what is missing."""

import functools
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from rdejax.data.check.findings import Findings
from rdejax.data.check.sequences import check_record, check_sequence
from rdejax.data.check.static_images import check_item, check_pair
from rdejax.data.sources.image_pairs import find_pairs
from rdejax.data.sources.images import StaticImages
from rdejax.data.sources.spec import Spec, open_source, parse
from rdejax.data.sources.video_layouts import find_videos
from rdejax.data.sources.videos import VideoSource
from rdejax.errors import RdejaxError

Work = Callable[[], Findings]


def check_source(
    spec: str,
    *,
    quick: bool = False,
    threads: int | None = None,
    advance: Callable[[int, int], None] = lambda done, total: None,
) -> Findings:
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
    findings = Findings(spec=spec)
    try:
        work = _plan(parse(spec), findings, quick)
    except RdejaxError as error:
        findings.kind = findings.kind or "cannot be opened"
        findings.problem("cannot be opened", spec, str(error))
        return findings
    with ThreadPoolExecutor(threads or os.cpu_count() or 1) as pool:
        for done, part in enumerate(pool.map(lambda task: task(), work), 1):
            findings.add(part)
            advance(done, len(work))
    return findings


def _plan(spec: Spec, findings: Findings, quick: bool) -> list[Work]:
    """Notes what the folders tell, and gives the work that is left."""
    findings.kind = spec.kind
    if spec.kind == "synthetic":
        findings.kind = "synthetic, made as it is needed"
        return []
    if spec.kind == "static":
        return _plan_static(spec, findings, quick)
    if spec.kind == "tfds":
        return _plan_tfds(spec, findings, quick)
    videos = find_videos(spec.kind, spec.path, spec.split)
    return [functools.partial(check_sequence, p, videos.merge, quick) for p in videos.sequences]


def _plan_static(spec: Spec, findings: Findings, quick: bool) -> list[Work]:
    found = find_pairs(spec.path, spec.split)
    findings.kind = f"static, {found.layout}"
    findings.counts.update(images=len(found.pairs))
    for path in found.bare_images:
        findings.remark("image without mask", path, f"{path}: no mask; not used")
    for path in found.bare_masks:
        findings.remark("mask without image", path, f"{path}: no image; not used")
    return [functools.partial(check_pair, image, mask, quick) for image, mask in found.pairs]


def _plan_tfds(spec: Spec, findings: Findings, quick: bool) -> list[Work]:
    source = open_source(spec.text, skip_bad=True)
    if isinstance(source, StaticImages):
        findings.kind = "tfds, static images"
        findings.counts.update(images=len(source))
        numbers = range(0 if quick else len(source))
        return [functools.partial(check_item, source, i) for i in numbers]
    assert isinstance(source, VideoSource)
    findings.kind = f"tfds, videos, a mask every {source.spacing} frames"
    return [functools.partial(check_record, source, i, quick) for i in range(len(source))]
