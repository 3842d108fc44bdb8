"""Checkpoints of a run: Orbax, asynchronous, the last ones and the best.

One checkpoint holds the train state and a JSON record: step, seed, the resolved configuration,
versions, validation score, and the data position. The position is a number only: clip i of step s
depends on (seed, s, i) alone, so the loader starts anywhere and no iterator has a state to save.
The same holds for the random numbers of augmentation on the device. Checksums of the arrays are in
the record, for Orbax does not notice every changed byte.
"""

import contextlib
import errno
import logging
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp
from orbax.checkpoint import checkpoint_managers

from rdejax.errors import RdejaxError, first_line
from rdejax.models.checksum import CHECKSUMS, changed, checksums

_STATE, _RECORD, _SCORE = "state", "record", "J&F"


class Damaged(RdejaxError):
    """A checkpoint whose arrays are not those that were saved."""


class Checkpoints:
    """The checkpoints in a folder; a context manager.

    A checkpoint is written beside training and appears whole or not at all: what a kill leaves half
    written has another name and is removed by the next run.

    Args:
      folder: made if missing, unless `read_only`.
      keep: last checkpoints to keep. The best by validation score is kept beside them.
      read_only: only look.
    """

    def __init__(self, folder: Path, keep: int = 1, *, read_only: bool = False):
        self.folder = folder
        # A full disk fails dozens of writes, each with a traceback of its own; one error is raised.
        for name in ("absl", "asyncio"):
            logging.getLogger(name).setLevel(logging.CRITICAL)
        _quiet_late_answers()
        last = checkpoint_managers.LatestN(keep)
        best = checkpoint_managers.BestN(
            get_metric_fn=_score, n=1, keep_checkpoints_without_metrics=False
        )
        options = ocp.CheckpointManagerOptions(
            preservation_policy=checkpoint_managers.AnyPreservationPolicy([last, best]),
            best_fn=_score,
            cleanup_tmp_directories=not read_only,
            create=not read_only,
            read_only=read_only,
            save_root_metadata=False,
        )
        self._manager = ocp.CheckpointManager(folder, options=options, item_names=(_STATE, _RECORD))

        # Of a checkpoint that is being written, Orbax could not tell.
        found = {step: self._manager.metrics(step) for step in self._manager.all_steps()}
        self._scores = {step: _score(metrics) for step, metrics in found.items() if metrics}

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, kind: object, value: object, trace: object) -> None:
        if kind is None:
            with self._plain_errors():
                self._manager.close()
        else:
            # What is being written may fail for the reason that has been told.
            with contextlib.suppress(Exception):
                self._manager.close()

    @contextlib.contextmanager
    def _plain_errors(self) -> Iterator[None]:
        """What the system refuses to write becomes an OSError; Orbax has many kinds for it."""
        try:
            yield
        except OSError:
            raise
        except Exception as error:
            number = _system_error(error)
            if number is None:
                raise
            raise OSError(number, os.strerror(number), str(self.folder)) from error

    @property
    def latest(self) -> int | None:
        """Step of the last checkpoint, or None."""
        return self._manager.latest_step()

    @property
    def best(self) -> tuple[int, float] | None:
        """Step and score of the best validated checkpoint, or None."""
        if not self._scores:
            return None
        step = max(self._scores, key=lambda step: self._scores[step])
        return step, self._scores[step]

    def forget_scores(self) -> None:
        """Compares coming validations with each other only."""
        self._scores = {}

    @property
    def steps(self) -> list[int]:
        """Steps of all checkpoints, ascending."""
        return sorted(self._manager.all_steps())

    def save(self, step: int, state: Any, record: dict[str, Any], score: float | None) -> None:
        """Begins to write a checkpoint; the state may be donated once this returns.

        Args:
          step: steps done.
          state: pytree of arrays; every process of the run calls this with its part.
          record: JSON values.
          score: validation J&F in [0, 1], if these parameters were validated.

        Raises:
          OSError: this one or the one before cannot be written, as on a full disk; so do `wait` and
            the end of the block.
        """
        record = {**record, CHECKSUMS: checksums(state)}
        args = ocp.args.Composite(
            state=ocp.args.PyTreeSave(state), record=ocp.args.JsonSave(record)
        )
        metrics = None if score is None else {_SCORE: score}
        with self._plain_errors():
            self._manager.save(step, args=args, metrics=metrics, force=True)
        if score is not None:
            self._scores[step] = score

    def record(self, step: int) -> dict[str, Any]:
        """The JSON record of a checkpoint.

        Raises:
          RdejaxError: it cannot be read.
        """
        record = self._restore(step, record=ocp.args.JsonRestore())[_RECORD]
        return {name: value for name, value in record.items() if name != CHECKSUMS}

    def restore(self, step: int, like: Any) -> Any:
        """The state of a checkpoint, on any number of devices.

        Args:
          step: which.
          like: pytree of `jax.ShapeDtypeStruct` with the shardings wanted.

        Raises:
          Damaged: its checksums are other ones than were noted when it was saved.
          RdejaxError: it cannot be read, or is of another model.
        """
        places = ocp.checkpoint_utils.construct_restore_args(like)
        args = ocp.args.PyTreeRestore(like, restore_args=places)
        state = self._restore(step, state=args)[_STATE]
        noted = self._restore(step, record=ocp.args.JsonRestore())[_RECORD].get(CHECKSUMS, {})
        if parts := changed(noted, state):
            raise Damaged(
                f"{self.folder / str(step)}: this checkpoint is damaged, its "
                f"{', '.join(sorted(parts))} changed since it was saved"
            )
        return state

    def remove(self, step: int) -> None:
        """Removes a checkpoint that is of no use."""
        self._manager.delete(step)
        self._scores.pop(step, None)

    def wait(self) -> None:
        """Until everything is on the disk."""
        with self._plain_errors():
            self._manager.wait_until_finished()

    def _restore(self, step: int, **args: Any) -> Any:
        try:
            return self._manager.restore(step, args=ocp.args.Composite(**args))
        except Exception as error:  # a damaged file makes Orbax and its readers raise many kinds
            text = first_line(error, 200)
            raise RdejaxError(
                f"{self.folder / str(step)}: this checkpoint cannot be read ({text}); it is "
                "damaged or of another version: remove it to go on from the one before"
            ) from error


