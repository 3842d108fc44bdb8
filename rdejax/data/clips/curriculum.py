"""Which frames of a video make a clip, and how far apart they may lie as training goes on."""

import bisect
from collections.abc import Sequence

import numpy as np
from jaxtyping import Int

from rdejax.errors import RdejaxError


def max_gap(progress: float, gaps: Sequence[int], phases: Sequence[float], spacing: int = 1) -> int:
    """The largest gap between neighbouring frames of a clip (STCN's and RDE-VOS's curriculum).

    Args:
      progress: step / steps, 0 to 1.
      gaps: largest gap in video frames of each phase.
      phases: share of the run at which each later phase begins, rising; one fewer than `gaps`.
      spacing: video frames between neighbouring annotated frames.

    Returns:
      The gap in annotated frames, 1 or more.
    """
    return max(1, gaps[bisect.bisect_right(phases, progress)] // spacing)


def draw_frames(
    rng: np.random.Generator, length: int, count: int, gap: int, reverse: float
) -> Int[np.ndarray, " count"]:
    """Numbers of the frames of a clip, in the clip's order.

    Neighbours lie 1 to `gap` apart, less in a video too short for that; one with fewer frames than
    the clip is run through to and fro.

    Args:
      rng: random generator.
      length: frames of the video, 2 or more.
      count: frames of the clip.
      gap: largest gap.
      reverse: probability that time runs backwards.

    Raises:
      RdejaxError: a video of one frame.
    """
    if length < 2:
        raise RdejaxError(f"{length} frames with a mask; a clip needs two")
    if length < count:
        turn = 2 * (length - 1)
        phase = (rng.integers(turn) + np.arange(count)) % turn
        frames = np.minimum(phase, turn - phase)
    else:
        gap = min(gap, (length - 1) // max(1, count - 1))
        offsets = np.concatenate([[0], np.cumsum(rng.integers(1, gap + 1, count - 1))])
        frames = rng.integers(0, length - offsets[-1]) + offsets
    return frames[::-1] if rng.random() < reverse else frames
