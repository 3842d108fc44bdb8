"""The command line: arguments, messages, exit codes, signals."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from io_helpers import (
    FakeStream,
    fake_api,
    moving_frames,
    read_ids,
    square_mask,
    tiny_weights,
    write_folder,
    write_mask_image,
    write_video,
)

from rdejax.infer.__main__ import main
from rdejax.infer.results import ResultFolder
from rdejax.infer.video import segment_to_folder
from rdejax.io.given import load_given_masks
from rdejax.io.video import open_frames

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def loaded(monkeypatch):
    return fake_api(monkeypatch)


@pytest.fixture
def clip(tmp_path):
    write_video(tmp_path / "clip.mp4", moving_frames(8))
    write_mask_image(tmp_path / "mask.png", square_mask(ids=(3, 44)))
    return tmp_path


def _arguments(clip, *more, video="clip.mp4", mask="mask.png"):
    return [
        str(clip / video),
        "--mask",
        str(clip / mask),
        "--output",
        str(clip / "out"),
        *map(str, more),
    ]


def _fails(capsys, arguments, code=2):
    """Runs the command line, which must fail with one line; returns that line."""
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == code
    message = capsys.readouterr().err.strip()
    assert "\n" not in message and "Traceback" not in message
    return message


def test_video_from_file_to_results(clip, loaded, capsys):
    main(_arguments(clip, "--chunk", 3))
    out = clip / "out"
    summary = json.loads((out / "summary.json").read_text())
    assert summary["frames"] == 8 and summary["objects"] == [3, 44]
    assert summary["frames_per_second"] > 0 and summary["fps"] == 25
    assert summary["settings"]["size"] == 480
    assert (summary["height"], summary["width"]) == (36, 52)
    source = open_frames(clip / "clip.mp4")
    expected = FakeStream().push([f for _, f in source], {0: square_mask(ids=(3, 44))})
    got = np.stack([read_ids(out / "masks" / f"{i:05d}.png") for i in range(8)])
    np.testing.assert_array_equal(got, expected)
    assert len(list(open_frames(out / "overlay.mp4"))) == 8
    assert "8 frames, 2 objects" in capsys.readouterr().out

    changed = (out / "summary.json").stat().st_mtime_ns
    main(_arguments(clip, "--chunk", 5))
    assert "whole already" in capsys.readouterr().out
    assert (out / "summary.json").stat().st_mtime_ns == changed


def test_frames_folder_with_later_masks(tmp_path, loaded, capsys):
    write_folder(tmp_path / "frames", moving_frames(6), suffix=".jpg")
    write_mask_image(tmp_path / "masks" / "1.png", square_mask(ids=(2,)))
    write_mask_image(tmp_path / "masks" / "00003.png", square_mask(ids=(2, 9)))
    main(_arguments(tmp_path, "--no-overlay", "--quiet", video="frames", mask="masks"))
    out = tmp_path / "out"
    assert not read_ids(out / "masks" / "00000.png").any()
    assert set(np.unique(read_ids(out / "masks" / "00005.png"))) == {0, 2, 9}
    summary = json.loads((out / "summary.json").read_text())
    assert summary["first_frames"] == {"2": "00001", "9": "00003"}
    assert not (out / "overlay.mp4").exists()
    captured = capsys.readouterr()
    assert captured.out == captured.err == ""


@pytest.mark.parametrize("size", [(9, 13), (1, 1), (15, 300)])
def test_odd_sizes_below_16_pixels(tmp_path, loaded, size):
    write_folder(tmp_path / "frames", moving_frames(4, size))
    write_mask_image(tmp_path / "m.png", square_mask(size))
    main(_arguments(tmp_path, video="frames", mask="m.png"))
    assert read_ids(tmp_path / "out" / "masks" / "00003.png").shape == size
    assert (tmp_path / "out" / "overlay.mp4").exists()


def test_settings_reach_the_model(clip, loaded):
    options = ["--every", 4, "--top-k", "all", "--size", "full", "--strategy", "L"]
    main(_arguments(clip, *options, "--quiet", "--no-overlay"))
    settings = loaded[-1].settings
    assert settings.every == 4 and settings.size is None
    assert dict(settings.memory_settings) == {"strategy": "L", "top_k": None}
    main(_arguments(clip, "--set", "pad=32", "--top-k", 7, "--quiet", "--overwrite"))
    assert loaded[-1].settings.pad == 32
    assert dict(loaded[-1].settings.memory_settings)["top_k"] == 7


def test_another_result_is_kept_unless_told(clip, loaded, capsys):
    main(_arguments(clip, "--quiet"))
    message = _fails(capsys, _arguments(clip, "--every", 2))
    assert "every 5 -> 2" in message and "--overwrite" in message
    main(_arguments(clip, "--every", 2, "--overwrite", "--quiet"))
    summary = json.loads((clip / "out" / "summary.json").read_text())
    assert summary["settings"]["every"] == 2
    # A changed mask is another run too.
    write_mask_image(clip / "mask.png", square_mask(ids=(5,)))
    assert "masks" in _fails(capsys, _arguments(clip, "--every", 2))


def _bad_input(clip, case):
    """Makes one thing wrong; returns arguments and what the message must contain."""
    frames = clip / "frames"
    if case == "missing video":
        return _arguments(clip, video="none.mp4"), "none.mp4: no such file"
    if case == "truncated video":
        noise = np.random.default_rng(0).integers(0, 255, (30, 48, 64, 3), np.uint8)
        path = write_video(clip / "cut.mp4", noise, options={"movflags": "faststart"})
        path.write_bytes(path.read_bytes()[:-9000])
        return _arguments(clip, video="cut.mp4"), "cut.mp4: the video is truncated"
    if case == "no video":
        (clip / "text.mp4").write_text("text")
        return _arguments(clip, video="text.mp4"), "text.mp4: not a readable video"
    if case == "changing sizes":
        write_folder(frames, moving_frames(2))
        write_folder(frames, moving_frames(1, (20, 20)), names=["00002"])
        return _arguments(clip, video="frames"), "00002.png: the frame is 20x20"
    if case == "unreadable frame":
        write_folder(frames, moving_frames(2))
        (frames / "00002.png").write_text("text")
        return _arguments(clip, video="frames"), "00002.png: unreadable"
    if case == "missing mask":
        return _arguments(clip, mask="none.png"), "none.png: no such mask"
    if case == "unreadable mask":
        (clip / "text.png").write_text("text")
        return _arguments(clip, mask="text.png"), "text.png: unreadable"
    if case == "empty mask":
        write_mask_image(clip / "e.png", square_mask(ids=(0,)))
        return _arguments(clip, mask="e.png"), "e.png: the mask holds no object"
    if case == "other size":
        write_mask_image(clip / "s.png", square_mask((20, 20)))
        return _arguments(clip, mask="s.png"), "s.png: the mask is 20x20 but the video is 52x36"
    if case == "too many objects":
        return _arguments(clip, "--max-objects", 1), "mask.png: the mask holds 2"
    if case == "no frame of the mask":
        write_mask_image(clip / "masks" / "99.png", square_mask())
        return _arguments(clip, mask="masks"), "99.png: no frame of this name"
    if case == "no checkpoint":
        return _arguments(clip, "--checkpoint", "missing"), "missing: no such checkpoint"
    if case == "unknown setting":
        return _arguments(clip, "--set", "theta=3"), "'theta' is unknown"
    if case == "setting twice":
        return _arguments(clip, "--every", 3, "--set", "every=4"), "given twice"
    if case == "output is a file":
        (clip / "out").write_text("x")
        return _arguments(clip), "out: is a file"
    if case == "mask would be overwritten":
        write_mask_image(clip / "out" / "masks" / "00000.png", square_mask())
        return _arguments(clip, mask="out/masks"), "choose another --output"
    raise AssertionError(case)


@pytest.mark.parametrize(
    "case",
    [
        "missing video",
        "truncated video",
        "no video",
        "changing sizes",
        "unreadable frame",
        "missing mask",
        "unreadable mask",
        "empty mask",
        "other size",
        "too many objects",
        "no frame of the mask",
        "no checkpoint",
        "unknown setting",
        "setting twice",
        "output is a file",
        "mask would be overwritten",
    ],
)
def test_bad_input_gives_one_sentence_and_no_result(clip, loaded, capsys, case):
    arguments, expected = _bad_input(clip, case)
    message = _fails(capsys, [*arguments, "--no-overlay"])
    assert message.startswith("error: ") and expected in message
    assert not (clip / "out" / "summary.json").exists()


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--output", "o"], "give a video"),
        (["v.mp4", "--output", "o"], "--mask is missing"),
        (["v.mp4", "--mask", "m", "--output", "o", "--root", "r"], "--root belongs to"),
        (["--dataset", "davis2016", "--output", "o"], "--root is missing"),
        (["--dataset", "davis2016", "--output", "o", "--shard", "3"], "--shard 3"),
        (["--dataset", "davis2016", "--output", "o", "--shard", "3/2"], "--shard 3/2"),
        (["v", "--dataset", "folder", "--root", "r", "--output", "o"], "leave VIDEO"),
        (["--dataset", "folder", "--root", "nowhere", "--output", "o"], "nowhere: no such folder"),
    ],
)
def test_contradicting_arguments(loaded, capsys, tmp_path, monkeypatch, arguments, expected):
    monkeypatch.chdir(tmp_path)
    assert expected in _fails(capsys, arguments)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "options",
    [
        ["--every", "0"],
        ["--top-k", "few"],
        ["--fps", "fast"],
        ["--fps", "nan"],
        ["--size", "-3"],
        ["--chunk", "two"],
        ["--max-objects", "-1"],
        ["--dataset", "davis"],
        ["--set", "x"],
    ],
)
def test_wrong_values(clip, loaded, capsys, options):
    message = _fails(capsys, _arguments(clip, *options))
    assert message.startswith("error: ") and options[1] in message
    assert not (clip / "out").exists()


def test_settings_of_the_rule_are_options(clip, loaded):
    main(_arguments(clip, "--memory", "swem", "--tau", "0.1", "--bases=64", "--pad", 32))
    settings = loaded[-1].settings
    assert settings.memory == "swem" and settings.pad == 32
    assert dict(settings.memory_settings) == {"bases": 64, "tau": 0.1}
    # Before the video, too: its name is not the setting's value.
    main(["--top-k", "9", *_arguments(clip, "--overwrite")])
    assert dict(loaded[-1].settings.memory_settings)["top_k"] == 9


def test_an_unknown_option_is_answered_with_what_there_is(clip, loaded, capsys):
    message = _fails(capsys, _arguments(clip, "--bogus", 3))
    assert "'bogus' is unknown; with memory 'rde' use" in message and "strategy" in message
    assert "--bogus: " in _fails(capsys, _arguments(clip, "--bogus", "--quiet"))
    assert "given twice" in _fails(capsys, _arguments(clip, "--top-k", 3, "--top-k=4"))
    message = _fails(capsys, ["--overwite", "v.mp4", "--mask", "m", "--output", "o"])
    assert "v.mp4 is taken as the value of --overwite" in message
    message = _fails(capsys, ["v.mp4", "w.mp4", "--mask", "m", "--output", "o"])
    assert "w.mp4" in message


def test_out_of_memory_is_a_sentence(clip, loaded, capsys, monkeypatch):
    import rdejax

    def stream(model, **_):
        return FakeStream(fail_at=3, error=RuntimeError("RESOURCE_EXHAUSTED: 9 GB\nmore"))

    monkeypatch.setattr(rdejax, "stream", stream)
    message = _fails(capsys, _arguments(clip), code=1)
    assert "too little memory (RESOURCE_EXHAUSTED: 9 GB)" in message and "--size" in message


def test_defects_keep_their_traceback(clip, loaded, monkeypatch):
    import rdejax

    monkeypatch.setattr(rdejax, "stream", lambda model, **_: FakeStream(fail_at=3))
    with pytest.raises(RuntimeError, match="stop here"):
        main(_arguments(clip))


@pytest.fixture
def davis(tmp_path):
    root = tmp_path / "davis"
    for name in ("goat", "libby"):
        write_folder(root / "JPEGImages" / "480p" / name, moving_frames(4), suffix=".jpg")
        for frame in range(4):
            path = root / "Annotations" / "480p" / name / f"{frame:05d}.png"
            write_mask_image(path, square_mask(ids=(255,)), mode="L")
    (root / "ImageSets" / "2016").mkdir(parents=True)
    lines = [
        f"/JPEGImages/480p/libby/{i:05d}.jpg /Annotations/480p/libby/{i:05d}.png" for i in range(4)
    ]
    (root / "ImageSets" / "2016" / "val.txt").write_text("\n".join(lines))
    (root / "ImageSets" / "2016" / "train.txt").write_text("goat\n")
    return root


def test_dataset(davis, tmp_path, loaded, capsys):
    out = tmp_path / "out"
    command = ["--dataset", "davis2016", "--root", str(davis), "--output", str(out)]
    main(command)
    assert [p.name for p in sorted((out / "libby").iterdir())] == [f"{i:05d}.png" for i in range(4)]
    assert set(np.unique(read_ids(out / "libby" / "00003.png"))) == {0, 1}
    assert not (out / "goat").exists()
    main([*command, "--split", "train"])
    assert (out / "goat" / "00003.png").exists()
    summary = json.loads((out / "summary.json").read_text())
    assert sorted(summary["sequences"]) == ["goat", "libby"]
    assert summary["frames"] == 8 and summary["objects"] == 2


def test_parts_of_a_dataset(davis, tmp_path, loaded, capsys):
    root = davis / "ImageSets" / "2016" / "val.txt"
    lines = root.read_text()
    root.write_text(lines + "\n" + lines.replace("libby", "goat"))
    out = tmp_path / "out"
    command = ["--dataset", "davis2016", "--root", str(davis), "--output", str(out), "--shard"]
    main([*command, "1/2"])
    assert not (out / "summary.json").exists()
    assert len([p for p in out.iterdir() if p.name in ("goat", "libby")]) == 1
    main([*command, "2/2"])
    assert sorted(json.loads((out / "summary.json").read_text())["sequences"]) == ["goat", "libby"]


def test_dataset_is_never_overwritten_by_its_results(davis, loaded, capsys):
    out = davis / "Annotations" / "480p"
    command = ["--dataset", "davis2016", "--root", str(davis), "--output", str(out)]
    assert "would replace this input" in _fails(capsys, [*command, "--overwrite"])
    assert len(list((out / "libby").iterdir())) == 4


@pytest.mark.parametrize(
    ("checkpoint", "dataset", "options", "every", "top_k"),
    [
        ("rde", "davis2016", [], 3, 40),
        ("rde", "youtube-vos", [], 4, 20),
        ("rde", "youtube-vos", ["--every", "2"], 2, 20),
        ("rde", "folder", [], 5, 30),
        ("rde-own", "youtube-vos", [], 2, 20),
        ("lite", "davis2016", [], 5, 30),
    ],
)
def test_published_settings(davis, tmp_path, loaded, checkpoint, dataset, options, every, top_k):
    root = davis
    if dataset == "youtube-vos":
        (tmp_path / "yt" / "val").mkdir(parents=True)
        for name in ("JPEGImages", "Annotations"):
            (davis / name / "480p").rename(tmp_path / "yt" / "val" / name)
        root = tmp_path / "yt"
    command = ["--dataset", dataset, "--root", str(root), "--output", str(tmp_path / "out")]
    main([*command, "--checkpoint", checkpoint, "--quiet", *options])
    assert loaded[-1].settings.every == every
    assert dict(loaded[-1].settings.memory_settings)["top_k"] == top_k


def test_presets(clip, loaded, capsys):
    """They win over what weights carry, and options over them; there are those of the model."""
    for checkpoint, options, every, top_k in (
        ("rde", [], 4, 20),
        ("rde-own", [], 4, 20),
        ("rde", ["--every", "7"], 7, 20),
    ):
        main(
            _arguments(
                clip, "--checkpoint", checkpoint, "--preset", "youtube-vos", "--overwrite", *options
            )
        )
        settings = loaded[-1].settings
        assert (settings.every, dict(settings.memory_settings)["top_k"]) == (every, top_k)
    said = _fails(
        capsys, _arguments(clip, "--checkpoint", "rde", "--preset", "long", "--overwrite")
    )
    assert "'rde' has no preset of that name; of its authors are: davis2016" in said


def test_real_model_end_to_end(clip, capsys):
    """The command line gives what the Python interface gives, also continued from a saved state."""
    import rdejax

    weights = tiny_weights(clip / "tiny.safetensors")
    main(_arguments(clip, "--checkpoint", weights, "--chunk", 3))
    model = rdejax.load_model(weights)
    frames = np.stack([frame for _, frame in open_frames(clip / "clip.mp4")])
    expected = rdejax.segment_video(model, frames, square_mask(ids=(3, 44)))
    folder = clip / "out" / "masks"
    got = np.stack([read_ids(folder / f"{i:05d}.png") for i in range(8)])
    np.testing.assert_array_equal(got, expected)
    assert set(np.unique(got[0])) == {0, 3, 44}
    summary = json.loads((clip / "out" / "summary.json").read_text())
    assert summary["model"] == "rde-lite" and summary["parameters"] > 100_000
    assert 0 < summary["compile_seconds"] < summary["seconds"]
    assert summary["settings"] == model.settings.as_dict()


def test_real_stream_continues_from_its_saved_state(clip):
    import rdejax

    model = rdejax.load_model(tiny_weights(clip / "tiny.safetensors"))
    source = open_frames(clip / "clip.mp4")
    given = load_given_masks(clip / "mask.png", source)

    def stopping():
        stream = rdejax.stream(model)
        submit, left = stream.submit, [3]

        def submit_thrice(frames, masks=None, beside=None, *, last=False):
            if not left[0]:
                raise KeyboardInterrupt
            left[0] -= 1
            return submit(frames, masks, beside, last=last)

        stream.submit = submit_thrice
        return stream

    def run(make_stream):
        folder = ResultFolder(clip / "out", {}, source.names, version="1")
        options = {"chunk": 3, "overlay": False, "checkpoint_seconds": 0}
        before = folder.progress.frames
        folder.finish(segment_to_folder(make_stream, source, given, folder, **options))
        return before

    with pytest.raises(KeyboardInterrupt):
        run(stopping)
    assert run(lambda: rdejax.stream(model)) == 7
    got = np.stack([read_ids(clip / "out" / "masks" / f"{i:05d}.png") for i in range(8)])
    frames = np.stack([frame for _, frame in source])
    np.testing.assert_array_equal(got, rdejax.segment_video(model, frames, given.masks))


@pytest.mark.parametrize(
    ("poison", "expected"),
    [
        ("nan", "holds NaN or infinity"),
        ("missing", "missing"),
        ("shape", "has shape"),
        ("truncated", "not a readable safetensors file"),
    ],
)
def test_broken_checkpoint_is_refused_by_name(clip, capsys, poison, expected):
    def spoil(arrays):
        name = next(name for name in arrays if name.endswith("kernel"))
        if poison == "nan":
            arrays[name][0] = np.nan
        elif poison == "missing":
            del arrays[name]
        elif poison == "shape":
            arrays[name] = arrays[name][..., :1]

    path = tiny_weights(clip / "bad.safetensors", poison=spoil)
    if poison == "truncated":
        path.write_bytes(path.read_bytes()[:-1000])
    message = _fails(capsys, _arguments(clip, "--checkpoint", path))
    assert "bad.safetensors" in message and expected in message
    assert not (clip / "out").exists()


def test_help_is_fast_and_needs_no_jax():
    begun = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "infer.py", "--help"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0 and "--mask" in done.stdout
    imported = {line.split("|")[-1].strip() for line in done.stderr.splitlines()}
    assert not imported & {"jax", "flax", "cv2", "av", "numpy"}
    assert time.perf_counter() - begun < 30


_DRIVER = """
import sys
sys.path[:0] = [{tests!r}, {root!r}]
from io_helpers import fake_api
fake_api(delay={delay})
from rdejax.infer import video as segment
segment._CHECKPOINT_SECONDS = 0
segment.segment_to_folder.__kwdefaults__["checkpoint_seconds"] = 0
import signal
# A shell that runs the tests in the background hands down an ignored SIGINT.
signal.signal(signal.SIGINT, signal.default_int_handler)
from rdejax.infer.__main__ import main
{prepare}
main(sys.argv[1:])
"""


def _start(arguments, delay=0.1, prepare=""):
    code = _DRIVER.format(tests=str(ROOT / "tests"), root=str(ROOT), delay=delay, prepare=prepare)
    return subprocess.Popen(
        [sys.executable, "-c", code, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize(
    ("number", "code", "word"),
    [(signal.SIGTERM, 143, "terminated"), (signal.SIGINT, 130, "interrupted")],
)
def test_signals_end_cleanly_and_the_run_goes_on(clip, capsys, number, code, word):
    write_video(clip / "long.mp4", moving_frames(60))
    arguments = _arguments(clip, "--chunk", 2, video="long.mp4")
    process = _start(arguments)
    record = clip / "out" / "unfinished" / "run.json"
    limit = time.monotonic() + 120
    while time.monotonic() < limit and process.poll() is None:
        if record.exists() and json.loads(record.read_text())["progress"]["frames"] >= 4:
            break
        time.sleep(0.02)
    process.send_signal(number)
    _, error = process.communicate(timeout=120)
    assert process.returncode == code
    assert error.strip() == f"{word}: run the same command again to continue"
    assert [p.name for p in (clip / "out").iterdir()] == ["unfinished"]

    process = _start(arguments, delay=0)
    output, error = process.communicate(timeout=120)
    assert process.returncode == 0 and "continuing after" in error
    source = open_frames(clip / "long.mp4")
    expected = FakeStream().push([f for _, f in source], {0: square_mask(ids=(3, 44))})
    got = np.stack([read_ids(clip / "out" / "masks" / f"{i:05d}.png") for i in range(60)])
    np.testing.assert_array_equal(got, expected)


def test_signal_during_a_long_native_call(clip):
    """A compilation holds the main thread; the process must end all the same."""
    prepare = """
