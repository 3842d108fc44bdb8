"""How clips are made of static images."""

import dataclasses


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
      bend: typical displacement of thin-plate-spline control points per frame.
      smallest: smallest size of a pasted object (square root of its share of the frame).
      largest: largest such size.
      grey: probability of a grey clip.
      blur: probability of a blurred clip.
      min_area: least share of the first frame that a labelled object covers.
      perturb: lowest IoU of the perturbed first mask with the true one.
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
    bend: float = 0.03
    smallest: float = 0.12
    largest: float = 0.75
    grey: float = 0.05
    blur: float = 0.15
    min_area: float = 0.006
    perturb: float = 0.85
