"""How frames cut from a video lie and look: one warp and one colour matrix for each.

Matrices are 3 x 3 and take homogeneous pixel positions (x, y, 1) of the output to those of the
source, so parts that happen one after the other are multiplied, and a frame is resampled once.
"""

import cv2
import numpy as np
from jaxtyping import Float, UInt8

from rdejax.data.clips.appearance import colour_matrix
from rdejax.data.clips.motion import CELL, control_points, spline
from rdejax.data.config import VideoConfig

FILL = (124, 116, 104)  # beyond the frame: ImageNet's mean colour, which the networks see as zero
ASPECT = 4 / 3  # widest crop
_FINE = 1.5  # source pixels per output pixel up to which four taps do not alias visibly

Matrix = Float[np.ndarray, "3 3"]
Colour = Float[np.ndarray, "3 4"]


# Geometry


def reduce_shortest(
    image: UInt8[np.ndarray, "h w 3"], ids: UInt8[np.ndarray, "h w"], shortest: int
) -> tuple[np.ndarray, np.ndarray]:
    """Image and ids with the shorter side reduced to `shortest` pixels; 0, or smaller: as given."""
    scale = shortest / min(ids.shape)
    if not shortest or scale >= 1:
        return image, ids
    size = (max(1, round(ids.shape[1] * scale)), max(1, round(ids.shape[0] * scale)))
    image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    return image, cv2.resize(ids, size, interpolation=cv2.INTER_NEAREST)


def affine(
    centre: tuple[float, float],
    *,
    turn: float = 0.0,
    shear: float = 0.0,
    zoom: float = 1.0,
    flip: bool = False,
    shift: tuple[float, float] = (0.0, 0.0),
) -> Matrix:
    """The matrix by which a picture appears turned, sheared, enlarged, mirrored and shifted.

    Args:
      centre: (x, y) that the change leaves in place.
      turn: degrees, clockwise as seen.
      shear: degrees, along x.
      zoom: factor on lengths.
      flip: mirror left and right, before the rest.
      shift: (x, y) in pixels, after the rest.
    """
    angle, skew = np.deg2rad(turn), np.tan(np.deg2rad(shear))
    rotation = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    forward = zoom * rotation @ np.array([[1.0, skew], [0.0, 1.0]])
    backward = np.linalg.inv(forward)
    if flip:
        backward[0] *= -1
    matrix = np.eye(3)
    matrix[:2, :2] = backward
    matrix[:2, 2] = np.array(centre) - backward @ (np.array(centre) + np.array(shift))
    return matrix


def crop(left: float, top: float, width: float, height: float, size: int) -> Matrix:
    """The matrix that shows a rectangle, in pixels from the corner, as size x size."""
    x, y = width / size, height / size
    return np.array([[x, 0, left + 0.5 * x - 0.5], [0, y, top + 0.5 * y - 0.5], [0, 0, 1.0]])


def draw_affine(rng: np.random.Generator, width: int, height: int, video: VideoConfig) -> Matrix:
    """Flip, rotation, shear and zoom about the middle, for all frames of a clip."""
    return affine(
        ((width - 1) / 2, (height - 1) / 2),
        turn=rng.uniform(-1, 1) * video.turn,
        shear=rng.uniform(-1, 1) * video.shear,
        zoom=1 + rng.uniform(-1, 1) * video.zoom,
        flip=bool(rng.random() < video.flip),
    )


def draw_crop(
    rng: np.random.Generator,
    width: int,
    height: int,
    focus: tuple[float, float],
    size: int,
    least: float,
) -> Matrix:
    """A random resized crop that shows a given point, for all frames of a clip.

    Args:
      rng: random generator.
      width: of the frame.
      height: of the frame.
      focus: (x, y) of a pixel that lies within the crop.
      size: side of the output.
      least: smallest area as a share of the frame's; 1: the whole frame, whatever its shape.
    """
    if least >= 1:
        return crop(0, 0, width, height, size)
    area = width * height * rng.uniform(least, 1)
    aspect = np.exp(rng.uniform(-1, 1) * np.log(ASPECT))
    wide, high = min(np.sqrt(area * aspect), width), min(np.sqrt(area / aspect), height)
    wide, high = min(wide, ASPECT * high), min(high, ASPECT * wide)
    left = _origin(rng, width, wide, focus[0])
    return crop(left, _origin(rng, height, high, focus[1]), wide, high, size)


def _origin(rng: np.random.Generator, whole: float, part: float, focus: float) -> float:
    """Start of a random interval of length `part` within 0..whole that holds pixel `focus`."""
    focus = float(np.clip(focus, 0, whole - 1))
    low, high = max(0.0, focus + 1 - part), min(whole - part, focus)
    return rng.uniform(low, max(low, high))


