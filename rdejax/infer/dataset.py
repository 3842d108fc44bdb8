"""A data set through a model: `OUT/<sequence>/<frame>.png`, whole sequences only.

A sequence is written to `OUT/unfinished/<sequence>` and moved when it is whole. `OUT/progress.json`
lists what is whole; it becomes `OUT/summary.json` when the last sequence is. Several processes may
fill one `OUT`, each with a part of the sequences and `progress` and `summary` of its own, such as
`summary-3-of-16.json`; the last one to end joins the summaries.
"""

import contextlib
import hashlib
import json
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from rdejax.errors import RdejaxError
from rdejax.files import read_json, write_json
from rdejax.folders import check_name, discard, locked, sweep
from rdejax.infer.results import Progress, describe_difference
from rdejax.infer.shard import WHOLE, Shard
from rdejax.infer.timing import CompileClock
from rdejax.infer.video import Segmenter, Written, facts, run_stream
from rdejax.io.datasets import VideoSequence
from rdejax.io.given import MAX_OBJECTS, GivenMasks, collect_masks
from rdejax.io.masks import whole_masks, write_mask
from rdejax.io.threads import AsyncWriter
from rdejax.io.video import FolderFrames, FrameSource, fingerprint_files

# What lies beside the folders of the sequences.
WRITTEN = ("unfinished", "progress.json", "summary.json", "report.html")
_RECORDS = ("progress.json", "summary.json")


class BenchmarkFolder:
    """`OUT` of a data set: which sequences are whole, and their facts.

    Attributes:
      path: the folder.
      sequences: name -> facts of the whole ones.
    """

    def __init__(
        self,
        path: str | Path,
        run: dict[str, Any],
        *,
        overwrite: bool = False,
        shard: Shard = WHOLE,
    ):
        """Reads what earlier runs left.

        Args:
          path: the folder; made if missing. Whoever writes holds `locking(path, shard)`.
          run: everything that decides the results of all sequences (JSON values).
          overwrite: forget earlier results, except those of this run while it is unfinished.
          shard: which part of the sequences is written.

        Raises:
          RdejaxError: the results there are of another run.
        """
        self.path = Path(path)
        self._run = json.loads(json.dumps(run))
        if self.path.exists() and not self.path.is_dir():
            raise RdejaxError(f"{path}: is a file; --output must be a folder")
        self.path.mkdir(parents=True, exist_ok=True)
        self._shard = shard
        self._progress, self._summary = (_of_part(name, shard) for name in _RECORDS)
        sweep(self.path, WRITTEN if shard == WHOLE else (self._progress, self._summary))
        self.sequences: dict[str, dict[str, Any]] = {}
        self._overwrite = overwrite
        self._refuse_video()
        self._placing = threading.Lock()  # sequences of several devices end at any time
        # progress.json is a run under way, which goes on; summary.json a whole one.
        record = read_json(self.path / self._progress)
        if overwrite:
            if record is None or record.get("run") != self._run:
                return
        record = record or read_json(self.path / self._summary)
        record = record or read_json(self.path / "summary.json")
        if record is None:
            return
        differing = describe_difference(record.get("run"), self._run)
        if "sequences" not in record or differing:
            raise RdejaxError(
                f"{self.path}: holds the results of another run ({differing or 'of another kind'});"
                " pass --overwrite to replace them or choose another --output"
            )
        self.sequences = dict(record["sequences"])

    def _refuse_video(self) -> None:
        """Masks of one video would be taken for all there is, and its unfinished run be removed."""
        summary = read_json(self.path / "summary.json") or {}
        unfinished = self.path / "unfinished" / "run.json"
        if unfinished.exists() or ("run" in summary and "sequences" not in summary):
            raise RdejaxError(
                f"{self.path}: holds the result of a single video, or an unfinished run of one; "
                "choose another --output"
            )

    def is_whole(
        self, name: str, frames: Sequence[str], source: Mapping[str, Any] | None = None
    ) -> bool:
        """Whether the masks of every frame of a sequence are there, from this run.

        Args:
          name: of the sequence.
          frames: names of its frames.
          source: what tells its frames and given masks from changed ones; None does not look.

        Raises:
          RdejaxError: the folder exists, but is not known as a result of rdejax infer, or is one of
            other frames or masks; or the name cannot be a folder's.
        """
        folder = self.path / check_name(name, "the data set")
        if not folder.exists():
            return False
        if name not in self.sequences:
            if self._overwrite:
                return False
            raise RdejaxError(
                f"{folder}: exists and is not a result of this run; pass --overwrite to replace it"
                " or choose another --output"
            )
        before = self.sequences[name].get("source")
        if source is not None and before != source:
            if self._overwrite:
                return False
            differing = describe_difference(before or {}, source)
            raise RdejaxError(
                f"{folder}: is the result of other frames or masks ({differing}); pass --overwrite "
                "to replace it or choose another --output"
            )
        return whole_masks(folder).issuperset(frames)

    @contextlib.contextmanager
    def writing(self, name: str) -> Iterator[tuple[Path, dict[str, Any]]]:
        """Yields the folder to write to, and a dictionary for the facts of the sequence.

        When the block ends without error, both are put in their places.
        """
        work = self.path / "unfinished" / check_name(name, "the data set")
        discard(work)
        work.mkdir(parents=True)
        facts: dict[str, Any] = {}
        yield work, facts
        with self._placing:
            # What is noted as this run's is never an older result: that one goes before.
            self._note()
            (self.path / "summary.json").unlink(missing_ok=True)
            discard(self.path / name)
            self.sequences[name] = facts
            self._note()
            os.replace(work, self.path / name)

    def _note(self) -> None:
        write_json(self.path / self._progress, {"run": self._run, "sequences": self.sequences})

    def finish(self, summary: dict[str, Any]) -> dict[str, Any]:
        """Writes the summary: every sequence asked for is whole."""
        summary = {**summary, "run": self._run, "sequences": self.sequences}
        write_json(self.path / self._summary, summary)
        (self.path / self._progress).unlink(missing_ok=True)
        sweep(self.path, self.sequences)
        if self._shard == WHOLE:
            discard(self.path / "unfinished")
        else:
            with locked(self.path / "unfinished", wait=True):
                # Which nobody else touches meanwhile.
                sweep(self.path, ("summary.json", "unfinished"))
                self._join(summary)
        return summary

    def _join(self, summary: dict[str, Any]) -> None:
        """The summary of all parts, if this was the last one to end."""
        whole = read_json(self.path / "summary.json")
        if whole is not None and summary["sequences"].items() <= whole["sequences"].items():
            (self.path / self._summary).unlink()  # nothing was left to do
            return
        count = self._shard.count
        names = [_of_part("summary.json", Shard(i, count)) for i in range(1, count + 1)]
        records = [read_json(self.path / name) for name in names]
        if any(record is None or record.get("run") != self._run for record in records):
            return
        sequences: dict[str, Any] = {}
        for record in records:
            sequences |= record["sequences"] if record else {}
        joined = {**summary, **totals(sequences), "sequences": sequences}
        write_json(self.path / "summary.json", joined)
        for name in names:
            (self.path / name).unlink(missing_ok=True)
        discard(self.path / "unfinished")


