"""What must not change a result: blocks, chunks, padding slots, object order, saving."""

import jax
import numpy as np
import pytest
from helpers_streams import assert_objects_permute, assert_padding_changes_nothing, probabilities

import rdejax
from rdejax.models import System, create
from rdejax.propagate.geometry import Geometry
from rdejax.propagate.ids import id_of_label
from rdejax.propagate.programs import _seen
from rdejax.propagate.slots import Layout, plan_layout

T = 11


@pytest.fixture(scope="module")
def video() -> tuple[np.ndarray, np.ndarray]:
    """Frames uint8 [T, 50, 70, 3]: two discs moving over a texture; and the first mask."""
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 255, (3, 12, 16, 3)).astype(np.float32)
    back, a, b = (np.asarray(jax.image.resize(c, (100, 140, 3), "cubic")) for c in coarse)
    y, x = np.mgrid[:50, :70]
    frames, mask = [], np.zeros((50, 70), np.uint8)
    for t in range(T):
        frame = back[5:55, t : 70 + t].copy()
        for k, (texture, cy, cx) in enumerate(((a, 20, 15 + 2 * t), (b, 35, 55 - 2 * t))):
            inside = (y - cy) ** 2 + (x - cx) ** 2 < 130
            frame[inside] = texture[:50, :70][inside]
            if t == 0:
                mask[inside] = (4, 9)[k]
        frames.append(np.clip(frame, 0, 255).astype(np.uint8))
    return np.stack(frames), mask


@pytest.fixture(scope="module")
def model() -> System:
    return create("rde-lite", size=None)


@pytest.fixture(scope="module")
def whole(model, video) -> np.ndarray:
    return probabilities(model, *video)


def test_probabilities_are_probabilities(whole, video) -> None:
    assert whole.shape == (T, 3, 50, 70)
    assert whole.dtype == np.float32
    np.testing.assert_allclose(whole.sum(1), 1, atol=1e-5)
    np.testing.assert_array_equal(np.array([0, 4, 9])[whole[0].argmax(0)], video[1])


def test_blocks_equal_frame_by_frame(model, video, whole) -> None:
    frames, mask = video
    stream = rdejax.stream(model)
    parts = [
        stream.push_probs(frames[t : t + 1], {0: mask} if t == 0 else None)[1] for t in range(T)
    ]
    np.testing.assert_allclose(np.concatenate(parts), whole, atol=2e-5)


@pytest.mark.parametrize("length", [4, 7])
def test_chunks_equal_the_whole(model, video, whole, length) -> None:
    frames, mask = video
    stream = rdejax.stream(model, chunk=6)
    parts = []
    for t in range(0, T, length):
        parts.append(stream.push_probs(frames[t : t + length], {0: mask} if t == 0 else None)[1])
    np.testing.assert_allclose(np.concatenate(parts), whole, atol=2e-5)


def test_padded_slots_change_nothing(model, video, whole) -> None:
    assert_padding_changes_nothing(model, video, whole, Layout(groups=1, slots=4))


def test_padded_groups_change_nothing(model, video, whole) -> None:
    assert_padding_changes_nothing(model, video, whole, Layout(groups=2, slots=2))


def test_objects_permute(model, video, whole) -> None:
    assert_objects_permute(model, video, whole)


def test_groups_of_one_equal_one_group(model, video, whole) -> None:
    """Objects that share a start may sit in different groups: keys are the same either way."""
    assert_padding_changes_nothing(model, video, whole, Layout(groups=2, slots=1))


def test_save_and_restore_continue(model, video, tmp_path) -> None:
    frames, mask = video
    unbroken = rdejax.stream(model)
    first = unbroken.push(frames[:5], {0: mask})
    unbroken.save(tmp_path / "state")
    resumed = rdejax.stream(model).restore(tmp_path / "state")
    assert resumed.objects == [4, 9]
    np.testing.assert_array_equal(resumed.push(frames[5:]), unbroken.push(frames[5:]))
    assert first.shape == (5, 50, 70)


