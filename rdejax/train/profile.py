"""A trace of some steps, by `jax.profiler`."""

from pathlib import Path
from typing import Any

import jax


class Trace:
    """Records `steps` steps once: those after the first, which compiles.

    Args:
      folder: for TensorBoard's profiler; the `.trace.json.gz` in it is Perfetto's, too.
      steps: how many; 0: nothing is recorded.
    """

    def __init__(self, folder: Path, steps: int):
        self._folder, self._left = folder, steps
        self._running = False

    def __enter__(self) -> "Trace":
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def begin(self) -> None:
        """Starts to record, if it is asked for and was not done."""
        if self._left and not self._running and jax.process_index() == 0:
            jax.profiler.start_trace(str(self._folder))
            self._running = True

    def step(self, results: Any) -> None:
        """Counts a step, whose results are waited for, and stops after the last one."""
        if not self._running:
            return
        jax.block_until_ready(results)
        self._left -= 1
        if not self._left:
            self.end()

    def end(self) -> None:
        """Writes what was recorded, all steps or not."""
        if self._running:
            jax.profiler.stop_trace()
            self._running, self._left = False, 0
