"""Frames in: one interface over video files and folders of images.

source = open_frames("clip.mp4")          # or a folder of images
for name, frame in source: ...            # uint8 [H, W, 3] RGB, decoded one by one
"""

from pathlib import Path

from rdejax.errors import RdejaxError
from rdejax.io.datasets import FRAME_SUFFIXES
from rdejax.io.frames import FolderFrames, Frame, FrameSource, fingerprint_files, read_image
from rdejax.io.video_file import VideoFrames

__all__ = [
    "FolderFrames",
    "Frame",
    "FrameSource",
    "VideoFrames",
    "fingerprint_files",
    "open_frames",
    "read_image",
]


def open_frames(path: str | Path, *, allow_damaged: bool = False) -> FrameSource:
    """Opens a video file or a folder of images.

    Args:
      path: a folder of images (one per frame) or a video file.
      allow_damaged: for a damaged video file, take what can be decoded.

    Raises:
      RdejaxError: missing, unreadable, empty or truncated.
    """
    path = Path(path)
    if path.is_dir():
        return FolderFrames(path)
    if not path.exists():
        raise RdejaxError(f"{path}: no such file or folder; give a video or a folder of frames")
    if path.suffix.lower() in FRAME_SUFFIXES:
        raise RdejaxError(
            f"{path}: this is a single image; give a video file or the folder that holds the frames"
        )
    return VideoFrames(path, allow_damaged=allow_damaged)
