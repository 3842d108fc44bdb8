"""How clips are made of static images."""

import dataclasses

from rdejax.errors import RdejaxError


@dataclasses.dataclass(frozen=True)
class ClipConfig:
    """Settings of `rdejax.data.clips.make_clip`; lengths are shares of the frame's side.

    Attributes:
      frames: frames per clip.
      size: side of the square frames in pixels (a multiple of 16).
      objects: object slots (1 or more).
      second_object: probability that a further slot is filled, per slot.
      paste: probability that the objects are cut out and pasted over another image.
      distractors: most unlabelled moving objects per clip.
      distractor: probability of each.
      lookalike: probability that a distractor is a copy of a labelled object.
      speed: largest typical shift per frame of an object; each layer draws its own up to this.
      camera: the same for the background.
      turn: typical rotation per frame in radians.
      zoom: typical change of log scale per frame.
      bend: typical change per frame of a thin-plate spline's control points, as a share of half the
        layer's own extent.
      jump: probability that an object moves by several times its speed once in a clip.
      smallest: smallest size of a pasted object (square root of its share of the frame).
      largest: largest such size.
      shadow: probability that a pasted object casts a soft shadow.
      light: typical relative change of brightness per frame, of the clip and of each object.
      grey: probability of a grey clip.
      blur: probability of a blurred clip.
      motion_blur: probability of a clip blurred along a line that turns slowly.
      noise: probability of a clip with sensor noise.
      jpeg: probability of a clip with JPEG artefacts.
      min_area: least share of the first frame that a labelled object covers.
      perturb: lowest IoU of the perturbed first mask with the true one.

    Raises:
      RdejaxError: a value out of its range.
    """

    frames: int = 3
    size: int = 192
    objects: int = 1
    second_object: float = 0.6
    paste: float = 0.6
    distractors: int = 2
    distractor: float = 0.4
    lookalike: float = 0.4
    speed: float = 0.15
    camera: float = 0.08
    turn: float = 0.2
    zoom: float = 0.12
    bend: float = 0.04
    jump: float = 0.1
    smallest: float = 0.13
    largest: float = 0.75
    shadow: float = 0.2
    light: float = 0.04
    grey: float = 0.05
    blur: float = 0.15
    motion_blur: float = 0.1
    noise: float = 0.15
    jpeg: float = 0.15
    min_area: float = 0.01
    perturb: float = 0.85

    def __post_init__(self) -> None:
        if self.frames < 1 or self.objects < 1 or self.objects > 254 or self.distractors < 0:
            raise RdejaxError(
                f"clip: frames={self.frames}, objects={self.objects}, distractors="
                f"{self.distractors}; give at least 1 frame, 1 to 254 objects and no negative count"
            )
        if self.size < 16 or self.size % 16:
            raise RdejaxError(f"clip.size={self.size}: give a multiple of 16, 16 or more")
        if not 0 < self.smallest <= self.largest:
            raise RdejaxError(
                f"clip.smallest={self.smallest}, clip.largest={self.largest}: give positive sizes, "
                "the smaller one first"
            )
        for name in _SHARES:
            value = getattr(self, name)
            if not 0 <= value <= 1:
                raise RdejaxError(f"clip.{name}={value}: give a number from 0 to 1")


_SHARES = (
    "second_object",
    "paste",
    "distractor",
    "lookalike",
    "jump",
    "shadow",
    "grey",
    "blur",
    "motion_blur",
    "noise",
    "jpeg",
    "min_area",
    "perturb",
)
