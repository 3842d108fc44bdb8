"""The arguments of `rdejax infer` and their checks; importing this is quick, for `--help`."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from rdejax.cli import name_and_value, setting_value, split_settings
from rdejax.errors import RdejaxError
from rdejax.infer.shard import WHOLE, Shard, parse_shard
from rdejax.io.datasets import DATASETS
from rdejax.options import parse_options, positive, read_by, refuse_empty, whole


def _size(text: str) -> int | str:
    return text if text == "full" else positive(text)


def _rate(text: str) -> float:
    value = float(text)
    if not 0.01 <= value <= 1000:
        raise ValueError
    return value


def _dataset(text: str) -> str:
    if text not in DATASETS:
        raise ValueError
    return text


def _shard(text: str) -> Shard:
    try:
        return parse_shard(text)
    except RdejaxError:
        raise ValueError from None


@dataclasses.dataclass(frozen=True)
class DatasetOptions:
    """A data set in place of one video."""

    dataset: Annotated[
        str | None,
        read_by(
            _dataset, "--dataset", f"{{{','.join(DATASETS)}}}", f"one of {', '.join(DATASETS)}"
        ),
    ] = None
    """How its folders are laid out."""
    root: Annotated[Path | None, tyro.conf.arg(metavar="DIR")] = None
    """Top folder of the data set."""
    split: str = "val"
    """Which sequences."""
    shard: Annotated[
        Shard, read_by(_shard, "--shard", "I/N", "I/N, such as 3/16 for the third of 16 parts")
    ] = WHOLE
    """Which part of the sequences, or of several videos: processes with the same OUT share it."""


@dataclasses.dataclass(frozen=True)
class ModelOptions:
    """The model and how it is run.

    Every setting of the memory rule is an option by its own name, too, such as --decay 0.5 ("all":
    no limit); one that the rule does not have is answered with those it has.
    """

    checkpoint: Annotated[str, tyro.conf.arg(metavar="NAME_OR_PATH")] = "rde-lite"
    """Bundled weights by name, or a checkpoint."""
    size: Annotated[
        int | Literal["full"] | None,
        read_by(_size, "--size", "PIXELS|full", "a whole number, 1 or more, or 'full'"),
    ] = None
    """Shorter side the network works at; masks keep the video's resolution. The model's own unless
    given, else 480."""
    every: Annotated[int | None, whole("--every")] = None
    """Memorise every N-th frame; the model's own unless given."""
    preset: Annotated[str | None, tyro.conf.arg(metavar="NAME")] = None
    """Settings that the authors of the model published, such as those for davis2017, youtube-vos or
    (xmem) long-videos; those of the data set unless given."""
    memory: Annotated[str | None, tyro.conf.arg(metavar="NAME_OR_FILE")] = None
    """Memory rule by name, or a .py file of your own; the model's own unless given."""
    set: Annotated[
        tuple[str, ...], tyro.conf.UseAppendAction, tyro.conf.arg(metavar="NAME=VALUE")
    ] = ()
    """A setting of the model or its memory rule, for names that are options of something else."""
    max_objects: Annotated[int, whole("--max-objects")] = 100
    """Refuse more objects than this."""
    chunk: Annotated[int | None, whole("--chunk")] = None
    """Frames handed to the model at once."""
    settings: tyro.conf.Suppress[tuple[tuple[str, Any], ...]] = ()
    """Settings by name: those of `set`, and those that were options by their own names."""

    @property
    def overrides(self) -> dict[str, Any]:
        """What was given, as keywords of `rdejax.load_model`.

        Raises:
          RdejaxError: a setting that was given twice.
        """
        given: dict[str, Any] = {}
        if self.every is not None:
            given["every"] = self.every
        if self.memory is not None:
            given["memory"] = self.memory
        if self.size is not None:
            given["size"] = None if self.size == "full" else self.size
        for name, value in self.settings:
            if name in given:
                raise RdejaxError(f"setting {name!r} is given twice; leave one of the two out")
            given[name] = value
        return given


@dataclasses.dataclass(frozen=True)
class MaskOptions:
    """What is made of the masks of one video."""

    direction: Literal["forward", "backward", "both"] = "forward"
    """From its mask on, back from it, or both: then an object goes back from its first mask."""
    use_all_masks: bool = False
    """Masks correct the objects in them that began with an earlier one."""
    snap_mask: bool = False
    """Take the few colours that were meant of a mask with soft edges or in JPEG."""
    background: Literal["auto", "black", "white"] = "auto"
    """Which is no object, in masks in black and white or colours: black, unless there is none."""


