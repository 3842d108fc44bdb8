"""One training clip from static images: layers that move on their own, with exact labels."""

from collections.abc import Callable

import cv2
import numpy as np

from rdejax.data.config import ClipConfig
from rdejax.data.motion import Motion
from rdejax.data.perturb import perturb_mask

Sample = tuple[np.ndarray, np.ndarray]
Draw = Callable[[np.random.Generator], Sample]
_TRIES = 12


class Layer:
    """An image that moves over the frame; a sprite where it has an alpha mask.

    Attributes:
      image: uint8 [H, W, 3].
      ids: uint8 [H, W], output label of each pixel (0: none) if `alpha` is None, else unused.
      alpha: uint8 [H, W] 0..255, or None for a layer that covers everything.
      label: output label of a sprite (0: a distractor).
      motion: where it is.
    """

    def __init__(self, image, ids, alpha, label, motion):
        self.image, self.ids, self.alpha, self.label, self.motion = image, ids, alpha, label, motion

    def draw(self, frame: np.ndarray, labels: np.ndarray) -> None:
        """Draws the layer over `frame` and `labels`, in place."""
        mx, my = self.motion.maps()
        border = cv2.BORDER_REFLECT_101
        colour = cv2.remap(self.image, mx, my, cv2.INTER_LINEAR, borderMode=border)
        if self.alpha is None:
            frame[:] = colour
            labels[:] = cv2.remap(self.ids, mx, my, cv2.INTER_NEAREST, borderMode=border)
            return
        alpha = cv2.remap(self.alpha, mx, my, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT)
        weight = cv2.merge([alpha] * 3)
        inverse = cv2.bitwise_not(weight)
        over = cv2.multiply(colour, weight, scale=1 / 255)
        cv2.add(cv2.multiply(frame, inverse, scale=1 / 255), over, dst=frame)
        labels[alpha > 127] = self.label


def _instances(ids: np.ndarray, least: float) -> list[int]:
    values, counts = np.unique(ids[ids > 0], return_counts=True)
    return [int(v) for v, c in zip(values, counts, strict=True) if c >= least * ids.size]


def _base(rng, image, ids, config: ClipConfig) -> Layer:
    h, w = ids.shape
    cover = config.size / min(h, w)
    scale = cover * np.exp(rng.uniform(0.0, 0.6))
    focus = np.array([w, h]) * rng.uniform(0.3, 0.7, 2)
    if ids.any():
        ys, xs = np.nonzero(ids)
        focus = np.array([xs.mean(), ys.mean()]) * 0.6 + focus * 0.4
    if rng.random() < 0.5:
        image, ids = np.ascontiguousarray(image[:, ::-1]), np.ascontiguousarray(ids[:, ::-1])
        focus[0] = w - 1 - focus[0]
    motion = Motion(
        rng,
        config.size,
        focus,
        config.size * rng.uniform(0.35, 0.65, 2),
        scale,
        speed=config.camera * config.size * rng.uniform(0, 1),
        turn=config.turn * 0.4 * rng.random(),
        zoom=config.zoom * 0.7 * rng.random(),
        bend=config.bend * config.size * rng.uniform(0, 1),
    )
    return Layer(image, ids, None, 0, motion)


def _sprite(rng, image, mask, label: int, config: ClipConfig) -> Layer:
    ys, xs = np.nonzero(mask)
    top, bottom, left, right = ys.min(), ys.max() + 1, xs.min(), xs.max() + 1
    pad = 4
    window = np.s_[max(0, top - pad) : bottom + pad, max(0, left - pad) : right + pad]
    image, mask = image[window], mask[window]
    if rng.random() < 0.5:
        image, mask = image[:, ::-1], mask[:, ::-1]
    image = np.ascontiguousarray(image)
    if label == 0 or rng.random() < 0.3:  # a colour of its own
        gain = rng.uniform(0.75, 1.25, 3)
        image = cv2.transform(image, np.diag(gain))
    alpha = cv2.GaussianBlur(np.ascontiguousarray(mask).astype(np.uint8) * 255, (3, 3), 0)
    area = np.count_nonzero(mask)
    target = np.exp(rng.uniform(np.log(config.smallest), np.log(config.largest))) * config.size
    lively = rng.uniform(0.1, 1)
    motion = Motion(
        rng,
        config.size,
        np.array([mask.shape[1], mask.shape[0]]) / 2,
        config.size * rng.uniform(0.15, 0.85, 2),
        target / np.sqrt(area),
        speed=config.speed * config.size * lively,
        turn=config.turn * lively,
        zoom=config.zoom * rng.random(),
        bend=config.bend * config.size * rng.uniform(0.2, 1.2),
    )
    return Layer(image, None, alpha, label, motion)


