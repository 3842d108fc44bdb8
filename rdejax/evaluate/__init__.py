"""J and F of segmentations, the benchmarks' protocols, and their tables."""

from rdejax.evaluate.measures import (
    Statistics,
    boundary,
    contour_accuracy,
    frame_scores,
    region_similarity,
    statistics,
)
from rdejax.evaluate.protocols import DATASETS, evaluate
from rdejax.evaluate.score_table import print_table, write_files
from rdejax.evaluate.scores import COLUMNS, SEEN_COLUMNS, ObjectScore, Scores

__all__ = [
    "COLUMNS",
    "DATASETS",
    "SEEN_COLUMNS",
    "ObjectScore",
    "Scores",
    "Statistics",
    "boundary",
    "contour_accuracy",
    "evaluate",
    "frame_scores",
    "print_table",
    "region_similarity",
    "statistics",
    "write_files",
]
