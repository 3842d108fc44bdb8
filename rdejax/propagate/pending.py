"""Results that the device may still be working on."""

import dataclasses

import numpy as np
from jaxtyping import Array, Bool, Float32, UInt8

from rdejax.propagate.ids import by_ascending_id, id_of_label
from rdejax.propagate.slots import Layout


@dataclasses.dataclass(frozen=True)
class Part:
    """Results of some consecutive frames.

    Attributes:
      count: how many.
      layout: objects and their slots at that time; None before the first mask.
      label: slot numbers [..., h, w], 0 background; on the device.
      prob: probabilities [..., o + 1, h, w], if wanted; on the device.
      real: which of the frames in `label` and `prob`, taken in order, are part of the video.
      given: a first mask and the ids that it brings, which it shows as they were given.
    """

    count: int
    layout: Layout | None = None
    label: Array | None = None
    prob: Array | None = None
    real: Bool[np.ndarray, " m"] | None = None
    given: tuple[UInt8[np.ndarray, "h w"], list[int]] | None = None


class Pending:
    """Masks, and probabilities if wanted, of submitted frames; asking for them waits for them.

    Attributes:
      objects: the ids that `probs` has, ascending.
      want_probs: whether probabilities were wanted.
    """

    def __init__(self, size: tuple[int, int], want_probs: bool):
        self.objects: list[int] = []
        self.want_probs = want_probs
        self._size = size
        self._underway: Part | None = None
        self._masks: list[np.ndarray] = []
        self._probs: list[tuple[np.ndarray, Layout | None]] = []

    def add(self, part: Part) -> None:
        """Takes note of a part, after which the one before it is fetched."""
        before, self._underway = self._underway, part
        if before is not None:
            self._fetch(before)

    def masks(self) -> UInt8[np.ndarray, "n h w"]:
        """The masks, with the user's ids."""
        self._fetch_all()
        return np.concatenate(self._masks)

    def probs(self) -> Float32[np.ndarray, "n c h w"]:
        """Probabilities of the background and `objects`; 0 for objects not there yet."""
        self._fetch_all()
        parts = [
            by_ascending_id(probs, layout.ids if layout else {}, self.objects)
            for probs, layout in self._probs
        ]
        return np.concatenate(parts)

    def _fetch_all(self) -> None:
        if self._underway is not None:
            part, self._underway = self._underway, None
            self._fetch(part)

    def _fetch(self, part: Part) -> None:
        if part.layout is None or part.label is None:  # before the first mask
            self._masks.append(np.zeros((part.count, *self._size), np.uint8))
            if self.want_probs:
                background = np.ones((part.count, 1, *self._size), np.float32)
                self._probs.append((background, None))
            return
        label = np.asarray(part.label).reshape(-1, *self._size)[part.real]
        masks = id_of_label(part.layout)[label]
        if part.given is not None:
            mask, ids = part.given
            masks = np.where(np.isin(mask, ids), mask, masks)
        self._masks.append(masks)
        if part.prob is not None:
            prob = np.asarray(part.prob)
            self._probs.append((prob.reshape(-1, *prob.shape[-3:])[part.real], part.layout))
