"""Video files, decoded by PyAV, and how a cut-off one is told from a whole one.

Decoded from front to back and never seeked, because seeking and frame counts are unreliable in
several containers. Rotation stored in the file is applied once, here.
"""

import contextlib
import dataclasses
from collections.abc import Generator
from fractions import Fraction
from pathlib import Path

import numpy as np

from rdejax.errors import RdejaxError
from rdejax.io.frames import Frame, FrameSource, size_text


@dataclasses.dataclass
class _Packets:
    """What a video file holds, against what its header says.

    Attributes:
      count: packets (compressed frames).
      shown: those not marked as left out by an edit list.
      corrupt: a packet is cut short.
      seconds: time they cover.
      promised: packets by the header; 0 if it does not say.
      promised_seconds: time by the header, or None.
      edited: the container may have an edit list (MP4, MOV).
      broadcast: a transport stream, which may begin anywhere.
    """

    count: int = 0
    shown: int = 0
    corrupt: bool = False
    seconds: float = 0.0
    promised: int = 0
    promised_seconds: float | None = None
    edited: bool = False
    broadcast: bool = False


class VideoFrames(FrameSource):
    """A video file, decoded by PyAV."""

    def __init__(self, path: str | Path, *, allow_damaged: bool = False):
        """Reads through the file once without decoding, to count frames and find a cut-off end.

        Args:
          path: the file.
          allow_damaged: take what can be decoded of a damaged file instead of raising.

        Raises:
          RdejaxError: not a readable video, no video stream, a truncated file, or one whose first
            frame is damaged.
        """
        self.path = Path(path)
        self._allow_damaged = allow_damaged
        self._found = self._scan()
        if not allow_damaged:
            self._refuse_truncated(self._found)
        expected = max(self._found.shown, 1)
        width = max(5, len(str(expected - 1)))
        self.names = [f"{index:0{width}d}" for index in range(expected)]
        with contextlib.closing(self.frames()) as frames:
            _, first = next(frames)
        self.size = (first.shape[0], first.shape[1])

    def frames(self, start: int = 0) -> Generator[tuple[str, Frame], None, None]:
        """See `FrameSource.frames`. Frames before `start` are decoded too, but not converted."""
        width = len(self.names[0])
        size = None
        count = 0
        clean = not self._found.broadcast
        for picture in self._decode():
            rotation = round(picture.rotation / 90) % 4
            now = (picture.height, picture.width)
            now = now[::-1] if rotation % 2 else now
            size = size or now
            name = f"{count:0{width}d}"
            if now != size:
                raise RdejaxError(
                    f"{self.path}: frame {name} is {size_text(now)} but the first one is "
                    f"{size_text(size)}; re-encode the video to one size"
                )
            # A broadcast may be cut between key frames: before its first one pictures may be
            # incomplete. Elsewhere it means lost data, of which Matroska says nothing else.
            if picture.is_corrupt and clean and not self._allow_damaged:
                raise self._truncated(f"frame {name} is incomplete")
            clean = clean or not picture.is_corrupt
            count += 1
            if count > start:
                array = picture.to_ndarray(format="rgb24")
                # frame.rotation counts counter-clockwise, as np.rot90 does.
                yield name, np.ascontiguousarray(np.rot90(array, rotation)) if rotation else array
        if not count:
            raise RdejaxError(
                f"{self.path}: no frame could be decoded; the video is damaged, or its kind is "
                "unknown here"
            )
        # Other containers hold packets that show nothing, and do not say how many.
        if count < len(self.names) and self._found.edited and not self._allow_damaged:
            raise self._truncated(f"only {count} of {len(self.names)} frames could be decoded")

    def fingerprint(self) -> dict[str, object]:
        """See `FrameSource.fingerprint`."""
        status = self.path.stat()
        return {
            "name": self.path.name,
            "frames": len(self),
            "bytes": status.st_size,
            "modified": status.st_mtime_ns,
        }

    def _decode(self):
        """Yields decoded PyAV frames; errors become sentences."""
        from av.error import EOFError as EndOfFile
        from av.error import FFmpegError

        count = 0
        with _open_container(self.path) as container:
            stream = container.streams.video[0]
            stream.thread_type = "AUTO"
            packets = container.demux(stream)
            while True:
                try:
                    packet = next(packets)
                    # A packet cut short would take the frames before it along when decoded.
                    damaged = packet.is_corrupt and self._allow_damaged
                    pictures = [] if damaged else packet.decode()
                except (StopIteration, EndOfFile):
                    return
                except FFmpegError as error:
                    # Recordings cut out of a broadcast start between key frames: skip to the first.
                    cut = self._found.broadcast and count == 0 and not isinstance(error, OSError)
                    if self._allow_damaged or cut:
                        continue
                    where = f"after frame {count - 1}" if count else "at the first frame"
                    what = f"decoding failed {where} ({error.strerror})"
                    raise self._truncated(what) from None
                for picture in pictures:
                    count += 1
                    yield picture

    def _scan(self) -> "_Packets":
        """Reads all packets, without decoding, and sets `fps`."""
        from av.error import FFmpegError

        found = _Packets()
        shown: list[int] = []
        first = last = 0
        with _open_container(self.path) as container:
            stream = container.streams.video[0]
            self.fps = stream.average_rate or stream.guessed_rate or None
            try:
                for packet in container.demux(stream):
                    if not packet.size:
                        continue
                    found.count += 1
                    found.shown += not packet.is_discard
                    found.corrupt |= packet.is_corrupt
                    if packet.pts is not None and not packet.is_discard:
                        shown.append(packet.pts)
                        first = min(first, packet.pts)
                        last = max(last, packet.pts + (packet.duration or 0))
            except FFmpegError as error:
                if not self._allow_damaged:
                    what = f"reading failed after {found.count} frames ({error.strerror})"
                    raise self._truncated(what) from None
            self.times = _varying(shown, found.shown, stream.time_base)
            found.promised = stream.frames
            found.seconds = float((last - first) * (stream.time_base or 0))
            found.promised_seconds = _promised_seconds(container, stream)
            found.edited = _is_mov(container)
            found.broadcast = container.format.name == "mpegts"
        if not found.count:
            raise RdejaxError(f"{self.path}: the video stream is empty; check the file")
        return found

    def _refuse_truncated(self, found: "_Packets") -> None:
        """Compares what was read with what the header promises."""
        promised = found.promised_seconds
        tolerance = (0.5 if found.edited else 1.5) / float(self.fps or 1)
        short = promised is not None and found.seconds < promised - tolerance
        # An edit list (a clip trimmed on a telephone) leaves frames out, but not time.
        if found.count < found.promised and (short or not found.edited):
            raise self._truncated(f"it ends after {found.count} of {found.promised} frames")
        if found.corrupt:
            raise self._truncated(f"one of its {found.count} frames is incomplete")
        if short and not found.edited:
            raise self._truncated(f"it ends after {found.seconds:.2f} of {promised:.2f} seconds")

    def _truncated(self, what: str) -> RdejaxError:
        return RdejaxError(
            f"{self.path}: the video is truncated or damaged, {what}; copy or record it again, or "
            "pass --allow-damaged to segment the part that can be read"
        )


