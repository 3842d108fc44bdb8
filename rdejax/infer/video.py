"""One video through one stream into files, with decoding and writing beside the compute."""

import contextlib
import dataclasses
import itertools
import time
from collections.abc import Callable, Iterator, Mapping
from fractions import Fraction
from pathlib import Path
from types import MappingProxyType
from typing import Any, Protocol

import numpy as np
from jaxtyping import UInt8

from rdejax.errors import RdejaxError
from rdejax.infer.results import Progress, ResultFolder
from rdejax.infer.timing import CompileClock
from rdejax.io.given import GivenMasks
from rdejax.io.masks import AS_WRITTEN, IdMask, read_mask, write_mask
from rdejax.io.overlay import VideoWriter, render_overlay
from rdejax.io.threads import AsyncWriter, Prefetcher, chunked, with_last
from rdejax.io.video import Frame, FrameSource

DEFAULT_FPS = 24
_CHECKPOINT_SECONDS = 30.0

OnFrames = Callable[[int], object]


class Results(Protocol):
    """What is needed of `rdejax.propagate.pending.Pending`."""

    def masks(self) -> UInt8[np.ndarray, "n h w"]:
        """The masks; waits for them."""
        ...


class Segmenter(Protocol):
    """What is needed of `rdejax.stream(model)`."""

    def submit(
        self,
        frames: UInt8[np.ndarray, "n h w 3"],
        masks: Mapping[int, IdMask] | None = None,
        beside: Mapping[str, np.ndarray] | None = None,
        *,
        last: bool = False,
    ) -> Results:
        """Segments the next frames, without waiting for them; behind the last none follow."""
        ...

    @property
    def objects(self) -> list[int]:
        """Ids that have appeared."""
        ...

    def save(self, path: str | Path) -> object:
        """Writes the state; there must be an object."""
        ...

    def restore(self, path: str | Path) -> object:
        """Reads the state."""
        ...


@dataclasses.dataclass(frozen=True)
class Written:
    """A finished mask on its way to the disk."""

    name: str
    frame: Frame
    mask: IdMask


def run_stream(
    stream: Segmenter,
    frames: Iterator[tuple[str, Frame]],
    given: Mapping[int, IdMask],
    write: Callable[[Written], object],
    *,
    beside: Mapping[str, np.ndarray] = MappingProxyType({}),
    chunk: int,
    start: int = 0,
    on_frames: OnFrames = lambda done: None,
    resume_point: OnFrames | None = None,
    due: Callable[[], bool] = lambda: False,
    where: str | Path = "the video",
) -> int:
    """Pushes frames through a stream, chunk by chunk.

    The next chunk is on its way to the device before the last one's masks are fetched.

    Args:
      stream: what segments.
      frames: (name, frame) from frame number `start` on; consumed in a thread.
      given: frame number -> mask.
      write: takes every result, in order, on this thread.
      beside: what the model takes for each frame beside its picture: arrays [T, ...] by name.
      chunk: frames per call of the stream; the first call gets frame 0 alone, because blocks of
        frames that share a memory begin after it, and because its mask need not wait for the
        program of the others. A multiple of `every` cuts no block in two.
      start: number of the first frame.
      on_frames: called with the number of frames done after each chunk.
      resume_point: called with the number of frames done when it is due: then all that was pushed
        is written, and the stream's state is that after these frames.
      due: whether it is time for a resume point.
      where: the video's name, for error messages.

    Returns:
      Number of frames of the whole video.

    Raises:
      RdejaxError: a given mask lies behind the last frame; what `frames` raises.
    """
    done = written = start
    underway: tuple[list[tuple[str, Frame]], Results] | None = None

    def finish() -> None:
        nonlocal underway, written
        if underway is not None:
            group, results = underway
            underway = None
            for (name, frame), mask in zip(group, np.asarray(results.masks()), strict=True):
                write(Written(name, frame, mask))
            written += len(group)
            on_frames(written)

    # Two chunks ahead, of which one may be looked at already: is it there, no frame is the last.
    with Prefetcher(frames, depth=2 * chunk) as decoded:
        for group, last in with_last(chunked(decoded, chunk, first=None if start else 1)):
            masks = {i - done: given[i] for i in given if done <= i < done + len(group)}
            also = {name: x[done : done + len(group)] for name, x in beside.items()}
            frames_now = np.stack([frame for _, frame in group])
            results = stream.submit(frames_now, masks or None, also or None, last=last)
            finish()
            underway = group, results
            if not done:
                finish()
            done += len(group)
            if resume_point is not None and due():
                finish()
                resume_point(done)
        finish()
    late = [index for index in given if index >= done]
    if late:
        raise RdejaxError(
            f"{where}: a mask is given for frame {min(late)}, but only {done} frames could be "
            "decoded; remove that mask or repair the video"
        )
    return done


