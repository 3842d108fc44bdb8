"""Outlines of things that do not exist: blobs, stars, superformula curves, jointed figures."""

import dataclasses

import cv2
import numpy as np
from jaxtyping import Float, UInt8

Polygon = Float[np.ndarray, "_ 2"]
_POINTS = 96  # of a smooth outline
_SUBPIXEL = 4  # bits of OpenCV's fixed-point vertices


@dataclasses.dataclass(frozen=True)
class TexturedPart:
    """A piece of one texture.

    Attributes:
      solid: polygons it consists of.
      holes: polygons cut out of it.
      inside: shown only where the parts before it are, as a spot on a body.
      skin: parts of the same skin share a texture.
    """

    solid: tuple[Polygon, ...]
    holes: tuple[Polygon, ...] = ()
    inside: bool = False
    skin: int = 0


def _around(radius: np.ndarray) -> Polygon:
    angle = np.linspace(0, 2 * np.pi, len(radius), endpoint=False)
    return np.stack([radius * np.cos(angle), radius * np.sin(angle)], -1)


def superformula(rng: np.random.Generator) -> Polygon:
    """Gielis' curve: from rounded polygons to petals."""
    angle = np.linspace(0, 2 * np.pi, _POINTS, endpoint=False)
    m = rng.integers(1, 9)
    n1, n2, n3 = np.exp(rng.uniform([-0.7, 0, 0], [1.8, 2, 2]))
    cos, sin = np.abs(np.cos(m * angle / 4)), np.abs(np.sin(m * angle / 4))
    radius = (cos**n2 + sin**n3 + 1e-6) ** (-1 / n1)
    radius /= radius.max()
    return _around(np.maximum(radius, 0.15))


def blob(rng: np.random.Generator) -> Polygon:
    """A circle with waves of falling height."""
    angle = np.linspace(0, 2 * np.pi, _POINTS, endpoint=False)
    orders = np.arange(1, 8)
    height = rng.uniform(0.1, 0.5) * rng.normal(size=7) / orders
    waves = np.cos(orders * angle[:, None] + rng.uniform(0, 2 * np.pi, 7))
    return _around(np.maximum(1 + waves @ height, 0.2))


def corners(rng: np.random.Generator) -> Polygon:
    """A polygon of three to eight corners, or a star."""
    count = int(rng.integers(3, 9))
    if rng.random() < 0.35:
        radius = np.tile([1.0, rng.uniform(0.35, 0.7)], count)
    else:
        radius = rng.uniform(0.6, 1, count)
    step = 2 * np.pi / len(radius)
    angle = step * (np.arange(len(radius)) + rng.uniform(-0.2, 0.2, len(radius)))
    return np.stack([radius * np.cos(angle), radius * np.sin(angle)], -1)


def _place(polygon: Polygon, scale, angle: float, at) -> Polygon:
    cos, sin = np.cos(angle), np.sin(angle)
    return (polygon * scale) @ np.array([[cos, sin], [-sin, cos]]) + at


def closed_curve(rng: np.random.Generator) -> Polygon:
    """A random closed curve of radius about one, stretched and turned."""
    make = (superformula, blob, blob, corners)[rng.integers(4)]
    stretch = np.array([1.0, np.exp(rng.uniform(-0.9, 0))])
    return _place(make(rng), stretch, rng.uniform(0, 2 * np.pi), 0.0)


def limb(start: np.ndarray, angle: float, length: float, thick: float, thin: float) -> Polygon:
    """A tapering piece with round ends, from `start` on."""
    turn = np.linspace(np.pi / 2, 1.5 * np.pi, 9)
    back = thick * np.stack([np.cos(turn), np.sin(turn)], -1)
    front = thin * np.stack([np.cos(turn + np.pi), np.sin(turn + np.pi)], -1) + [length, 0]
    return _place(np.concatenate([back, front]), 1.0, angle, start)


def _limbs(rng: np.random.Generator, start: np.ndarray, angle: float, size: float) -> list[Polygon]:
    """One to three segments, each bent against the one before."""
    pieces, thick = [], size * rng.uniform(0.1, 0.3)
    for _ in range(rng.integers(1, 4)):
        length, thin = size * rng.uniform(0.4, 0.9), thick * rng.uniform(0.5, 1)
        pieces.append(limb(start, angle, length, thick, thin))
        start = start + length * np.array([np.cos(angle), np.sin(angle)])
        angle, thick = angle + rng.normal(0, 0.6), thin
    return pieces


