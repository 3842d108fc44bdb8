"""Charts, all in one style: bars, curves, and how they are written.

matplotlib is the extra `viz` and is imported when a figure is made.
"""

import contextlib
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rdejax.errors import RdejaxError
from rdejax.files import atomic

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.container import BarContainer
    from matplotlib.figure import Figure

# Okabe and Ito's colours, told apart with any kind of colour vision; yellow is too pale for lines.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
LINE_COLOURS = ("#444444", "#dddddd")  # of the axes and of the grid
_LONGEST = 28  # letters of a name beside its bars

_STYLE: dict[Any, Any] = {
    "font.family": "sans-serif",
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.labelsize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.8,
    "axes.edgecolor": LINE_COLOURS[0],
    "axes.axisbelow": True,
    "grid.color": LINE_COLOURS[1],
    "grid.linewidth": 0.6,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "legend.fontsize": 8,
    "legend.frameon": False,
    "lines.linewidth": 1.6,
    "savefig.dpi": 160,
    "text.parse_math": False,  # a dollar in the name of a sequence is a dollar
    "pdf.fonttype": 42,  # letters stay letters: journals refuse the default Type 3 fonts
    "svg.fonttype": "none",
}


def need_matplotlib(hint: str = "") -> None:
    """Makes sure that charts can be drawn.

    Args:
      hint: how to do without, for the message.

    Raises:
      RdejaxError: matplotlib is not installed.
    """
    try:
        import matplotlib
        from matplotlib.figure import Figure

        del matplotlib, Figure
    except ImportError:
        raise RdejaxError(
            f"charts need matplotlib, which is not installed: pip install 'rdejax[viz]'{hint}"
        ) from None


@contextlib.contextmanager
def chart_style() -> Iterator[None]:
    """Within it, matplotlib draws in the style of this library.

    Raises:
      RdejaxError: matplotlib is not installed.
    """
    need_matplotlib()
    import matplotlib

    with matplotlib.rc_context(_STYLE):
        yield


def new_figure(panels: int, size: tuple[float, float]) -> "tuple[Figure, list[Axes]]":
    """An empty figure with panels side by side; call it within `chart_style`.

    Args:
      panels: how many.
      size: (width, height) in inches.
    """
    from matplotlib.figure import Figure

    # Not pyplot's: nothing is registered globally, so nothing has to be closed.
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots(1, panels, squeeze=False)[0]
    return figure, list(axes)


def draw_bars(
    axes: "Axes",
    names: Sequence[str],
    series: Mapping[str, Sequence[float]],
    *,
    upright: bool = False,
    stacked: bool = False,
    colours: Sequence[Any] = COLOURS,
) -> "list[BarContainer]":
    """Groups of bars, from top to bottom or from left to right; call it within `chart_style`.

    Args:
      axes: to draw on.
      names: of the groups; long ones lose their middle.
      series: name -> one value per group each, NaN where there is none.
      upright: whether bars stand on the x axis instead of lying along it.
      stacked: whether the bars of a group continue each other instead of lying side by side.
      colours: of each series, or of each bar of it.

    Returns:
      The bars of each series.
    """
    names = [_short(printable(name)) for name in names]
    places, before = np.arange(len(names)), np.zeros(len(names))
    thick = 0.65 if stacked or len(series) == 1 else 0.8 / len(series)
    drawn = []
    for k, (label, values) in enumerate(series.items()):
        shift = 0.0 if stacked else (k - (len(series) - 1) / 2) * thick
        look: dict[str, Any] = {"color": colours[k % len(colours)], "label": label}
        if upright:
            drawn.append(axes.bar(places + shift, values, 0.92 * thick, bottom=before, **look))
        else:
            drawn.append(axes.barh(places + shift, values, 0.92 * thick, left=before, **look))
        before = before + np.asarray(values, float) if stacked else before
    if upright:
        axes.set_xticks(places, names)
    else:
        axes.set_yticks(places, names)
        axes.set_ylim(len(names) - 0.45, -0.55)
        axes.tick_params(axis="y", length=0)
    axes.grid(axis="y" if upright else "x")
    return drawn


def printable(text: str) -> str:
    """Text that pictures and pages may hold, U+FFFD for what is not UTF-8 or controls something.

    File names are bytes, of which Python keeps what it cannot read as lone surrogates.
    """
    text = text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    return re.sub(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ufffe\uffff]", "\ufffd", text)


def _short(name: str) -> str:
    return name if len(name) <= _LONGEST else f"{name[:18]}…{name[-9:]}"


def logarithmic(axes: "Axes", which: str) -> None:
    """A logarithmic scale with plain numbers: powers are mathematics, which the style leaves out.

    Args:
      axes: to draw on.
      which: "x" or "y".
    """
    getattr(axes, f"set_{which}scale")("log")
    getattr(axes, f"{which}axis").set_major_formatter(lambda value, _: f"{value:g}")


def legend_above(figure: "Figure", entries: int) -> None:
    """The names of the series above the panels, at most four in a row."""
    figure.legend(loc="outside upper center", ncols=min(entries, 4))


def save_figure(path: Path, figure: "Figure") -> None:
    """Writes a chart whole or not at all; folders on the way are made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with chart_style(), atomic(path) as temporary:
        # No date inside: the same chart is the same file.
        stamp = {".pdf": {"CreationDate": None}, ".svg": {"Date": None}}
        figure.savefig(temporary, metadata=stamp.get(path.suffix.lower()))
