"""Processes that prepare batches: they leave nothing behind, and an end of their own is told.

A batch lies in anonymous memory, whose descriptor goes through a socket. It has no name anywhere,
so that it is gone with the last process that holds it, whatever ends them; and the size of
`/dev/shm`, which is small in containers, does not matter.
"""

import contextlib
import itertools
import mmap
import multiprocessing
import os
import pickle
import signal
import sys
import tempfile
import threading
import traceback
from collections.abc import Callable, Iterator
from multiprocessing import reduction, resource_tracker
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any, TypeVar

from rdejax.errors import RdejaxError

T = TypeVar("T")

# What a terminal sends to every process of a run; the run itself decides what becomes of it.
_FROM_TERMINAL = (signal.SIGINT, signal.SIGHUP)
# Batches of each worker that are ready or under way before they are asked for.
_AHEAD = 2
# Arrays begin at multiples of this, as JAX likes them.
_ALIGNED = 64


class WorkerLost(RdejaxError):
    """A process that prepares batches was killed."""


def from_workers(share: Callable[[int, int], Iterator[T]], count: int) -> Iterator[T]:
    """What `count` processes make, in turn: the first of each, the second of each, ...

    They are started out of reach of the terminal's signals when the first batch is asked for, and
    end with the iterator, or with this process, however it ends.

    Args:
      share: makes the endless batches of worker `index` of `count`, given these two; it is pickled.
      count: of processes.

    Raises:
      WorkerLost: one of them has ended.
      Exception: what `share` raised, with its traceback as a note unless it is an `RdejaxError`.
    """
    context = multiprocessing.get_context("spawn")
    workers: list[tuple[BaseProcess, Connection]] = []
    try:
        with _shielded():
            for index in range(count):
                mine, other = context.Pipe()
                arguments = (other, share, index, count)
                process = context.Process(target=work, args=arguments, daemon=True)
                workers.append((process, mine))
                process.start()
                other.close()  # so that its end is seen
        for _, connection in workers * (_AHEAD - 1):
            _ask(connection)
        for process, connection in itertools.cycle(workers):
            _ask(connection)
            try:
                batch, error = _receive(connection)
            except (EOFError, OSError):
                process.join()
                raise WorkerLost(
                    "a worker process that prepares clips was ended from outside (exit code "
                    f"{process.exitcode}), as happens where memory is full; run the same command "
                    "with --resume, and with fewer --workers if it happens again"
                ) from None
            if error is not None:
                raise error
            yield batch
    finally:
        for process, connection in workers:
            connection.close()
            if process.pid is not None:
                process.kill()
                process.join()


def work(
    connection: Connection, share: Callable[[int, int], Iterator[Any]], index: int, count: int
) -> None:
    """The part of a worker: sends a batch whenever it is asked to; see `from_workers`."""
    _end_with_parent()
    # What is raised while a batch is made is sent; here the other end is gone.
    with contextlib.suppress(EOFError, ConnectionError):
        batches = None
        while True:
            batch = error = None
            try:
                batches = share(index, count) if batches is None else batches
                batch = next(batches)
            except Exception as raised:
                error = _portable(raised)
            connection.recv_bytes()
            _send(connection, (batch, error))
            if error is not None:
                return


def _end_with_parent() -> None:
    """This process ends as soon as the one that started it has, however it ended.

    A thread waits for it because the system's own parent-death signal comes when the thread that
    started the worker ends.
    """
    parent = multiprocessing.parent_process()
    if parent is None:
        return
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, name="end with parent", daemon=True).start()


def _portable(error: Exception) -> Exception:
    """The error, or one that says the same and can be sent."""
    text = traceback.format_exc()
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        error = RuntimeError(f"{type(error).__name__}: {error}")
    if not isinstance(error, RdejaxError):
        error.add_note(f"In a worker process:\n{text}")
    return error


def _ask(connection: Connection) -> None:
    with contextlib.suppress(OSError):  # receiving tells what became of it
        connection.send_bytes(b"\0")


def _send(connection: Connection, item: Any) -> None:
    """Sends what holds arrays: these in memory of their own, all else in a message."""
    buffers: list[pickle.PickleBuffer] = []
    head = pickle.dumps(item, protocol=5, buffer_callback=buffers.append)
    arrays = [buffer.raw() for buffer in buffers]
    connection.send((head, [array.nbytes for array in arrays]))
    if not arrays:
        return
    with _anonymous() as file:
        for array in arrays:
            file.write(array)
            file.seek(-file.tell() % _ALIGNED, os.SEEK_CUR)
        file.truncate()
        reduction.send_handle(connection, file.fileno(), os.getppid())


def _receive(connection: Connection) -> Any:
    """Inverse of `_send`; the arrays are views of the memory, which goes with the last of them."""
    head, sizes = connection.recv()
    if not sizes:
        return pickle.loads(head)
    handle = reduction.recv_handle(connection)
    ends = list(itertools.accumulate(-(-size // _ALIGNED) * _ALIGNED for size in sizes))
    try:
        memory = memoryview(mmap.mmap(handle, ends[-1]))
    finally:
        os.close(handle)
    starts = (0, *ends[:-1])
    arrays = [memory[at : at + size] for at, size in zip(starts, sizes, strict=True)]
    return pickle.loads(head, buffers=arrays)


def _anonymous() -> Any:
    """An open file without a name: in memory, or, where the system has no such thing, on disk."""
    if sys.platform == "linux":
        return open(os.memfd_create("rdejax clips", os.MFD_CLOEXEC), "w+b", buffering=0)
    return tempfile.TemporaryFile(buffering=0)


@contextlib.contextmanager
def _shielded() -> Iterator[None]:
    """Processes started in the block never see Ctrl-C; else each of them prints a traceback.

    Python's resource tracker, which comes with them, is started first, for its start takes the
    shield away.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})
    resource_tracker.ensure_running()
    signal.pthread_sigmask(signal.SIG_BLOCK, _FROM_TERMINAL)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _FROM_TERMINAL)