def creature(rng: np.random.Generator) -> list[TexturedPart]:
    """A body with a head and jointed limbs, partly of other textures."""
    body = _place(closed_curve(rng), rng.uniform(0.5, 0.8), 0.0, 0.0)
    parts = []
    for i in range(rng.integers(2, 6)):
        angle = rng.uniform(0, 2 * np.pi)
        start = 0.3 * np.array([np.cos(angle), np.sin(angle)])
        pieces = _limbs(rng, start, angle, rng.uniform(0.5, 1))
        parts.append(TexturedPart(tuple(pieces), skin=int(rng.integers(0, 3)) if i else 1))
    parts.append(TexturedPart((body,)))
    if rng.random() < 0.7:
        angle = rng.uniform(0, 2 * np.pi)
        at = 0.75 * np.array([np.cos(angle), np.sin(angle)])
        head = _place(closed_curve(rng), rng.uniform(0.25, 0.4), 0.0, at)
        parts.append(TexturedPart((head,), skin=int(rng.integers(0, 4))))
    return parts


def thing(rng: np.random.Generator) -> list[TexturedPart]:
    """One outline, perhaps with holes, and with pieces set into it."""
    body = closed_curve(rng)
    holes = []
    if rng.random() < 0.25:
        for _ in range(rng.integers(1, 3)):
            at = rng.uniform(-0.35, 0.35, 2)
            holes.append(_place(closed_curve(rng), rng.uniform(0.15, 0.4), 0.0, at))
    parts = [TexturedPart((body,), tuple(holes))]
    for skin in range(1, 1 + rng.integers(0, 3)):
        at = rng.uniform(-0.6, 0.6, 2)
        piece = _place(closed_curve(rng), rng.uniform(0.2, 0.8), 0.0, at)
        parts.append(TexturedPart((piece,), inside=True, skin=skin))
    return parts


def segments(rng: np.random.Generator) -> list[TexturedPart]:
    """Segments in a row, as of a caterpillar, a train or a snake."""
    at, angle, parts = np.zeros(2), rng.uniform(0, 2 * np.pi), []
    size, other = rng.uniform(0.2, 0.45), bool(rng.random() < 0.5)
    shape = closed_curve(rng)
    for i in range(rng.integers(3, 9)):
        piece = _place(shape, size, angle, at)
        parts.append(TexturedPart((piece,), skin=i % 2 if other else 0))
        at = at + 1.2 * size * np.array([np.cos(angle), np.sin(angle)])
        angle += rng.normal(0, 0.4)
    return parts


def silhouette(rng: np.random.Generator) -> list[TexturedPart]:
    """The parts of a random object from back to front, scaled into the square from -1 to 1."""
    kind = rng.random()
    parts = creature(rng) if kind < 0.35 else thing(rng) if kind < 0.85 else segments(rng)
    points = np.concatenate([polygon for part in parts for polygon in part.solid])
    low, high = points.min(0), points.max(0)
    middle, reach = (low + high) / 2, (high - low).max() / 2

    def fit(polygons: tuple[Polygon, ...]) -> tuple[Polygon, ...]:
        return tuple((polygon - middle) / reach for polygon in polygons)

    return [dataclasses.replace(p, solid=fit(p.solid), holes=fit(p.holes)) for p in parts]


def rasterise(part: TexturedPart, side: int) -> UInt8[np.ndarray, "n n"]:
    """Coverage of the pixels of a side x side square, 0 to 255; the square is -1 to 1."""
    alpha = np.zeros((side, side), np.uint8)
    for polygons, value in ((part.solid, 255), (part.holes, 0)):
        for polygon in polygons:
            pixels = (polygon + 1) * (side - 5) / 2 + 2
            vertices = np.round(pixels * 2**_SUBPIXEL).astype(np.int32)
            cv2.fillPoly(alpha, [vertices], value, cv2.LINE_AA, _SUBPIXEL)
    return alpha
