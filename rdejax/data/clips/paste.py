"""Object tracks of videos, pasted over a clip of another one: real motion of several objects.

A track is one object of a video with its frames and masks through time. Cut out and drawn over
other frames it keeps its own motion, changes of shape and blur, and its mask stays exact, whatever
hides it or is hidden by it.
"""

import dataclasses
from collections.abc import Callable, Sequence

import cv2
import numpy as np
from jaxtyping import Bool, Float, UInt8

from rdejax.data.clips.appearance import colour_matrix
from rdejax.data.clips.augment import affine
from rdejax.data.clips.curriculum import draw_frames
from rdejax.data.clips.from_images import cut_object, is_cut_off
from rdejax.data.clips.sprites import CUT_PAD, Sprite, cut_out, instances
from rdejax.data.config import ClipConfig, PasteConfig
from rdejax.data.sources.videos import VideoSource

_LEAST = 0.002  # share of its own frame that an object must cover to be cut out
_ENLARGED = 2.0  # a small object drawn larger than this would be a blur
_TRIES = 8  # tracks looked at for one whose object is there, and whole
_COLOURED = 0.3  # probability that a track has a colour of its own
_SWAY = 0.35  # jitter of the drift from frame to frame, relative to it
_ALIKE = 0.25  # largest difference of a look-alike in log size
_EDGE = 0.1  # share of the side round the frame in which no track is placed


@dataclasses.dataclass(frozen=True)
class Origin:
    """Where an object comes from: what another one just like it is cut from.

    Attributes:
      source: the videos.
      index: number of the sequence.
      ident: the object's id in it.
      size: side in output pixels (square root of its area); 0: not known.
    """

    source: VideoSource
    index: int
    ident: int
    size: float = 0.0


@dataclasses.dataclass
class Track:
    """An object's cut-outs in the frames of a clip, and where they go.

    Attributes:
      images: RGB about the object, uint8 [h, w, 3] each; None where it is not in its frame.
      alphas: its opacity, uint8 [h, w] each.
      maps: [2, 3] each, from pixels (x, y, 1) of a cut-out to those of the clip's frame.
    """

    images: list[UInt8[np.ndarray, "h w 3"] | None]
    alphas: list[UInt8[np.ndarray, "h w"]]
    maps: list[Float[np.ndarray, "2 3"]]

    def draw(
        self,
        t: int,
        frame: UInt8[np.ndarray, "h w 3"],
        labels: UInt8[np.ndarray, "h w"],
        label: int,
    ) -> None:
        """Draws the object of frame `t` over `frame` and its label over `labels`, in place."""
        image = self.images[t]
        if image is None:
            return
        height, width = self.alphas[t].shape
        corners = np.array([[0, 0, 1], [width, 0, 1], [0, height, 1], [width, height, 1.0]])
        reached = corners @ self.maps[t].T
        left, top = np.maximum(np.floor(reached.min(0)).astype(int) - 1, 0)
        right, bottom = np.minimum(np.ceil(reached.max(0)).astype(int) + 1, frame.shape[1::-1])
        if right <= left or bottom <= top:
            return
        move = self.maps[t] - np.array([[0, 0, left], [0, 0, top]])
        size, area = (int(right - left), int(bottom - top)), np.s_[top:bottom, left:right]
        alpha = cv2.warpAffine(self.alphas[t], move, size, flags=cv2.INTER_LINEAR)
        colour = cv2.warpAffine(
            image, move, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
        )
        frame[area] = _blend(colour, frame[area], alpha)
        labels[area][alpha > 127] = label


def paste_tracks(
    rng: np.random.Generator,
    frames: UInt8[np.ndarray, "t h w 3"],
    labels: UInt8[np.ndarray, "t h w"],
    hosts: Sequence[Origin],
    donors: "Donors",
    clip: ClipConfig,
    paste: PasteConfig,
    gap: int,
) -> int:
    """Pastes 1 to `paste.most` objects over a clip, in place; they get the next free ids.

    Each is, by chance, drawn before or behind the objects that the clip already has, and before or
    behind those pasted earlier. What hides an object hides its label.

    Args:
      rng: random generator.
      frames: the clip.
      labels: its ids; frames need not be square where no donor gives still images.
      hosts: the objects the clip has, with their sizes, of which look-alikes may be made.
      donors: where tracks come from.
      clip: of objects cut from still images: how they move.
      paste: see `PasteConfig`.
      gap: largest gap between neighbouring frames of a track, in frames of its source.

    Returns:
      How many were pasted; fewer than drawn where no usable object was found.
    """
    known = list(hosts)
    behind: list[tuple[Track | Sprite, int]] = []
    front: list[tuple[Track | Sprite, int]] = []
    free = np.setdiff1d(np.arange(1, 255), labels)
    wanted = int(rng.integers(1, paste.most + 1))
    for label in free[:wanted]:
        layer = _layer(rng, labels, known, donors, clip, paste, gap)
        if layer is not None:
            where = behind if rng.random() < paste.behind else front
            where.insert(int(rng.integers(len(where) + 1)), (layer, int(label)))
    for t in range(len(frames)):
        own, before = labels[t].copy(), frames[t].copy()
        for layer, label in behind:
            _draw(layer, t, frames[t], labels[t], label)
        if behind:
            _restore(frames[t], labels[t], before, own)
        for layer, label in front:
            _draw(layer, t, frames[t], labels[t], label)
    return len(behind) + len(front)


