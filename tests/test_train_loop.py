"""The training loop around a step: checkpoints, guards, logs, validation, starting weights."""

import dataclasses
import json
import os
import signal
import struct
import subprocess
import sys
import time
from pathlib import Path

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

import rdejax
import rdejax.train.loop as loop
from rdejax.data.batch import Clip
from rdejax.data.config import ClipConfig
from rdejax.errors import RdejaxError
from rdejax.models import create
from rdejax.models.checksum import checksum
from rdejax.models.weights import read_weights, save_weights, weights_of
from rdejax.models.workdir import read_workdir
from rdejax.signals import Stopped
from rdejax.train.checkpoints import Checkpoints, Damaged, abstract
from rdejax.train.config import TrainConfig, ValidateConfig
from rdejax.train.metrics import Window, all_finite
from rdejax.train.monitor import Clock, Monitor
from rdejax.train.step import TrainState
from rdejax.train.validate import validate, validation_sequences
from rdejax.train.workdir import as_json, begin, differences, record_start
from rdejax.visualize.sheet import training_sheet

ROOT = Path(__file__).parents[1]
SIZE = 48
TINY = TrainConfig(
    data=("synthetic",),
    clip=ClipConfig(frames=3, size=SIZE, objects=1),
    batch=2,
    steps=6,
    save_every=2,
    log_every=2,
)
VALIDATED = ValidateConfig(every=2, root="nowhere")
HERE = jax.sharding.SingleDeviceSharding(jax.devices()[0])


def tiny_batch() -> Clip:
    labels = np.zeros((2, 3, SIZE, SIZE), np.uint8)
    labels[:, :, 8:24, 8:24] = 1
    frames = np.full((2, 3, SIZE, SIZE, 3), 60, np.uint8)
    return Clip(frames, labels, labels[:, :1].copy(), np.ones((2, 1), bool))


@pytest.fixture
def stub(monkeypatch):
    """A step that counts: each trained weight grows by one; `stub(step, what)` makes one fail."""
    trouble: dict[int, str] = {}

    def make_step(model, config, mesh):
        def step(state, batch):
            done = int(state.step) + 1
            what = trouble.get(done)
            if what == "error":
                raise RuntimeError("stopped by the test")
            if what == "signal":
                os.kill(os.getpid(), signal.SIGTERM)
                time.sleep(0.2)  # a thread takes it
            add = np.nan if what == "parameter" else 1.0
            params = jax.tree.map(lambda x: x + add, state.params)
            metrics = {
                "loss": jnp.asarray(np.nan if what == "loss" else 1.0 / done),
                "grad_norm": jnp.asarray(np.inf if what == "gradient" else 2.0),
                "iou": jnp.asarray(done / 10.0),
                "learning_rate": jnp.asarray(1e-3),
            }
            return TrainState(params, state.fixed, params, state.optimizer, state.step + 1), metrics

        return step

    def make_predict(model, config, mesh=None):
        return lambda state, batch: jnp.asarray(batch.labels)[:, 1:]

    def batches(*args, **kwargs):
        while True:
            yield tiny_batch()

    monkeypatch.setattr(loop, "make_step", make_step)
    monkeypatch.setattr(loop, "make_predict", make_predict)
    monkeypatch.setattr(loop, "_load", batches)
    # The weights do not matter, and making them anew takes seconds.
    model = _model()
    monkeypatch.setattr(loop, "build_model", lambda config, tell: model)
    monkeypatch.setattr(loop, "create_system", lambda config: model)
    return lambda step, what: trouble.__setitem__(step, what)


_MODELS = []


def _model():
    if not _MODELS:
        _MODELS.append(create("rde-lite"))
    return _MODELS[0]


def log_of(workdir: Path) -> list[dict]:
    return [json.loads(line) for line in (workdir / "log.jsonl").read_text().splitlines()]


def steps_in(workdir: Path) -> list[int]:
    return sorted(int(p.name) for p in (workdir / "checkpoints").iterdir() if p.name.isdigit())


def small_state(value: float) -> dict:
    return {"params": {"a": jnp.full((8, 3), value)}, "ema": {"a": jnp.full((8, 3), -value)}}


