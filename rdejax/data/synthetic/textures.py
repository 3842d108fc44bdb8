"""Textures made from nothing: patterns of grey values, coloured by random palettes."""

from collections.abc import Callable

import cv2
import numpy as np
from jaxtyping import Float, UInt8

SIDE = 384  # of a kept pattern, in pixels

Field = Float[np.ndarray, "h w"]
Pattern = Callable[[np.random.Generator], Field]


def noise(
    rng: np.random.Generator, coarse: int = 3, octaves: int = 6, persistence: float = 0.5
) -> Field:
    """Sum of smooth noises, each twice as fine as the one before; float32 in [0, 1].

    Args:
      rng: random generator.
      coarse: cells per side of the coarsest.
      octaves: number of them, as far as the pixels allow.
      persistence: amplitude of each as a share of the one before.
    """
    total, amplitude = np.zeros((SIDE, SIDE), np.float32), 1.0
    for octave in range(octaves):
        cells = coarse * 2**octave + 3
        if cells > SIDE:
            break
        grid = rng.random((cells, cells), dtype=np.float32)
        total += amplitude * cv2.resize(grid, (SIDE, SIDE), interpolation=cv2.INTER_CUBIC)
        amplitude *= persistence
    return _spread(total)


def _spread(field: np.ndarray) -> Field:
    low, high = float(field.min()), float(field.max())
    return ((field - low) / max(high - low, 1e-6)).astype(np.float32)


def _plane(rng: np.random.Generator) -> tuple[Field, Field]:
    """Coordinates of a turned and, as a rule, bent plane, from about -1 to 1."""
    y, x = np.mgrid[-1 : 1 : SIDE * 1j, -1 : 1 : SIDE * 1j].astype(np.float32)
    angle = rng.uniform(0, np.pi)
    x, y = np.cos(angle) * x - np.sin(angle) * y, np.sin(angle) * x + np.cos(angle) * y
    bend = rng.choice([0.0, 0.1, 0.4])
    if bend:
        x = x + bend * (noise(rng, 2, 3) - 0.5)
        y = y + bend * (noise(rng, 2, 3) - 0.5)
    return x, y


def clouds(rng: np.random.Generator) -> Field:
    """Fractal noise, from soft to rugged."""
    return noise(rng, int(rng.integers(2, 6)), 7, rng.uniform(0.35, 0.8))


def marble(rng: np.random.Generator) -> Field:
    """Contour lines of noise."""
    return 0.5 + 0.5 * np.sin(rng.uniform(8, 30) * noise(rng, 2, 5, rng.uniform(0.3, 0.6)))


def stripes(rng: np.random.Generator) -> Field:
    """Bands, soft or hard, of one or two widths."""
    x, y = _plane(rng)
    wave = np.sin(rng.uniform(8, 45) * x + rng.choice([0.0, 0.4]) * np.sin(rng.uniform(5, 20) * y))
    hard = rng.choice([1.0, 4.0, 20.0])
    return (0.5 + 0.5 * np.tanh(hard * wave)).astype(np.float32)


def checks(rng: np.random.Generator) -> Field:
    """Chequered squares or woven bands."""
    x, y = _plane(rng)
    rate = rng.uniform(6, 30)
    across, along = np.sin(rate * x), np.sin(rate * rng.choice([1.0, 0.5]) * y)
    if rng.random() < 0.5:
        return (0.5 + 0.5 * np.tanh(8 * across * along)).astype(np.float32)
    return _spread(np.maximum(np.tanh(6 * across), 0.7 * np.tanh(6 * along)))


def rings(rng: np.random.Generator) -> Field:
    """Circles or spirals about a point."""
    x, y = _plane(rng)
    x, y = x - rng.uniform(-1, 1), y - rng.uniform(-1, 1)
    turns = rng.integers(0, 4) * np.arctan2(y, x)
    wave = np.sin(rng.uniform(8, 35) * np.hypot(x, y) + turns)
    return (0.5 + 0.5 * np.tanh(rng.choice([1.0, 6.0]) * wave)).astype(np.float32)


