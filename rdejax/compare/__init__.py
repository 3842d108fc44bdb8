"""Scores of several result folders side by side."""

from rdejax.compare.comparison import Comparison, compare
from rdejax.compare.comparison_table import print_comparison, write_comparison
from rdejax.compare.figures import difference_figure, global_figure, sequence_figure
from rdejax.compare.scored_runs import ScoredRun, load_runs

__all__ = [
    "Comparison",
    "ScoredRun",
    "compare",
    "difference_figure",
    "global_figure",
    "load_runs",
    "print_comparison",
    "sequence_figure",
    "write_comparison",
]
