"""A training step of this library beside PyTorch: the same networks, weights, clip and loss.

    pip install "rdejax[bench]"
    python benchmarks/train_side_by_side.py [--size 384] [--turns 2]

RDE-VOS' stage 3 in float32. Both are processes of their own that take turns, so that neither's
memory counts as the other's; the first step of each is not timed. A ratio is PyTorch's median time
over ours. The memory is the process's largest size, compilation included. The losses of all steps
stand beside each other: the second and later ones are equal only if the gradients are.
"""

import dataclasses
import json
import os
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

import jax
import numpy as np
import tyro
from measure import RESULTS, machine, write_results
from rich.console import Console
from rich.table import Table
from side_by_side import Peer, job_of

from rdejax.cli import cli_errors
from rdejax.data.loader import clip_loader
from rdejax.models import create
from rdejax.models.weights import save_weights
from rdejax.train.load_config import load_config


@dataclasses.dataclass(frozen=True)
class Arguments:
    """Times both."""

    size: int = 384
    batch: int = 1
    turns: int = 2
    remat: bool = False
    peer: bool = True
    """False: ours alone."""
    device: str = "cpu"
    """PyTorch's."""
    peer_python: Path = Path(sys.executable)
    output: Path = RESULTS / "train_side_by_side.json"


def prepared(args: Arguments, folder: Path, **sizes: Any) -> dict[str, Any]:
    """The job for both: weights and a batch of made-up clips in files."""
    config = load_config("rde_stage3")
    model = create("rde", config=sizes)
    save_weights(folder / "weights.safetensors", model)
    shape = dataclasses.replace(config.clip, size=args.size)
    loader = clip_loader(
        ("synthetic",),
        (),
        shape,
        video=config.video,
        batch_size=args.batch,
        seed=0,
        steps=1,
        threads=1,
    )
    batch = next(loader)
    names = "frames", "labels", "perturbed", "valid"
    arrays: dict[str, Any] = {name: np.asarray(getattr(batch, name)) for name in names}
    np.savez(folder / "batch.npz", **arrays)
    settings = dict(item.split("=") for item in config.objective_settings)
    return {
        **job_of(model),
        "config": "rde_stage3",
        "remat": args.remat,
        "device": args.device,
        "weights": str(folder / "weights.safetensors"),
        "batch": str(folder / "batch.npz"),
        "rate": config.optimizer.lr,
        "decay": config.optimizer.weight_decay,
        "loss": {
            "guidance": float(settings["guidance"]),
            "consistency": float(settings["consistency"]),
            "top_p": config.loss.top_p,
            "start": config.loss.bootstrap_start,
            "end": config.loss.bootstrap_end,
        },
    }


def main() -> None:
    """Measures, prints a table and writes JSON."""
    args = tyro.cli(Arguments)
    with cli_errors(), tempfile.TemporaryDirectory() as folder:
        job = prepared(args, Path(folder))
        workers = {"rdejax": Peer(sys.executable, job, "train_worker")}
        if args.peer:
            workers["eager"] = Peer(args.peer_python, job, "peer.train_worker")
        steps = {name: [worker.ask()] for name, worker in workers.items()}
        for _ in range(args.turns):
            for name, worker in workers.items():
                steps[name].append(worker.ask())
        about = {name: worker.about for name, worker in workers.items()}
        for worker in workers.values():
            worker.close()
    timed = {name: own[1:] or own for name, own in steps.items()}
    median = {name: statistics.median(s["seconds"] for s in own) for name, own in timed.items()}
    table = Table("who", "s a step", "cores", "peak GB", "ratio", "losses")
    for name, own in steps.items():
        cores = statistics.median(step["cores"] for step in timed[name])
        peak = own[-1]["peak_bytes"] / 1e9
        ratio = f"{median[name] / median['rdejax']:.2f}"
        losses = " ".join(f"{step['loss']:.4f}" for step in own)
        table.add_row(name, f"{median[name]:.2f}", f"{cores:.2f}", f"{peak:.2f}", ratio, losses)
    Console(width=120).print(table)
    content = {"size": args.size, "batch": args.batch, "remat": args.remat, "device": args.device}
    content |= {"about": about, "steps": steps, "cores_of": os.cpu_count()}
    write_results(args.output, {**content, "machine": machine(), "jax": jax.__version__})
    print(json.dumps(about))


if __name__ == "__main__":
    main()
