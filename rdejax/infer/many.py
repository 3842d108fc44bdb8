"""Several videos in one process: one start, one model, and programs that are compiled once."""

import dataclasses
import glob
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from rdejax.cli import note
from rdejax.errors import RdejaxError, shorten
from rdejax.folders import Locked, check_name
from rdejax.infer.cli import Arguments
from rdejax.infer.shard import WHOLE, part_of
from rdejax.io.datasets import FRAME_SUFFIXES, list_files, natural_key, read_names
from rdejax.io.video import FrameSource

# Files of a folder that are taken as videos; any other may be named by itself.
VIDEO_SUFFIXES = (
    *(".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".ts", ".mts", ".m2ts"),
    *(".wmv", ".flv", ".ogv", ".3gp", ".gif"),
)


def videos_in(paths: Sequence[Path]) -> dict[str, Path] | None:
    """The videos that paths name, by their names; None where one path is one video.

    A folder of images is a video; another folder holds videos: files of a known kind, and folders
    of images. A path that does not exist and has wildcards is a pattern.

    Raises:
      RdejaxError: no videos in a folder or for a pattern, or two of one name.
    """
    found: list[Path] = []
    for path in paths:
        found += _matching(path) or _lying_in(path) or [path]
    if len(paths) == 1 and found == list(paths):
        return None
    videos: dict[str, Path] = {}
    for path in found:
        name = check_name(path.name if path.is_dir() else path.stem, "the command line")
        if videos.setdefault(name, path) != path:
            raise RdejaxError(
                f"{path}: another video has the same name ({videos[name]}), so their results would "
                "overwrite each other; rename one, or give it an --output of its own"
            )
    return videos


def _matching(path: Path) -> list[Path]:
    if path.exists() or not glob.has_magic(str(path)):
        return []
    found = sorted(map(Path, glob.glob(str(path))), key=lambda each: (natural_key(each), str(each)))
    if not found:
        raise RdejaxError(f"{path}: no file or folder matches this pattern")
    return found


def _lying_in(path: Path) -> list[Path]:
    if not path.is_dir() or list_files(path, FRAME_SUFFIXES):
        return []
    folders = [each for each in path.iterdir() if each.is_dir() and each.name[0] != "."]
    inner = [each for each in folders if list_files(each, FRAME_SUFFIXES)]
    found = sorted([*list_files(path, VIDEO_SUFFIXES), *inner], key=natural_key)
    if not found:
        raise RdejaxError(
            f"{path}: neither images nor videos in this folder; frames must be "
            f"{', '.join(FRAME_SUFFIXES)}, videos {', '.join(VIDEO_SUFFIXES)}"
        )
    return found


def run_videos(
    arguments: Arguments,
    videos: dict[str, Path],
    run: Callable[..., FrameSource],
    load: Callable[[], Any],
) -> dict[Path, FrameSource]:
    """Segments videos, each into `OUT/<name>` as if it were the only one.

    One that another process is writing is left to it. One that cannot be segmented does not keep
    the others from it.

    Args:
      arguments: of the command line.
      videos: by name.
      run: segments one, given its arguments and the model.
      load: loads the model.

    Returns:
      The videos by their result folders.

    Raises:
      RdejaxError: something is wrong with the names or masks, before anything is segmented; or, at
        the end, with some of the videos.
    """
    if arguments.sequences is not None:
        wanted = read_names(arguments.sequences, list(videos))
        videos = {name: path for name, path in videos.items() if name in wanted}
    shard = arguments.data.shard
    names = part_of(list(videos), shard, lambda name: name, lambda name: _bytes(videos[name]))
    each = {name: _arguments_of(arguments, name, videos[name]) for name in names}
    quiet = arguments.result.quiet
    if not each:
        note(f"part {shard} of {len(videos)} videos holds none", quiet=quiet)
        return {}
    model, done, failed = load(), {}, {}
    for number, (name, own) in enumerate(each.items(), 1):
        note(f"{name} ({number} of {len(each)})", quiet=quiet)
        try:
            done[own.output] = run(own, model)
        except Locked as error:
            note(f"{error}; it is left to that run", quiet=quiet)
        except RdejaxError as error:
            failed[name] = str(error)
            note(f"{name}: {error}", quiet=quiet)
    if failed:
        first = next(iter(failed))
        raise RdejaxError(
            f"{len(failed)} of {len(each)} videos could not be segmented "
            f"({shorten(list(failed))}); {first}: {failed[first]}"
        )
    return done


def _arguments_of(arguments: Arguments, name: str, path: Path) -> Arguments:
    """Those of one of the videos."""
    beside = arguments.beside and arguments.beside / f"{name}.npz"
    return dataclasses.replace(
        arguments,
        videos=(path,),
        mask=_mask_of(arguments, name),
        beside=beside,
        sequences=None,
        data=dataclasses.replace(arguments.data, shard=WHOLE),
        output=arguments.output / name,
    )


def _mask_of(arguments: Arguments, name: str) -> Path:
    folder = arguments.mask
    assert folder is not None
    if not folder.is_dir():
        raise RdejaxError(
            f"{folder}: with several videos ({shorten(list(map(str, arguments.videos)))}) --mask "
            "must be a folder that holds a mask or a folder of masks for each, named like the video"
        )
    if (folder / name).is_dir():
        return folder / name
    found = [each for each in list_files(folder, FRAME_SUFFIXES) if each.stem == name]
    if len(found) != 1:
        what = f"more than one mask called {name}" if found else f"no mask {name}.png and no folder"
        raise RdejaxError(f"{folder}: {what} for video {name!r}; give one, named like the video")
    return found[0]


def _bytes(path: Path) -> float:
    """A measure of a video's length."""
    files = list_files(path, FRAME_SUFFIXES) if path.is_dir() else [path]
    return float(sum(file.stat().st_size for file in files if file.exists()))
