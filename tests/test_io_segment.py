"""A video through a stream into a result folder: whole, resumed, interrupted, refused."""

import json

import numpy as np
import pytest
from io_helpers import (
    FakeStream,
    moving_frames,
    read_ids,
    square_mask,
    write_folder,
    write_mask_image,
    write_video,
)

from rdejax.errors import RdejaxError
from rdejax.folders import Locked
from rdejax.infer.dataset import BenchmarkFolder, locking, read_given, segment_sequence, totals
from rdejax.infer.results import ResultFolder, describe_difference
from rdejax.infer.shard import WHOLE, Shard, part_of
from rdejax.infer.video import run_stream, segment_to_folder
from rdejax.io import overlay as overlay_module
from rdejax.io.datasets import list_sequences
from rdejax.io.given import load_given_masks
from rdejax.io.video import FolderFrames, open_frames
from rdejax.propagate import schedule
from rdejax.propagate.schedule import frames_per_call

COUNT = 10


@pytest.fixture(params=["folder", "video"])
def source(request, tmp_path):
    frames = moving_frames(COUNT)
    if request.param == "folder":
        return open_frames(write_folder(tmp_path / "frames", frames))
    return open_frames(write_video(tmp_path / "clip.mp4", frames))


@pytest.fixture
def given(source, tmp_path):
    write_mask_image(tmp_path / "given" / "0.png", square_mask(ids=(3,)))
    write_mask_image(tmp_path / "given" / "4.png", square_mask(ids=(0, 200)))
    return load_given_masks(tmp_path / "given", source)


def _folder(tmp_path, source, run="same", **kwargs):
    kwargs.setdefault("version", "1")
    return ResultFolder(tmp_path / "out", {"settings": {"every": run}}, source.names, **kwargs)


def _run(tmp_path, source, given, stream=None, folder=None, **kwargs):
    folder = folder or _folder(tmp_path, source)
    kwargs.setdefault("chunk", 3)
    values = segment_to_folder(lambda: stream or FakeStream(), source, given, folder, **kwargs)
    return folder.finish(values)


def _masks(tmp_path, source):
    return np.stack([read_ids(tmp_path / "out" / "masks" / f"{n}.png") for n in source.names])


def _expected(source, given):
    return FakeStream().push([frame for _, frame in source], given.masks)


def test_whole_run(tmp_path, source, given):
    seen = []
    summary = _run(tmp_path, source, given, on_frames=seen.append)
    assert seen == [1, 4, 7, 10]
    np.testing.assert_array_equal(_masks(tmp_path, source), _expected(source, given))
    assert set(np.unique(_masks(tmp_path, source))) == {0, 3, 200}
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [
        "masks",
        "overlay.mp4",
        "summary.json",
    ]
    assert len(list(open_frames(tmp_path / "out" / "overlay.mp4"))) == COUNT
    written = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert written == summary
    assert summary["frames"] == COUNT
    assert 0 < summary["frames_per_second"]
    assert summary["compile_seconds"] <= summary["seconds"]


@pytest.mark.parametrize("chunk", [1, 4, 100])
def test_any_chunk_gives_the_same_masks(tmp_path, source, given, chunk):
    _run(tmp_path, source, given, chunk=chunk, overlay=False)
    np.testing.assert_array_equal(_masks(tmp_path, source), _expected(source, given))
    assert not (tmp_path / "out" / "overlay.mp4").exists()


def test_same_run_again_is_finished(tmp_path, source, given):
    _run(tmp_path, source, given)
    assert _folder(tmp_path, source).finished["frames"] == COUNT
    # A deleted mask means it is not whole any more.
    (tmp_path / "out" / "masks" / f"{source.names[3]}.png").unlink()
    folder = _folder(tmp_path, source)
    assert folder.finished is None
    _run(tmp_path, source, given, folder=folder)
    np.testing.assert_array_equal(_masks(tmp_path, source), _expected(source, given))


def test_other_settings_need_overwrite(tmp_path, source, given):
    _run(tmp_path, source, given)
    with pytest.raises(RdejaxError, match=r"another run \(every same -> other\).*--overwrite"):
        _folder(tmp_path, source, run="other")
    folder = _folder(tmp_path, source, run="other", overwrite=True)
    # The old result stays whole until the new one is.
    assert (tmp_path / "out" / "summary.json").exists()
    summary = _run(tmp_path, source, given, folder=folder, overlay=False)
    assert summary["run"] == {"settings": {"every": "other"}}
    assert not (tmp_path / "out" / "overlay.mp4").exists()


