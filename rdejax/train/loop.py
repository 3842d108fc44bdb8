"""The training loop: data, step, log, pictures, validation, checkpoints."""

import contextlib
import dataclasses
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from rdejax.cli import note
from rdejax.data.batch import Clip
from rdejax.data.loader import clip_loader
from rdejax.data.sources.spec import Source, open_source
from rdejax.data.workers import WorkerLost
from rdejax.errors import RdejaxError
from rdejax.folders import locked
from rdejax.io.datasets import VideoSequence
from rdejax.models import System
from rdejax.models.weights import save_weights
from rdejax.signals import Stopped, StopSignals
from rdejax.train.agreement import Agreement
from rdejax.train.checkpoints import Checkpoints, Damaged, abstract
from rdejax.train.config import TrainConfig, ValidateConfig
from rdejax.train.initial_weights import build_model
from rdejax.train.metrics import Window, all_finite, kept
from rdejax.train.monitor import Clock, Monitor
from rdejax.train.parallel import (
    make_mesh,
    put_batch,
    shard_state,
    start_processes,
    state_shardings,
)
from rdejax.train.plan import plan_lines
from rdejax.train.profile import Trace
from rdejax.train.step import TrainState, init_state, make_predict, make_step, merge
from rdejax.train.system import create_system
from rdejax.train.validate import (
    mean_scores,
    validate,
    validation_sequences,
    validation_sets,
)
from rdejax.train.workdir import (
    as_json,
    begin,
    environment,
    measures_differently,
    record_start,
)
from rdejax.visualize.sheet import training_sheet

Batches = Iterator[Clip]


def train(config: TrainConfig, workdir: Path | str, *, resume: bool = False) -> Path:
    """Trains; a killed run that is resumed gives the weights of an unbroken one.

    Bit for bit on a CPU: the state is saved whole, and the data depend on the step alone (see
    `rdejax.train.checkpoints`).

    Args:
      config: the run.
      workdir: gets `config.json`, `environment.json`, `log.jsonl`, `tensorboard/`, `checkpoints/`;
        `latest.safetensors` with each checkpoint; `best.safetensors` with each validation that
        beats the others; at the end `weights.safetensors`.
      resume: continue from the last checkpoint in `workdir`; without one, start. A folder with a
        checkpoint is refused otherwise, and one of another configuration always.

    Returns:
      Path of the exported weights (running average of the parameters).

    Raises:
      RdejaxError: bad data, weights or settings, a work folder of another run or one that another
        run is writing to, or a loss that is not finite.
      Stopped: SIGTERM or SIGINT came; the last step is saved.
    """
    workdir = Path(workdir).absolute()
    start_processes(config.scale)
    # One process of a run writes; the others share its folder.
    alone = jax.process_index() == 0
    with locked(workdir, "--workdir") if alone else contextlib.nullcontext():
        return _train(config, workdir, resume=resume)


def _train(config: TrainConfig, workdir: Path, *, resume: bool) -> Path:
    mesh = make_mesh(config.batch, config.scale.accumulate)
    sources = [open_source(spec, skip_bad=config.skip_bad) for spec in config.data]
    sets = validation_sets(config.validate) if config.validate.every else []
    validated = [(part, validation_sequences(part)) for part in sets]
    with Checkpoints(workdir / "checkpoints", config.keep) as checkpoints:
        first, notes = begin(workdir, config, checkpoints, resume=resume)
        if first and measures_differently(checkpoints.record(first)["config"], config):
            checkpoints.forget_scores()
        active = jax.process_index() == 0
        model, state, first = _start(config, mesh, checkpoints, first, notes)
        batches = _load(config, sources, first)
        if active:
            record_start(workdir, config, first)
        monitor = Monitor(
            workdir,
            first=first,
            total=config.steps,
            active=active,
            loggers=config.logger,
            config=as_json(config),
        )
        trace = Trace(workdir / "profile", config.profile)
        with monitor, StopSignals() as stop, trace:
            for line in (*notes, *plan_lines(config, model, state, sources, workdir)):
                monitor.say(line)
            run = _Run(config, workdir, model, mesh, checkpoints, validated, monitor, stop, trace)
            state = run.steps(batches, state, first)
            checkpoints.wait()
            weights = workdir / "weights.safetensors"
            run.export(weights, run.averaged(state), config.steps)
    return weights


