"""What a clip is drawn from: a background image, and sprites cut out of others."""

import cv2
import numpy as np
from jaxtyping import Bool, UInt8

from rdejax.data.clips.appearance import Light, colour_matrix
from rdejax.data.clips.motion import Motion
from rdejax.data.config import ClipConfig

CUT_PAD = 3  # pixels of background kept round a cut-out, so that its edge can be soft
_ENLARGED = 2.0  # a small cut-out drawn larger than this would be a blur


def instances(ids: UInt8[np.ndarray, "h w"], least: float) -> list[int]:
    """The ids that cover at least the share `least` of a mask."""
    counts = np.bincount(ids.ravel(), minlength=256)
    return [int(v) for v in np.flatnonzero(counts[1:] >= max(1.0, least * ids.size)) + 1]


def _mirror(rng: np.random.Generator, *arrays: np.ndarray) -> list[np.ndarray]:
    if rng.random() < 0.5:
        return [cv2.flip(array, 1) for array in arrays]
    return list(arrays)


def _brighten(image: np.ndarray, factor: float) -> np.ndarray:
    if abs(factor - 1) < 0.01:
        return image
    return cv2.convertScaleAbs(image, alpha=factor)


def cut_out(
    image: UInt8[np.ndarray, "h w 3"], mask: UInt8[np.ndarray, "h w"], scale: float
) -> tuple[np.ndarray, np.ndarray, float]:
    """Image and alpha (0..255) about an object, reduced if it will be drawn much smaller.

    Args:
      image: where it is cut out of.
      mask: the object, 0 or 1, not empty.
      scale: output pixels per pixel of the image.

    Returns:
      Both show the object's bounding box and `CUT_PAD` pixels of the image round it; and the output
      pixels per pixel of theirs.
    """
    x, y, w, h = cv2.boundingRect(mask)
    alpha = 255 * mask[y : y + h, x : x + w]
    image = image[max(0, y - CUT_PAD) : y + h + CUT_PAD, max(0, x - CUT_PAD) : x + w + CUT_PAD]
    # Colours where the image ends are repeated; alpha is 0 there, so that the object's edge is
    # as soft as elsewhere.
    top, left = CUT_PAD - min(y, CUT_PAD), CUT_PAD - min(x, CUT_PAD)
    bottom, right = h + 2 * CUT_PAD - image.shape[0] - top, w + 2 * CUT_PAD - image.shape[1] - left
    image = cv2.copyMakeBorder(image, top, bottom, left, right, cv2.BORDER_REPLICATE)
    alpha = cv2.copyMakeBorder(
        alpha, CUT_PAD, CUT_PAD, CUT_PAD, CUT_PAD, cv2.BORDER_CONSTANT, value=(0, 0, 0, 0)
    )
    if scale < 0.6:  # sampling four of many pixels would flicker
        factor = min(1.0, 1.5 * scale)
        reduced = (
            max(4, round(image.shape[1] * factor)),
            max(4, round(image.shape[0] * factor)),
        )
        scale *= float(np.sqrt(alpha.size / (reduced[0] * reduced[1])))
        image = cv2.resize(image, reduced, interpolation=cv2.INTER_AREA)
        alpha = cv2.resize(alpha, reduced, interpolation=cv2.INTER_AREA)
    else:
        alpha = cv2.blur(alpha, (3, 3))
    return image, alpha, scale


class Background:
    """An image that fills the frame and moves as a whole, as if the camera did.

    Args:
      rng: random generator.
      image: source.
      masks: objects in it that get the labels 1, 2, ...; uint8 0 or 1.
      config: speeds.
    """

    def __init__(
        self,
        rng: np.random.Generator,
        image: UInt8[np.ndarray, "h w 3"],
        masks: list[UInt8[np.ndarray, "h w"]],
        config: ClipConfig,
    ):
        self.image, *self.masks = _mirror(rng, image, *(255 * m for m in masks))
        h, w = image.shape[:2]
        size = config.size
        scale = size / min(h, w) * np.exp(rng.uniform(0.0, 0.6))
        focus = np.array([w, h]) * rng.uniform(0.2, 0.8, 2)
        position = size * rng.uniform(0.35, 0.65, 2)
        if self.masks:
            x, y, wide, high = cv2.boundingRect(self.masks[0])
            focus = np.array([x + wide * rng.uniform(0.2, 0.8), y + high * rng.uniform(0.2, 0.8)])
        # The first frame lies within the image: beyond it there are only its reflections.
        position = np.minimum(position, focus * scale)
        position = np.maximum(position, size - (np.array([w, h]) - focus) * scale)
        extent = np.full(2, 0.75 * size / scale)
        self.motion = Motion(
            rng,
            focus,
            extent,
            position,
            scale,
            speed=config.camera * size * rng.uniform(0, 1),
            turn=config.turn * 0.4 * rng.random(),
            zoom=config.zoom * 0.7 * rng.random(),
            bend=config.bend * rng.uniform(0, 1) * (rng.random() < (0.8 if masks else 0.3)),
        )

    def step(self, t: int) -> None:
        """Moves on to frame `t`."""
        del t
        self.motion.step()

    def draw(self, frame: UInt8[np.ndarray, "s s 3"], labels: UInt8[np.ndarray, "s s"]) -> None:
        """Fills `frame` and `labels`, in place."""
        x, y, _ = self.motion.maps(len(frame))
        border = cv2.BORDER_REFLECT_101
        cv2.remap(self.image, x, y, cv2.INTER_LINEAR, dst=frame, borderMode=border)
        labels[:] = 0
        for label, mask in enumerate(self.masks, 1):
            # Half of a linearly interpolated mask: as exact as the nearest pixel, but no staircase.
            shown = cv2.remap(mask, x, y, cv2.INTER_LINEAR, borderMode=border)
            labels[shown > 127] = label


