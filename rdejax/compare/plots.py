"""Bar plots of a comparison; each function returns a matplotlib Figure and draws nothing else.

matplotlib is the extra `viz` and is imported when a figure is made.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from rdejax.compare.comparison import Comparison
from rdejax.errors import RdejaxError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's colours, told apart by colour-blind people, without yellow (weak on white).
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#666666")
BETTER, WORSE = "#0072B2", "#D55E00"


def need_matplotlib() -> Any:
    """The Figure class.

    Raises:
      RdejaxError: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise RdejaxError(
            "plots need matplotlib: pip install 'rdejax[viz]', or leave them out with --no-plots"
        ) from None
    return Figure


def global_figure(comparison: Comparison) -> Figure:
    """J&F, J and F of every run, and G where there are seen and unseen categories, in per cent."""
    names = comparison.names
    columns = ["J&F-Mean", "J-Mean", "F-Mean", "J-Recall", "F-Recall"]
    columns += [column for column in comparison.columns if column == "G" or "seen" in column]
    width = max(5.0, 0.6 + len(columns) * max(0.9, 0.36 * len(names)))
    figure = need_matplotlib()(figsize=(width, 3.6), layout="constrained")
    axes = figure.subplots()
    bar = 0.8 / len(names)
    for index, name in enumerate(names):
        values = [100 * comparison.overall[name][column] for column in columns]
        at = np.arange(len(columns)) + (index - (len(names) - 1) / 2) * bar
        drawn = axes.bar(at, values, 0.92 * bar, label=name, color=_colour(index))
        if len(names) <= 4:
            axes.bar_label(drawn, [_label(value) for value in values], fontsize=7, padding=1)
    axes.set_xticks(range(len(columns)), columns)
    axes.set_ylim(0, 108)
    _finish(axes, "y", "per cent")
    _legend(figure, names)
    return figure


def sequence_figure(comparison: Comparison, most: int = 40) -> Figure:
    """The metric of every run by sequence, sorted by the baseline.

    Args:
      comparison: see `compare`.
      most: at most so many sequences, those in which the lowest run is lowest.
    """
    names = comparison.names
    values = {name: comparison.values(name) for name in names}
    lowest = {key: min(values[name][key] for name in names) for key in comparison.counts}
    kept = sorted(lowest, key=lambda key: lowest[key])[:most]
    base = values[comparison.baseline]
    kept.sort(key=lambda key: base[key])
    height = 1.2 + len(kept) * max(0.2, 0.1 * len(names) + 0.06)
    figure = need_matplotlib()(figsize=(6.5, height), layout="constrained")
    axes = figure.subplots()
    bar = 0.8 / len(names)
    for index, name in enumerate(names):
        at = np.arange(len(kept)) + (index - (len(names) - 1) / 2) * bar
        axes.barh(
            at, [100 * values[name][key] for key in kept], bar, label=name, color=_colour(index)
        )
    _name_rows(axes, kept)
    axes.set_xlim(0, 100)
    _finish(axes, "x", f"{comparison.metric}, per cent")
    if len(kept) < len(comparison.counts):
        axes.set_title(f"the {len(kept)} lowest of {len(comparison.counts)} sequences", fontsize=9)
    _legend(figure, names)
    return figure


def difference_figure(comparison: Comparison, name: str, most: int = 40) -> Figure:
    """By how much a run's metric is above or below the baseline's, sorted, in points of per cent.

    Args:
      comparison: see `compare`.
      name: of the run.
      most: at most so many sequences, those that differ most.
    """
    differences = {key: 100 * value for key, value in comparison.differences(name).items()}
    kept = sorted(differences, key=lambda key: -abs(differences[key]))[:most]
    kept.sort(key=lambda key: differences[key])
    values = [differences[key] for key in kept]
    figure = need_matplotlib()(figsize=(6.5, 1.2 + 0.22 * len(kept)), layout="constrained")
    axes = figure.subplots()
    drawn = axes.barh(
        range(len(kept)), values, 0.75, color=[BETTER if value >= 0 else WORSE for value in values]
    )
    axes.bar_label(drawn, [f"{value:+.1f}" for value in values], fontsize=7, padding=2)
    axes.axvline(0, color="black", linewidth=0.8)
    limit = 1.18 * max([0.5, *(abs(value) for value in values if not math.isnan(value))])
    axes.set_xlim(-limit, limit)
    _name_rows(axes, kept)
    _finish(axes, "x", f"difference in {comparison.metric}, points")
    title = f"{name} against {comparison.baseline}"
    if len(kept) < len(differences):
        title += f"; the {len(kept)} of {len(differences)} sequences that differ most"
    axes.set_title(title, fontsize=9)
    return figure


def _name_rows(axes: Axes, names: list[str]) -> None:
    """Rows from top to bottom, close to the frame."""
    axes.set_yticks(range(len(names)), names, fontsize=8)
    axes.set_ylim(len(names) - 0.4, -0.6)


def _finish(axes: Axes, along: str, label: str) -> None:
    axes.grid(axis="x" if along == "x" else "y", color="0.88", linewidth=0.7)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    (axes.set_xlabel if along == "x" else axes.set_ylabel)(label)


def _legend(figure: Figure, names: list[str]) -> None:
    columns = min(len(names), 4)
    figure.legend(loc="outside upper center", ncols=columns, frameon=False, fontsize=8)


def _colour(index: int) -> str:
    return COLOURS[index % len(COLOURS)]


def _label(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.1f}"
