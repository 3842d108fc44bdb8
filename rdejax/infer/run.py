"""What `infer.py` does once its arguments are read: one video, or a data set."""

import argparse
import hashlib
from collections import Counter
from pathlib import Path
from typing import Any

from rdejax.cli import note
from rdejax.errors import RdejaxError
from rdejax.infer.dataset import BenchmarkFolder, read_given, segment_sequence, totals
from rdejax.infer.progress import Reporter
from rdejax.infer.results import ResultFolder
from rdejax.infer.timing import Pace, write_pace
from rdejax.infer.video import Stream, fitting_chunk, segment_to_folder
from rdejax.io.datasets import Sequence as VideoSequence
from rdejax.io.datasets import list_sequences
from rdejax.io.given import GivenMasks, load_given_masks
from rdejax.io.video import FolderFrames, FrameSource, open_frames

# Published settings of RDE-VOS per data set (theta and top-k); STCN's are the same on both. Weights
# that store settings of their own, as rde-lite's do, keep those.
_PUBLISHED = {
    ("rde", "davis2016"): {"every": 3, "top_k": 40},
    ("rde", "davis2017"): {"every": 3, "top_k": 40},
    ("rde", "youtube-vos"): {"every": 4, "top_k": 20},
}
_DEFAULT_SIZE = 480
# Frames per call of the stream: enough for several blocks where they run as one computation.
_CPU_CHUNK = 6
_ACCELERATOR_CHUNK = 48


def run_video(arguments: argparse.Namespace) -> None:
    """Segments one video into `OUT/masks`, `OUT/overlay.mp4` and `OUT/summary.json`.

    Raises:
      RdejaxError: anything wrong with the inputs or the output folder.
    """
    import rdejax

    quiet = arguments.quiet
    source = open_frames(arguments.video, allow_damaged=arguments.allow_damaged)
    given = load_given_masks(arguments.mask, source, max_objects=arguments.max_objects)
    for text in given.notes:
        note(text, quiet=quiet)
    model = load(arguments)
    fps = arguments.fps or source.fps
    run = {
        **_describe(arguments, model),
        "source": source.fingerprint(),
        "masks": _digest_masks(given),
        "overlay": not arguments.no_overlay,
        "fps": None if arguments.no_overlay or fps is None else float(fps),
    }
    folder = ResultFolder(
        arguments.output,
        run,
        source.names,
        version=rdejax.__version__,
        overwrite=arguments.overwrite,
        inputs=[Path(arguments.video), Path(arguments.mask)],
    )
    if folder.finished is not None:
        _say(f"{folder.path}: is whole already, nothing to do", quiet)
        _report(arguments, video=source)
        return
    if folder.progress.frames:
        note(f"continuing after {folder.progress.frames} frames", quiet=quiet)
    pace = Pace(folder.progress.frames)

    def on_frames(done: int) -> None:
        pace.update(done)
        reporter.update(done)

    with Reporter(source.path.name, len(source), quiet=quiet) as reporter:
        values = segment_to_folder(
            lambda: _make_stream(model, given, arguments.chunk),
            source,
            given,
            folder,
            chunk=_chunk(model, arguments.chunk, source.size),
            overlay=not arguments.no_overlay,
            fps=fps,
            on_frames=on_frames,
        )
    if values["frames"] != len(source):
        note(f"{source.path}: {values['frames']} of {len(source)} frames decoded", quiet=quiet)
    timing = folder.path / "timing.csv"
    # That of an earlier result must not stay beside this one.
    timing.unlink(missing_ok=True)
    if arguments.report:
        write_pace(timing, pace.points)
    environment = _environment(arguments, model)
    summary = folder.finish({**values, **_facts(source, given, fps), **environment})
    _say(_sentence(folder.path, summary, len(given.objects)), quiet)
    _report(arguments, video=source)


def run_dataset(arguments: argparse.Namespace) -> None:
    """Segments the sequences of a data set into `OUT/<sequence>/<frame>.png`.

    Raises:
      RdejaxError: anything wrong with the data set or the output folder.
    """
    quiet = arguments.quiet
    sequences = list_sequences(arguments.dataset, arguments.root, arguments.split)
    _keep_inputs(Path(arguments.output), sequences)
    model = load(arguments)
    run = {**_describe(arguments, model), "dataset": arguments.dataset}
    folder = BenchmarkFolder(arguments.output, run, overwrite=arguments.overwrite)
    todo = [
        sequence
        for sequence in sequences
        if not folder.is_whole(sequence.name, [file.stem for file in sequence.frames])
    ]
    if len(todo) < len(sequences):
        note(f"{len(sequences) - len(todo)} of {len(sequences)} sequences are whole", quiet=quiet)
    done = 0
    total = sum(len(sequence.frames) for sequence in todo)
    with Reporter(arguments.dataset, total, quiet=quiet) as reporter:
        for sequence in todo:
            before = done
            source = FolderFrames(sequence.frames[0].parent, sequence.frames)
            given = read_given(sequence, source, arguments.max_objects)
            values = segment_sequence(
                _make_stream(model, given, arguments.chunk),
                sequence.name,
                source,
                given,
                folder,
                chunk=_chunk(model, arguments.chunk, source.size),
                on_frames=lambda count, before=before: reporter.update(before + count),
            )
            done += values["frames"]
    values = totals(folder.sequences)
    environment = _environment(arguments, model)
    summary = folder.finish({**values, "split": arguments.split, **environment})
    _say(_sentence(folder.path, summary, values["objects"]), quiet)
    _report(arguments, dataset=arguments.dataset, root=arguments.root, split=arguments.split)


