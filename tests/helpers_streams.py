"""Short videos, and what holds for every system and rule that segments them.

The videos of `crossing_squares` and `passing_squares` hold objects 4 and 9.
"""

from typing import Any

import numpy as np

import rdejax
from rdejax.models.protocol import System
from rdejax.propagate.slots import Layout
from rdejax.propagate.stream import Stream

Video = tuple[np.ndarray, np.ndarray]
# What float32 sums in another order may differ by.
ATOL = 2e-5


def one_square(height: int, width: int, length: int) -> Video:
    """Frames uint8 [T, H, W, 3] of a square that moves over noise, and ids 2 of it, 7 of noise."""
    frames = np.random.default_rng(0).integers(0, 90, (length, height, width, 3)).astype(np.uint8)
    mask = np.zeros((height, width), np.uint8)
    for t in range(length):
        frames[t, 6:20, 4 + 2 * t : 18 + 2 * t] = (230, 180, 60)
    mask[6:20, 4:18], mask[24:30, 30:44] = 2, 7
    return frames, mask


def crossing_squares(height: int, width: int, length: int) -> Video:
    """Frames uint8 [T, H, W, 3] of two squares moving over still noise, and the first mask."""
    rng = np.random.default_rng(0)
    frames = np.repeat(rng.integers(0, 120, (1, height, width, 3)), length, 0).astype(np.uint8)
    mask = np.zeros((height, width), np.uint8)
    for t in range(length):
        for k, (y, x) in enumerate(((5, 4 + 2 * t), (20, 36 - 2 * t))):
            frames[t, y : y + 14, x : x + 14] = (200, 90, 30) if k else (40, 220, 130)
            if t == 0:
                mask[y : y + 14, x : x + 14] = (4, 9)[k]
    return frames, mask


def passing_squares(height: int, width: int, length: int) -> Video:
    """Two squares in the same colour that pass each other; and the first mask."""
    frames = np.random.default_rng(0).integers(0, 90, (length, height, width, 3)).astype(np.uint8)
    mask = np.zeros((height, width), np.uint8)
    for t in range(length):
        for top, left in ((2, 4 + 5 * t), (17, 46 - 5 * t)):
            frames[t, top : top + 13, left : left + 13] = (230, 180, 60)
    mask[2:15, 4:17], mask[17:30, 46:59] = 4, 9
    return frames, mask


def probabilities(model: System, frames: np.ndarray, masks: Any, **options: Any) -> np.ndarray:
    """Those of the whole video."""
    return rdejax.segment_video(model, frames, masks, return_probs=True, **options)


def assert_padding_changes_nothing(
    model: System, video: Video, whole: np.ndarray, layout: Layout
) -> None:
    """In slots and groups that hold no object."""
    frames, mask = video
    probs = Stream(model, layout=layout).push_probs(frames, {0: mask})[1]
    np.testing.assert_allclose(probs, whole, atol=ATOL)


def assert_objects_permute(model: System, video: Video, whole: np.ndarray) -> None:
    """Objects 4 and 9 in each other's places get each other's probabilities."""
    frames, mask = video
    swapped = np.where(mask == 4, 9, np.where(mask == 9, 4, 0)).astype(np.uint8)
    probs = probabilities(model, frames, swapped)
    np.testing.assert_allclose(probs[:, [0, 2, 1]], whole, atol=ATOL)


def assert_saved_it_goes_on_the_same(model: System, video: Video, after: int, path: Any) -> None:
    """Bit for bit as without the pause after so many frames."""
    frames, mask = video
    unbroken = rdejax.stream(model)
    unbroken.push(frames[:after], {0: mask})
    unbroken.save(path)
    resumed = rdejax.stream(model).restore(path)
    np.testing.assert_array_equal(
        resumed.push_probs(frames[after:])[1], unbroken.push_probs(frames[after:])[1]
    )
