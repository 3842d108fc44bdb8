"""Sizes and pixel formats of the files of images and masks."""

from pathlib import Path

from PIL import Image

from rdejax.data.check.findings import Findings
from rdejax.data.sources.decoding import read_rgb, size_text
from rdejax.errors import BadFile

Size = tuple[int, int]  # width, height


def look_at_image(
    findings: Findings, path: Path, quick: bool, *, upright: bool = True
) -> Size | None:
    """Size of an image, counted; None and a problem if it cannot be read."""
    try:
        if quick:
            size = _header(path, upright)[0]
        else:
            height, width = read_rgb(path, upright=upright).shape[:2]
            size = width, height
    except BadFile as error:
        findings.problem(error.problem, path, str(error))
        return None
    findings.sizes[size] += 1
    return size


def look_at_mask(findings: Findings, path: Path, image: Size | None) -> bool:
    """Counts a mask's pixel format and compares its size; False and a problem without a header."""
    try:
        size, mode = _header(path, upright=False)
    except BadFile as error:
        findings.problem(error.problem, path, str(error))
        return False
    findings.modes[mode] += 1
    if image is not None and image != size:
        findings.problem("mask of another size", path, size_text(str(path), size, image))
    return True


def _header(path: Path, upright: bool) -> tuple[Size, str]:
    try:
        with Image.open(path) as opened:
            # Pillow decodes a whole PNG to look for an orientation at its end.
            stored = opened.format != "PNG" or "exif" in opened.info
            turned = upright and stored and opened.getexif().get(0x0112, 1) >= 5
            width, height = opened.size
            return ((height, width) if turned else (width, height)), opened.mode
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise BadFile(f"{path}: cannot be read ({error})") from None
