"""Commands that plot measurements: `times`, `growth`."""

import dataclasses
from pathlib import Path
from typing import Annotated

import tyro

from rdejax.errors import RdejaxError
from rdejax.visualize.files import CHART_SUFFIXES, check_output, read_runs, save_figure
from rdejax.visualize.growth import growth_curves
from rdejax.visualize.times import component_times

Chart = Annotated[Path, tyro.conf.arg(metavar="FILE")]
Results = Annotated[
    tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="JSON [JSON ...]")
]


def _all_runs(files: tuple[Path, ...]) -> tuple[list[dict], str]:
    if not files:
        raise RdejaxError("nothing to plot: give one or more JSON files of a benchmark")
    return [run for path in files for run in read_runs(path)], ", ".join(map(str, files))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Times:
    """Time per frame by stage, a bar for each system: encode, read, decode, memorise."""

    files: Results
    """What benchmarks/profile_inference.py wrote, or files of that form."""
    output: Chart
    """Chart to write, .png, .pdf or .svg."""
    labels: Annotated[tuple[str, ...], tyro.conf.arg(metavar="NAME ...")] = ()
    """Names of the runs; model and number of objects unless given."""

    def run(self) -> None:
        """Writes the chart."""
        check_output(self.output, CHART_SUFFIXES)
        runs, source = _all_runs(self.files)
        if self.labels and len(self.labels) != len(runs):
            raise RdejaxError(
                f"{len(self.labels)} --labels for {len(runs)} runs in {source}; give one for each"
            )
        save_figure(self.output, component_times(runs, self.labels or None, source))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Growth:
    """Time per frame and size of the memory along a long video, a line for each rule."""

    files: Results
    """What benchmarks/stream_growth.py wrote, or files of that form."""
    output: Chart
    """Chart to write, .png, .pdf or .svg."""
    log: bool = False
    """Logarithmic axes for time and size."""

    def run(self) -> None:
        """Writes the chart."""
        check_output(self.output, CHART_SUFFIXES)
        runs, source = _all_runs(self.files)
        save_figure(self.output, growth_curves(runs, log=self.log, source=source))
