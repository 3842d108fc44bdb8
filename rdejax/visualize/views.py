"""Pictures of the kinds of views in `rdejax.memory.views`."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import cv2
import numpy as np
from jaxtyping import Float, UInt8

from rdejax.io.overlay import render_overlay
from rdejax.memory.views import Arrows, Distribution, Heat, Numbers
from rdejax.propagate.geometry import Geometry
from rdejax.visualize.charts import COLOURS, chart_style, legend_above, logarithmic, new_figure
from rdejax.visualize.grid import Picture, fit, frame_names, greyed, grid, in_rows
from rdejax.visualize.relevance import relevance_sheet
from rdejax.visualize.strides import spread
from rdejax.visualize.style import MARK, MARK_EDGE, TILE

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_BINS = 40


def number_lines(moments: Mapping[int, Numbers]) -> "Figure":
    """A line over the frame number for each name; gaps where a frame lacks it.

    Args:
      moments: by frame number, at least one.
    """
    names = list(dict.fromkeys(name for numbers in moments.values() for name in numbers.values))
    with chart_style():
        figure, (axes,) = new_figure(1, (6.4, 2.6))
        for k, name in enumerate(names):
            values = [numbers.values.get(name, np.nan) for numbers in moments.values()]
            axes.plot(list(moments), values, color=COLOURS[k % len(COLOURS)], label=name)
        axes.set(xlabel="frame", ylabel=next(iter(moments.values())).label)
        axes.set_ylim(bottom=min(0.0, axes.get_ylim()[0]))
        axes.grid()
        legend_above(figure, len(names))
    return figure


def histograms(moments: Mapping[int, Distribution]) -> "Figure":
    """A panel for each frame with the values of each name, all with the same logarithmic bins.

    What is 0 is counted at the left end.

    Args:
      moments: by frame number, at least one.
    """
    found = {
        t: {name: np.asarray(x, float) for name, x in m.values.items()} for t, m in moments.items()
    }
    names = list(dict.fromkeys(name for values in found.values() for name in values))
    whole = np.concatenate([x for values in found.values() for x in values.values()])
    positive = whole[whole > 0]
    high = positive.max() if len(positive) else 1.0
    low = max(positive.min(), 1e-4 * high) if len(positive) else 0.1
    bins = np.geomspace(low, 1.0001 * max(high, 1.1 * low), _BINS)
    with chart_style():
        figure, panels = new_figure(len(found), (max(3.6, 2.6 * len(found)), 2.6))
        for axes, (time, values) in zip(panels, found.items(), strict=True):
            for k, name in enumerate(names):
                x = np.clip(values.get(name, np.zeros(0)), low, None)
                look = {"color": COLOURS[k % len(COLOURS)], "alpha": 0.55}
                axes.hist(x, bins=bins.tolist(), label=name if axes is panels[0] else None, **look)
            logarithmic(axes, "x")
            axes.set(title=f"frame {time}", xlabel=next(iter(moments.values())).label)
            axes.grid(axis="y")
        panels[0].set_ylabel("elements")
        legend_above(figure, len(names))
    return figure


def heat_sheet(
    query: Picture,
    title: str,
    heat: Heat,
    tiles: Mapping[int, Picture],
    geometry: Geometry,
    *,
    columns: int = 4,
    width: int = TILE,
) -> Picture:
    """The frame that looks, and heat over the frames it looks at; see `relevance_sheet`.

    Args:
      query: the frame that looks, with its object or pixel marked.
      title: caption of the query.
      heat: where it looks.
      tiles: frames by number.
      geometry: of the video.
      columns: tiles in a row.
      width: of a tile, in pixels.
    """
    weights, frames = np.asarray(heat.weights, np.float32), [tiles[t] for t in heat.frames]
    heats = [
        # Nearest: positions stay squares.
        cv2.resize(spread(w, geometry), frame.shape[1::-1], interpolation=cv2.INTER_NEAREST_EXACT)
        for w, frame in zip(weights, frames, strict=True)
    ]
    shares = weights.sum((1, 2)) / max(float(weights.sum()), 1e-12)
    return relevance_sheet(
        query,
        title,
        frames,
        np.stack(heats),
        shares,
        heat.names,
        columns=columns,
        width=width,
    )


def arrow_sheet(
    query: Picture,
    arrows: Arrows,
    tiles: Mapping[int, Picture],
    geometry: Geometry,
    *,
    columns: int = 2,
    width: int = TILE,
) -> Picture:
    """For each entry the frame that looks above the one looked at, and arrows between the two.

    Args:
      query: the frame that looks.
      arrows: from where to where.
      tiles: frames by number.
      geometry: of the video.
      columns: tiles in a row.
      width: of a tile, in pixels.
    """
    top, begin_y = fit(query, width), 0
    shown = []
    for begin, end, weights, frame in zip(
        arrows.begin, arrows.end, arrows.weights, arrows.frames, strict=True
    ):
        below = fit(tiles[frame], width)
        canvas = np.concatenate([greyed(top), greyed(below)])
        from_ = _pixels(np.asarray(begin), geometry, top.shape, begin_y)
        to = _pixels(np.asarray(end), geometry, below.shape, top.shape[0])
        for a, b, weight in zip(from_, to, np.asarray(weights, float), strict=True):
            canvas = _with_arrow(canvas, a, b, float(np.clip(weight, 0.0, 1.0)))
        shown.append(canvas)
    return in_rows(shown, list(arrows.names), columns)


def _pixels(
    places: Float[np.ndarray, "k 2"], geometry: Geometry, shape: Sequence[int], down: int
) -> list[tuple[int, int]]:
    """(x, y) in a tile of places (y, x) in the padded frame that the networks see."""
    before = np.array([geometry.padding[0], geometry.padding[2]])
    inside = (places - before) / np.array(geometry.inner) * np.array(shape[:2])
    y, x = np.clip(np.round(inside), 0, np.array(shape[:2]) - 1).astype(int).T
    return list(zip(x.tolist(), (y + down).tolist(), strict=True))


def _with_arrow(canvas: Picture, a: tuple[int, int], b: tuple[int, int], weight: float) -> Picture:
    drawn = canvas.copy()
    tip = 8 / max(1.0, float(np.hypot(b[0] - a[0], b[1] - a[1])))
    for colour, thickness in ((MARK_EDGE, 3), (MARK, 1)):
        cv2.arrowedLine(drawn, a, b, colour, thickness, cv2.LINE_AA, tipLength=tip)
    return cv2.addWeighted(canvas, 1 - weight, drawn, weight, 0)


def mask_rows(
    frames: Sequence[Picture],
    numbers: Sequence[int],
    masks: Mapping[str, Sequence[UInt8[np.ndarray, "H W"]]],
    *,
    width: int = TILE,
) -> Picture:
    """A row of frames for each name, with its masks.

    Args:
      frames: RGB.
      numbers: of the frames.
      masks: name -> ids of each frame.
      width: of a tile, in pixels.
    """
    rows = [
        [fit(render_overlay(f, m), width) for f, m in zip(frames, row, strict=True)]
        for row in masks.values()
    ]
    return grid(rows, columns=frame_names(numbers), names=list(masks))
