"""Time spent on the video, with compilation counted apart, and how it went along."""

import time
from collections.abc import Sequence
from contextvars import ContextVar
from pathlib import Path
from types import TracebackType

from rdejax.errors import RdejaxError
from rdejax.files import atomic

_CLOCK: ContextVar["CompileClock | None"] = ContextVar("_CLOCK", default=None)


class CompileClock:
    """Adds up the time JAX spends tracing and compiling while the block is active.

    JAX reports each phase when it ends, and phases nest (a function is traced inside another one's
    trace), so the union of the intervals is counted, not their sum. What threads compile that do
    not work in the context of the block is not counted.

    Attributes:
      seconds: time spent so far.
      count: number of XLA compilations so far.
    """

    _PREFIX = "/jax/core/compile/"

    def __init__(self) -> None:
        self.count = 0
        self._intervals: list[tuple[float, float]] = []

    def __enter__(self) -> "CompileClock":
        from jax import monitoring

        # JAX has no public way to take a listener away again: it stays, and does nothing.
        self._token = _CLOCK.set(self)
        monitoring.register_event_duration_secs_listener(self._listen)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        _CLOCK.reset(self._token)

    @property
    def seconds(self) -> float:
        """See the class."""
        total, reached = 0.0, float("-inf")
        for begin, end in sorted(self._intervals):
            total += max(0.0, end - max(begin, reached))
            reached = max(reached, end)
        return total

    def _listen(self, event: str, duration_secs: float, **kwargs: str | int) -> None:
        if _CLOCK.get() is self and event.startswith(self._PREFIX):
            end = time.perf_counter()
            self._intervals.append((end - duration_secs, end))
            self.count += event.endswith("backend_compile_duration")


class Pace:
    """When how many frames of a video were done, for a curve of time per frame.

    Attributes:
      points: (frames done, seconds since the start), ascending.
    """

    def __init__(self, done: int = 0):
        """Starts the clock; `done` frames came from an earlier run."""
        self._begun = time.perf_counter()
        self.points: list[tuple[int, float]] = [(done, 0.0)]

    def update(self, done: int) -> None:
        """Notes that `done` frames are done."""
        self.points.append((done, time.perf_counter() - self._begun))


def write_pace(path: Path, points: Sequence[tuple[int, float]]) -> None:
    """Writes the points as CSV with the columns `frames` and `seconds`, atomically."""
    lines = ["frames,seconds", *(f"{done},{seconds:.4f}" for done, seconds in points)]
    with atomic(path) as temporary:
        temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")


def read_pace(path: Path) -> list[tuple[int, float]]:
    """Reads what `write_pace` wrote; empty if there is no such file.

    Raises:
      RdejaxError: the file holds something else.
    """
    try:
        rows = path.read_text(encoding="utf-8").splitlines()[1:]
        return [(int(done), float(seconds)) for done, seconds in (row.split(",") for row in rows)]
    except FileNotFoundError:
        return []
    except ValueError:
        raise RdejaxError(f"{path}: not written by rdejax infer; move it away") from None
