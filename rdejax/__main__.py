"""The one command line: `rdejax COMMAND ...` and `python -m rdejax COMMAND ...`.

Each command is a module of this package with a `main(argv)`, imported when it is called for.
"""

import difflib
import importlib
import importlib.util
import sys
from collections.abc import Callable, Sequence

from rdejax import __version__
from rdejax.cli import cli_errors, program, subcommand
from rdejax.compilation_cache import keep_compiled
from rdejax.errors import RdejaxError

# name -> (module, what it does); a command whose module is not installed is not shown.
_COMMANDS = {
    "infer": ("infer", "masks of a video, or of a data set, from first masks"),
    "app": ("app", "draw first masks and mend results in the browser"),
    "export": ("export", "results as COCO, YouTube-VOS, PNG per object, video with alpha"),
    "visualize": ("visualize", "overlays, sheets, strips, pictures of the memory"),
    "report": ("report", "a run as one HTML page"),
    "evaluate": ("evaluate", "J and F of results, as DAVIS and YouTube-VOS compute them"),
    "compare": ("compare", "results side by side"),
    "submit": ("evaluate.submit", "results packed for a benchmark's server"),
    "train": ("train", "train a system by a recipe"),
    "data": ("data", "check and convert training data"),
    "push": ("push", "weights and a model card to the Hugging Face Hub"),
    "convert": ("convert", "published PyTorch checkpoints as weights of this library"),
}


# Their modules import JAX, before which the cache must be told of; infer and train, which do not,
# see to it themselves.
_COMPILING = ("app", "visualize")


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the command that the first argument names.

    Args:
      argv: arguments; the process's own by default.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    with cli_errors():
        if not words or words[0] in ("-h", "--help", "help"):
            print(_help())
            raise SystemExit(0 if words else 2)
        if words[0] == "--version":
            print(f"rdejax {__version__}")
            return
        if words[0] in _COMPILING:
            keep_compiled()
        entry = _entry(words[0])
    with subcommand(words[0]):
        entry(words[1:])


def _entry(name: str) -> Callable[[Sequence[str]], None]:
    commands = _available()
    if name not in commands:
        near = difflib.get_close_matches(name, commands, n=1)
        hint = f"did you mean {near[0]}?" if near else f"choose one of {', '.join(commands)}"
        raise RdejaxError(f"{name}: no such command; {hint} (see {program()} --help)")
    module = importlib.import_module(f"rdejax.{_COMMANDS[name][0]}")
    if hasattr(module, "__path__"):  # a package
        module = importlib.import_module(f"{module.__name__}.__main__")
    return module.main


def _available() -> list[str]:
    return [
        name
        for name, (module, _) in _COMMANDS.items()
        if importlib.util.find_spec(f"rdejax.{module}") is not None
    ]


def _help() -> str:
    lines = [f"  {name:10} {_COMMANDS[name][1]}" for name in _available()]
    return "\n".join(
        [
            f"usage: {program()} COMMAND ...",
            "",
            "Video object segmentation in JAX where the memory is a value.",
            "",
            *lines,
            "",
            f"{program()} COMMAND --help explains each; {program()} --version tells the version.",
        ]
    )


if __name__ == "__main__":
    main()
