"""Where the time of a frame goes: one bar per system, one colour per stage."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rdejax.errors import RdejaxError
from rdejax.visualize.style import LINES, chart_style, new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

STAGES = ("encode", "read", "decode", "memorise")


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
    """Stacked bars of encode, read, decode and memorise.

    Args:
      runs: measured systems, see `stage_milliseconds`.
      labels: one per run; made of `label`, or `model` and `objects`, unless given.
      source: where they come from, for errors.

    Raises:
      RdejaxError: see `stage_milliseconds`; no run; matplotlib is not installed.
    """
    if not runs:
        raise RdejaxError(f"{source}: holds no run, so there is nothing to show")
    times = [stage_milliseconds(run, source) for run in runs]
    labels = [_label(run, i) for i, run in enumerate(runs)] if labels is None else list(labels)
    with chart_style():
        figure, (axes,) = new_figure(1, (6.4, 0.9 + 0.34 * len(runs)))
        for k, stage in enumerate(STAGES):
            left = [sum(list(t.values())[:k]) for t in times]
            axes.barh(
                range(len(runs)),
                [t[stage] for t in times],
                left=left,
                color=LINES[k],
                height=0.65,
                label=stage,
            )
        for y, t in enumerate(times):
            axes.annotate(
                f"{sum(t.values()):.3g}", (sum(t.values()), y), (4, 0), textcoords="offset points",
                va="center", fontsize=8,
            )  # fmt: skip
        axes.set_yticks(range(len(runs)), labels)
        axes.invert_yaxis()
        axes.margins(x=0.08)
        axes.tick_params(axis="y", length=0)
        axes.set_xlabel("ms per frame")
        axes.grid(axis="x")
        axes.set_axisbelow(True)
        figure.legend(loc="outside upper center", ncols=len(STAGES))
    return figure


def _label(run: Mapping[str, Any], index: int) -> str:
    if "label" in run:
        return str(run["label"])
    objects = run.get("objects")
    plural = "" if objects == 1 else "s"
    return f"{run.get('model', f'run {index}')}" + (
        f", {objects} object{plural}" if objects is not None else ""
    )