def test_checkpoints_keep_the_last_and_the_best(tmp_path) -> None:
    with Checkpoints(tmp_path, keep=2) as checkpoints:
        assert checkpoints.latest is None and checkpoints.best is None
        for step in range(1, 8):
            score = {2: 0.5, 4: 0.4}.get(step)
            checkpoints.save(step, small_state(step), {"step": step}, score)
        checkpoints.wait()
    (tmp_path / "9.orbax-checkpoint-tmp").mkdir()  # what a kill leaves behind
    with Checkpoints(tmp_path, keep=2) as checkpoints:
        assert checkpoints.steps == [2, 6, 7] and checkpoints.best == (2, 0.5)
        assert checkpoints.latest == 7 and checkpoints.record(6) == {"step": 6}
        like = abstract(jax.eval_shape(lambda: small_state(0.0)), HERE)
        whole = checkpoints.restore(2, like)
        np.testing.assert_array_equal(whole["params"]["a"], np.full((8, 3), 2.0))
        other = abstract(jax.eval_shape(lambda: {"params": jnp.ones(3)}), HERE)
        with pytest.raises(RdejaxError, match="7: this checkpoint cannot be read"):
            checkpoints.restore(7, other)


_ON_EIGHT = """
import sys
import jax, jax.numpy as jnp
from pathlib import Path
from rdejax.models.checksum import checksum
from jax.sharding import NamedSharding, PartitionSpec
from rdejax.train.checkpoints import Checkpoints, Damaged, abstract
from rdejax.train.parallel import make_mesh, shard_state, state_shardings
assert jax.device_count() == 8
mesh = make_mesh(8)
state = {"a": jnp.arange(48.0).reshape(16, 3), "b": jnp.ones(3)}
with Checkpoints(Path(sys.argv[1])) as checkpoints:
    if checkpoints.latest is None:
        checkpoints.save(1, shard_state(state, mesh, fsdp=True), {}, None)
        assert checksum(shard_state(state, mesh, fsdp=True)) == checksum(state)
    else:
        like = abstract(state, state_shardings(state, mesh, fsdp=True))
        got = checkpoints.restore(1, like)
        assert len(got["a"].sharding.device_set) == 8 and not got["a"].is_fully_replicated
        assert (got["a"] == 2 * state["a"]).all()
"""


def on_eight_devices(folder: Path) -> None:
    environment = {
        **os.environ,
        "XLA_FLAGS": f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count=8",
        "PYTHONPATH": str(ROOT),
    }
    command = [sys.executable, "-c", _ON_EIGHT, str(folder)]
    subprocess.run(command, env=environment, check=True, timeout=120)


def test_checkpoints_go_from_eight_devices_to_one_and_back(tmp_path) -> None:
    on_eight_devices(tmp_path / "a")
    state = {"a": jnp.zeros((16, 3)), "b": jnp.zeros(3)}
    with Checkpoints(tmp_path / "a") as checkpoints:
        got = checkpoints.restore(1, abstract(state, HERE))
    assert got["a"].sharding == HERE
    np.testing.assert_array_equal(got["a"], np.arange(48.0).reshape(16, 3))
    with Checkpoints(tmp_path / "b") as checkpoints:
        checkpoints.save(1, jax.tree.map(lambda x: 2 * x, got), {}, None)
    on_eight_devices(tmp_path / "b")


def test_a_folder_with_a_run_is_refused_unless_resumed_alike(tmp_path) -> None:
    with Checkpoints(tmp_path / "checkpoints") as checkpoints:
        assert begin(tmp_path, TINY, checkpoints, resume=False) == (0, [])
        step, notes = begin(tmp_path, TINY, checkpoints, resume=True)
        assert step == 0 and "nothing to resume" in notes[0]
        checkpoints.save(4, small_state(1.0), {"config": as_json(TINY)}, None)
        with pytest.raises(RdejaxError, match="holds a run of 4 steps; add --resume"):
            begin(tmp_path, TINY, checkpoints, resume=False)
        step, notes = begin(tmp_path, TINY, checkpoints, resume=True)
        assert (step, notes) == (4, ["continuing from step 4"])
        moved = dataclasses.replace(TINY, data=("static:/elsewhere",), keep=5, log_every=1)
        _, notes = begin(tmp_path, moved, checkpoints, resume=True)
        assert all(name in notes[1] for name in ("data", "keep: 2 -> 5", "log_every"))
        loss = dataclasses.replace(TINY.loss, soft_iou=1.0)
        other = dataclasses.replace(TINY, batch=4, loss=loss, keep=5, data=("a", "b"))
        with pytest.raises(RdejaxError, match="another configuration") as error:
            begin(tmp_path, other, checkpoints, resume=True)
        for name in ("batch: 2 -> 4", "loss.soft_iou: 0.0 -> 1.0", 'data: ["synthetic"] ->'):
            assert name in str(error.value)
        assert "keep" not in str(error.value)


