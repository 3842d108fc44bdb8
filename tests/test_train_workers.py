"""Processes that prepare clips: they go with the run, and one that is lost is told."""

import itertools
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import pytest

from rdejax.data import workers as workers_module
from rdejax.data.workers import WorkerLost, from_workers, work
from rdejax.errors import BadFile

LOADER = """
import sys
from rdejax.data.config import ClipConfig
from rdejax.data.loader import clip_loader

if __name__ == "__main__":
    clip = ClipConfig(frames=2, size=48)
    batches = clip_loader(
        ("synthetic",), (), clip, batch_size=2, seed=0, steps=9, workers=2, threads=1
    )
    for batch in batches:
        print("batch", flush=True)
        if sys.stdin.readline() == "":
            break
"""
MEMORY = "/memfd:rdejax clips"


@pytest.fixture
def loader(tmp_path) -> Iterator[subprocess.Popen]:
    """A process with two workers, in a group of its own, that has given its first batch."""
    file = tmp_path / "loader.py"
    file.write_text(LOADER)
    process = subprocess.Popen(
        [sys.executable, str(file)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        process_group=0,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])},
    )
    assert process.stdout is not None and process.stdout.readline() == b"batch\n"
    yield process
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    process.communicate()


def members(group: int) -> dict[int, bytes]:
    """Processes of a group and their command lines."""
    found = {}
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if os.getpgid(int(path.parent.name)) == group:
                found[int(path.parent.name)] = path.read_bytes()
        except OSError:
            continue
    return found


def workers(group: int) -> list[int]:
    """Processes of a group that are spawned workers."""
    return sorted(number for number, line in members(group).items() if b"spawn_main" in line)


def open_files(group: int) -> set[str]:
    """What the processes of a group have open or mapped."""
    found = set()
    for number in members(group):
        folder = Path("/proc") / str(number)
        found |= {os.readlink(link) for link in (folder / "fd").iterdir()}
        found |= {line[73:] for line in (folder / "maps").read_text().splitlines()}
    return found


def ends(group: int) -> bool:
    for _ in range(300):
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.1)
    return False


@pytest.mark.slow
@pytest.mark.parametrize("whom", ["the run", "its group"])
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGHUP])
def test_workers_and_their_memory_go_with_the_run(loader, number, whom) -> None:
    assert len(workers(loader.pid)) == 2
    # Memory without a name is the system's to free; there is no other, and it is in use.
    names = open_files(loader.pid)
    assert any(name.startswith(MEMORY) for name in names)
    assert not [name for name in names if name.startswith("/dev/shm")]
    (os.kill if whom == "the run" else os.killpg)(loader.pid, number)
    _, error = loader.communicate()
    assert loader.returncode == -number
    assert ends(loader.pid) and error == b""


@pytest.mark.slow
def test_ctrl_c_does_not_reach_workers(loader) -> None:
    before = workers(loader.pid)
    for number in before:
        os.kill(number, signal.SIGINT)
    for _ in range(12):  # more than lie ready
        loader.stdin.write(b"more\n")
        loader.stdin.flush()
        assert loader.stdout.readline() == b"batch\n"
    assert workers(loader.pid) == before
    os.killpg(loader.pid, signal.SIGINT)
    _, error = loader.communicate()
    assert ends(loader.pid) and error.count(b"KeyboardInterrupt") == 1


@pytest.mark.slow
@pytest.mark.parametrize("which", [0, 1])
def test_a_lost_worker_is_told(loader, which) -> None:
    os.kill(workers(loader.pid)[which], signal.SIGKILL)
    _, error = loader.communicate(b"more\n" * 60, timeout=120)
    assert b"WorkerLost: a worker process" in error and b"exit code -9" in error
    assert b"--resume" in error
    assert ends(loader.pid)


def lost(index: int, count: int) -> Iterator[tuple[int, int]]:
    """What a worker makes that ends after its second batch."""
    yield index, count
    yield index, count
    os._exit(3)


def test_batches_come_in_turn_until_a_worker_is_lost() -> None:
    batches = from_workers(lost, 2)
    assert list(itertools.islice(batches, 4)) == [(0, 2), (1, 2), (0, 2), (1, 2)]
    with pytest.raises(WorkerLost, match=r"exit code 3.*--resume"):
        next(batches)
    assert not multiprocessing.active_children()


@pytest.fixture
def worker() -> Iterator[Callable[..., Connection]]:
    """Starts `work` in a thread; returns the other end of its connection."""
    started = []

    def start(share) -> Connection:
        here, there = multiprocessing.Pipe()
        thread = threading.Thread(target=work, args=(there, share, 0, 1))
        thread.start()
        started.append((here, thread))
        return here

    yield start
    for here, thread in started:
        here.close()
        thread.join(timeout=10)
        assert not thread.is_alive()


def answer(connection: Connection):
    workers_module._ask(connection)
    return workers_module._receive(connection)


ARRAYS = {
    "clips": np.arange(3 * 50 * 7, dtype=np.uint8).reshape(3, 50, 7),
    "none": np.zeros((0, 4), np.float32),
    "scalar": np.array(3.5),
    "one": np.ones(1, bool),
    "not in order": np.arange(60).reshape(5, 12).T[::2],
    "read-only": np.broadcast_to(np.int32(4), (3, 3)),
}


def test_arrays_arrive_as_they_were(worker) -> None:
    connection = worker(lambda index, count: iter([ARRAYS, (1, 2)]))
    arrived, error = answer(connection)
    assert error is None and list(arrived) == list(ARRAYS)
    for name, array in ARRAYS.items():
        assert arrived[name].dtype == array.dtype
        np.testing.assert_array_equal(arrived[name], array)
    assert arrived["clips"].ctypes.data % 64 == 0 and arrived["clips"].flags.writeable
    assert answer(connection) == ((1, 2), None)


class Local(Exception):
    """One that cannot be sent: its arguments are not those of its constructor."""

    def __init__(self, one: int, two: int):
        super().__init__(f"{one} and {two}")


@pytest.mark.parametrize(
    ("raised", "expected"),
    [
        (BadFile("a.png: bad", "bad"), BadFile("a.png: bad", "bad")),
        (KeyError("x"), KeyError("x")),
        (OSError(5, "dead"), OSError(5, "dead")),
        (Local(1, 2), RuntimeError("Local: 1 and 2")),
    ],
)
def test_errors_of_workers_arrive(worker, raised, expected) -> None:
    def share(index: int, count: int) -> Iterator[int]:
        raise raised
        yield

    batch, error = answer(worker(share))
    assert batch is None and type(error) is type(expected) and str(error) == str(expected)
    # A sentence needs no traceback.
    traced = "raise raised" in "".join(getattr(error, "__notes__", []))
    assert traced == (not isinstance(raised, BadFile))
