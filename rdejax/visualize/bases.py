"""Which of SWEM's bases stands for which part of the frame."""

from collections.abc import Sequence

import cv2
import numpy as np
from jaxtyping import Float, Int

from rdejax.io.overlay import render_overlay
from rdejax.propagate.geometry import Geometry
from rdejax.visualize.grid import Picture, fit, frame_names, greyed, grid, outlined
from rdejax.visualize.strides import spread
from rdejax.visualize.style import TILE, distinct_colours


def assign(
    key: Float[np.ndarray, "h w ck"], kappa: Float[np.ndarray, "2 K ck"], tau: float = 0.05
) -> tuple[Int[np.ndarray, "h w"], Float[np.ndarray, "h w k"]]:
    """The base each position is most like, and the weights of all of them.

    z = softmax over all bases of both sets of cos(x, kappa) / tau, as SWEM reads its memory (Lin et
    al., SWEM, CVPR 2022).

    Args:
      key: of one frame.
      kappa: keys of the bases, background and foreground.
      tau: temperature.

    Returns:
      Index int [h, w] into the 2K bases, the K of the background first; weights summing to 1.
    """
    bases = _unit(kappa.reshape(-1, kappa.shape[-1]))
    logits = _unit(key) @ bases.T / tau
    weights = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return logits.argmax(axis=-1), weights / weights.sum(axis=-1, keepdims=True)


def base_colours(bases: int) -> np.ndarray:
    """uint8 [2K, 3], one colour per base: pale ones for the background, bright for the object."""
    pale = distinct_colours(bases, saturation=0.25, value=0.55)
    return np.concatenate([pale, distinct_colours(bases)])


def base_map(
    frame: Picture, index: Int[np.ndarray, "H W"], bases: int, alpha: float = 0.7
) -> Picture:
    """A colour per base over the grey frame.

    Args:
      frame: RGB.
      index: base at each pixel, see `assign`.
      bases: K, the number of bases in a set.
      alpha: opacity of the paint, 0 to 1.
    """
    return cv2.addWeighted(greyed(frame), 1 - alpha, base_colours(bases)[index], alpha, 0)


def base_rows(
    frames: Sequence[Picture],
    numbers: Sequence[int],
    masks: Sequence[np.ndarray],
    keys: Sequence[Float[np.ndarray, "h w ck"]],
    kappas: Sequence[Float[np.ndarray, "2 K ck"]],
    geometry: Geometry,
    *,
    tau: float = 0.05,
    width: int = TILE,
) -> Picture:
    """The frames with masks, and under each the base that every position is most like.

    A base keeps its colour through the video, so one sees what it follows.

    Args:
      frames: RGB.
      numbers: of the frames.
      masks: ids of each frame.
      keys: of each frame.
      kappas: the object's bases after each frame.
      geometry: of the video.
      tau: temperature.
      width: of a tile, in pixels.
    """
    upper, lower = [], []
    for frame, mask, key, kappa in zip(frames, masks, keys, kappas, strict=True):
        index = spread(assign(key, kappa, tau)[0], geometry)
        painted = base_map(frame, index, kappa.shape[1])
        upper.append(fit(render_overlay(frame, mask), width))
        lower.append(outlined(fit(painted, width), mask))
    return grid([upper, lower], columns=frame_names(numbers), names=["masks", "bases"])


def _unit(x: np.ndarray) -> np.ndarray:
    return x / (np.linalg.norm(x, axis=-1, keepdims=True) + 1e-6)