def test_small_objects_are_worked_at_a_larger_size(video, tmp_path) -> None:
    frames, mask = video
    zooming = create("rde-lite", size=32, zoom=1.33)  # a third: the nearest sixth
    stream = rdejax.stream(zooming)
    got = [stream.push(frames[:2]), stream.push(frames[2:5], {0: mask})]
    assert stream.geometry is not None and stream.geometry.inner == (43, 60)
    stream.save(tmp_path / "state")
    resumed = rdejax.stream(zooming).restore(tmp_path / "state")
    got.append(resumed.push(frames[5:]))
    plain = rdejax.segment_video(create("rde-lite", size=43), frames, {2: mask})
    np.testing.assert_array_equal(np.concatenate(got), plain)


def test_a_bank_saved_after_its_first_frame_continues(video, tmp_path) -> None:
    frames, mask = video
    model = create("rde-lite", size=None, memory="bank")
    unbroken = rdejax.stream(model)
    unbroken.step(frames[0], mask)
    unbroken.save(tmp_path / "state")
    resumed = rdejax.stream(model).restore(tmp_path / "state")
    np.testing.assert_array_equal(resumed.push(frames[1:4]), unbroken.push(frames[1:4]))


def test_a_push_of_no_frames_gives_none(model, video) -> None:
    frames, mask = video
    stream = rdejax.stream(model)
    assert stream.push(frames[:0]).shape == (0, 50, 70)
    stream.push(frames[:1], {0: mask})
    labels, probs = stream.push_probs(frames[:0])
    assert labels.shape == (0, 50, 70)
    assert probs.shape == (0, 3, 50, 70)


def test_buffers_may_be_reused_once_they_are_submitted(model, video) -> None:
    frames, mask = video
    stream = rdejax.stream(model, chunk=3)
    wanted = rdejax.stream(model, chunk=3).push(frames[:4], {0: mask})
    buffer = frames[:4].copy()
    results = stream.submit(buffer, {0: mask})
    buffer[:] = 0
    np.testing.assert_array_equal(results.masks(), wanted)


def test_restore_refuses_other_settings_and_files(model, video, tmp_path) -> None:
    frames, mask = video
    stream = rdejax.stream(model)
    with pytest.raises(rdejax.RdejaxError, match="nothing to save"):
        stream.save(tmp_path / "state")
    stream.push(frames[:1], {0: mask})
    stream.save(tmp_path / "state")
    other = create("rde-lite", size=None, every=5)
    with pytest.raises(rdejax.RdejaxError, match="same settings"):
        rdejax.stream(other).restore(tmp_path / "state")
    (tmp_path / "no").write_bytes(b"nothing of the kind")
    with pytest.raises(rdejax.RdejaxError, match="not a saved stream"):
        rdejax.stream(model).restore(tmp_path / "no")


def test_later_objects(model, video) -> None:
    frames, mask = video
    first, later = np.where(mask == 4, 4, 0), np.where(mask == 9, 9, 0)
    later[first > 0] = 4  # ids that are known already are left alone
    planned = rdejax.segment_video(model, frames, {1: first, 4: later})
    assert set(np.unique(planned[0])) == {0}
    assert 9 not in planned[1:4]
    np.testing.assert_array_equal(planned[4] == 9, later == 9)
    live = rdejax.stream(model)
    parts = [live.step(frames[t], {1: first, 4: later}.get(t)) for t in range(T)]
    assert live.objects == [4, 9]
    agreement = (np.stack(parts) == planned).mean()
    assert agreement > 0.999, agreement


def test_state_size_is_constant_for_rde_and_grows_for_the_bank(model, video) -> None:
    frames, mask = video
    sizes = {}
    for name in ("rde", "bank"):
        stream = rdejax.stream(create("rde-lite", size=None, memory=name))
        stream.push(frames[:1], {0: mask})
        for _ in range(2):
            stream.push(frames)
        early = stream.state_bytes
        for _ in range(6):
            stream.push(frames)
        sizes[name] = (early, stream.state_bytes)
    assert sizes["rde"][0] == sizes["rde"][1]
    assert sizes["bank"][0] < sizes["bank"][1]


@pytest.mark.slow
def test_state_size_is_constant_over_2000_frames(model, video) -> None:
    frames, mask = video
    stream = rdejax.stream(model)
    stream.push(frames[:1], {0: mask})
    stream.push(frames[1:10])
    early = stream.state_bytes
    while stream.time < 2000:
        stream.push(frames)
    assert stream.state_bytes == early


