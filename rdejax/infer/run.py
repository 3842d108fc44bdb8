"""What `rdejax infer` does once its arguments are read: one video, or a data set."""

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from rdejax.cli import note
from rdejax.errors import RdejaxError
from rdejax.folders import locked, lying_in
from rdejax.infer.backward import Backward, NothingForward, segment_backward, total
from rdejax.infer.beside import digest_beside, read_beside
from rdejax.infer.cli import Arguments, MaskOptions
from rdejax.infer.dataset import (
    WRITTEN,
    BenchmarkFolder,
    identify,
    locking,
    read_given,
    segment_sequence,
    totals,
)
from rdejax.infer.devices import over_devices
from rdejax.infer.model import describe, environment, frames_at_once, load, make_stream
from rdejax.infer.progress import ProgressDisplay
from rdejax.infer.results import ResultFolder
from rdejax.infer.shard import part_of
from rdejax.infer.timing import Pace, write_pace
from rdejax.infer.video import Segmenter, segment_to_folder
from rdejax.io.datasets import (
    FRAME_SUFFIXES,
    MASK_SUFFIXES,
    VideoSequence,
    left_out,
    list_sequences,
    read_names,
)
from rdejax.io.given import GivenMasks, load_given_masks
from rdejax.io.masks import IdMask, digest_masks
from rdejax.io.video import FolderFrames, FrameSource, open_frames


def run_video(arguments: Arguments, model: Any = None) -> FrameSource:
    """Segments one video into `OUT/masks`, `OUT/overlay.mp4` and `OUT/summary.json`.

    Args:
      arguments: those of the command line, of which `videos` is the one.
      model: if it is loaded already.

    Returns:
      The video.

    Raises:
      RdejaxError: anything wrong with the inputs or the output folder.
    """
    options, out, quiet = arguments.model, arguments.result, arguments.result.quiet
    (video,) = arguments.videos
    assert arguments.mask is not None
    source = open_frames(video, allow_damaged=out.allow_damaged)
    given = read_masks(arguments, source)
    for folder in (video, arguments.mask):
        _note_left_out([folder], FRAME_SUFFIXES, quiet)
    model = load(options) if model is None else model
    beside = read_beside(arguments.beside, model, len(source))
    with locked(arguments.output):
        _run_video(arguments, source, given, model, beside)
    return source


def read_masks(arguments: Arguments, source: FrameSource) -> GivenMasks:
    """The masks of a video, with notes on what was made of them."""
    assert arguments.mask is not None
    masks, quiet = arguments.masks, arguments.result.quiet
    given = load_given_masks(
        arguments.mask,
        source,
        max_objects=arguments.model.max_objects,
        all_masks=masks.use_all_masks,
        last_first=masks.direction == "backward",
        by_name=masks.direction != "forward",
        snap=masks.snap_mask,
        background=masks.background,
    )
    for text in given.notes:
        note(text, quiet=quiet)
    before = min(given.objects.values())
    if before and masks.direction == "forward":
        note(
            f"{source.path}: the {before} frames before the first mask stay empty; pass "
            "--direction both to segment them, too",
            quiet=quiet,
        )
    behind = len(source) - 1 - max(given.objects.values())
    if behind and masks.direction == "backward":
        note(
            f"{source.path}: the {behind} frames behind the last mask stay empty; pass "
            "--direction both to segment them, too",
            quiet=quiet,
        )
    return given


def _run_video(
    arguments: Arguments,
    source: FrameSource,
    given: GivenMasks,
    model: Any,
    beside: dict[str, np.ndarray],
) -> None:
    import rdejax

    options, out, quiet = arguments.model, arguments.result, arguments.result.quiet
    fps = out.fps or source.fps
    folder = ResultFolder(
        arguments.output,
        {
            **describe(options, model),
            "source": source.fingerprint(),
            "masks": digest_masks(given.masks),
            **({"beside": digest_beside(beside)} if beside else {}),
            **_how(arguments.masks),
            "overlay": not out.no_overlay,
            "fps": None if out.no_overlay or fps is None else float(fps),
        },
        source.names,
        version=rdejax.__version__,
        overwrite=out.overwrite,
        inputs=_inputs(arguments, model, source, given),
    )
    if folder.finished is not None:
        _say(f"{folder.path}: is whole already, nothing to do", quiet)
        return
    values = _segment(model, arguments, source, given, beside, folder)
    noted = {**_facts(source, given, fps), **environment(options, model)}
    summary = folder.finish({**values, **noted})
    _say(_sentence(folder.path, summary, len(given.objects)), quiet)


