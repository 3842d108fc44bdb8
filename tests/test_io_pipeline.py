"""Threads: order, bounds, errors."""

import threading
import time

import pytest

from rdejax.io.threads import AsyncWriter, Prefetcher, chunked, with_last


def test_prefetcher_keeps_order_and_stays_bounded():
    made = []

    def items():
        for index in range(50):
            made.append(index)
            yield index

    with Prefetcher(items(), depth=3) as prefetched:
        iterator = iter(prefetched)
        assert next(iterator) == 0
        time.sleep(0.3)
        assert len(made) <= 6
        assert [0, *iterator] == list(range(50))


def test_prefetcher_works_ahead_of_the_consumer():
    begun = time.perf_counter()

    def slow():
        for index in range(6):
            time.sleep(0.05)
            yield index

    with Prefetcher(slow(), depth=2) as items:
        for _ in items:
            time.sleep(0.05)
    # One after the other would take 0.6 s.
    assert time.perf_counter() - begun < 0.55


def test_prefetcher_passes_errors_on_after_the_items_before():
    def broken():
        yield 1
        raise ValueError("bad frame")

    got = []
    with pytest.raises(ValueError, match="bad frame"), Prefetcher(broken()) as items:
        for item in items:
            got.append(item)
    assert got == [1]


def test_leaving_early_stops_the_thread_and_closes_the_source():
    closed = threading.Event()

    def endless():
        try:
            while True:
                yield 0
        finally:
            closed.set()

    before = threading.active_count()
    with Prefetcher(endless(), depth=2) as items:
        next(iter(items))
    assert closed.wait(2)
    assert threading.active_count() <= before


def test_writer_writes_all_in_order():
    written = []
    with AsyncWriter(written.append, depth=2) as writer:
        for index in range(30):
            writer.put(index)
        writer.flush()
        assert written == list(range(30))
    with AsyncWriter(written.append, depth=4, workers=3) as writer:
        for index in range(30, 60):
            writer.put(index)
    assert sorted(written) == list(range(60))


def test_writer_passes_errors_on_and_stops():
    written = []

    def write(item):
        if item == 2:
            raise OSError(28, "No space left on device", "x.png")
        written.append(item)

    with pytest.raises(OSError, match="No space left"), AsyncWriter(write, depth=1) as writer:
        for index in range(1000):
            writer.put(index)
    assert written == [0, 1]


def test_writer_reports_an_error_of_the_last_item():
    def write(item):
        time.sleep(0.1)
        raise OSError("late")

    with pytest.raises(OSError, match="late"), AsyncWriter(write) as writer:
        writer.put(1)


def test_writer_blocks_when_full():
    release = threading.Event()
    with AsyncWriter(lambda item: release.wait(5), depth=1) as writer:
        writer.put(0)
        time.sleep(0.2)
        writer.put(1)
        done = threading.Event()
        thread = threading.Thread(target=lambda: (writer.put(2), done.set()))
        thread.start()
        assert not done.wait(0.3)
        release.set()
        assert done.wait(2)
        thread.join()


def test_with_last():
    assert list(with_last("abc")) == [("a", False), ("b", False), ("c", True)]
    assert list(with_last([1])) == [(1, True)]
    assert list(with_last([])) == []


def test_chunked():
    assert list(chunked(range(7), 3)) == [[0, 1, 2], [3, 4, 5], [6]]
    assert list(chunked(range(7), 3, first=4)) == [[0, 1, 2, 3], [4, 5, 6]]
    assert list(chunked([], 3)) == []