def _load(config: TrainConfig, sources: list[Source], first: int) -> Batches:
    return clip_loader(
        sources,
        config.data_weights,
        config.clip,
        video=config.video,
        batch_size=config.batch,
        seed=config.seed,
        steps=config.steps,
        threads=config.threads,
        workers=config.workers,
        start_step=first,
        skip_bad=config.skip_bad,
        shard=(jax.process_index(), jax.process_count()),
    )


def _start(
    config: TrainConfig, mesh: Mesh, checkpoints: Checkpoints, first: int, notes: list[str]
) -> tuple[System, TrainState, int]:
    """The model, which lends its structure, the state at step `first`, on the mesh, and that step.

    A damaged checkpoint gives way to the one before it, of which `notes` tell.

    Raises:
      Damaged: there is none before it.
    """
    fsdp = config.scale.fsdp
    if first == 0:
        active = jax.process_index() == 0
        model = build_model(config, tell=note if active else lambda text: None)
        return model, shard_state(init_state(model, config)[1], mesh, fsdp=fsdp), 0
    model = create_system(config)
    shapes = jax.eval_shape(lambda: init_state(model, config)[1])
    like = abstract(shapes, state_shardings(shapes, mesh, fsdp=fsdp))
    while True:
        try:
            return model, checkpoints.restore(first, like), first
        except Damaged as error:
            earlier = [step for step in checkpoints.steps if step < first]
            if not earlier:
                raise
            notes.append(f"{error}; it was removed, continuing from step {earlier[-1]}")
            checkpoints.remove(first)
            first = earlier[-1]


