"""How far apart the frames of a clip may lie as training goes on."""

import bisect
from collections.abc import Sequence


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
