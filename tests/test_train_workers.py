"""Processes that prepare clips: they go with the run, and one that is lost is told."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from rdejax.data.workers import WorkerLost, told

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


def workers(group: int) -> list[int]:
    """Processes of a group that are spawned workers."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            same = os.getpgid(int(path.parent.name)) == group
            if same and b"spawn_main" in path.read_bytes():
                found.append(int(path.parent.name))
        except OSError:
            continue
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
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGHUP])
def test_workers_and_their_memory_go_with_the_run(loader, number) -> None:
    before = set(os.listdir("/dev/shm"))
    assert len(workers(loader.pid)) == 2
    os.kill(loader.pid, number)
    _, error = loader.communicate()
    assert ends(loader.pid)
    assert error == b""
    # What was there before was mostly theirs.
    assert len(set(os.listdir("/dev/shm")) & before) < len(before)


@pytest.mark.slow
def test_ctrl_c_does_not_reach_workers(loader) -> None:
    os.killpg(loader.pid, signal.SIGINT)
    _, error = loader.communicate()
    assert ends(loader.pid) and error.count(b"KeyboardInterrupt") == 1


@pytest.mark.slow
def test_a_lost_worker_is_told(loader) -> None:
    os.kill(workers(loader.pid)[0], signal.SIGKILL)
    _, error = loader.communicate(b"more\n" * 60, timeout=120)
    assert b"WorkerLost: a worker process" in error and b"exit code -9" in error
    assert b"--resume" in error


def test_other_errors_stay() -> None:
    def broken(text: str) -> Iterator[int]:
        yield 1
        raise RuntimeError(text)

    batches = told(broken("something else"))
    assert next(batches) == 1
    with pytest.raises(RuntimeError, match="something else"):
        next(batches)
    lost = told(broken("Worker process was terminated unexpectedly with exit code -9. Search"))
    next(lost)
    with pytest.raises(WorkerLost, match=r"exit code -9.*--resume"):
        next(lost)
