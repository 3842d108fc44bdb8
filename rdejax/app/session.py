"""A video that someone works on: what was drawn, what follows from it, and what is saved.

No web page is known here. Drawn masks are corrections as `rdejax infer --use-all-masks` has them:
saved together they give that command the same result.
"""

import bisect
import itertools
import tempfile
import threading
import time
import zlib
from collections import OrderedDict
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Bool, UInt8

import rdejax
from rdejax.errors import RdejaxError
from rdejax.files import read_json
from rdejax.folders import locked
from rdejax.infer.results import ResultFolder
from rdejax.infer.video import ResultWriter, Written
from rdejax.io.given import load_given_masks
from rdejax.io.masks import IdMask, digest_masks, ids_of, write_mask
from rdejax.io.threads import Prefetcher, chunked
from rdejax.io.video import Frame, FrameSource
from rdejax.models import System
from rdejax.propagate.geometry import Geometry
from rdejax.propagate.schedule import frames_per_call
from rdejax.propagate.slots import known_layout

_FPS = Fraction(24)
Drawing = Literal["add", "erase", "replace"]
# Decoded frames kept for looking at, in bytes; frames decoded at once when one is missing.
_KEPT, _AHEAD = 256 << 20, 8
# Frames between two saved states, at least, and how many states are kept.
_SPACING, _STATES = 24, 24


