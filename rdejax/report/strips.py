"""Contact strips: some frames of a video with the true and the resulting masks above each other."""

import dataclasses

import numpy as np

from rdejax.io.masks import read_mask
from rdejax.report.pictures import chosen_frames, fit, jpeg, paint
from rdejax.report.run import Video
from rdejax.report.scores import Curve

_COLUMNS = 6
_SIDE = 300


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


def make_strip(video: Video, curve: Curve | None) -> list[Cell]:
    """Frames spread over the video, among them the worst one if scores are known.

    Raises:
      RdejaxError: unreadable frames or masks.
    """
    names, worst = choose(video, curve)
    frames = chosen_frames(video, names)
    painted = video.source is None and video.painted is not None
    cells = []
    for name in names:
        labels = read_mask(video.masks[name], video.rules)
        size = fit(labels.shape, _SIDE)
        frame = frames.get(name)
        nothing = np.zeros_like(labels)
        truth = None
        if name in video.truth:
            truth = jpeg(paint(frame, read_mask(video.truth[name], video.rules), size))
        place = curve.frames.index(name) if curve and name in curve.frames else None
        cells.append(
            Cell(
                name,
                # The overlay has the masks on it already.
                jpeg(paint(frame, nothing if painted and frame is not None else labels, size)),
                truth,
                None if place is None or curve is None else float(curve.j[place]),
                None if place is None or curve is None else float(curve.f[place]),
                name == worst,
            )
        )
    return cells


def choose(video: Video, curve: Curve | None) -> tuple[list[str], str | None]:
    """Names of the frames of a strip, in order, and the worst one's.

    Where there are scores, or true masks of more than one frame, frames without are left out.
    """
    names = [name for name in video.masks if curve is None or name in set(curve.frames)]
    if curve is None and len(video.truth) > 1:
        names = [name for name in names if name in video.truth] or names
    spread = np.linspace(0, len(names) - 1, min(_COLUMNS, len(names))).round().astype(int)
    chosen = {names[place] for place in spread}
    worst = None
    if curve is not None and len(curve.frames):
        worst = curve.frames[int(np.argmin(curve.mean))]
        if worst not in chosen:
            # It takes the place of its neighbour.
            at = names.index(worst)
            chosen.discard(names[min(spread.tolist(), key=lambda place: abs(place - at))])
            chosen.add(worst)
    return [name for name in names if name in chosen], worst
