"""Ctrl-C and SIGTERM end a command line within seconds, whatever it is doing.

Python runs signal handlers between two of its own instructions. A compilation or a long computation
in native code is one instruction, so the handler would wait for minutes. A thread therefore watches
for the signal too, and ends the process if the main thread has not ended by itself in time. That is
safe for results that appear whole or not at all.
"""

import contextlib
import os
import signal
import socket
import sys
import threading
from collections.abc import Iterator

_GRACE_SECONDS = 3.0
_MESSAGES = {
    signal.SIGINT: "interrupted: run the same command again to continue",
    signal.SIGTERM: "terminated: run the same command again to continue",
}


class Terminated(BaseException):
    """SIGTERM arrived; like KeyboardInterrupt, not for `except Exception`."""


@contextlib.contextmanager
def ending_on_signals() -> Iterator[None]:
    """While the block runs, SIGTERM and SIGINT end the process with a sentence.

    Exit codes: 143 and 130. Outside the main thread (someone calls the command line from a program
    of theirs) nothing is changed: signals stay theirs.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    done = threading.Event()
    watched, notified = socket.socketpair()
    notified.setblocking(False)
    before = signal.signal(signal.SIGTERM, _raise_terminated)
    fd_before = signal.set_wakeup_fd(notified.fileno(), warn_on_full_buffer=False)
    threading.Thread(target=_watch, args=(watched, done), name="signals", daemon=True).start()
    try:
        yield
    except Terminated:
        _end(signal.SIGTERM)
    except KeyboardInterrupt:
        _end(signal.SIGINT)
    finally:
        done.set()
        signal.set_wakeup_fd(fd_before)
        signal.signal(signal.SIGTERM, before)
        notified.close()


def _raise_terminated(number: int, frame: object) -> None:
    raise Terminated


def _end(number: signal.Signals) -> None:
    print(_MESSAGES[number], file=sys.stderr)
    raise SystemExit(128 + number) from None


def _watch(watched: socket.socket, done: threading.Event) -> None:
    with watched:
        # Closing the other end, when the block is left, reads as nothing.
        while received := watched.recv(1):
            number = received[0]
            if number in _MESSAGES and not done.wait(_GRACE_SECONDS):
                print(_MESSAGES[signal.Signals(number)], file=sys.stderr, flush=True)
                os._exit(128 + number)
