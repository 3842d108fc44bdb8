"""Smooth random motion of a layer: affine drift and thin-plate-spline bending, as one remap."""

import functools

import cv2
import numpy as np

_CONTROL = 4  # control points per side
_LATTICE = 13  # points per side at which the spline is evaluated


@functools.cache
def spline_matrix(control: int = _CONTROL, lattice: int = _LATTICE) -> np.ndarray:
    """Matrix from displacements of control points to displacements of a lattice, both on [-1, 1]^2.

    The thin-plate spline f(x) = a + B x + sum_i w_i U(|x - c_i|), U(r) = r^2 log r^2, that passes
    through given values at the control points with sum w = 0 and sum w c = 0 (Bookstein, 1989) is
    linear in those values, so one matrix serves every warp.

    Returns:
      float32 [lattice**2, control**2].
    """

    def grid(n: int) -> np.ndarray:
        side = np.linspace(-1, 1, n)
        return np.stack(np.meshgrid(side, side), -1).reshape(-1, 2)

    def kernel(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        squared = ((a[:, None] - b[None]) ** 2).sum(-1)
        return squared * np.log(np.maximum(squared, 1e-12))

    def affine(p: np.ndarray) -> np.ndarray:
        return np.concatenate([np.ones((len(p), 1)), p], 1)

    c, x = grid(control), grid(lattice)
    n = len(c)
    system = np.zeros((n + 3, n + 3))
    system[:n, :n] = kernel(c, c)
    system[:n, n:] = affine(c)
    system[n:, :n] = affine(c).T
    values = np.concatenate([np.eye(n), np.zeros((3, n))])
    coefficients = np.linalg.solve(system, values)
    return (np.concatenate([kernel(x, c), affine(x)], 1) @ coefficients).astype(np.float32)


class Motion:
    """Where each output pixel of each frame comes from, for one layer.

    Args:
      rng: random generator.
      size: side of the output in pixels.
      centre: (x, y) point of the source image that the layer turns about.
      position: (x, y) of that point in the first output frame, in pixels.
      scale: output pixels per source pixel in the first frame.
      speed: typical shift per frame in pixels.
      turn: typical rotation per frame in radians.
      zoom: typical change of log scale per frame.
      bend: typical change per frame of the control points' displacement, in pixels.
    """

    def __init__(self, rng, size, centre, position, scale, *, speed, turn, zoom, bend):
        self.rng, self.size, self.centre = rng, size, np.asarray(centre, np.float32)
        self.position = np.asarray(position, np.float32)
        self.speed, self.turn, self.zoom, self.bend = speed, turn, zoom, bend
        angle = rng.uniform(0, 2 * np.pi)
        drift = speed * rng.uniform(0, 1)
        self.velocity = drift * np.array([np.cos(angle), np.sin(angle)], np.float32)
        self.spin, self.growth = turn * rng.normal(0, 0.7), zoom * rng.normal(0, 0.7)
        self.angle, self.log_scale = 0.3 * rng.normal(0, turn), np.log(scale)
        self.shear = rng.normal(0, 0.08)
        self.stretch = rng.normal(0, 0.08)
        self.points = rng.normal(0, 1.5 * bend, (_CONTROL**2, 2)).astype(np.float32)

    def step(self) -> None:
        """Moves on by one frame: constant velocity plus jitter."""
        rng = self.rng
        self.position = self.position + self.velocity + rng.normal(0, 0.25 * self.speed, 2)
        self.angle += self.spin + rng.normal(0, 0.4 * self.turn)
        self.log_scale += self.growth + rng.normal(0, 0.4 * self.zoom)
        self.shear += rng.normal(0, 0.02)
        self.stretch += rng.normal(0, 0.02)
        noise = rng.normal(0, self.bend, self.points.shape)
        self.points = (self.points + noise).astype(np.float32)

    def maps(self) -> tuple[np.ndarray, np.ndarray]:
        """Source x and y of every output pixel now, float32 [size, size] each, for `cv2.remap`."""
        position = self.position.astype(np.float32)
        lattice = (spline_matrix() @ self.points).reshape(_LATTICE, _LATTICE, 2)
        size = (self.size, self.size)
        bend = cv2.resize(lattice, size, interpolation=cv2.INTER_CUBIC)
        axis = np.arange(self.size, dtype=np.float32)
        x = bend[..., 0] + (axis - position[0])[None, :]
        y = bend[..., 1] + (axis - position[1])[:, None]
        cos, sin = np.cos(self.angle), np.sin(self.angle)
        shape = np.array([[np.exp(self.stretch), self.shear], [0, np.exp(-self.stretch)]])
        m = (np.array([[cos, sin], [-sin, cos]]) @ shape / np.exp(self.log_scale)).astype(np.float32)
        cx, cy = self.centre.astype(np.float32)
        return m[0, 0] * x + m[0, 1] * y + cx, m[1, 0] * x + m[1, 1] * y + cy
