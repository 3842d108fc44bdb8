"""What DMN-AOA's parts are worth: coarse and refined masks, with and without alignment and memory.

python benchmarks/dmn_aoa.py --checkpoint DMN.safetensors --root DAVIS

Every line is the same weights with something switched off; the other checkpoints stand beside them.
With --oracle the proposals are the true masks among random ellipses, so that only matching and
refinement are measured. Writes benchmarks/results/dmn_aoa.json.
"""

import dataclasses
import tempfile
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from measure import RESULTS, machine
from rich.console import Console
from rich.table import Table

from rdejax.api import load_model, segment_video
from rdejax.cli import cli_errors
from rdejax.evaluate.davis import evaluate_sequences
from rdejax.files import write_json
from rdejax.infer.dataset import read_given
from rdejax.io.datasets import VideoSequence
from rdejax.io.given import MaskReader
from rdejax.io.masks import write_mask
from rdejax.io.video import FolderFrames
from rdejax.models import System
from rdejax.nn.dmn_proposals import oracle
from rdejax.train.config import ValidateConfig
from rdejax.train.validate import validation_sequences

NO_MEMORY = {"dynamic": False}
LINES: dict[str, dict[str, Any]] = {
    "refined": {},
    "coarse": {"refine": False},
    "coarse, without alignment": {"refine": False, "align": False},
    "coarse, without memory": {"refine": False, **NO_MEMORY},
    "coarse, without both": {"refine": False, "align": False, **NO_MEMORY},
    "coarse, first template only": {"refine": False, "template_query": "first", **NO_MEMORY},
    "refined, without alignment": {"align": False},
    "refined, without memory": NO_MEMORY,
    "refined, without both": {"align": False, **NO_MEMORY},
}


@dataclasses.dataclass(frozen=True)
class Arguments:
    """Scores a DMN-AOA checkpoint with its parts switched off one by one."""

    checkpoint: str
    """Weights of dmn-lite or dmn-aoa."""
    root: Path
    """Top folder of the data set."""
    dataset: str = "davis2016"
    split: str = "val"
    size: int = 480
    """Shorter side, in pixels."""
    frames: int = 0
    """At most this many frames of each sequence; 0: all."""
    beside: tuple[str, ...] = ("rde-lite",)
    """Other checkpoints."""
    oracle: bool = False
    """Take true masks for proposals."""
    lines: tuple[str, ...] = tuple(LINES)
    """Which lines."""
    output: Path = RESULTS / "dmn_aoa.json"


def true_proposals(sequence: VideoSequence, count: int = 8) -> dict[str, np.ndarray]:
    """The true masks of a sequence as an outside detector's proposals, at an eighth of its size."""
    reader = MaskReader(255)
    masks = np.stack([reader.read(sequence.masks[path.stem]) for path in sequence.frames]) > 0
    small = masks[:, None, 4::8, 4::8].astype(np.float32)
    found = jax.jit(oracle, static_argnums=1)(jnp.asarray(small), count, jax.random.key(0))
    return {
        "proposal_masks": np.asarray(found.masks),
        "proposal_scores": np.asarray(found.scores),
    }


def score(
    model: System, args: Arguments, config: ValidateConfig, sequences: list[VideoSequence]
) -> dict[str, Any]:
    """J, F and their mean in per cent, of all and of each sequence; seconds a frame."""
    each, seconds, frames = {}, 0.0, 0
    for sequence in sequences:
        source = FolderFrames(sequence.frames[0].parent, sequence.frames)
        given = read_given(sequence, source)
        video = np.stack([frame for _, frame in source.frames()])
        beside: dict[str, Any] = {}
        if args.oracle and model.frame_inputs:
            beside = true_proposals(sequence)
        started = time.perf_counter()
        masks = segment_video(model, video, given.masks, size=args.size, **beside)
        seconds, frames = seconds + time.perf_counter() - started, frames + len(video)
        with tempfile.TemporaryDirectory() as folder:
            out = Path(folder) / sequence.name
            out.mkdir()
            for path, mask in zip(sequence.frames, masks, strict=True):
                write_mask(out / f"{path.stem}.png", mask)
            found = evaluate_sequences(config.dataset, [sequence], folder).objects
        each[sequence.name] = [
            100 * float(np.mean([np.mean(getattr(one, k)) for one in found])) for k in ("j", "f")
        ]
    j, f = np.mean(list(each.values()), axis=0).tolist()
    return {
        "J&F": (j + f) / 2,
        "J": j,
        "F": f,
        "sequences": {name: sum(values) / 2 for name, values in each.items()},
        "seconds_per_frame": seconds / frames,
    }


def main() -> None:
    """Scores all lines, prints the table, writes JSON."""
    args = tyro.cli(Arguments)
    with cli_errors():
        config = ValidateConfig(
            every=1, dataset=args.dataset, root=str(args.root), split=args.split, frames=args.frames
        )
        sequences = validation_sequences(config)
        models = {name: (args.checkpoint, LINES[name]) for name in args.lines}
        models |= {name: (name, {}) for name in args.beside}
        settings = {**dataclasses.asdict(args), "root": args.root.name, "output": args.output.name}
        settings["checkpoint"] = Path(args.checkpoint).name
        rows = []
        for name, (checkpoint, changes) in models.items():
            row = score(load_model(checkpoint, **changes), args, config, sequences)
            rows.append({"name": name, "settings": changes, **row})
            print(f"{name}: J&F {row['J&F']:.1f}, J {row['J']:.1f}, F {row['F']:.1f}", flush=True)
            write_json(args.output, {"machine": machine(), "arguments": settings, "rows": rows})
        table = Table(title="DMN-AOA, parts switched off")
        for column in ("masks", "J&F", "J", "F", "s/frame"):
            table.add_column(column, justify="left" if column == "masks" else "right")
        for row in rows:
            scores = [f"{row[k]:.1f}" for k in ("J&F", "J", "F")]
            table.add_row(row["name"], *scores, f"{row['seconds_per_frame']:.2f}")
        Console(width=100).print(table)


if __name__ == "__main__":
    main()
