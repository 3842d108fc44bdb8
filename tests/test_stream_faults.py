"""Streams after wrong input, Ctrl-C and too little memory, and from files that were changed."""

import numpy as np
import pytest

import rdejax
from rdejax.errors import RdejaxError
from rdejax.models import System, create
from rdejax.propagate import stream as stream_module

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
        patch.setattr(stream_module, name, fail)
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
    real = stream_module.segment_blocks

    def fail(*arguments, **options):
        real(*arguments, **options)
        raise error

    with monkeypatch.context() as patch, pytest.raises(type(error)):
        patch.setattr(stream_module, "segment_blocks", fail)
        stream.push(FRAMES[3:4])
    for call in (lambda: stream.push(FRAMES[3:4]), lambda: stream.save(tmp_path / "other")):
        with pytest.raises(RdejaxError, match=r"broken off.*restore\(\).*start another"):
            call()
    stream.restore(tmp_path / "state.safetensors")
    np.testing.assert_array_equal(stream.push(FRAMES[3:], {1: LATER}), unbroken[3:])
