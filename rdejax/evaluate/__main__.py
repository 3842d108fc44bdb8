"""Command line: `rdejax evaluate --dataset davis2016 --root DIR --results OUT`."""

import dataclasses
import time
from pathlib import Path
from typing import Annotated, Literal

import tyro

from rdejax.cli import cli_errors
from rdejax.evaluate.measures import DEFAULT_TOLERANCE
from rdejax.evaluate.protocols import FRAMES_THAT_COUNT, evaluate
from rdejax.evaluate.score_table import print_table, write_files
from rdejax.options import parse_options, whole


@dataclasses.dataclass(frozen=True)
class Arguments:
    """Scores result masks as DAVIS and YouTube-VOS do: J, F and their statistics.

    Prints a table and writes results.json, global_results-<split>.csv and
    per-sequence_results-<split>.csv. The first and the last frame of a sequence do not count, with
    YouTube-VOS the frame in which an object is given. Splits whose masks are not public go to their
    server: rdejax submit --help.
    """

    dataset: Literal["davis2016", "davis2017", "youtube-vos", "folder"]
    """davis2016: all objects as one; davis2017: each object; youtube-vos: seen and unseen
    categories, too; folder: each id, from its first frame on."""
    root: Annotated[Path, tyro.conf.arg(metavar="DIR")]
    """Top folder of the data set, which holds Annotations/."""
    results: Annotated[Path, tyro.conf.arg(metavar="DIR")]
    """Folder with <sequence>/<frame>.png."""
    split: str = "val"
    """Name of the list in ImageSets/; with youtube-vos of the folder."""
    seen: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """youtube-vos: the seen categories, a JSON list or one per line; those of ROOT/train/meta.json
    unless given."""
    output: Annotated[Path | None, tyro.conf.arg(metavar="DIR")] = None
    """Where the files go; the results folder unless given."""
    report: bool = False
    """Write report.html, too: tables, plots and clips in one page."""
    workers: Annotated[int | None, whole("--workers")] = None
    """Threads; one per core unless given."""


def main(argv: list[str] | None = None) -> None:
    """Parses `argv` (the process's own by default), scores, prints and writes."""
    with cli_errors():
        args = parse_options(Arguments, args=argv)
        started = time.perf_counter()
        scores = evaluate(
            args.dataset, args.root, args.results, args.split, args.workers, seen=args.seen
        )
        seconds = time.perf_counter() - started
        counted = FRAMES_THAT_COUNT[args.dataset]
        settings: dict[str, object] = {
            "dataset": args.dataset,
            "split": args.split,
            "root": str(args.root),
            "results": str(args.results),
            "boundary_tolerance": DEFAULT_TOLERANCE,
            "frames_that_count": counted,
            "frames": sum(len(score.frames) for score in scores.objects),
            "seconds": round(seconds, 3),
        }
        path = write_files(scores, args.output or args.results, args.split, settings)
        print_table(scores, f"{args.dataset} {args.split}", caption=f"per cent; {counted}")
        if args.report:
            from rdejax.report import write_report

            write_report(
                args.results,
                path.with_name("report.html"),
                dataset=args.dataset,
                root=args.root,
                split=args.split,
                scores=scores,
            )
        print(f"{len(scores.objects)} objects in {seconds:.1f} s; wrote {path}")


if __name__ == "__main__":
    main()
