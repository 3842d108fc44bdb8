"""Objects as pictures: a black and white PNG for each, or a video with the object alone."""

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Bool, UInt8
from PIL import Image

from rdejax.errors import RdejaxError
from rdejax.export.results import Result
from rdejax.io.video import FrameSource, open_frames

Codec = Literal["prores", "vp9"]
# Of each: FFmpeg's encoder, its pixel format, the file's suffix, options.
_CODECS = {
    "prores": ("prores_ks", "yuva444p10le", ".mov", {"profile": "4444", "alpha_bits": "16"}),
    "vp9": ("libvpx-vp9", "yuva420p", ".webm", {"crf": "24", "b": "0", "auto-alt-ref": "0"}),
}
_FPS = 24


def write_pngs(result: Result, folder: Path, objects: Sequence[int] | None) -> None:
    """Writes `folder/<object>/<frame>.png`, 255 where the object is and 0 elsewhere.

    Args:
      result: the masks.
      folder: to write to.
      objects: ids to take; None: all.
    """
    numbers = _wanted(result, objects)
    for number in numbers:
        (folder / str(number)).mkdir(parents=True, exist_ok=True)
    for name, mask in result.frames():
        for number in numbers:
            image = Image.fromarray(np.where(mask == number, np.uint8(255), np.uint8(0)))
            image.save(folder / str(number) / f"{name}.png", compress_level=3)


def write_alpha(
    result: Result, video: Path, folder: Path, objects: Sequence[int] | None, codec: Codec
) -> None:
    """Writes `folder/<object>.mov` (or .webm): the video, transparent but for the object.

    Args:
      result: the masks.
      video: the frames, a file or a folder.
      folder: to write to.
      objects: ids to take; None: all.
      codec: "prores" (4444, for editing) or "vp9" (WebM, for browsers).

    Raises:
      RdejaxError: a video that is not the masks', or this PyAV lacks the encoder.
    """
    source = open_frames(video, allow_damaged=True)
    if missing := set(result.masks) - set(source.names):
        raise RdejaxError(
            f"{video}: has no frame {min(missing)} of {result.folder}; give the video that the "
            "masks are of"
        )
    numbers = _wanted(result, objects)
    fps = Fraction(source.fps or _noted_fps(result)).limit_denominator(60_000)
    folder.mkdir(parents=True, exist_ok=True)
    writers = {
        number: AlphaWriter(folder / str(number), source.size, fps, codec) for number in numbers
    }
    try:
        frames = iter(source)
        for name, mask in result.frames():
            frame = _frame_called(name, frames, source)
            if mask.shape != source.size:
                raise RdejaxError(
                    f"{video}: is {source.size[1]}x{source.size[0]}, the masks in {result.folder} "
                    f"are {mask.shape[1]}x{mask.shape[0]}; give the video that they are of"
                )
            for number, writer in writers.items():
                writer.write(frame, mask == number)
        for writer in writers.values():
            writer.finish()
    finally:
        for writer in writers.values():
            writer.close()


class AlphaWriter:
    """Writes RGB frames with a matte as a video with an alpha channel."""

    def __init__(self, path: Path, size: tuple[int, int], fps: Fraction, codec: Codec):
        """Opens the file, whose suffix is the codec's.

        Raises:
          RdejaxError: this PyAV lacks the encoder.
        """
        import av
        from av.codec.codec import UnknownCodecError

        name, self._format, suffix, options = _CODECS[codec]
        # Chroma is halved in VP9's format, so it needs even sides.
        self._pad = tuple(side % 2 for side in size)
        self._container = av.open(f"{path}{suffix}", "w")
        try:
            # The names of the encoders tell what it is; the type checker cannot know.
            self._stream: Any = self._container.add_stream(name, rate=fps, options=options)
        except UnknownCodecError:
            self._container.close()
            raise RdejaxError(
                f"{path}{suffix}: this installation of PyAV has no {name}; take another --codec or "
                "install the `av` package from PyPI"
            ) from None
        self._stream.height, self._stream.width = (
            side + pad for side, pad in zip(size, self._pad, strict=True)
        )
        self._stream.pix_fmt = self._format

    def write(self, frame: UInt8[np.ndarray, "h w 3"], matte: Bool[np.ndarray, "h w"]) -> None:
        """Appends a frame that is opaque where `matte` is true; it keeps its colours elsewhere."""
        import av

        alpha = np.where(matte, np.uint8(255), np.uint8(0))[..., None]
        down, right = self._pad
        picture = np.pad(
            np.concatenate([frame, alpha], axis=-1), ((0, down), (0, right), (0, 0)), mode="edge"
        )
        rgba = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgba")
        self._container.mux(self._stream.encode(rgba.reformat(format=self._format)))

    def finish(self) -> None:
        """Writes what the encoder still holds."""
        self._container.mux(self._stream.encode())

    def close(self) -> None:
        """Closes the file."""
        self._container.close()


def _wanted(result: Result, objects: Sequence[int] | None) -> list[int]:
    there = result.objects()
    if objects is None:
        return there
    if strange := sorted(set(objects) - set(there)):
        raise RdejaxError(f"{result.folder}: has no object {strange[0]}; there are {there}")
    return sorted(set(objects))


def _noted_fps(result: Result) -> float:
    fps = result.summary.get("fps")
    return fps if isinstance(fps, int | float) and fps > 0 else _FPS


def _frame_called(name: str, frames, source: FrameSource) -> UInt8[np.ndarray, "h w 3"]:
    for found, frame in frames:
        if found == name:
            return frame
    raise RdejaxError(f"{source.path}: frame {name} could not be decoded; repair the video")
