"""The sound of a video, taken over into another file packet by packet, without decoding it."""

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

# What an MP4 file may hold and players play.
_IN_MP4 = ("aac", "mp3", "ac3", "eac3", "opus", "flac", "alac")


class Sound:
    """The first audio stream of a file, on its way into a container."""

    def __init__(self, source: Any, target: Any):
        """Declares the stream in `target`, before anything is written there.

        Args:
          source: an open PyAV container with audio and video.
          target: one that is being written.
        """
        self._source, self._target = source, target
        audio = source.streams.audio[0]
        self._stream = target.add_stream_from_template(audio)
        video = source.streams.video[0]
        self._begin = (video.start_time or 0) * (video.time_base or Fraction(0))
        self._packets = self._read(audio)
        self._waiting: Any = None

    @staticmethod
    def of(path: Path, target: Any) -> "Sound | None":
        """That of a file; None if it has none that an MP4 can hold."""
        import av
        from av.error import FFmpegError

        try:
            source = av.open(str(path), metadata_errors="replace")
        except (FFmpegError, OSError):  # a folder of images
            return None
        audio = source.streams.audio
        if not audio or not source.streams.video or audio[0].codec_context.name not in _IN_MP4:
            source.close()
            return None
        return Sound(source, target)

    def copy(self, until: Fraction) -> None:
        """Takes over what is heard up to `until`, in seconds after the first frame."""
        while True:
            packet = self._waiting or next(self._packets, None)
            self._waiting = packet
            if packet is None or packet.pts * packet.time_base > until:
                return
            self._waiting = None
            packet.stream = self._stream
            self._target.mux(packet)

    def close(self) -> None:
        """Closes the file it comes from."""
        self._source.close()

    def _read(self, audio: Any) -> Iterator[Any]:
        """Packets that are heard with a frame, their times counted from the first frame."""
        from av.error import FFmpegError

        try:
            for packet in self._source.demux(audio):
                if packet.pts is None or packet.dts is None:
                    continue
                shift = round(self._begin / packet.time_base)
                packet.pts, packet.dts = packet.pts - shift, packet.dts - shift
                if packet.pts >= 0:
                    yield packet
        except FFmpegError:  # of a damaged file: the sound ends there
            return
