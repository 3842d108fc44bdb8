"""Pictures of TMRN: trajectories of positions through the memory, and temporal weights."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from rdejax.memory.views import Arrows, Moment, Numbers, View

_STRIDE = 16
_MOST = 16  # arrows to a frame; more would hide it
_FAINTEST = 0.12  # opacity of an arrow to a frame of no weight


def views(trajectories: Callable[[Any, Any], tuple[Any, Any]]) -> Mapping[str, View]:
    """The views of a rule.

    Args:
      trajectories: see `TMRNMemory.trajectories`.
    """

    def looked(moment: Moment) -> tuple[np.ndarray, ...]:
        """Of the positions asked about: places, aligned places and weights; frames in memory."""
        query = jax.tree.map(lambda x: x[0], moment.query)
        aligned, weights = map(np.asarray, trajectories(moment.before, query))
        there, time = np.asarray(moment.positions), np.asarray(moment.before.time)
        held = np.flatnonzero(time)
        frames = np.array(moment.written)[time[held] - 1]
        return np.argwhere(there), aligned[there][:, held], weights[there][:, held], frames

    def arrows(moment: Moment) -> Arrows:
        places, aligned, weights, frames = looked(moment)
        some = np.unique(np.linspace(0, len(places) - 1, _MOST).round().astype(int))
        mean = weights.mean(0)
        begin = np.repeat(places[some][None], len(frames), axis=0)
        opacity = np.clip(weights[some] / max(float(mean.max()), 1e-12), _FAINTEST, 1.0)
        return Arrows(
            begin=_centres(begin),
            end=_centres(aligned[some].swapaxes(0, 1)),
            weights=opacity.T.astype(np.float32),
            frames=tuple(map(int, frames)),
            names=tuple(f"frame {t}: {100 * m:.1f} %" for t, m in zip(frames, mean, strict=True)),
        )

    def numbers(moment: Moment) -> Numbers:
        _, _, weights, frames = looked(moment)
        mean = weights.mean(0)
        values = {"first frame": float(mean[np.argmin(frames)])}
        if len(frames) > 1:
            values["latest memorised frame"] = float(mean[np.argmax(frames)])
        if len(frames) > 2:
            values["all others together"] = 1.0 - sum(values.values())
        return Numbers(values, "temporal weight")

    text = "where positions pass in each memorised frame; opacity and per cents: temporal weights"
    return {
        "trajectories": View(Arrows, arrows, text),
        "temporal": View(
            Numbers, numbers, "mean temporal weights of the object's positions, in every frame"
        ),
    }


def _centres(places: np.ndarray) -> np.ndarray:
    """Pixels in the middle of positions of the grid."""
    return (_STRIDE * places + _STRIDE / 2).astype(np.float32)
