"""Where a run's numbers go beside its own log: TensorBoard, Weights & Biases, MLflow.

Another one is a class with the three methods of `Logger` and an entry in `LOGGERS`.
"""

import contextlib
import hashlib
import importlib
import os
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from jaxtyping import UInt8

from rdejax.errors import RdejaxError, first_line
from rdejax.train.event_file import EventFile


class Logger(Protocol):
    """Takes scalars and pictures by step."""

    def scalars(self, step: int, values: dict[str, float]) -> None:
        """Numbers of a step, by "group/name"."""

    def picture(self, step: int, image: UInt8[np.ndarray, "h w 3"]) -> None:
        """A picture of a step."""

    def close(self) -> None:
        """Everything is written once this returns."""


class TensorBoard:
    """Event files in `WORKDIR/tensorboard`; steps that a killed run is to do again are left out."""

    def __init__(self, workdir: Path, config: dict[str, Any], first: int):
        del config
        self._folder = workdir / "tensorboard"
        with naming(self._folder):
            self._board = EventFile(self._folder, first + 1 if first else None)

    def scalars(self, step: int, values: dict[str, float]) -> None:
        """See `Logger`."""
        with naming(self._folder):
            self._board.scalars(step, values)

    def picture(self, step: int, image: UInt8[np.ndarray, "h w 3"]) -> None:
        """See `Logger`."""
        with naming(self._folder):
            self._board.picture(step, "clips", image)

    def close(self) -> None:
        """See `Logger`."""
        self._board.close()


class WandB:
    """Weights & Biases; a resumed run goes on in the same one.

    `WANDB_PROJECT`, `WANDB_ENTITY` and `WANDB_MODE=offline` (files in `WORKDIR/wandb`, for
    `wandb sync`) are W&B's own.
    """

    def __init__(self, workdir: Path, config: dict[str, Any], first: int):
        del first
        wandb = _imported("wandb")
        self._image = wandb.Image
        try:
            self._run = wandb.init(
                project=os.environ.get("WANDB_PROJECT", "rdejax"),
                dir=str(workdir),
                id=_identity(workdir),
                name=workdir.name,
                resume="allow",
                config=config,
            )
        except Exception as error:  # no login, no network: of many kinds
            raise RdejaxError(
                f"logger wandb: {first_line(error, 200)}; run wandb login, or set "
                "WANDB_MODE=offline"
            ) from error

    def scalars(self, step: int, values: dict[str, float]) -> None:
        """See `Logger`."""
        self._run.log(values, step=step)

    def picture(self, step: int, image: UInt8[np.ndarray, "h w 3"]) -> None:
        """See `Logger`."""
        self._run.log({"clips": self._image(image)}, step=step)

    def close(self) -> None:
        """See `Logger`."""
        self._run.finish()


class MLflow:
    """MLflow; a resumed run goes on in the same one. Numbers only, pictures are left out.

    `MLFLOW_TRACKING_URI` names the server; without it files in `WORKDIR/mlruns`, which need none.
    """

    def __init__(self, workdir: Path, config: dict[str, Any], first: int):
        del first
        client = _imported("mlflow.tracking").MlflowClient
        self._metric = _imported("mlflow.entities").Metric
        uri = os.environ.get("MLFLOW_TRACKING_URI") or (workdir / "mlruns").absolute().as_uri()
        if uri.startswith("file:"):
            # Newer versions take folders only from those who say that they mean it.
            os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
        identity = _identity(workdir)
        try:
            self._client = client(uri)
            name = os.environ.get("MLFLOW_EXPERIMENT_NAME", "rdejax")
            experiment = self._client.get_experiment_by_name(name)
            place = experiment.experiment_id if experiment else self._client.create_experiment(name)
            known = self._client.search_runs([place], f"tags.rdejax = '{identity}'", max_results=1)
            if known:
                self._run = known[0].info.run_id
            else:
                tags = {"rdejax": identity, "mlflow.runName": workdir.name}
                self._run = self._client.create_run(place, tags=tags).info.run_id
                for key, value in _flat(config).items():
                    self._client.log_param(self._run, key, str(value)[:500])
        except Exception as error:  # the server's, the store's, the network's
            raise RdejaxError(
                f"logger mlflow: {uri}: {first_line(error, 200)}; look at MLFLOW_TRACKING_URI"
            ) from error

    def scalars(self, step: int, values: dict[str, float]) -> None:
        """See `Logger`."""
        now = int(1000 * time.time())
        metrics = [self._metric(name, value, now, step) for name, value in values.items()]
        self._client.log_batch(self._run, metrics=metrics)

    def picture(self, step: int, image: UInt8[np.ndarray, "h w 3"]) -> None:
        """See the class."""
        del step, image

    def close(self) -> None:
        """See `Logger`."""
        self._client.set_terminated(self._run)


LOGGERS: dict[str, Callable[[Path, dict[str, Any], int], Logger]] = {
    "tensorboard": TensorBoard,
    "wandb": WandB,
    "mlflow": MLflow,
}


def open_loggers(
    names: Sequence[str], workdir: Path, config: dict[str, Any], first: int
) -> list[Logger]:
    """The loggers of a run.

    Args:
      names: of `LOGGERS`.
      workdir: of the run.
      config: the run's configuration, for those that show it.
      first: steps done before.

    Raises:
      RdejaxError: one that is not installed or cannot begin; those opened before are closed.
    """
    opened: list[Logger] = []
    try:
        for name in names:
            opened.append(LOGGERS[name](workdir, config, first))
    except BaseException:
        for logger in opened:
            logger.close()
        raise
    return opened


@contextlib.contextmanager
def naming(path: Path) -> Iterator[None]:
    """Errors of the block name the file: the system does so only where one is opened."""
    try:
        yield
    except OSError as error:
        error.filename = error.filename or str(path)
        raise


def _imported(module: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError:
        name = module.partition(".")[0]
        raise RdejaxError(
            f"logger {name}: {name} is not installed; pip install 'rdejax[loggers]', or leave it "
            "out of --logger"
        ) from None


def _identity(workdir: Path) -> str:
    """The same for the same work folder, so that a resumed run is one run."""
    return hashlib.sha256(str(workdir.absolute()).encode()).hexdigest()[:16]


def _flat(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in tree.items():
        whole = f"{prefix}{name}"
        flat |= _flat(value, f"{whole}.") if isinstance(value, dict) else {whole: value}
    return flat
