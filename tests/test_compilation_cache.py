"""Compiled programs kept in the user's cache folder: used when whole, harmless when not."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from rdejax.compilation_cache import _tidy, keep_compiled

PROGRAM = """
import sys
from rdejax.compilation_cache import keep_compiled
folder = keep_compiled("off" not in sys.argv)
import jax, jax.numpy as jnp
hits = []
jax.monitoring.register_event_listener(lambda event, **_: hits.append(event))
work = jax.jit(lambda x: jnp.sort(jnp.linalg.inv(x @ x.T + jnp.eye(64)), axis=0).sum())
value = float(work(jnp.ones((64, 64))))
print(folder is not None, "/jax/compilation_cache/cache_hits" in hits, value)
"""


def run(home: Path, *words: str) -> list[str]:
    env = {name: value for name, value in os.environ.items() if not name.startswith("JAX_")}
    env |= {"XDG_CACHE_HOME": str(home), "HOME": str(home), "JAX_PLATFORMS": "cpu"}
    env["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *words], env=env, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "rror" not in done.stderr and "arning" not in done.stderr, done.stderr
    return done.stdout.split()


def test_programs_are_kept_and_damaged_ones_made_again(tmp_path):
    kept, hit, value = run(tmp_path)
    assert (kept, hit) == ("True", "False")
    entries = [path for path in tmp_path.rglob("*-cache") if path.is_file()]
    assert entries
    assert run(tmp_path) == ["True", "True", value]
    for path in entries:
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert run(tmp_path) == ["True", "False", value]
    assert run(tmp_path, "off") == ["False", "False", value]


def test_a_cache_folder_that_cannot_be_made_is_done_without(tmp_path):
    (tmp_path / "rdejax").write_text("a file stands where the folder should")
    assert run(tmp_path)[:2] == ["False", "False"]


def test_what_the_environment_says_stays(monkeypatch):
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", "/somewhere")
    assert keep_compiled() is None
    assert os.environ["JAX_COMPILATION_CACHE_DIR"] == "/somewhere"


@pytest.mark.parametrize("most", [0, 15, 100])
def test_the_oldest_programs_go(tmp_path, monkeypatch, most):
    monkeypatch.setattr("rdejax.compilation_cache._MOST_BYTES", most)
    for age, name in enumerate("abc"):
        (tmp_path / name).write_bytes(b"0123456789")
        os.utime(tmp_path / name, (1000 - age, 1000 - age))
    (tmp_path / "empty").touch()
    _tidy(tmp_path)
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {0: set(), 15: {"a"}, 100: {"a", "b", "c"}}[most]
