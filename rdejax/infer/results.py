"""The result folder of one video: whole, or visibly unfinished.

While a run is under way everything lies in `OUT/unfinished`:

    run.json           what is being run, and how far masks and stream state are saved
    masks/, overlay.mp4, stream-<frames>.*

When the last frame is written, `summary.json` is put there, the results are moved up to
`OUT/masks` and `OUT/overlay.mp4`, and `OUT/summary.json` comes last: it exists if and only if the
result is whole. A run that dies anywhere in between continues where it was.
"""

import dataclasses
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from rdejax.errors import RdejaxError
from rdejax.files import read_json, temporary_name, write_json
from rdejax.folders import discard, lying_in, sweep
from rdejax.io.masks import whole_masks

# What lies in the folder of a result, and comes and goes with it.
_WRITTEN = ("unfinished", "masks", "overlay.mp4", "summary.json", "timing.csv", "report.html")
# Results in the unfinished folder that a run which begins anew keeps.
_INNER = ("backward",)


@dataclasses.dataclass
class Progress:
    """How far an unfinished run got.

    Attributes:
      frames: frames whose masks are written.
      state: file of the stream's state after them; None at the start.
      seconds: time spent on them, compilation included.
      compile_seconds: time spent compiling.
      compilations: number of compilations.
    """

    frames: int = 0
    state: Path | None = None
    seconds: float = 0.0
    compile_seconds: float = 0.0
    compilations: int = 0