def test_bounded_bank_stays_bounded(video) -> None:
    frames, mask = video
    stream = rdejax.stream(create("rde-lite", size=None, memory="bank", every=1, max_frames=3))
    stream.push(frames, {0: mask})
    assert stream.state.memory.key.shape[1] == 3
    # The first frame stays.
    first = rdejax.stream(create("rde-lite", size=None, memory="bank", every=1, max_frames=3))
    first.push(frames[:1], {0: mask})
    np.testing.assert_array_equal(
        np.asarray(stream.state.memory.key[0, 0]), np.asarray(first.state.memory.key[0, 0])
    )


def test_more_slots_than_ids() -> None:
    layout = Layout(groups=31, slots=10, ids={7: 300}, used=31)
    probs = jax.nn.one_hot(np.full((16, 16), 301), 311, axis=0)
    labels, _ = _seen(Geometry.of((16, 16), None), probs)
    assert (id_of_label(layout)[np.asarray(labels)] == 7).all()


def test_layouts() -> None:
    assert (plan_layout([3]).groups, plan_layout([3]).slots) == (1, 3)
    several = plan_layout([1, 1, 1, 1])
    assert (several.groups, several.slots) == (4, 1)
    layout, slots = Layout(1, 2).place([5, 7])
    layout, more = layout.place([8])
    assert slots == [0, 1] and more == [2] and layout.groups == 2
    assert Layout.from_dict(layout.as_dict()) == layout


@pytest.mark.parametrize(
    ("frames", "masks", "says"),
    [
        (np.zeros((2, 20, 20), np.uint8), np.ones((20, 20), np.uint8), "uint8 .frames, H, W, 3"),
        (np.zeros((2, 20, 20, 3), np.float32), np.ones((20, 20), np.uint8), "float32"),
        (np.zeros((2, 20, 20, 3), np.uint8), np.zeros((20, 20), np.uint8), "no object"),
        (np.zeros((2, 20, 20, 3), np.uint8), np.ones((20, 21), np.uint8), "21x20"),
        (np.zeros((2, 20, 20, 3), np.uint8), np.ones((20, 20), np.float32), "integer id mask"),
        (np.zeros((2, 20, 20, 3), np.uint8), {5: np.ones((20, 20), np.uint8)}, "2 frames"),
        (np.zeros((2, 20, 20, 3), np.uint8), np.full((20, 20), 300), "0..255"),
    ],
)
def test_bad_input_is_named(model, frames, masks, says) -> None:
    with pytest.raises(rdejax.RdejaxError, match=says):
        rdejax.segment_video(model, frames, masks)


def test_too_many_objects(model, video) -> None:
    frames, mask = video
    with pytest.raises(rdejax.RdejaxError, match="max_objects"):
        rdejax.segment_video(model, frames, mask, max_objects=1)


def test_changing_frame_size(model, video) -> None:
    frames, mask = video
    stream = rdejax.stream(model)
    stream.push(frames[:1], {0: mask})
    with pytest.raises(rdejax.RdejaxError, match="the video so far"):
        stream.push(frames[:1, :40])


@pytest.mark.parametrize("size", [(5, 9), (17, 3)])
def test_tiny_frames(model, size) -> None:
    frames = np.zeros((4, *size, 3), np.uint8)
    mask = np.zeros(size, np.uint8)
    mask[1:3, 1:3] = 1
    out = rdejax.segment_video(model, frames, mask)
    assert out.shape == (4, *size)


def test_unknown_settings_and_models() -> None:
    for call, says in (
        (lambda: create("rde-lite", colour=3), "unknown"),
        (lambda: create("rde-lite", every=0), "every=0"),
        (lambda: create("rde-lite", top_k=0), "top_k=0"),
        (lambda: create("rde-lite", strategy="3G"), "not understood"),
        (lambda: create("rde-lite", memory="no such"), "unknown"),
        (lambda: create("no such"), "choose one of"),
        (lambda: rdejax.load_model("no/such/file.safetensors"), "no such"),
        (lambda: rdejax.load_model("rde"), "convert"),
    ):
        with pytest.raises(rdejax.RdejaxError, match=says):
            call()


def test_segment_compiles_once_per_shape(model, video) -> None:
    from rdejax.propagate.programs import segment_blocks

    frames, mask = video
    rdejax.segment_video(model, frames, mask)
    before = segment_blocks._cache_size()
    for _ in range(2):
        rdejax.segment_video(model, frames, mask)
    assert segment_blocks._cache_size() == before
