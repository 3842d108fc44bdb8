"""Smooth random motion of a layer: affine drift and thin-plate-spline bending, as one remap."""

import functools

import cv2
import numpy as np
from jaxtyping import Float

CONTROL = 4  # control points per side of the spline
CELL = 8  # output pixels per cell of the lattice on which the warp is evaluated


def _kernel(squared: np.ndarray) -> np.ndarray:
    return squared * np.log(np.maximum(squared, 1e-12))


def control_points() -> Float[np.ndarray, "c 2"]:
    """The spline's control points (x, y), a regular grid on [-1, 1]^2, row by row."""
    side = np.linspace(-1, 1, CONTROL)
    return np.stack(np.meshgrid(side, side), -1).reshape(-1, 2)


@functools.cache
def _solver() -> np.ndarray:
    c = control_points()
    n = len(c)
    system = np.zeros((n + 3, n + 3))
    system[:n, :n] = _kernel(((c[:, None] - c[None]) ** 2).sum(-1))
    system[:n, n:] = np.concatenate([np.ones((n, 1)), c], 1)
    system[n:, :n] = system[:n, n:].T
    return np.linalg.inv(system)[:, :n]


def spline(values: Float[np.ndarray, "c 2"], at: Float[np.ndarray, "p 2"]) -> np.ndarray:
    """Thin-plate spline through values at the control points (Bookstein, 1989).

    f(x) = a + B x + sum_i w_i U(|x - c_i|), U(r) = r^2 log r^2, with sum w = 0 and sum w c = 0. The
    control points never move, so the system is solved once for all warps.

    Args:
      values: f at `control_points()`.
      at: points x.

    Returns:
      f(x), float64 [p, 2].
    """
    coefficients = _solver() @ values
    c = control_points()
    squared = (at[:, 0, None] - c[:, 0]) ** 2 + (at[:, 1, None] - c[:, 1]) ** 2
    # einsum, not @: matrices this small are not worth waking the BLAS threads.
    bent = np.einsum("pc,cd->pd", _kernel(squared), coefficients[: len(c)])
    return bent + coefficients[-3] + at[:, :1] * coefficients[-2] + at[:, 1:] * coefficients[-1]