class ResultFolder:
    """`OUT` of one video.

    Attributes:
      path: the folder.
      masks: folder to write masks to while the run is unfinished.
      overlay: file to write the overlay to while the run is unfinished.
      finished: the summary of the whole result that is there already, or None.
      progress: where to start otherwise.
    """

    def __init__(
        self,
        path: str | Path,
        run: dict[str, Any],
        names: Sequence[str],
        *,
        version: str,
        overwrite: bool = False,
        inputs: Sequence[Path] = (),
    ):
        """Looks at what is there and prepares the unfinished folder; sweeps what kills left.

        Whoever writes holds `rdejax.folders.locked(path)` meanwhile.

        Args:
          path: the result folder; made if missing.
          run: everything that decides the result (JSON values), to tell same runs from others.
          names: frame names.
          version: of this library; an unfinished run of another version starts again.
          overwrite: replace a whole result of another run.
          inputs: files and folders that must be neither overwritten nor removed.

        Raises:
          RdejaxError: the folder holds the result of another run, or files that are no result of
            this library, or the inputs.
          OSError: the folder cannot be made.
        """
        self.path = Path(path)
        self._work = self.path / "unfinished"
        self.masks = self._work / "masks"
        self.overlay = self._work / "overlay.mp4"
        self._run = json.loads(json.dumps(run))
        self._version = version
        self.progress = Progress()
        _refuse_file(self.path)
        if given := lying_in(inputs, [self.path / name for name in _WRITTEN]):
            raise RdejaxError(
                f"{given}: this input lies where the results go; choose another --output"
            )
        sweep(self.path, _WRITTEN)
        if (self._work / "run.json").exists():
            sweep(self._work)
            sweep(self.masks)
        self._end_the_move()
        self.finished = self._check_existing(names, overwrite)
        if self.finished is None:
            self._prepare(names)
        elif (_read_record(self._work / "run.json") or {}).get("run") == self._run:
            discard(self._work)  # of a run that was killed after its last file was in place

    def inner(self, name: str, names: Sequence[str]) -> "ResultFolder":
        """A result within the unfinished folder, which stays while this run does and goes with it.

        Args:
          name: of its folder, one of `_INNER`.
          names: of its frames.
        """
        return ResultFolder(
            self._work / name, {**self._run, "overlay": False}, names, version=self._version
        )

    def checkpoint(self, progress: Progress, save: Callable[[Path], object]) -> None:
        """Records that `progress.frames` masks are written.

        Args:
          progress: new state of affairs; its `state` is set here.
          save: writes the stream's state to the path it is given (a file or a folder).
        """
        old = self.progress.state
        progress.state = self._work / f"stream-{progress.frames}.safetensors"
        save(progress.state)
        self._write_progress(progress)
        if old is not None and old != progress.state:
            discard(old)

    def finish(self, summary: dict[str, Any]) -> dict[str, Any]:
        """Moves the results to their final names; returns the summary as written."""
        summary = {**summary, "run": self._run}
        write_json(self._work / "summary.json", summary)
        self._move_up()
        return summary

    def _check_existing(self, names: Sequence[str], overwrite: bool) -> dict[str, Any] | None:
        file = self.path / "summary.json"
        summary = read_json(file)
        if summary is None or "run" not in summary:
            # A run that got as far as its last file may have left some, beside its own folder.
            ours = (self._work / "run.json").exists()
            names_seen = ("summary.json", "masks", "overlay.mp4") if ours else _WRITTEN[1:]
            strange = [item for item in map(self.path.joinpath, names_seen) if item.exists()]
            if strange:
                raise RdejaxError(
                    f"{strange[0]}: exists and is not a finished result of rdejax infer; move it "
                    "away or choose another --output"
                )
            return None
        if "sequences" in summary:
            raise RdejaxError(
                f"{self.path}: holds the results of a data set; choose another --output"
            )
        if overwrite:
            return None
        differing = describe_difference(summary["run"], self._run)
        if differing:
            raise RdejaxError(
                f"{self.path}: holds the result of another run ({differing}); pass --overwrite to "
                "replace it or choose another --output"
            )
        # Someone may have deleted masks since, or a full disk cut them; then it is no longer whole.
        kept = whole_masks(self.path / "masks")
        if len(kept.intersection(names)) < _frames(summary, len(names)):
            return None
        if self._run.get("overlay") and not _has_content(self.path / "overlay.mp4"):
            return None
        return summary

    def _prepare(self, names: Sequence[str]) -> None:
        if self._work.exists():
            record = _read_record(self._work / "run.json")
            if record is None:
                raise RdejaxError(
                    f"{self._work}: exists and is no unfinished run of rdejax infer; move it away "
                    "or choose another --output"
                )
            progress = self._read_progress(record, names)
            if progress is not None:
                self.progress = progress
                return
            if record.get("run") == self._run and record.get("version") == self._version:
                self._begin_anew()
                return
            discard(self._work)
        # Whole before it has its name: no kill leaves a folder that the next run does not know.
        self.path.mkdir(parents=True, exist_ok=True)
        coming = temporary_name(self._work)
        (coming / "masks").mkdir(parents=True)
        self._write_progress(Progress(), coming)
        os.replace(coming, self._work)

    def _begin_anew(self) -> None:
        """Removes what an unfinished run of the same kind left, but not the results within it."""
        self._write_progress(Progress())
        for item in self._work.iterdir():
            if item.name not in (*_INNER, "run.json"):
                discard(item)
        self.masks.mkdir()

    def _read_progress(self, record: dict[str, Any], names: Sequence[str]) -> Progress | None:
        if record.get("run") != self._run or record.get("version") != self._version:
            return None
        try:
            progress = Progress(**record["progress"])
            frames, name = int(progress.frames), str(progress.state)
        except (KeyError, TypeError, ValueError):
            return None
        # Nothing outside of the folder is a state of it: states are removed when they are old.
        if frames < 1 or not progress.state or Path(name).name != name:
            return None
        state = self._work / name
        if not state.exists() or not whole_masks(self.masks).issuperset(names[:frames]):
            return None
        return dataclasses.replace(progress, state=state)

    def _write_progress(self, progress: Progress, folder: Path | None = None) -> None:
        values = dataclasses.asdict(progress)
        values["state"] = progress.state.name if progress.state else None
        record = {"version": self._version, "run": self._run, "progress": values}
        write_json((folder or self._work) / "run.json", record)
        self.progress = progress

    def _end_the_move(self) -> None:
        """Ends the move of a run that was killed after its last frame, if that left all whole."""
        file = self._work / "summary.json"
        summary = _read_record(file)
        if summary is None:
            return
        cut = self.masks.exists() and len(whole_masks(self.masks)) < _frames(summary, 1)
        if not summary or cut or (self.overlay.exists() and not _has_content(self.overlay)):
            file.unlink()
        else:
            self._move_up()

    def _move_up(self) -> None:
        """Replaces the old result by the unfinished folder's; may be repeated after a crash."""
        (self.path / "summary.json").unlink(missing_ok=True)
        if self.masks.exists():
            discard(self.path / "masks")
            os.replace(self.masks, self.path / "masks")
            (self.path / "overlay.mp4").unlink(missing_ok=True)
        if self.overlay.exists():
            os.replace(self.overlay, self.path / "overlay.mp4")
        os.replace(self._work / "summary.json", self.path / "summary.json")
        discard(self._work)


def describe_difference(old: Any, new: Any, name: str = "") -> str:
    """Names the first settings in which two runs differ, as "every 3 -> 5"; empty if none."""
    if isinstance(old, dict) and isinstance(new, dict):
        parts = []
        for key in dict.fromkeys([*new, *old]):
            parts.append(describe_difference(old.get(key), new.get(key), key))
        return ", ".join([part for part in parts if part][:3])
    return "" if old == new else f"{name} {old} -> {new}"


def _refuse_file(path: Path) -> None:
    if path.exists() and not path.is_dir():
        raise RdejaxError(f"{path}: is a file; --output must be a folder")


def _read_record(path: Path) -> dict[str, Any] | None:
    """A record of an unfinished run, empty if it is damaged; None if there is none."""
    try:
        return read_json(path)
    except RdejaxError:
        return {}


def _frames(summary: dict[str, Any], otherwise: int) -> int:
    frames = summary.get("frames", otherwise)
    return frames if isinstance(frames, int) else otherwise


def _has_content(path: Path) -> bool:
    return path.is_file() and path.stat().st_size > 0
