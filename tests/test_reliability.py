"""What lies in an output folder: one run at a time, nothing of others, nothing half written."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from io_helpers import (
    FakeStream,
    fake_api,
    moving_frames,
    read_ids,
    square_mask,
    write_folder,
    write_mask_image,
)

from rdejax.cli import cli_errors, note
from rdejax.errors import RdejaxError
from rdejax.files import atomic, read_json, temporary_name, write_json
from rdejax.folders import check_name, discard, locked, sweep
from rdejax.infer import run
from rdejax.infer.__main__ import main
from rdejax.infer.dataset import BenchmarkFolder
from rdejax.io.masks import is_whole_png, write_mask
from rdejax.report import write_report
from rdejax.signals import ending_on_signals
from rdejax.train.config import TrainConfig
from rdejax.train.loop import train

COUNT = 5


@pytest.fixture
def loaded(monkeypatch):
    return fake_api(monkeypatch)


@pytest.fixture
def clip(tmp_path):
    write_folder(tmp_path / "frames", moving_frames(COUNT))
    write_mask_image(tmp_path / "mask.png", square_mask(ids=(1, 2)))
    return tmp_path


@pytest.fixture
def dataset(tmp_path):
    for name in ("first", "second"):
        write_folder(tmp_path / "data" / "JPEGImages" / name, moving_frames(COUNT))
        annotations = tmp_path / "data" / "Annotations" / name
        write_mask_image(annotations / "00000.png", square_mask(ids=(1, 2)))
    return tmp_path


def video(root, *more, frames="frames", mask="mask.png"):
    main([str(root / frames), "--mask", str(root / mask), "--output", str(root / "out"), *more])


def benchmark(root, *more):
    data = ["--dataset", "folder", "--root", str(root / "data")]
    main([*data, "--output", str(root / "out"), *more])


def refused(capsys, call, *arguments, **options) -> str:
    """Runs a command line that must end with one sentence; returns that."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as caught:
        call(*arguments, **options)
    assert caught.value.code == 2
    text = capsys.readouterr().err.strip()
    assert text.startswith("error: ") and "\n" not in text
    return text


def masks(folder: Path) -> np.ndarray:
    return np.stack([read_ids(folder / f"{i:05d}.png") for i in range(COUNT)])


def expected() -> np.ndarray:
    return FakeStream().push(moving_frames(COUNT), {0: square_mask(ids=(1, 2))})


# One run in a folder.

HOLD = """
import sys
from pathlib import Path
from rdejax.folders import locked
with locked(Path(sys.argv[1])):
    print("locked", flush=True)
    sys.stdin.read()
"""


