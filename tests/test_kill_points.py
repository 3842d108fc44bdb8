"""A kill before each file operation of a run: the same command then ends as an unbroken one.

The kill is an exception, after which no file operation of the run is carried out any more, so that
nothing can be tidied up.
"""

import functools
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from io_helpers import fake_api, moving_frames, square_mask, write_folder, write_mask_image

from rdejax.__main__ import main
from rdejax.infer import run as run_module

OPERATIONS = ("replace", "mkdir", "unlink", "rmdir", "fsync")
TIMING = ("seconds", "compile_seconds", "compilations", "frames_per_second")
INFER = "infer --quiet --no-compilation-cache --no-overlay --output out"
VIDEO = f"{INFER} frames --mask masks/00003.png"
DATASET = f"{INFER} --dataset folder --root data"
# The command, and what is run before it.
COMMANDS = {
    "video": (f"{VIDEO} --chunk 1", ""),
    "overwrite a video": (f"{VIDEO} --overwrite --every 2", VIDEO),
    "both directions": (f"{INFER} frames --mask masks --direction both --chunk 2", ""),
    "several videos": (f"{INFER} data/JPEGImages --mask several", ""),
    "data set": (DATASET, ""),
    "overwrite a data set": (f"{DATASET} --overwrite --every 2", DATASET),
    "parts": (f"{DATASET} --shard 1/2;{DATASET} --shard 2/2", ""),
    "report": (f"{VIDEO} --report", ""),
    "export": ("export out --format png --output pictures", VIDEO),
    "overwrite an export": (
        "export out --format png --output pictures --overwrite",
        f"{VIDEO};export out --format png --output pictures --objects 2",
    ),
}


class Killed(BaseException):
    """What stands for SIGKILL."""


@pytest.fixture
def place(tmp_path, monkeypatch):
    fake_api(monkeypatch)
    # The state is saved after every chunk.
    always = functools.partial(run_module.segment_to_folder, checkpoint_seconds=0)
    monkeypatch.setattr(run_module, "segment_to_folder", always)
    write_folder(tmp_path / "frames", moving_frames(5))
    write_mask_image(tmp_path / "masks" / "00003.png", square_mask(ids=(1, 2)))
    for name in ("a", "b"):
        write_folder(tmp_path / "data" / "JPEGImages" / name, moving_frames(4))
        mask = square_mask(ids=(1, 2))
        write_mask_image(tmp_path / "data" / "Annotations" / name / "00000.png", mask)
        write_mask_image(tmp_path / "several" / f"{name}.png", mask)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(lines: str) -> None:
    for line in filter(None, lines.split(";")):
        main(line.split(" "))


def timeless(value):
    if isinstance(value, dict):
        return {k: timeless(v) for k, v in value.items() if k not in TIMING}
    return value


def results(place: Path) -> dict[str, object]:
    """Everything that was written, hidden files included, but for times."""
    found: dict[str, object] = {}
    for path in sorted(p for name in ("out", "pictures") for p in (place / name).rglob("*")):
        name = str(path.relative_to(place))
        if path.suffix == ".json":
            found[name] = timeless(json.loads(path.read_text()))
        elif path.suffix in (".csv", ".html"):
            found[name] = path.stat().st_size > 0
        elif path.is_file():
            found[name] = path.read_bytes()
        else:
            found[name] = None
    found["beside"] = sorted(path.name for path in place.iterdir())
    return found


def killed_at(number: int, lines: str, monkeypatch) -> int:
    """Runs the lines up to file operation `number`; how many there were."""
    count = 0

    def counted(real: Callable, *arguments, **options):
        nonlocal count
        if count >= number:
            raise Killed
        count += 1
        return real(*arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(os, "getpid", lambda: 4242)  # as that of another process
        for name in OPERATIONS:
            patch.setattr(os, name, functools.partial(counted, getattr(os, name)))
        try:
            run(lines)
        except Killed:
            pass
    return count


def check(place: Path, name: str, step: int, monkeypatch) -> None:
    lines, before = COMMANDS[name]

    def begin() -> None:
        for folder in ("out", "pictures"):
            shutil.rmtree(place / folder, ignore_errors=True)
        run(before)

    begin()
    total = killed_at(10**6, lines, monkeypatch)
    expected = results(place)
    assert total >= 5
    for number in range(0, total, step):
        begin()
        # Libraries that draw do not always do the same.
        assert killed_at(number, lines, monkeypatch) in (number, number - 1)
        run(lines)
        assert results(place) == expected, f"killed before operation {number} of {total}"


@pytest.mark.parametrize("name", ["video", "data set"])
def test_a_kill_at_some_points(place, name, monkeypatch) -> None:
    check(place, name, 7, monkeypatch)


@pytest.mark.slow
@pytest.mark.parametrize("name", COMMANDS)
def test_a_kill_at_every_point(place, name, monkeypatch) -> None:
    check(place, name, 1, monkeypatch)
