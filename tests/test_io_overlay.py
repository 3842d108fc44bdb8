"""Overlays and the MP4 writer."""

from fractions import Fraction

import numpy as np
import pytest
from io_helpers import moving_frames, square_mask

from rdejax.io.overlay import VideoWriter, render_overlay
from rdejax.io.palette import davis_palette
from rdejax.io.video import open_frames


def test_overlay_paints_objects_and_leaves_the_rest():
    frame = moving_frames(1)[0]
    frame.flags.writeable = False
    mask = square_mask(ids=(1, 44))
    painted = render_overlay(frame, mask, alpha=0.5)
    np.testing.assert_array_equal(painted[mask == 0], frame[mask == 0])
    inside = (5, 5)
    expected = (frame[inside].astype(int) + davis_palette()[1]) / 2
    np.testing.assert_allclose(painted[inside], expected, atol=1)
    # The contour between the two objects is lighter than either's paint.
    np.testing.assert_array_equal(painted[5, 12], (davis_palette()[44].astype(int) + 255) // 2)
    np.testing.assert_array_equal(render_overlay(frame, np.zeros_like(mask)), frame)


@pytest.mark.parametrize("size", [(36, 52), (35, 51), (9, 13), (1, 1)])
def test_written_video_can_be_read_again(tmp_path, size):
    frames = moving_frames(7, size)
    with VideoWriter(tmp_path / "o.mp4", size, Fraction(30000, 1001)) as writer:
        for frame in frames:
            writer.write(frame)
    source = open_frames(tmp_path / "o.mp4")
    height, width = source.size
    assert height % 2 == 0 and width % 2 == 0
    assert float(source.fps) == pytest.approx(29.97, abs=0.01)
    decoded = np.stack([frame for _, frame in source])[:, : size[0], : size[1]]
    assert len(decoded) == 7
    assert np.abs(decoded.astype(int) - frames).mean() < 25


def test_colours_survive(tmp_path):
    frame = np.zeros((64, 64, 3), np.uint8)
    frame[:32], frame[32:] = (200, 30, 40), (20, 60, 210)
    with VideoWriter(tmp_path / "o.mp4", (64, 64), 24) as writer:
        writer.write(frame)
    _, decoded = next(iter(open_frames(tmp_path / "o.mp4")))
    np.testing.assert_allclose(decoded[16, 32], frame[16, 32], atol=6)
    np.testing.assert_allclose(decoded[48, 32], frame[48, 32], atol=6)


def test_frame_of_another_size_is_an_error_and_no_silent_loss(tmp_path):
    with (
        pytest.raises(ValueError, match="size|video of"),
        VideoWriter(tmp_path / "o.mp4", (36, 52), 24) as writer,
    ):
        writer.write(moving_frames(1, (20, 20))[0])