class Donors:
    """Where pasted objects come from.

    Args:
      sources: videos.
      weights: how likely each source is, relative; none: by their numbers of sequences.
      images: draws an image and its id mask, for objects of still images; or None.
    """

    def __init__(
        self,
        sources: Sequence[VideoSource],
        weights: Sequence[float] = (),
        images: Callable[[np.random.Generator], tuple[np.ndarray, np.ndarray]] | None = None,
    ):
        self.sources, self.images = list(sources), images
        shares = np.array([*weights] or [len(source) for source in sources], float)
        self._shares = shares / shares.sum()

    def sequence(self, rng: np.random.Generator) -> tuple[VideoSource, int]:
        """A random sequence: its source and its number there."""
        source = self.sources[rng.choice(len(self.sources), p=self._shares)]
        return source, int(rng.integers(len(source)))


def _layer(
    rng: np.random.Generator,
    labels: np.ndarray,
    known: list[Origin],
    donors: Donors,
    clip: ClipConfig,
    paste: PasteConfig,
    gap: int,
) -> Track | Sprite | None:
    """A look-alike, a still image's object or a new track; adds what it is to `known`."""
    if known and rng.random() < paste.lookalike:
        alike = known[rng.integers(len(known))]
        size = alike.size * float(np.exp(rng.uniform(-_ALIKE, _ALIKE)))
        return _track(rng, labels, alike, size, paste, gap)
    if donors.images is not None and rng.random() < paste.still:
        sized = dataclasses.replace(clip, smallest=paste.smallest, largest=paste.largest)
        return Sprite(rng, *cut_object(rng, donors.images), 0, sized)
    size = float(np.exp(rng.uniform(np.log(paste.smallest), np.log(paste.largest))))
    size *= min(labels.shape[1:])
    for remaining in range(_TRIES, 0, -1):
        origin = Origin(*donors.sequence(rng), 0, size)
        whole = remaining > _TRIES // 2
        made = _track(rng, labels, origin, origin.size, paste, gap, known, whole)
        if made is not None:
            return made
    return None


