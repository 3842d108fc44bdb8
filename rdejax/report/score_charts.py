"""Charts of the page: scores and times, drawn by matplotlib, coloured by the page's style sheet."""

import io
import math
import re
import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple
from xml.etree import ElementTree

import numpy as np
from markupsafe import Markup

from rdejax.evaluate.score_table import ScoreTable
from rdejax.evaluate.scores import Curve
from rdejax.infer.timing import read_pace
from rdejax.report.result_set import ResultSet
from rdejax.visualize.charts import (
    LINE_COLOURS,
    chart_style,
    draw_bars,
    legend_above,
    new_figure,
    printable,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Drawn in these colours, which the page's style sheet gives a light and a dark shade.
_J, _F, _TIME = "#0969da", "#bc4c00", "#1a7f37"
_SHADES = {
    _J: "var(--j)",
    _F: "var(--f)",
    _TIME: "var(--time)",
    **dict.fromkeys(LINE_COLOURS, "var(--line)"),
}
_WIDTH = 5.2  # inches; at 72 points each about what a telephone shows without shrinking the text
# Sequences at each end of the ranking whose curves are drawn.
_CURVES = 2


class Chart(NamedTuple):
    """A title and an SVG element."""

    title: str
    svg: Markup


def score_charts(table: ScoreTable, curves: Mapping[str, Curve]) -> list[Chart]:
    """J and F by sequence, and along the two worst and the two best ones.

    Args:
      table: the numbers.
      curves: by sequence; may be empty.

    Raises:
      RdejaxError: matplotlib is not installed.
    """
    names, charts = table.ranking, []
    if "J-Mean" in table.total and "F-Mean" in table.total and names:
        rows = [table.sequences[name] for name in names]
        series = {
            letter: [100 * row.get(f"{letter}-Mean", math.nan) for row in rows] for letter in "JF"
        }
        charts.append(_bar_chart("J and F by sequence, worst first", names, series, 100.0))
    for name in names if len(names) <= 2 * _CURVES else [*names[:_CURVES], *names[-_CURVES:]]:
        curve = curves.get(name)
        if curve is not None and curve.frames:
            series = {"J": (100 * curve.j).tolist(), "F": (100 * curve.f).tolist()}
            ends = (f"frame {curve.frames[0]}", curve.frames[-1])
            x = range(len(curve.frames))
            charts.append(_curve_chart(f"{name} along time", x, ends, series, 100.0, "per cent"))
    return charts


def time_charts(results: ResultSet) -> list[Chart]:
    """Time per frame: by sequence, or along a single video; what there is of it.

    Raises:
      RdejaxError: matplotlib is not installed; a damaged timing.csv.
    """
    if results.single:
        return _pace_chart(read_pace(results.path / "timing.csv"))
    times = {}
    for video in results.videos:
        facts = video.facts
        try:
            seconds = facts["seconds"] - facts["compile_seconds"]
            times[video.name] = 1000 * seconds / facts["frames"]
        except (KeyError, TypeError, ZeroDivisionError):
            continue  # another tool's result, or of no frame
    if not times:
        return []
    values = list(times.values())
    series = {"compilation left out": values}
    return [_bar_chart("Time per frame", list(times), series, max(*values, 1e-9), " ms")]


def _pace_chart(pace: Sequence[tuple[int, float]]) -> list[Chart]:
    """Milliseconds per frame of each chunk of a video."""
    steps = [
        (now[0], 1000 * (now[1] - before[1]) / (now[0] - before[0]))
        for before, now in zip(pace, pace[1:], strict=False)
        if now[0] > before[0]
    ]
    if len(steps) < 2:
        return []
    done, times = zip(*steps, strict=True)
    # Chunks that had to compile take many times as long and would hide all others.
    top = min(max(times), 3 * sorted(times)[len(times) // 2]) or 1.0
    higher = sum(time > top for time in times)
    title = "Time per frame along the video"
    if higher:
        title += f", {higher} of {len(times)} chunks (compilation) beyond the top"
    ends = (f"frame {pace[0][0]}", str(pace[-1][0]))
    return [_curve_chart(title, done, ends, {"each chunk": times}, top, "ms")]


def _bar_chart(
    title: str,
    names: Sequence[str],
    series: Mapping[str, Sequence[float]],
    top: float,
    unit: str = "",
) -> Chart:
    """Bars from 0 to `top`, with their numbers."""
    with chart_style():
        figure, (axes,) = new_figure(1, (_WIDTH, 0.6 + len(names) * (0.15 * len(series) + 0.1)))
        # What is undefined has no bar, but a dash where it would begin.
        lengths = {name: np.nan_to_num(values).tolist() for name, values in series.items()}
        drawn = draw_bars(axes, names, lengths, colours=_colours(series))
        for bars, values in zip(drawn, series.values(), strict=True):
            texts = ["–" if math.isnan(value) else f"{value:.1f}{unit}" for value in values]
            axes.bar_label(bars, texts, padding=3, fontsize=7)
        axes.set_xlim(0, 1.02 * top)
        return _chart(title, figure, axes, series, unit)


def _curve_chart(
    title: str,
    x: Sequence[float],
    ends: tuple[str, str],
    series: Mapping[str, Sequence[float]],
    top: float,
    unit: str,
) -> Chart:
    """Curves from 0 to `top`, where higher ones end; NaN leaves a gap, and what is alone is a dot.

    Args:
      title: of the chart.
      x: ascending positions of the values.
      ends: names of the first and the last position.
      series: as many values each as `x`.
      top: upper end of the axis; > 0.
      unit: of the values.
    """
    with chart_style():
        figure, (axes,) = new_figure(1, (_WIDTH, 2.3))
        for (name, values), colour in zip(series.items(), _colours(series), strict=True):
            y = np.clip(np.asarray(values, float), 0.0, top)
            axes.plot(x, y, color=colour, label=name)
            alone = ~np.isnan(np.pad(y, 1, constant_values=np.nan))
            alone = alone[1:-1] & ~alone[:-2] & ~alone[2:]
            for place in np.flatnonzero(alone).tolist():
                axes.plot([x[place]] * 2, [y[place]] * 2, color=colour, linewidth=3)
        places = dict(zip((x[-1], x[0]), map(printable, ends[::-1]), strict=True))
        ticks = axes.set_xticks(list(places), list(places.values()))
        for tick, side in zip(ticks, ("right", "left") if len(ticks) > 1 else (), strict=False):
            tick.label1.set_horizontalalignment(side)
        axes.margins(x=0.01)
        axes.set_ylim(0, 1.02 * top)
        axes.set_ylabel(unit)
        axes.grid(axis="y")
        return _chart(title, figure, axes, series, unit)


def _chart(
    title: str, figure: "Figure", axes: "Axes", series: Mapping[str, Sequence[float]], unit: str
) -> Chart:
    """The finished figure as markup."""
    # Marks of the ticks would be symbols that refer to each other by ids.
    axes.tick_params(length=0)
    legend_above(figure, len(series))
    told = []
    for name, values in series.items():
        known = [value for value in values if not math.isnan(value)]
        told.append(
            f"{name} {min(known):.1f} to {max(known):.1f}{unit and ' '}{unit.strip()}, "
            f"mean {sum(known) / len(known):.1f}"
            if known
            else f"{name} nowhere defined"
        )
    return Chart(title, inline_svg(figure, f"{title}: {'; '.join(told)}"))


def inline_svg(figure: "Figure", label: str) -> Markup:
    """A figure as an SVG element for the inside of a page.

    Its text is text, in the page's font and colour; it holds no ids, links or style of its own,
    which the page's policy would forbid.

    Args:
      figure: of `chart_style`, without markers and ticks.
      label: what it says, for those who cannot see it.
    """
    file = io.BytesIO()
    with chart_style(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # letters that matplotlib's font lacks; browsers have them
        figure.savefig(file, format="svg", transparent=True)
    svg = ElementTree.fromstring(file.getvalue())
    for node in svg.iter():
        for child in list(node):
            if child.tag.rpartition("}")[2] in ("metadata", "defs", "style"):
                node.remove(child)
    for node in svg.iter():
        node.tag = node.tag.rpartition("}")[2]
        # As attributes of their own: the page's policy forbids those called style.
        style: dict[str, str] = dict(re.findall(r"([\w-]+): *([^;]+)", node.get("style", "")))
        if size := re.search(r"[\d.]+px", style.pop("font", "") + style.pop("font-size", "")):
            style["font-size"] = str(size[0])
        node.attrib = {k: v for k, v in node.items() if k not in ("id", "clip-path", "style")}
        for key, value in style.items():
            if key != "font-family":
                node.set(key, _SHADES.get(value.lower(), value))
    svg.attrib = {"viewBox": svg.get("viewBox", ""), "class": "chart", "fill": "currentColor"}
    svg.attrib |= {"role": "img", "aria-label": printable(label)}
    return Markup(ElementTree.tostring(svg, encoding="unicode"))


def _colours(series: Mapping[str, Sequence[float]]) -> list[str]:
    return [_J, _F] if len(series) == 2 else [_TIME]
