"""Painted masks with blurred edges or compression noise, and the few colours that were meant."""

import dataclasses

import cv2
import numpy as np
from jaxtyping import Bool, Float32, Int, UInt8

from rdejax.errors import RdejaxError
from rdejax.io.palette import davis_colour_ids

# Difference between channels of neighbours that compression leaves inside of one colour.
_FLAT = 24
# Distance, in any channel, up to which flat pixels are of one colour.
_SAME = 40
# A true colour has flat places of so many pixels, and of this share of the picture.
_LEAST, _SHARE = 9, 1e-4
# How far an edge's pixel may be from a flat place of the colour that it is given.
_REACH = 4


@dataclasses.dataclass(frozen=True)
class Snapped:
    """A mask in few colours.

    Attributes:
      image: the colour that was meant, in every pixel.
      colours: which there are, the most frequent first.
      shares: of the picture that each of them takes.
      changed: share of the picture that had another colour before.
    """

    image: UInt8[np.ndarray, "h w 3"]
    colours: tuple[tuple[int, int, int], ...]
    shares: tuple[float, ...]
    changed: float

    def __str__(self) -> str:
        each = ", ".join(
            f"{colour_name(colour)} ({share:.1%})"
            for colour, share in zip(self.colours, self.shares, strict=True)
        )
        return f"{len(self.colours)} true colours: {each}; {self.changed:.1%} had others"


def snap(image: UInt8[np.ndarray, "h w 3"], name: str, most: int = 32) -> Snapped:
    """Gives every pixel of a painted mask the nearest of the colours that fill flat places.

    Edges between two colours pass through others, which may be those of a third object: so an
    edge's pixel gets the nearest colour of those that are flat close to it.

    Args:
      image: RGB; grey pictures have three equal channels.
      name: what errors call it.
      most: most colours accepted.

    Raises:
      RdejaxError: no flat places, as in a photograph, or more colours than `most`.
    """
    flat = _flat(image)
    centres = _centres(image, flat, most)
    if not centres:
        raise RdejaxError(
            f"{name}: no few true colours to be found, as in a photograph; paint each object in "
            "one colour on a background of another"
        )
    if len(centres) > most:
        raise RdejaxError(
            f"{name}: more than {most} colours in flat places; paint each object in one colour"
        )
    index = _nearest(image, flat, np.asarray(centres, np.uint8))
    colours = _tidied(centres)
    out = np.asarray(colours, np.uint8)[index]
    counts = dict.fromkeys(colours, 0)
    for colour, count in zip(
        colours, np.bincount(index.ravel(), minlength=len(colours)), strict=True
    ):
        counts[colour] += int(count)
    order = sorted((c for c in counts if counts[c]), key=lambda c: -counts[c])
    shares = tuple(counts[c] / index.size for c in order)
    changed = float((np.abs(out.astype(np.int16) - image).max(-1) > _FLAT // 2).mean())
    return Snapped(out, tuple(order), shares, changed)


def colour_name(colour: tuple[int, int, int]) -> str:
    """A colour as people write it: black, white, or #rrggbb."""
    known = {(0, 0, 0): "black", (255, 255, 255): "white"}
    return known.get(colour) or "#{:02x}{:02x}{:02x}".format(*colour)


def _flat(image: UInt8[np.ndarray, "h w 3"]) -> Bool[np.ndarray, "h w"]:
    """Pixels whose neighbours all have about their colour."""
    kernel = np.ones((3, 3), np.uint8)
    spread = cv2.dilate(image, kernel).astype(np.int16) - cv2.erode(image, kernel)
    return spread.max(axis=-1) <= _FLAT


def _centres(
    image: UInt8[np.ndarray, "h w 3"], flat: Bool[np.ndarray, "h w"], most: int
) -> list[tuple[int, int, int]]:
    """Colours of flat places, the most frequent first; at most one more than `most`."""
    colours, counts = np.unique(image[flat].reshape(-1, 3), axis=0, return_counts=True)
    least, centres = max(_LEAST, _SHARE * flat.size), []
    colours = colours.astype(np.int16)
    while len(counts) and len(centres) <= most:
        top = colours[np.argmax(counts)]
        near = np.abs(colours - top).max(axis=-1) <= _SAME
        if counts[near].sum() >= least:
            centres.append(tuple(int(value) for value in top))
        colours, counts = colours[~near], counts[~near]
    return centres


def _nearest(
    image: UInt8[np.ndarray, "h w 3"],
    flat: Bool[np.ndarray, "h w"],
    centres: UInt8[np.ndarray, "k 3"],
) -> Int[np.ndarray, "h w"]:
    """Number of each pixel's colour; see `snap`."""
    size = 2 * _REACH + 1
    distances = [_distance(image, centre) for centre in centres]
    anywhere = np.argmin(distances, axis=0)
    close = []
    for number, distance in enumerate(distances):
        here = (flat & (anywhere == number) & (distance <= _SAME**2 * 3)).astype(np.uint8)
        reached = cv2.dilate(here, np.ones((size, size), np.uint8)) > 0
        close.append(np.where(reached, distance, np.inf))
    found = np.argmin(close, axis=0)
    return np.where(np.isinf(np.min(close, axis=0)), anywhere, found)


def _distance(
    image: UInt8[np.ndarray, "h w 3"], centre: UInt8[np.ndarray, "3"]
) -> Float32[np.ndarray, "h w"]:
    return np.square(image.astype(np.float32) - centre[None, None].astype(np.float32)).sum(axis=-1)


def _tidied(centres: list[tuple[int, int, int]]) -> list[tuple[int, int, int]]:
    """Colours as they were before compression: black, white, those of DAVIS, pure channels."""
    known = [(0, 0, 0), (255, 255, 255), *davis_colour_ids()]
    pure = [(r, g, b) for r in (0, 255) for g in (0, 255) for b in (0, 255)]

    def apart(a: tuple[int, ...], b: tuple[int, ...]) -> int:
        return max(abs(x - y) for x, y in zip(a, b, strict=True))

    out = []
    for centre in centres:
        near = min((*pure, *known), key=lambda colour: apart(colour, centre))
        out.append(near if apart(near, centre) <= 4 else centre)
    return out
