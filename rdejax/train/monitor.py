"""Where a run tells how it goes: terminal, `log.jsonl`, loggers."""

import contextlib
import datetime
import json
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from rdejax.train.loggers import Logger, naming, open_loggers

# Groups of the loggers' scalars; what is not named here is a term of the loss.
_GROUPS = {
    "iou": "train",
    "learning_rate": "optimizer",
    "grad_norm": "optimizer",
    "seconds_per_step": "speed",
    "data_wait": "speed",
    "clips_per_second": "speed",
}


class Clock:
    """Time per step since the last reading, without pauses; and how much of it went on data."""

    def __init__(self):
        self.restart()

    def restart(self) -> None:
        """Forgets what was measured."""
        self._begun = time.perf_counter()
        self._waited = self._paused = 0.0
        self._steps = 0

    def step(self) -> None:
        """Counts a step."""
        self._steps += 1

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """What happens meanwhile is waiting for data."""
        begun = time.perf_counter()
        try:
            yield
        finally:
            self._waited += time.perf_counter() - begun

    @contextmanager
    def paused(self) -> Iterator[None]:
        """What happens meanwhile (validation, saving, pictures) is not training."""
        begun = time.perf_counter()
        try:
            yield
        finally:
            self._paused += time.perf_counter() - begun

    def read(self, batch: int) -> dict[str, float]:
        """Seconds per step, seconds of them waited for data, clips per second; then restarts."""
        steps, seconds = self._steps, time.perf_counter() - self._begun - self._paused
        waited = self._waited
        self.restart()
        if not steps:
            return {}
        return {
            "seconds_per_step": seconds / steps,
            "data_wait": waited / steps,
            "clips_per_second": batch * steps / max(seconds, 1e-9),
        }


class Monitor:
    """Writes and shows a run's numbers and pictures; a context manager.

    On a terminal a progress bar; elsewhere a line of JSON for each entry of the log, with the time
    left.

    Args:
      workdir: gets `log.jsonl` and what the loggers write, continued from step `first`.
      first: steps done before.
      total: steps of the whole run.
      active: whether this process writes; only one of a run may.
      loggers: names of `rdejax.train.loggers.LOGGERS`.
      config: the run's configuration, for loggers that show it.
    """

    def __init__(
        self,
        workdir: Path,
        *,
        first: int,
        total: int,
        active: bool = True,
        loggers: Sequence[str] = ("tensorboard",),
        config: dict[str, Any] | None = None,
    ):
        self._workdir, self._first, self._total, self._active = workdir, first, total, active
        self._names, self._config = loggers, config or {}
        self._log: Any = None
        self._loggers: list[Logger] = []
        self._bar: Any = None
        self._task: Any = None

    def __enter__(self) -> "Monitor":
        if not self._active:
            return self
        self._loggers = open_loggers(self._names, self._workdir, self._config, self._first)
        self._log = open(self._workdir / "log.jsonl", "a", encoding="utf-8")
        if sys.stdout.isatty():
            self._open_bar()
        return self

    def __exit__(self, kind: object, value: object, trace: object) -> None:
        if self._bar is not None:
            self._bar.stop()
        for file in (self._log, *self._loggers):
            if file is not None:
                # What could not be written has been told, and closing tries to write it again.
                with contextlib.suppress(OSError) if kind else contextlib.nullcontext():
                    file.close()

    def say(self, text: str) -> None:
        """A line for the terminal only."""
        if self._bar is not None:
            self._bar.console.print(text, markup=False, highlight=False)
        elif self._active:
            print(text, flush=True)

    def advance(self, step: int) -> None:
        """Tells the steps done."""
        if self._bar is not None:
            self._bar.update(self._task, completed=step)

    def metrics(self, step: int, values: dict[str, float]) -> None:
        """Means over the steps since the last call."""
        line = {"step": step, **{name: _round(v) for name, v in values.items()}}
        seconds = (self._total - step) * values.get("seconds_per_step", 0.0)
        left = str(datetime.timedelta(seconds=round(seconds)))
        self._write(line, **({"time_left": left} if seconds else {}))
        if self._bar is not None:
            names = ("loss", "iou", "seconds_per_step")
            shown = [f"{name} {values[name]:.3g}" for name in names if name in values]
            self._bar.update(self._task, status="  ".join(shown))
        self._scalars(step, {f"{_GROUPS.get(n, 'loss')}/{n}": v for n, v in values.items()})

    def validation(self, step: int, scores: dict[str, Any]) -> None:
        """Scores of a validation, see `rdejax.train.validate.validate`."""
        each = {name: _round(v) for name, v in scores["sequences"].items()}
        means = {name: _round(scores[name]) for name in ("J&F", "J", "F")}
        sets = {name: _round(v) for name, v in scores.get("sets", {}).items()}
        line = {**means, **({"sets": sets} if sets else {}), "sequences": each}
        self._write({"step": step, "validation": line})
        if self._bar is not None:
            self.say(f"step {step}: validation J&F {means['J&F']}  J {means['J']}  F {means['F']}")
        self._scalars(
            step,
            {f"validation/{name.replace('&', '_and_')}": v for name, v in (means | sets).items()},
        )

    def picture(self, step: int, image: UInt8[np.ndarray, "h w 3"]) -> None:
        """A picture for the loggers."""
        for logger in self._loggers:
            logger.picture(step, image)

    def _open_bar(self) -> None:
        from rich import progress

        self._bar = progress.Progress(
            progress.TextColumn("step"),
            progress.MofNCompleteColumn(),
            progress.BarColumn(),
            progress.TextColumn("{task.fields[status]}"),
            progress.TimeRemainingColumn(),
        )
        self._bar.start()
        self._task = self._bar.add_task("", total=self._total, status="compiling")
        self._bar.update(self._task, completed=self._first)

    def _write(self, line: dict[str, Any], **shown: Any) -> None:
        """An entry of the log; `shown` is for readers of the moment only."""
        if not self._active:
            return
        with naming(self._workdir / "log.jsonl"):
            self._log.write(json.dumps(line) + "\n")
            self._log.flush()
        if self._bar is None:
            print(json.dumps(line | shown), flush=True)

    def _scalars(self, step: int, values: dict[str, float]) -> None:
        for logger in self._loggers:
            logger.scalars(step, values)


def _round(value: float) -> float:
    return float(f"{value:.6g}")