@dataclasses.dataclass(frozen=True)
class OutputOptions:
    """What is written."""

    no_overlay: bool = False
    """Do not write overlay.mp4."""
    fps: Annotated[
        float | None, read_by(_rate, "--fps", "FPS", "a number between 0.01 and 1000")
    ] = None
    """Frame rate of the overlay; the video's unless given, else 24."""
    overwrite: bool = False
    """Replace a whole result of other settings."""
    allow_damaged: bool = False
    """Take what can be read of a damaged video."""
    report: bool = False
    """Write OUT/report.html: settings, scores where the truth is known, plots, clips."""
    quiet: bool = False
    """Print errors only."""
    no_compilation_cache: bool = False
    """Do not keep compiled programs from run to run in the user's cache folder."""


@dataclasses.dataclass(frozen=True)
class Arguments:
    """Segments the objects of a video, given their masks in its first frame.

    VIDEO --mask MASK --output OUT writes OUT/masks/<frame>.png, palette PNGs of object ids at the
    video's resolution, OUT/overlay.mp4 and OUT/summary.json. Several videos, a folder of them or a
    pattern such as 'clips/*.mp4' write the same to OUT/<video>. --dataset davis2016 --root DIR
    --output OUT writes OUT/<sequence>/<frame>.png and OUT/summary.json. An interrupted run is
    continued by the same command; what is whole already is skipped.
    """

    output: Annotated[Path, tyro.conf.arg(metavar="OUT")]
    """Folder for the results."""
    videos: Annotated[
        tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="VIDEO_OR_FRAMES_DIR")
    ] = ()
    """Video file or folder of images; or several, a folder of them, or a pattern."""
    mask: Annotated[Path | None, tyro.conf.arg(metavar="PATH")] = None
    """Mask of the first frame (palette, greyscale or distinct colours), or a folder of masks named
    like their frames, for objects that appear later. With several videos: a folder that holds one
    or the other for each, named like the video."""
    beside: Annotated[Path | None, tyro.conf.arg(metavar="FILE.npz")] = None
    """What the model takes for each frame beside its picture, if it takes any: arrays [frames, ...]
    by name; with --dataset or several videos a folder of such files named like the sequences."""
    sequences: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """With --dataset or several videos: those named in this text file, one on a line, and no
    others."""
    masks: MaskOptions = MaskOptions()
    data: DatasetOptions = DatasetOptions()
    model: ModelOptions = ModelOptions()
    result: OutputOptions = OutputOptions()


def _flags() -> frozenset[str]:
    """The options that `rdejax infer` has whatever the memory rule."""
    parts = (Arguments, MaskOptions, DatasetOptions, ModelOptions, OutputOptions)
    names = {field.name.replace("_", "-") for part in parts for field in dataclasses.fields(part)}
    names -= {"videos", "masks", "data", "model", "result", "settings"}
    return frozenset({"--help", *("--" + name for name in names)})


def parse(argv: Sequence[str]) -> Arguments:
    """The arguments, checked as far as that needs neither files nor the model.

    Raises:
      RdejaxError: arguments that contradict each other, or a necessary one that is missing.
      SystemExit: --help (0), or a wrong value (2) that has been told on stderr.
    """
    refuse_empty(argv)
    rest, own = split_settings(argv, _flags())
    arguments, left = parse_options(
        Arguments,
        args=rest,
        config=(tyro.conf.FlagCreatePairsOff, tyro.conf.OmitArgPrefixes),
        return_unknown_args=True,
    )
    if left:
        raise RdejaxError(f"{left[0]}: not understood; see --help for options")
    _check(arguments, own)
    named = [name_and_value(text, f"--set {text}") for text in arguments.model.set]
    settings = (*((name, setting_value(text)) for name, text in own.items()), *named)
    model = dataclasses.replace(arguments.model, settings=settings)
    return dataclasses.replace(arguments, model=model)


def _check(arguments: Arguments, own: dict[str, str]) -> None:
    data = arguments.data
    if data.dataset is not None:
        if arguments.videos or arguments.mask is not None:
            raise RdejaxError(
                "--dataset brings its own videos and masks: leave VIDEO and --mask out"
            )
        if data.root is None:
            raise RdejaxError("--root is missing: give the top folder of the data set")
        if arguments.masks != MaskOptions():
            raise RdejaxError(
                "--direction, --use-all-masks, --snap-mask and --background are for videos: leave "
                "them out with --dataset, whose protocol says what its masks mean"
            )
        return
    if not arguments.videos:
        taken = "".join(
            f"; {value} is taken as the value of --{name}" for name, value in own.items()
        )
        raise RdejaxError(
            f"nothing to segment: give a video (file or folder of frames), or --dataset{taken}"
        )
    if data.shard != WHOLE and len(arguments.videos) == 1 and arguments.videos[0].is_file():
        raise RdejaxError("--shard shares out several videos, or a data set: leave it out for one")
    if arguments.mask is None:
        raise RdejaxError("--mask is missing: give the first frame's mask or a folder of masks")
    if data.root is not None:
        raise RdejaxError("--root belongs to --dataset: leave it out for a single video")
