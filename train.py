"""Trains a system: python train.py configs/NAME.py --workdir DIR [--field.subfield VALUE ...]."""

import importlib.util
import sys
from pathlib import Path

import tyro

from rdejax.errors import RdejaxError, cli_errors
from rdejax.train.config import TrainConfig


def load_config(path: str) -> TrainConfig:
    """The `config` that a Python file defines."""
    spec = importlib.util.spec_from_file_location("experiment", path)
    if spec is None or spec.loader is None or not Path(path).is_file():
        raise RdejaxError(f"{path}: no such configuration; give a .py file from configs/")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    if not isinstance(getattr(module, "config", None), TrainConfig):
        raise RdejaxError(
            f"{path}: defines no `config = TrainConfig(...)`; see configs/rde_lite.py"
        )
    return module.config


def main() -> None:
    """Reads the configuration and its overrides, and trains."""
    if len(sys.argv) < 2 or sys.argv[1].startswith("-"):
        print("usage: train.py CONFIG.py --workdir DIR [--field.subfield VALUE ...]")
        raise SystemExit(0 if "--help" in sys.argv or "-h" in sys.argv else 2)
    with cli_errors():
        default = load_config(sys.argv[1])

        def run(workdir: Path, config: tyro.conf.OmitArgPrefixes[TrainConfig] = default) -> None:
            from rdejax.train.loop import train

            print(f"weights: {train(config, workdir)}")

        tyro.cli(run, args=sys.argv[2:], prog=f"train.py {sys.argv[1]}")


if __name__ == "__main__":
    main()
