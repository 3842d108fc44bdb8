"""A validation set of several objects: tracks of one video over another, with exact truth.

    python benchmarks/make_composites.py DAVIS OUT [--split val] [--shortest 240]

Each sequence of a DAVIS-like folder is the host of two clips, of two and of three objects: its own,
and objects of the other sequences (or its own once more, at another time and place) as
`rdejax.data.clips.paste` pastes them, frame after frame. The result has the layout of DAVIS 2017
and is the same for the same seed. It is made of data that may not be passed on: keep it out of
the repository.

    rdejax infer --dataset davis2017 --root OUT --output MASKS
    rdejax evaluate --dataset davis2017 --root OUT --results MASKS
"""

import dataclasses
from pathlib import Path

import cv2
import numpy as np
import tyro

from rdejax.cli import cli_errors
from rdejax.data.clips.augment import reduce_shortest
from rdejax.data.clips.paste import Donors, Origin, paste_tracks
from rdejax.data.config import ClipConfig, PasteConfig
from rdejax.data.sources.video_layouts import find_videos
from rdejax.data.sources.videos import VideoFolder, VideoSource
from rdejax.errors import RdejaxError
from rdejax.io.masks import write_mask

_PASTE = PasteConfig(
    share=1.0, smallest=0.08, largest=0.35, lookalike=0.5, still=0.0, speed=0.01, span=0.8, meet=0.8
)
_LEAST = 0.002  # share of the first frame that every object shows
_TRIES = 200


@dataclasses.dataclass(frozen=True)
class Arguments:
    """What to make.

    Attributes:
      root: DAVIS-like folder the videos are taken from.
      output: folder to write; must not exist.
      split: list of sequences in it.
      frames: most frames of a clip.
      shortest: shorter side of the frames; larger ones are reduced.
      seed: of everything random.
    """

    root: tyro.conf.Positional[Path]
    output: tyro.conf.Positional[Path]
    split: str = "val"
    frames: int = 48
    shortest: int = 480
    seed: int = 0


class _Reduced:
    """Videos with the shorter side reduced, and their decoded frames."""

    def __init__(self, source: VideoSource, shortest: int):
        self.source, self.shortest = source, shortest
        self.spacing, self.repeat = source.spacing, source.repeat
        self._kept: dict[tuple[int, int], tuple[np.ndarray, np.ndarray]] = {}

    def __len__(self) -> int:
        return len(self.source)

    def name(self, index: int) -> str:
        return self.source.name(index)

    def length(self, index: int) -> int:
        return self.source.length(index)

    def read(self, index: int, frame: int) -> tuple[np.ndarray, np.ndarray]:
        key = index, frame
        if key not in self._kept:
            self._kept[key] = reduce_shortest(*self.source.read(index, frame), self.shortest)
        return self._kept[key]


def composite(
    rng: np.random.Generator, source: VideoSource, index: int, pasted: int, count: int
) -> tuple[np.ndarray, np.ndarray]:
    """Frames uint8 [t, h, w, 3] and ids uint8 [t, h, w] of a clip with `pasted` further objects.

    Raises:
      RdejaxError: objects that all can be seen at first were not found.
    """
    count = min(count, source.length(index))
    read = [source.read(index, t) for t in range(count)]
    size = float(np.sqrt(np.count_nonzero(read[0][1])))
    paste = dataclasses.replace(_PASTE, most=pasted)
    for _ in range(_TRIES):
        frames = np.stack([frame for frame, _ in read])
        labels = np.stack([ids for _, ids in read])
        hosts = [Origin(source, index, 1, size)]
        made = paste_tracks(rng, frames, labels, hosts, Donors([source]), ClipConfig(), paste, 1)
        areas = np.bincount(labels[0].ravel(), minlength=256)[1 : pasted + 2]
        if made == pasted and areas.min() >= _LEAST * labels[0].size:
            return frames, labels
    raise RdejaxError(f"{source.name(index)}: no {pasted} objects that show in its first frame")


def main(args: Arguments) -> None:
    """Writes the set."""
    if args.output.exists():
        raise RdejaxError(f"{args.output}: is there already; give a new folder")
    source = _Reduced(VideoFolder(find_videos("davis2016", args.root, args.split)), args.shortest)
    names = []
    for index in range(len(source)):
        for pasted in (1, 2):
            rng = np.random.default_rng([args.seed, index, pasted])
            frames, labels = composite(rng, source, index, pasted, args.frames)
            names.append(f"{source.name(index)}-{pasted + 1}")
            where = [
                args.output / part / "480p" / names[-1] for part in ("JPEGImages", "Annotations")
            ]
            for folder in where:
                folder.mkdir(parents=True)
            for t, (frame, ids) in enumerate(zip(frames, labels, strict=True)):
                jpeg = cv2.cvtColor(frame, cv2.COLOR_RGB2BGR)
                cv2.imwrite(str(where[0] / f"{t:05d}.jpg"), jpeg, [cv2.IMWRITE_JPEG_QUALITY, 92])
                write_mask(where[1] / f"{t:05d}.png", ids)
            print(f"{names[-1]}: {len(frames)} frames, {frames.shape[2]}x{frames.shape[1]}")
    lists = args.output / "ImageSets" / "2017"
    lists.mkdir(parents=True)
    (lists / "val.txt").write_text("\n".join(names) + "\n")


if __name__ == "__main__":
    with cli_errors():
        main(tyro.cli(Arguments, description=__doc__))