import hashlib, rdejax.signals
rdejax.signals._GRACE_SECONDS = 0.5
def push(self, frames, masks=None):
    print("pushing", flush=True)
    hashlib.pbkdf2_hmac("sha256", b"x", b"y", 10**9)
import io_helpers
io_helpers.FakeStream.push = push
"""
    process = _start(_arguments(clip, "--no-overlay"), prepare=prepare)
    assert process.stdout.readline().strip() == "pushing"
    begun = time.monotonic()
    process.terminate()
    _, error = process.communicate(timeout=120)
    assert time.monotonic() - begun < 30
    assert process.returncode == 143
    assert error.strip() == "terminated: run the same command again to continue"


@pytest.mark.skipif(os.name != "posix", reason="needs file size limits")
def test_disk_that_takes_no_more(clip):
    # A limit on the size of files stands for a full disk: writing fails half-way in both.
    write_video(
        clip / "noisy.mp4", np.random.default_rng(0).integers(0, 255, (20, 64, 96, 3), "u1")
    )
    write_mask_image(clip / "m.png", square_mask((64, 96)))
    process = _start(
        _arguments(clip, video="noisy.mp4", mask="m.png"),
        delay=0,
        prepare="import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))",
    )
    _, error = process.communicate(timeout=120)
    assert process.returncode == 1
    assert "free some space" in error and "Traceback" not in error
    assert not (clip / "out" / "summary.json").exists()
    assert not (clip / "out" / "overlay.mp4").exists()