class Session:
    """Work on one video.

    Edits are refused while a propagation is under way; `stop` ends it after the frames in hand.

    Attributes:
      source: the video.
      told: frame number -> ids that were drawn there, and nothing else; never empty masks.
      done: frames up to this number are as what was drawn says; later ones may be of before.
    """

    def __init__(self, source: FrameSource, model: System, *, chunk: int | None = None):
        """Begins with nothing drawn.

        Args:
          source: the video.
          model: see `rdejax.load_model`.
          chunk: frames handed to the model at once; default: as `rdejax infer` does.
        """
        self.source = source
        self.told: dict[int, IdMask] = {}
        self.done = 0
        self._model = model
        settings = model.settings
        inner = Geometry.under(settings, source.size, settings.size).inner
        self._wanted = chunk
        self._chunk = frames_per_call(chunk, settings.every, source.size, inner)
        self._results: dict[int, bytes] = {}
        self._frames: OrderedDict[int, Frame] = OrderedDict()
        self._folder = tempfile.TemporaryDirectory(prefix="rdejax-app-")
        self._states: list[int] = []  # numbers of the frames that come next, ascending
        self._busy = threading.Lock()
        self._stop = threading.Event()

    def __enter__(self) -> "Session":
        return self

    def __exit__(self, kind: Any, value: Any, trace: Any) -> None:
        self.stop()
        with self._busy:
            self._folder.cleanup()

    def __len__(self) -> int:
        return len(self.source)

    @property
    def objects(self) -> list[int]:
        """Ids that were drawn, ascending."""
        return sorted(set().union(*(ids_of(mask) for mask in self.told.values())))

    @property
    def busy(self) -> bool:
        """Whether a propagation or a save is under way."""
        return self._busy.locked()

    def frame(self, number: int) -> Frame:
        """A frame of the video.

        Files are decoded from the front for it, so a late one takes a while the first time.

        Raises:
          RdejaxError: there is none of this number, or it cannot be decoded.
        """
        if number not in self._frames:
            some = itertools.islice(self.source.frames(number), _AHEAD)
            for index, (_, frame) in enumerate(some, number):
                self._frames[index] = frame
            if number not in self._frames:
                raise RdejaxError(f"{self.source.path}: frame {number} could not be decoded")
            height, width = self.source.size
            while len(self._frames) > max(_AHEAD, _KEPT // (height * width * 3)):
                self._frames.popitem(last=False)
        self._frames.move_to_end(number)
        return self._frames[number]

    def mask(self, number: int) -> IdMask:
        """What is known of a frame: the result for it, with what was drawn there over it."""
        packed = self._results.get(number)
        mask = np.zeros(self.source.size, np.uint8)
        if packed is not None:
            mask = np.frombuffer(zlib.decompress(packed), np.uint8).reshape(mask.shape).copy()
        told = self.told.get(number)
        return mask if told is None else _over(mask, told)

    def draw(
        self, number: int, index: int, region: Bool[np.ndarray, "h w"], how: Drawing = "add"
    ) -> None:
        """Adds a region to an object's mask in a frame, takes it away, or makes it the mask.

        Whatever the frame shows of the object is from then on drawn, too; other objects lose the
        pixels that are added, and are otherwise as they were.

        Args:
          number: of the frame.
          index: id of the object, 1 to 255; a new one begins in this frame.
          region: the pixels.
          how: "add", "erase" or "replace".

        Raises:
          RdejaxError: no such frame or id, an object of which nothing would be left, or a
            propagation is under way.
        """
        self._refuse_busy()
        if not 0 <= number < len(self):
            raise RdejaxError(f"there is no frame {number}; there are {len(self)}")
        if not 1 <= index <= 255:
            raise RdejaxError(f"object {index}: ids are from 1 to 255")
        shown = self.mask(number)
        before = {"add": shown == index, "erase": shown == index, "replace": False}[how]
        own = before & ~region if how == "erase" else before | region
        if not own.any():
            raise RdejaxError(
                f"nothing would be left of object {index} in this frame; remove the object, or "
                "take back what was drawn here"
            )
        told = self.told.get(number, np.zeros_like(shown)).copy()
        told[told == index] = 0
        told[own] = index
        self._tell(number, told)

    def begin_with(self, path: Path) -> None:
        """Takes masks from a file or folder as drawn ones, as `rdejax infer --mask` does.

        Raises:
          RdejaxError: see `rdejax.io.given.load_given_masks`.
        """
        given = load_given_masks(path, self.source, all_masks=True, by_name=True)
        for number, mask in given.masks.items():
            self._tell(number, mask)

    def take_back(self, number: int) -> None:
        """Forgets what was drawn in a frame."""
        self._refuse_busy()
        if self.told.pop(number, None) is not None:
            self._changed(number)

    def remove(self, index: int) -> None:
        """Takes an object out of the whole video.

        Raises:
          RdejaxError: no such object, or a propagation is under way.
        """
        self._refuse_busy()
        frames = [number for number, mask in self.told.items() if (mask == index).any()]
        if not frames:
            raise RdejaxError(f"there is no object {index}; there are {self.objects or 'none'}")
        for number in frames:
            self._tell(number, np.where(self.told[number] == index, 0, self.told[number]))
        for number in list(self._results):
            mask = np.frombuffer(zlib.decompress(self._results[number]), np.uint8)
            if (mask == index).any():
                self._results[number] = _packed(np.where(mask == index, np.uint8(0), mask))

    def _tell(self, number: int, told: IdMask) -> None:
        self.told[number] = told
        if not told.any():
            del self.told[number]
        self._changed(number)

    def _changed(self, number: int) -> None:
        self.done = min(self.done, number)
        for state in [state for state in self._states if state > number]:
            self._states.remove(state)
            self._path(state).unlink(missing_ok=True)

    def _refuse_busy(self) -> None:
        if self.busy:
            raise RdejaxError("the video is being gone through; stop that first")

    def stop(self) -> None:
        """Ends a propagation that is under way after the frames in hand."""
        self._stop.set()

    def propagate(self, on_frames: Callable[[int], object] = lambda done: None) -> bool:
        """Follows the objects from the first frame that is not up to date to the end.

        Args:
          on_frames: told the number of frames done after each few, in this thread.

        Returns:
          Whether the end was reached; False after `stop`.

        Raises:
          RdejaxError: nothing was drawn, or another propagation is under way.
        """
        if not self.told:
            raise RdejaxError("nothing is drawn yet: outline an object in some frame")
        if not self._busy.acquire(blocking=False):
            raise RdejaxError("the video is being gone through already; stop that first")
        try:
            self._stop.clear()
            return self._propagate(on_frames)
        finally:
            self._busy.release()

    def _propagate(self, on_frames: Callable[[int], object]) -> bool:
        stream = rdejax.stream(
            self._model, layout=known_layout(self.told), chunk=self._wanted, use_all_masks=True
        )
        begin = max((state for state in self._states if state <= self.done), default=0)
        if begin:
            stream.restore(self._path(begin))
        position, last = begin, begin
        first = None if begin else self._chunk + 1
        with Prefetcher(self.source.frames(begin), depth=2 * self._chunk) as frames:
            for group in chunked(frames, self._chunk, first=first):
                end = position + len(group)
                masks = {t - position: m for t, m in self.told.items() if position <= t < end}
                found = stream.push(np.stack([frame for _, frame in group]), masks or None)
                for number, mask in enumerate(found, position):
                    self._results[number] = _packed(mask)
                position = end
                self.done = max(self.done, end)
                if stream.objects and end - last >= _SPACING:
                    stream.save(self._path(end))
                    self._keep_state(end)
                    last = end
                on_frames(self.done)
                if self._stop.is_set() and self.done < len(self):
                    return False
        # A file may hold fewer frames than it promises.
        self.done = len(self)
        return True

    def _path(self, state: int) -> Path:
        return Path(self._folder.name) / f"state-{state}.safetensors"

    def _keep_state(self, number: int) -> None:
        if number not in self._states:
            bisect.insort(self._states, number)
        if len(self._states) > _STATES:
            # Every second one of the older half goes.
            for state in self._states[1 : _STATES // 2 : 2]:
                self._states.remove(state)
                self._path(state).unlink(missing_ok=True)

    def save(self, output: Path, *, overwrite: bool = True) -> dict[str, Any]:
        """Writes masks, overlay and summary as `rdejax infer` does, and what was drawn.

        `OUT/drawn/<frame>.png` are the drawn masks, from which `rdejax infer VIDEO --mask OUT/drawn
        --use-all-masks` makes the same again.

        Args:
          output: the folder.
          overwrite: replace an earlier result.

        Returns:
          The summary.

        Raises:
          RdejaxError: not all frames are up to date, or the folder holds something else.
        """
        if not self.told or self.done < len(self):
            raise RdejaxError(
                f"frames from {self.done} on do not follow what is drawn yet; propagate first"
            )
        if not self._busy.acquire(blocking=False):
            raise RdejaxError("the video is being gone through; stop that first")
        try:
            with locked(output):
                return self._save(output, overwrite)
        finally:
            self._busy.release()

    def _save(self, output: Path, overwrite: bool) -> dict[str, Any]:
        begun = time.perf_counter()
        settings = self._model.settings.as_dict()
        fps = self.source.fps or _FPS
        run = {
            "app": True,
            "model": self._model.name,
            "settings": settings,
            "source": self.source.fingerprint(),
            "masks": digest_masks(self.told),
            "overlay": True,
            "fps": float(fps),
        }
        _refuse_others(output, run)
        folder = ResultFolder(
            output,
            run,
            self.source.names,
            version=rdejax.__version__,
            overwrite=overwrite,
            inputs=[self.source.path, *getattr(self.source, "files", ())],
        )
        if folder.finished is None:
            with ResultWriter(folder, self.source, fps) as writer:
                for number, (name, frame) in enumerate(self.source.frames()):
                    writer.write(Written(name, frame, self.mask(number)))
            facts = {
                "frames": number + 1,
                "seconds": round(time.perf_counter() - begun, 3),
                "objects": self.objects,
                "drawn": [self.source.names[t] for t in sorted(self.told)],
                "height": self.source.size[0],
                "width": self.source.size[1],
                "fps": float(fps),
                "version": rdejax.__version__,
            }
            if self.source.times is not None:
                facts["timestamps"] = [round(float(moment), 6) for moment in self.source.times]
            summary = folder.finish(facts)
        else:
            summary = folder.finished
        drawn = output / "drawn"
        drawn.mkdir(exist_ok=True)
        told = {f"{self.source.names[number]}.png": mask for number, mask in self.told.items()}
        for name, mask in told.items():
            write_mask(drawn / name, mask)
        # Last, so that nothing is lost by a kill: what is drawn may lie there alone.
        for old in drawn.glob("*.png"):
            if old.name not in told:
                old.unlink()
        return summary


def _refuse_others(output: Path, run: dict[str, Any]) -> None:
    """Only what was saved of the same video is replaced."""
    before = (read_json(output / "summary.json") or {}).get("run")
    if before is None and (output / "drawn").exists():
        raise RdejaxError(
            f"{output / 'drawn'}: exists, and no earlier save wrote it; choose another --output"
        )
    same = isinstance(before, dict) and "app" in before and before.get("source") == run["source"]
    if before is not None and not same:
        raise RdejaxError(
            f"{output}: holds a result of rdejax infer or of another video; choose another --output"
        )


def _over(mask: IdMask, told: IdMask) -> UInt8[np.ndarray, "h w"]:
    """A mask in which the ids of another one are where that says, and nowhere else."""
    mask = np.where(np.isin(mask, list(ids_of(told))), 0, mask)
    return np.where(told > 0, told, mask).astype(np.uint8)


def _packed(mask: UInt8[np.ndarray, "..."]) -> bytes:
    return zlib.compress(np.ascontiguousarray(mask).tobytes(), 1)
