"""Videos in memory whose colours tell the truth: which frame it is, and what lies where."""

import cv2
import jax
import numpy as np

from rdejax.data.batch import Clip
from rdejax.errors import RdejaxError

RED, GREEN = (220, 40), (40, 220)  # (red, green) of the objects; the background has equal ones
IDS = (3, 7)  # of the red and of the green object


class FakeVideos:
    """A `VideoSource`: two ellipses drift over grey; blue is 10 times the frame's number.

    Args:
      lengths: of each video.
      spacing: see `VideoSource`.
      repeat: see `VideoSource`.
      bad: (index, frame) that cannot be read.
      still: nothing moves.
      radii: half the width of each object, in pixels; 0: no such object.
      shape: of the frames.
    """

    def __init__(
        self,
        lengths=(8,),
        *,
        spacing=1,
        repeat=1,
        bad=(),
        still=False,
        radii=(12, 8),
        shape=(60, 80),
    ):
        self.lengths, self.spacing, self.repeat = lengths, spacing, repeat
        self.bad, self.still, self.radii, self.shape = bad, still, radii, shape
        self.reads: list[tuple[int, int]] = []

    def __len__(self) -> int:
        return len(self.lengths)

    def name(self, index: int) -> str:
        return f"video{index}"

    def length(self, index: int) -> int:
        return self.lengths[index]

    def read(self, index: int, frame: int) -> tuple[np.ndarray, np.ndarray]:
        self.reads.append((index, frame))
        if (index, frame) in self.bad:
            raise RdejaxError(f"video{index}/{frame:05d}.jpg: cannot be read")
        height, width = self.shape
        image, ids = np.full((height, width, 3), 100, np.uint8), np.zeros((height, width), np.uint8)
        t = 0 if self.still else frame
        centres = ((width // 4 + 2 * t, height // 3), (3 * width // 4 - 2 * t, 2 * height // 3))
        for centre, radius, value in zip(centres, self.radii, IDS, strict=True):
            if radius:
                cv2.ellipse(ids, centre, (radius, max(1, 2 * radius // 3)), 20, 0, 360, value, -1)
        for value, colour in zip(IDS, (RED, GREEN), strict=True):
            image[ids == value, :2] = colour
        image[..., 2] = 0 if self.still else 10 * frame % 256
        return image, ids


def seen(frames: np.ndarray) -> list[np.ndarray]:
    """Where frames [..., 3] show the red and the green object."""
    red, green = frames[..., 0].astype(int), frames[..., 1].astype(int)
    return [red - green > 90, green - red > 90]


def same(a: Clip, b: Clip) -> bool:
    """Whether two clips, or batches, are equal in every number."""
    leaves = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    return all(np.array_equal(x, y) for x, y in leaves)
