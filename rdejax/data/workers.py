"""Processes that prepare clips: they end with the run, and an end of their own is told."""

import contextlib
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Iterable, Iterator
from multiprocessing import resource_tracker
from typing import TypeVar

from rdejax.errors import RdejaxError

T = TypeVar("T")

# What a terminal sends to every process of a run; the run itself decides what becomes of it.
_FROM_TERMINAL = (signal.SIGINT, signal.SIGHUP)


class WorkerLost(RdejaxError):
    """A process that prepares clips was killed."""


def end_with_parent(index: int, count: int) -> None:
    """Called in a worker: it ends as soon as the process that started it has, however it ended.

    The shared memory of both goes then, too: Python's resource tracker waits for the last of them.
    A thread waits for the parent because the system's own parent-death signal comes when the thread
    that started the worker ends.

    Args:
      index: of the worker.
      count: of workers.
    """
    del index, count
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    if parent is None:
        return

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, name="end with parent", daemon=True).start()


def told(batches: Iterable[T]) -> Iterator[T]:
    """The batches; workers are started out of reach of the terminal's signals.

    Raises:
      WorkerLost: one of them has ended.
    """
    with _shielded():
        iterator = iter(batches)
        first = _next(iterator)
    yield first
    while True:
        yield _next(iterator)


def _next(iterator: Iterator[T]) -> T:
    try:
        return next(iterator)
    except RuntimeError as error:
        text = str(error)
        if "Worker process was terminated" not in text:
            raise
        code = text.partition("exit code ")[2].partition(".")[0] or "unknown"
        raise WorkerLost(
            f"a worker process that prepares clips was ended from outside (exit code {code}), as "
            "happens where memory or /dev/shm is full; run the same command with --resume, and "
            "with fewer --workers if it happens again"
        ) from None


@contextlib.contextmanager
def _shielded() -> Iterator[None]:
    """Processes started in the block never see Ctrl-C; else each of them prints a traceback.

    Python's resource tracker is among them, so that it cleans up where a terminal is closed. It is
    started first, for its start takes the shield away, and told not to warn of what it finds.
    """
    quiet = "ignore::UserWarning:multiprocessing.resource_tracker"
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})
    sys.warnoptions.append(quiet)
    resource_tracker.ensure_running()
    sys.warnoptions.remove(quiet)
    signal.pthread_sigmask(signal.SIG_BLOCK, _FROM_TERMINAL)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _FROM_TERMINAL)
