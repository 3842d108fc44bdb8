"""A data set over all local devices: each sequence on one of its own, results those of one."""

import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import jax
import pytest
from io_helpers import moving_frames, square_mask, tiny_weights, write_folder, write_mask_image

from rdejax.infer.devices import Stopped, over_devices

ROOT = Path(__file__).parents[1]
FRAMES = {"first": 4, "fourth": 3, "second": 9, "third": 6}


def test_one_device_works_off_all_on_this_thread():
    done = []
    over_devices(
        [3, 1, 2], "model", [None], lambda *each: done.append((threading.get_ident(), each))
    )
    assert [thread for thread, _ in done] == [threading.get_ident()] * 3
    assert [(item, model) for _, (item, model, _) in done] == [
        (3, "model"),
        (1, "model"),
        (2, "model"),
    ]


def test_several_devices_work_at_once_and_each_item_is_done_once():
    together, done = threading.Barrier(2, timeout=30), []

    def work(item, model, check):
        if item < 2:
            together.wait()  # would end in an error if one came after the other
        check()
        done.append((item, model))

    over_devices(range(5), {"weight": 1.0}, jax.local_devices() * 2, work)
    assert sorted(item for item, _ in done) == list(range(5))
    assert all(model == {"weight": 1.0} for _, model in done)


def test_what_goes_wrong_on_one_device_stops_the_others():
    begun, left = threading.Event(), []

    def work(item, model, check):
        if item == "bad":
            assert begun.wait(30)
            raise ValueError("bad frame")
        begun.set()
        try:
            while True:
                check()
        except Stopped:
            left.append(item)
            raise

    with pytest.raises(ValueError, match="bad frame"):
        over_devices(["bad", "long", "never"], {}, jax.local_devices() * 2, work)
    assert left == ["long"]


def infer(root: Path, out: Path, devices: int, *more: str) -> subprocess.Popen:
    flags = f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count={devices}"
    paths = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    command = [
        *(sys.executable, "-m", "rdejax", "infer", "--dataset", "folder", "--root", str(root)),
        *("--output", str(out), "--checkpoint", str(root / "tiny.safetensors"), "--quiet", *more),
    ]
    return subprocess.Popen(
        command,
        env={**os.environ, "XLA_FLAGS": flags, "PYTHONPATH": paths},
        stderr=subprocess.PIPE,
        text=True,
    )


def end(process: subprocess.Popen) -> None:
    _, err = process.communicate(timeout=600)
    assert process.returncode == 0, err[-3000:]


def masks(out: Path) -> dict[str, bytes]:
    return {str(path.relative_to(out)): path.read_bytes() for path in out.rglob("*.png")}


@pytest.mark.slow
def test_eight_devices_and_two_processes_give_what_one_device_gives(tmp_path):
    for name, count in FRAMES.items():
        write_folder(tmp_path / "JPEGImages" / name, moving_frames(count), suffix=".jpg")
        write_mask_image(tmp_path / "Annotations" / name / "00000.png", square_mask(ids=(1, 2)))
    tiny_weights(tmp_path / "tiny.safetensors")
    one, eight, two = (tmp_path / name for name in ("one", "eight", "two"))
    end(infer(tmp_path, one, 1))
    end(infer(tmp_path, eight, 8))
    for process in [infer(tmp_path, two, 8, "--shard", f"{i}/2") for i in (1, 2)]:
        end(process)
    expected = masks(one)
    assert len(expected) == sum(FRAMES.values())
    assert masks(eight) == expected and masks(two) == expected
    for out, devices in ((one, 1), (eight, 8), (two, 8)):
        summary = json.loads((out / "summary.json").read_text())
        assert sorted(summary["sequences"]) == sorted(FRAMES)
        assert summary["frames"] == sum(FRAMES.values())
        assert summary["devices"] == devices
