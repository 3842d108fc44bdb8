"""What every command line shares: problems as one sentence and an exit code, settings as text."""

import ast
import contextlib
import errno
import io
import os
import sys
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn

from rdejax.errors import RdejaxError
from rdejax.signals import Terminated, sigterm_raises

_AGAIN = "run the same command again to continue"
_NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
# What stands for None in settings: no top-k, no bound, the full size.
_WORDS_FOR_NONE = ("all", "none")

_subcommand: list[str] = []


def program() -> str:
    """The command as it was typed, for usage lines: "rdejax infer", "python -m rdejax.infer"."""
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    if spec is None:
        name = Path(sys.argv[0]).name
    else:
        name = f"python -m {spec.name.removesuffix('.__main__')}"
    return " ".join((name, *_subcommand))


@contextlib.contextmanager
def subcommand(name: str) -> Iterator[None]:
    """Within the block, `program` ends in this word."""
    _subcommand.append(name)
    try:
        yield
    finally:
        _subcommand.pop()


@contextlib.contextmanager
def cli_errors(memory: str | None = None, again: str = _AGAIN) -> Iterator[None]:
    """Turns problems that a person can mend into one line on stderr and a non-zero exit.

    Exit codes: 2 `RdejaxError`; 1 a full disk, an unwritable file or, if `memory` is given, too
    little memory; 130 Ctrl-C; 143 SIGTERM; 141 a reader of our output that went away. Any other
    exception is a defect of this library and keeps its traceback.

    Args:
      memory: the mend for too little memory, such as "try a smaller --size"; None leaves those
        errors as they are.
      again: how an interrupted run is continued.
    """
    _prepare_streams()
    try:
        with sigterm_raises():
            yield
    except RdejaxError as error:
        fail(str(error), 2)
    except Terminated:
        print(f"terminated: {again}", file=sys.stderr)
        raise SystemExit(143) from None
    except KeyboardInterrupt:
        print(f"interrupted: {again}", file=sys.stderr)
        raise SystemExit(130) from None
    except BrokenPipeError:
        # A second error while Python flushes would hide this one.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(141) from None
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        mend = f"; free some space and {again}"
        fail(f"{where}{error.strerror or error}{mend if error.errno in _NO_SPACE else ''}", 1)
    except (MemoryError, RuntimeError) as error:
        # JAX raises its own subclass of RuntimeError and says it in the text.
        known = isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in str(error)
        if memory is None or not known:
            raise
        detail = (str(error).splitlines() or ["out of memory"])[0]
        fail(f"too little memory ({detail}); {memory}", 1)


def _prepare_streams() -> None:
    """Output streams that take every text, and never are a file that was opened for results."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            # Closed, as by ">&-": the next file that is opened would get its number, and with it
            # what libraries print.
            os.open(os.devnull, os.O_RDWR)
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode))
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def fail(text: str, code: int) -> NoReturn:
    """Ends the program with "error: TEXT" on stderr and this exit code."""
    print(f"error: {printable(text)}", file=sys.stderr)
    raise SystemExit(code) from None


def printable(text: str) -> str:
    """The text without what steers a terminal: names in it may be anybody's."""
    return "".join(c if c.isprintable() or c == "\n" else ascii(c)[1:-1] for c in text)


def note(text: str, *, quiet: bool = False) -> None:
    """Prints something worth knowing that is no error, on stderr."""
    if not quiet:
        print(f"note: {printable(text)}", file=sys.stderr)


def name_and_value(text: str, source: str) -> tuple[str, Any]:
    """Name and value of a setting that is written "NAME=VALUE".

    Args:
      text: the setting.
      source: what the message calls it, such as "--set a".

    Raises:
      RdejaxError: it does not look like that.
    """
    name, sign, value = text.partition("=")
    if not sign or not name.isidentifier():
        raise RdejaxError(f"{source}: give NAME=VALUE")
    return name, setting_value(value)


def setting_value(text: str) -> Any:
    """A setting's value: a Python literal; `all` and `none` are None; anything else is text."""
    if text in _WORDS_FOR_NONE:
        return None
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):  # of a nest, the last two
        return text


def split_settings(
    arguments: Sequence[str], flags: Collection[str]
) -> tuple[list[str], dict[str, str]]:
    """Takes `--name value` and `--name=value` out of arguments where the name is no known flag.

    So every setting of a memory rule is a flag, although only the rule knows its settings.

    Args:
      arguments: of a command line.
      flags: those it knows itself, with their dashes.

    Returns:
      The other arguments in order, and the settings, name -> value as text.

    Raises:
      RdejaxError: such a name without a value, or given twice.
    """
    words = list(arguments)
    rest: list[str] = []
    settings: dict[str, str] = {}
    while words:
        word = words.pop(0)
        flag, sign, value = word.partition("=")
        name = flag[2:].replace("-", "_")
        if word == "--":
            return [*rest, word, *words], settings
        if not flag.startswith("--") or "--" + name.replace("_", "-") in flags:
            rest.append(word)
            continue
        if not sign:
            if not words or words[0].startswith("--"):
                raise RdejaxError(
                    f"{flag}: unknown, or a setting of the memory rule without a value; see --help"
                )
            value = words.pop(0)
        if name in settings:
            raise RdejaxError(f"{flag}: given twice; leave one of the two out")
        settings[name] = value
    return rest, settings