def test_interrupted_run_is_visibly_unfinished_and_continues(tmp_path, source, given):
    with pytest.raises(KeyboardInterrupt):
        _run(
            tmp_path,
            source,
            given,
            FakeStream(fail_at=8, error=KeyboardInterrupt()),
            checkpoint_seconds=0,
            chunk=2,
        )
    out = tmp_path / "out"
    assert [p.name for p in out.iterdir()] == ["unfinished"]

    folder = _folder(tmp_path, source)
    assert folder.finished is None
    assert folder.progress.frames == 7
    earlier = folder.progress.seconds
    assert earlier > 0
    stream = FakeStream()
    summary = _run(tmp_path, source, given, stream, folder=folder)
    assert sum(stream.pushed) == COUNT - 7
    assert summary["frames"] == COUNT and summary["seconds"] > earlier
    np.testing.assert_array_equal(_masks(tmp_path, source), _expected(source, given))
    assert sorted(p.name for p in out.iterdir()) == ["masks", "overlay.mp4", "summary.json"]
    assert len(list(open_frames(out / "overlay.mp4"))) == COUNT


@pytest.mark.parametrize("change", ["settings", "version", "mask gone", "state gone", "bad state"])
def test_unfinished_run_that_does_not_fit_starts_again(tmp_path, source, given, change):
    with pytest.raises(RuntimeError, match="stop here"):
        _run(tmp_path, source, given, FakeStream(fail_at=8), checkpoint_seconds=0, chunk=2)
    unfinished = tmp_path / "out" / "unfinished"
    state = next(unfinished.glob("stream-*"))
    kwargs = {}
    if change == "settings":
        kwargs = {"run": "other"}
    elif change == "version":
        kwargs = {"version": "2"}
    elif change == "mask gone":
        (unfinished / "masks" / f"{source.names[2]}.png").unlink()
    elif change == "state gone":
        state.unlink()
    else:
        state.write_bytes(b"nonsense")
    folder = _folder(tmp_path, source, **kwargs)
    assert folder.progress.frames == (7 if change == "bad state" else 0)
    summary = _run(tmp_path, source, given, folder=folder)
    assert summary["frames"] == COUNT
    np.testing.assert_array_equal(_masks(tmp_path, source), _expected(source, given))


@pytest.mark.parametrize("stage", [0, 1, 2])
def test_crash_while_results_are_moved_up(tmp_path, source, given, stage, monkeypatch):
    import os

    moved = []
    real = os.replace

    def replace(old, new):
        # Only the moves to the final names, not the atomic writes before them.
        if ".tmp-" not in str(old):
            if len(moved) == stage:
                raise KeyboardInterrupt
            moved.append(new)
        real(old, new)

    _run(tmp_path, source, given, folder=_folder(tmp_path, source, run="older"))
    folder = _folder(tmp_path, source, overwrite=True)
    monkeypatch.setattr(os, "replace", replace)
    with pytest.raises(KeyboardInterrupt):
        _run(tmp_path, source, given, folder=folder)
    assert not (tmp_path / "out" / "summary.json").exists()
    monkeypatch.setattr(os, "replace", real)
    assert _folder(tmp_path, source).finished["frames"] == COUNT
    np.testing.assert_array_equal(_masks(tmp_path, source), _expected(source, given))
    assert (tmp_path / "out" / "overlay.mp4").exists()
    assert not (tmp_path / "out" / "unfinished").exists()


def test_full_disk_while_writing_masks(tmp_path, source, given, monkeypatch):
    from PIL import Image

    real = Image.Image.save
    count = []

    def save(self, path, **kwargs):
        count.append(path)
        if len(count) > 4:
            raise OSError(28, "No space left on device", str(path))
        return real(self, path, **kwargs)

    monkeypatch.setattr(Image.Image, "save", save)
    with pytest.raises(OSError, match="No space left"):
        _run(tmp_path, source, given)
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["unfinished"]
    monkeypatch.setattr(Image.Image, "save", real)
    assert _run(tmp_path, source, given)["frames"] == COUNT


def test_error_while_writing_the_overlay(tmp_path, source, given, monkeypatch):
    def full(self, frame):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(overlay_module.VideoWriter, "write", full)
    with pytest.raises(OSError, match="No space left"):
        _run(tmp_path, source, given)
    assert not (tmp_path / "out" / "summary.json").exists()


def test_unreadable_frame_in_the_middle(tmp_path):
    folder = write_folder(tmp_path / "frames", moving_frames(COUNT))
    (folder / "00006.png").write_bytes(b"broken")
    source = open_frames(folder)
    given = load_given_masks(write_mask_image(tmp_path / "m.png", square_mask()), source)
    with pytest.raises(RdejaxError, match=r"00006\.png: unreadable"):
        _run(tmp_path, source, given)
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["unfinished"]


