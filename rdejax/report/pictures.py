"""Frames with masks painted on, at the size in which the page shows them."""

from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import UInt8
from PIL import Image

from rdejax.errors import RdejaxError
from rdejax.io.overlay import render_overlay
from rdejax.io.video import Frame, open_frames, read_image
from rdejax.report.run import Video

# Background of masks whose frames are not at hand.
_GREY = 48
_VOID = 255


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
            yield paint(frame, read_labels(video.masks[name], video.merge), size)
    elif video.painted is not None:
        for _, frame in islice(open_frames(video.painted), count):
            yield _shrink(frame, size)
    else:
        for path in islice(video.masks.values(), count):
            yield paint(None, read_labels(path, video.merge), size)


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


def read_labels(path: Path, merge: bool) -> UInt8[np.ndarray, "h w"]:
    """Ids for painting: 0/255 masks become one object, else 255 is void and left out.

    Args:
      path: palette, greyscale, 1-bit or colour image; in the last every colour is one object.
      merge: all labels become object 1.

    Raises:
      RdejaxError: missing or unreadable.
    """
    try:
        with Image.open(path) as image:
            if image.mode not in ("P", "L", "1"):
                image, merge = image.convert("RGB").convert("L"), True
            labels = np.array(image, dtype=np.uint8)
    except (OSError, ValueError, SyntaxError) as error:
        raise _unreadable(path, error) from None
    if merge or not np.any((labels > 0) & (labels < _VOID)):
        return (labels > 0).astype(np.uint8)
    labels[labels == _VOID] = 0
    return labels


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