class ResultWriter:
    """Writes masks and, if asked, the overlay, in threads; a context manager."""

    def __init__(
        self,
        folder: ResultFolder,
        source: FrameSource,
        overlay_fps: Fraction | None,
        *,
        as_shown: bool = True,
    ):
        """Opens the overlay.

        Args:
          folder: where to write.
          source: the frames.
          overlay_fps: frame rate of the overlay; None writes none.
          as_shown: the overlay has the times and the sound of the source, if that has any.
        """
        self._folder = folder
        self._stack = contextlib.ExitStack()
        self._masks: AsyncWriter[Written] = AsyncWriter(self._write_mask, 32, workers=2)
        self._times = dict(zip(source.names, source.times or (), strict=False)) if as_shown else {}
        self._video = None
        if overlay_fps:
            audio = source.path if as_shown and source.path.is_file() else None
            self._video = VideoWriter(folder.overlay, source.size, overlay_fps, audio=audio)
        self._painter: AsyncWriter[Written] | None = None

    def __enter__(self) -> "ResultWriter":
        # Left in reverse order: the overlay file is closed after its thread has ended.
        if self._video is not None:
            self._stack.enter_context(self._video)
            self._painter = self._stack.enter_context(AsyncWriter(self._paint, 32))
        self._stack.enter_context(self._masks)
        return self

    def __exit__(self, kind, value, trace) -> bool | None:
        return self._stack.__exit__(kind, value, trace)

    def write(self, item: Written) -> None:
        """Queues one result."""
        self._masks.put(item)
        if self._painter is not None:
            self._painter.put(item)

    def begin(self, source: FrameSource, done: int) -> Iterator[tuple[str, Frame]]:
        """The frames from number `done` on.

        The overlay of a continued run is painted again from the masks that are there.
        """
        if self._painter is None:
            return source.frames(done)
        frames = source.frames()
        for name, frame in itertools.islice(frames, done):
            mask = read_mask(self._folder.masks / f"{name}.png", AS_WRITTEN)
            self._painter.put(Written(name, frame, mask))
        return frames

    def flush_masks(self) -> None:
        """Waits until all masks are on the disk."""
        self._masks.flush()

    def _write_mask(self, item: Written) -> None:
        write_mask(self._folder.masks / f"{item.name}.png", item.mask)

    def _paint(self, item: Written) -> None:
        assert self._video is not None
        picture = render_overlay(item.frame, item.mask)
        if self._times:
            self._video.write(picture, self._times[item.name])
        else:
            self._video.write(picture)