def test_files_of_others_are_not_touched(tmp_path, source):
    foreign = tmp_path / "out" / "masks" / "mine.png"
    write_mask_image(foreign, square_mask())
    for overwrite in (False, True):
        with pytest.raises(RdejaxError, match="not a finished result"):
            _folder(tmp_path, source, overwrite=overwrite)
    with pytest.raises(RdejaxError, match=r"mine\.png: this input lies where the results go"):
        _folder(tmp_path, source, inputs=[foreign])
    assert foreign.exists()
    (tmp_path / "file").write_text("x")
    with pytest.raises(RdejaxError, match="is a file"):
        ResultFolder(tmp_path / "file", {}, source.names, version="1")
    (tmp_path / "other" / "unfinished").mkdir(parents=True)
    with pytest.raises(RdejaxError, match="no unfinished run"):
        ResultFolder(tmp_path / "other", {}, source.names, version="1")


def test_mask_behind_the_last_frame():
    frames = iter([(f"{i}", frame) for i, frame in enumerate(moving_frames(4))])
    with pytest.raises(RdejaxError, match=r"clip\.mp4: a mask is given for frame 7.*only 4 frames"):
        run_stream(
            FakeStream(),
            frames,
            {0: square_mask(), 7: square_mask()},
            lambda item: None,
            chunk=3,
            where="clip.mp4",
        )


def test_memory_of_a_chunk_is_bounded(monkeypatch):
    sd, uhd, vast = (480, 854), (2160, 3840), (20000, 20000)
    assert frames_per_call(12, 3, sd, sd) == 12
    assert frames_per_call(12, 5, sd, sd) == 10
    assert frames_per_call(12, 20, sd, sd) == 12
    assert frames_per_call(500, 3, uhd, uhd) * 2160 * 3840 * 3 <= schedule._CHUNK_BYTES
    assert frames_per_call(12, 3, vast, vast) == 1
    for cpu, frames in ((True, 3), (False, 27)):
        monkeypatch.setattr(schedule, "_on_cpu", lambda cpu=cpu: cpu)
        # What the networks see counts: large frames that are reduced for them are no reason.
        assert frames_per_call(None, 3, (1080, 1920), sd) == (6 if cpu else 42)
        assert frames_per_call(None, 3, (720, 1280), (720, 1280)) == frames


def test_a_chunk_holds_a_block(monkeypatch):
    """On accelerators, however large the frames are; on CPUs a block is one frame."""
    for cpu, size, expected in (
        (False, (2160, 3840), [3, 5, 7, 8, 8]),
        (True, (480, 854), [6, 5, 6, 6, 6]),
    ):
        monkeypatch.setattr(schedule, "_on_cpu", lambda cpu=cpu: cpu)
        assert [frames_per_call(None, every, size, size) for every in (3, 5, 7, 8, 20)] == expected


def test_describe_difference():
    assert describe_difference({"a": {"b": 1}, "c": 2}, {"a": {"b": 3}, "c": 2}) == "b 1 -> 3"
    assert describe_difference({"a": 1}, {"a": 1}) == ""
    assert describe_difference({"a": 1}, {"b": 2}) == "b None -> 2, a 1 -> None"


# Data sets.


@pytest.fixture
def dataset(tmp_path):
    root = tmp_path / "data"
    for name, count in (("first", 4), ("second", 5)):
        write_folder(root / "JPEGImages" / name, moving_frames(count), suffix=".jpg")
        write_mask_image(root / "Annotations" / name / "00000.png", square_mask(ids=(1,)))
        write_mask_image(root / "Annotations" / name / "00002.png", square_mask(ids=(1, 2)))
    return root


def _benchmark(tmp_path, dataset, kind="folder", run="same", stream=FakeStream, **kwargs):
    folder = BenchmarkFolder(tmp_path / "out", {"settings": {"every": run}}, **kwargs)
    done = []
    shard = kwargs.get("shard", WHOLE)
    sequences = list_sequences(kind, dataset)
    for sequence in part_of(sequences, shard, lambda s: s.name, lambda s: len(s.frames)):
        if not folder.is_whole(sequence.name, [file.stem for file in sequence.frames]):
            source = FolderFrames(sequence.frames[0].parent, sequence.frames)
            given = read_given(sequence, source, max_objects=5)
            segment_sequence(stream(), sequence.name, source, given, folder, chunk=3)
            done.append(sequence.name)
    return done, folder.finish(totals(folder.sequences))