def load(arguments: argparse.Namespace) -> Any:
    """Loads the model with the settings of the command line, the data set and the defaults.

    What is given on the command line wins, then what the weights carry if that is not the system's
    default, then the published settings of the data set.
    """
    import rdejax
    from rdejax.memory.registry import rule_settings

    given = _overrides(arguments)
    model = rdejax.load_model(arguments.checkpoint, **given)
    wanted = dict(given)
    if model.settings.size is None and "size" not in given:
        wanted["size"] = _DEFAULT_SIZE
    known = {"every", *rule_settings(model.settings.memory)}
    carried, usual = (_flat(settings) for settings in (model.settings, model.default_settings))
    for name, value in _PUBLISHED.get((model.name, arguments.dataset), {}).items():
        if name in known and carried.get(name) == usual.get(name):
            wanted.setdefault(name, value)
    if wanted == given:
        return model
    return rdejax.load_model(arguments.checkpoint, **wanted)


def _flat(settings: Any) -> dict[str, Any]:
    return {"every": settings.every, **dict(settings.memory_settings)}


def _overrides(arguments: argparse.Namespace) -> dict[str, Any]:
    given: dict[str, Any] = {}
    for name in ("every", "strategy", "memory"):
        if getattr(arguments, name) is not None:
            given[name] = getattr(arguments, name)
    for name in ("size", "top_k"):
        value = getattr(arguments, name)
        if value is not None:
            given[name] = value or None
    for name, value in arguments.set:
        if name in given:
            raise RdejaxError(f"--set {name}: given twice; leave one of the two out")
        given[name] = value
    return given


def _make_stream(model: Any, given: GivenMasks, chunk: int | None) -> Stream:
    """A stream that knows beforehand how many objects come when, so that it compiles less."""
    import rdejax
    from rdejax.propagate.slots import plan_layout

    counts = Counter(given.objects.values())
    layout = plan_layout([counts[frame] for frame in sorted(counts)])
    return rdejax.stream(model, layout=layout, chunk=chunk)


def _chunk(model: Any, chunk: int | None, size: tuple[int, int]) -> int:
    import jax

    default = _CPU_CHUNK if jax.default_backend() == "cpu" else _ACCELERATOR_CHUNK
    return fitting_chunk(chunk or default, model.settings.every, size)


def _describe(arguments: argparse.Namespace, model: Any) -> dict[str, Any]:
    """What decides the result, on the model's side."""
    settings = model.settings.as_dict()
    described = {"checkpoint": _identify(arguments.checkpoint), "settings": settings}
    if settings["memory"].endswith(".py"):
        described["memory_file"] = _identify(settings["memory"])
    return described


def _identify(name_or_path: str) -> str:
    """A name as it is; a file or folder with a digest, so that a changed one is noticed."""
    path = Path(name_or_path)
    if not path.exists():
        return name_or_path
    files = sorted(path.rglob("*")) if path.is_dir() else [path]
    digest = hashlib.sha256()
    for file in files:
        if file.is_file():
            digest.update(str(file.relative_to(path.parent)).encode())
            with file.open("rb") as opened:
                digest.update(hashlib.file_digest(opened, "sha256").digest())
    return f"{path.name} {digest.hexdigest()[:16]}"


def _digest_masks(given: GivenMasks) -> str:
    digest = hashlib.sha256()
    for frame, mask in sorted(given.masks.items()):
        digest.update(f"{frame}\n".encode() + mask.tobytes())
    return digest.hexdigest()[:16]


def _facts(source: FrameSource, given: GivenMasks, fps: Any) -> dict[str, Any]:
    values: dict[str, Any] = {
        "objects": sorted(given.objects),
        "first_frames": {str(index): source.names[at] for index, at in given.objects.items()},
        "height": source.size[0],
        "width": source.size[1],
        "fps": None if fps is None else float(fps),
    }
    if given.colours:
        values["colours"] = {str(index): colour for index, colour in given.colours.items()}
    return values


def _report(arguments: argparse.Namespace, **known: Any) -> None:
    """Writes `OUT/report.html` if it is asked for."""
    if not arguments.report:
        return
    from rdejax.report import write_report

    path = write_report(arguments.output, **known)
    _say(f"wrote {path}", arguments.quiet)


def _environment(arguments: argparse.Namespace, model: Any) -> dict[str, Any]:
    import jax
    from flax import nnx

    import rdejax
    from rdejax.api import bundled

    # Names of bundled weights stay when the weights of a new version differ.
    weights = bundled().get(arguments.checkpoint)
    parameters = jax.tree.leaves(nnx.state(model, nnx.Param))
    return {
        "model": model.name,
        **({"weights": _identify(str(weights))} if weights else {}),
        "parameters": sum(leaf.size for leaf in parameters),
        "settings": model.settings.as_dict(),
        "version": rdejax.__version__,
        "jax": jax.__version__,
        "device": jax.devices()[0].device_kind,
    }


def _keep_inputs(output: Path, sequences: list[VideoSequence]) -> None:
    """Refuses to write results over the data set itself."""
    for sequence in sequences:
        target = (output / sequence.name).resolve()
        for file in (*sequence.frames[:1], *sequence.masks.values()):
            if file.resolve().parent == target:
                raise RdejaxError(
                    f"{file.parent}: the results would replace this input; choose another --output"
                )


def _sentence(path: Path, summary: dict[str, Any], objects: int) -> str:
    return (
        f"{path}: {summary['frames']} frames, {objects} object{'s' * (objects != 1)}, "
        f"{summary['frames_per_second']:.2f} frames per second "
        f"(and {summary['compile_seconds']:.1f} s compilation)"
    )


def _say(text: str, quiet: bool) -> None:
    if not quiet:
        print(text)