@pytest.mark.parametrize("call", [video, benchmark])
def test_a_second_run_is_refused_until_the_first_ends_or_dies(clip, dataset, loaded, capsys, call):
    out = clip / "out"
    command = [sys.executable, "-c", HOLD, str(out)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout.readline() == b"locked\n"
        assert "out: another run is writing here" in refused(capsys, call, clip)
        assert list(out.iterdir()) == []
        other.kill()
    call(clip)
    assert (out / "summary.json").exists()


def test_a_second_training_is_refused(tmp_path):
    with locked(tmp_path / "run"), pytest.raises(RdejaxError, match="another --workdir"):
        train(TrainConfig(system="rde-lite"), tmp_path / "run")


# Names that become paths.

BAD_NAMES = (".", "./a", "..", "", "/etc", "a/b", ".hidden", "unfinished", "x.json", "a\0b",
             "masks", "Unfinished", "X.Json", "overlay.mp4")  # fmt: skip


@pytest.mark.parametrize("name", BAD_NAMES)
def test_names_lead_nowhere_else(tmp_path, name):
    with pytest.raises(RdejaxError, match="cannot be the name of a sequence"):
        check_name(name, "list.txt")
    folder = BenchmarkFolder(tmp_path / "out", {})
    with pytest.raises(RdejaxError, match="cannot be the name"):
        folder.is_whole(name, [])
    with pytest.raises(RdejaxError, match="cannot be the name"), folder.writing(name):
        pass


@pytest.mark.parametrize("line", [".", "./a", "..", "../a", "/a", "unfinished", "summary.json"])
def test_a_list_cannot_delete_the_output_folder(dataset, loaded, capsys, line):
    (dataset / "out").mkdir()
    (dataset / "out" / "mine.txt").write_text("x")
    (dataset / "data" / "ImageSets").mkdir()
    (dataset / "data" / "ImageSets" / "val.txt").write_text(f"first\n{line}\n")
    assert "val.txt: " in refused(capsys, benchmark, dataset, "--overwrite")
    assert [path.name for path in (dataset / "out").iterdir()] == ["mine.txt"]


def test_a_summary_cannot_show_what_lies_elsewhere(tmp_path):
    write_mask_image(tmp_path / "secret" / "00000.png", square_mask())
    (tmp_path / "out").mkdir()
    write_json(tmp_path / "out" / "summary.json", {"run": {}, "sequences": {"../secret": {}}})
    with pytest.raises(RdejaxError, match=r"'\.\./secret' cannot be the name"):
        write_report(tmp_path / "out")


# Inputs in the output folder.


@pytest.mark.parametrize("place", ["unfinished", "masks", "unfinished/frames"])
def test_frames_in_the_output_folder_stay(clip, loaded, capsys, place):
    (clip / "out" / place).parent.mkdir(parents=True)
    (clip / "frames").rename(clip / "out" / place)
    text = refused(capsys, video, clip, "--overwrite", frames=f"out/{place}")
    assert "lies where the results go" in text
    assert len(list((clip / "out" / place).iterdir())) == COUNT


@pytest.mark.parametrize("name", ["unfinished/m.png", "unfinished/masks/m.png", "masks/m.png"])
def test_a_mask_in_the_output_folder_stays(clip, loaded, capsys, name):
    (clip / "out" / name).parent.mkdir(parents=True)
    (clip / "mask.png").rename(clip / "out" / name)
    text = refused(capsys, video, clip, "--overwrite", mask=f"out/{name}")
    assert "lies where the results go" in text and (clip / "out" / name).exists()


@pytest.mark.parametrize("name", ["overlay.mp4", "summary.json", "timing.csv", "report.html"])
def test_a_link_into_the_output_folder_is_seen(clip, loaded, capsys, name):
    (clip / "out").mkdir()
    (clip / "mask.png").rename(clip / "out" / name)
    (clip / "mask.png").symlink_to(clip / "out" / name)
    assert "lies where the results go" in refused(capsys, video, clip, "--overwrite")
    assert (clip / "out" / name).exists()


@pytest.mark.parametrize("name", ["timing.csv", "report.html"])
def test_files_of_others_stay(clip, loaded, capsys, name):
    (clip / "out").mkdir()
    (clip / "out" / name).write_text("mine")
    assert "not a finished result" in refused(capsys, video, clip, "--overwrite")
    assert (clip / "out" / name).read_text() == "mine"


@pytest.mark.parametrize("place", ["first", "second", "unfinished", "unfinished/deep"])
@pytest.mark.parametrize("what", ["JPEGImages", "Annotations"])
def test_a_data_set_in_the_output_folder_stays(dataset, loaded, capsys, place, what):
    target = dataset / "out" / place
    target.parent.mkdir(parents=True)
    source = dataset / "data" / what / "first"
    source.rename(target)
    source.symlink_to(target)
    count = len(list(target.iterdir()))
    assert "would replace this input" in refused(capsys, benchmark, dataset, "--overwrite")
    assert len(list(target.iterdir())) == count


# Files cut by a kill or a full disk.


@pytest.mark.parametrize("length", [0, 7, 30, -1, -12])
def test_a_cut_png_is_told_from_a_whole_one(tmp_path, length):
    path = tmp_path / "m.png"
    write_mask(path, square_mask())
    assert is_whole_png(path)
    path.write_bytes(path.read_bytes()[:length])
    assert not is_whole_png(path) and not is_whole_png(tmp_path / "none.png")


@pytest.mark.parametrize("length", [0, 40])
@pytest.mark.parametrize(("call", "folder"), [(video, "masks"), (benchmark, "second")])
def test_a_cut_result_is_made_again(clip, dataset, loaded, call, folder, length):
    call(clip)
    for name in ("00001.png", "00004.png"):
        path = clip / "out" / folder / name
        path.write_bytes(path.read_bytes()[:length])
    call(clip)
    np.testing.assert_array_equal(masks(clip / "out" / folder), expected())


def test_an_emptied_overlay_is_made_again(clip, loaded):
    video(clip)
    (clip / "out" / "overlay.mp4").write_bytes(b"")
    video(clip)
    assert (clip / "out" / "overlay.mp4").stat().st_size > 0


def test_cut_masks_of_an_unfinished_run_do_not_become_a_result(clip, loaded, monkeypatch):
    """Killed after the last frame, before the move; then the disk loses a mask."""
    from rdejax.infer.results import ResultFolder

    with monkeypatch.context() as patch:
        patch.setattr(ResultFolder, "_move_up", lambda self: (_ for _ in ()).throw(SystemError))
        with pytest.raises(SystemError):
            video(clip)
    unfinished = clip / "out" / "unfinished"
    assert (unfinished / "summary.json").exists()
    (unfinished / "masks" / "00003.png").write_bytes(b"")
    video(clip)
    np.testing.assert_array_equal(masks(clip / "out" / "masks"), expected())


@pytest.mark.parametrize("text", ["", "{}", '{"run": 3', '{"progress": []}'])
def test_a_damaged_record_starts_again(clip, loaded, text):
    (clip / "out" / "unfinished" / "masks").mkdir(parents=True)
    (clip / "out" / "unfinished" / "run.json").write_text(text)
    video(clip)
    np.testing.assert_array_equal(masks(clip / "out" / "masks"), expected())


def test_a_state_outside_of_the_folder_is_not_touched(clip, loaded, monkeypatch):
    """The record of an unfinished run may be anybody's."""
    with pytest.raises(RuntimeError, match="stop here"):
        monkeypatch.setattr("rdejax.stream", lambda model, **_: FakeStream(fail_at=3))
        always = partial(run.segment_to_folder, checkpoint_seconds=0)
        monkeypatch.setattr(run, "segment_to_folder", always)
        video(clip, "--chunk", "1")
    file = clip / "out" / "unfinished" / "run.json"
    record = json.loads(file.read_text())
    assert record["progress"]["frames"] == 3
    state = clip / "out" / "unfinished" / record["progress"]["state"]
    mine = clip / "mine.safetensors"
    state.rename(mine)
    record["progress"]["state"] = str(mine)
    file.write_text(json.dumps(record))
    monkeypatch.setattr("rdejax.stream", lambda model, **_: FakeStream())
    video(clip, "--chunk", "1")
    assert mine.exists()
    np.testing.assert_array_equal(masks(clip / "out" / "masks"), expected())


# What kills leave behind.


def test_a_kill_while_the_unfinished_folder_is_made(clip, loaded, monkeypatch):
    """Whatever file is the last that was written, the same command goes on."""
    real = os.replace
    for stop in range(2):
        moved = []

        def replace(old, new, moved=moved, stop=stop):
            if len(moved) == stop:
                raise SystemError
            moved.append(new)
            real(old, new)

        monkeypatch.setattr(os, "replace", replace)
        with pytest.raises(SystemError):
            video(clip)
        assert not (clip / "out" / "unfinished").exists()
    monkeypatch.setattr(os, "replace", real)
    video(clip)
    names = sorted(path.name for path in (clip / "out").iterdir())
    assert names == ["masks", "overlay.mp4", "summary.json"]


def test_what_is_left_over_is_swept(clip, loaded):
    video(clip)
    out = clip / "out"
    (out / ".masks.tmp-77").mkdir()
    (out / ".masks.tmp-77" / "00000.png").touch()
    (out / ".summary.tmp-77.json").touch()
    (out / ".mine.tmp-77.txt").touch()
    # Killed after the summary was in place.
    (out / "unfinished").mkdir()
    run = json.loads((out / "summary.json").read_text())["run"]
    write_json(out / "unfinished" / "run.json", {"run": run, "version": "1", "progress": {}})
    video(clip)
    names = sorted(path.name for path in out.iterdir())
    assert names == [".mine.tmp-77.txt", "masks", "overlay.mp4", "summary.json"]


def test_what_a_killed_data_set_leaves_is_swept(dataset, loaded):
    out = dataset / "out"
    (out / ".first.tmp-77").mkdir(parents=True)
    (out / ".unfinished.tmp-77" / "first").mkdir(parents=True)
    (out / ".mine").mkdir()
    benchmark(dataset)
    names = sorted(path.name for path in out.iterdir())
    assert names == [".mine", "first", "second", "summary.json"]


def test_discard_and_sweep(tmp_path):
    for name in ("folder", "file"):
        discard(tmp_path / name)
    (tmp_path / "folder" / "deep").mkdir(parents=True)
    (tmp_path / "file.txt").touch()
    (tmp_path / "link").symlink_to(tmp_path / "folder")
    discard(tmp_path / "link")
    assert (tmp_path / "folder" / "deep").exists()
    discard(tmp_path / "folder")
    discard(tmp_path / "file.txt")
    (tmp_path / ".a.tmp-1.png").touch()
    (tmp_path / ".hidden").touch()
    sweep(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [".hidden"]


def test_an_older_result_is_never_taken_for_this_runs(dataset, loaded, monkeypatch):
    """Killed between the note that a sequence is whole and its move to its place."""
    benchmark(dataset)
    real = os.replace

    def replace(old, new):
        if Path(new) == dataset / "out" / "first":
            raise SystemError
        real(old, new)

    monkeypatch.setattr(os, "replace", replace)
    with pytest.raises(SystemError):
        benchmark(dataset, "--every", "2", "--overwrite")
    monkeypatch.setattr(os, "replace", real)
    for path in (dataset / "out").glob("*/*.png"):
        assert "unfinished" in str(path) or path.parent.name == "second"
    benchmark(dataset, "--every", "2", "--overwrite")
    np.testing.assert_array_equal(masks(dataset / "out" / "first"), expected())


# A data set that changed.


@pytest.mark.parametrize("what", ["frame", "mask", "number"])
def test_a_changed_data_set_is_noticed(dataset, loaded, capsys, what):
    benchmark(dataset)
    capsys.readouterr()
    benchmark(dataset)
    assert "2 of 2 sequences are whole" in capsys.readouterr().err
    data = dataset / "data"
    if what == "frame":
        (data / "JPEGImages" / "first" / "00002.png").write_bytes(
            (data / "JPEGImages" / "first" / "00001.png").read_bytes() + b" "
        )
    elif what == "mask":
        write_mask_image(data / "Annotations" / "first" / "00000.png", square_mask(ids=(2, 1)))
    else:
        (data / "JPEGImages" / "first" / "00004.png").unlink()
    text = refused(capsys, benchmark, dataset)
    assert "first: is the result of other frames or masks (" in text and "--overwrite" in text
    benchmark(dataset, "--overwrite")
    benchmark(dataset)


# Names of files.


def test_long_names_and_names_that_are_no_text(tmp_path, loaded, capfd):
    name = os.fsdecode(b"caf\xe9")
    frames = tmp_path / name
    write_folder(frames, moving_frames(COUNT), names=[f"{i:0249d}" for i in range(COUNT)])
    write_mask_image(tmp_path / "mask.png", square_mask(ids=(1, 2)))
    main([str(frames), "--mask", str(tmp_path / "mask.png"), "--output", str(frames / "out")])
    summary = read_json(frames / "out" / "summary.json")
    assert summary["run"]["source"]["name"] == name
    assert len(list((frames / "out" / "masks").iterdir())) == COUNT
    assert "caf" in capfd.readouterr().out


def test_data_set_of_names_that_are_no_text(dataset, loaded):
    name = os.fsdecode(b"caf\xe9")
    for kind in ("JPEGImages", "Annotations"):
        (dataset / "data" / kind / "first").rename(dataset / "data" / kind / name)
    benchmark(dataset)
    benchmark(dataset)
    assert set(read_json(dataset / "out" / "summary.json")["sequences"]) == {name, "second"}


def test_atomic_names_are_different_and_short(tmp_path):
    names = {temporary_name(tmp_path / ("x" * 240 + f"{i}.png")).name for i in range(9)}
    assert len(names) == 9 and max(map(len, names)) < 100
    with atomic(tmp_path / ("x" * 251 + ".png")) as temporary:
        temporary.touch()
    assert len(list(tmp_path.iterdir())) == 1


CLOSED = """
import os, sys
from rdejax.cli import cli_errors, note
with cli_errors():
    with open(sys.argv[1], "w") as file:
        file.write("result")
        file.flush()
        os.write(2, b"what a library prints")
        note("told")
"""


def test_closed_streams_do_not_become_a_result(tmp_path):
    file = tmp_path / "file"
    command = f"'{sys.executable}' -c '{CLOSED}' '{file}' 2>&- <&-"
    subprocess.run(command, shell=True, check=True, timeout=60)
    assert file.read_text() == "result"


def test_names_cannot_steer_the_terminal(capsys):
    with pytest.raises(SystemExit), cli_errors():
        note("\x1b[2J caf\xe9")
        raise RdejaxError("\x1b]0;title\x07\r.mp4: bad")
    assert capsys.readouterr().err == (
        "note: \\x1b[2J caf\xe9\nerror: \\x1b]0;title\\x07\\r.mp4: bad\n"
    )


# What is told.


def test_files_that_are_left_out_are_named(clip, dataset, loaded, capsys):
    (clip / "frames" / "00002.tiff").touch()
    (clip / "frames" / ".hidden.tiff").touch()
    video(clip)
    assert "00002.tiff: left out, for the name does not end in .jpg" in capsys.readouterr().err
    for name in ("a.npy", "b.npy"):
        (dataset / "data" / "Annotations" / "first" / name).touch()
    shutil.rmtree(clip / "out")
    benchmark(dataset)
    assert "a.npy: left out, with 1 more, for" in capsys.readouterr().err


@pytest.mark.parametrize(
    "empty", [["--output", ""], ["--output="], ["--output", "o", "--mask", ""]]
)
def test_empty_values_are_refused(clip, loaded, capsys, empty):
    text = refused(capsys, main, [str(clip / "frames"), *empty])
    assert "its value is empty" in text


def test_a_state_that_cannot_be_read_is_told(clip, loaded, capsys, monkeypatch):
    always = partial(run.segment_to_folder, checkpoint_seconds=0)
    monkeypatch.setattr(run, "segment_to_folder", always)
    with monkeypatch.context() as patch, pytest.raises(RuntimeError, match="stop here"):
        patch.setattr("rdejax.stream", lambda model, **_: FakeStream(fail_at=3))
        video(clip, "--chunk", "1")
    next((clip / "out" / "unfinished").glob("stream-*")).write_bytes(b"nonsense")
    capsys.readouterr()
    video(clip, "--chunk", "1")
    told = capsys.readouterr().err
    assert "starting again" in told and "continuing" not in told
    np.testing.assert_array_equal(masks(clip / "out" / "masks"), expected())


def test_links_in_a_circle_are_no_traceback(clip, loaded, capsys):
    (clip / "loop.png").symlink_to(clip / "loop.png")
    with pytest.raises(SystemExit):
        video(clip, mask="loop.png")
    assert "loop.png" in capsys.readouterr().err


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_errors_that_native_code_makes_of_a_signal_are_told_as_the_signal(capsys, number, code):
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(SystemExit) as caught, ending_on_signals("go on"):
            try:
                os.kill(os.getpid(), number)
                time.sleep(10)
            except BaseException:
                raise ValueError("while comparing metadata") from None
    finally:
        signal.signal(signal.SIGINT, before)
    assert caught.value.code == code
    assert capsys.readouterr().err in ("terminated: go on\n", "interrupted: go on\n")