class Sprite:
    """An object cut out of an image, which moves on its own over what is behind it.

    Args:
      rng: random generator.
      image: where it is cut out of.
      mask: the object, uint8 0 or 1, not empty.
      label: its label; 0 for a distractor.
      config: speeds and sizes.
    """

    def __init__(
        self,
        rng: np.random.Generator,
        image: UInt8[np.ndarray, "h w 3"],
        mask: UInt8[np.ndarray, "h w"],
        label: int,
        config: ClipConfig,
    ):
        self.label = label
        size = config.size
        target = np.exp(rng.uniform(np.log(config.smallest), np.log(config.largest))) * size
        own = np.sqrt(np.count_nonzero(mask))
        target = min(target, max(_ENLARGED * own, 1.5 * config.smallest * size))
        scale = target / own
        image, mask, scale = cut_out(image, mask, scale)
        image, mask = _mirror(rng, image, mask)
        if label == 0 or rng.random() < 0.3:  # a colour of its own
            gain = rng.uniform(0.75, 1.25, 3)
            matrix = colour_matrix(gain, rng.uniform(0.6, 1.3), rng.uniform(-0.4, 0.4))
            image = cv2.transform(image, matrix)
        self.image, self.alpha = image, mask
        lively = rng.uniform(0.05, 1)
        half = np.array([mask.shape[1], mask.shape[0]]) / 2
        self.motion = Motion(
            rng,
            half - 0.5,
            half,
            size * rng.uniform(0.12, 0.88, 2),
            scale,
            speed=config.speed * size * lively,
            turn=config.turn * lively,
            zoom=config.zoom * rng.random(),
            bend=config.bend * rng.uniform(0.2, 1.6),
        )
        self.light = Light(rng, config.light)
        jumps = rng.random() < config.jump and config.frames > 1
        self.jump_at = int(rng.integers(1, config.frames)) if jumps else 0
        self.jump = rng.uniform(2, 4)
        self.shadow = rng.uniform(0.2, 0.6) * (rng.random() < config.shadow)
        self.shadow_shift = target * rng.uniform(-0.3, 0.3, 2)

    def step(self, t: int) -> None:
        """Moves on to frame `t`."""
        self.motion.step(self.jump if t == self.jump_at else 1.0)

    def draw(self, frame: UInt8[np.ndarray, "s s 3"], labels: UInt8[np.ndarray, "s s"]) -> None:
        """Draws the object over `frame` and its label over `labels`, in place."""
        h, w = self.alpha.shape
        x, y, area = self.motion.maps(len(frame), (w, h))
        bright = self.light.step()
        if not x.size:
            return
        alpha = cv2.remap(self.alpha, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT)
        if self.shadow:
            self._cast(frame, alpha, area)
        colour = cv2.remap(self.image, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        weight = cv2.merge([alpha] * 3)
        over = cv2.multiply(_brighten(colour, bright), weight, scale=1 / 255)
        under = cv2.multiply(frame[area], cv2.bitwise_not(weight), scale=1 / 255)
        frame[area] = cv2.add(over, under)
        inside: Bool[np.ndarray, "h w"] = alpha > 127
        labels[area][inside] = self.label

    def _cast(self, frame: np.ndarray, alpha: np.ndarray, area: tuple[slice, slice]) -> None:
        """Darkens what is behind the object by its shifted, softened outline."""
        size = len(frame)
        shade = np.zeros((size, size), np.uint8)
        shade[area] = alpha
        shift = np.array([[1, 0, self.shadow_shift[0]], [0, 1, self.shadow_shift[1]]])
        shade = cv2.blur(cv2.warpAffine(shade, shift, (size, size)), (size // 16, size // 16))
        kept = cv2.convertScaleAbs(cv2.bitwise_not(shade), alpha=self.shadow, beta=0)
        kept = cv2.add(kept, np.full_like(kept, round(255 * (1 - self.shadow))))
        cv2.multiply(frame, cv2.merge([kept] * 3), dst=frame, scale=1 / 255)
