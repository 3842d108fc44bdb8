"""Progress on the terminal, or now and then a line where there is none."""

import sys
import time
from types import TracebackType
from typing import Any


class ProgressDisplay:
    """Shows how many frames are done; a context manager.

    On a terminal a progress bar; otherwise (a log file) one line every `interval` seconds; nothing
    when quiet. Everything goes to stderr.
    """

    def __init__(self, title: str, total: int, *, quiet: bool = False, interval: float = 15.0):
        self._title = title
        self._total = total
        self._quiet = quiet
        self._interval = interval
        self._last = self._begun = time.perf_counter()
        self._start: int | None = None
        self._bar: Any = None
        self._task: Any = None

    def __enter__(self) -> "ProgressDisplay":
        if not self._quiet and sys.stderr.isatty():
            from rich import progress
            from rich.console import Console

            self._bar = progress.Progress(
                progress.TextColumn("{task.description}"),
                progress.BarColumn(),
                progress.MofNCompleteColumn(),
                progress.TextColumn("{task.fields[rate]}"),
                progress.TimeRemainingColumn(),
                console=Console(stderr=True),
            )
            self._bar.start()
            self._task = self._bar.add_task(
                f"{self._title} (compiling)", total=self._total, rate=""
            )
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def update(self, done: int) -> None:
        """Tells the number of frames done."""
        now = time.perf_counter()
        if self._start is None or self._start <= 1:
            # The first reports, of frame 0 and of those behind it, hold compilations: the rate
            # counts from there.
            self._start, self._begun = done, now
        rate = (done - self._start) / (now - self._begun) if done > self._start else 0.0
        if self._bar is not None:
            text = f"{rate:.1f} frames/s" if rate else ""
            self._bar.update(self._task, completed=done, description=self._title, rate=text)
        elif not self._quiet and now - self._last >= self._interval:
            self._last = now
            print(
                f"{self._title}: {done} of {self._total} frames, {rate:.1f} frames/s",
                file=sys.stderr,
            )
