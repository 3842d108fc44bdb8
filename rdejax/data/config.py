"""How clips are made of static images."""

import dataclasses

from rdejax.errors import RdejaxError


@dataclasses.dataclass(frozen=True)
class ClipConfig:
    """Settings of `clips.from_images.make_clip`; lengths are shares of the frame's side.

    Attributes:
      frames: frames per clip.
      size: side of the square frames in pixels (a multiple of 16).
      objects: object slots (1 or more).
      second_object: probability that a further slot is filled, per slot.
      paste: probability that the objects are cut out and pasted over another image.
      distractors: most unlabelled moving objects per clip.
      distractor: probability of each.
      lookalike: probability that a distractor is a copy of a labelled object.
      twin: probability that a further labelled object is a copy of the one before.
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
    twin: float = 0.0
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
    "twin",
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


@dataclasses.dataclass(frozen=True)
class PasteConfig:
    """Object tracks of videos pasted over clips of others (`clips.paste`).

    Lengths are shares of the clip's side.

    Attributes:
      share: probability that a clip of a video gets any; 0: never.
      most: most objects pasted over such a clip; each number from 1 on is as likely.
      smallest: smallest size of a pasted object (square root of its share of the frame).
      largest: largest such size.
      behind: probability that an object passes behind those that the clip already has, instead of
        before them.
      lookalike: probability that an object is one that the clip already has, at another time and
        place.
      still: probability that an object is cut from a still image, where there are static sources,
        and moves as `clip` says.
      flip: probability of a horizontal flip.
      turn: largest rotation in degrees.
      meet: probability that an object crosses one that the clip had before.
      speed: largest drift per frame, beside the object's own motion.
      span: longest way of its own that an object goes in a clip; longer ways are shortened.
    """

    share: float = 0.0
    most: int = 3
    smallest: float = 0.1
    largest: float = 0.6
    behind: float = 0.4
    lookalike: float = 0.2
    still: float = 0.2
    flip: float = 0.5
    turn: float = 10.0
    meet: float = 0.5
    speed: float = 0.06
    span: float = 0.6

    def __post_init__(self) -> None:
        if self.most < 1 or not 0 < self.smallest <= self.largest:
            raise RdejaxError(
                f"video.paste.most={self.most}, video.paste.smallest={self.smallest}, "
                f"video.paste.largest={self.largest}: give 1 or more, and positive sizes, the "
                "smaller one first"
            )
        for name in ("share", "behind", "lookalike", "still", "flip", "meet"):
            if not 0 <= getattr(self, name) <= 1:
                raise RdejaxError(
                    f"video.paste.{name}={getattr(self, name)}: give a number from 0 to 1"
                )
        if min(self.speed, self.span) < 0:
            raise RdejaxError(
                f"video.paste.speed={self.speed}, video.paste.span={self.span}: give 0 or more"
            )


@dataclasses.dataclass(frozen=True)
class VideoConfig:
    """How clips are cut from videos (`clips.from_videos`); frames, size, objects as clip's.

    Per-sequence parts are drawn once for all frames of a clip, per-frame parts anew for each.

    Attributes:
      gaps: largest gap between neighbouring frames of a clip, one for each phase of training.
        Divided by a source's own spacing (YouTube-VOS is annotated every fifth frame).
      phases: where each later phase begins, as shares of the run; one fewer than `gaps`.
      reverse: probability of reversed time.
      crop: smallest area of the crop, as a share of the frame (1: no cropping); its aspect ratio
        stays between 3/4 and 4/3.
      shortest: frames are first reduced so that the shorter side is this, in pixels; 0: not.
      flip: probability of a horizontal flip (per sequence).
      turn: largest rotation in degrees (per sequence).
      shear: largest shear in degrees (per sequence).
      zoom: largest relative change of scale (per sequence).
      frame_turn: largest further rotation in degrees (per frame).
      frame_shift: largest further shift as a share of the side (per frame).
      frame_bend: strength of the thin-plate spline (per frame), as a share of the side.
      brightness: largest relative change (per sequence); `contrast`, `saturation` likewise.
      contrast: see brightness.
      saturation: see brightness.
      hue: largest hue rotation in radians (per sequence).
      frame_colour: strength of further colour jitter (per frame), relative.
      grey: probability of a grey clip.
      min_area: least share of the first frame that an object must cover in it (BL30K: its objects
        are often slivers).
      max_area: largest such share (BL30K: an object that fills the frame teaches nothing).
      tries: clips drawn until one shows an object large enough.
      paste: objects of other videos in the clip.
      keep_megabytes: memory for decoded frames of all videos, per process: small sets of videos
        are decoded once if they fit.
      on_device: leave colour changes to `clips.augment_on_device`, which runs inside the
        training step; the loader then gives the frames of videos as they are. Clips of images,
        which have changes of their own, get these, too.
    """

    gaps: tuple[int, ...] = (5, 10, 15, 20, 25, 5)
    phases: tuple[float, ...] = (0.1, 0.2, 0.3, 0.4, 0.9)
    reverse: float = 0.5
    crop: float = 0.36
    shortest: int = 480
    flip: float = 0.5
    turn: float = 15.0
    shear: float = 10.0
    zoom: float = 0.1
    frame_turn: float = 0.0
    frame_shift: float = 0.0
    frame_bend: float = 0.0
    brightness: float = 0.1
    contrast: float = 0.03
    saturation: float = 0.03
    hue: float = 0.0
    frame_colour: float = 0.01
    grey: float = 0.05
    min_area: float = 0.0005
    max_area: float = 1.0
    tries: int = 20
    paste: PasteConfig = PasteConfig()
    keep_megabytes: int = 256
    on_device: bool = False

    def __post_init__(self) -> None:
        if not self.gaps or min(self.gaps) < 1 or len(self.phases) != len(self.gaps) - 1:
            raise RdejaxError(
                f"video.gaps={self.gaps}, video.phases={self.phases}: give gaps of 1 or more and "
                "one phase fewer"
            )
        if list(self.phases) != sorted(self.phases):
            raise RdejaxError(f"video.phases={self.phases}: give rising shares of the run")
        if self.keep_megabytes < 0:
            raise RdejaxError(f"video.keep_megabytes={self.keep_megabytes}: give 0 or more")
        if self.shortest < 0 or self.tries < 1 or self.min_area > self.max_area:
            raise RdejaxError(
                f"video.shortest={self.shortest}, video.tries={self.tries}, video.min_area="
                f"{self.min_area}, video.max_area={self.max_area}: give no negative size, at least "
                "one try, and the smaller area first"
            )
        for name in ("reverse", "crop", "flip", "grey", "min_area", "max_area"):
            if not 0 <= getattr(self, name) <= 1:
                raise RdejaxError(f"video.{name}={getattr(self, name)}: give a number from 0 to 1")
