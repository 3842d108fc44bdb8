"""Streams after wrong input, Ctrl-C and too little memory, and from files that were changed."""

import json
import threading
from typing import Any

import jax
import numpy as np
import pytest
from flax import nnx
from safetensors import safe_open
from safetensors.numpy import save_file

import rdejax
from rdejax.errors import RdejaxError
from rdejax.models import System, create
from rdejax.propagate import course as course_module

SIZES = {"key_channels": 4, "value_channels": 32, "decoder_widths": [16, 8, 8]}
FRAMES = np.random.default_rng(0).integers(0, 255, (6, 32, 48, 3), np.uint8)
MASK = np.zeros((32, 48), np.uint8)
MASK[4:20, 4:20] = 3
LATER = np.zeros((32, 48), np.uint8)
LATER[10:30, 24:44] = 7


@pytest.fixture(scope="module")
def model() -> System:
    return create("rde-lite", config=SIZES, size=None)


@pytest.fixture(scope="module")
def unbroken(model) -> np.ndarray:
    stream = rdejax.stream(model)
    return np.concatenate([stream.push(FRAMES[:3], {0: MASK}), stream.push(FRAMES[3:], {1: LATER})])


def facts(stream):
    return (stream.time, stream.writes, stream.objects, list(stream.starts), stream.geometry)


@pytest.mark.parametrize(
    ("frames", "masks"),
    [
        (FRAMES[:3, :30], {0: MASK}),
        (FRAMES[:3], {0: MASK, 1: None}),
        (FRAMES[:3], {0: MASK, 1: "text"}),
        (FRAMES[:3], {0: MASK, 1: np.full(MASK.shape, np.nan)}),
        (FRAMES[:3], {0: MASK, 1: [[1, 2], [3]]}),
        (FRAMES[:3], {0: MASK, 0.7: MASK}),
        (FRAMES[:3], {0: MASK, "1": MASK}),
        ([[1], [2, 3]], {0: MASK}),
        (None, {0: MASK}),
        (FRAMES[:0, :0], {}),
        (FRAMES[:3, :, :0], {}),
    ],
)
def test_a_refused_push_changes_nothing(model, unbroken, frames, masks) -> None:
    stream = rdejax.stream(model)
    before = facts(stream)
    with pytest.raises(RdejaxError):
        stream.push(frames, masks)
    assert facts(stream) == before
    stream.push(FRAMES[:3], {0: MASK})
    before = facts(stream)
    with pytest.raises(RdejaxError):
        stream.push(frames, {k: LATER if v is MASK else v for k, v in masks.items()}, {"x": 1})
    assert facts(stream) == before
    np.testing.assert_array_equal(stream.push(FRAMES[3:], {1: LATER}), unbroken[3:])


@pytest.mark.parametrize("masks", [MASK, [MASK], "text", 3, True])
def test_masks_and_what_lies_beside_are_given_by_name(model, masks) -> None:
    stream = rdejax.stream(model)
    before = facts(stream)
    with pytest.raises(RdejaxError, match=r"masks came as .*; give a mapping: \{0: mask\}"):
        stream.push(FRAMES[:3], masks)
    with pytest.raises(RdejaxError, match="beside frames came as .*; give a mapping"):
        stream.push(FRAMES[:3], {0: MASK}, masks)
    with pytest.raises(RdejaxError, match="beside the frame came as .*; give a mapping"):
        stream.step(FRAMES[0], MASK, masks)
    assert facts(stream) == before


@pytest.mark.parametrize("frame", [None, "text", 3, [[1], [2, 3]], FRAMES[:1], FRAMES[0].tolist()])
def test_a_frame_that_is_none(model, frame) -> None:
    with pytest.raises(RdejaxError, match="frame"):
        rdejax.stream(model).step(frame, MASK)


@pytest.fixture
def begun(model):
    """A stream with the objects 1 and 3."""
    stream = rdejax.stream(model, correctable=True)
    stream.push(FRAMES[:3], {0: np.where(LATER > 0, 1, MASK).astype(np.uint8)})
    return stream


@pytest.mark.parametrize(
    "ids",
    [3, True, None, "3", [True], [np.True_], [3.0], [None], [[3]], np.array(3), np.array([[3]])],
)
def test_ids_are_whole_numbers(begun, ids) -> None:
    before = facts(begun)
    with pytest.raises(RdejaxError, match="ids=|is no id"):
        begun.forget(ids)
    if ids is not None:
        with pytest.raises(RdejaxError, match="ids=|is no id"):
            begun.correct(MASK, ids)
    assert facts(begun) == before


