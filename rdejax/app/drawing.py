"""What people draw on a frame, as regions of pixels; boxes and strokes cut out by GrabCut."""

from collections.abc import Sequence

import cv2
import numpy as np
from jaxtyping import Bool, UInt8

from rdejax.errors import RdejaxError

Point = tuple[float, float]  # (x, y) in pixels of the frame
Region = Bool[np.ndarray, "h w"]

# GrabCut works on a picture of at most this longer side, and takes so many rounds.
_SIDE, _ROUNDS = 480, 4
# Of a box, the ellipses that are the object for certain and probably, in sizes of the box. With the
# whole box as probable object, objects that fill it vanish.
_CORE, _BODY = 0.35, 1.2
# What of the frame around a box it looks at, in sizes of the box: what is far off may look like the
# object.
_MARGIN = 0.15
# What of the frame around a stroke it looks at, in sizes of the stroke.
_AROUND = 0.75


def stroke(size: tuple[int, int], points: Sequence[Point], width: float) -> Region:
    """The pixels under a brush that was drawn along points.

    Args:
      size: (H, W) of the frame.
      points: where it was, in order.
      width: of the brush, in pixels.
    """
    canvas = np.zeros(size, np.uint8)
    if points:
        path = np.round(np.asarray(points, np.float64)).astype(np.int32)
        thick = max(1, round(width))
        cv2.polylines(canvas, [path], False, 1, thickness=thick)
        for x, y in path.tolist():  # round ends, and a click is a disc
            cv2.circle(canvas, (x, y), max(0, thick // 2), 1, -1)
    return canvas > 0


def polygon(size: tuple[int, int], points: Sequence[Point]) -> Region:
    """The pixels within a polygon.

    Raises:
      RdejaxError: fewer than three corners.
    """
    if len(points) < 3:
        raise RdejaxError("a polygon needs three corners or more")
    canvas = np.zeros(size, np.uint8)
    cv2.fillPoly(canvas, [np.round(np.asarray(points)).astype(np.int32)], 1)
    return canvas > 0


def box(size: tuple[int, int], a: Point, b: Point) -> Region:
    """The pixels of the box between two corners, cut off at the frame's border.

    Raises:
      RdejaxError: it has no pixels.
    """
    (left, right), (top, bottom) = (
        sorted(round(v) for v in pair) for pair in zip(a, b, strict=True)
    )
    region = np.zeros(size, bool)
    region[max(0, top) : max(0, bottom), max(0, left) : max(0, right)] = True
    if not region.any():
        raise RdejaxError("the box is empty: press, draw to the opposite corner and let go")
    return region


def cut_out_box(frame: UInt8[np.ndarray, "h w 3"], inside: Region) -> Region:
    """The object in a box, by GrabCut.

    What lies close around it is background for certain, and the middle is the object.

    Raises:
      RdejaxError: nothing was found in it.
    """
    rows, columns = np.flatnonzero(inside.any(1)), np.flatnonzero(inside.any(0))
    middle = (int(columns[0] + columns[-1]) // 2, int(rows[0] + rows[-1]) // 2)
    hints = np.where(inside, cv2.GC_PR_BGD, cv2.GC_BGD).astype(np.uint8)
    for share, mark in ((_BODY, cv2.GC_PR_FGD), (_CORE, cv2.GC_FGD)):
        axes = tuple(max(1, round(share * len(side) / 2)) for side in (columns, rows))
        within = cv2.ellipse(np.zeros_like(hints), middle, axes, 0, 0, 360, 1, -1) > 0
        hints[within & inside] = mark
    more = max(2, round(_MARGIN * max(len(rows), len(columns))))
    near = (
        slice(max(0, rows[0] - more), rows[-1] + more + 1),
        slice(max(0, columns[0] - more), columns[-1] + more + 1),
    )
    region = np.zeros_like(inside)
    region[near] = _grab_cut(np.ascontiguousarray(frame[near]), hints[near])
    return region


def cut_out_strokes(frame: UInt8[np.ndarray, "h w 3"], drawn: Region) -> Region:
    """The object that strokes lie in, by GrabCut: the strokes are the object for certain.

    What is far from them is background, in between GrabCut decides.

    Raises:
      RdejaxError: nothing was drawn, or nothing found.
    """
    if not drawn.any():
        raise RdejaxError("nothing is drawn in this frame to find the edges of; draw in the object")
    rows, columns = np.flatnonzero(drawn.any(1)), np.flatnonzero(drawn.any(0))
    more = _AROUND * max(rows[-1] - rows[0], columns[-1] - columns[0], 8)
    around = box(
        drawn.shape,
        (columns[0] - more, rows[0] - more),
        (columns[-1] + more, rows[-1] + more),
    )
    hints = np.where(around, cv2.GC_PR_BGD, cv2.GC_BGD).astype(np.uint8)
    reach = max(3, round(more / 4)) | 1
    near = cv2.dilate(drawn.astype(np.uint8), np.ones((reach, reach), np.uint8)) > 0
    hints[near & around] = cv2.GC_PR_FGD
    hints[drawn] = cv2.GC_FGD
    return _grab_cut(frame, hints)


def _grab_cut(frame: UInt8[np.ndarray, "h w 3"], hints: UInt8[np.ndarray, "h w"]) -> Region:
    height, width = hints.shape
    scale = min(1.0, _SIDE / max(height, width))
    small = (max(1, round(width * scale)), max(1, round(height * scale)))
    picture = cv2.resize(frame, small, interpolation=cv2.INTER_AREA)
    marks = cv2.resize(hints, small, interpolation=cv2.INTER_NEAREST)
    sure = np.isin(marks, (cv2.GC_FGD, cv2.GC_PR_FGD))
    if not sure.any() or not (marks == cv2.GC_BGD).any():
        raise RdejaxError("no object can be cut out: leave some background around it")
    cv2.setRNGSeed(0)  # the same drawing gives the same mask
    models = np.zeros((1, 65)), np.zeros((1, 65))
    cv2.grabCut(picture, marks, (0, 0, 1, 1), *models, _ROUNDS, cv2.GC_INIT_WITH_MASK)
    found = np.isin(marks, (cv2.GC_FGD, cv2.GC_PR_FGD)).astype(np.float32)
    region = cv2.resize(found, (width, height), interpolation=cv2.INTER_LINEAR) > 0.5
    if not region.any():
        raise RdejaxError("no object was found here: draw closer around it, or with the brush")
    return region
