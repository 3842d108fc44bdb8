"""Time per frame and size of the memory along a video, several rules in one plot."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float

from rdejax.errors import RdejaxError
from rdejax.visualize.style import LINES, chart_style, new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_SERIES = ("frame", "ms_per_frame", "state_bytes")


def running_median(values: Float[np.ndarray, " n"], window: int) -> Float[np.ndarray, " n"]:
    """Median of the `window` values around each, NaN left out; NaN where there is no other."""
    half = window // 2
    padded = np.pad(np.asarray(values, float), half, constant_values=np.nan)
    parts = np.lib.stride_tricks.sliding_window_view(padded, 2 * half + 1)
    empty = np.all(np.isnan(parts), axis=1)
    # nanmedian warns about windows without numbers.
    return np.where(empty, np.nan, np.nanmedian(np.where(empty[:, None], 0.0, parts), axis=1))


def growth_curves(
    runs: Sequence[Mapping[str, Any]], *, log: bool = False, source: str = "a run"
) -> "Figure":
    """Two panels over the frame number: milliseconds per frame, and megabytes of state.

    Times are drawn twice: as measured, pale, and their running median.

    Args:
      runs: measured rules: `memory` (or `label`), and equally long `frame`, `ms_per_frame` (None
        where a call compiled) and `state_bytes`.
      log: logarithmic axes for time and size.
      source: where they come from, for errors.

    Raises:
      RdejaxError: a series is missing or of another length; matplotlib is not installed.
    """
    if not runs:
        raise RdejaxError(f"{source}: holds no run, so there is nothing to show")
    curves = [_series(run, source) for run in runs]
    labels = _labels(runs)
    with chart_style():
        figure, (left, right) = new_figure(2, (7.0, 2.7))
        for k, (label, (frame, times, size)) in enumerate(zip(labels, curves, strict=True)):
            colour = LINES[k % len(LINES)]
            dashes = ("-", "--", ":")[k // len(LINES) % 3]
            left.plot(frame, times, color=colour, linewidth=0.5, alpha=0.3)
            window = max(1, len(frame) // 40)
            smooth = running_median(times, window)
            left.plot(frame, smooth, color=colour, linestyle=dashes, label=label)
            right.plot(frame, size / 1e6, color=colour, linestyle=dashes)
        left.set(title="time per frame", xlabel="frame", ylabel="ms")
        right.set(title="size of the memory", xlabel="frame", ylabel="MB")
        for axes in (left, right):
            axes.grid()
            if log:
                axes.set_yscale("log")
            else:
                axes.set_ylim(bottom=0)
            axes.set_xlim(left=0)
        figure.legend(loc="outside upper center", ncols=min(len(runs), 4))
    return figure


def _series(run: Mapping[str, Any], source: str) -> list[np.ndarray]:
    found = []
    for name in _SERIES:
        try:
            found.append(np.array(run[name], float).reshape(-1))  # None becomes NaN, a gap
        except (KeyError, TypeError, ValueError):
            raise RdejaxError(
                f"{source}: no series {name!r} of numbers; give a file that "
                "benchmarks/stream_growth.py wrote, or one of that form"
            ) from None
    if len({len(series) for series in found}) != 1 or not len(found[0]):
        lengths = ", ".join(f"{n} {len(s)}" for n, s in zip(_SERIES, found, strict=True))
        raise RdejaxError(f"{source}: series must be equally long and not empty, but: {lengths}")
    return found


def _labels(runs: Sequence[Mapping[str, Any]]) -> list[str]:
    several = len({run.get("model") for run in runs}) > 1
    labels = []
    for i, run in enumerate(runs):
        label = str(run.get("label", run.get("memory", f"run {i}")))
        labels.append(f"{run.get('model')}, {label}" if several else label)
    return labels
