"""What no command replaces: its inputs, results of another kind, and files of others."""

import json
import os
import signal
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from io_helpers import (
    fake_api,
    moving_frames,
    square_mask,
    write_folder,
    write_mask_image,
)

from rdejax.__main__ import main
from rdejax.cli import cli_errors
from rdejax.convert.__main__ import _not_trained
from rdejax.errors import RdejaxError
from rdejax.export.__main__ import _appearing
from rdejax.files import temporary_name, write_arrays
from rdejax.folders import locked
from rdejax.train.config import TrainConfig
from rdejax.train.workdir import as_json, begin

COUNT = 3


@pytest.fixture
def clip(tmp_path, monkeypatch):
    """A video, its mask, and a data set with the same sequence twice."""
    fake_api(monkeypatch)
    write_folder(tmp_path / "frames", moving_frames(COUNT))
    write_mask_image(tmp_path / "mask.png", square_mask(ids=(1, 2)))
    for name in ("first", "second"):
        write_folder(tmp_path / "data" / "JPEGImages" / name, moving_frames(COUNT))
        annotations = tmp_path / "data" / "Annotations" / name
        write_mask_image(annotations / "00000.png", square_mask(ids=(1, 2)))
    monkeypatch.chdir(tmp_path)
    return tmp_path


VIDEO = "infer frames --mask mask.png --no-overlay --output out"
DATASET = "infer --dataset folder --root data --output out"


def run(line: str) -> None:
    main([*line.split(), *(["--quiet", "--no-compilation-cache"] if "infer" in line else [])])


