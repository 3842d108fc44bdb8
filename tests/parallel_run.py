"""Trains a few steps on made-up clips and prints the losses: one process of `test_train_parallel`.

python parallel_run.py STEPS [--fsdp] [--accumulate N] [--process I --port P]
"""

import argparse
import json

import numpy as np

from rdejax.data.batch import Clip
from rdejax.data.config import ClipConfig
from rdejax.train.config import LossConfig, OptimizerConfig, ScaleConfig, TrainConfig

BATCH, FRAMES, SIZE = 8, 3, 48


def batch_at(step: int) -> dict[str, np.ndarray]:
    """Squares that move over noise; a function of the step."""
    rng = np.random.default_rng([7, step])
    frames = rng.integers(0, 90, (BATCH, FRAMES, SIZE, SIZE, 3)).astype(np.uint8)
    labels = np.zeros((BATCH, FRAMES, SIZE, SIZE), np.uint8)
    for b in range(BATCH):
        y, x = rng.integers(2, 16, 2)
        for t in range(FRAMES):
            window = np.s_[y + 2 * t : y + 20 + 2 * t, x + t : x + 20 + t]
            frames[(b, t, *window)] = rng.integers(120, 255, 3)
            labels[(b, t, *window)] = 1
    return Clip(frames, labels, labels[:, :1].copy(), np.ones((BATCH, 1), bool))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("steps", type=int)
    parser.add_argument("--fsdp", action="store_true")
    parser.add_argument("--accumulate", type=int, default=1)
    parser.add_argument("--process", type=int)
    parser.add_argument("--port", type=int)
    parser.add_argument("--devices", type=int, default=0)
    args = parser.parse_args()
    many = args.process is not None
    config = TrainConfig(
        clip=ClipConfig(frames=FRAMES, size=SIZE, objects=1),
        batch=BATCH,
        steps=100,
        loss=LossConfig(soft_iou=1.0, bootstrap_start=5, bootstrap_end=15),
        optimizer=OptimizerConfig(lr=1e-3, warmup=2),
        scale=ScaleConfig(
            fsdp=args.fsdp,
            accumulate=args.accumulate,
            coordinator=f"localhost:{args.port}" if many else None,
            processes=2 if many else None,
            process=args.process,
            devices=args.devices,
        ),
    )
    from rdejax.train.parallel import make_mesh, put_batch, shard_state, start_processes

    start_processes(config.scale)
    import jax

    from rdejax.models import create
    from rdejax.train.step import init_state, make_step

    model = create(config.system)
    mesh = make_mesh(config.batch, config.scale.accumulate)
    state = shard_state(init_state(model, config)[1], mesh, fsdp=args.fsdp)
    step = make_step(model, config, mesh)
    share = BATCH // jax.process_count()
    mine = slice(jax.process_index() * share, (jax.process_index() + 1) * share)
    losses = []
    for i in range(args.steps):
        batch = put_batch(jax.tree.map(lambda x: x[mine], batch_at(i)), mesh)
        state, metrics = step(state, batch)
        losses.append(float(metrics["loss"]))
    cut = [x for x in jax.tree.leaves(state.params) if not x.sharding.is_fully_replicated]
    print(json.dumps({"losses": losses, "devices": jax.device_count(), "cut": len(cut)}))


if __name__ == "__main__":
    main()
