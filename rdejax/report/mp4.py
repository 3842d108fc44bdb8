"""Small H.264 clips that fit into one page: which videos, how large, how many bytes each."""

import dataclasses
import tempfile
from collections.abc import Sequence
from itertools import chain
from pathlib import Path

from rdejax.io.overlay import VideoWriter
from rdejax.report.frames import paintings
from rdejax.report.result_set import ResultVideo
from rdejax.visualize.grid import shrunk_size

# Longest sides that are tried, largest first.
_SIDES = (640, 480, 400, 320, 240, 160)
# Bits that a pixel of painted natural video takes at the quality below; most take less.
_BITS_PER_PIXEL = 0.16
# Decoding and encoding take some 10 ms a frame: the page should be there within a minute or two.
_MOST_FRAMES_OF_ONE = 1500
_MOST_FRAMES = 6000


@dataclasses.dataclass(frozen=True)
class ClipPlan:
    """How one clip is to be encoded.

    Attributes:
      index: of the video.
      frames: how many, from the first one on.
      side: longest side in pixels.
      most_bytes: of the file.
    """

    index: int
    frames: int
    side: int
    most_bytes: int


@dataclasses.dataclass(frozen=True)
class Mp4:
    """An MP4 file in memory.

    Attributes:
      content: the file.
      frames: number of its frames.
      size: (H, W) shown.
    """

    content: bytes
    frames: int
    size: tuple[int, int]


def plan_clips(videos: Sequence[tuple[int, tuple[int, int]]], most_bytes: int) -> list[ClipPlan]:
    """Chooses videos and one size for all of them.

    Every video is taken, in order of importance, as long as the smallest size fits and the total
    number of frames is bearable; then the largest size that still fits.

    Args:
      videos: (frames, (H, W)) of each, the most important first.
      most_bytes: of all files together.

    Returns:
      A plan for each video taken, in the order given.
    """
    counts = [min(frames, _MOST_FRAMES_OF_ONE) for frames, _ in videos]

    def cost(index: int, side: int) -> float:
        height, width = shrunk_size(videos[index][1], side)
        # A file of few frames or tiny ones is mostly headers.
        return 2500 + counts[index] * (40 + height * width * _BITS_PER_PIXEL / 8)

    taken: list[int] = []
    frames, spent = 0, 0.0
    for index, count in enumerate(counts):
        least = cost(index, _SIDES[-1])
        if spent + least <= most_bytes and (not taken or frames + count <= _MOST_FRAMES):
            taken.append(index)
            frames, spent = frames + count, spent + least
    if not taken:
        return []
    side = next(
        (side for side in _SIDES if sum(cost(i, side) for i in taken) <= most_bytes), _SIDES[-1]
    )
    # What is left over goes to clips that are harder than most.
    spare = min(1.5, most_bytes / sum(cost(i, side) for i in taken))
    return [ClipPlan(i, counts[i], side, int(cost(i, side) * spare)) for i in taken]


def encode_clip(video: ResultVideo, plan: ClipPlan) -> Mp4:
    """Encodes a clip at constant quality, with its rate bounded by what the plan allows.

    Raises:
      RdejaxError: unreadable frames or masks, or no H.264 encoder.
    """
    pictures = paintings(video, plan.side, plan.frames)
    first = next(pictures)
    seconds = plan.frames / video.fps
    # The decoder's buffer of one second may be used up on top of the rate.
    kilobits = max(8, int(0.95 * 8 * plan.most_bytes / (seconds + 1) / 1000))
    options = {
        "preset": "medium",
        "crf": "27",
        "maxrate": f"{kilobits}k",
        "bufsize": f"{kilobits}k",
    }
    with tempfile.TemporaryDirectory(prefix="rdejax-") as folder:
        path = Path(folder) / "clip.mp4"
        count = 0
        with VideoWriter(path, first.shape[:2], video.fps, options) as writer:
            for picture in chain([first], pictures):
                writer.write(picture)
                count += 1
        return Mp4(path.read_bytes(), count, first.shape[:2])
