"""Command line: `rdejax data SPEC ...` and `rdejax data convert SPEC ...`."""

import contextlib
import dataclasses
import logging
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import tyro
from rich import progress
from rich.console import Console

from rdejax.cli import cli_errors, program
from rdejax.data.check.findings import Findings, show
from rdejax.data.check.source import check_source
from rdejax.data.sources.spec import parse
from rdejax.errors import RdejaxError
from rdejax.files import write_json
from rdejax.folders import lying_in
from rdejax.options import parse_options, whole

Specs = Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="SPEC [SPEC ...]")]


@dataclasses.dataclass(frozen=True)
class Check:
    """Checks training data: what there is, what is broken, what is missing.

    Exits with 1 if anything cannot be used. `rdejax data convert --help` tells how to
    turn data into a few large files.
    """

    specs: Specs
    """KIND:PATH or a path; see docs/data.md."""
    quick: bool = False
    """Read the headers of the files only: finds no truncated file and no wrong id."""
    limit: Annotated[int, whole("--limit")] = 5
    """Findings of each kind that are shown."""
    json: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """Write every finding there."""
    threads: Annotated[int | None, whole("--threads")] = None
    """Threads that read; one per core unless given."""


@dataclasses.dataclass(frozen=True)
class Convert:
    """Writes training data as a TFDS data set of ArrayRecord files, one split per source.

    The split's name is what follows "@", or "train". Needs `pip install 'rdejax[tfds]'`, but not
    TensorFlow.
    """

    specs: Specs
    """KIND:PATH or a path; see docs/data.md."""
    output: Annotated[Path, tyro.conf.arg(metavar="DIR")]
    """TFDS's data_dir; the data set goes into DIR/NAME/1.0.0."""
    name: str | None = None
    """Name of the data set; made of the first source unless given."""
    skip_bad: bool = False
    """Leave unusable sequences and images out, with a warning, instead of stopping."""
    threads: Annotated[int | None, whole("--threads")] = None
    """Threads that read and write; one per core unless given."""


def main(argv: list[str] | None = None) -> None:
    """Parses `argv` (the process's own by default), checks or converts."""
    argv = sys.argv[1:] if argv is None else argv
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s")
    with cli_errors():
        if argv[:1] == ["convert"]:
            _convert(parse_options(Convert, args=argv[1:], prog=f"{program()} convert"))
        else:
            _check(parse_options(Check, args=argv))


def _bar() -> progress.Progress:
    return progress.Progress(
        progress.TextColumn("{task.description}"),
        progress.BarColumn(),
        progress.MofNCompleteColumn(),
        progress.TimeRemainingColumn(),
        console=Console(stderr=True),
        disable=not sys.stderr.isatty(),
    )


def _need_some(specs: tuple[str, ...]) -> None:
    if not specs:
        raise RdejaxError("no data named; give KIND:PATH or a path, see docs/data.md")


def _check(args: Check) -> None:
    _need_some(args.specs)
    if args.json is not None and args.json.exists():
        _keep_data(args.json, args.specs)
    found = [_check_one(spec, args) for spec in args.specs]
    if args.json is not None:
        write_json(args.json, [findings.as_dict() for findings in found])
    if any(findings.problems for findings in found):
        raise SystemExit(1)


def _keep_data(written: Path, specs: tuple[str, ...]) -> None:
    for spec in specs:
        with contextlib.suppress(RdejaxError):  # of which the check tells
            folder = parse(spec).path
            if folder and lying_in([written], [Path(folder)]):
                break
    else:
        return
    raise RdejaxError(f"{written}: lies in the data ({spec}); choose another --json")


def _check_one(spec: str, args: Check) -> Findings:
    with _bar() as bar:
        task = bar.add_task(spec, total=None)

        def advance(done: int, total: int) -> None:
            bar.update(task, completed=done, total=total)

        findings = check_source(spec, quick=args.quick, threads=args.threads, advance=advance)
    show(findings, args.limit, Console())
    return findings


def _convert(args: Convert) -> None:
    from rdejax.data.builders.write_tfds import write_tfds

    with _bar() as bar:
        _need_some(args.specs)

        def progress_of(title: str, total: int) -> Callable[[], None]:
            task = bar.add_task(title, total=total)
            return lambda: bar.advance(task)

        folder = write_tfds(
            args.specs,
            args.output,
            name=args.name,
            skip_bad=args.skip_bad,
            threads=args.threads,
            progress=progress_of,
        )
    print(f"wrote {folder}; train on it with --data tfds:{folder}")


if __name__ == "__main__":
    main()
