"""What the frames of a video are, wherever they come from; and folders of images."""

import abc
import hashlib
from collections.abc import Generator, Iterator, Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageOps

from rdejax.errors import RdejaxError, first_line
from rdejax.io.datasets import FRAME_SUFFIXES, list_files
from rdejax.io.pictures import decoded

Frame = UInt8[np.ndarray, "h w 3"]


class FrameSource(abc.ABC):
    """Frames of one video, in order.

    Attributes:
      path: the file or folder, as given.
      names: one name per frame; the stems of the images, or 00000, 00001, ... for a video file. For
        a video file their number is what the file promises: iteration may end a little earlier
        where a container holds packets that show nothing, or in a damaged one that is allowed.
      size: (H, W) of every frame.
      fps: frames per second (their mean where it varies), or None where that is unknown.
      times: when each frame is shown, in seconds after the first, where the rate varies; else None.
    """

    path: Path
    names: Sequence[str]
    size: tuple[int, int]
    fps: Fraction | None
    times: Sequence[Fraction] | None = None

    @abc.abstractmethod
    def frames(self, start: int = 0) -> Generator[tuple[str, Frame], None, None]:
        """Yields (name, frame) from frame number `start` on, decoding lazily.

        Raises:
          RdejaxError: a frame is unreadable or its size differs from the first one's.
        """

    @abc.abstractmethod
    def fingerprint(self) -> dict[str, object]:
        """What tells this source from a changed one, cheaply; for resuming."""

    def __iter__(self) -> Iterator[tuple[str, Frame]]:
        return self.frames()

    def __len__(self) -> int:
        return len(self.names)


class FolderFrames(FrameSource):
    """A folder of images, one per frame, in natural order of their names (2 before 10)."""

    def __init__(self, path: str | Path, files: Sequence[Path] | None = None):
        """Lists the images and reads the first one for the size.

        Args:
          path: the folder.
          files: the images, where they are known already; None lists the folder.

        Raises:
          RdejaxError: no images, two images of one name, or an unreadable first image.
        """
        self.path = Path(path)
        self.files = list(files) if files is not None else list_files(self.path, FRAME_SUFFIXES)
        if not self.files:
            raise RdejaxError(
                f"{path}: no images in this folder; frames must be {', '.join(FRAME_SUFFIXES)}"
            )
        self.names = [file.stem for file in self.files]
        seen: dict[str, Path] = {}
        for file in self.files:
            other = seen.setdefault(file.stem, file)
            if other != file:
                raise RdejaxError(
                    f"{file}: a frame of the same name exists ({other.name}), so their masks would "
                    "overwrite each other; keep one of the two"
                )
        self.fps = None
        height, width = read_image(self.files[0]).shape[:2]
        self.size = (height, width)

    def frames(self, start: int = 0) -> Generator[tuple[str, Frame], None, None]:
        """See `FrameSource.frames`."""
        for name, file in zip(self.names[start:], self.files[start:], strict=True):
            frame = read_image(file)
            if frame.shape[:2] != self.size:
                raise RdejaxError(
                    f"{file}: the frame is {size_text(frame.shape[:2])} but the first one "
                    f"({self.files[0].name}) is {size_text(self.size)}; all frames of a video "
                    "must have one size"
                )
            yield name, frame

    def fingerprint(self) -> dict[str, object]:
        """See `FrameSource.fingerprint`."""
        return {"name": self.path.name, **fingerprint_files(self.files)}


def fingerprint_files(files: Sequence[Path]) -> dict[str, object]:
    """What tells these images from changed ones, cheaply: names, sizes, times."""
    digest = hashlib.sha256()
    for file in files:
        status = file.stat()
        line = f"{file.name} {status.st_size} {status.st_mtime_ns}\n"
        digest.update(line.encode("utf-8", "surrogateescape"))
    return {"frames": len(files), "digest": digest.hexdigest()[:16]}


def read_image(path: str | Path) -> Frame:
    """Reads one image as uint8 [H, W, 3] RGB.

    Greyscale and palette images are expanded, alpha is dropped, 16-bit grey is scaled to 8 bits and
    an EXIF orientation is applied.

    Raises:
      RdejaxError: missing, truncated or no image.
    """
    try:
        image = decoded(path)
        if image.mode.startswith("I"):
            grey = np.asarray(image).astype(np.int64)
            image = Image.fromarray((np.clip(grey, 0, 65535) // 257).astype(np.uint8))
        return np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
    except FileNotFoundError:
        raise RdejaxError(f"{path}: no such file") from None
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        # Pillow reports broken files by all of these (SyntaxError: a broken PNG).
        raise RdejaxError(
            f"{path}: unreadable or truncated image ({first_line(error)}); write the file again"
        ) from None


def size_text(size: tuple[int, ...]) -> str:
    """Size (H, W) as people write it."""
    return f"{size[1]}x{size[0]}"
