"""Baseline (a): every frame gets the first mask. What a method must beat to have tracked anything.

python benchmarks/baseline_repeat_first_mask.py --dataset davis2016 --root DIR --output OUT
rdejax evaluate --dataset davis2016 --root DIR --results OUT

Takes seconds.
"""

import dataclasses
from pathlib import Path
from typing import Literal

import numpy as np
import tyro
from PIL import Image

from rdejax.cli import cli_errors
from rdejax.io.datasets import list_sequences
from rdejax.io.masks import BENCHMARK, merged, read_mask


@dataclasses.dataclass(frozen=True)
class Arguments:
    """Writes OUT/<sequence>/<frame>.png for every frame: the first mask, unchanged."""

    dataset: Literal["davis2016", "davis2017", "folder"]
    root: Path
    """Top folder of the data set."""
    output: Path
    """Folder of the results."""
    split: str = "val"


def main() -> None:
    """Writes the results and says where."""
    args = tyro.cli(Arguments)
    with cli_errors():
        sequences = list_sequences(args.dataset, args.root, args.split)
        for sequence in sequences:
            folder = args.output / sequence.name
            folder.mkdir(parents=True, exist_ok=True)
            rules = merged(BENCHMARK) if sequence.merge_objects else BENCHMARK
            first = read_mask(next(iter(sequence.masks.values())), rules)
            for frame in sequence.frames:
                Image.fromarray(np.ascontiguousarray(first)).save(folder / f"{frame.stem}.png")
        print(f"{len(sequences)} sequences written to {args.output}")


if __name__ == "__main__":
    main()
