"""Command line: `rdejax export OUT --format coco|youtube-vis|png|alpha --output DEST`."""

import dataclasses
import json
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Literal

import tyro

from rdejax.cli import cli_errors
from rdejax.errors import RdejaxError
from rdejax.export.coco import coco, need_pycocotools, youtube_vis
from rdejax.export.pictures import Codec, write_alpha, write_pngs
from rdejax.export.results import SCORES, Result, read_results
from rdejax.files import atomic, temporary_name
from rdejax.folders import discard, keep_inputs, locked, sweep
from rdejax.options import parse_options

_JSON = {"coco": coco, "youtube-vis": youtube_vis}


@dataclasses.dataclass(frozen=True)
class Arguments:
    """Writes results of rdejax infer in the formats of other tools.

    coco: one JSON file of instances, masks run-length encoded. youtube-vis: one JSON file of
    tracks. png: DEST/<object>/<frame>.png, black and white. alpha: DEST/<object>.mov (ProRes 4444)
    or .webm (VP9), the video transparent but for the object. Results of several videos or of a data
    set go into one JSON file, or to DEST/<video>/.
    """

    results: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="OUT")]
    """Folder that rdejax infer wrote."""
    format: Literal["coco", "youtube-vis", "png", "alpha"]
    """What to write."""
    output: Annotated[Path, tyro.conf.arg(metavar="DEST")]
    """JSON file, or folder, which must not be there."""
    video: Annotated[Path | None, tyro.conf.arg(metavar="PATH")] = None
    """For alpha: the video (of several: the folder they lie in)."""
    objects: Annotated[tuple[int, ...], tyro.conf.arg(metavar="ID [...]")] = ()
    """Only these; all unless given."""
    codec: Codec = "prores"
    """For alpha."""
    overwrite: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Replace DEST."""


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the command line; exits non-zero with one sentence on a problem.

    Args:
      argv: arguments; the process's own by default.
    """
    with cli_errors():
        args = parse_options(Arguments, args=argv)
        _check(args)
        results = read_results(args.results)
        for result in results:
            read = (result.folder / "summary.json", result.folder / SCORES)
            keep_inputs([*result.masks.values(), *read], args.output)
        objects = args.objects or None
        if args.format in _JSON:
            value = _JSON[args.format](results, objects)
            args.output.absolute().parent.mkdir(parents=True, exist_ok=True)
            with atomic(args.output) as temporary:
                temporary.write_text(json.dumps(value), encoding="utf-8")
        else:
            with _appearing(args.output) as folder:
                for result in results:
                    own = folder if len(results) == 1 else folder / result.name
                    if args.format == "png":
                        write_pngs(result, own, objects)
                    else:
                        write_alpha(
                            result, _video_of(args, result, results), own, objects, args.codec
                        )
        videos = f"{len(results)} video{'s' * (len(results) != 1)}"
        print(f"{args.output}: {args.format} of {videos}")


def _check(args: Arguments) -> None:
    if args.format in _JSON:
        need_pycocotools()
    if args.format == "alpha" and args.video is None:
        raise RdejaxError("--video is missing: alpha needs the frames, give the video")
    if args.output.exists() and not args.overwrite:
        raise RdejaxError(f"{args.output}: exists already; pass --overwrite to replace it")
    if args.format in _JSON and args.output.is_dir():
        raise RdejaxError(f"{args.output}: is a folder; give the name of a JSON file")
    if args.format not in _JSON and args.output.is_file():
        raise RdejaxError(f"{args.output}: is a file; give the name of a folder")
    keep_inputs([args.results, *([args.video] if args.video else [])], args.output)
    if args.format not in _JSON and (strange := _no_export(args.output)):
        raise RdejaxError(
            f"{strange}: no file of an export, and {args.output} would be replaced with all that "
            "is in it; choose another --output"
        )


def _no_export(folder: Path) -> Path | None:
    """A file in a folder that is to be replaced which `png` and `alpha` do not write; or None."""
    for place, _, files in os.walk(folder):
        for name in files:
            path = Path(place, name)
            picture = path.suffix == ".png" and path.parent.name.isdecimal()
            if not picture and not (path.suffix in (".mov", ".webm") and path.stem.isdecimal()):
                return path
    return None


@contextmanager
def _appearing(folder: Path) -> Iterator[Path]:
    """Yields a folder that gets this name when the block has ended without error."""
    named = folder.absolute().with_name(f"{folder.name}-new")
    coming = temporary_name(named)
    named.parent.mkdir(parents=True, exist_ok=True)
    sweep(named.parent, {named.name, folder.name})  # of killed runs
    try:
        with locked(coming):
            yield coming
            if folder.exists():
                discard(folder)
            os.replace(coming, folder)
    finally:
        shutil.rmtree(coming, ignore_errors=True)


def _video_of(args: Arguments, result: Result, results: list[Result]) -> Path:
    assert args.video is not None
    if len(results) == 1:
        return args.video
    found = [each for each in sorted(args.video.glob("*")) if result.name in (each.name, each.stem)]
    if len(found) != 1:
        raise RdejaxError(f"{args.video}: holds no one video called {result.name}; give its folder")
    return found[0]


if __name__ == "__main__":
    main()