def _open_container(path: Path):
    import av
    from av.error import FFmpegError

    try:
        # Titles and the like in it may be in any encoding.
        container = av.open(str(path), metadata_errors="replace")
    except FFmpegError as error:
        if _is_mp4(path):
            raise RdejaxError(
                f"{path}: the video is truncated or damaged, its index (moov) is missing; copy or "
                "record it again"
            ) from None
        raise RdejaxError(
            f"{path}: not a readable video ({error.strerror or error}); check that it plays"
        ) from None
    if not container.streams.video:
        container.close()
        raise RdejaxError(f"{path}: there is no video stream in this file; give a video")
    return container


def _varying(shown: list[int], count: int, unit: Fraction | None) -> list[Fraction] | None:
    """Times of frames after the first one, where their distances differ by more than rounding."""
    if unit is None or len(shown) != count or count < 3:
        return None
    shown = sorted(shown)
    steps = [after - before for before, after in zip(shown, shown[1:], strict=False)]
    # Several containers count in milliseconds, of which no usual rate is a multiple.
    rounding = max(unit, Fraction(2, 1000), min(steps) * unit / 50)
    if (max(steps) - min(steps)) * unit <= rounding or min(steps) < 1:
        return None
    return [(time - shown[0]) * unit for time in shown]


def _is_mov(container) -> bool:
    return "mov" in container.format.name.split(",")


def _is_mp4(path: Path) -> bool:
    """Whether a file begins as MP4 and MOV files do, which keep their index at the end."""
    with contextlib.suppress(OSError), path.open("rb") as file:
        return file.read(8)[4:] == b"ftyp"
    return False


def _promised_seconds(container, stream) -> float | None:
    """Length of the video stream as its header states it, or None where it does not.

    The container's own duration counts only when no other stream (often longer) is inside. MPEG-TS
    has no header: its duration is estimated from the end of the file and promises nothing.
    """
    if _is_mov(container):
        return float(stream.duration * stream.time_base) if stream.duration else None
    text = stream.metadata.get("DURATION", "")
    parts = text.split(":")
    if len(parts) == 3:
        try:
            return float(parts[0]) * 3600 + float(parts[1]) * 60 + float(parts[2])
        except ValueError:
            return None
    if "matroska" in container.format.name and len(container.streams) == 1 and container.duration:
        return container.duration / 1_000_000
    return None
