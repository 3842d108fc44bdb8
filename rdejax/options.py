"""Command lines from typed dataclasses: what is wrong with one is told in one sentence."""

import contextlib
import dataclasses
import io
import re
import sys
from collections.abc import Callable, Sequence
from typing import Any

import tyro
from tyro.constructors import PrimitiveConstructorSpec

from rdejax.cli import fail, program
from rdejax.errors import RdejaxError


def parse_options(
    kind: Any, args: Sequence[str] | None = None, *, prog: str | None = None, **options: Any
) -> Any:
    """As `tyro.cli`, but a wrong command line is one sentence on stderr, not a page.

    Call it within `rdejax.cli.cli_errors`, which makes sure that there is a stderr.

    Args:
      kind: dataclass, union of dataclasses or function.
      args: arguments; the process's own by default.
      prog: the command, for --help; what was typed unless given.
      **options: others of `tyro.cli`.

    Raises:
      SystemExit: --help (0), or a wrong command line (2), a number below 0 among it.
      RdejaxError: an empty value; or what the kind's own checks raise.
    """
    refuse_empty(sys.argv[1:] if args is None else args)
    told = io.StringIO()
    try:
        with contextlib.redirect_stderr(told):
            parsed = tyro.cli(kind, args=args, prog=prog or program(), **options)
    except SystemExit as end:
        text = told.getvalue()
        if end.code in (0, None) or text.startswith("error: "):
            sys.stderr.write(text)
            raise
        fail(f"{_sentence(text)}; see {prog or program()} --help", 2)
    sys.stderr.write(told.getvalue())
    _check_numbers(parsed)
    return parsed


def _check_numbers(parsed: Any) -> None:
    """Refuses what no option of this library takes: numbers below 0 and numbers that are none."""
    for name, value in vars(parsed).items() if dataclasses.is_dataclass(parsed) else ():
        if isinstance(value, int | float) and not 0 <= value < float("inf"):
            fail(f"--{name.replace('_', '-')} {value}: give a number of 0 or more", 2)


def refuse_empty(args: Sequence[str]) -> None:
    """Refuses options whose value is empty: a path of no characters is the current folder.

    Raises:
      RdejaxError: there is one.
    """
    for flag, value in zip(args, [*args[1:], "-"], strict=False):
        if flag.startswith("--") and (not value or flag.endswith("=")):
            raise RdejaxError(f"{flag.rstrip('=')}: its value is empty; give one or leave it out")


def read_by(
    parse: Callable[[str], Any], flag: str, metavar: str, wanted: str
) -> PrimitiveConstructorSpec[Any]:
    """How tyro reads a value; a wrong one ends the program with one sentence and exit code 2.

    Args:
      parse: gives the value, or raises ValueError.
      flag: the option, for the message.
      metavar: what --help shows for the value.
      wanted: what to give, for the message.
    """

    def read(words: list[str]) -> Any:
        try:
            return parse(words[0])
        except RdejaxError as error:  # which says it itself
            fail(str(error), 2)
        except ValueError:
            fail(f"{flag} {words[0]}: must be {wanted}", 2)

    return PrimitiveConstructorSpec(
        nargs=1,
        metavar=metavar,
        instance_from_str=read,
        is_instance=lambda value: True,
        str_from_instance=lambda value: [str(value)],
    )


def positive(text: str) -> int:
    """A whole number, 1 or more, from text.

    Raises:
      ValueError: it is none.
    """
    if not (text.isascii() and text.isdecimal()) or not 1 <= int(text) < 1 << 31:
        raise ValueError
    return int(text)


def whole(flag: str) -> PrimitiveConstructorSpec[Any]:
    """How a number of things is read: 1 or more."""
    return read_by(positive, flag, "N", "a whole number, 1 or more")


def _sentence(page: str) -> str:
    """The problem that a framed page of tyro's tells of."""
    lines = [line for line in page.splitlines() if line.strip()]
    if page.lstrip().startswith("╭"):
        sections = _sections([line[2:-1] for line in lines if line.startswith("│")])
    else:  # without a frame, where the output takes ASCII only; the title is a section
        sections = _sections([line[2:] for line in lines])[1:] or [[]]
    first = [line.rstrip() for line in sections[0]] or ["wrong options"]
    if first[0].startswith("Missing from"):
        names = [line.strip() for line in first[1:] if re.match(r" {4}\S", line)]
        return f"missing: {', '.join(names)}"
    end = next((i for i, line in enumerate(first) if line.startswith("Got errors")), len(first))
    text = " ".join(" ".join(first[:end]).split()).rstrip(".")
    near = [line.strip() for line in (sections[1:2] or [[]])[0] if re.match(r" {4}-", line)]
    meant = near and text.startswith("Unrecognized")
    return text + (f"; perhaps {near[0].split()[0]} is meant" if meant else "")


def _sections(lines: list[str]) -> list[list[str]]:
    """Parts of a page between its rules."""
    sections: list[list[str]] = [[]]
    for line in lines:
        if set(line) <= set("─- "):
            sections.append([])
        else:
            sections[-1].append(line)
    return sections