@pytest.mark.parametrize(
    ("config", "loss", "goes_on"),
    [
        ({}, {}, True),
        ({}, {"pattern": "memory"}, False),
        ({}, {"guidance": 5.0}, False),
        ({"objective_settings": ("patterns=stm",)}, {"pattern": "bank"}, True),
        ({"system": "stcn"}, {"pattern": "bank", "guidance": 0.0, "consistency": 0.0}, True),
        ({"system": "swem"}, {"pattern": "memory", "consistency": 0.0}, True),
        ({"system": "swem"}, {"pattern": "bank", "consistency": 0.0}, False),
    ],
)
def test_a_run_from_before_objectives_goes_on_alike(tmp_path, config, loss, goes_on) -> None:
    now = dataclasses.replace(TINY, **config)
    begun = as_json(now)
    old = {"pattern": "alternate", "convention": "paper", "guidance": 10.0, "consistency": 10.0}
    begun["loss"] |= old | loss
    del begun["objective"], begun["objective_settings"]
    with Checkpoints(tmp_path / "checkpoints") as checkpoints:
        checkpoints.save(4, small_state(1.0), {"config": begun}, None)
        if goes_on:
            assert begin(tmp_path, now, checkpoints, resume=True)[0] == 4
            return
        with pytest.raises(RdejaxError, match=r"another configuration \(loss.pattern="):
            begin(tmp_path, now, checkpoints, resume=True)


def test_differences_leave_out_fields_of_other_versions() -> None:
    old = {"a": 1, "b": {"c": 2, "gone": 3}, "same": [1, 2]}
    new = {"a": 2, "b": {"c": 5, "new": 4}, "same": [1, 2]}
    assert differences(old, new) == {"a": "a: 1 -> 2", "b.c": "b.c: 2 -> 5"}


def test_window_averages_and_names_the_step_that_failed() -> None:
    window = Window(lambda: 40)
    for step, loss in ((1, 1.0), (2, 2.0), (3, 6.0)):
        window.add(step, {"loss": jnp.asarray(loss), "grad_norm": jnp.asarray(1.0)})
    window.check()
    assert window.means() == {"loss": 3.0, "grad_norm": 1.0} and window.means() == {}
    window.add(4, {"loss": jnp.asarray(1.0), "grad_norm": jnp.asarray(np.nan)})
    window.add(5, {"loss": jnp.asarray(np.nan), "grad_norm": jnp.asarray(np.nan)})
    with pytest.raises(RdejaxError, match=r"step 4:.*grad_norm nan.*checkpoint of step 40 is kept"):
        window.check()
    assert bool(all_finite({"a": jnp.ones(3)})) and not all_finite(
        [jnp.ones(2), jnp.asarray(np.inf)]
    )


@pytest.mark.parametrize("what", ["loss", "gradient", "parameter"])
def test_what_is_not_finite_stops_the_run_and_is_not_saved(stub, tmp_path, what) -> None:
    stub(3, what)
    with pytest.raises(RdejaxError, match=r"not finite.*checkpoint of step 2 is kept.*lr") as error:
        loop.train(TINY, tmp_path)
    assert ("step 4" if what == "parameter" else "step 3") in str(error.value)
    assert steps_in(tmp_path) == [2]


