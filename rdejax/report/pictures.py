"""Frames with masks painted on, at the size in which the page shows them."""

from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import UInt8
from PIL import Image

from rdejax.errors import RdejaxError
from rdejax.io.masks import read_mask
from rdejax.io.overlay import render_overlay
from rdejax.io.video import Frame, open_frames, read_image
from rdejax.report.run import Video

# Background of masks whose frames are not at hand.
_GREY = 48


def paintings(video: Video, side: int, count: int) -> Iterator[Frame]:
    """The first `count` frames of a video with its result.

    Args:
      video: whose frames; without them the overlay of the run, without that the masks alone.
      side: longest side of the pictures in pixels; smaller ones are not enlarged.
      count: at most so many.

    Yields:
      uint8 [h, w, 3] RGB, all of one size.

    Raises:
      RdejaxError: an unreadable frame or mask.
    """
    size = fit(mask_size(video), side)
    if video.source is not None:
        named = ((name, frame) for name, frame in video.source() if name in video.masks)
        for name, frame in islice(named, count):
            yield paint(frame, read_mask(video.masks[name], video.rules), size)
    elif video.painted is not None:
        for _, frame in islice(open_frames(video.painted), count):
            yield _shrink(frame, size)
    else:
        for path in islice(video.masks.values(), count):
            yield paint(None, read_mask(path, video.rules), size)


def chosen_frames(video: Video, names: list[str]) -> dict[str, Frame]:
    """Some frames of a video, as they are; painted ones where only the overlay is there.

    Returns:
      name -> uint8 [H, W, 3]; empty if there is neither.
    """
    if video.source is not None:
        source = video.source()
        files = getattr(source, "files", None)
        if files is not None:
            # Separate files can be read alone; a video has to be decoded from its beginning.
            known = dict(zip(source.names, files, strict=True))
            return {name: read_image(known[name]) for name in names}
        named: Iterator[tuple[str, Frame]] = iter(source)
    elif video.painted is not None:
        named = zip(video.masks, (frame for _, frame in open_frames(video.painted)), strict=False)
    else:
        return {}
    wanted, found = set(names), {}
    for name, frame in named:
        if name in wanted:
            found[name] = frame
            if len(found) == len(wanted):
                break
    return found


def paint(
    frame: Frame | None, labels: UInt8[np.ndarray, "h w"], size: tuple[int, int]
) -> UInt8[np.ndarray, "y x 3"]:
    """A frame (or grey) with its objects in their colours, both shrunk to `size` (H, W) first."""
    height, width = size
    if frame is None:
        small = np.full((height, width, 3), _GREY, np.uint8)
    else:
        small = _shrink(frame, size)
    ids = cv2.resize(labels, (width, height), interpolation=cv2.INTER_NEAREST)
    return render_overlay(small, ids)


def fit(size: tuple[int, int], side: int) -> tuple[int, int]:
    """(H, W) shrunk until the longer side is at most `side`."""
    factor = min(1.0, side / max(size))
    return max(1, round(size[0] * factor)), max(1, round(size[1] * factor))


def mask_size(video: Video) -> tuple[int, int]:
    """(H, W) of a video's first mask."""
    path = next(iter(video.masks.values()))
    try:
        with Image.open(path) as image:
            return image.height, image.width
    except (OSError, ValueError, SyntaxError) as error:
        raise _unreadable(path, error) from None


def jpeg(picture: UInt8[np.ndarray, "h w 3"], quality: int = 78) -> bytes:
    """RGB as a JPEG file."""
    done, content = cv2.imencode(".jpg", picture[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])
    assert done
    return content.tobytes()


def _shrink(frame: Frame, size: tuple[int, int]) -> Frame:
    if frame.shape[:2] == size:
        return frame
    return cv2.resize(frame, size[::-1], interpolation=cv2.INTER_AREA)


def _unreadable(path: Path, error: Exception) -> RdejaxError:
    return RdejaxError(f"{path}: not a readable mask ({error}); run infer.py again on this video")
