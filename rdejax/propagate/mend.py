"""What a stream needs of its past so that its latest frame can be corrected."""

import dataclasses
from collections.abc import Collection

import numpy as np
from jaxtyping import UInt8

from rdejax.errors import RdejaxError
from rdejax.io.masks import new_ids
from rdejax.propagate.course import Course
from rdejax.propagate.ids import checked_ids, checked_mask
from rdejax.propagate.inputs import Inputs, Told, what_is_told


@dataclasses.dataclass(frozen=True)
class Before:
    """A stream before its latest push, and that push.

    Attributes:
      course: how far the video was; with a state of its own.
      inputs: frames of the push.
      masks: those that came with it, and what corrections made of them.
      ids: that were corrected in the last frame.
      permanent: whether any of these corrections was.
    """

    course: Course
    inputs: Inputs
    masks: dict[int, UInt8[np.ndarray, "h w"]]
    ids: frozenset[int] = frozenset()
    permanent: bool = False

    def corrected(
        self, mask: np.ndarray, ids: Collection[int] | None, known: list[int], permanent: bool
    ) -> "Before":
        """The same past, whose push has a mask for its last frame, or has it put right.

        Args:
          mask: of the last frame.
          ids: those that it tells of; None: all that it holds.
          known: ids that there are after the push.
          permanent: see the class.

        Raises:
          RdejaxError: a mask of another shape, an id that is neither in it nor known, or none.
        """
        frames = self.inputs.frames
        last = len(frames) - 1
        mask = checked_mask(last, mask, len(frames), (frames.shape[1], frames.shape[2]))
        held = set(new_ids(mask, ()))
        told = held if ids is None else set(checked_ids(ids))
        if not told:
            raise RdejaxError(
                "no object in the mask: every pixel is 0; name the ids that are not in the frame"
            )
        if strange := sorted(told - held - set(known)):
            raise RdejaxError(
                f"object {strange[0]} is neither in the mask nor known; there are {known}"
            )
        merged = self.masks.get(last, np.zeros_like(mask))
        merged = np.where(np.isin(merged, list(told)), 0, merged)
        merged = np.where(np.isin(mask, list(told)), mask, merged).astype(np.uint8)
        return dataclasses.replace(
            self,
            masks={**self.masks, last: merged},
            ids=self.ids | told,
            permanent=self.permanent or permanent,
        )

    def told(self, all_masks: bool) -> list[Told]:
        """What the push's masks say; see `what_is_told`."""
        layout = self.course.layout
        return what_is_told(
            self.masks,
            layout.ids if layout else (),
            all_masks=all_masks,
            corrections={len(self.inputs.frames) - 1: self.ids},
            permanent=self.permanent,
        )
