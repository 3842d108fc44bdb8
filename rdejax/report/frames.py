"""Frames with masks painted on, at the size in which the page shows them: in clips and strips."""

import dataclasses
from collections.abc import Iterator
from itertools import islice

import cv2
import numpy as np
from jaxtyping import UInt8
from PIL import Image

from rdejax.errors import RdejaxError
from rdejax.evaluate.scores import Curve
from rdejax.io.masks import PAINTING, read_mask
from rdejax.io.overlay import render_overlay
from rdejax.io.video import Frame, open_frames, read_image
from rdejax.report.result_set import ResultVideo
from rdejax.visualize.grid import Picture, shrunk_size

# Background of masks whose frames are not at hand.
_GREY = 48
_COLUMNS = 6
_CELL = 300


@dataclasses.dataclass(frozen=True)
class Cell:
    """One frame of a strip.

    Attributes:
      frame: its name.
      result: JPEG file of the result.
      truth: JPEG file of the truth, or None.
      j: region similarity, or None.
      f: contour accuracy, or None.
      worst: the frame with the lowest mean of J and F.
    """

    frame: str
    result: bytes
    truth: bytes | None = None
    j: float | None = None
    f: float | None = None
    worst: bool = False

    @property
    def size(self) -> int:
        """Bytes of the files."""
        return len(self.result) + len(self.truth or b"")


def paintings(video: ResultVideo, side: int, count: int) -> Iterator[Picture]:
    """The first `count` frames of a video with its result.

    Args:
      video: whose frames; without them the overlay of the run, without that the masks alone.
      side: longest side of the pictures in pixels; smaller ones are not enlarged.
      count: at most so many.

    Yields:
      RGB pictures of one size.

    Raises:
      RdejaxError: an unreadable frame or mask.
    """
    size = shrunk_size(mask_size(video), side)
    named = _frames(video)
    if named is None:
        named = ((name, None) for name in video.masks)
    for name, frame in islice(named, count):
        masked = video.source is not None or video.painted is None
        yield _paint(frame, read_mask(video.masks[name], video.rules) if masked else None, size)


def make_strip(video: ResultVideo, curve: Curve | None) -> list[Cell]:
    """Frames spread over the video, truth and result, among them the worst if scores are known.

    Raises:
      RdejaxError: unreadable frames or masks.
    """
    names, worst = _choose(video, curve)
    frames = _some_frames(video, names)
    cells = []
    for name in names:
        labels = read_mask(video.masks[name], video.rules)
        height, width = labels.shape
        size, frame = shrunk_size((height, width), _CELL), frames.get(name)
        painted = video.source is None and frame is not None
        truth = None
        if name in video.truth:
            truth = _jpeg(_paint(frame, read_mask(video.truth[name], video.rules), size))
        scores: tuple[float | None, float | None] = (None, None)
        if curve is not None and name in curve.frames:
            place = curve.frames.index(name)
            scores = float(curve.j[place]), float(curve.f[place])
        result = _jpeg(_paint(frame, None if painted else labels, size))
        cells.append(Cell(name, result, truth, *scores, name == worst))
    return cells


def mask_size(video: ResultVideo) -> tuple[int, int]:
    """(H, W) of a video's first mask."""
    path = next(iter(video.masks.values()))
    try:
        with Image.open(path) as image:
            return image.height, image.width
    except (OSError, ValueError, SyntaxError) as error:
        raise RdejaxError(f"{path}: {PAINTING.unreadable.format(detail=error)}") from None


def _frames(video: ResultVideo) -> Iterator[tuple[str, Frame]] | None:
    """Name and frame of all that have a mask; painted ones where only the overlay is there."""
    if video.source is not None:
        return ((name, frame) for name, frame in video.source() if name in video.masks)
    if video.painted is not None:
        return zip(video.masks, (frame for _, frame in open_frames(video.painted)), strict=False)
    return None


def _some_frames(video: ResultVideo, names: list[str]) -> dict[str, Frame]:
    """Frames by name; empty where none are at hand."""
    files = getattr(video.source() if video.source else None, "files", None)
    if files is not None:
        # Separate files can be read alone; a video has to be decoded from its beginning.
        known = {file.stem: file for file in files}
        return {name: read_image(known[name]) for name in names}
    found: dict[str, Frame] = {}
    for name, frame in _frames(video) or ():
        if name in names:
            found[name] = frame
            if len(found) == len(names):
                break
    return found


def _choose(video: ResultVideo, curve: Curve | None) -> tuple[list[str], str | None]:
    """Names of the frames of a strip, in order, and the worst one's.

    Where there are scores, or true masks of more than one frame, frames without are left out.
    """
    names = [name for name in video.masks if curve is None or name in curve.frames]
    if curve is None and len(video.truth) > 1:
        names = [name for name in names if name in video.truth] or names
    spread = np.linspace(0, len(names) - 1, min(_COLUMNS, len(names))).round().astype(int)
    chosen, worst = {names[place] for place in spread}, None
    if curve is not None and curve.frames:
        worst = curve.frames[int(np.argmin(curve.mean))]
        if worst not in chosen:
            # It takes the place of its neighbour.
            at = names.index(worst)
            chosen.discard(names[min(spread.tolist(), key=lambda place: abs(place - at))])
            chosen.add(worst)
    return [name for name in names if name in chosen], worst


def _paint(
    frame: Frame | None, labels: UInt8[np.ndarray, "h w"] | None, size: tuple[int, int]
) -> Picture:
    """A frame (or grey) with its objects in their colours, both shrunk to `size` (H, W) first."""
    height, width = size
    small = np.full((height, width, 3), _GREY, np.uint8)
    if frame is not None:
        small = cv2.resize(frame, (width, height), interpolation=cv2.INTER_AREA)
    if labels is None:
        return small
    return render_overlay(
        small, cv2.resize(labels, (width, height), interpolation=cv2.INTER_NEAREST)
    )


def _jpeg(picture: Picture, quality: int = 78) -> bytes:
    done, content = cv2.imencode(".jpg", picture[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])
    assert done
    return content.tobytes()
