"""Time spent on the video, with compilation counted apart."""

import time
from types import TracebackType


class CompileClock:
    """Adds up the time JAX spends tracing and compiling while the block is active.

    JAX reports each phase when it ends, and phases nest (a function is traced inside another one's
    trace), so the union of the intervals is counted, not their sum.

    Attributes:
      seconds: time spent so far.
      count: number of XLA compilations so far.
    """

    _PREFIX = "/jax/core/compile/"

    def __init__(self) -> None:
        self.count = 0
        self._intervals: list[tuple[float, float]] = []
        self._active = False

    def __enter__(self) -> "CompileClock":
        from jax import monitoring

        # JAX offers no public way to take a listener away again: it stays, and does nothing.
        self._active = True
        monitoring.register_event_duration_secs_listener(self._listen)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._active = False

    @property
    def seconds(self) -> float:
        """See the class."""
        total, reached = 0.0, float("-inf")
        for begin, end in sorted(self._intervals):
            total += max(0.0, end - max(begin, reached))
            reached = max(reached, end)
        return total

    def _listen(self, event: str, duration_secs: float, **kwargs: str | int) -> None:
        if self._active and event.startswith(self._PREFIX):
            end = time.perf_counter()
            self._intervals.append((end - duration_secs, end))
            self.count += event.endswith("backend_compile_duration")