@pytest.mark.parametrize(
    "ids", [[3, 3], {3: 1}, np.array([3]), [np.uint8(3)], (number for number in [3])]
)
def test_ids_come_in_any_collection(begun, ids) -> None:
    begun.forget(ids)
    assert begun.objects == [1]
    assert 3 not in begun.push(FRAMES[3:])


def test_threads_wait_for_each_other(model, unbroken) -> None:
    stream = rdejax.stream(model)
    stream.push(FRAMES[:3], {0: MASK})
    results: list[Any] = []

    def push() -> None:
        try:
            results.append(stream.push(np.repeat(FRAMES[3:4], 3, 0)))
        except BaseException as error:
            results.append(error)

    threads = [threading.Thread(target=push) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [type(result) for result in results] == [np.ndarray] * 4 and stream.time == 15
    whole = rdejax.stream(model)
    whole.push(FRAMES[:3], {0: MASK})
    one_by_one = [whole.push(np.repeat(FRAMES[3:4], 3, 0)).tobytes() for _ in range(4)]
    assert sorted(result.tobytes() for result in results) == sorted(one_by_one)


@pytest.mark.parametrize(
    "mask", [None, "text", np.full(MASK.shape, np.nan), [[1, 2], [3]], {0.7: MASK}, {0: None}, 3]
)
def test_masks_that_are_none(model, mask) -> None:
    with pytest.raises(RdejaxError):
        rdejax.segment_video(model, FRAMES, mask)


@pytest.mark.parametrize(
    "options",
    [
        {"size": -5},
        {"size": 2.5},
        {"chunk": 2.5},
        {"chunk": 0},
        {"chunk": True},
        {"max_objects": 0},
    ],
)
def test_options_are_checked(model, options) -> None:
    with pytest.raises(RdejaxError, match=f"{next(iter(options))}="):
        rdejax.stream(model, **options)


@pytest.mark.parametrize("name", ["start_video", "segment_blocks", "add_objects"])
def test_what_fails_before_the_device_took_the_state_changes_nothing(
    model, unbroken, monkeypatch, name
) -> None:
    def fail(*arguments, **options):
        raise KeyboardInterrupt

    stream = rdejax.stream(model)
    if name != "start_video":
        stream.push(FRAMES[:3], {0: MASK})
    before = facts(stream)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(course_module, name, fail)
        stream.push(FRAMES[stream.time :][:1], {0: LATER} if name != "segment_blocks" else None)
    assert facts(stream) == before
    if name == "start_video":
        stream.push(FRAMES[:3], {0: MASK})
    np.testing.assert_array_equal(stream.push(FRAMES[3:], {1: LATER}), unbroken[3:])


@pytest.mark.parametrize("error", [KeyboardInterrupt(), RuntimeError("RESOURCE_EXHAUSTED: memory")])
def test_a_stream_broken_off_says_so_and_takes_up_a_saved_state(
    model, unbroken, monkeypatch, tmp_path, error
) -> None:
    stream = rdejax.stream(model)
    stream.push(FRAMES[:3], {0: MASK})
    stream.save(tmp_path / "state.safetensors")
    real = course_module.segment_blocks

    def fail(*arguments, **options):
        real(*arguments, **options)
        raise error

    with monkeypatch.context() as patch, pytest.raises(type(error)):
        patch.setattr(course_module, "segment_blocks", fail)
        stream.push(FRAMES[3:4])
    for call in (lambda: stream.push(FRAMES[3:4]), lambda: stream.save(tmp_path / "other")):
        with pytest.raises(RdejaxError, match=r"broken off.*restore\(\).*start another"):
            call()
    stream.restore(tmp_path / "state.safetensors")
    np.testing.assert_array_equal(stream.push(FRAMES[3:], {1: LATER}), unbroken[3:])


def change(path, edit) -> None:
    """Edits a saved stream: arrays by name, and what else it holds."""
    with safe_open(path, framework="numpy") as file:
        about = json.loads(file.metadata()["stream"])
        arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    changed = edit(arrays, about)
    # Whoever edits one may leave the digest out.
    save_file(arrays, path, {"stream": json.dumps(about if changed is None else changed)})


def to_nan(arrays, about) -> None:
    name = next(n for n, a in arrays.items() if a.dtype == np.float32 and a.size)
    arrays[name].reshape(-1)[0] = np.nan


def to_half(arrays, about) -> None:
    for name, array in arrays.items():
        arrays[name] = array.astype(np.float16) if array.dtype == np.float32 else array


EDITS = {
    "negative time": lambda arrays, about: about.update(time=-1),
    "time as text": lambda arrays, about: about.update(time="3"),
    "no time": lambda arrays, about: about.__delitem__("time"),
    "many writes": lambda arrays, about: about.update(writes=10**9),
    "starts to come": lambda arrays, about: about.update(starts=[99]),
    "starts as a number": lambda arrays, about: about.update(starts=3),
    "no source": lambda arrays, about: about.update(source=None),
    "three sides": lambda arrays, about: about.update(source=[1, 2, 3]),
    "huge source": lambda arrays, about: about.update(source=[10**5, 10**5]),
    "larger than it may be": lambda arrays, about: about.update(zoom=1.5),
    "smaller than any": lambda arrays, about: about.update(zoom=float("nan")),
    "no layout": lambda arrays, about: about.update(layout=[]),
    "many groups": lambda arrays, about: about["layout"].update(groups=10**6),
    "ids as a list": lambda arrays, about: about["layout"].update(ids=[1]),
    "id that is no number": lambda arrays, about: about["layout"].update(ids={"x": 0}),
    "slot outside": lambda arrays, about: about["layout"].update(ids={"3": 200}),
    "no object": lambda arrays, about: about.update(layout=[]),
    "a list": lambda arrays, about: [1],
    "other settings": lambda arrays, about: about.update(settings=3),
    "NaN": to_nan,
    "halves": to_half,
    "an array less": lambda arrays, about: arrays.__delitem__(next(iter(arrays))),
}


@pytest.mark.parametrize("name", EDITS)
def test_a_changed_state_is_refused(model, saved, tmp_path, name) -> None:
    path = tmp_path / "state.safetensors"
    path.write_bytes(saved)
    change(path, EDITS[name])
    stream = rdejax.stream(model)
    before = facts(stream)
    with pytest.raises(RdejaxError, match=r"state\.safetensors"):
        stream.restore(path)
    assert facts(stream) == before


@pytest.mark.parametrize("what", ["array", "time", "digest"])
def test_a_changed_byte_of_a_state_is_noticed(model, saved, tmp_path, what) -> None:
    """Also where what stands there could be of a video."""
    path = tmp_path / "state.safetensors"
    content = bytearray(saved)
    if what == "array":
        content[-2] ^= 1
    else:
        before = b'time\\": ' if what == "time" else b'"sha256":"'
        at = content.index(before) + len(before)
        assert what == "digest" or content[at : at + 1] == b"3"
        content[at] = ord("2") if what == "time" else ord("g")
    path.write_bytes(content)
    stream = rdejax.stream(model)
    with pytest.raises(RdejaxError, match=r"state\.safetensors: was changed or damaged"):
        stream.restore(path)
    assert stream.time == 0


def test_a_state_of_other_weights_is_refused(model, saved, tmp_path) -> None:
    path = tmp_path / "state.safetensors"
    path.write_bytes(saved)
    other = nnx.clone(model)
    kernel = jax.tree.leaves(nnx.state(other, nnx.Param))[0]
    nnx.update(
        other,
        jax.tree.map(lambda x: x + (x.shape == kernel.shape), nnx.state(other, nnx.Param)),
    )
    with pytest.raises(RdejaxError, match=r"state\.safetensors: saved with weights"):
        rdejax.stream(other).restore(path)


@pytest.fixture(scope="module")
def saved(model, tmp_path_factory) -> bytes:
    path = tmp_path_factory.mktemp("saved") / "state"
    stream = rdejax.stream(model)
    stream.push(FRAMES[:3], {0: MASK})
    stream.save(path)
    assert [item.name for item in path.parent.iterdir()] == ["state"]
    return path.read_bytes()


def test_a_state_cannot_be_saved_nowhere(model, tmp_path) -> None:
    stream = rdejax.stream(model)
    stream.push(FRAMES[:3], {0: MASK})
    with pytest.raises(OSError, match="No such file or directory"):
        stream.save(tmp_path / "none" / "state")