def _cut(rng, draw: Draw) -> tuple[np.ndarray, np.ndarray]:
    """A random image and the mask of one of its objects."""
    while True:
        image, ids = draw(rng)
        found = _instances(ids, 0.004)
        if found:
            return image, ids == rng.choice(found)


def _layers(rng, draw: Draw, config: ClipConfig) -> list[Layer]:
    wanted = 1 + sum(rng.random() < config.second_object for _ in range(config.objects - 1))
    labelled: list[tuple[np.ndarray, np.ndarray]] = []
    sprites: list[Layer] = []
    image, ids = draw(rng)
    used = 0
    base_ids = np.zeros_like(ids)
    if rng.random() >= config.paste:  # the base image keeps its own objects, labelled
        found = _instances(ids, 0.01)
        rng.shuffle(found)
        for value in found[:wanted]:
            used += 1
            base_ids[ids == value] = used
            labelled.append((image, ids == value))
    base = _base(rng, image, base_ids, config)
    while used < wanted:
        used += 1
        cut = _cut(rng, draw)
        labelled.append(cut)
        sprites.append(_sprite(rng, *cut, used, config))
    for _ in range(config.distractors):
        if rng.random() < config.distractor:
            alike = rng.random() < config.lookalike
            cut = labelled[rng.integers(len(labelled))] if alike else _cut(rng, draw)
            sprites.append(_sprite(rng, *cut, 0, config))
    rng.shuffle(sprites)  # who is in front
    return [base, *sprites]


def _colour(rng, config: ClipConfig) -> Callable[[np.ndarray], np.ndarray]:
    """Colour change of a clip: a part all frames share, and a small one per frame."""
    saturation = 0.0 if rng.random() < config.grey else rng.uniform(0.6, 1.3)
    gain = rng.uniform(0.7, 1.3) * rng.uniform(0.9, 1.1, 3)
    offset = rng.uniform(-25, 25)
    blur = rng.uniform(0.5, 1.4) if rng.random() < config.blur else 0.0
    weights = np.array([0.299, 0.587, 0.114])

    def apply(frame: np.ndarray) -> np.ndarray:
        frame_gain = gain * rng.uniform(0.94, 1.06)
        mix = saturation * np.eye(3) + (1 - saturation) * weights[None]
        shift = offset + rng.uniform(-6, 6) + 110 * (1 - frame_gain)
        matrix = np.concatenate([frame_gain[:, None] * mix, shift[:, None]], 1)
        frame = cv2.transform(frame, matrix)
        return cv2.GaussianBlur(frame, (0, 0), blur) if blur else frame

    return apply


def _render(rng, layers: list[Layer], config: ClipConfig) -> tuple[np.ndarray, np.ndarray]:
    t, s = config.frames, config.size
    frames = np.zeros((t, s, s, 3), np.uint8)
    labels = np.zeros((t, s, s), np.uint8)
    colour = _colour(rng, config)
    for i in range(t):
        for layer in layers:
            if i:
                layer.motion.step()
            layer.draw(frames[i], labels[i])
        frames[i] = colour(frames[i])
    if rng.random() < 0.5:
        frames, labels = frames[::-1].copy(), labels[::-1].copy()
    return frames, labels


def make_clip(rng: np.random.Generator, draw: Draw, config: ClipConfig) -> dict[str, np.ndarray]:
    """A clip in which objects, distractors and camera move independently.

    Args:
      rng: random generator; the clip depends on nothing else.
      draw: gives a random image uint8 [H, W, 3] and id mask uint8 [H, W].
      config: see `ClipConfig`.

    Returns:
      frames uint8 [t, s, s, 3]; labels uint8 [t, s, s], 0 background; perturbed uint8 [o, s, s],
      imperfect first masks; valid bool [o]. The first slot is always filled.
    """
    for _ in range(_TRIES):
        frames, labels = _render(rng, _layers(rng, draw, config), config)
        area = np.bincount(labels[0].ravel(), minlength=config.objects + 1)[1:]
        good = area[: config.objects] >= config.min_area * config.size**2
        if good[0]:
            break
    valid = good.copy()
    valid[0] = True
    for slot in np.flatnonzero(~valid):
        labels[labels == slot + 1] = 0
    masks = [
        perturb_mask(rng, (labels[0] == o + 1).astype(np.uint8), config.perturb)
        for o in range(config.objects)
    ]
    return {"frames": frames, "labels": labels, "perturbed": np.stack(masks), "valid": valid}