def draw_frame_warp(
    rng: np.random.Generator, size: int, video: VideoConfig
) -> tuple[Matrix, Float[np.ndarray, "c 2"] | None]:
    """What one frame adds, in output pixels: a small affine map, and control points of a spline.

    The points' displacements are shares of the side (see `motion.spline`); None for no
    bending.
    """
    middle = (size - 1) / 2
    turn = rng.uniform(-1, 1) * video.frame_turn
    x, y = rng.uniform(-1, 1, 2) * video.frame_shift * size
    matrix = affine((middle, middle), turn=turn, shift=(x, y))
    if not video.frame_bend:
        return matrix, None
    return matrix, video.frame_bend * rng.normal(size=(len(control_points()), 2))


def source_maps(
    size: int,
    sequence: Matrix,
    frame: Matrix | None = None,
    points: Float[np.ndarray, "c 2"] | None = None,
) -> tuple[Float[np.ndarray, "s s"], Float[np.ndarray, "s s"]]:
    """Source coordinates x and y, float32, of all output pixels: sequence(bend(frame(pixel)))."""
    # On a lattice of cell centres, one cell beyond the frame too; bilinear interpolation between
    # them leaves affine maps exact.
    axis = (np.arange(-(-size // CELL) + 2) - 0.5) * CELL - 0.5
    position = np.stack(np.meshgrid(axis, axis), -1).reshape(-1, 2)
    if frame is not None:
        position = position @ frame[:2, :2].T + frame[:2, 2]
    if points is not None:
        position = position + size * spline(points, (position - (size - 1) / 2) / (size / 2))
    position = position @ sequence[:2, :2].T + sequence[:2, 2]
    lattice = position.reshape(len(axis), len(axis), 2).astype(np.float32)
    full = cv2.resize(lattice, None, fx=CELL, fy=CELL, interpolation=cv2.INTER_LINEAR)
    x, y = cv2.split(full[CELL : CELL + size, CELL : CELL + size])
    return x, y


def warp_labels(
    ids: UInt8[np.ndarray, "h w"], x: Float[np.ndarray, "s s"], y: Float[np.ndarray, "s s"]
) -> UInt8[np.ndarray, "s s"]:
    """The nearest pixel's id; 0 beyond the frame."""
    return cv2.remap(ids, x, y, cv2.INTER_NEAREST, borderMode=cv2.BORDER_CONSTANT, borderValue=0)


def warp_image(
    image: UInt8[np.ndarray, "h w 3"], x: Float[np.ndarray, "s s"], y: Float[np.ndarray, "s s"]
) -> UInt8[np.ndarray, "s s 3"]:
    """Linear interpolation; the mean colour beyond the frame.

    Where the output is much smaller than the source, the source is first reduced by area.
    """
    span = max(float(np.ptp(x)), float(np.ptp(y))) / max(1, len(x) - 1)
    if span > _FINE:
        height, width = image.shape[:2]
        size = max(1, round(width * _FINE / span)), max(1, round(height * _FINE / span))
        image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
        x = (x + 0.5) * (size[0] / width) - 0.5
        y = (y + 0.5) * (size[1] / height) - 0.5
    border = cv2.BORDER_CONSTANT
    return cv2.remap(image, x, y, cv2.INTER_LINEAR, borderMode=border, borderValue=FILL)


# Colour


def change_colour(
    brightness: float = 1.0, contrast: float = 1.0, saturation: float = 1.0, hue: float = 0.0
) -> Colour:
    """Affine map of RGB: hue (radians) and saturation, then contrast, then a factor on all."""
    return brightness * colour_matrix(contrast, saturation, hue)


def compose_colours(first: Colour, second: Colour) -> Colour:
    """One map after the other, without rounding and clipping between them."""
    whole = np.concatenate([first, [[0.0, 0.0, 0.0, 1.0]]])
    return second @ whole


def draw_colour(rng: np.random.Generator, video: VideoConfig) -> Colour:
    """Colour change of all frames of a clip."""
    brightness, contrast, saturation = 1 + rng.uniform(-1, 1, 3) * np.array(
        [video.brightness, video.contrast, video.saturation]
    )
    hue = rng.uniform(-1, 1) * video.hue
    grey = rng.random() < video.grey
    return change_colour(brightness, contrast, 0.0 if grey else saturation, hue)


def draw_frame_colour(rng: np.random.Generator, video: VideoConfig) -> Colour:
    """Further colour change of one frame."""
    brightness, contrast, saturation = 1 + rng.uniform(-1, 1, 3) * video.frame_colour
    return change_colour(brightness, contrast, saturation)
