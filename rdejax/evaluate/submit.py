"""Packs results for the servers that hold the masks which are not public.

    rdejax submit --dataset youtube-vos --root DIR --split valid --results OUT
    rdejax submit --dataset davis2017 --root DIR --split test-dev --results OUT

YouTube-VOS wants `Annotations/<video>/<frame>.png` of the frames that meta.json lists; DAVIS wants
`<sequence>/<frame>.png` of all frames, without a folder around them. Both want palette PNGs of ids.
"""

import dataclasses
import io
import zipfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import tyro
from PIL import Image

from rdejax.cli import cli_errors
from rdejax.errors import RdejaxError, shorten
from rdejax.evaluate.davis import objects_of
from rdejax.evaluate.score_sequences import check_complete, usable_cores
from rdejax.evaluate.youtube_vos import meta_path, read_meta
from rdejax.files import atomic
from rdejax.io.datasets import FRAME_SUFFIXES, VideoSequence, list_files, list_sequences, locate
from rdejax.io.masks import BENCHMARK, VOID, ids_of, read_mask
from rdejax.io.palette import davis_palette
from rdejax.options import parse_options

# Members are read ahead of the writer by this many files, so that memory stays small.
_AHEAD = 64
# The zip format's earliest date: the same results give the same bytes.
_DATE = (1980, 1, 1, 0, 0, 0)


@dataclasses.dataclass(frozen=True)
class WantedVideo:
    """What the server wants of one video.

    Attributes:
      name: its folder.
      stems: the frames, in order.
      ids: the objects.
      size: (H, W) of its frames.
    """

    name: str
    stems: tuple[str, ...]
    ids: frozenset[int]
    size: tuple[int, int]


def pack(
    dataset: str, root: str | Path, results: str | Path, split: str, output: str | Path
) -> tuple[int, int]:
    """Writes the zip file, whole or not at all.

    Args:
      dataset: `youtube-vos` or `davis2017`.
      root: top folder of the data set; see `rdejax.io.datasets`.
      results: folder with `<sequence>/<frame>.png`; frames that are not wanted are left out.
      split: name of the list of sequences; for YouTube-VOS of the folder.
      output: the zip file.

    Returns:
      The number of videos and of masks in it.

    Raises:
      RdejaxError: a name that does not end in .zip; missing sequences or frames; masks of another
        size, with ids that the given masks do not hold, or unreadable.
    """
    results, output = Path(results), Path(output)
    wanted = {"youtube-vos": _youtube_videos, "davis2017": _davis_videos}
    if dataset not in wanted:
        raise RdejaxError(f"no server packing for {dataset!r}: choose one of {', '.join(wanted)}")
    if output.suffix.lower() != ".zip":
        raise RdejaxError(f"{output}: the servers take zip files; end its name in .zip")
    videos = wanted[dataset](root, split)
    check_complete(results, {video.name: video.stems for video in videos})
    folder = "Annotations/" if dataset == "youtube-vos" else ""
    jobs = [(video, stem) for video in videos for stem in video.stems]
    output.parent.mkdir(parents=True, exist_ok=True)
    with atomic(output) as temporary, zipfile.ZipFile(temporary, "w") as archive:
        for (video, stem), content in zip(jobs, _read_ahead(results, jobs), strict=True):
            archive.writestr(zipfile.ZipInfo(f"{folder}{video.name}/{stem}.png", _DATE), content)
    return len(videos), len(jobs)


def _youtube_videos(root: str | Path, split: str) -> list[WantedVideo]:
    sequences = list_sequences("youtube-vos", root, split, need_frames=False)
    meta_file = meta_path(root, split)
    listed = read_meta(meta_file)
    absent = sorted(listed.keys() - {sequence.name for sequence in sequences})
    if absent:
        raise RdejaxError(
            f"{meta_file.parent / 'Annotations'}: no folder for {shorten(absent)} of meta.json; "
            "unpack the data set again"
        )
    videos = []
    for sequence in sequences:
        objects = listed.get(sequence.name)
        if objects:
            stems = tuple(sorted({stem for entry in objects.values() for stem in entry.frames}))
        else:
            stems = _sparse_frames(root, split, sequence, meta_file)
        found = _given_ids(sequence)
        videos.append(WantedVideo(sequence.name, stems, found, _size(sequence)))
    return videos


