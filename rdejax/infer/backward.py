"""The pass of a video from its masks back to its first frame, and how it joins the one forward.

It is written to `OUT/unfinished/backward` as a result folder of its own, so that it is continued
and known to be whole as others are, and goes with the unfinished folder.
"""

import dataclasses
import itertools
from collections.abc import Callable, Generator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from rdejax.errors import RdejaxError
from rdejax.infer.results import ResultFolder
from rdejax.infer.video import OnFrames, Segmenter, segment_to_folder
from rdejax.io.given import GivenMasks
from rdejax.io.masks import AS_WRITTEN, IdMask, read_mask
from rdejax.io.video import Frame, FrameSource

# Frames are held in memory up to so many bytes, and decoded again from the front for the next ones.
_BYTES = 256 << 20


class BackwardFrames(FrameSource):
    """The frames of a video from one of them back to the first.

    Files are still decoded from front to back only, once for every few hundred frames.
    """

    def __init__(self, source: FrameSource, last: int):
        """Begins with frame number `last` of the source."""
        self.path, self.size, self.fps = source.path, source.size, source.fps
        self.names = list(source.names[last::-1])
        self._source, self._last = source, last
        height, width = source.size
        self._held = max(1, _BYTES // (height * width * 3))

    def frames(self, start: int = 0) -> Generator[tuple[str, Frame], None, None]:
        """See `FrameSource.frames`.

        Raises:
          RdejaxError: also where the video ends before the frame it begins with.
        """
        end = self._last + 1 - start
        while end > 0:
            begin = max(0, end - self._held)
            some = list(itertools.islice(self._source.frames(begin), end - begin))
            if len(some) < end - begin:
                raise RdejaxError(
                    f"{self.path}: a mask is given for frame {self._last}, but only "
                    f"{begin + len(some)} frames could be decoded; remove that mask or repair the "
                    "video"
                )
            while some:
                yield some.pop()
            end = begin

    def fingerprint(self) -> dict[str, object]:
        """See `FrameSource.fingerprint`."""
        return {**self._source.fingerprint(), "last": self._last}


class NothingForward:
    """A `Segmenter` that finds no object, for the frames behind a backward pass."""

    objects: list[int] = []

    def submit(
        self, frames: Any, masks: Any = None, beside: Any = None, *, last: bool = False
    ) -> Any:
        """Empty masks."""
        empty = np.zeros(frames.shape[:3], np.uint8)
        return SimpleNamespace(masks=lambda: empty)

    def save(self, path: str | Path) -> object:
        """Never called: there is no object."""
        raise NotImplementedError

    def restore(self, path: str | Path) -> object:
        """Never called: there is no state."""
        raise NotImplementedError


@dataclasses.dataclass(frozen=True)
class Backward:
    """What a backward pass starts from.

    Attributes:
      last: frame that it begins with.
      masks: frame number -> ids that begin there, or are corrected.
    """

    last: int
    masks: dict[int, IdMask]

    @staticmethod
    def of(given: GivenMasks, both: bool) -> "Backward":
        """That of a video's masks.

        Args:
          given: the masks.
          both: the pass forward is joined to it: then objects go back from their first masks.
        """
        if not both:
            return Backward(max(given.masks), dict(given.masks))
        masks = {}
        for frame in sorted(set(given.objects.values())):
            ids = [number for number, at in given.objects.items() if at == frame]
            masks[frame] = np.where(np.isin(given.masks[frame], ids), given.masks[frame], 0)
        return Backward(max(masks), masks)

    def reversed_masks(self) -> dict[int, IdMask]:
        """The masks by their place in the pass."""
        return {self.last - frame: mask for frame, mask in self.masks.items()}


def segment_backward(
    make_stream: Callable[[dict[int, IdMask]], Segmenter],
    source: FrameSource,
    backward: Backward,
    folder: ResultFolder,
    *,
    beside: Mapping[str, np.ndarray],
    chunk: int,
    on_frames: OnFrames,
    on_start: OnFrames,
) -> tuple[dict[str, Any], Callable[[str, IdMask], IdMask]]:
    """Segments from the masks back to the first frame, continuing an unfinished run.

    Args:
      make_stream: makes a stream for masks by their place in the pass.
      source: the video.
      backward: where to begin.
      folder: of the whole result.
      beside: see `run_stream`; in the video's order.
      chunk: frames per call of the stream.
      on_frames: told the number of frames done.
      on_start: told the number of frames done before.

    Returns:
      Facts, see `rdejax.infer.video.facts`; and what joins a frame's mask of the other pass, by the
      frame's name, to this one's: where both see an object, the other pass does.
    """
    frames, masks = BackwardFrames(source, backward.last), backward.reversed_masks()
    inner = folder.inner("backward", frames.names)
    facts = inner.finished
    if facts is None:
        facts = segment_to_folder(
            lambda: make_stream(masks),
            frames,
            GivenMasks(masks, {}, {}),
            inner,
            beside={name: x[backward.last :: -1] for name, x in beside.items()},
            chunk=chunk,
            overlay=False,
            on_frames=on_frames,
            on_start=on_start,
        )
        facts = inner.finish(facts)
    names = frozenset(frames.names)

    def join(name: str, mask: IdMask) -> IdMask:
        if name not in names:
            return mask
        earlier = read_mask(inner.path / "masks" / f"{name}.png", AS_WRITTEN)
        return np.where(mask > 0, mask, earlier)

    return facts, join


def total(forward: dict[str, Any], backward: dict[str, Any], seen: int) -> dict[str, Any]:
    """Facts of a video that was gone through twice.

    Args:
      forward: of the pass forward.
      backward: of the one back.
      seen: frames in which the pass forward had something to segment.
    """
    names = ("seconds", "compile_seconds", "compilations")
    sums = {name: round(forward[name] + backward[name], 3) for name in names}
    steady = max(sums["seconds"] - sums["compile_seconds"], 1e-9)
    return {
        **forward,
        **sums,
        "frames_per_second": round((seen + backward["frames"]) / steady, 3),
        "backward_frames": backward["frames"],
    }