class Motion:
    """Where each output pixel of each frame comes from, for one layer.

    An output pixel p comes from source point centre + q + extent * f(q / extent), q = M (p -
    position), with an affine M and a spline f: the layer bends at its own scale, wherever it is.

    Args:
      rng: random generator.
      centre: (x, y) point of the source image that the layer turns about.
      extent: (x, y) source pixels from the centre to the outermost control points.
      position: (x, y) of the centre in the first output frame, in pixels.
      scale: output pixels per source pixel in the first frame.
      speed: typical shift per frame in output pixels.
      turn: typical rotation per frame in radians.
      zoom: typical change of log scale per frame.
      bend: typical change per frame of the control points' displacement, as a share of `extent`.
    """

    def __init__(self, rng, centre, extent, position, scale, *, speed, turn, zoom, bend):
        self.rng = rng
        self.centre, self.extent = np.asarray(centre, float), np.asarray(extent, float)
        self.position = np.asarray(position, float)
        self.speed, self.turn, self.zoom, self.bend = speed, turn, zoom, bend
        angle = rng.uniform(0, 2 * np.pi)
        drift = speed * rng.uniform(0, 1)
        self.velocity = drift * np.array([np.cos(angle), np.sin(angle)])
        self.spin, self.growth = turn * rng.normal(0, 0.7), zoom * rng.normal(0, 0.7)
        self.angle, self.log_scale = 0.3 * turn * rng.normal(), np.log(scale)
        lively = bend > 0 or turn > 0
        self.shear, self.stretch = 0.08 * lively * rng.normal(size=2)
        shape = (CONTROL**2, 2)
        self.points = 1.5 * bend * rng.normal(size=shape)
        self.flow = 0.5 * bend * rng.normal(size=shape)

    def step(self, jump: float = 1.0) -> None:
        """Moves on by one frame: constant velocities plus jitter; `jump` multiplies the shift."""
        rng = self.rng
        jitter = 0.25 * self.speed * rng.normal(size=2)
        self.position = self.position + jump * (self.velocity + jitter)
        self.angle += self.spin + 0.4 * self.turn * rng.normal()
        self.log_scale += self.growth + 0.4 * self.zoom * rng.normal()
        self.growth *= 0.8  # or else a layer fills the frame, or is gone, after ten frames
        if self.bend or self.turn:
            self.shear, self.stretch = np.array([self.shear, self.stretch]) + 0.02 * rng.normal(
                size=2
            )
        self.points = self.points + self.flow + 0.7 * self.bend * rng.normal(size=self.points.shape)

    def matrix(self) -> np.ndarray:
        """M, from output to source offsets, [2, 2]."""
        cos, sin = np.cos(self.angle), np.sin(self.angle)
        shape = np.array([[np.exp(self.stretch), self.shear], [0, np.exp(-self.stretch)]])
        return np.array([[cos, sin], [-sin, cos]]) @ shape / np.exp(self.log_scale)

    def lattice(self, size: int) -> Float[np.ndarray, "n n 2"]:
        """Source (x, y) of the centres of CELL x CELL cells, one cell beyond the frame too."""
        axis = (np.arange(-(-size // CELL) + 2) - 0.5) * CELL - 0.5
        x, y = axis[None, :] - self.position[0], axis[:, None] - self.position[1]
        m = self.matrix()
        q = np.stack([m[0, 0] * x + m[0, 1] * y, m[1, 0] * x + m[1, 1] * y], -1)
        if self.points.any():
            flat = spline(self.points, (q / self.extent).reshape(-1, 2))
            q = q + flat.reshape(q.shape) * self.extent
        return (q + self.centre).astype(np.float32)

    def window(self, lattice: np.ndarray, width: int, height: int) -> tuple[int, int, int, int]:
        """Cells (top, bottom, left, right) that may show a source of that size; perhaps none."""
        step = np.abs(self.matrix()).sum(1) * CELL * 1.5
        x, y = lattice[..., 0], lattice[..., 1]
        inside = (x > -step[0]) & (x < width + step[0]) & (y > -step[1]) & (y < height + step[1])
        rows, columns = np.flatnonzero(inside.any(1)), np.flatnonzero(inside.any(0))
        if not len(rows):
            return 0, 0, 0, 0
        last = len(lattice) - 2  # the outermost cells are beyond the frame
        top, left = max(int(rows[0]) - 1, 0), max(int(columns[0]) - 1, 0)
        return top, min(int(rows[-1]), last), left, min(int(columns[-1]), last)

    def maps(
        self, size: int, source: tuple[int, int] | None = None
    ) -> tuple[np.ndarray, np.ndarray, tuple[slice, slice]]:
        """Source coordinates of output pixels now, for `cv2.remap`.

        Args:
          size: side of the output in pixels.
          source: (width, height) of a source with nothing beyond it; only the part of the output
            that can show it is returned. None: the whole output.

        Returns:
          x and y, float32, and the slices of the output that they belong to.
        """
        lattice = self.lattice(size)
        cells = len(lattice) - 2
        window = (0, cells, 0, cells) if source is None else self.window(lattice, *source)
        top, bottom, left, right = window
        # Bilinear between cell centres, which leaves an affine map exact; one cell more on every
        # side, because `cv2.resize` repeats the outermost values.
        part = np.ascontiguousarray(lattice[top : bottom + 2, left : right + 2])
        rows, columns = bottom - top, right - left
        if rows <= 0 or columns <= 0:
            empty = np.zeros((0, 0), np.float32)
            return empty, empty, (slice(0, 0), slice(0, 0))
        full = cv2.resize(part, ((columns + 2) * CELL, (rows + 2) * CELL))
        area = (
            slice(top * CELL, min(bottom * CELL, size)),
            slice(left * CELL, min(right * CELL, size)),
        )
        height, width = (s.stop - s.start for s in area)
        dense = full[CELL : CELL + height, CELL : CELL + width]
        x, y = cv2.split(dense)
        return x, y, area
