"""One video as far as it is segmented: a value, and the compiled calls that take it further."""

import dataclasses
from collections.abc import Collection, Mapping, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from rdejax.models.protocol import State, System, with_groups, without_slots
from rdejax.propagate import ids
from rdejax.propagate.geometry import Geometry
from rdejax.propagate.inputs import Inputs, Start, in_blocks
from rdejax.propagate.overlap import dispatched_beside
from rdejax.propagate.pending import Part, Pending
from rdejax.propagate.programs import (
    add_objects,
    correct_objects,
    encode_blocks,
    segment_blocks,
    start_video,
)
from rdejax.propagate.schedule import (
    Block,
    encoded_at_once,
    fits_any_number,
    frames_per_call,
    longest_block,
    next_blocks,
)
from rdejax.propagate.slots import Layout


@dataclasses.dataclass(frozen=True)
class Course:
    """How far a video is.

    Attributes:
      layout: objects and their slots; None: neither known nor planned.
      geometry: of the frames; None before the first. The first mask decides how large they are.
      state: the system's; None before the first mask.
      time: frames so far.
      writes: of them, those that were memorised after the first mask.
      starts: numbers of the frames that brought first masks.
    """

    layout: Layout | None = None
    geometry: Geometry | None = None
    state: State | None = None
    time: int = 0
    writes: int = 0
    starts: tuple[int, ...] = ()

    @property
    def objects(self) -> list[int]:
        """The user's ids that have appeared, ascending."""
        return sorted(self.layout.ids) if self.layout and self.state is not None else []

    @property
    def gone(self) -> bool:
        """Whether a compiled call has taken the state, so that nothing can go on from here."""
        return any(leaf.is_deleted() for leaf in jax.tree.leaves(self.state))

    def copy(self) -> "Course":
        """The same with a state of its own, for compiled calls take the one they are given."""
        return dataclasses.replace(self, state=jax.tree.map(jnp.copy, self.state))

    def without(self, ids: Collection[int], planned: Layout | None) -> "Course":
        """The same without some of its objects.

        Args:
          ids: of objects that are there.
          planned: layout to begin with where none is left.
        """
        assert self.layout is not None and self.state is not None
        slots = [self.layout.ids[number] for number in ids]
        layout = self.layout.without(ids)
        if layout.ids:
            state = without_slots(self.state, slots)
            return dataclasses.replace(self, layout=layout, state=state)
        # Nothing is left to remember; the next mask begins as the first one did.
        return Course(planned, self.geometry, time=self.time)

    def about(self) -> dict[str, Any]:
        """All but the state, as JSON values; there must be a state."""
        assert self.layout is not None and self.geometry is not None
        return {
            "time": self.time,
            "writes": self.writes,
            "starts": list(self.starts),
            "source": self.geometry.source,
            "zoom": self.geometry.zoom,
            "layout": self.layout.as_dict(),
        }


