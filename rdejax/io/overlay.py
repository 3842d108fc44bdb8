"""Pictures for people: masks painted over frames, and an MP4 of them."""

from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import UInt8

from rdejax.errors import RdejaxError
from rdejax.io.palette import davis_palette
from rdejax.io.sound import Sound

# The unit of times in a video whose rate varies.
_TICK = Fraction(1, 90_000)
# The smallest side libx264 is given; smaller pictures are padded.
_SMALLEST = 16


def render_overlay(
    frame: UInt8[np.ndarray, "h w 3"], mask: UInt8[np.ndarray, "h w"], alpha: float = 0.5
) -> UInt8[np.ndarray, "h w 3"]:
    """Paints every object in its DAVIS colour, half transparent, with a light contour inside it.

    Args:
      frame: RGB.
      mask: ids, 0 is background, which is left untouched.
      alpha: opacity of the paint, 0 to 1.
    """
    palette = davis_palette()
    light = ((palette.astype(np.uint16) + 255) // 2).astype(np.uint8)
    objects = (mask > 0).astype(np.uint8)
    # A pixel is on the contour if any neighbour holds another id; as wide as shows at this size.
    width = 1 + 2 * max(1, round(min(mask.shape) / 480))
    kernel = np.ones((width, width), np.uint8)
    contour = objects * (cv2.dilate(mask, kernel) != cv2.erode(mask, kernel))
    # OpenCV's masked copies and table look-ups are ten times faster here than NumPy's.
    painted = frame.copy()
    cv2.copyTo(
        cv2.addWeighted(frame, 1 - alpha, _look_up(palette, mask), alpha, 0), objects, painted
    )
    cv2.copyTo(_look_up(light, mask), contour, painted)
    return painted


def _look_up(
    palette: UInt8[np.ndarray, "256 3"], mask: UInt8[np.ndarray, "h w"]
) -> UInt8[np.ndarray, "h w 3"]:
    return cv2.LUT(cv2.merge([mask, mask, mask]), palette[None])


class VideoWriter:
    """Writes RGB frames as an H.264 MP4 that any player shows.

    A context manager; leaving it finishes the file. Odd sizes are padded by repeating the last row
    or column, because the pixel format (yuv420p) needs even ones.
    """

    def __init__(
        self,
        path: str | Path,
        size: tuple[int, int],
        fps: Fraction | float,
        options: dict[str, str] | None = None,
        *,
        audio: Path | None = None,
    ):
        """Opens the file.

        Args:
          path: where to write; the suffix must be .mp4.
          size: (H, W) of the frames.
          fps: frames per second; nominal, where `write` is given times.
          options: of libx264, in place of or beside preset and crf.
          audio: a video whose sound is taken over as it is, from its first frame on.

        Raises:
          RdejaxError: this PyAV has no H.264 encoder.
        """
        import av
        from av.codec.codec import UnknownCodecError

        self.path = Path(path)
        self._size = size
        self._pad = tuple(max(side + side % 2, _SMALLEST) - side for side in size)
        self._container = av.open(str(path), "w")
        try:
            self._stream = self._container.add_stream(
                "libx264",
                rate=Fraction(fps).limit_denominator(60_000),
                options={"preset": "veryfast", "crf": "20", **(options or {})},
            )
        except UnknownCodecError:
            self._container.close()
            raise RdejaxError(
                f"{path}: this installation of PyAV cannot write H.264; pass --no-overlay or "
                "install the `av` package from PyPI"
            ) from None
        self._stream.height, self._stream.width = (
            side + pad for side, pad in zip(size, self._pad, strict=True)
        )
        self._stream.pix_fmt = "yuv420p"
        # The conversion from RGB uses BT.601; untagged, players guess BT.709 for large pictures.
        context = self._stream.codec_context
        context.colorspace = context.color_primaries = context.color_trc = 6
        context.color_range = 1
        self._rate = Fraction(fps)
        self._count = 0
        self._sound = Sound.of(audio, self._container) if audio is not None else None

    def write(self, frame: UInt8[np.ndarray, "h w 3"], time: Fraction | None = None) -> None:
        """Appends one frame.

        Args:
          frame: RGB.
          time: when it is shown, in seconds after the first; None: at the video's rate. Given for
            every frame or for none.

        Raises:
          ValueError: the frame has another size than the video.
          OSError: the disk is full.
        """
        import av

        if frame.shape[:2] != self._size:
            raise ValueError(f"frame of {frame.shape[:2]} in a video of {self._size}")
        down, right = self._pad
        if down or right:
            frame = cv2.copyMakeBorder(frame, 0, down, 0, right, cv2.BORDER_REPLICATE)
        picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")
        if time is not None:
            if not self._count:
                self._stream.codec_context.time_base = _TICK
            picture.pts, picture.time_base = round(time / _TICK), _TICK
        self._container.mux(self._stream.encode(picture))
        shown = self._count / self._rate if time is None else time
        self._count += 1
        if self._sound is not None:
            self._sound.copy(shown)

    def close(self) -> None:
        """Flushes the encoder and closes the file."""
        try:
            self._container.mux(self._stream.encode())
            if self._sound is not None:
                self._sound.copy(self._count / self._rate)
        finally:
            self._end()

    def _end(self) -> None:
        if self._sound is not None:
            self._sound.close()
        self._container.close()

    def __enter__(self) -> "VideoWriter":
        return self

    def __exit__(self, kind, value, trace) -> None:
        if kind is None:
            self.close()
        else:
            # The file is thrown away; a second error while closing would hide the first.
            try:
                self._end()
            except Exception:  # noqa: BLE001
                pass
