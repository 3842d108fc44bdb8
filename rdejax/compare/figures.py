"""Bar charts of a comparison; each function returns a matplotlib Figure and draws nothing else."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from rdejax.compare.comparison import Comparison
from rdejax.evaluate.score_table import percent
from rdejax.visualize.charts import COLOURS, chart_style, draw_bars, legend_above, new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

BETTER, WORSE = COLOURS[:2]


def global_figure(comparison: Comparison) -> Figure:
    """J&F, J and F of every run, and G where there are seen and unseen categories, in per cent."""
    names = comparison.names
    columns = ["J&F-Mean", "J-Mean", "F-Mean", "J-Recall", "F-Recall"]
    columns += [column for column in comparison.columns if column == "G" or "seen" in column]
    values = {name: [comparison.overall[name][column] for column in columns] for name in names}
    with chart_style():
        width = max(5.0, 0.6 + len(columns) * max(0.9, 0.36 * len(names)))
        figure, (axes,) = new_figure(1, (width, 3.6))
        bars = draw_bars(axes, columns, _per_cent(values), upright=True)
        for name, drawn in zip(names, bars, strict=True):
            if len(names) <= 4:
                axes.bar_label(drawn, [percent(v) for v in values[name]], fontsize=7, padding=1)
        axes.set_ylim(0, 108)
        axes.set_ylabel("per cent")
        legend_above(figure, len(names))
    return figure


def sequence_figure(comparison: Comparison, most: int = 40) -> Figure:
    """The metric of every run by sequence, sorted by the baseline.

    Args:
      comparison: see `compare`.
      most: at most so many sequences, those in which the lowest run is lowest.
    """
    values = {name: comparison.values(name) for name in comparison.names}
    lowest = {key: min(row[key] for row in values.values()) for key in comparison.counts}
    kept = sorted(lowest, key=lambda key: lowest[key])[:most]
    kept.sort(key=lambda key: values[comparison.baseline][key])
    with chart_style():
        height = 1.2 + len(kept) * max(0.2, 0.1 * len(values) + 0.06)
        figure, (axes,) = new_figure(1, (6.5, height))
        draw_bars(axes, kept, _per_cent({n: [v[key] for key in kept] for n, v in values.items()}))
        axes.set_xlim(0, 100)
        axes.set_xlabel(f"{comparison.metric}, per cent")
        if len(kept) < len(lowest):
            axes.set_title(f"the {len(kept)} lowest of {len(lowest)} sequences")
        legend_above(figure, len(values))
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
    with chart_style():
        figure, (axes,) = new_figure(1, (6.5, 1.2 + 0.22 * len(kept)))
        colours = [BETTER if value >= 0 else WORSE for value in values]
        (drawn,) = draw_bars(axes, kept, {name: values}, colours=[colours])
        axes.bar_label(drawn, [f"{value:+.1f}" for value in values], fontsize=7, padding=2)
        axes.axvline(0, color="black", linewidth=0.8)
        limit = 1.18 * max([0.5, *(abs(value) for value in values if not math.isnan(value))])
        axes.set_xlim(-limit, limit)
        axes.set_xlabel(f"difference in {comparison.metric}, points")
        title = f"{name} against {comparison.baseline}"
        if len(kept) < len(differences):
            title += f"; the {len(kept)} of {len(differences)} sequences that differ most"
        axes.set_title(title)
    return figure


def _per_cent(values: dict[str, list[float]]) -> dict[str, list[float]]:
    return {name: [100 * value for value in row] for name, row in values.items()}
