"""TensorBoard's event file, written at once: what goes wrong is told where it is written."""

import time
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8


class EventFile:
    """Scalars and pictures for TensorBoard.

    `tensorboardX.SummaryWriter` writes in a thread of its own, which a full disk ends with a
    traceback, and for which the next writes then wait for ever.

    Args:
      folder: gets the file; made if missing.
      purge: step from which on earlier files of the folder do not count, or None.

    Raises:
      OSError: it cannot be written; so do all methods.
    """

    def __init__(self, folder: Path, purge: int | None = None):
        from tensorboardX.event_file_writer import EventsWriter
        from tensorboardX.proto import event_pb2

        kinds: Any = event_pb2  # whose names are made when it is imported
        folder.mkdir(parents=True, exist_ok=True)
        self._event = kinds.Event
        self._writer = EventsWriter(str(folder / "events"))
        if purge is not None:
            self._writer.write_event(self._event(step=purge, file_version="brain.Event:2"))
            start = kinds.SessionLog(status=kinds.SessionLog.START)
            self._writer.write_event(self._event(step=purge, session_log=start))

    def scalars(self, step: int, values: dict[str, float]) -> None:
        """Adds numbers by name."""
        from tensorboardX.summary import scalar

        for name, value in values.items():
            self._add(step, scalar(name, value))
        self._writer.flush()

    def picture(self, step: int, name: str, image: UInt8[np.ndarray, "h w 3"]) -> None:
        """Adds a picture."""
        from tensorboardX.summary import image as summary

        self._add(step, summary(name, image, dataformats="HWC"))

    def close(self) -> None:
        """Ends the file."""
        self._writer.close()

    def _add(self, step: int, summary: object) -> None:
        self._writer.write_event(self._event(wall_time=time.time(), step=step, summary=summary))
