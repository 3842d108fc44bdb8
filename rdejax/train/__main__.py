"""The command line of training: `rdejax train`, `train.py` and `python -m rdejax.train`."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import tyro

from rdejax.cli import cli_errors, program
from rdejax.compilation_cache import keep_compiled
from rdejax.options import parse_options
from rdejax.signals import ending_on_signals
from rdejax.train.config import TrainConfig
from rdejax.train.load_config import describe_recipes, load_config

_HELP = """Trains a system:

    {program} RECIPE --workdir DIR [--resume] [--FIELD VALUE ...]

RECIPE is the name of one of the recipes below, or a Python file of your own that defines
`config = TrainConfig(...)`. Each field can be overridden, nested ones as --optimizer.lr;
`{program} RECIPE --help` explains them all.

Recipes:
{recipes}"""


def main(argv: Sequence[str] | None = None) -> None:
    """Reads the configuration and its overrides, and trains.

    Exit codes: 2 input that can be mended, 1 a full disk or too little memory, 130 Ctrl-C and 143
    SIGTERM, after the last step was saved.

    Args:
      argv: arguments; the process's own by default.
    """
    argv = list(sys.argv[1:] if argv is None else argv)
    again = "run the same command with --resume to continue"
    memory = (
        "give a smaller batch, raise scale.accumulate, or set scale.remat, scale.fsdp or "
        "scale.precision bfloat16"
    )
    with cli_errors(memory, again), ending_on_signals(again):
        if not argv or argv[0].startswith("-"):
            print(_HELP.format(program=program(), recipes=describe_recipes()), flush=True)
            raise SystemExit(0 if {"--help", "-h"} & set(argv) else 2)
        default = load_config(argv[0])

        def run(
            workdir: Path,
            config: Annotated[TrainConfig, tyro.conf.arg(name="")] = default,
            resume: bool = False,
            no_compilation_cache: bool = False,
        ) -> tuple[TrainConfig, Path, bool, bool]:
            """Trains, with the configuration's fields overridden.

            Args:
                workdir: folder for checkpoints, logs and weights.
                config: the run.
                resume: continue from the last checkpoint in the work folder; start where there is
                    none.
                no_compilation_cache: do not keep compiled programs from run to run in the user's
                    cache folder.
            """
            return config, workdir, resume, not no_compilation_cache

        _train(*parse_options(run, args=argv[1:], prog=f"{program()} {argv[0]}"))


def _train(config: TrainConfig, workdir: Path, resume: bool, cache: bool) -> None:
    keep_compiled(cache)
    # Importing JAX takes seconds, which --help need not wait for.
    from rdejax.train.loop import train

    print(f"weights: {train(config, workdir, resume=resume)}")


if __name__ == "__main__":
    main()
