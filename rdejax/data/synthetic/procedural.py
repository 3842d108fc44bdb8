"""Training images from nothing: textured objects over textured scenes, with exact masks."""

import cv2
import numpy as np
from jaxtyping import UInt8

from rdejax.data.synthetic.outlines import rasterise, silhouette
from rdejax.data.synthetic.textures import Textures
from rdejax.errors import RdejaxError

_COUNTS = (0.4, 0.35, 0.25)  # of one, two, three labelled objects
_TWIN = 0.25  # probability that an object is a copy of the one before

Patch = tuple[UInt8[np.ndarray, "n n 3"], UInt8[np.ndarray, "n n"]]


class ProceduralImages:
    """Random images and id masks, without any data: what `make_clip` needs to draw from.

    They play BL30K's part: clips of moving, bending, overlapping objects with exact masks, in any
    number. Objects are outlines with holes and insets, jointed figures and chains, each part with a
    texture of its own; some come in pairs that only their place tells apart. Behind them lie one or
    two textures and unlabelled clutter. What is drawn depends on `seed` and the generator alone.

    Args:
      seed: of the patterns that all textures are made of.
      size: shorter side of the images in pixels, 32 or more.

    Raises:
      RdejaxError: a smaller size.
    """

    def __init__(self, seed: int = 0, size: int = 288):
        if size < 32:
            raise RdejaxError(f"size={size}: give 32 pixels or more")
        self.size, self.textures = size, Textures(seed)

    def __call__(
        self, rng: np.random.Generator
    ) -> tuple[UInt8[np.ndarray, "h w 3"], UInt8[np.ndarray, "h w"]]:
        """An image, RGB, and ids 0 (background), 1, 2, ..., of which a few may be hidden."""
        height, width = self._shape(rng)
        image, ids = self._scene(rng, height, width), np.zeros((height, width), np.uint8)
        patch = None
        for label in range(1, 2 + rng.choice(len(_COUNTS), p=_COUNTS)):
            if patch is None or rng.random() >= _TWIN:
                side = round(self.size * np.exp(rng.uniform(np.log(0.25), np.log(0.8))))
                patch = self._object(rng, side)
            else:
                patch = _twin(rng, patch)
            _paste(rng, image, ids, patch, label)
        return image, ids

    def __repr__(self) -> str:
        return f"ProceduralImages(seed={self.textures.seed}, size={self.size})"

    def _shape(self, rng: np.random.Generator) -> tuple[int, int]:
        longer = round(self.size * rng.choice([1.0, 1.2, 1.4]))
        return (self.size, longer) if rng.random() < 0.75 else (longer, self.size)

    def _scene(self, rng: np.random.Generator, height: int, width: int) -> np.ndarray:
        """What is behind: a texture or two, and clutter that has no label."""
        image = self.textures(rng, height, width)
        if rng.random() < 0.5:
            other = self.textures(rng, height, width)
            border = _border(rng, self.textures.grey(rng, height, width, index=0))
            image = _blend(image, other, border)
        if rng.random() < 0.6:
            nothing = np.zeros((height, width), np.uint8)
            for _ in range(rng.integers(1, 5)):
                side = round(self.size * np.exp(rng.uniform(np.log(0.12), np.log(0.5))))
                _paste(rng, image, nothing, self._object(rng, side), 0)
        if rng.random() < 0.35:  # out of focus
            image = cv2.blur(image, (int(rng.integers(2, 6)),) * 2)
        return self.textures.light(rng, image)

    def _object(self, rng: np.random.Generator, side: int) -> Patch:
        """Colours and coverage of a random object."""
        side = max(side, 12)
        skins: dict[int, np.ndarray] = {}
        colour, alpha = np.zeros((side, side, 3), np.uint8), np.zeros((side, side), np.uint8)
        for part in silhouette(rng):
            if part.skin not in skins:
                skins[part.skin] = self.textures(rng, side, side)
            cover = rasterise(part, side)
            if part.inside:
                cover = cv2.min(cover, alpha)
            # Before there is anything to blend with, the edge would turn dark.
            colour = _blend(colour, skins[part.skin], cover) if alpha.any() else skins[part.skin]
            alpha = cv2.max(alpha, cover)
        return (_round_off(rng, colour, alpha) if rng.random() < 0.6 else colour), alpha


def _border(rng: np.random.Generator, rugged: np.ndarray) -> UInt8[np.ndarray, "h w"]:
    """Weights 0 to 255 that part an image in two: by a horizon of any slope, or into patches."""
    height, width = rugged.shape
    x = np.linspace(-1, 1, width, dtype=np.float32)
    y = np.linspace(-1, 1, height, dtype=np.float32)[:, None]
    slope = rng.normal(0, 0.3) if rng.random() < 0.6 else rng.normal(0, 3)
    rough = rng.choice([0.0, 0.3, 3.0]) / 127
    steep = rng.choice([150.0, 2500.0])
    field = y + slope * x + rng.uniform(-0.5, 0.5) + rough * (rugged.astype(np.float32) - 127)
    return np.clip(127 + steep * field, 0, 255).astype(np.uint8)


def _blend(under: np.ndarray, over: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    weight = cv2.merge([alpha, alpha, alpha])
    front = cv2.multiply(over, weight, scale=1 / 255)
    return cv2.add(front, cv2.multiply(under, cv2.bitwise_not(weight), scale=1 / 255))


def _round_off(rng: np.random.Generator, colour: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """Shading as of a body that is lit from one side and curves away at its edge."""
    depth = cv2.distanceTransform((alpha > 127).astype(np.uint8), cv2.DIST_L2, 3)
    depth = cv2.GaussianBlur(np.sqrt(depth / max(float(depth.max()), 1.0)), (0, 0), 2)
    side = len(alpha)
    x = np.linspace(-1, 1, side, dtype=np.float32)
    towards = rng.normal(0, 0.2, 2)
    gain = 1 - rng.uniform(0.1, 0.6) * (1 - depth) + towards[0] * x + towards[1] * x[:, None]
    gain = np.clip(127 * gain, 25, 255).astype(np.uint8)
    return cv2.multiply(colour, cv2.merge([gain, gain, gain]), scale=1 / 127)


def _twin(rng: np.random.Generator, patch: Patch) -> Patch:
    """The same object seen a little otherwise."""
    side = len(patch[1])
    matrix = cv2.getRotationMatrix2D((side / 2, side / 2), rng.uniform(-60, 60), 0.8)
    colour = cv2.warpAffine(patch[0], matrix, (side, side), borderMode=cv2.BORDER_REPLICATE)
    alpha = cv2.warpAffine(patch[1], matrix, (side, side))
    if rng.random() < 0.5:
        return cv2.flip(colour, 1), cv2.flip(alpha, 1)
    return colour, alpha


def _paste(
    rng: np.random.Generator, image: np.ndarray, ids: np.ndarray, patch: Patch, label: int
) -> None:
    """Draws an object at a random place, most of it within the image; in place."""
    colour, alpha = patch
    side = len(alpha)
    height, width = ids.shape
    # One in five may be cut off by the border.
    beyond = 0.3 * side if rng.random() < 0.2 else 0
    top = int(rng.uniform(-beyond, max(1, height - side + beyond)))
    left = int(rng.uniform(-beyond, max(1, width - side + beyond)))
    area = np.s_[max(0, top) : top + side, max(0, left) : left + side]
    cut = np.s_[max(0, -top) : height - top, max(0, -left) : width - left]
    colour, alpha = colour[cut], alpha[cut]
    image[area] = _blend(image[area], colour, alpha)
    ids[area][alpha > 127] = label
