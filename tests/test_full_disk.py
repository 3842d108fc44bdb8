"""What cannot be written: one error with the file's name, nothing half written, no hang."""

import errno
import os
import resource
import subprocess
import sys

import jax.numpy as jnp
import numpy as np
import pytest
from safetensors import safe_open

from rdejax.errors import RdejaxError
from rdejax.files import atomic, read_arrays, write_arrays
from rdejax.models.weights import read_weights
from rdejax.train.checkpoints import Checkpoints
from rdejax.train.monitor import Monitor

ARRAYS = {
    "z": np.ones((3, 4), np.float32),
    "a": np.arange(12, dtype=np.int32).reshape(3, 4).T,
    "é": np.zeros((0, 2), np.float16),
    "scalar": np.float32(3),
}
ABOUT = {"b": "1", "a": 'é\n\x07\x7f"', "c": '{"x": 3}', "d": "4", "e": "5"}


def test_the_same_content_gives_the_same_bytes(tmp_path) -> None:
    files = [tmp_path / f"{i}.safetensors" for i in range(8)]
    for file in files:
        write_arrays(file, ARRAYS, ABOUT)
    assert len({file.read_bytes() for file in files}) == 1
    arrays, about = read_arrays(files[0])
    assert about == ABOUT and set(arrays) == set(ARRAYS)
    with safe_open(files[0], "numpy") as file:
        assert file.metadata() == {**ABOUT, "sha256": file.metadata()["sha256"]}
        for name, array in ARRAYS.items():
            read = file.get_tensor(name)
            assert read.shape == np.shape(array)
            np.testing.assert_array_equal(read, array)
    plain = tmp_path / "plain"
    plain.touch()
    assert files[0].stat().st_mode == plain.stat().st_mode


def test_a_changed_byte_of_weights_is_noticed(tmp_path) -> None:
    path = tmp_path / "x.safetensors"
    write_arrays(path, ARRAYS, ABOUT)
    whole = path.read_bytes()
    for at in (-1, -60, whole.index(b'"d":"4"') + 5, whole.index(b'"scalar"') + 3):
        damaged = bytearray(whole)
        damaged[at] ^= 1
        path.write_bytes(damaged)
        with pytest.raises(RdejaxError, match=r"x\.safetensors: was changed or damaged"):
            read_arrays(path)
        with pytest.raises(RdejaxError, match=r"x\.safetensors: was changed or damaged"):
            read_weights(path)


@pytest.mark.parametrize("name", ["", ".", "/"])
def test_what_is_no_name_of_a_file(name) -> None:
    with pytest.raises(IsADirectoryError), atomic(name):
        raise AssertionError("not reached")


@pytest.fixture
def small_files():
    """Files of this process cannot grow above 64 kB, as on a full disk or above a quota."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_arrays_that_do_not_fit(tmp_path, small_files) -> None:
    path = tmp_path / "x.safetensors"
    with pytest.raises(OSError) as caught:
        write_arrays(path, {"a": np.zeros(1 << 16)}, {})
    assert caught.value.errno == errno.EFBIG and caught.value.filename == str(path)
    assert list(tmp_path.iterdir()) == []


def test_a_checkpoint_that_does_not_fit(tmp_path, caplog) -> None:
    noise = np.random.default_rng(0).standard_normal((8, 1 << 16), np.float32)
    state = {f"w{i}": jnp.asarray(row) for i, row in enumerate(noise)}
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    with pytest.raises(OSError, match="File too large") as caught:
        with Checkpoints(tmp_path / "checkpoints") as checkpoints:
            resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, before[1]))
            try:
                checkpoints.save(1, state, {}, None)
                checkpoints.wait()
            finally:
                resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert caught.value.errno == errno.EFBIG
    assert str(tmp_path / "checkpoints") in str(caught.value)
    assert "Traceback" not in caplog.text
    with Checkpoints(tmp_path / "checkpoints") as checkpoints:
        assert checkpoints.latest is None


@pytest.mark.parametrize("what", ["log.jsonl", "tensorboard"])
def test_a_log_that_does_not_fit(tmp_path, small_files, what) -> None:
    values = {f"loss {i}": float(i) for i in range(40)}
    with pytest.raises(OSError) as caught:
        with Monitor(tmp_path, first=0, total=10**6) as monitor:
            for step in range(2000):
                if what == "log.jsonl":
                    monitor._loggers[0].scalars = lambda step, values: None
                else:
                    monitor._log.write = lambda text: None
                monitor.metrics(step, values)
    assert caught.value.errno == errno.EFBIG and what in str(caught.value)


TRAIN = """
import resource, sys
resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000))
from rdejax.train.__main__ import main
main(sys.argv[1:])
"""


@pytest.mark.slow
def test_training_on_a_full_disk_ends_with_a_sentence(tmp_path) -> None:
    options = ["--steps", "4", "--save-every", "2", "--workdir", str(tmp_path / "run")]
    command = [sys.executable, "-c", TRAIN, "rde_lite_smoke", *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, env={**os.environ})
    assert done.returncode == 1, done.stderr
    assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1
    assert "File too large" in done.stderr and "--resume" in done.stderr