def spots(rng: np.random.Generator) -> Field:
    """Discs of several sizes and shades over an even ground."""
    field = np.full((SIDE, SIDE), rng.uniform(0, 0.3), np.float32)
    largest = rng.uniform(5, 40)
    for _ in range(int(min(400, 12_000 / largest))):
        at = rng.integers(0, SIDE, 2).tolist()
        radius = max(2, int(largest * rng.uniform(0.3, 1)))
        cv2.circle(field, at, radius, rng.uniform(0.3, 1), -1, cv2.LINE_AA)
    return field


def cells(rng: np.random.Generator) -> Field:
    """Patches about random points, as stones, scales or cracked earth."""
    seeds = np.full((SIDE, SIDE), 255, np.uint8)
    count = int(np.exp(rng.uniform(np.log(30), np.log(900))))
    seeds[rng.integers(0, SIDE, count), rng.integers(0, SIDE, count)] = 0
    distance, owner = cv2.distanceTransformWithLabels(
        seeds, cv2.DIST_L2, cv2.DIST_MASK_5, labelType=cv2.DIST_LABEL_PIXEL
    )
    shades = rng.random(int(owner.max()) + 1, dtype=np.float32)
    if rng.random() < 0.4:
        return _spread(distance)
    return _spread(shades[np.asarray(owner, np.int32)] - rng.uniform(0, 0.9) * _spread(distance))


def bricks(rng: np.random.Generator) -> Field:
    """Rows of blocks with joints between them."""
    x, y = _plane(rng)
    rows = rng.uniform(4, 14)
    v = (y + 3) * rows
    u = (x + 3) * rows * rng.uniform(0.3, 0.8) + 0.5 * (np.floor(v) % 2)
    shades = rng.random((128, 128), dtype=np.float32)
    block = shades[np.floor(u).astype(int) % 128, np.floor(v).astype(int) % 128]
    joint = np.maximum(np.abs(u % 1 - 0.5), np.abs(v % 1 - 0.5)) > rng.uniform(0.42, 0.48)
    return np.where(joint, 0.0, 0.4 + 0.6 * block).astype(np.float32)


def grain(rng: np.random.Generator) -> Field:
    """Noise drawn out along one direction, as fur, wood, grass or rain."""
    fine = rng.random((SIDE, SIDE), dtype=np.float32)
    side = int(rng.integers(7, 31)) | 1
    kernel = np.zeros((side, side), np.float32)
    angle = rng.uniform(0, np.pi)
    dx, dy = side * np.cos(angle) / 2, side * np.sin(angle) / 2
    middle = side // 2
    start = (round(middle - dx), round(middle - dy))
    cv2.line(kernel, start, (round(middle + dx), round(middle + dy)), (1.0,), 1)
    streaks = _spread(cv2.filter2D(fine, -1, kernel / kernel.sum()))
    return _spread(streaks + rng.uniform(0, 1) * noise(rng, 2, 3))


def gradient(rng: np.random.Generator) -> Field:
    """A slope or a glow, hardly any structure."""
    x, y = _plane(rng)
    if rng.random() < 0.5:
        return _spread(x)
    return _spread(np.hypot(x - rng.uniform(-1, 1), y - rng.uniform(-1, 1)))


def patchwork(rng: np.random.Generator) -> Field:
    """Two patterns side by side, parted by a contour line of noise."""
    first, second = (_PLAIN[rng.integers(len(_PLAIN))](rng) for _ in range(2))
    parts = noise(rng, int(rng.integers(2, 5)), 4)
    weight = np.clip(20 * (parts - 0.5) + 0.5, 0, 1)
    return _spread(0.5 * first * weight + (0.5 + 0.5 * second) * (1 - weight))


_PLAIN: tuple[Pattern, ...] = (
    clouds,
    marble,
    stripes,
    checks,
    rings,
    spots,
    cells,
    bricks,
    grain,
    gradient,
)
# What the world shows most comes more than once.
PATTERNS: tuple[Pattern, ...] = (*_PLAIN, clouds, clouds, cells, grain, patchwork, patchwork)