def test_logs_checkpoints_and_weights_of_a_run_that_is_resumed(stub, tmp_path) -> None:
    config = dataclasses.replace(TINY, images_every=3, memory_settings=("top_k=5",))
    stub(6, "error")
    with pytest.raises(RuntimeError, match="stopped by the test"):
        loop.train(config, tmp_path)
    assert steps_in(tmp_path) == [2, 4] and not (tmp_path / "weights.safetensors").exists()
    # What the run has so far, exported or, as runs of before have it, in checkpoints only.
    name = "decoder/pred/kernel"
    so_far = weights_of(rdejax.load_model(str(tmp_path)))
    np.testing.assert_allclose(so_far[name], weights_of(_model())[name] + 4, rtol=1e-5)
    (tmp_path / "latest.safetensors").unlink()
    old = rdejax.load_model(str(tmp_path), memory="bank", every=2)
    assert (old.name, old.settings.memory, old.settings.every) == ("rde-lite", "bank", 2)
    assert dict(old.settings.memory_settings)["top_k"] == 5
    saved = read_workdir(tmp_path).arrays
    assert saved.keys() == so_far.keys()
    for path, array in so_far.items():
        np.testing.assert_array_equal(array, saved[path])
    # As if killed while it logged a later step.
    with (tmp_path / "log.jsonl").open("a") as log:
        log.write('{"step": 5, "loss": 9}\n{"st')
    with pytest.raises(RdejaxError, match="add --resume"):
        loop.train(config, tmp_path)
    stub(6, "nothing")
    weights = loop.train(config, tmp_path, resume=True)
    assert [line["step"] for line in log_of(tmp_path)] == [2, 4, 6]
    assert log_of(tmp_path)[2]["loss"] == pytest.approx((1 / 5 + 1 / 6) / 2, rel=1e-5)
    assert {"seconds_per_step", "data_wait", "clips_per_second"} <= log_of(tmp_path)[1].keys()
    assert steps_in(tmp_path) == [4, 6]
    arrays, metadata = read_weights(weights)
    np.testing.assert_allclose(arrays[name], weights_of(_model())[name] + 6, rtol=1e-5)
    assert json.loads(metadata["extra"]) == {"step": 6}
    np.testing.assert_array_equal(read_workdir(tmp_path).arrays[name], arrays[name])
    assert json.loads((tmp_path / "config.json").read_text()) == as_json(config)
    # Once more: there is nothing to do.
    weights.unlink()
    assert loop.train(config, tmp_path, resume=True).exists()


def test_a_folder_without_weights_says_what_it_lacks(tmp_path) -> None:
    with pytest.raises(RdejaxError, match="not the work folder of a training run.*config.json"):
        rdejax.load_model(str(tmp_path))
    (tmp_path / "latest.safetensors").write_bytes(b"of an earlier run that got to no checkpoint")
    record_start(tmp_path, TINY, 0)
    for folder in (False, True):
        with pytest.raises(RdejaxError, match="no checkpoint yet; one is made every 2 steps"):
            rdejax.load_model(str(tmp_path))
        (tmp_path / "checkpoints").mkdir(exist_ok=folder)
    (tmp_path / "checkpoints" / "4").mkdir()
    with pytest.raises(RdejaxError, match="4: this checkpoint cannot be read"):
        rdejax.load_model(str(tmp_path))


def test_what_a_killed_run_was_writing_is_swept(tmp_path) -> None:
    for name in (".latest.tmp-77.safetensors", ".config.tmp-77.json", ".mine.tmp-77.txt"):
        (tmp_path / name).touch()
    record_start(tmp_path, TINY, 0)
    names = sorted(item.name for item in tmp_path.iterdir())
    assert names == [".mine.tmp-77.txt", "config.json", "environment.json"]


def test_a_signal_saves_the_step_in_progress(stub, tmp_path, capsys) -> None:
    stub(3, "signal")
    with pytest.raises(Stopped) as stopped:
        loop.train(TINY, tmp_path)
    assert stopped.value.code == 143 and steps_in(tmp_path) == [2, 3]
    said = capsys.readouterr()
    assert "step 3 is saved" in said.out and "SIGTERM: ending after the step" in said.err
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    stub(3, "nothing")
    loop.train(TINY, tmp_path, resume=True)
    assert "continuing from step 3" in capsys.readouterr().out
    assert [line["step"] for line in log_of(tmp_path)] == [2, 4, 6]


