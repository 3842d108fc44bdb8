"""J and F of segmentations, the DAVIS protocols, and their tables."""

from rdejax.evaluate.davis import COLUMNS, ObjectScore, Scores, evaluate
from rdejax.evaluate.measures import (
    Statistics,
    boundary,
    contour_accuracy,
    frame_scores,
    region_similarity,
    statistics,
)
from rdejax.evaluate.tables import print_table, write_files

__all__ = [
    "COLUMNS",
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
