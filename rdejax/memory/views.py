"""What systems and memory rules let `rdejax.visualize` show of their insides: data to be painted.

A system or a rule names its views in its own file (`System.views`, `MemoryRule.views`), each a
function of a `Moment` of a video that gives one of the kinds below. `python -m rdejax.visualize
view --name NAME` walks through the video and paints it. Views are called outside of compiled
functions only.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from jaxtyping import Array, Bool, Float


@dataclasses.dataclass(frozen=True)
class Moment:
    """A frame of a video, what it reads and what it leaves, and what is asked about.

    Attributes:
      before: state that the frame reads, the one after the frame before it: the system's for a view
        of the system; for a rule's the rule's own, of the object's group.
      after: state that it leaves, likewise.
      query: `Features` of the frame, n = 1, for a view of the system; for a rule's its key
        [1, h, w, ck] (or the pytree of the system's key projection).
      group: of the object that is asked about.
      slot: of that object in its group; for a rule's view its place in the rule's state.
      positions: [h, w], positions of the frame's grid that are asked about: those of the object, or
        the one of a pixel.
      written: numbers of the frames that were memorised before this one, the object's first one
        first.
    """

    before: Any
    after: Any
    query: Any
    group: int
    slot: int
    positions: Bool[Array | np.ndarray, "h w"]
    written: tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Numbers:
    """Numbers of every frame by name: lines over the frame number.

    Attributes:
      values: one number for each line; a line may be missing in some frames.
      label: what they are, with the unit.
    """

    values: Mapping[str, float]
    label: str


@dataclasses.dataclass(frozen=True)
class Distribution:
    """Values of many elements by name: histograms, one panel for each frame that is shown.

    Attributes:
      values: name -> [n].
      label: what they are, with the unit.
    """

    values: Mapping[str, Float[Array | np.ndarray, " _"]]
    label: str


@dataclasses.dataclass(frozen=True)
class Embedding:
    """Vectors on the frame's grid: their first three principal components as colours.

    Attributes:
      values: [h, w, c].
    """

    values: Float[Array | np.ndarray, "h w c"]


@dataclasses.dataclass(frozen=True)
class Heat:
    """Weights on the grids of earlier frames: heat over them, one scale for all.

    Attributes:
      weights: [e, h, w], 0 or more.
      frames: number of the frame under each.
      names: captions; the sum of an entry's weights is put behind each, in per cent.
    """

    weights: Float[Array | np.ndarray, "e h w"]
    frames: tuple[int, ...]
    names: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Arrows:
    """Arrows from places in this frame to places in earlier ones, a tile for each entry.

    Places are (y, x) in pixels of the (padded) frame that the networks see.

    Attributes:
      begin: [e, k, 2], places in this frame.
      end: [e, k, 2], places in the other one.
      weights: [e, k], 0 to 1, opacity of each arrow.
      frames: number of the frame under each entry.
      names: captions.
    """

    begin: Float[Array | np.ndarray, "e k 2"]
    end: Float[Array | np.ndarray, "e k 2"]
    weights: Float[Array | np.ndarray, "e k"]
    frames: tuple[int, ...]
    names: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Masks:
    """Masks of the object by name, a row for each.

    Attributes:
      probs: name -> [H, W], probabilities at the (padded) size that the networks see.
    """

    probs: Mapping[str, Float[Array | np.ndarray, "H W"]]


Kind = Numbers | Distribution | Embedding | Heat | Arrows | Masks


@dataclasses.dataclass(frozen=True)
class View:
    """Something that can be shown of a system or a rule.

    Attributes:
      kind: what `at` gives, one of the classes of this file.
      at: see `Moment`.
      text: what it is, in a line.
    """

    kind: type[Kind]
    at: Callable[[Moment], Kind]
    text: str


@dataclasses.dataclass(frozen=True)
class Remembered:
    """What holds an object: a rule and its state, of one group.

    Attributes:
      rule: a `MemoryRule`, or what has its `contents`, `prototypes` and `read`.
      state: of the rule.
      slot: place of the object in it.
    """

    rule: Any
    state: Any
    slot: int
