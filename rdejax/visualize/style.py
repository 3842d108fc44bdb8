"""Colours, letters and sizes of every picture, in one place."""

import colorsys
import contextlib
import functools
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import UInt8
from PIL import ImageFont

from rdejax.errors import RdejaxError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's colours, told apart with any kind of colour vision; yellow is too pale for lines.
LINES = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")

PAPER = (255, 255, 255)
INK = (34, 34, 34)
# Of boxes and marks on photographs: far from the DAVIS colours of small ids, which have no 255.
MARK = (255, 225, 0)
MARK_EDGE = (0, 0, 0)

TEXT = 14
"""Height of letters in images, in pixels."""
GAP = 5
"""Between the tiles of a grid, in pixels."""
TILE = 300
"""Width of a tile, in pixels, unless told."""

_CHART: dict[Any, Any] = {
    "font.family": "sans-serif",
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.labelsize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.8,
    "axes.edgecolor": "#444444",
    "grid.color": "#dddddd",
    "grid.linewidth": 0.6,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "legend.fontsize": 8,
    "legend.frameon": False,
    "lines.linewidth": 1.6,
    "savefig.dpi": 160,
    "pdf.fonttype": 42,  # letters stay letters: journals refuse the default Type 3 fonts
    "svg.fonttype": "none",
}


@functools.cache
def font(size: int = TEXT) -> ImageFont.ImageFont | ImageFont.FreeTypeFont:
    """The font of labels in images, the one that comes with Pillow."""
    return ImageFont.load_default(size)


@contextlib.contextmanager
def chart_style() -> Iterator[None]:
    """Within it, matplotlib draws in the style of this library.

    Raises:
      RdejaxError: matplotlib is not installed.
    """
    try:
        import matplotlib
    except ImportError:
        raise RdejaxError(
            "charts need matplotlib, which is not installed: pip install 'rdejax[viz]'"
        ) from None
    with matplotlib.rc_context(_CHART):
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


def distinct_colours(
    count: int, saturation: float = 0.85, value: float = 0.95
) -> UInt8[np.ndarray, "k 3"]:
    """RGB colours of which the first few are always the same, however many are asked for.

    Hues follow the golden ratio, which keeps any prefix of the sequence spread over the circle.

    Args:
      count: how many.
      saturation: of all of them, 0 to 1.
      value: brightness of all of them, 0 to 1.
    """
    hues = (np.arange(count) * 0.6180339887) % 1.0
    rgb = [colorsys.hsv_to_rgb(hue, saturation, value) for hue in hues]
    return np.round(255 * np.asarray(rgb).reshape(count, 3)).astype(np.uint8)
