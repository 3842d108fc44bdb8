"""How a clip looks: colour, light that drifts, blur, noise and compression."""

import cv2
import numpy as np
from jaxtyping import Float, UInt8

from rdejax.data.config import ClipConfig

_TO_YIQ = np.array([[0.299, 0.587, 0.114], [0.596, -0.274, -0.322], [0.211, -0.523, 0.312]])
_PIVOT = 110.0  # brightness that a change of contrast leaves as it is


def colour_matrix(
    gain: float | np.ndarray, saturation: float = 1.0, hue: float = 0.0, offset: float = 0.0
) -> Float[np.ndarray, "3 4"]:
    """Affine colour change for `cv2.transform` on RGB.

    Args:
      gain: contrast about mid grey, of all or of each channel.
      saturation: factor on the chroma, 0 for grey.
      hue: rotation of the chroma in radians.
      offset: added brightness, in levels of 255.

    Returns:
      [3, 4]; the identity for gain 1 and the defaults.
    """
    cos, sin = saturation * np.cos(hue), saturation * np.sin(hue)
    chroma = np.array([[1.0, 0, 0], [0, cos, -sin], [0, sin, cos]])
    gains = np.broadcast_to(np.asarray(gain, float), (3,))
    mix = gains[:, None] * (np.linalg.inv(_TO_YIQ) @ chroma @ _TO_YIQ)
    return np.concatenate([mix, (offset + _PIVOT * (1 - gains))[:, None]], 1)


def line_kernel(length: float, angle: float) -> Float[np.ndarray, "k k"]:
    """Blur along a line of `length` pixels, summing to one."""
    side = 2 * int(np.ceil(length / 2)) + 1
    kernel = np.zeros((side, side), np.float32)
    along = np.linspace(-length / 2, length / 2, 4 * side)
    x = np.round(side // 2 + along * np.cos(angle)).astype(int)
    y = np.round(side // 2 + along * np.sin(angle)).astype(int)
    np.add.at(kernel, (y, x), 1.0)
    return kernel / kernel.sum()


def jpeg_artefacts(frame: UInt8[np.ndarray, "h w 3"], quality: int) -> UInt8[np.ndarray, "h w 3"]:
    """The frame after JPEG compression; quality 1..100."""
    bgr = cv2.cvtColor(frame, cv2.COLOR_RGB2BGR)
    data = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
    decoded = cv2.imdecode(data, cv2.IMREAD_COLOR)
    assert decoded is not None
    return cv2.cvtColor(decoded, cv2.COLOR_BGR2RGB)


class Light:
    """Brightness that drifts: a factor per frame, a random walk that starts at 1.

    Args:
      rng: random generator.
      change: typical relative change per frame.
    """

    def __init__(self, rng: np.random.Generator, change: float):
        self.rng, self.change = rng, change
        self.trend, self.log = 0.6 * change * rng.normal(), 0.0

    def step(self) -> float:
        """The factor of this frame; moves on by one."""
        factor = float(np.exp(np.clip(self.log, -0.5, 0.5)))
        self.log += self.trend + 0.6 * self.change * self.rng.normal()
        return factor


class Appearance:
    """Changes of whole frames: what the clip has in common, and what drifts from frame to frame.

    Args:
      rng: random generator; the look of the clip is drawn here.
      config: probabilities and ranges.
    """

    def __init__(self, rng: np.random.Generator, config: ClipConfig):
        self.rng = rng
        self.gain = rng.uniform(0.7, 1.3) * rng.uniform(0.9, 1.1, 3)
        self.saturation = 0.0 if rng.random() < config.grey else rng.uniform(0.5, 1.4)
        self.hue, self.offset = rng.uniform(-0.2, 0.2), rng.uniform(-25, 25)
        self.light = Light(rng, config.light)
        self.blur = rng.uniform(0.5, 1.4) if rng.random() < config.blur else 0.0
        self.length = rng.uniform(2, 0.035 * config.size + 2)
        self.length *= rng.random() < config.motion_blur
        self.angle = rng.uniform(0, np.pi)
        self.quality = int(rng.integers(25, 85)) if rng.random() < config.jpeg else 0
        self.noise = None
        if rng.random() < config.noise:
            shape, level = (config.size, config.size, 3), rng.uniform(2, 9)
            noise = level * rng.standard_normal(shape, dtype=np.float32)
            self.noise = noise.astype(np.int16)

    def __call__(self, frame: UInt8[np.ndarray, "s s 3"]) -> UInt8[np.ndarray, "s s 3"]:
        """The next frame as the camera gives it."""
        rng = self.rng
        offset = self.offset + rng.uniform(-3, 3)
        matrix = colour_matrix(self.gain * self.light.step(), self.saturation, self.hue, offset)
        frame = cv2.transform(frame, matrix)
        if self.blur:
            frame = cv2.GaussianBlur(frame, (0, 0), self.blur)
        if self.length:
            length = self.length * rng.uniform(0.3, 1)
            frame = cv2.filter2D(frame, -1, line_kernel(length, self.angle))
            self.angle += 0.2 * rng.normal()
        if self.noise is not None:
            # One pattern, shifted: as good as a new one, and no generator to share among threads.
            shift = rng.integers(0, len(self.noise), 2)
            noise = np.roll(self.noise, tuple(shift), (0, 1))
            frame = cv2.add(frame, noise, dtype=cv2.CV_8U)
        return jpeg_artefacts(frame, self.quality) if self.quality else frame
