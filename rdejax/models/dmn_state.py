"""Sizes, settings and state of DMN-AOA (`rdejax.models.dmn_aoa`)."""

import dataclasses
from typing import Any

import flax.struct
from jaxtyping import Array, Bool, Float, Int

from rdejax.errors import RdejaxError
from rdejax.models.protocol import State
from rdejax.models.settings import Settings
from rdejax.nn.dmn_proposals import Proposals

_QUERIES = ("latest", "first", "current")


@dataclasses.dataclass(frozen=True)
class DMNSizes:
    """Sizes of the networks behind the trunk.

    Attributes:
      channels: of the pyramid, hence of templates and proposals.
      key_channels: of the template memory's keys.
      value_channels: of its values.
      match_channels: of the alignment.
      grid: positions to a side of a template.
      proposals: places for proposals in a frame; of an outside detector's, the best are kept.
      mask_convs: convolutions of the detector's mask branch.
      refine_widths: of RefineNet's decoder at stride 16, 8 and 4.
    """

    channels: int = 256
    key_channels: int = 128
    value_channels: int = 256
    match_channels: int = 64
    grid: int = 14
    proposals: int = 32
    mask_convs: int = 4
    refine_widths: tuple[int, int, int] = (256, 256, 256)


@dataclasses.dataclass(frozen=True)
class DMNConfig(DMNSizes):
    """`DMNSizes` and the trunk's.

    Attributes:
      key_depth: depth of the ResNet (50, 18).
    """

    key_depth: int = 50


@dataclasses.dataclass(frozen=True)
class DMNLiteConfig(DMNSizes):
    """Sizes of the small system."""

    channels: int = 64
    key_channels: int = 64
    value_channels: int = 64
    match_channels: int = 32
    grid: int = 8
    proposals: int = 16
    mask_convs: int = 2
    refine_widths: tuple[int, int, int] = (64, 48, 32)


@dataclasses.dataclass(frozen=True)
class DMNSettings(Settings):
    """`Settings` with what can be switched off, for ablations.

    Attributes:
      template_query: whose features ask the memory: those of the object in the "latest" memorised
        frame in which it was seen, in its "first" frame, or in the "current" one, where it is taken
        to be the proposal most like the previous mask.
      dynamic: complete templates from the memory; False: they are the query's own features.
      align: move proposals onto the templates' grids; False: compare the same places.
      refine: refine coarse masks; False: they are the result.
      iou_weight: lambda, the share of overlap with the previous mask in the similarity, 0 to 1;
        None: as learned.
    """

    template_query: str = "latest"
    dynamic: bool = True
    align: bool = True
    refine: bool = True
    iou_weight: float | None = None

    def __post_init__(self):
        super().__post_init__()
        if self.template_query not in _QUERIES:
            raise RdejaxError(
                f"template_query={self.template_query!r}: give one of {', '.join(_QUERIES)}"
            )
        for name in ("dynamic", "align", "refine"):
            if not isinstance(getattr(self, name), bool):
                raise RdejaxError(f"{name}={getattr(self, name)!r}: give True or False")
        w = self.iou_weight
        if w is not None and not (isinstance(w, int | float) and 0 <= w <= 1):
            raise RdejaxError(f"iou_weight={w!r}: give a share from 0 to 1, or None (as learned)")


@flax.struct.dataclass
class DMNFeatures:
    """What the networks know of n frames before any object is known.

    Attributes:
      f4: of the pyramid at stride 4 (`f8`, `f16`: 8 and 16).
      f8: see f4.
      f16: see f4.
      key: of the template memory.
      proposals: what may be an object.
      phi: features of each proposal on its grid.
      foreground: its mask on that grid, 0 to 1.
    """

    f4: Float[Array, "n h4 w4 c"]
    f8: Float[Array, "n h8 w8 c"]
    f16: Float[Array, "n h w c"]
    key: Float[Array, "n h w ck"]
    proposals: Proposals
    phi: Float[Array, "n p u c"]
    foreground: Float[Array, "n p u"]


@flax.struct.dataclass
class TemplateQuery:
    """An object in a frame, on the grid of its box.

    Attributes:
      phi: features.
      key: of the template memory.
      mask: 0 to 1.
      box: in pixels of the padded frame.
      write: which memorised frame it is, counted from 0, the object's first.
    """

    phi: Float[Array, "*o u c"]
    key: Float[Array, "*o u ck"]
    mask: Float[Array, "*o u"]
    box: Float[Array, "*o 4"]
    write: Int[Array, "*o"]


@flax.struct.dataclass
class DMNState(State):
    """`State` with what DMN-AOA keeps of a video; of constant shape.

    Attributes:
      memory: past frames (`rdejax.memory.template`), every leaf with a leading group axis.
      query: the objects as they ask the memory.
      previous: masks of the latest frame at stride 4, 0 to 1.
      first: first masks at stride 4.
    """

    memory: Any
    query: TemplateQuery
    previous: Float[Array, "g s h4 w4"]
    first: Float[Array, "g s h4 w4"]


@flax.struct.dataclass
class Matched:
    """Which proposal is which object in one frame.

    Attributes:
      similarity: of templates and proposals in feature space, -1 to 1.
      proposals: those that can be matched.
      assignment: rows sum to 1; the last o columns are the objects' dummies, "absent".
      coarse: the matched masks at stride 4, 0 to 1.
    """

    similarity: Float[Array, "o p"]
    proposals: Bool[Array, " p"]
    assignment: Float[Array, "o q"]
    coarse: Float[Array, "o h4 w4"]