def test_dataset_run_and_again(tmp_path, dataset):
    done, summary = _benchmark(tmp_path, dataset)
    assert done == ["first", "second"]
    assert summary["frames"] == 9 and summary["objects"] == 4
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [
        "first",
        "second",
        "summary.json",
    ]
    assert [p.name for p in sorted((tmp_path / "out" / "first").iterdir())] == [
        f"{i:05d}.png" for i in range(4)
    ]
    assert set(np.unique(read_ids(tmp_path / "out" / "second" / "00004.png"))) == {0, 1, 2}
    assert _benchmark(tmp_path, dataset)[0] == []
    # An incomplete sequence is done again, alone.
    (tmp_path / "out" / "second" / "00003.png").unlink()
    assert _benchmark(tmp_path, dataset)[0] == ["second"]


def test_dataset_interrupted_in_the_second_sequence(tmp_path, dataset):
    streams = iter([FakeStream(), FakeStream(fail_at=3, error=KeyboardInterrupt())])
    with pytest.raises(KeyboardInterrupt):
        _benchmark(tmp_path, dataset, stream=lambda: next(streams))
    out = tmp_path / "out"
    assert sorted(p.name for p in out.iterdir()) == ["first", "progress.json", "unfinished"]
    done, summary = _benchmark(tmp_path, dataset)
    assert done == ["second"]
    assert summary["frames"] == 9
    assert sorted(p.name for p in out.iterdir()) == ["first", "second", "summary.json"]


def test_parts_of_a_dataset_make_the_whole(tmp_path, dataset):
    """Two runs into one folder, the first of them killed and begun again."""
    _, want = _benchmark(tmp_path / "whole", dataset)
    first, second = Shard(1, 2), Shard(2, 2)
    stopping = lambda: FakeStream(fail_at=3, error=KeyboardInterrupt())  # noqa: E731
    with pytest.raises(KeyboardInterrupt):
        _benchmark(tmp_path, dataset, stream=stopping, shard=first)
    out = tmp_path / "out"
    with locking(out, first):  # which is being begun again
        assert _benchmark(tmp_path, dataset, shard=second)[0] == ["first"]
        assert not (out / "summary.json").exists() and (out / "summary-2-of-2.json").exists()
        for shard, message in ((first, "another run"), (WHOLE, "another run")):
            with pytest.raises(Locked, match=message), locking(out, shard):
                pass
    assert _benchmark(tmp_path, dataset, shard=first)[0] == ["second"]
    assert sorted(p.name for p in out.iterdir()) == ["first", "second", "summary.json"]
    summary = json.loads((out / "summary.json").read_text())
    for name in ("frames", "objects", "number_of_sequences", "run"):
        assert summary[name] == want[name]
    for path in sorted((tmp_path / "whole" / "out").glob("*/*.png")):
        assert path.read_bytes() == (out / path.parent.name / path.name).read_bytes()
    assert _benchmark(tmp_path, dataset, shard=second)[0] == []
    with locking(out, second):
        pass
    assert sorted(p.name for p in out.iterdir()) == ["first", "second", "summary.json"]


def test_dataset_with_other_settings(tmp_path, dataset):
    _benchmark(tmp_path, dataset)
    with pytest.raises(RdejaxError, match="every same -> other"):
        _benchmark(tmp_path, dataset, run="other")
    streams = iter([FakeStream(), FakeStream(fail_at=3, error=KeyboardInterrupt())])
    with pytest.raises(KeyboardInterrupt):
        _benchmark(tmp_path, dataset, run="other", stream=lambda: next(streams), overwrite=True)
    # The same command goes on where it was, and does not begin again.
    done, _ = _benchmark(tmp_path, dataset, run="other", overwrite=True)
    assert done == ["second"]


def test_dataset_does_not_replace_what_is_not_its_own(tmp_path, dataset):
    write_mask_image(tmp_path / "out" / "first" / "mine.png", square_mask())
    with pytest.raises(RdejaxError, match=r"first: exists and is not a result of this run"):
        _benchmark(tmp_path, dataset)
    assert (tmp_path / "out" / "first" / "mine.png").exists()


def test_davis_gives_the_first_mask_only(tmp_path, dataset):
    _, summary = _benchmark(tmp_path, dataset, kind="davis2017")
    assert summary["objects"] == 2
    assert set(np.unique(read_ids(tmp_path / "out" / "second" / "00004.png"))) == {0, 1}


def test_davis2016_is_one_object(tmp_path, dataset):
    write_mask_image(dataset / "Annotations" / "first" / "00000.png", square_mask(ids=(3, 9)))
    _benchmark(tmp_path, dataset, kind="davis2016")
    assert set(np.unique(read_ids(tmp_path / "out" / "first" / "00003.png"))) == {0, 1}
