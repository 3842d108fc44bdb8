"""Scores of several result folders side by side."""

from rdejax.compare.comparison import Comparison, compare
from rdejax.compare.plots import difference_figure, global_figure, sequence_figure
from rdejax.compare.runs import Run, load_runs
from rdejax.compare.tables import print_comparison, write_comparison

__all__ = [
    "Comparison",
    "Run",
    "compare",
    "difference_figure",
    "global_figure",
    "load_runs",
    "print_comparison",
    "sequence_figure",
    "write_comparison",
]
