"""Charts of what benchmarks measured: time per stage, and growth along a long video."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float

from rdejax.errors import RdejaxError
from rdejax.files import read_json
from rdejax.visualize.charts import (
    COLOURS,
    chart_style,
    draw_bars,
    legend_above,
    logarithmic,
    new_figure,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

STAGES = ("encode", "read", "decode", "memorise")
_SERIES = ("frame", "ms_per_frame", "state_bytes")


def read_runs(path: Path) -> list[dict[str, Any]]:
    """Measured runs of a benchmark's JSON file.

    Raises:
      RdejaxError: no such file, no JSON, or no `runs` in it.
    """
    if path.is_dir():
        raise RdejaxError(f"{path}: this is a folder; give a JSON file of a benchmark")
    value = read_json(path)
    if value is None:
        raise RdejaxError(f"{path}: no such file; give a JSON file that a benchmark wrote")
    runs = value.get("runs")
    if not isinstance(runs, list) or not all(isinstance(run, dict) for run in runs):
        raise RdejaxError(f'{path}: holds no list "runs"; give a JSON file that a benchmark wrote')
    return runs


def stage_milliseconds(run: Mapping[str, Any], source: str = "a run") -> dict[str, float]:
    """Milliseconds per frame of each stage; memorising is spread over the `every` frames it serves.

    Args:
      run: `stages`: name -> seconds, or name -> {"median_s": seconds}; `every`, 1 unless given.
      source: where it comes from, for errors.

    Raises:
      RdejaxError: a stage is missing or no number.
    """
    stages = run.get("stages", {})
    found = {}
    for name in STAGES:
        seconds = stages.get(name) if isinstance(stages, Mapping) else None
        if isinstance(seconds, Mapping):
            seconds = seconds.get("median_s")
        if not isinstance(seconds, int | float):
            raise RdejaxError(
                f"{source}: no time of the stage {name!r}; give a file that "
                "benchmarks/profile_inference.py wrote, or one of that form"
            )
        found[name] = 1000 * seconds / (run.get("every", 1) if name == "memorise" else 1)
    return found


def component_times(
    runs: Sequence[Mapping[str, Any]], labels: Sequence[str] | None = None, source: str = "a run"
) -> "Figure":
    """Where the time of a frame goes: a bar per run of encode, read, decode and memorise.

    Args:
      runs: measured systems, see `stage_milliseconds`.
      labels: one per run; made of `label`, or `model` and `objects`, unless given.
      source: where they come from, for errors.

    Raises:
      RdejaxError: see `stage_milliseconds`; no run; matplotlib is not installed.
    """
    _check_any(runs, source)
    times = [stage_milliseconds(run, source) for run in runs]
    labels = labels or [_system_label(run, i) for i, run in enumerate(runs)]
    with chart_style():
        figure, (axes,) = new_figure(1, (6.4, 0.9 + 0.34 * len(runs)))
        stages = {stage: [time[stage] for time in times] for stage in STAGES}
        last = draw_bars(axes, labels, stages, stacked=True)[-1]
        totals = [f"{sum(time.values()):.3g}" for time in times]
        axes.bar_label(last, totals, padding=4, fontsize=8)
        axes.margins(x=0.08)
        axes.set_xlabel("ms per frame")
        legend_above(figure, len(STAGES))
    return figure


def growth_curves(
    runs: Sequence[Mapping[str, Any]],
    *,
    log: bool = False,
    log_size: bool = False,
    source: str = "a run",
) -> "Figure":
    """Two panels over the frame number: milliseconds per frame, and megabytes of state.

    Times are drawn twice: as measured, pale, and their running median.

    Args:
      runs: measured rules: `memory` (or `label`), and equally long `frame`, `ms_per_frame` (None
        where a call compiled) and `state_bytes`.
      log: logarithmic axes for time and size.
      log_size: one for size.
      source: where they come from, for errors.

    Raises:
      RdejaxError: a series is missing or of another length; matplotlib is not installed.
    """
    _check_any(runs, source)
    curves = [_series(run, source) for run in runs]
    several = len({run.get("model") for run in runs}) > 1
    with chart_style():
        figure, (left, right) = new_figure(2, (7.0, 2.7))
        for k, (run, (frame, times, size)) in enumerate(zip(runs, curves, strict=True)):
            label = str(run.get("label", run.get("memory", f"run {k}")))
            look: Any = {
                "color": COLOURS[k % len(COLOURS)],
                "linestyle": ("-", "--", ":")[k // len(COLOURS) % 3],
                "label": f"{run.get('model')}, {label}" if several else label,
            }
            left.plot(frame, times, color=look["color"], linewidth=0.5, alpha=0.3)
            left.plot(frame, running_median(times, max(1, len(frame) // 40)), **look)
            right.plot(frame, size / 1e6, **{**look, "label": None})
        left.set(title="time per frame", xlabel="frame", ylabel="ms")
        right.set(title="size of the memory", xlabel="frame", ylabel="MB")
        for axes in (left, right):
            axes.grid()
            if log or (log_size and axes is right):
                logarithmic(axes, "y")
            else:
                axes.set_ylim(bottom=0)
            axes.set_xlim(left=0)
        legend_above(figure, len(runs))
    return figure


def running_median(values: Float[np.ndarray, " n"], window: int) -> Float[np.ndarray, " n"]:
    """Median of the `window` values around each, NaN left out; NaN where there is no other."""
    half = window // 2
    padded = np.pad(np.asarray(values, float), half, constant_values=np.nan)
    parts = np.lib.stride_tricks.sliding_window_view(padded, 2 * half + 1)
    empty = np.all(np.isnan(parts), axis=1)
    # nanmedian warns about windows without numbers.
    return np.where(empty, np.nan, np.nanmedian(np.where(empty[:, None], 0.0, parts), axis=1))


def _check_any(runs: Sequence[Mapping[str, Any]], source: str) -> None:
    if not runs:
        raise RdejaxError(f"{source}: holds no run, so there is nothing to show")


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


def _system_label(run: Mapping[str, Any], index: int) -> str:
    if "label" in run:
        return str(run["label"])
    name, objects = f"{run.get('model', f'run {index}')}", run.get("objects")
    return name if objects is None else f"{name}, {objects} object{'s' * (objects != 1)}"
