"""The commands for a GPU, as far as a machine without one can run them."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def side_by_side(*more: str) -> subprocess.CompletedProcess:
    command = [sys.executable, str(ROOT / "benchmarks" / "side_by_side.py"), "--compile", *more]
    paths = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    env = {**os.environ, "PYTHONPATH": paths}
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=900)


def test_without_a_gpu_its_command_ends_in_a_sentence():
    done = side_by_side("--device", "cuda", "--objects", "1", "3", "10")
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert "--device cuda: JAX runs on 'cpu' here" in done.stderr


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="needs rdejax[bench]")
def test_the_same_command_runs_through_on_a_cpu(tmp_path):
    size = ("--height", "32", "--width", "48", "--frames", "2", "--turns", "1")
    where = ("--output", str(tmp_path / "out.json"))
    what = ("--device", "cpu", "--dtypes", "float32", "--objects", "1", "3", "10")
    done = side_by_side(*what, *size, *where)
    assert done.returncode == 0, done.stderr[-3000:]
    rows = json.loads((tmp_path / "out.json").read_text())["rows"]
    assert [row["objects"] for row in rows] == [1, 3, 10]
    assert all(set(row["ratio"]) == {"eager", "compiled"} for row in rows)