def test_a_resumed_run_equals_an_unbroken_one_bit_for_bit(tmp_path, monkeypatch) -> None:
    compiled, calls, make_step = [], [], loop.make_step

    def make_step_once(model, config, mesh):
        compiled[:] = compiled or [make_step(model, config, mesh)]

        def step(state, batch):
            calls.append(0)
            if len(calls) == 6 + 4:  # the fourth step of the second run
                raise RuntimeError("stopped by the test")
            return compiled[0](state, batch)

        return step

    monkeypatch.setattr(loop, "make_step", make_step_once)
    config = dataclasses.replace(TINY, images_every=5)
    unbroken = read_weights(loop.train(config, tmp_path / "a"))[0]
    with pytest.raises(RuntimeError, match="stopped by the test"):
        loop.train(config, tmp_path / "b")
    assert steps_in(tmp_path / "b") == [2]
    resumed = read_weights(loop.train(config, tmp_path / "b", resume=True))[0]
    assert len(calls) == 6 + 4 + 4
    for name, array in unbroken.items():
        np.testing.assert_array_equal(array, resumed[name], err_msg=name)
    losses = [[line["loss"] for line in log_of(tmp_path / d)] for d in "ab"]
    assert losses[0] == losses[1] and len(losses[0]) == 3
    assert scalars_of(tmp_path / "a" / "tensorboard")["clips"][0][0] == 5


def test_the_best_by_validation_is_kept_and_exported(stub, tmp_path, monkeypatch) -> None:
    scores = iter((0.3, 0.7, 0.5))

    def fake(model, config, sequences, stopped):
        score = next(scores)
        return {"J&F": score, "J": score - 0.1, "F": score + 0.1, "sequences": {"cow": score}}

    monkeypatch.setattr(loop, "validate", fake)
    monkeypatch.setattr(loop, "validation_sequences", lambda config: [])
    config = dataclasses.replace(TINY, keep=1, validate=VALIDATED)
    loop.train(config, tmp_path)
    assert steps_in(tmp_path) == [4, 6]
    with Checkpoints(tmp_path / "checkpoints", read_only=True) as checkpoints:
        assert checkpoints.best == (4, 0.7)
    arrays, metadata = read_weights(tmp_path / "best.safetensors")
    name = "decoder/pred/kernel"
    np.testing.assert_allclose(arrays[name], weights_of(_model())[name] + 4, rtol=1e-5)
    assert json.loads(metadata["extra"])["validation"]["J&F"] == 0.7
    validations = [line["validation"]["J&F"] for line in log_of(tmp_path) if "validation" in line]
    assert validations == [0.3, 0.7, 0.5]