def palette(rng: np.random.Generator) -> UInt8[np.ndarray, "1 256 3"]:
    """Colours of the grey values 0 to 255: a path through two to five random colours.

    Most are related and dull, as in photographs; some are loud. Some come in steps.
    """
    count = int(rng.integers(2, 6))
    tint = rng.normal(size=3) * rng.choice([8.0, 22.0, 55.0])
    light = rng.uniform(25, 225) + rng.choice([15.0, 45.0, 80.0]) * rng.normal(size=(count, 1))
    own = rng.normal(size=(count, 3)) * rng.choice([5.0, 16.0, 45.0])
    colours = light + tint + own
    # Mirrored, not clipped, or much would be plain black or white.
    colours = np.clip(255 - np.abs(255 - np.abs(colours)), 5, 250)
    at = np.sort(np.concatenate([[0, 255], rng.uniform(0, 255, count - 2)]))
    values = np.arange(256.0)
    if rng.random() < 0.2:
        table = colours[np.searchsorted(at[1:-1], values)]
    else:
        table = np.stack([np.interp(values, at, colours[:, c]) for c in range(3)], -1)
    return table.astype(np.uint8)[None]


class Textures:
    """Endless textures from a pool of patterns, each made when first asked for.

    Pattern i depends on (seed, i) alone; a texture shows part of one, turned, scaled and coloured
    anew. A copy that is sent to another process is sent without the pool.

    Args:
      seed: of the patterns.
      count: patterns in the pool (150 kB each).
    """

    def __init__(self, seed: int, count: int = 96):
        self.seed, self.count = seed, count
        self._pool: dict[int, UInt8[np.ndarray, "n n"]] = {}

    def __getstate__(self) -> dict:
        return {"seed": self.seed, "count": self.count, "_pool": {}}

    def pattern(self, index: int) -> UInt8[np.ndarray, "n n"]:
        """Grey values of pattern `index`."""
        field = self._pool.get(index)
        if field is None:  # made twice, and alike, if two threads come at once
            rng = np.random.default_rng([self.seed, index])
            made = PATTERNS[index % len(PATTERNS)](rng)
            # Nothing is quite even: without detail there is no motion to be seen within a patch.
            made = made + rng.choice([0.03, 0.1, 0.2]) * (noise(rng, 24, 4, 0.8) - 0.5)
            field = self._pool[index] = np.clip(255 * made, 0, 255).astype(np.uint8)
        return field

    def grey(
        self, rng: np.random.Generator, height: int, width: int, index: int | None = None
    ) -> UInt8[np.ndarray, "h w"]:
        """Part of a random pattern at a random scale, mirrored and turned by right angles."""
        field = self.pattern(int(rng.integers(self.count)) if index is None else index)
        if rng.random() < 0.5:
            field = cv2.transpose(field)
        zoom = max(np.exp(rng.uniform(-0.7, 0.7)), max(height, width) / SIDE)
        h, w = (min(SIDE, max(8, int(n / zoom))) for n in (height, width))
        top, left = int(rng.integers(SIDE - h + 1)), int(rng.integers(SIDE - w + 1))
        part = field[top : top + h, left : left + w]
        reduced = cv2.INTER_AREA if zoom < 1 else cv2.INTER_LINEAR
        return cv2.flip(cv2.resize(part, (width, height), interpolation=reduced), _flip(rng))

    def __call__(
        self, rng: np.random.Generator, height: int, width: int
    ) -> UInt8[np.ndarray, "h w 3"]:
        """A random texture, RGB."""
        grey = self.grey(rng, height, width)
        return cv2.LUT(cv2.merge([grey, grey, grey]), palette(rng))

    def light(self, rng: np.random.Generator, image: UInt8[np.ndarray, "h w 3"]) -> np.ndarray:
        """The image under light that varies slowly from place to place."""
        x, y = np.meshgrid(np.linspace(-1, 1, 6), np.linspace(-1, 1, 6))
        slope = rng.normal(size=2) * rng.uniform(0, 0.2)
        gain = 1 + slope[0] * x + slope[1] * y + 0.06 * rng.normal(size=(6, 6))
        gain = np.clip(127 * gain, 40, 220).astype(np.uint8)
        full = cv2.resize(gain, image.shape[1::-1], interpolation=cv2.INTER_CUBIC)
        return cv2.multiply(image, cv2.merge([full, full, full]), scale=1 / 127)


def _flip(rng: np.random.Generator) -> int:
    return int(rng.integers(-1, 2))
