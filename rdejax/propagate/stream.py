"""Streaming: frames in, masks out, with a state that can be saved in the middle of a video."""

import contextlib
import dataclasses
import os
import threading
import warnings
from collections.abc import Collection, Iterator, Mapping
from typing import Any

import jax
import numpy as np
from flax import nnx
from jaxtyping import Float32, UInt8

from rdejax.errors import RdejaxError
from rdejax.models.checksum import checksum
from rdejax.models.protocol import State, System
from rdejax.nn.constants import WEIGHTS
from rdejax.propagate import ids, save
from rdejax.propagate.course import Course, Runner
from rdejax.propagate.geometry import Geometry
from rdejax.propagate.ids import checked_ids
from rdejax.propagate.inputs import Inputs, Start, Told, placed, what_is_told
from rdejax.propagate.mend import Before
from rdejax.propagate.pending import Pending
from rdejax.propagate.ready import ready
from rdejax.propagate.slots import Layout


class Stream:
    """A video in progress. Memory use does not depend on its length for constant-cost rules.

    Frames before the first mask come back empty. Every id is taken from the first mask that holds
    it; in later masks only new ids count (the semi-supervised protocol), and a warning says so,
    unless `use_all_masks` makes them corrections.

    Calls from several threads wait for each other.

    Args:
      model: see `rdejax.load_model`.
      size: shorter side the frames are resized to; default: the model's setting.
      chunk: frames to process per compiled call, where that many are at hand; default: see
        `frames_per_call`.
      encode_batch: frames of a chunk encoded as one batch; default: see `encoded_at_once`.
      max_objects: object slots to refuse more than; default: as many as the masks hold.
      layout: groups and slots, if known beforehand; it saves compilations when objects come later.
      use_all_masks: later masks correct the known objects that they hold, as `correct` does.
      correctable: keep what `correct` needs: a second copy of the state, and the latest push.
      **given: what the memory takes for each object beside its mask, by id: a mapping, or an array
        [objects, ...] in the order of the ids (`System.object_inputs`; SWEM's `initial_bases`).

    Raises:
      RdejaxError: a `size`, `chunk`, `encode_batch` or `max_objects` that is no number or is too
        small, or a keyword that neither this class nor the model has.
    """

    def __init__(
        self,
        model: System,
        *,
        size: int | None = None,
        chunk: int | None = None,
        encode_batch: int | None = None,
        max_objects: int | None = None,
        layout: Layout | None = None,
        use_all_masks: bool = False,
        correctable: bool = False,
        **given: Mapping[int, np.ndarray] | np.ndarray,
    ):
        for name in given:
            if name not in model.object_inputs:
                usual = ("size", "chunk", "encode_batch", "max_objects", *model.object_inputs)
                raise RdejaxError(
                    f"keyword {name!r} is unknown here; with memory {model.settings.memory!r} use "
                    f"{', '.join(usual)}"
                )
        numbers = {"chunk": chunk, "encode_batch": encode_batch, "max_objects": max_objects}
        for name, value in numbers.items():
            whole = isinstance(value, int | np.integer) and not isinstance(value, bool)
            if value is not None and not (whole and value >= 1):
                what = "objects" if name == "max_objects" else "frames"
                raise RdejaxError(f"{name}={value!r}: give a number of {what}, 1 or more")
        self.given = given
        self.model = model
        changed = {} if size is None else {"size": size}
        self.size = dataclasses.replace(model.settings, **changed).size
        self.max_objects = max_objects
        self.use_all_masks = use_all_masks
        self.correctable = correctable
        self._runner = Runner(model, ready(model), self.size, chunk, encode_batch)
        self._planned = layout
        self._warned = False
        self._one_by_one = threading.RLock()
        self._weights: int | None = None  # a checksum of the model's, when it is needed
        self.reset()

    def reset(self) -> None:
        """Forgets everything: the next frame is the first one of another video."""
        with self._one_by_one:
            self._course = Course(self._planned)
            self._before: Before | None = None
            self._broken = ""

    @property
    def objects(self) -> list[int]:
        """The user's ids that have appeared, ascending."""
        return self._course.objects

    @property
    def state(self) -> State | None:
        """The system's; the next push takes it, so copy what is to be kept. None: no mask yet."""
        return self._course.state

    @property
    def time(self) -> int:
        """Frames so far."""
        return self._course.time

    @property
    def writes(self) -> int:
        """Frames that were memorised after the first mask."""
        return self._course.writes

    @property
    def starts(self) -> list[int]:
        """Numbers of the frames that brought first masks."""
        return list(self._course.starts)

    @property
    def layout(self) -> Layout | None:
        """Objects and their slots."""
        return self._course.layout

    @property
    def geometry(self) -> Geometry | None:
        """Sizes of the frames; None before the first."""
        return self._course.geometry

    @property
    def settings(self) -> dict[str, Any]:
        """All settings in force."""
        return {**self.model.settings.as_dict(), "size": self.size}

    @property
    def state_bytes(self) -> int:
        """Size of the state in bytes."""
        return sum(leaf.nbytes for leaf in jax.tree.leaves(self.state))

    def step(
        self,
        frame: np.ndarray,
        mask: np.ndarray | None = None,
        beside: Mapping[str, np.ndarray] | None = None,
    ) -> UInt8[np.ndarray, "h w"]:
        """One frame in, its mask out: uint8 [H, W, 3] and, with new objects, uint8 [H, W].

        Raises:
          RdejaxError: see `push`.
        """
        beside = ids.checked_mapping(beside, "what lies beside the frame", '{"name": array}')
        also = {name: ids.as_array(x, name)[None] for name, x in beside.items()}
        frames = ids.as_array(frame, "the frame")[None]
        return self.push(frames, None if mask is None else {0: mask}, also)[0]

    def push(
        self,
        frames: np.ndarray,
        masks: Mapping[int, np.ndarray] | None = None,
        beside: Mapping[str, np.ndarray] | None = None,
    ) -> UInt8[np.ndarray, "n h w"]:
        """Segments the next frames.

        Args:
          frames: uint8 [n, H, W, 3] RGB.
          masks: id masks uint8 [H, W] by index into `frames`.
          beside: what the model takes for each frame beside its picture, by the names in
            `System.frame_inputs`: arrays [n, ...].

        Returns:
          uint8 [n, H, W] id masks, with the user's ids.

        Raises:
          RdejaxError: wrong shapes or types, more objects than `max_objects`; the stream is as it
            was before. Or an earlier push was broken off, by Ctrl-C or by too little memory, after
            the device had taken the state: `restore` a saved one, or start another stream.
        """
        with self._as_before():
            return self.submit(frames, masks, beside).masks()

    def push_probs(
        self,
        frames: np.ndarray,
        masks: Mapping[int, np.ndarray] | None = None,
        beside: Mapping[str, np.ndarray] | None = None,
    ) -> tuple[UInt8[np.ndarray, "n h w"], Float32[np.ndarray, "n c h w"]]:
        """As `push`, with float32 [n, o + 1, H, W]: background, then `objects` in order."""
        with self._as_before():
            pending = self.submit(frames, masks, beside, want_probs=True)
            return pending.masks(), pending.probs()

    @contextlib.contextmanager
    def _as_before(self) -> Iterator[None]:
        """If the block does not end, all is as it was; or broken, where the old state is gone.

        Other threads wait meanwhile: what a frame becomes depends on those before it.
        """
        with self._one_by_one:
            before = self._course
            try:
                yield
            except BaseException as error:
                self._course = before
                if before.gone:
                    reason = (str(error).splitlines() or [""])[0]
                    self._broken = self._broken or reason or type(error).__name__
                raise

    def _refuse_broken(self) -> None:
        if self._broken:
            raise RdejaxError(
                f"this stream was broken off in the middle of a push ({self._broken}); restore() "
                "a saved state or start another stream"
            )

    def submit(
        self,
        frames: np.ndarray,
        masks: Mapping[int, np.ndarray] | None = None,
        beside: Mapping[str, np.ndarray] | None = None,
        *,
        want_probs: bool = False,
        last: bool = False,
    ) -> Pending:
        """As `push`, without waiting for the device to finish.

        Whoever submits the next frames before fetching these results keeps the device busy.

        Args:
          frames: see `push`.
          masks: see `push`.
          beside: see `push`.
          want_probs: whether `Pending.probs` is wanted, too.
          last: no frame follows, so what only later ones would read is not computed. Only `reset`
            makes use of the stream again.

        Raises:
          RdejaxError: see `push`.
        """
        masks = ids.checked_mapping(masks, "masks", "{0: mask}, by index into the frames")
        beside = ids.checked_mapping(beside, "what lies beside frames", '{"name": array}')
        with self._as_before():
            self._refuse_broken()
            frames, masks = self._checked(frames, masks)
            told = what_is_told(masks, self._known, all_masks=self.use_all_masks)
            starts = self._placed(told)
            inputs = Inputs(frames, ids.checked_beside(beside, len(frames), self.model))
            self._warn_of_ignored(told)
            if self.correctable and len(frames):
                self._before = Before(self._course.copy(), inputs.copy(), dict(masks))
            return self._submit(inputs, starts, want_probs, last)

    def correct(
        self,
        mask: np.ndarray,
        ids: Collection[int] | None = None,
        *,
        permanent: bool = False,
    ) -> UInt8[np.ndarray, "h w"]:
        """Puts right the masks of the latest frame, which is memorised with them.

        The result is as if the mask had been pushed with the frame. Other objects stay as they were
        predicted, where no given one covers them. Ids of the mask that are new begin here. Several
        calls for one frame add up. The stream must be made with `correctable=True`.

        Args:
          mask: uint8 [H, W] ids.
          ids: those that it is to be believed about; one that it does not hold is not in the frame.
            Default: all that it holds.
          permanent: the memory keeps the frame as it keeps the first one, if it does that; in rules
            of constant size it takes the first one's place (`MemoryRule.keep`).

        Returns:
          The frame's masks now, uint8 [H, W].

        Raises:
          RdejaxError: no frame yet, the stream was not made for it, a mask of another shape, or an
            id that is neither in the mask nor known; the stream is as it was before.
        """
        with self._as_before():
            self._refuse_broken()
            before = self._before
            if before is None:
                why = (
                    "no frame has been pushed since it began, was restored or had objects taken out"
                    if self.correctable
                    else "it keeps no past; make it with correctable=True"
                )
                raise RdejaxError(f"nothing to correct in this stream: {why}")
            mended = before.corrected(mask, ids, self._known, permanent)
            self._course = before.course.copy()
            starts = self._placed(mended.told(self.use_all_masks))
            result = self._submit(before.inputs, starts, False).masks()[-1]
            self._before = mended
        return result

    def forget(self, ids: Collection[int]) -> None:
        """Takes objects out: they are in no later frame, and their ids may begin anew.

        Raises:
          RdejaxError: an id that is not there; the stream is as it was before.
        """
        numbers = checked_ids(ids)
        with self._as_before():
            self._refuse_broken()
            if missing := sorted(set(numbers) - set(self.objects)):
                raise RdejaxError(f"no object {missing[0]} to forget; there are {self.objects}")
            if numbers:
                self._course = self._course.without(numbers, self._planned)
                self._before = None

    @property
    def _known(self) -> list[int]:
        return sorted(self.layout.ids) if self.layout else []

    def _submit(
        self, inputs: Inputs, starts: list[Start], want_probs: bool, last: bool = False
    ) -> Pending:
        pending = Pending(inputs.frames.shape[1:3], want_probs)
        self._course = self._runner.run(self._course, inputs, starts, pending, last)
        return pending

    def _checked(
        self, frames: np.ndarray, masks: Mapping[int, np.ndarray]
    ) -> tuple[np.ndarray, dict[int, np.ndarray]]:
        """Frames and masks, with all that could be wrong with them looked at."""
        frames = ids.checked_frames(frames, self.geometry and self.geometry.source)
        size = (frames.shape[1], frames.shape[2])
        checked = {
            index: ids.checked_mask(index, masks[index], len(frames), size)
            for index in sorted(map(ids.checked_index, masks))
        }
        return frames, checked

    def _placed(self, told: list[Told]) -> list[Start]:
        """Where the objects of masks go, if they are not too many."""
        self._refuse_too_many(told)
        return placed(told, self.layout, self.given)

    def _refuse_too_many(self, told: list[Told]) -> None:
        new = [number for each in told for number in each.new]
        count = len(self._known) + len(new)
        if self.max_objects is not None and new and count > self.max_objects:
            raise RdejaxError(
                f"{count} objects in the masks, but max_objects is "
                f"{self.max_objects}; raise it or leave objects out"
            )

    def _warn_of_ignored(self, told: list[Told]) -> None:
        each = next((each for each in told if each.ignored), None)
        if each is None or self._warned:
            return
        self._warned = True
        warnings.warn(
            f"the mask of frame {self.time + each.index} is not used for object {each.ignored[0]}, "
            "which began earlier; pass use_all_masks=True to correct objects with later masks",
            stacklevel=4,
        )

    def save(self, path: str | os.PathLike) -> None:
        """Writes the state to a file, from which `restore` continues to the same masks.

        Raises:
          RdejaxError: no mask has been given yet, so there is nothing to save; or the stream is
            broken, see `push`.
          OSError: the file cannot be written.
        """
        with self._one_by_one:
            self._refuse_broken()
            if self.state is None:
                raise RdejaxError("nothing to save: no frame with a mask has been pushed yet")
            save.save_state(path, self.state, {**self._course.about(), **self._identity()})

    def restore(self, path: str | os.PathLike) -> "Stream":
        """Takes up a saved video; returns the stream itself. The model's weights must be the same.

        Raises:
          RdejaxError: no such file, not a saved stream, or one of another model, other settings or
            another version; the stream is as it was before.
        """
        arrays, about = save.read_state(path)
        save.check_same(path, about, self._identity())
        save.check_numbers(path, about)
        course = self._runner.resumed(about)
        state = save.filled(path, course.state, arrays)
        with self._one_by_one:
            self._course = dataclasses.replace(course, state=state)
            self._before = None
            self._broken = ""
        return self

    def _identity(self) -> dict[str, Any]:
        if self._weights is None:
            self._weights = checksum(nnx.state(self.model, WEIGHTS))
        return {"model": self.model.name, "weights": self._weights, "settings": self.settings}