def _track(
    rng: np.random.Generator,
    labels: np.ndarray,
    origin: Origin,
    size: float,
    paste: PasteConfig,
    gap: int,
    known: list[Origin] | None = None,
    whole: bool = False,
) -> Track | None:
    """A track of an object (id 0: of any), which is added to `known`; None if there is none.

    With `whole` there is none either if the first frame's border cuts the object off.
    """
    source, index = origin.source, origin.index
    gap = max(1, gap // source.spacing)
    chosen = draw_frames(rng, source.length(index), len(labels), gap, 0.5)
    read = [source.read(index, int(frame)) for frame in chosen]
    present = instances(read[0][1], _LEAST)
    ident = origin.ident
    if not ident and present:
        ident = int(rng.choice(present))
    if ident not in present:
        return None
    masks = [(ids == ident).astype(np.uint8) for _, ids in read]
    if whole and is_cut_off(masks[0]):
        return None
    areas = [np.count_nonzero(mask) for mask in masks]
    if known is not None:
        known.append(dataclasses.replace(origin, ident=ident))
    own = float(np.sqrt(np.median([area for area in areas if area])))
    scale = min(size / own, _ENLARGED)
    return _place(rng, labels, [image for image, _ in read], masks, scale, paste)


def _place(
    rng: np.random.Generator,
    labels: np.ndarray,
    images: list[np.ndarray],
    masks: list[np.ndarray],
    scale: float,
    paste: PasteConfig,
) -> Track:
    """Cut-outs, and the path they take: their own in their video, and a drift."""
    boxes = [np.array(cv2.boundingRect(mask), float) for mask in masks]
    there = [t for t, box in enumerate(boxes) if box[2]]
    centres = np.array([box[:2] + box[2:] / 2 for box in boxes])
    for t in range(len(boxes)):  # where the object is out of its frame, its last place stands
        if t not in there:
            centres[t] = centres[t - 1]
    turn = affine(
        (0.0, 0.0), turn=rng.uniform(-1, 1) * paste.turn, zoom=scale, flip=rng.random() < paste.flip
    )
    forward = np.linalg.inv(turn)[:2, :2]
    path = _path(rng, (centres - centres[0]) @ forward.T, labels, paste)
    colour = None
    if rng.random() < _COLOURED:
        gain = rng.uniform(0.8, 1.2, 3)
        colour = colour_matrix(gain, rng.uniform(0.6, 1.3), rng.uniform(-0.3, 0.3))
    track = Track([], [], [])
    for t, (image, mask) in enumerate(zip(images, masks, strict=True)):
        if t not in there:
            track.images.append(None)
            track.alphas.append(np.zeros((0, 0), np.uint8))
            track.maps.append(np.zeros((2, 3)))
            continue
        cut, alpha, _ = cut_out(image, mask, scale)
        if colour is not None:
            cut = cv2.transform(cut, colour)
        # From the cut-out's pixels to the video's, about the object's centre, turned and enlarged.
        x, y, w, h = boxes[t]
        step = np.array([(w + 2 * CUT_PAD) / alpha.shape[1], (h + 2 * CUT_PAD) / alpha.shape[0]])
        linear = forward @ np.diag(step)
        corner = np.array([x, y]) - CUT_PAD + 0.5 * step - 0.5
        move = path[t] + forward @ (corner - centres[t])
        track.images.append(cut)
        track.alphas.append(alpha)
        track.maps.append(np.concatenate([linear, move[:, None]], axis=1))
    return track


def _path(
    rng: np.random.Generator, own: Float[np.ndarray, "t 2"], labels: np.ndarray, paste: PasteConfig
) -> Float[np.ndarray, "t 2"]:
    """Places (x, y) of an object's centre in the frames of a clip.

    Args:
      rng: random generator.
      own: its own motion, in output pixels.
      labels: of the clip; what it shows may be met.
      paste: see `PasteConfig`.
    """
    count, (height, width) = len(own), labels.shape[1:]
    size = min(height, width)
    # Where a video's camera does not follow, its object would be gone after a few frames.
    span = max(float(np.ptp(own, axis=0).max()), 1e-6)
    own = own * min(1.0, paste.span * size / span)
    angle = rng.uniform(0, 2 * np.pi)
    speed = size * paste.speed * rng.random()
    drift = speed * np.array([np.cos(angle), np.sin(angle)])
    steps = drift + _SWAY * speed * rng.normal(size=(count, 2))
    path = own + np.concatenate([np.zeros((1, 2)), np.cumsum(steps[1:], axis=0)])
    at = int(rng.integers(count))
    place = np.array([width, height]) * rng.uniform(_EDGE, 1 - _EDGE, 2)
    seen = labels[at] > 0
    if seen.any() and rng.random() < paste.meet:
        pixels = np.flatnonzero(seen)
        y, x = divmod(int(pixels[rng.integers(len(pixels))]), width)
        place = np.array([x, y], float)
    path += place - path[at]
    # The first frame decides what is followed, so the object has to be in it.
    edge = _EDGE * size
    inside = np.clip(path[0], edge, np.array([width, height]) - edge)
    return path + inside - path[0]


def _draw(
    layer: "Track | Sprite", t: int, frame: np.ndarray, labels: np.ndarray, label: int
) -> None:
    if isinstance(layer, Track):
        layer.draw(t, frame, labels, label)
        return
    if t:
        layer.step(t)
    layer.label = label
    layer.draw(frame, labels)


def _restore(
    frame: np.ndarray, labels: np.ndarray, before: np.ndarray, own: UInt8[np.ndarray, "h w"]
) -> None:
    """Draws the objects that were there before over what was pasted behind them, in place."""
    inside: Bool[np.ndarray, "h w"] = own > 0
    alpha = cv2.blur(255 * inside.astype(np.uint8), (3, 3))
    frame[:] = _blend(before, frame, alpha)
    labels[inside] = own[inside]


def _blend(over: np.ndarray, under: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    weight = cv2.merge([alpha] * 3)
    part = cv2.multiply(over, weight, scale=1 / 255)
    return cv2.add(part, cv2.multiply(under, cv2.bitwise_not(weight), scale=1 / 255))