@contextlib.contextmanager
def locking(path: Path, shard: Shard) -> Iterator[None]:
    """Keeps the folder for this run, or for this and the runs of other parts.

    Raises:
      RdejaxError: another run is writing there, or to this part.
    """
    if shard == WHOLE:
        with locked(path):
            yield
        return
    own = path / "unfinished" / f".part-{shard.index}-of-{shard.count}"
    try:
        with locked(path, shared=True), locked(own):
            yield
    finally:
        # Both stay while another part, or what is left of a killed run, is in there.
        for folder in (own, own.parent):
            with contextlib.suppress(OSError):
                folder.rmdir()


def _of_part(name: str, shard: Shard) -> str:
    """The file's name for a part: "summary-3-of-16.json"."""
    if shard == WHOLE:
        return name
    stem, dot, suffix = name.rpartition(".")
    return f"{stem}-{shard.index}-of-{shard.count}{dot}{suffix}"


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


def identify(sequence: VideoSequence, beside: Path | None = None) -> dict[str, Any]:
    """What tells a sequence's frames, and the masks a segmenter sees of it, from changed ones."""
    masks = hashlib.sha256()
    for path in (*sequence.given_masks.values(), *([beside] if beside else [])):
        masks.update(f"{path.name}\n".encode("utf-8", "surrogateescape"))
        with path.open("rb") as file:
            masks.update(hashlib.file_digest(file, "sha256").digest())
    return {**fingerprint_files(sequence.frames), "masks": masks.hexdigest()[:16]}


def segment_sequence(
    stream: Segmenter,
    name: str,
    source: FrameSource,
    given: GivenMasks,
    folder: BenchmarkFolder,
    *,
    identity: Mapping[str, Any] | None = None,
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
      identity: what tells its frames and masks from changed ones, see `BenchmarkFolder.is_whole`.
      beside: see `run_stream`.
      chunk: frames per call of the stream.
      on_frames: told the number of frames done.

    Returns:
      Facts: frames, objects, seconds, frames_per_second, ...

    Raises:
      RdejaxError: unreadable frames; the message names the file.
    """
    begun = time.perf_counter()
    with folder.writing(name) as (work, noted):

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
        noted.update(values if identity is None else {**values, "source": dict(identity)})
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
