"""SIGTERM and SIGINT end a training run after the step in progress, which is saved first."""

import os
import signal
import socket
import sys
import threading
import time
from collections import deque

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array

from rdejax.train.parallel import batch_sharding

_SIGNALS = (signal.SIGTERM, signal.SIGINT)
# Some launchers send the same signal to a process and to its group.
_SAME_SECONDS = 1.0
# Steps between asking all processes whether to stop and looking at the answer.
_LAG = 2


class Stopped(SystemExit):
    """A run that ended early because of a signal; everything up to its last step is saved.

    The exit status is 143 after SIGTERM and 130 after SIGINT.
    """


class StopSignals:
    """While the block runs, notes signals instead of dying from them; a context manager.

    A second signal, a second or more after the first, ends the process at once; what is saved stays
    whole, because checkpoints appear whole or not at all. Outside the main thread (someone trains
    from a program of theirs) nothing is changed: signals stay theirs.

    Python would run a handler only after native code returns, which a compilation takes minutes
    for; therefore a thread watches.
    """

    def __init__(self):
        self._number = 0
        self._begun = 0.0
        self._before: dict[int, object] = {}
        self._notified: socket.socket | None = None

    @property
    def asked(self) -> bool:
        """Whether a signal has come."""
        return self._number != 0

    @property
    def status(self) -> int:
        """Exit status that tells of the signal."""
        return 128 + (self._number or signal.SIGTERM)

    def __enter__(self) -> "StopSignals":
        if threading.current_thread() is not threading.main_thread():
            return self
        watched, self._notified = socket.socketpair()
        self._notified.setblocking(False)
        # Without a Python handler the numbers would not reach the socket.
        self._before = {n: signal.signal(n, lambda number, frame: None) for n in _SIGNALS}
        self._fd = signal.set_wakeup_fd(self._notified.fileno(), warn_on_full_buffer=False)
        threading.Thread(target=self._watch, args=(watched,), name="signals", daemon=True).start()
        return self

    def __exit__(self, kind: object, value: object, trace: object) -> None:
        if self._notified is None:
            return
        signal.set_wakeup_fd(self._fd)
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]
        self._notified.close()

    def _watch(self, watched: socket.socket) -> None:
        with watched:
            # Closing the other end, when the block is left, reads as nothing.
            while received := watched.recv(1):
                if received[0] in _SIGNALS:
                    self._note(received[0])

    def _note(self, number: int) -> None:
        name = signal.Signals(number).name
        now = time.monotonic()
        if not self._number:
            self._number, self._begun = number, now
            text = f"{name}: ending after the step in progress; once more to end at once"
            print(text, file=sys.stderr, flush=True)
        elif now - self._begun >= _SAME_SECONDS:
            print(f"{name} again: ended without saving", file=sys.stderr, flush=True)
            os._exit(128 + number)


class Agreement:
    """Whether to stop, with one answer on all processes in the same step.

    A signal reaches the processes of a run in different steps, but saving needs all of them. Each
    call starts a tiny reduction over the devices and looks at the one of two calls ago, which is
    done by then: nothing waits for the device.
    """

    def __init__(self, mesh: Mesh):
        self._sharding = batch_sharding(mesh)
        self._any = jax.jit(jnp.max, out_shardings=NamedSharding(mesh, PartitionSpec()))
        self._waiting: deque[Array] = deque()

    def __call__(self, asked: bool) -> bool:
        """The answer; `asked` is this process's own wish. To be called in every step."""
        if jax.process_count() == 1:
            return asked
        flags = np.full(jax.local_device_count(), asked, np.int32)
        self._waiting.append(
            self._any(jax.make_array_from_process_local_data(self._sharding, flags))
        )
        return len(self._waiting) > _LAG and bool(self._waiting.popleft())