def refused(capsys, line: str) -> str:
    """Runs a command line that must end with one sentence; returns that."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as caught:
        run(line)
    text = capsys.readouterr().err.strip()
    assert caught.value.code == 2 and text.startswith("error: ") and "\n" not in text
    return text


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.mark.parametrize("more", ["", " --overwrite"])
@pytest.mark.parametrize(("first", "then"), [(VIDEO, DATASET), (DATASET, VIDEO)])
def test_results_of_another_kind_stay(clip, capsys, first, then, more):
    """Masks of one video beside sequences of a data set would be exported as all there is."""
    run(first)
    before = contents(clip / "out")
    kind = "a data set" if first == DATASET else "a single video"
    assert f"of {kind}" in refused(capsys, then + more)
    assert contents(clip / "out") == before


def test_an_unfinished_run_of_a_video_stays(clip, capsys):
    run(VIDEO)
    (clip / "out" / "summary.json").unlink()
    (clip / "out" / "unfinished").mkdir()
    (clip / "out" / "masks").rename(clip / "out" / "unfinished" / "masks")
    (clip / "out" / "unfinished" / "run.json").write_text("{}")
    before = contents(clip / "out")
    assert "an unfinished run of one" in refused(capsys, f"{DATASET} --overwrite")
    assert contents(clip / "out") == before


def test_a_result_exported_into_itself_stays(clip, capsys):
    pytest.importorskip("pycocotools")
    run(VIDEO)
    before = contents(clip / "out")
    for place in ("out/summary.json", "out/masks/00001.png"):
        text = refused(capsys, f"export out --format coco --output {place} --overwrite")
        assert f"{place}: would replace {place}" in text
    assert contents(clip / "out") == before


@pytest.mark.parametrize("name", ["notes.txt", "1/notes.txt", "deep/picture.png", "summary.json"])
def test_an_export_replaces_exports_alone(clip, capsys, name):
    run(VIDEO)
    line = "export out --format png --output pictures --overwrite"
    run(line)
    run(line)
    mine = clip / "pictures" / name
    mine.parent.mkdir(exist_ok=True)
    mine.write_text("mine")
    before = contents(clip / "pictures")
    assert f"pictures/{name}: no file of an export" in refused(capsys, line)
    assert contents(clip / "pictures") == before


def test_what_a_killed_export_leaves_is_swept(clip):
    run(VIDEO)
    old = clip / ".pictures-new.tmp-77"
    other = clip / ".pictures-new.tmp-78"
    for folder in (old, other):
        folder.mkdir()
        (folder / "1.png").touch()
    with locked(other):  # of a run that goes on
        run("export out --format png --output pictures")
    assert not old.exists() and other.exists()
    with pytest.raises(RuntimeError), _appearing(clip / "another"):
        raise RuntimeError
    assert not temporary_name(clip / "another-new").exists() and not (clip / "another").exists()


@pytest.mark.parametrize("place", ["frames/00001.png", "out/masks/00001.png"])
def test_a_picture_never_replaces_what_it_shows(clip, capsys, place):
    run(VIDEO)
    before = contents(clip)
    for name in ("overlay", "sheet"):
        line = f"visualize {name} frames --masks out --output {place}"
        assert f"would replace {place}" in refused(capsys, line)
    line = f"visualize pca frames --mask out/masks/00001.png --output {place}"
    assert f"would replace {place}" in refused(capsys, line)
    line = f"visualize times {place} --output {place}"
    assert f"would replace {place}" in refused(capsys, line)
    assert contents(clip) == before


def test_findings_never_replace_the_data(clip, capsys):
    (clip / "data" / "meta.json").write_text("{}")
    assert "meta.json: lies in the data" in refused(capsys, "data data --json data/meta.json")
    assert (clip / "data" / "meta.json").read_text() == "{}"
    with pytest.raises(SystemExit, match="1"):  # too few masks for training
        run("data data --json data/new.json")
    assert isinstance(json.loads((clip / "data" / "new.json").read_text()), list)


def test_a_conversion_never_replaces_trained_weights(tmp_path):
    trained = tmp_path / "weights.safetensors"
    write_arrays(trained, {"x": np.zeros(1)}, {"extra": json.dumps({"step": 3})})
    with pytest.raises(RdejaxError, match=r"weights\.safetensors: exists and is not what"):
        _not_trained(trained)
    (tmp_path / "other.safetensors").write_text("mine")
    with pytest.raises(RdejaxError, match="exists and is not what"):
        _not_trained(tmp_path / "other.safetensors")
    extra = json.dumps({"converted_from": "x.pth"})
    write_arrays(tmp_path / "c.safetensors", {"x": np.zeros(1)}, {"extra": extra})
    for name in ("c.safetensors", "new.safetensors"):
        assert _not_trained(tmp_path / name) == tmp_path / name


FRESH: Any = SimpleNamespace(latest=None)
RUN_FILES = ("config.json", "environment.json", "log.jsonl", "latest.safetensors")


@pytest.mark.parametrize("name", [*RUN_FILES, "weights.safetensors"])
@pytest.mark.parametrize("resume", [False, True])
def test_a_training_never_replaces_files_of_others(tmp_path, name, resume):
    config = TrainConfig(system="rde-lite")
    (tmp_path / name).write_text('{"name": "mine"}')
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(RdejaxError, match=rf"{name}: would be replaced.*another --workdir"):
        begin(tmp_path, config, FRESH, resume=resume)
    (tmp_path / name).unlink()
    # What is left of a run that was killed before its first checkpoint.
    for each in RUN_FILES:
        (tmp_path / each).write_text(json.dumps(as_json(config)))
    assert begin(tmp_path, config, FRESH, resume=resume)[0] == 0


def test_sigterm_is_a_sentence_and_removes_what_is_half_written(tmp_path, capsys):
    before = signal.signal(signal.SIGTERM, signal.SIG_DFL)
    try:
        with pytest.raises(SystemExit) as caught, cli_errors(again="go on"):
            with _appearing(tmp_path / "folder") as folder:
                (folder / "x").touch()
                os.kill(os.getpid(), signal.SIGTERM)
                time.sleep(10)
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    finally:
        signal.signal(signal.SIGTERM, before)
    assert caught.value.code == 143 and capsys.readouterr().err == "terminated: go on\n"
    assert list(tmp_path.iterdir()) == []