class ResumePoints:
    """Saves masks and stream state now and then, so that a killed run can go on."""

    def __init__(self, folder: ResultFolder, clock: CompileClock, seconds: float):
        """Starts counting time.

        Args:
          folder: whose progress is recorded; what it says now came before this run.
          clock: compilation time of this run.
          seconds: least time between two saves; 0 saves after every chunk.
        """
        self._folder = folder
        self._clock = clock
        self._before = folder.progress
        self._begun = time.perf_counter()
        self._wait = seconds
        self._next = self._begun + seconds

    def progress(self, done: int) -> Progress:
        """Time and compilations so far, with those of earlier runs."""
        return Progress(
            frames=done,
            seconds=self._before.seconds + time.perf_counter() - self._begun,
            compile_seconds=self._before.compile_seconds + self._clock.seconds,
            compilations=self._before.compilations + self._clock.count,
        )

    def due(self, stream: Segmenter) -> bool:
        """Whether it is time to save; before the first mask there is no state, nothing to lose."""
        return time.perf_counter() >= self._next and bool(stream.objects)

    def save(self, done: int, stream: Segmenter, writer: ResultWriter) -> None:
        """Saves, when all masks of these frames were given to the writer."""
        begun = time.perf_counter()
        writer.flush_masks()
        self._folder.checkpoint(self.progress(done), stream.save)
        ended = time.perf_counter()
        # A large state on a slow disk is saved less often: at most a tenth of the time.
        self._next = ended + (max(self._wait, 9 * (ended - begun)) if self._wait else 0.0)


def segment_to_folder(
    make_stream: Callable[[], Segmenter],
    source: FrameSource,
    given: GivenMasks,
    folder: ResultFolder,
    *,
    beside: Mapping[str, np.ndarray] = MappingProxyType({}),
    chunk: int,
    overlay: bool = True,
    fps: float | Fraction | None = None,
    on_frames: OnFrames = lambda done: None,
    on_start: OnFrames = lambda done: None,
    join: Callable[[str, IdMask], IdMask] = lambda name, mask: mask,
    checkpoint_seconds: float = _CHECKPOINT_SECONDS,
) -> dict[str, Any]:
    """Segments one video into its result folder, continuing an unfinished run.

    Args:
      make_stream: makes a new stream.
      source: the video.
      given: its masks.
      folder: where results go; its `progress` says where to start.
      beside: see `run_stream`.
      chunk: frames per call of the stream.
      overlay: write overlay.mp4 too.
      fps: of the overlay; None takes the source's, or 24.
      on_frames: told the number of frames done.
      on_start: told the number of the frame that the run begins with.
      join: what is written of a frame's mask, by the frame's name.
      checkpoint_seconds: least time between two saves of the stream's state; 0 saves always.

    Returns:
      Facts for the summary, see `facts`.
    """
    stream = _restore(make_stream, folder)
    start = folder.progress.frames
    on_start(start)
    rate = Fraction(fps or source.fps or DEFAULT_FPS) if overlay else None
    with CompileClock() as clock:
        checkpoints = ResumePoints(folder, clock, checkpoint_seconds)
        with ResultWriter(folder, source, rate, as_shown=fps in (None, source.fps)) as writer:

            def write(item: Written) -> None:
                writer.write(dataclasses.replace(item, mask=join(item.name, item.mask)))

            count = run_stream(
                stream,
                writer.begin(source, start),
                given.masks,
                write,
                beside=beside,
                chunk=chunk,
                start=start,
                on_frames=on_frames,
                resume_point=lambda done: checkpoints.save(done, stream, writer),
                due=lambda: checkpoints.due(stream),
                where=source.path,
            )
        return facts(checkpoints.progress(count))


def facts(progress: Progress) -> dict[str, Any]:
    """Timing for a summary; the rate leaves compilation out."""
    steady = max(progress.seconds - progress.compile_seconds, 1e-9)
    return {
        "frames": progress.frames,
        "seconds": round(progress.seconds, 3),
        "compile_seconds": round(progress.compile_seconds, 3),
        "compilations": progress.compilations,
        "frames_per_second": round(progress.frames / steady, 3),
    }


def _restore(make_stream: Callable[[], Segmenter], folder: ResultFolder) -> Segmenter:
    stream = make_stream()
    if folder.progress.state is None:
        return stream
    try:
        stream.restore(folder.progress.state)
    except RdejaxError:
        # The saved state does not fit any more: start again rather than stop.
        folder.progress = Progress()
        return make_stream()
    return stream
