"""Checks an image and its mask."""

from pathlib import Path

import numpy as np

from rdejax.data.check.findings import Findings
from rdejax.data.check.image_files import look_at_image, look_at_mask
from rdejax.data.sources.images import StaticImages
from rdejax.errors import BadFile, RdejaxError
from rdejax.io.masks import STATIC_IMAGE, read_mask


def check_pair(image_path: Path, mask_path: Path, quick: bool) -> Findings:
    """Looks at two files; `quick`: at their headers."""
    findings = Findings()
    size = look_at_image(findings, image_path, quick, upright=False)
    if look_at_mask(findings, mask_path, size) and not quick:
        try:
            _count_objects(findings, mask_path, read_mask(mask_path, STATIC_IMAGE))
        except BadFile as error:
            findings.problem(error.problem, mask_path, str(error))
    return findings


def check_item(source: StaticImages, index: int) -> Findings:
    """Decodes an image and its mask that lie in a record."""
    findings, name = Findings(), source.name(index)
    try:
        image, ids = source.load(index)
    except RdejaxError as error:
        findings.problem(getattr(error, "problem", "unreadable"), name, str(error))
        return findings
    findings.sizes[image.shape[1], image.shape[0]] += 1
    _count_objects(findings, name, ids)
    return findings


def _count_objects(findings: Findings, name: object, ids: np.ndarray) -> None:
    objects = int(np.count_nonzero(np.unique(ids)))
    findings.objects[objects] += 1
    if not objects:
        findings.problem("empty mask", name, f"{name}: mask holds no object")
