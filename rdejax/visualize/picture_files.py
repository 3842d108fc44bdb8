"""What pictures are made of, from disk, and pictures to disk."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from rdejax.errors import RdejaxError
from rdejax.files import atomic
from rdejax.io.datasets import MASK_SUFFIXES, list_files
from rdejax.io.given import MaskReader
from rdejax.io.video import FrameSource

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg")
CHART_SUFFIXES = (".png", ".pdf", ".svg")


def check_output(path: Path, suffixes: Sequence[str]) -> None:
    """Refuses names that no picture can be written under, before any work is done.

    Raises:
      RdejaxError: an unknown suffix, or a folder.
    """
    if path.suffix.lower() not in suffixes:
        raise RdejaxError(
            f"{path}: unknown kind of picture {path.suffix or '(no suffix)'}; "
            f"end the name in {', '.join(suffixes)}"
        )
    if path.is_dir():
        raise RdejaxError(f"{path}: this is a folder; give the name of a file")


def save_image(path: Path, image: UInt8[np.ndarray, "h w 3"]) -> None:
    """Writes an image whole or not at all; folders on the way are made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    options: dict[str, Any] = (
        {"optimize": True} if path.suffix.lower() == ".png" else {"quality": 85, "subsampling": 0}
    )
    with atomic(path) as temporary:
        Image.fromarray(image).save(temporary, **options)


def choose_frames(available: Sequence[int], wanted: Sequence[int], count: int) -> list[int]:
    """The wanted frames, or else `count` (fewer, if there are no more) evenly spaced ones.

    Args:
      available: numbers there are, ascending.
      wanted: numbers asked for; none: evenly spaced, the first and the last among them.
      count: how many, if none is asked for.

    Raises:
      RdejaxError: a frame that is not available; a count below 1; nothing available.
    """
    if not available:
        raise RdejaxError("there is no frame to choose from")
    for number in wanted:
        if number not in available:
            raise RdejaxError(
                f"frame {number} is not among those that can be shown, "
                f"{describe_numbers(available)}; choose others with --frames"
            )
    if wanted:
        return list(wanted)
    if count < 1:
        raise RdejaxError(f"count={count}: give the number of frames to show, 1 or more")
    places = np.linspace(0, len(available) - 1, min(count, len(available)))
    return [available[round(place)] for place in places]


def describe_numbers(numbers: Sequence[int]) -> str:
    """Such as "0 to 59" or "0 to 55 in steps of 5"."""
    steps = {b - a for a, b in zip(numbers, numbers[1:], strict=False)}
    step = f" in steps of {steps.pop()}" if len(steps) == 1 and steps != {1} else ""
    return f"{numbers[0]} to {numbers[-1]}{step}"


def frames_by_number(
    source: FrameSource, numbers: Sequence[int]
) -> dict[int, UInt8[np.ndarray, "h w 3"]]:
    """Some frames of a video by number; decoding stops after the last of them.

    Raises:
      RdejaxError: the video ends before one of them, or a frame is unreadable.
    """
    found = {}
    for number, (_, frame) in enumerate(source):
        if number in numbers:
            found[number] = frame
        if number >= max(numbers):
            return found
    raise RdejaxError(
        f"{source.path}: the video ends before frame {max(numbers)}; choose others with --frames"
    )


class MaskFolder:
    """Masks of one video, named like its frames: `FOLDER/<frame>.png`, by `rdejax infer`.

    The folder that `rdejax infer` was given as its output, with `masks` inside, will do as well.

    Args:
      path: the folder.
      source: the video.

    Raises:
      RdejaxError: no such folder, or no mask in it.
    """

    def __init__(self, path: Path, source: FrameSource):
        self.path = path / "masks" if (path / "masks").is_dir() else path
        self.source = source
        if not self.path.is_dir():
            raise RdejaxError(
                f"{path}: no such folder; give one with masks named like the frames of "
                f"{source.path}, such as rdejax infer writes"
            )
        self.files = {file.stem: file for file in list_files(self.path, MASK_SUFFIXES)}
        if not self.files:
            raise RdejaxError(f"{self.path}: no masks (PNG files) in this folder")
        self._reader = MaskReader(255)

    def read(self, number: int) -> UInt8[np.ndarray, "h w"]:
        """The mask of a frame.

        Raises:
          RdejaxError: there is none, or see `MaskReader.read`.
        """
        name = self.source.names[number]
        if name not in self.files:
            raise RdejaxError(
                f"{self.path / name}.png: no such mask; choose frames that have one with --frames"
            )
        return self._reader.read(self.files[name], self.source.size)
