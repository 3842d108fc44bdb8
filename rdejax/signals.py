"""SIGTERM and Ctrl-C: inference ends within seconds, training after the step in progress.

Python runs signal handlers between two of its own instructions. A compilation or a long computation
in native code is one instruction, so a handler would wait for minutes. A thread therefore watches
for the signals, too.
"""

import contextlib
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from types import FrameType
from typing import Any, NoReturn

Handler = Callable[[int, FrameType | None], Any]

_SIGNALS = (signal.SIGTERM, signal.SIGINT)
# How long the main thread has to end by itself.
_GRACE_SECONDS = 3.0
# Some launchers send the same signal to a process and to its group.
_SAME_SECONDS = 1.0
_WORDS = {signal.SIGINT: "interrupted", signal.SIGTERM: "terminated"}


@contextlib.contextmanager
def _watching(
    heard: Callable[[signal.Signals], object], handlers: Mapping[signal.Signals, Handler]
) -> Iterator[None]:
    """While the block runs, `heard` is called with every SIGTERM and SIGINT, in a thread.

    Outside the main thread (someone calls a command line from a program of theirs) nothing is
    changed: signals stay theirs.

    Args:
      heard: what the thread calls.
      handlers: Python's handlers during the block; without one a number does not reach the thread.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    watched, notified = socket.socketpair()
    notified.setblocking(False)

    def watch() -> None:
        with watched:
            # Closing the other end, when the block is left, reads as nothing.
            while received := watched.recv(1):
                if received[0] in _SIGNALS:
                    heard(signal.Signals(received[0]))

    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    fd_before = signal.set_wakeup_fd(notified.fileno(), warn_on_full_buffer=False)
    threading.Thread(target=watch, name="signals", daemon=True).start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(fd_before)
        for number, handler in before.items():
            signal.signal(number, handler)
        notified.close()


class Terminated(BaseException):
    """SIGTERM arrived; like KeyboardInterrupt, not for `except Exception`."""


@contextlib.contextmanager
def sigterm_raises() -> Iterator[None]:
    """Within the block SIGTERM is raised as Ctrl-C is, so that half written files are removed.

    Handlers of others stay, and so does everything outside the main thread.
    """

    def handle(number: int, frame: FrameType | None) -> NoReturn:
        raise Terminated

    main = threading.current_thread() is threading.main_thread()
    if not main or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return
    signal.signal(signal.SIGTERM, handle)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


@contextlib.contextmanager
def ending_on_signals(again: str = "run the same command again to continue") -> Iterator[None]:
    """While the block runs, SIGTERM and SIGINT end the process with a sentence.

    Where the main thread has not ended by itself in time, the process is ended all the same; that
    is safe for results that appear whole or not at all. Exit codes: 143 and 130.

    Args:
      again: how the run is continued.
    """
    done = threading.Event()
    heard: list[signal.Signals] = []

    def handle(number: int, frame: FrameType | None) -> NoReturn:
        del frame
        heard.append(signal.Signals(number))
        raise KeyboardInterrupt if number == signal.SIGINT else Terminated

    def end_late(number: signal.Signals) -> None:
        if not done.wait(_GRACE_SECONDS):
            print(f"{_WORDS[number]}: {again}", file=sys.stderr, flush=True)
            os._exit(128 + number)

    def end(number: signal.Signals) -> NoReturn:
        print(f"{_WORDS[number]}: {again}", file=sys.stderr)
        raise SystemExit(128 + number) from None

    handlers: dict[signal.Signals, Handler] = {signal.SIGTERM: handle}
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # and is not ignored
        handlers[signal.SIGINT] = handle
    with _watching(end_late, handlers):
        try:
            yield
        except Terminated:
            end(signal.SIGTERM)
        except KeyboardInterrupt:
            end(signal.SIGINT)
        except Exception:
            # Native code turns what a handler raises within it into errors of its own.
            if heard:
                end(heard[0])
            raise
        finally:
            done.set()


class Stopped(SystemExit):
    """A run that ended early because of a signal; everything up to its last step is saved.

    The exit status is 143 after SIGTERM and 130 after SIGINT.
    """


class StopSignals:
    """While the block runs, notes signals instead of dying from them; a context manager.

    A second signal, a second or more after the first, ends the process at once; what is saved stays
    whole, because checkpoints appear whole or not at all.
    """

    def __init__(self):
        self._number = 0
        self._begun = 0.0
        self._watch = _watching(self._note, {number: _do_nothing for number in _SIGNALS})

    @property
    def asked(self) -> bool:
        """Whether a signal has come."""
        return self._number != 0

    @property
    def status(self) -> int:
        """Exit status that tells of the signal."""
        return 128 + (self._number or signal.SIGTERM)

    def __enter__(self) -> "StopSignals":
        self._watch.__enter__()
        return self

    def __exit__(self, kind: Any, value: Any, trace: Any) -> None:
        self._watch.__exit__(kind, value, trace)

    def _note(self, number: signal.Signals) -> None:
        now = time.monotonic()
        if not self._number:
            self._number, self._begun = number, now
            text = f"{number.name}: ending after the step in progress; once more to end at once"
            print(text, file=sys.stderr, flush=True)
        elif now - self._begun >= _SAME_SECONDS:
            print(f"{number.name} again: ended without saving", file=sys.stderr, flush=True)
            os._exit(128 + number)


def _do_nothing(number: int, frame: FrameType | None) -> None:
    del number, frame
