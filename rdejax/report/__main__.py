"""Command line: `rdejax report RESULTS`."""

import dataclasses
import sys
from pathlib import Path
from typing import Annotated, Literal

import tyro
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from rdejax.cli import cli_errors
from rdejax.options import parse_options, whole
from rdejax.report.write import write_report


@dataclasses.dataclass(frozen=True)
class Arguments:
    """Writes one HTML page about a run: settings, scores, plots, clips that play in the browser.

    The page needs nothing beside itself. With --dataset and --root the results are scored and
    compared with the truth.
    """

    results: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RESULTS")]
    """Folder that rdejax infer wrote, or with <sequence>/<frame>.png."""
    output: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """The page; RESULTS/report.html unless given."""
    dataset: Literal["davis2016", "davis2017", "youtube-vos", "folder"] | None = None
    """Kind of the data set."""
    root: Annotated[Path | None, tyro.conf.arg(metavar="DIR")] = None
    """Top folder of the data set."""
    split: str = "val"
    """Which sequences."""
    video: Annotated[Path | None, tyro.conf.arg(metavar="PATH")] = None
    """Of a single video's result: the video (else its overlay.mp4 is shown)."""
    megabytes: float = 15.0
    """The page stays under this size; clips are chosen and shrunk to fit."""
    workers: Annotated[int | None, whole("--workers")] = None
    """Threads that score; one per core unless given."""


def main(argv: list[str] | None = None) -> None:
    """Parses `argv` (the process's own by default) and writes the page."""
    with cli_errors():
        args = parse_options(Arguments, args=argv)
        columns = (TextColumn("clips"), BarColumn(), MofNCompleteColumn())
        console = Console(stderr=True)
        with Progress(*columns, console=console, disable=not sys.stderr.isatty()) as bar:
            task = bar.add_task("clips", total=None)
            path = write_report(
                args.results,
                args.output,
                dataset=args.dataset,
                root=args.root,
                split=args.split,
                video=args.video,
                megabytes=args.megabytes,
                workers=args.workers,
                on_videos=lambda done, total: bar.update(task, completed=done, total=total),
            )
        print(f"wrote {path} ({path.stat().st_size / 1e6:.1f} MB)")


if __name__ == "__main__":
    main()