@dataclasses.dataclass
class _Run:
    """What the parts of the loop share."""

    config: TrainConfig
    workdir: Path
    model: System
    mesh: Mesh
    checkpoints: Checkpoints
    validated: list[tuple[ValidateConfig, list[VideoSequence]]]
    monitor: Monitor
    stop: StopSignals
    trace: Trace

    def __post_init__(self) -> None:
        self.window = Window(lambda: self.checkpoints.latest)
        self.clock = Clock()
        self.predict: Any = None
        everywhere = NamedSharding(self.mesh, PartitionSpec())
        self.gather = jax.jit(lambda tree: tree, out_shardings=everywhere)

    def steps(self, batches: Batches, state: TrainState, first: int) -> TrainState:
        """All steps from number `first` on.

        Raises:
          Stopped: by a signal; the last step is saved.
          RdejaxError: a loss, gradient or parameter is not finite.
        """
        config, agree = self.config, Agreement(self.mesh)
        step = make_step(self.model, config, self.mesh)
        begun = time.perf_counter()
        for done in range(first + 1, config.steps + 1):
            with self.clock.waiting():
                batch = self._next(batches, done, state, first)
            if batch is None:
                self._stop(done - 1, state)
            state, metrics = step(state, put_batch(batch, self.mesh))
            self.window.add(done, metrics)
            if done == first + 1:
                jax.block_until_ready(metrics)
                seconds = time.perf_counter() - begun
                self.monitor.say(f"first step, with compilation: {seconds:.1f} s")
                self.clock.restart()
            else:
                self.clock.step()
                self.trace.step(metrics)
            self.trace.begin()
            self._report(done, state, batch)
            if agree(self.stop.asked):
                self._stop(done, state)
            self._keep(done, state)
        return state

    def averaged(self, state: TrainState) -> System:
        """The model with the averaged parameters on this process's own device, until the next step.

        All processes have to call this, to gather what is spread over them.
        """
        # Where there is nothing to gather, these are the state's own arrays, which a step consumes.
        gathered = self.gather((state.ema, state.fixed))
        ema, fixed = jax.tree.map(lambda x: x.addressable_data(0), gathered)
        return merge(self.model, self.config, ema, fixed)

    def export(self, path: Path, model: System, step: int, **extra: Any) -> None:
        """Writes weights as `rdejax.load_model` takes them."""
        if jax.process_index() == 0:
            save_weights(path, model, step=step, **extra)

    def _next(self, batches: Batches, done: int, state: TrainState, first: int) -> Clip | None:
        """The batch of step `done`; None where a signal has ended the processes that make them.

        Raises:
          WorkerLost: something else has; what was done up to here is saved.
        """
        alone = jax.process_count() == 1
        try:
            return next(batches)
        except Exception as error:
            if self.stop.asked and alone:
                return None
            if isinstance(error, WorkerLost) and alone and done - 1 > first:
                self._keep_all(done - 1, state)
            raise

    def _report(self, done: int, state: TrainState, batch: Clip) -> None:
        config = self.config
        self.monitor.advance(done)
        if done % config.log_every == 0 or done == config.steps:
            self.window.check()
            speed = self.clock.read(config.batch)
            self.monitor.metrics(done, {**self.window.means(), **speed})
        if config.images_every and done % config.images_every == 0:
            with self.clock.paused():
                self.monitor.picture(done, self._picture(state, batch))

    def _picture(self, state: TrainState, batch: Clip) -> np.ndarray:
        self.predict = self.predict or make_predict(self.model, self.config, self.mesh)
        labels = self.predict(state, put_batch(batch, self.mesh))
        # Of several processes the first shows its own clips.
        shard = min(labels.addressable_shards, key=lambda s: s.index[0].start or 0)
        shown = np.asarray(shard.data)
        frames, truth, given = map(np.asarray, (batch.frames, batch.labels, batch.perturbed))
        return training_sheet(frames, truth, given, shown)

    def _keep(self, done: int, state: TrainState) -> None:
        """Validates and saves, where it is time to."""
        config = self.config
        last = done == config.steps
        every = config.validate.every
        validates = bool(every) and (done % every == 0 or last)
        if not (validates or last or done % config.save_every == 0):
            return
        with self.clock.paused():
            self._check(done, state)
            score = self._validate(done, state) if validates else None
            self._save(done, state, score)

    def _validate(self, done: int, state: TrainState) -> float | None:
        model = self.averaged(state)
        alone = jax.process_count() == 1
        each: list[tuple[str, dict[str, Any]]] = []
        for config, sequences in self.validated:
            found = validate(model, config, sequences, stopped=lambda: alone and self.stop.asked)
            if found is None:
                self._save(done, state, None)
                self._stop(done, state)
            each.append((config.root or "", found))
        scores = mean_scores(each)
        self.monitor.validation(done, scores)
        best = self.checkpoints.best
        if best is None or scores["J&F"] > best[1]:
            means = {name: scores[name] for name in ("J&F", "J", "F")}
            self.export(self.workdir / "best.safetensors", model, done, validation=means)
        return scores["J&F"]

    def _check(self, done: int, state: TrainState) -> None:
        """Refuses to save what is of no use.

        Raises:
          RdejaxError: a loss, a gradient or a parameter is not finite.
        """
        self.window.check()
        if not bool(all_finite((state.params, state.ema))):
            raise RdejaxError(
                f"step {done}: a parameter is not finite; {kept(self.checkpoints.latest)}. Lower "
                "optimizer.lr or set optimizer.clip_norm"
            )

    def _save(self, done: int, state: TrainState, score: float | None) -> None:
        record = {
            "step": done,
            "seed": self.config.seed,
            "config": as_json(self.config),
            # The next clip by number; see the module `checkpoints` for why this is all.
            "data": {"step": done, "clip": done * self.config.batch},
            "environment": environment(),
            "validation": score,
        }
        self.checkpoints.save(done, state, record, score)
        self.export(self.workdir / "latest.safetensors", self.averaged(state), done)

    def _stop(self, done: int, state: TrainState) -> NoReturn:
        """Saves and ends.

        Raises:
          Stopped: always.
        """
        self._keep_all(done, state)
        self.monitor.say(f"stopped by a signal; step {done} is saved, --resume continues")
        raise Stopped(self.stop.status)

    def _keep_all(self, done: int, state: TrainState) -> None:
        """Saves what is not saved yet, and waits until it is on the disk."""
        self._check(done, state)
        if self.checkpoints.latest != done:
            self._save(done, state, None)
        self.checkpoints.wait()
