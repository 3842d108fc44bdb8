"""What a training step costs: data, forward, backward, update, FLOP/s and memory.

    python benchmarks/train_step.py [rde_stage3] [--batch 1] [--size 384]

The step of a configuration on made-up clips (`synthetic` data). Its parts are compiled and timed
apart: forward is the loss, backward what its gradients take on top, update the optimiser. XLA
counts the floating-point operations and the scratch memory of a whole step; "step, remat" is the
same with rematerialisation. Precision is float32 unless --bfloat16 is given.
"""

import dataclasses
import itertools
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import tyro
from measure import RESULTS, Timing, machine, matmul_gflops, measure, tree_bytes, write_results
from rich.console import Console
from rich.table import Table

from rdejax.cli import cli_errors
from rdejax.data.batch import Clip
from rdejax.data.loader import clip_loader
from rdejax.models import create
from rdejax.train.clip_loss import batch_loss
from rdejax.train.config import TrainConfig
from rdejax.train.load_config import load_config
from rdejax.train.step import TrainState, init_state, make_gradients, make_update, merge
from rdejax.train.system import objective_of


@dataclasses.dataclass(frozen=True)
class Arguments:
    """What to measure.

    Attributes:
      config: a recipe's name or a file.
      batch: clips per step; 0: the configuration's.
      size: side of the frames; 0: the configuration's.
      repeats: timed runs of each part.
      clips: clips made to time the data pipeline.
      remat: measure the step with rematerialisation, too.
      bfloat16: compute the networks in bfloat16.
      output: JSON file.
    """

    config: tyro.conf.Positional[str] = "rde_stage3"
    batch: int = 1
    size: int = 0
    repeats: int = 3
    clips: int = 16
    remat: bool = True
    bfloat16: bool = False
    output: Path = RESULTS / "train_step.json"


def load(args: Arguments) -> TrainConfig:
    """The configuration with the sizes asked for."""
    config = load_config(args.config)
    clip = dataclasses.replace(config.clip, size=args.size or config.clip.size)
    precision = "bfloat16" if args.bfloat16 else "float32"
    return dataclasses.replace(
        config,
        batch=args.batch or config.batch,
        clip=clip,
        data=("synthetic",),
        data_weights=(),
        scale=dataclasses.replace(config.scale, precision=precision, remat=False),
    )


def time_data(config: TrainConfig, clips: int) -> tuple[float, Clip]:
    """Clips per second of one thread, and a batch."""
    settings: dict[str, Any] = {"batch_size": 1, "seed": 0, "steps": config.steps, "threads": 1}
    loader = clip_loader(config.data, (), config.clip, video=config.video, **settings)
    first = [next(loader) for _ in range(config.batch)]
    started = time.perf_counter()
    for _ in itertools.islice(loader, clips):
        pass
    rate = clips / (time.perf_counter() - started)
    return rate, jax.tree.map(lambda *x: jnp.concatenate(x), *first)


def parts_of(config: TrainConfig, batch: Clip, repeats: int) -> dict[str, Timing]:
    """Forward, forward and backward, and the whole step."""
    model = create(config.system)
    _, state = init_state(model, config)

    def forward(state: TrainState, batch: Clip) -> Any:
        merged = merge(model, config, state.params, state.fixed)
        keys = jax.random.split(jax.random.key(0), batch.frames.shape[0])
        return batch_loss(merged, batch, keys, state.step, objective_of(config), config.loss)[0]

    timings = {
        "forward": measure("forward", forward, state, batch, repeats=repeats)[0],
        "gradients": measure(
            "gradients", make_gradients(model, config), state, batch, repeats=repeats
        )[0],
        "step": measure("step", make_update(model, config), state, batch, repeats=repeats)[0],
    }
    return timings


def main() -> None:
    """Measures, prints a table and writes JSON."""
    args = tyro.cli(Arguments)
    with cli_errors():
        config = load(args)
        rate, batch = time_data(config, args.clips)
        timings = parts_of(config, batch, args.repeats)
        if args.remat:
            scale = dataclasses.replace(config.scale, remat=True)
            again = dataclasses.replace(config, scale=scale)
            model = create(config.system)
            _, state = init_state(model, again)
            step = make_update(model, again)
            timings["step, remat"] = measure("remat", step, state, batch, repeats=args.repeats)[0]
        yardstick = matmul_gflops()
        step = timings["step"]
        clip = config.clip
        title = (
            f"{config.system}, {config.batch} x {clip.frames} frames of {clip.size} px, "
            f"{clip.objects} objects (matrix product: {yardstick:.0f} GFLOP/s)"
        )
        table = Table(title=title)
        for column in ("part", "s", "share", "GFLOP/s", "scratch GB"):
            table.add_column(column, justify="right")
        forward, gradients = timings["forward"].median_s, timings["gradients"].median_s
        rows = {
            "data (one thread)": config.batch / rate,
            "forward": forward,
            "backward": gradients - forward,
            "update": max(step.median_s - gradients, 0.0),
        }
        for name, seconds in rows.items():
            table.add_row(name, f"{seconds:.3f}", f"{seconds / step.median_s:.1%}", "", "")
        for name in ("step", "step, remat"):
            if name in timings:
                t = timings[name]
                cells = (f"{t.median_s:.3f}", f"{t.median_s / step.median_s:.1%}")
                table.add_row(name, *cells, f"{t.gflops:.0f}", f"{t.scratch_bytes / 1e9:.2f}")
        Console(width=110).print(table)
        model = create(config.system)
        content = {
            "config": args.config,
            "batch": config.batch,
            "frames": clip.frames,
            "size": clip.size,
            "objects": clip.objects,
            "precision": config.scale.precision,
            "clips_per_second_per_thread": rate,
            "seconds": rows,
            "timings": {
                name: {**dataclasses.asdict(t), "gflops": t.gflops} for name, t in timings.items()
            },
            "state_bytes": tree_bytes(init_state(model, config)[1]),
            "matmul_gflops": yardstick,
            "machine": machine(),
        }
        write_results(args.output, content)


if __name__ == "__main__":
    main()
