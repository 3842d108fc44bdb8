"""Threads that keep the disk busy while the accelerator computes.

Both ends are bounded, so memory stays flat however long the video is, and an error in a thread
surfaces in the main one at its next call.
"""

import queue
import threading
from collections.abc import Callable, Generator, Iterable, Iterator
from typing import Generic, TypeVar

T = TypeVar("T")

_END = object()
_POLL = 0.1
# A thread ends after the item in hand; one that hangs in a dead disk ends with the process.
_JOIN = 10.0


class Prefetcher(Generic[T]):
    """Iterates over `items` in a thread, at most `depth` items ahead.

    A context manager; leaving it stops the thread and closes `items` if it is a generator.
    """

    def __init__(self, items: Iterable[T], depth: int = 2):
        self._items = items
        self._queue: queue.Queue = queue.Queue(maxsize=max(1, depth))
        self._stop = threading.Event()
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="prefetch", daemon=True)

    def __enter__(self) -> "Prefetcher[T]":
        self._thread.start()
        return self

    def __exit__(self, kind, value, trace) -> None:
        self._stop.set()
        self._thread.join(timeout=_JOIN)

    def __iter__(self) -> Iterator[T]:
        while True:
            # Short waits instead of one endless one, so that signals are handled on every system.
            try:
                item = self._queue.get(timeout=_POLL)
            except queue.Empty:
                continue
            if item is _END:
                if self._error is not None:
                    raise self._error
                return
            yield item

    def _run(self) -> None:
        try:
            for item in self._items:
                if not self._put(item):
                    break
        except BaseException as error:
            self._error = error
        finally:
            if isinstance(self._items, Generator):
                self._items.close()
            self._put(_END)

    def _put(self, item: object) -> bool:
        while not self._stop.is_set():
            try:
                self._queue.put(item, timeout=_POLL)
                return True
            except queue.Full:
                continue
        return False


class AsyncWriter(Generic[T]):
    """Calls `write(item)` in threads, at most `depth` items behind.

    With one worker, items are written in order. After the first error nothing more is written and
    every call raises it. A context manager; leaving it without an error waits for all items,
    leaving it with one drops those that have not started.
    """

    def __init__(self, write: Callable[[T], object], depth: int = 32, workers: int = 1):
        self._write = write
        self._queue: queue.Queue = queue.Queue(maxsize=max(1, depth))
        self._stop = threading.Event()
        self._error: BaseException | None = None
        self._threads = [
            threading.Thread(target=self._run, name=f"writer-{index}", daemon=True)
            for index in range(workers)
        ]

    def __enter__(self) -> "AsyncWriter[T]":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, kind, value, trace) -> None:
        try:
            if kind is None:
                self.flush()
        finally:
            self._stop.set()
            for thread in self._threads:
                thread.join(timeout=_JOIN)

    def put(self, item: T) -> None:
        """Queues one item; waits while the queue is full.

        Raises:
          BaseException: whatever `write` raised earlier.
        """
        while True:
            self._check()
            try:
                return self._queue.put(item, timeout=_POLL)
            except queue.Full:
                continue

    def flush(self) -> None:
        """Waits until every item put so far is written; raises what `write` raised."""
        with self._queue.all_tasks_done:
            while self._queue.unfinished_tasks and self._error is None:
                self._queue.all_tasks_done.wait(timeout=_POLL)
        self._check()

    def _check(self) -> None:
        if self._error is not None:
            raise self._error

    def _run(self) -> None:
        while not self._stop.is_set() and self._error is None:
            try:
                item = self._queue.get(timeout=_POLL)
            except queue.Empty:
                continue
            try:
                self._write(item)
            except BaseException as error:
                self._error = error
            finally:
                self._queue.task_done()


def chunked(
    items: Iterable[T], length: int, first: int | None = None
) -> Generator[list[T], None, None]:
    """Groups items into lists of `length`, the first one of `first`; the last may be shorter."""
    group: list[T] = []
    wanted = length if first is None else first
    for item in items:
        group.append(item)
        if len(group) == wanted:
            yield group
            group = []
            wanted = length
    if group:
        yield group


def with_last(items: Iterable[T]) -> Generator[tuple[T, bool], None, None]:
    """Each item, and whether it is the last one; reads one ahead."""
    iterator = iter(items)
    for item in iterator:
        for following in iterator:
            yield item, False
            item = following
        yield item, True
