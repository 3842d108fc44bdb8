"""Trains a system: python train.py CONFIG.py --workdir DIR [--resume] [--FIELD VALUE ...].

CONFIG.py defines `config = TrainConfig(...)`; each of its fields can be overridden, nested ones as
--optimizer.lr. `python train.py CONFIG.py --help` explains them all.
"""

import importlib.util
import sys
from pathlib import Path
from typing import Annotated

import tyro

from rdejax.cli import cli_errors
from rdejax.errors import RdejaxError
from rdejax.registry import running
from rdejax.train.config import TrainConfig


def load_config(path: str) -> TrainConfig:
    """The `config` that a Python file defines.

    Raises:
      RdejaxError: no such file, one that Python cannot run, or one without a configuration.
    """
    if not path.endswith(".py") or not Path(path).is_file():
        raise RdejaxError(f"{path}: no such configuration; give a .py file from configs/")
    spec = importlib.util.spec_from_file_location("experiment", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    with running(path):
        spec.loader.exec_module(module)
    if not isinstance(getattr(module, "config", None), TrainConfig):
        raise RdejaxError(
            f"{path}: defines no `config = TrainConfig(...)`; see configs/rde_lite.py"
        )
    return module.config


def main() -> None:
    """Reads the configuration and its overrides, and trains.

    Exit codes: 2 input that can be mended, 1 a full disk or too little memory, 130 Ctrl-C and 143
    SIGTERM, after the last step was saved.
    """
    if len(sys.argv) < 2 or sys.argv[1].startswith("-"):
        print(__doc__)
        raise SystemExit(0 if {"--help", "-h"} & set(sys.argv) else 2)
    with cli_errors(
        memory="give a smaller batch, raise scale.accumulate, or set scale.remat, scale.fsdp or "
        "scale.precision bfloat16"
    ):
        default = load_config(sys.argv[1])

        def run(
            workdir: Path,
            config: Annotated[TrainConfig, tyro.conf.arg(name="")] = default,
            resume: bool = False,
        ) -> None:
            """Trains, with the configuration's fields overridden.

            Args:
                workdir: folder for checkpoints, logs and weights.
                config: the run.
                resume: continue from the last checkpoint in the work folder; start where there is
                    none.
            """
            _train(config, workdir, resume)

        tyro.cli(run, args=sys.argv[2:], prog=f"train.py {sys.argv[1]}")


def _train(config: TrainConfig, workdir: Path, resume: bool) -> None:
    # Importing JAX takes seconds, which --help need not wait for.
    from rdejax.train.loop import train

    print(f"weights: {train(config, workdir, resume=resume)}")


if __name__ == "__main__":
    main()