def _sparse_frames(
    root: str | Path, split: str, sequence: VideoSequence, meta_file: Path
) -> tuple[str, ...]:
    """Without meta.json: the frames of the plain release, which are those the server wants."""
    plain = split.removesuffix("_all_frames")
    _, frames, _ = locate("youtube-vos", root, plain, need_frames=False)
    folder = frames / sequence.name
    found = list_files(folder, FRAME_SUFFIXES) if folder.is_dir() else []
    if not found:
        raise RdejaxError(
            f"{meta_file}: does not list {sequence.name!r}, and {folder} has no frames, so it is "
            "unknown which ones the server wants; put the split's meta.json there"
        )
    stems = [path.stem for path in found]
    first = next(iter(sequence.masks))
    return tuple(stems[stems.index(first) :] if first in stems else stems)


def _davis_videos(root: str | Path, split: str) -> list[WantedVideo]:
    return [
        WantedVideo(
            sequence.name,
            tuple(path.stem for path in sequence.frames),
            objects_of(next(iter(sequence.masks.values()))),
            _size(sequence),
        )
        for sequence in list_sequences("davis2017", root, split)
    ]


def _given_ids(sequence: VideoSequence) -> frozenset[int]:
    found = [ids_of(read_mask(path, BENCHMARK)) for path in sequence.masks.values()]
    return frozenset().union(*found) - {VOID}


def _size(sequence: VideoSequence) -> tuple[int, int]:
    path = next(iter(sequence.masks.values()))
    height, width = read_mask(path, BENCHMARK).shape
    return height, width


def _read_ahead(results: Path, jobs: Sequence[tuple[WantedVideo, str]]) -> Iterator[bytes]:
    """The files' contents in order, a few threads ahead."""

    def read(job: tuple[WantedVideo, str]) -> bytes:
        video, stem = job
        return _checked_png(results / video.name / f"{stem}.png", video)

    with ThreadPoolExecutor(usable_cores()) as pool:
        for start in range(0, len(jobs), _AHEAD):
            yield from pool.map(read, jobs[start : start + _AHEAD])


def _checked_png(path: Path, video: WantedVideo) -> bytes:
    """A result as a palette PNG with the DAVIS colours.

    Raises:
      RdejaxError: unreadable, of another size, or with an id that is no object.
    """
    labels = read_mask(path, BENCHMARK)
    if labels.shape != video.size:
        raise RdejaxError(
            f"{path}: mask is {labels.shape[1]}x{labels.shape[0]} but the given mask is "
            f"{video.size[1]}x{video.size[0]}; write results at the original resolution"
        )
    unknown = ids_of(labels) - video.ids
    if unknown:
        raise RdejaxError(
            f"{path}: holds id {min(unknown)}, which is no object of {video.name!r}; results must "
            "use the ids of the given masks"
        )
    image = Image.fromarray(np.ascontiguousarray(labels))
    image.putpalette(davis_palette().tobytes())
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    return buffer.getvalue()


@dataclasses.dataclass(frozen=True)
class Arguments:
    """Packs results into the zip file that a benchmark's server takes.

    Every mask is checked first: nothing missing, the video's size, no id that was not given.
    """

    dataset: Literal["youtube-vos", "davis2017"]
    """youtube-vos: Annotations/<video>/<frame>.png of the frames in meta.json; davis2017:
    <sequence>/<frame>.png of all frames."""
    root: Annotated[Path, tyro.conf.arg(metavar="DIR")]
    """Top folder of the data set, with the given masks."""
    results: Annotated[Path, tyro.conf.arg(metavar="DIR")]
    """Folder with <sequence>/<frame>.png."""
    split: str
    """valid, valid_all_frames or test; test-dev or test-challenge."""
    zip: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """The file to write; RESULTS/<dataset>-<split>.zip unless given."""


def main(argv: list[str] | None = None) -> None:
    """Parses `argv` (the process's own by default) and packs."""
    with cli_errors():
        args = parse_options(Arguments, args=argv)
        output = args.zip or args.results / f"{args.dataset}-{args.split}.zip"
        videos, masks = pack(args.dataset, args.root, args.results, args.split, output)
        print(f"wrote {output}: {masks} masks of {videos} videos")


if __name__ == "__main__":
    main()
