"""Plots as inline SVG, drawn by these few lines so that the page's style sheet colours them.

Shapes are stretched to the width of the page while all text is HTML beside them, so that it keeps
its size on a telephone, and light, dark and print are a matter of the style sheet alone.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple, TypeGuard

from rdejax.report.markup import Html, element, join


class Series(NamedTuple):
    """Values with a name and the style sheet's class of their colour; None or NaN leaves a gap."""

    name: str
    style: str
    values: Sequence[float | None]


def bars(title: str, names: Sequence[str], series: Sequence[Series], top: float, unit: str) -> Html:
    """Horizontal bars, one group per name.

    Args:
      title: of the plot.
      names: of the groups.
      series: one value per name each.
      top: value of a bar of full length; > 0.
      unit: written behind the numbers.
    """
    rows = []
    for place, name in enumerate(names):
        values = [line.values[place] for line in series]
        height = 9 * len(series) + 3
        shapes = [
            element(
                "rect",
                class_=line.style,
                y=3 + 9 * number,
                height=7,
                width=f"{100 * min(1.0, max(0.0, value / top)):.2f}%",
            )
            for number, (line, value) in enumerate(zip(series, values, strict=True))
            if _known(value)
        ]
        drawing = element("svg", *shapes, class_="bar", height=height, aria_hidden="true")
        text = " / ".join(f"{value:.1f}" if _known(value) else "–" for value in values)
        rows.append(
            element(
                "tr",
                element("th", name, scope="row"),
                element("td", drawing, class_="drawing"),
                element("td", f"{text}{unit}", class_="number"),
            )
        )
    return element(
        "figure",
        element("figcaption", element("strong", title), " ", legend(series)),
        element("table", element("tbody", *rows), class_="bars"),
    )


def lines(
    title: str,
    x: Sequence[float],
    ends: tuple[str, str],
    series: Sequence[Series],
    top: float,
    unit: str,
) -> Html:
    """Curves over a common axis from 0 to `top`; what is higher ends at the upper edge.

    Args:
      title: of the plot.
      x: ascending positions of the values.
      ends: names of the first and the last position.
      series: as many values each as `x`.
      top: upper end of the axis; > 0.
      unit: of the values.
    """
    span = (x[-1] - x[0]) or 1.0
    places = [100 * (value - x[0]) / span for value in x]
    grid = [element("line", class_="grid", x1=0, x2=100, y1=y, y2=y) for y in (0, 25, 50, 75, 100)]
    curves = [
        element("path", class_=line.style, d=_path(places, line.values, top)) for line in series
    ]
    drawing = element(
        "svg",
        *grid,
        *curves,
        class_="curves",
        viewBox="0 0 100 100",
        preserveAspectRatio="none",
        role="img",
        aria_label=f"{title}: {'; '.join(_told(line, unit) for line in series)}",
    )
    labels = [element("span", f"{top * part:.4g}") for part in (1.0, 0.5, 0.0)]
    return element(
        "figure",
        element("figcaption", element("strong", title), f" ({unit}) ", legend(series)),
        element("div", *labels, class_="ordinate", aria_hidden="true"),
        drawing,
        element("div", *(element("span", end) for end in ends), class_="abscissa"),
        class_="plot",
    )


def legend(series: Sequence[Series]) -> Html:
    """Names beside their colours."""
    swatches = []
    for line in series:
        shape = element("rect", class_=line.style, width="100%", height="100%")
        swatches.append(element("svg", shape, class_="swatch", aria_hidden="true"))
        swatches.append(Html(f"{element('span', line.name)} "))
    return element("span", join(swatches), class_="legend")


def _path(places: Sequence[float], values: Sequence[float | None], top: float) -> str:
    """An SVG path; y grows downwards. A value between two gaps becomes a dot."""
    steps, drawing = [], False
    for place, value in zip(places, values, strict=True):
        if not _known(value):
            drawing = False
            continue
        y = 100 * (1 - min(1.0, max(0.0, value / top)))
        steps.append(f"{'L' if drawing else 'M'}{place:.2f} {y:.2f}")
        if not drawing:
            # A line of no length: shows as a dot, because line ends are round.
            steps.append("l0 0")
        drawing = True
    return "".join(steps)


def _told(line: Series, unit: str) -> str:
    known = [value for value in line.values if _known(value)]
    if not known:
        return f"{line.name} nowhere defined"
    mean = sum(known) / len(known)
    return f"{line.name} {min(known):.1f} to {max(known):.1f} {unit}, mean {mean:.1f}"


def _known(value: float | None) -> TypeGuard[float]:
    return value is not None and not math.isnan(value)
