"""A data set through a model: `OUT/<sequence>/<frame>.png`, whole sequences only.

A sequence is written to `OUT/unfinished/<sequence>` and moved when it is whole. `OUT/progress.json`
lists what is whole; it becomes `OUT/summary.json` when the last sequence is.
"""

import contextlib
import json
import os
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from rdejax.errors import RdejaxError
from rdejax.files import read_json, write_json
from rdejax.infer.results import Progress, describe_difference
from rdejax.infer.timing import CompileClock
from rdejax.infer.video import Segmenter, Written, facts, run_stream
from rdejax.io.datasets import VideoSequence
from rdejax.io.given import MAX_OBJECTS, GivenMasks, collect_masks
from rdejax.io.masks import write_mask
from rdejax.io.threads import AsyncWriter
from rdejax.io.video import FolderFrames, FrameSource


class BenchmarkFolder:
    """`OUT` of a data set: which sequences are whole, and their facts.

    Attributes:
      path: the folder.
      sequences: name -> facts of the whole ones.
    """

    def __init__(self, path: str | Path, run: dict[str, Any], *, overwrite: bool = False):
        """Reads what earlier runs left.

        Args:
          path: the folder; made if missing.
          run: everything that decides the result (JSON values).
          overwrite: forget earlier results, except those of this run while it is unfinished.

        Raises:
          RdejaxError: the results there are of another run.
        """
        self.path = Path(path)
        self._run = json.loads(json.dumps(run))
        if self.path.exists() and not self.path.is_dir():
            raise RdejaxError(f"{path}: is a file; --output must be a folder")
        self.path.mkdir(parents=True, exist_ok=True)
        self.sequences: dict[str, dict[str, Any]] = {}
        self._overwrite = overwrite
        # progress.json is a run under way, which goes on; summary.json a whole one.
        record = read_json(self.path / "progress.json")
        if overwrite:
            if record is None or record.get("run") != self._run:
                return
        record = record or read_json(self.path / "summary.json")
        if record is None:
            return
        differing = describe_difference(record.get("run"), self._run)
        if "sequences" not in record or differing:
            raise RdejaxError(
                f"{self.path}: holds the results of another run ({differing or 'of another kind'});"
                " pass --overwrite to replace them or choose another --output"
            )
        self.sequences = record["sequences"]

    def is_whole(self, name: str, frames: Sequence[str]) -> bool:
        """Whether the masks of every frame of a sequence are there, from this run.

        Raises:
          RdejaxError: the folder exists, but is not known as a result of infer.py.
        """
        folder = self.path / name
        if not folder.exists():
            return False
        if name not in self.sequences:
            if self._overwrite:
                return False
            raise RdejaxError(
                f"{folder}: exists and is not a result of this run; pass --overwrite to replace it"
                " or choose another --output"
            )
        return {item.stem for item in folder.glob("*.png")}.issuperset(frames)

    @contextlib.contextmanager
    def writing(self, name: str):
        """Yields the folder to write to; moved to its place when the block ends without error."""
        work = self.path / "unfinished" / name
        if work.exists():
            shutil.rmtree(work)
        work.mkdir(parents=True)
        yield work
        if (self.path / name).exists():
            shutil.rmtree(self.path / name)
        os.replace(work, self.path / name)

    def record(self, name: str, values: dict[str, Any]) -> None:
        """Notes the facts of a sequence, before it is moved to its place."""
        self.sequences[name] = values
        write_json(self.path / "progress.json", {"run": self._run, "sequences": self.sequences})
        (self.path / "summary.json").unlink(missing_ok=True)

    def finish(self, summary: dict[str, Any]) -> dict[str, Any]:
        """Writes the summary: every sequence asked for is whole."""
        summary = {**summary, "run": self._run, "sequences": self.sequences}
        write_json(self.path / "summary.json", summary)
        (self.path / "progress.json").unlink(missing_ok=True)
        shutil.rmtree(self.path / "unfinished", ignore_errors=True)
        return summary


def read_given(
    sequence: VideoSequence, source: FolderFrames, max_objects: int = MAX_OBJECTS
) -> GivenMasks:
    """The masks a segmenter may see of a benchmark's sequence, by frame number."""
    numbers = {name: index for index, name in enumerate(source.names)}
    return collect_masks(
        {numbers[stem]: path for stem, path in sequence.given_masks.items()},
        source.size,
        max_objects=max_objects,
        merge_objects=sequence.merge_objects,
        drop_void=not sequence.merge_objects,
    )


def segment_sequence(
    stream: Segmenter,
    name: str,
    source: FrameSource,
    given: GivenMasks,
    folder: BenchmarkFolder,
    *,
    beside: Mapping[str, np.ndarray] = MappingProxyType({}),
    chunk: int,
    on_frames: Callable[[int], object] = lambda done: None,
) -> dict[str, Any]:
    """Segments one sequence into the result folder.

    Args:
      stream: a new stream.
      name: of the sequence.
      source: its frames.
      given: its masks.
      folder: where results go.
      beside: see `run_stream`.
      chunk: frames per call of the stream.
      on_frames: told the number of frames done.

    Returns:
      Facts: frames, objects, seconds, frames_per_second, ...

    Raises:
      RdejaxError: unreadable frames; the message names the file.
    """
    begun = time.perf_counter()
    with folder.writing(name) as work:

        def save(item: Written) -> None:
            write_mask(work / f"{item.name}.png", item.mask)

        with (
            CompileClock() as clock,
            AsyncWriter[Written](save, 32, workers=2) as out,
        ):
            count = run_stream(
                stream,
                source.frames(),
                given.masks,
                out.put,
                beside=beside,
                chunk=chunk,
                on_frames=on_frames,
                where=source.path,
            )
        seconds = time.perf_counter() - begun
        values = facts(Progress(count, None, seconds, clock.seconds, clock.count))
        values["objects"] = sorted(given.objects)
        folder.record(name, values)
    return values


def totals(sequences: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Adds up the facts of all sequences."""
    progress = Progress(
        frames=sum(values["frames"] for values in sequences.values()),
        seconds=sum(values["seconds"] for values in sequences.values()),
        compile_seconds=sum(values["compile_seconds"] for values in sequences.values()),
        compilations=sum(values["compilations"] for values in sequences.values()),
    )
    objects = sum(len(values["objects"]) for values in sequences.values())
    return {**facts(progress), "objects": objects, "number_of_sequences": len(sequences)}