def _how(masks: MaskOptions) -> dict[str, Any]:
    """What is made of the masks, where that is not what it always is."""
    direction = {} if masks.direction == "forward" else {"direction": masks.direction}
    return {**direction, **({"use_all_masks": True} if masks.use_all_masks else {})}


def _segment(
    model: Any,
    arguments: Arguments,
    source: FrameSource,
    given: GivenMasks,
    beside: dict[str, np.ndarray],
    folder: ResultFolder,
) -> dict[str, Any]:
    """Segments one video into its folder, with progress on the terminal; the facts."""
    chunk, out = arguments.model.chunk, arguments.result
    direction = arguments.masks.direction
    at_once = frames_at_once(model, chunk, source.size)
    pace = Pace(0)

    def stream_of(masks: Mapping[int, IdMask]) -> Segmenter:
        return make_stream(model, masks, chunk, use_all_masks=arguments.masks.use_all_masks)

    def on_start(done: int, saved: int = folder.progress.frames) -> None:
        nonlocal pace
        pace = Pace(done)
        if done:
            note(f"continuing after {done} frames", quiet=out.quiet)
        elif saved:
            note("the saved state cannot be read, starting again", quiet=out.quiet)

    def on_frames(done: int) -> None:
        pace.update(done)
        display.update(done)

    back, join = None, lambda name, mask: mask
    backward = None if direction == "forward" else Backward.of(given, direction == "both")
    if backward is not None and (backward.last or direction == "backward"):
        title = f"{source.path.name} (backward)"
        with ProgressDisplay(title, backward.last + 1, quiet=out.quiet) as display:
            back, join = segment_backward(
                stream_of,
                source,
                backward,
                folder,
                beside=beside,
                chunk=at_once,
                on_frames=display.update,
                on_start=lambda done: on_start(done, 0),
            )
    forward = given
    if direction == "backward":
        forward = dataclasses.replace(given, masks={})
    with ProgressDisplay(source.path.name, len(source), quiet=out.quiet) as display:
        values = segment_to_folder(
            NothingForward if direction == "backward" else lambda: stream_of(given.masks),
            source,
            forward,
            folder,
            beside=beside,
            chunk=at_once,
            overlay=not out.no_overlay,
            fps=out.fps or source.fps,
            on_frames=on_frames,
            on_start=on_start,
            join=join,
        )
    if back is not None:
        begun = 0 if direction == "backward" else values["frames"] - min(given.objects.values())
        values = total(values, back, begun)
    if direction != "forward":
        values["direction"] = direction
    if values["frames"] != len(source):
        note(f"{source.path}: {values['frames']} of {len(source)} frames decoded", quiet=out.quiet)
    timing = folder.path / "timing.csv"
    # That of an earlier result must not stay beside this one.
    timing.unlink(missing_ok=True)
    if out.report:
        write_pace(timing, pace.points)
    return values


def run_dataset(arguments: Arguments) -> None:
    """Segments the sequences of a data set into `OUT/<sequence>/<frame>.png`.

    Raises:
      RdejaxError: anything wrong with the data set or the output folder.
    """
    data, options = arguments.data, arguments.model
    assert data.dataset is not None and data.root is not None
    sequences = list_sequences(data.dataset, data.root, data.split)
    if arguments.sequences is not None:
        named = read_names(arguments.sequences, [sequence.name for sequence in sequences])
        sequences = [sequence for sequence in sequences if sequence.name in named]
    _keep_inputs(arguments, sequences)
    frames, masks = ({path.parent for path in paths} for paths in _files(sequences))
    _note_left_out(frames, FRAME_SUFFIXES, arguments.result.quiet)
    _note_left_out(masks, MASK_SUFFIXES, arguments.result.quiet)
    model = load(options, data.dataset)
    shard = data.shard
    mine = part_of(sequences, shard, lambda each: each.name, lambda each: len(each.frames))
    if len(mine) < len(sequences):
        note(
            f"part {shard}: {len(mine)} of {len(sequences)} sequences", quiet=arguments.result.quiet
        )
    with locking(arguments.output, shard):
        _run_dataset(arguments, mine, model)


