"""The command line of inference: `infer.py` and the entry point `rdejax-infer`.

Heavy imports wait until they are needed, so that `--help` and wrong arguments answer at once.
"""

import argparse
import contextlib
import errno
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from rdejax.cli import cli_errors, name_and_value
from rdejax.errors import RdejaxError
from rdejax.infer.signals import ending_on_signals

_DESCRIPTION = """\
Segments the objects of a video, given their masks in its first frame.

  python infer.py VIDEO_OR_FRAMES_DIR --mask FIRST_MASK.png_OR_MASKS_DIR --output OUT
      OUT/masks/<frame>.png   palette PNG of object ids, at the video's resolution
      OUT/overlay.mp4, OUT/summary.json
  python infer.py --dataset davis2016 --root DIR --split val --output OUT
      OUT/<sequence>/<frame>.png, OUT/summary.json

An interrupted run is continued by the same command; what is whole already is skipped.
"""


def build_parser() -> argparse.ArgumentParser:
    """The arguments of `infer.py`."""
    parser = argparse.ArgumentParser(
        prog="infer.py",
        description=_DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("video", nargs="?", metavar="VIDEO_OR_FRAMES_DIR", help="video file or folder of images")
    add(
        "--mask",
        metavar="PATH",
        help="mask of the first frame (palette, greyscale or distinct colours), or a folder of "
        "masks named like their frames, for objects that appear later",
    )
    add("--output", metavar="OUT", required=True, help="folder for the results")

    group = parser.add_argument_group("data sets")
    add = group.add_argument
    add("--dataset", choices=("davis2016", "davis2017", "youtube-vos", "folder"))
    add("--root", metavar="DIR", help="top folder of the data set")
    add("--split", default="val", help="which sequences (default: %(default)s)")

    group = parser.add_argument_group("model")
    add = group.add_argument
    add(
        "--checkpoint",
        default="rde-lite",
        metavar="NAME_OR_PATH",
        help="bundled weights by name, or a checkpoint (default: %(default)s)",
    )
    add(
        "--size",
        type=_int_or("full"),
        metavar="PIXELS|full",
        help="shorter side the network works at; masks keep the video's resolution (default: the "
        "model's own, else 480)",
    )
    add("--every", type=_positive, metavar="N", help="memorise every N-th frame")
    add("--top-k", type=_int_or("all"), metavar="K|all", help="memory positions read per position")
    add("--strategy", metavar="NAME", help="what the RDE memory keeps, e.g. 2F+L+RDE, F+L, L")
    add("--memory", metavar="NAME_OR_FILE", help="memory rule by name, or a .py file of your own")
    add(
        "--set",
        action="append",
        default=[],
        type=_setting,
        metavar="NAME=VALUE",
        help="any further setting of the model or its memory rule; may be repeated",
    )
    add(
        "--max-objects",
        type=_positive,
        default=100,
        metavar="N",
        help="refuse more objects than this (default: %(default)s)",
    )
    add("--chunk", type=_positive, metavar="N", help="frames handed to the model at once")

    group = parser.add_argument_group("output")
    add = group.add_argument
    add("--no-overlay", action="store_true", help="do not write overlay.mp4")
    add("--fps", type=_rate, help="frame rate of the overlay (default: the video's, else 24)")
    add("--overwrite", action="store_true", help="replace a whole result of other settings")
    add("--allow-damaged", action="store_true", help="take what can be read of a damaged video")
    add(
        "--report",
        action="store_true",
        help="write OUT/report.html: settings, scores where the truth is known, plots, clips",
    )
    add("--quiet", action="store_true", help="print errors only")
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the command line; exits non-zero with one sentence on a problem.

    Exit codes: 2 input that can be mended, 1 a full disk or too little memory, 130 Ctrl-C,
    143 SIGTERM.
    """
    with cli_errors(), ending_on_signals(), _resource_errors():
        arguments = build_parser().parse_args(argv)
        if arguments.dataset:
            _check_dataset_arguments(arguments)
            from rdejax.infer.run import run_dataset

            run_dataset(arguments)
        else:
            _check_video_arguments(arguments)
            from rdejax.infer.run import run_video

            run_video(arguments)


def _check_video_arguments(arguments: argparse.Namespace) -> None:
    if not arguments.video:
        raise RdejaxError(
            "nothing to segment: give a video (file or folder of frames), or --dataset"
        )
    if not arguments.mask:
        raise RdejaxError("--mask is missing: give the first frame's mask or a folder of masks")
    if arguments.root:
        raise RdejaxError("--root belongs to --dataset: leave it out for a single video")


def _check_dataset_arguments(arguments: argparse.Namespace) -> None:
    if arguments.video or arguments.mask:
        raise RdejaxError("--dataset brings its own videos and masks: leave VIDEO and --mask out")
    if not arguments.root:
        raise RdejaxError("--root is missing: give the top folder of the data set")


@contextlib.contextmanager
def _resource_errors() -> Iterator[None]:
    """Turns a full disk and too little memory into one sentence and an exit code."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise
        where = f"{error.filename}: " if error.filename else ""
        _fail(
            f"error: {where}{error.strerror}; free some space and run the same command again to "
            "continue",
            1,
        )
    except (MemoryError, RuntimeError) as error:
        # JAX raises its own subclass of RuntimeError and says it in the text.
        if isinstance(error, RuntimeError) and "RESOURCE_EXHAUSTED" not in str(error):
            raise
        detail = (str(error).splitlines() or ["out of memory"])[0]
        _fail(f"error: too little memory ({detail}); try a smaller --size or --chunk", 1)


def _fail(message: str, code: int) -> None:
    print(message, file=sys.stderr)
    raise SystemExit(code) from None


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text}: must be a whole number, 1 or more")
    return int(text)


def _rate(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0.01 <= value <= 1000:
        raise argparse.ArgumentTypeError(f"{text}: must be a number between 0.01 and 1000")
    return value


def _int_or(word: str) -> Callable[[str], int]:
    """Parses a positive number, or `word`, which becomes 0."""

    def parse(text: str) -> int:
        if text == word:
            return 0
        if not text.isdecimal() or int(text) < 1:
            raise argparse.ArgumentTypeError(f"{text}: must be a whole number or {word!r}")
        return int(text)

    return parse


def _setting(text: str) -> tuple[str, Any]:
    try:
        return name_and_value(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text}: must be NAME=VALUE") from None