def abstract(state: Any, shardings: Any) -> Any:
    """Shapes, types and places of a state, for `Checkpoints.restore`.

    Args:
      state: pytree of arrays or of their shapes.
      shardings: a sharding for each, or one for all.
    """
    if isinstance(shardings, jax.sharding.Sharding):
        shardings = jax.tree.map(lambda _: shardings, state)
    return jax.tree.map(
        lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), state, shardings
    )


def _quiet_late_answers() -> None:
    """Writes that are under way when another one fails answer to a loop that is closed by then.

    That cannot be raised anywhere, so Python prints a traceback for each.
    """
    before = sys.unraisablehook

    def hook(unraisable: Any) -> None:
        late = isinstance(unraisable.exc_value, RuntimeError) and unraisable.object is None
        if not (late and str(unraisable.exc_value) == "Event loop is closed"):
            before(unraisable)

    hook.late_answers = True  # type: ignore[attr-defined]
    if not hasattr(before, "late_answers"):
        sys.unraisablehook = hook


def _system_error(error: BaseException) -> int | None:
    """The system's number of an error, where the text of what Orbax raised tells of one."""
    text = str(error)
    found = re.search(r"os_error_code='(\d+)'|\[Errno (\d+)\]", text)
    if found:
        return int(next(group for group in found.groups() if group))
    return errno.ENOSPC if os.strerror(errno.ENOSPC) in text else None


def _score(metrics: dict[str, float]) -> float:
    return metrics[_SCORE]