def _run_dataset(arguments: Arguments, sequences: list[VideoSequence], model: Any) -> None:
    data, options = arguments.data, arguments.model
    overwrite, quiet = arguments.result.overwrite, arguments.result.quiet
    assert data.dataset is not None
    run = {**describe(options, model), "dataset": data.dataset}

    def beside_of(sequence: VideoSequence) -> Path | None:
        return arguments.beside and arguments.beside / f"{sequence.name}.npz"

    identities = {sequence.name: identify(sequence, beside_of(sequence)) for sequence in sequences}
    folder = BenchmarkFolder(arguments.output, run, overwrite=overwrite, shard=data.shard)
    todo = [
        sequence
        for sequence in sequences
        if not folder.is_whole(
            sequence.name, [file.stem for file in sequence.frames], identities[sequence.name]
        )
    ]
    if len(todo) < len(sequences):
        note(f"{len(sequences) - len(todo)} of {len(sequences)} sequences are whole", quiet=quiet)
    import jax

    devices = jax.local_devices()
    if len(devices) > 1:
        todo.sort(key=lambda sequence: -len(sequence.frames))
    done: dict[str, int] = {}
    total = sum(len(sequence.frames) for sequence in todo)
    with ProgressDisplay(data.dataset, total, quiet=quiet) as display:

        def segment(sequence: VideoSequence, model: Any, check: Callable[[], None]) -> None:
            def on_frames(count: int) -> None:
                check()
                done[sequence.name] = count
                display.update(sum(done.copy().values()))

            source = FolderFrames(sequence.frames[0].parent, sequence.frames)
            given = read_given(sequence, source, options.max_objects)
            segment_sequence(
                make_stream(model, given.masks, options.chunk),
                sequence.name,
                source,
                given,
                folder,
                identity=identities[sequence.name],
                beside=read_beside(beside_of(sequence), model, len(source)),
                chunk=frames_at_once(model, options.chunk, source.size),
                on_frames=on_frames,
            )

        over_devices(todo, model, devices, segment)
    values = totals(folder.sequences)
    noted = {"split": data.split, "devices": len(devices), **environment(options, model)}
    summary = folder.finish({**values, **noted})
    _say(_sentence(folder.path, summary, values["objects"]), quiet)


def _facts(source: FrameSource, given: GivenMasks, fps: Any) -> dict[str, Any]:
    values: dict[str, Any] = {
        "objects": sorted(given.objects),
        "first_frames": {str(index): source.names[at] for index, at in given.objects.items()},
        "height": source.size[0],
        "width": source.size[1],
        "fps": None if fps is None else float(fps),
    }
    if source.times is not None:
        values["timestamps"] = [round(float(time), 6) for time in source.times]
    if given.colours:
        values["colours"] = {str(index): colour for index, colour in given.colours.items()}
    return values


def _inputs(arguments: Arguments, model: Any, source: FrameSource, given: GivenMasks) -> list[Path]:
    """Everything that a run of one video reads."""
    rule = model.settings.memory
    named = (*arguments.videos, arguments.mask, arguments.beside, Path(arguments.model.checkpoint))
    read = [path for path in named if path is not None]
    read += [Path(rule)] if rule.endswith(".py") else []
    return [*read, *given.files, *(source.files if isinstance(source, FolderFrames) else ())]


def _files(sequences: list[VideoSequence]) -> tuple[list[Path], list[Path]]:
    """A first frame and a first mask of each sequence."""
    masks = [next(iter(sequence.masks.values())) for sequence in sequences]
    return [sequence.frames[0] for sequence in sequences], masks


def _note_left_out(folders: Iterable[Path], suffixes: tuple[str, ...], quiet: bool) -> None:
    """Tells of files beside the frames or masks that are not taken as one."""
    strange = [
        path for folder in sorted(folders) if folder.is_dir() for path in left_out(folder, suffixes)
    ]
    if strange:
        note(
            f"{strange[0]}: left out{f', with {len(strange) - 1} more' * (len(strange) > 1)}, "
            f"for the name does not end in {', '.join(suffixes)}",
            quiet=quiet,
        )


def _keep_inputs(arguments: Arguments, sequences: list[VideoSequence]) -> None:
    """Refuses to write results over the data set itself, and over what else is read."""
    assert arguments.data.root is not None
    written = [arguments.output / name for name in (*WRITTEN, *(each.name for each in sequences))]
    read = [Path(arguments.model.checkpoint), arguments.data.root / "ImageSets"]
    read += [path for path in (arguments.beside, arguments.model.memory) if path is not None]
    for sequence in sequences:
        read += [*sequence.masks.values(), *sequence.frames]
    if file := lying_in(map(Path, read), written):
        raise RdejaxError(f"{file}: the results would replace this input; choose another --output")


def _sentence(path: Path, summary: dict[str, Any], objects: int) -> str:
    return (
        f"{path}: {summary['frames']} frames, {objects} object{'s' * (objects != 1)}, "
        f"{summary['frames_per_second']:.2f} frames per second "
        f"(and {summary['compile_seconds']:.1f} s compilation)"
    )


def _say(text: str, quiet: bool) -> None:
    if not quiet:
        print(text)
