"""Augmentation in JAX: equal to OpenCV's for given parameters; batches stay consistent."""

import dataclasses

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers_videos import same

from rdejax.data.batch import Clip
from rdejax.data.clips import augment as host
from rdejax.data.clips import augment_on_device as device
from rdejax.data.config import VideoConfig

_STILL = VideoConfig(
    crop=1.0,
    flip=0.0,
    turn=0,
    shear=0,
    zoom=0,
    brightness=0,
    contrast=0,
    saturation=0,
    hue=0,
    frame_colour=0,
    grey=0,
)
_LOUD = VideoConfig(brightness=0.3, contrast=0.3, saturation=0.4, hue=0.5, frame_colour=0.1)


def smooth(seed: int, size: int = 48) -> np.ndarray:
    small = np.random.default_rng(seed).integers(0, 255, (6, 6, 3), dtype=np.uint8)
    return cv2.resize(small, (size, size), interpolation=cv2.INTER_CUBIC)


def made_batch(clips: int = 3, frames: int = 2, size: int = 48) -> Clip:
    """Red and green discs, slots 1 and 2, over grey; in the last clip there is no green one."""
    image = np.full((clips, frames, size, size, 3), 100, np.uint8)
    labels = np.zeros((clips, frames, size, size), np.uint8)
    for c in range(clips):
        for t in range(frames):
            for o, colour in enumerate(((220, 40, 9), (40, 220, 9)), 1):
                if o == 1 or c < clips - 1:
                    cv2.circle(labels[c, t], (15 * o + 3 * c, 24 - 2 * t), 7, o, -1)
                    image[c, t][labels[c, t] == o] = colour
    perturbed = np.stack([cv2.dilate((labels[:, 0] == o).astype(np.uint8), np.ones((1, 2)))
                          for o in (1, 2)], 1)  # fmt: skip
    valid = np.array([[True, c < clips - 1] for c in range(clips)])
    return jax.tree.map(jnp.asarray, Clip(image, labels, perturbed, valid))


@pytest.mark.parametrize(
    "values",
    [
        (1.0, 1.0, 1.0, 0.0),
        (1.2718, 1.0, 1.0, 0.0),
        (1.0, 0.6, 1.0, 0.0),
        (1.0, 1.0, 0.0, 0.0),
        (1.0, 1.0, 1.5, 0.0),
        (1.0, 1.0, 1.0, 1.2),
        (0.8, 1.3, 0.7, -0.4),
    ],
)
def test_colours_are_opencvs(values):
    frame = smooth(0)
    matrix = host.change_colour(*values)
    ours = device.colour_matrices(*values)
    np.testing.assert_allclose(ours, matrix, rtol=1e-5, atol=1e-4)
    expected = cv2.transform(frame, matrix).astype(int)
    result = np.asarray(device.apply_colour(jnp.asarray(frame), ours))
    exact = np.clip(np.rint(frame @ matrix[:, :3].T + matrix[:, 3]), 0, 255)
    # A half may be rounded either way; OpenCV computes bytes in fixed point besides.
    assert np.abs(result - exact).max() <= 1 and (result == exact).mean() > 0.999
    assert np.abs(result - expected).max() <= 1 and (result == expected).mean() > 0.85


def test_chained_colours_are_the_hosts():
    first, second = (1.2, 0.8, 1.1, 0.3), (0.9, 1.1, 0.7, -0.2)
    ours = device.compose_colours(device.colour_matrices(*first), device.colour_matrices(*second))
    theirs = host.compose_colours(host.change_colour(*first), host.change_colour(*second))
    np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-3)


def test_drawn_colours_have_the_hosts_ranges():
    draw = jax.jit(jax.vmap(lambda k: device.draw_colours(k, 2, _LOUD)))
    draws = np.asarray(draw(jax.random.split(jax.random.key(0), 400)))
    own = np.random.default_rng(0)
    theirs = np.stack(
        [
            host.compose_colours(host.draw_colour(own, _LOUD), host.draw_frame_colour(own, _LOUD))
            for _ in range(400)
        ]
    )
    np.testing.assert_allclose(draws[:, 0].mean(0), theirs.mean(0), atol=4)
    np.testing.assert_allclose(draws[:, 0].std(0), theirs.std(0), rtol=0.25, atol=0.03)
    between = np.abs(draws[:, 0] - draws[:, 1])[..., :3].max()
    assert 0.05 < between < 0.8


def test_batches_change_their_colours_only():
    batch = made_batch()
    run = jax.jit(lambda key, b: device.augment_batch(key, b, _LOUD))
    result = run(jax.random.key(1), batch)
    assert result.frames.dtype == jnp.uint8 and result.frames.shape == batch.frames.shape
    assert same(dataclasses.replace(result, frames=batch.frames), batch)
    frames = np.asarray(result.frames)
    assert (frames[0, 0, 0, 0] != frames[1, 0, 0, 0]).any()  # every clip its own
    assert (frames[0, 0, 0, 0] != frames[0, 1, 0, 0]).any()  # every frame a little
    again = run(jax.random.key(1), batch).frames
    assert (again == frames).all()
    assert (run(jax.random.key(2), batch).frames != frames).any()


def test_what_is_off_changes_nothing():
    batch = made_batch()
    augment = jax.jit(device.augment_batch, static_argnums=2)
    assert same(augment(jax.random.key(0), batch, _STILL), batch)


def test_frames_of_a_clip_are_coloured_alike():
    batch = made_batch()
    batch = dataclasses.replace(batch, frames=jnp.repeat(batch.frames[:, :1], 2, axis=1))
    alike = VideoConfig(brightness=0.4, hue=0.5, frame_colour=0.0)
    augment = jax.jit(device.augment_batch, static_argnums=2)
    frames = augment(jax.random.key(3), batch, alike).frames
    assert (frames[:, 0] == frames[:, 1]).all() and (frames != batch.frames).any()
    grey = augment(jax.random.key(3), batch, VideoConfig(grey=1.0)).frames
    assert np.ptp(np.asarray(grey).astype(int), axis=-1).max() <= 1