@dataclasses.dataclass(frozen=True)
class Runner:
    """Takes courses further: which frames go into which compiled call.

    Attributes:
      model: the system.
      ready: the same, as it runs (`rdejax.propagate.ready`).
      size: shorter side that frames are resized to.
      chunk: frames for each compiled call, see `frames_per_call`.
      encode_batch: frames encoded as one batch; None: see `encoded_at_once`.
    """

    model: System
    ready: System
    size: int | None
    chunk: int | None = None
    encode_batch: int | None = None

    def run(
        self,
        course: Course,
        inputs: Inputs,
        starts: Sequence[Start],
        pending: Pending,
        last: bool = False,
    ) -> Course:
        """The course after some frames; the one given is used up.

        Args:
          course: so far.
          inputs: the frames.
          starts: masks for some of them, in order.
          pending: takes the results.
          last: the video ends here, so the last frame need not be memorised.
        """
        frames = inputs.frames
        if course.geometry is None:
            source = (frames.shape[1], frames.shape[2])
            geometry = Geometry.under(self.model.settings, source, self.size)
            course = dataclasses.replace(course, geometry=geometry)
        if not len(frames):
            pending.add(Part(0))
        position = 0
        for start in starts:
            index = start.told.index
            course = self._advance(course, inputs.part(position, index), pending)
            course = self._insert(course, inputs.part(index, index + 1), start, pending)
            position = index + 1
        course = self._advance(course, inputs.part(position, len(frames)), pending, last)
        pending.objects = course.objects
        return course

    def resumed(self, about: Mapping[str, Any]) -> Course:
        """The course that `Course.about` told of; its state has shapes and dtypes in it."""
        source = (about["source"][0], about["source"][1])
        layout = Layout.from_dict(about["layout"])
        geometry = Geometry.under(self.model.settings, source, self.size, about["zoom"])
        total = layout.groups * layout.slots
        fresh = jax.eval_shape(
            partial(start_video, geometry=geometry, groups=layout.groups),
            self.ready,
            jax.ShapeDtypeStruct((*source, 3), jnp.uint8),
            jax.ShapeDtypeStruct((total, *source), jnp.float32),
            jax.ShapeDtypeStruct((total,), bool),
        )[0]
        state = jax.eval_shape(lambda s: self.model.reserve(s, about["writes"]), fresh)
        starts = tuple(about["starts"])
        return Course(layout, geometry, state, about["time"], about["writes"], starts)

    def _advance(
        self, course: Course, inputs: Inputs, pending: Pending, last: bool = False
    ) -> Course:
        """Frames without new masks, in blocks that end where a frame is memorised."""
        count = len(inputs.frames)
        if course.state is None:
            pending.add(Part(count))
            return dataclasses.replace(course, time=course.time + count)
        assert course.geometry is not None
        sizes = course.geometry.source, course.geometry.inner
        longest = longest_block(self.model.settings.every)
        per_call = frames_per_call(self.chunk, self.model.settings.every, *sizes)
        most = max(1, per_call // longest)
        starts, position = course.starts, 0
        while position < count:
            blocks = next_blocks(
                lambda time: self.model.memorizes(time, starts),
                course.time,
                count - position,
                longest=longest,
                most=most,
            )
            used = sum(block.length for block in blocks)
            if last and position + used == count:
                blocks[-1] = Block(blocks[-1].length, False)
            width = longest
            # Few shapes, for each is a compilation: full chunks and, where these cannot be partly
            # filled, single blocks and single frames.
            if fits_any_number():
                blocks += [Block(0, False)] * (most - len(blocks))
            elif len(blocks) < most:
                blocks = blocks[:1]
                width = 1 if blocks[0].length == 1 else width
            part = inputs.part(position, position + used)
            course = self._call(course, part, blocks, width, pending)
            position += used
        return course

    def _call(
        self, course: Course, inputs: Inputs, blocks: list[Block], width: int, pending: Pending
    ) -> Course:
        """One compiled call."""
        assert course.state is not None and course.layout is not None
        assert course.geometry is not None
        writes = course.writes + sum(block.memorize for block in blocks)
        frames = in_blocks(inputs.frames, blocks, width)
        beside = {name: in_blocks(x, blocks, width) for name, x in inputs.beside.items()}
        encoding = {
            "geometry": course.geometry,
            "at_once": self.encode_batch or encoded_at_once(course.geometry.inner),
        }
        features = used = None
        if fits_any_number():
            used = np.int32(sum(block.length > 0 for block in blocks))
            features = dispatched_beside(
                encode_blocks, self.ready, frames, used, beside, **encoding
            )
        state, (label, prob) = segment_blocks(
            self.ready,
            self.model.reserve(course.state, writes),
            frames if features is None else None,
            np.asarray([block.length for block in blocks], np.int32),
            np.asarray([block.memorize for block in blocks]),
            beside if features is None else None,
            features,
            used,
            want_probs=pending.want_probs,
            **encoding,
        )
        count = len(inputs.frames)
        real = np.concatenate([np.arange(width) < block.length for block in blocks])
        pending.add(Part(count, course.layout, label, prob, real))
        return dataclasses.replace(course, state=state, writes=writes, time=course.time + count)

    def _insert(self, course: Course, inputs: Inputs, start: Start, pending: Pending) -> Course:
        """A frame whose mask brings new objects or corrects old ones."""
        # Copies, for the device may still read them when the caller reuses its buffers.
        inputs, told, layout = inputs.copy(), start.told, start.layout
        if course.state is None:
            source = (told.mask.shape[0], told.mask.shape[1])
            settings = self.model.settings
            geometry = Geometry.beginning(settings, source, self.size, told.smallest)
            course = dataclasses.replace(course, geometry=geometry)
            call, writes = self._first(course, inputs, start), course.writes
        else:
            # A frame that only corrects is no start of an object, which some systems count from.
            given = (*course.starts, course.time) if told.new else course.starts
            memorize = self.model.memorizes(course.time, given)
            writes = course.writes + (memorize or bool(told.corrected))
            call = self._later(course, inputs, start, memorize, writes)
        state, (label, prob) = call
        prob = prob if pending.want_probs else None
        shown = (told.mask, [*told.new, *told.corrected])
        pending.add(Part(1, layout, label, prob, np.ones(1, bool), given=shown))
        starts = (*course.starts, course.time) if told.new else course.starts
        return Course(layout, course.geometry, state, course.time + 1, writes, starts)

    def _first(self, course: Course, inputs: Inputs, start: Start) -> Any:
        """What comes of the first mask: state, and what is seen."""
        assert course.geometry is not None
        layout, told = start.layout, start.told
        total = layout.groups * layout.slots
        masks, new = ids.one_hot(told.mask, told.new, start.slots, total)
        state, seen = start_video(
            self.ready,
            inputs.frames[0],
            masks,
            new,
            start.given,
            inputs.beside,
            groups=layout.groups,
            geometry=course.geometry,
        )
        # What a saved state has, whether another frame is pushed or not.
        return self.model.reserve(state, course.writes), seen

    def _later(
        self, course: Course, inputs: Inputs, start: Start, memorize: bool, writes: int
    ) -> Any:
        """What comes of a later mask: state, and what is seen."""
        assert course.state is not None and course.geometry is not None
        layout, told = start.layout, start.told
        total = layout.groups * layout.slots
        masks, new = ids.one_hot(told.mask, told.new, start.slots, total)
        new = new.reshape(layout.groups, -1)
        state = self.model.reserve(with_groups(course.state, layout.groups), writes)
        begun = (self.ready, state, inputs.frames[0])
        also = {"geometry": course.geometry, "memorize": memorize}
        if not told.corrected:
            return add_objects(*begun, masks, new, start.given, inputs.beside, **also)
        slots = [layout.ids[number] for number in told.corrected]
        old, corrected = ids.one_hot(told.mask, told.corrected, slots, total)
        return correct_objects(
            *begun,
            masks + old,
            corrected.reshape(new.shape),
            new,
            start.given,
            inputs.beside,
            permanent=told.permanent,
            adds=bool(told.new),
            **also,
        )