def scalars_of(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """Scalars and pictures (their sizes) of all event files, without TensorFlow."""
    from tensorboardX.proto.event_pb2 import Event

    found: dict[str, list] = {}
    for path in sorted(folder.iterdir()):
        data, at = path.read_bytes(), 0
        while at < len(data):
            (length,) = struct.unpack_from("<Q", data, at)
            event = Event.FromString(data[at + 12 : at + 12 + length])
            at += 16 + length
            for value in event.summary.value:
                item = value.simple_value
                if value.HasField("image"):
                    item = (value.image.height, value.image.width)
                found.setdefault(value.tag, []).append((event.step, item))
    return found


def test_monitor_writes_log_and_tensorboard_on_one_process_only(tmp_path, capsys) -> None:
    for active in (True, False):
        with Monitor(tmp_path, first=0, total=9, active=active) as monitor:
            monitor.metrics(3, {"loss": 0.25, "iou": 0.5, "guidance": 1 / 3})
            monitor.validation(3, {"J&F": 0.5, "J": 0.4, "F": 0.6, "sequences": {"cow": 0.5}})
            monitor.picture(3, np.zeros((8, 12, 3), np.uint8))
            monitor.say("a word")
    lines = log_of(tmp_path)
    assert lines[0] == {"step": 3, "loss": 0.25, "iou": 0.5, "guidance": 0.333333}
    assert lines[1]["validation"]["sequences"] == {"cow": 0.5} and len(lines) == 2
    shown = capsys.readouterr().out.splitlines()
    assert [json.loads(line) for line in shown[:2]] == lines and shown[2:] == ["a word"]
    found = scalars_of(tmp_path / "tensorboard")
    assert found["loss/loss"] == [(3, 0.25)] and found["train/iou"] == [(3, 0.5)]
    assert found["validation/J_and_F"] == [(3, 0.5)] and found["clips"] == [(3, (8, 12))]


def test_clock_leaves_pauses_out(monkeypatch) -> None:
    now = [0.0]
    monkeypatch.setattr("rdejax.train.monitor.time.perf_counter", lambda: now[0])
    clock = Clock()
    for _ in range(4):
        with clock.waiting():
            now[0] += 0.5
        now[0] += 1.5
        clock.step()
    with clock.paused():
        now[0] += 100.0
    assert clock.read(3) == {"seconds_per_step": 2.0, "data_wait": 0.5, "clips_per_second": 1.5}
    assert clock.read(3) == {}


def test_contact_sheet_shows_input_truth_and_prediction() -> None:
    batch = tiny_batch()
    predicted = batch.labels[:, 1:].copy()
    predicted[0, 1] = 0
    sheet = training_sheet(batch.frames, batch.labels, batch.perturbed, predicted, clips=2)
    width = 3 * SIZE + 8
    assert sheet.shape == (3 * SIZE + 8, 2 * width + 4, 3)
    inside = [(16, 16 + k * (SIZE + 4)) for k in range(3)]
    colours = [tuple(sheet[y, x]) for y, x in inside]
    assert colours[0] == (60, 60, 60) and colours[1] == colours[2] != colours[0]
    below = 2 * (SIZE + 4) + 16  # the last frame, which the prediction misses
    assert tuple(sheet[below, 16 + 2 * (SIZE + 4)]) == (60, 60, 60)


@pytest.fixture
def davis(tmp_path) -> Path:
    """Two sequences of six frames, of two objects and of one, in the layout of DAVIS."""
    root, rng = tmp_path / "DAVIS", np.random.default_rng(0)
    for name, objects in (("cow", 2), ("dog", 1)):
        for kind in ("JPEGImages", "Annotations"):
            (root / kind / "480p" / name).mkdir(parents=True)
        for t in range(6):
            image = rng.integers(0, 90, (SIZE, 64, 3), np.uint8)
            ids = np.zeros((SIZE, 64), np.uint8)
            for k in range(objects):
                window = np.s_[6 + t : 26 + t, 4 + 28 * k + t : 24 + 28 * k + t]
                image[window], ids[window] = (220, 180 - 90 * k, 40 + 150 * k), k + 1
            cv2.imwrite(str(root / "JPEGImages" / "480p" / name / f"{t:05d}.jpg"), image)
            mask = Image.fromarray(ids)
            mask.putpalette(bytes(range(256)) * 3)
            mask.save(root / "Annotations" / "480p" / name / f"{t:05d}.png")
    (root / "ImageSets" / "2017").mkdir(parents=True)
    (root / "ImageSets" / "2017" / "val.txt").write_text("cow\ndog\n")
    return root


def test_validation_gives_the_numbers_of_infer_and_evaluate(davis, tmp_path) -> None:
    from rdejax.evaluate.davis import evaluate
    from rdejax.infer.__main__ import main

    save_weights(tmp_path / "w.safetensors", _model())
    main(
        ["--dataset", "davis2017", "--root", str(davis), "--output", str(tmp_path / "out")]
        + ["--checkpoint", str(tmp_path / "w.safetensors"), "--quiet"]
    )
    expected = evaluate("davis2017", davis, tmp_path / "out")
    config = ValidateConfig(every=1, root=str(davis))
    got = validate(_model(), config, validation_sequences(config))
    assert got is not None and 0 < got["J&F"] < 1
    for name in ("J&F", "J", "F"):
        assert got[name] == pytest.approx(expected.global_row[f"{name}-Mean"], abs=1e-9)
    for name, row in expected.sequence_rows.items():
        assert got["sequences"][name] == pytest.approx(row["J&F-Mean"], abs=1e-9)
    assert validate(_model(), config, validation_sequences(config), stopped=lambda: True) is None


def test_validation_sequences_are_chosen_and_cut(davis) -> None:
    config = ValidateConfig(every=1, root=str(davis), sequences=1, frames=4)
    (sequence,) = validation_sequences(config)
    assert sequence.name == "cow" and len(sequence.frames) == len(sequence.masks) == 4
    with pytest.raises(RdejaxError, match=r"2 true masks in 2 frames.*validate\.frames"):
        validation_sequences(dataclasses.replace(config, frames=2))
    with pytest.raises(RdejaxError, match=r"validate\.dataset='youtube-vos'"):
        validation_sequences(dataclasses.replace(config, dataset="youtube-vos"))


def flip_a_byte(checkpoint: Path) -> None:
    """In the middle of the largest file, where the arrays are."""
    file = max((p for p in checkpoint.rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)


def expect_other_bits(checkpoint: Path) -> None:
    """Its arrays are no longer those of which the record has the checksums."""
    file = checkpoint / "record" / "metadata"
    record = json.loads(file.read_text())
    for part in record["checksums"].values():
        part["sum"] ^= 1
    file.write_text(json.dumps(record))


def test_a_flipped_byte_of_a_checkpoint_is_noticed(tmp_path) -> None:
    # Random bits, which no compression's own structure surrounds.
    state = {"ema": {"a": jax.random.normal(jax.random.key(0), (300, 70))}, "fixed": jnp.ones(3)}
    with Checkpoints(tmp_path / "checkpoints", keep=2) as checkpoints:
        for step in (2, 4):
            checkpoints.save(step, state, {"step": step}, None)
        checkpoints.wait()
        flip_a_byte(tmp_path / "checkpoints" / "4")
        like = abstract(state, HERE)
        with pytest.raises(Damaged, match="4: this checkpoint is damaged, its ema changed since"):
            checkpoints.restore(4, like)
        np.testing.assert_array_equal(checkpoints.restore(2, like)["ema"]["a"], state["ema"]["a"])
        assert checkpoints.record(4) == {"step": 4}
        checkpoints.remove(4)
        assert checkpoints.latest == 2


def test_a_run_goes_on_from_the_checkpoint_before_a_damaged_one(stub, tmp_path, capsys) -> None:
    stub(6, "error")
    with pytest.raises(RuntimeError, match="stopped by the test"):
        loop.train(TINY, tmp_path)
    assert steps_in(tmp_path) == [2, 4]
    (tmp_path / "latest.safetensors").unlink()
    expect_other_bits(tmp_path / "checkpoints" / "4")
    two = weights_of(_model())["decoder/pred/kernel"] + 2
    capsys.readouterr()
    before = weights_of(rdejax.load_model(str(tmp_path)))["decoder/pred/kernel"]
    np.testing.assert_allclose(before, two, rtol=1e-5)
    assert "4: this checkpoint is damaged; reading the one before it" in capsys.readouterr().err
    stub(6, "nothing")
    weights = loop.train(TINY, tmp_path, resume=True)
    said = capsys.readouterr().out
    assert "4: this checkpoint is damaged" in said and "continuing from step 2" in said
    np.testing.assert_allclose(read_weights(weights)[0]["decoder/pred/kernel"], two + 4, rtol=1e-5)
    for step in (4, 6):
        expect_other_bits(tmp_path / "checkpoints" / str(step))
    with pytest.raises(RdejaxError, match="checkpoints are damaged"):
        read_workdir(tmp_path)
    with pytest.raises(Damaged, match="4: this checkpoint is damaged"):
        loop.train(TINY, tmp_path, resume=True)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int8", "bool", "float64"])
def test_checksums_notice_every_bit_and_no_sharding(dtype) -> None:
    rng = np.random.default_rng(0)
    array = np.asarray(rng.integers(0, 2, (6, 5)) if dtype == "bool" else rng.normal(0, 9, (6, 5)))
    array = array.astype(jnp.dtype(dtype))
    whole = checksum({"a": array})
    if dtype != "float64":
        assert whole == checksum([jnp.asarray(array)])
    for at in range(array.nbytes):
        changed = array.copy()
        changed.view(np.uint8).reshape(-1)[at] ^= 1
        assert checksum(changed) != whole
    assert checksum(jnp.int32(3)) != checksum(jnp.int32(2)) and checksum(()) == 0
