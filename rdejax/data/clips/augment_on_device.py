"""Augmentation of whole batches on the accelerator: pure functions, to be jitted into the step.

The same changes as `rdejax.data.clips.augment` makes on the host (but for the spline), drawn from a
JAX key. They apply to every clip of a batch, whatever it was made from. Clips are independent of
each other, so a sharded batch stays where it is.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike
from jaxtyping import Bool, Float, UInt8

from rdejax.data.batch import Clip
from rdejax.data.clips.appearance import colour_matrix
from rdejax.data.clips.augment import ASPECT, FILL
from rdejax.data.config import VideoConfig

_IOU_LOSS = 0.1  # by which cropping may lower a first mask's IoU before the clip is left as it is

# The colour matrix is affine in contrast and in the chroma's rotation, so three instances of the
# host's tell all of them, and there is one formula.
_LUMA = colour_matrix(1.0, 0.0)[:, :3]
_COS = colour_matrix(1.0, 1.0, 0.0)[:, :3] - _LUMA
_SIN = colour_matrix(1.0, 1.0, np.pi / 2)[:, :3] - _LUMA
_PIVOT = float(colour_matrix(0.0)[0, 3])


# Colour


def colour_matrices(brightness, contrast, saturation, hue) -> Float[Array, "*n 3 4"]:
    """Affine maps of RGB in levels of 255; as `frame_augment.change_colour`, for arrays [*n].

    Args:
      brightness: factor on all.
      contrast: factor about mid grey.
      saturation: factor on the chroma.
      hue: its rotation in radians.
    """
    brightness, contrast, saturation, hue = (
        jnp.asarray(value, jnp.float32)[..., None, None]
        for value in jnp.broadcast_arrays(brightness, contrast, saturation, hue)
    )
    mix = _LUMA + saturation * (jnp.cos(hue) * _COS + jnp.sin(hue) * _SIN)
    shift = jnp.broadcast_to(_PIVOT * (1.0 - contrast), (*mix.shape[:-1], 1))
    return brightness * jnp.concatenate([contrast * mix, shift], axis=-1)


def chain(first: Float[Array, "*n 3 4"], second: Float[Array, "*n 3 4"]) -> Float[Array, "*n 3 4"]:
    """One map after the other."""
    mix = _product(second[..., :3], first)
    return mix.at[..., 3].add(second[..., 3])


def apply_colour(
    frames: UInt8[Array, "*n h w 3"], matrices: Float[Array, "*n 3 4"]
) -> UInt8[Array, "*n h w 3"]:
    """Maps colours, rounds and clips; `cv2.transform`."""
    # Plane by plane: sums over an axis of three are what XLA's CPU backend is slowest at.
    planes = [frames[..., c].astype(jnp.float32) for c in range(3)]
    mixed = [
        sum((row[..., c, None, None] * planes[c] for c in range(3)), row[..., 3, None, None])
        for row in (matrices[..., k, :] for k in range(3))
    ]
    return jnp.clip(jnp.rint(jnp.stack(mixed, axis=-1)), 0, 255).astype(jnp.uint8)


def draw_colours(key: Array, frames: int, video: VideoConfig) -> Float[Array, "t 3 4"]:
    """Colour changes of the frames of a clip: one for all, and a little one for each."""
    common_key, grey_key, own_key = jax.random.split(key, 3)
    reach = jnp.array([video.brightness, video.contrast, video.saturation, video.hue])
    drawn = reach * jax.random.uniform(common_key, (4,), minval=-1.0)
    grey = jax.random.bernoulli(grey_key, float(video.grey))
    saturation = jnp.where(grey, 0.0, 1 + drawn[2])
    common = colour_matrices(1 + drawn[0], 1 + drawn[1], saturation, drawn[3])
    own = 1 + video.frame_colour * jax.random.uniform(own_key, (3, frames), minval=-1.0)
    each = colour_matrices(own[0], own[1], own[2], 0.0)
    return chain(jnp.broadcast_to(common, each.shape), each)


def augment_batch(key: Array, batch: Clip, video: VideoConfig) -> Clip:
    """Changes the colours of a batch of clips, per clip and per frame.

    Args:
      key: of this step.
      batch: with one leading axis; only `frames` is looked at.
      video: brightness, contrast, saturation, hue, grey and frame_colour.

    Returns:
      The batch with other frames, of the same shape and type.
    """
    clips, frames = batch.frames.shape[:2]
    keys = jax.random.split(key, clips)
    matrices = jax.vmap(lambda k: draw_colours(k, frames, video))(keys)
    return dataclasses.replace(batch, frames=apply_colour(batch.frames, matrices))


# Geometry


def affine_matrix(
    size: int, turn=0.0, shear=0.0, zoom=1.0, flip: ArrayLike = False, shift=(0.0, 0.0)
) -> Float[Array, "3 3"]:
    """From output to source pixels; as `frame_augment.affine` about the middle of the frame."""
    angle, skew = jnp.deg2rad(turn), jnp.tan(jnp.deg2rad(shear))
    cos, sin = jnp.cos(angle) / zoom, jnp.sin(angle) / zoom
    mirror = jnp.where(flip, -1.0, 1.0)
    xx, xy = mirror * (cos + skew * sin), mirror * (sin - skew * cos)
    yx, yy = -sin, cos
    middle = (size - 1) / 2
    u, v = middle + shift[0], middle + shift[1]
    rows = [xx, xy, middle - xx * u - xy * v, yx, yy, middle - yx * u - yy * v, 0.0, 0.0, 1.0]
    return jnp.stack([jnp.asarray(value, jnp.float32) for value in rows]).reshape(3, 3)


def crop_matrix(left, top, width, height, size: int) -> Float[Array, "3 3"]:
    """From output to source pixels; as `frame_augment.crop`."""
    x, y = width / size, height / size
    rows = [x, 0.0, left + 0.5 * x - 0.5, 0.0, y, top + 0.5 * y - 0.5, 0.0, 0.0, 1.0]
    return jnp.stack([jnp.asarray(value, jnp.float32) for value in rows]).reshape(3, 3)


def source_points(matrix: Float[Array, "3 3"], size: int) -> tuple[Array, Array]:
    """Source x and y of all output pixels, float32 [s, s]."""
    axis = jnp.arange(size, dtype=jnp.float32)
    x, y = axis[None, :], axis[:, None]
    u, v = (matrix[i, 0] * x + matrix[i, 1] * y + matrix[i, 2] for i in range(2))
    return u, v


def warp_frame(
    frame: UInt8[Array, "h w 3"], x: Float[Array, "s s"], y: Float[Array, "s s"]
) -> UInt8[Array, "s s 3"]:
    """Linear interpolation, ImageNet's mean colour beyond the frame; as `cv2.remap`."""
    left, top = jnp.floor(x), jnp.floor(y)
    across, down = (x - left)[..., None], (y - top)[..., None]

    def tap(dy: int, dx: int) -> Array:
        return _pick(frame, left + dx, top + dy, jnp.array(FILL, jnp.uint8)).astype(jnp.float32)

    upper = tap(0, 0) * (1 - across) + tap(0, 1) * across
    lower = tap(1, 0) * (1 - across) + tap(1, 1) * across
    return jnp.rint(upper * (1 - down) + lower * down).astype(jnp.uint8)


def warp_ids(
    ids: UInt8[Array, "h w"], x: Float[Array, "s s"], y: Float[Array, "s s"]
) -> UInt8[Array, "s s"]:
    """The nearest pixel's id, 0 beyond the frame."""
    return _pick(ids, jnp.rint(x), jnp.rint(y), jnp.uint8(0))


def draw_warp(key: Array, target: Bool[Array, "s s"], video: VideoConfig) -> Float[Array, "3 3"]:
    """Flip, rotation, shear, zoom and a crop that shows a random pixel of `target`."""
    size = target.shape[0]
    affine_key, flip_key, pixel_key, area_key, origin_key = jax.random.split(key, 5)
    turn, shear, zoom = jax.random.uniform(affine_key, (3,), minval=-1.0)
    flip = jax.random.bernoulli(flip_key, float(video.flip))
    canvas = affine_matrix(
        size, video.turn * turn, video.shear * shear, 1 + video.zoom * zoom, flip
    )
    if video.crop >= 1:
        return canvas
    chance = jnp.where(target.ravel(), 0.0, -jnp.inf)
    pixel = jax.random.categorical(pixel_key, jnp.where(target.any(), chance, 0.0))
    at = jnp.array([pixel % size, pixel // size, 1], jnp.float32)
    focus = jnp.clip(_product(jnp.linalg.inv(canvas), at[:, None])[:2, 0], 0, size - 1)
    share, aspect = jax.random.uniform(area_key, (2,))
    side = size * jnp.sqrt(video.crop + (1 - video.crop) * share)
    stretch = jnp.exp((aspect - 0.5) * jnp.log(ASPECT))
    wide, high = jnp.minimum(side * stretch, size), jnp.minimum(side / stretch, size)
    extent = jnp.stack([jnp.minimum(wide, ASPECT * high), jnp.minimum(high, ASPECT * wide)])
    low = jnp.maximum(0.0, focus + 1 - extent)
    high_end = jnp.maximum(low, jnp.minimum(size - extent, focus))
    origin = low + jax.random.uniform(origin_key, (2,)) * (high_end - low)
    return _product(canvas, crop_matrix(origin[0], origin[1], extent[0], extent[1], size))


def warp_clip(key: Array, clip: Clip, video: VideoConfig) -> Clip:
    """`warp_batch` of one clip, without the leading axis."""
    frames, labels, size = clip.frames, clip.labels, clip.labels.shape[-1]
    sequence_key, frame_key = jax.random.split(key)
    sequence = draw_warp(sequence_key, labels[0] == 1, video)
    drawn = jax.random.uniform(frame_key, (len(frames), 3), minval=-1.0)
    reach = jnp.array([video.frame_turn, *2 * [video.frame_shift * size]])

    def whole(own: Array) -> Array:
        turn, *shift = own * reach
        return _product(sequence, affine_matrix(size, turn, shift=shift))

    matrices = jax.vmap(whole)(drawn)
    kept = _still_shown(clip, matrices[0], video.min_area)
    matrices = jnp.where(kept, matrices, jnp.eye(3))
    x, y = jax.vmap(lambda m: source_points(m, size))(matrices)
    first = jax.vmap(lambda mask: warp_ids(mask, x[0], y[0]))(clip.perturbed)
    return dataclasses.replace(
        clip,
        frames=jax.vmap(warp_frame)(frames, x, y),
        labels=jax.vmap(warp_ids)(labels, x, y),
        perturbed=first,
    )


def warp_batch(key: Array, batch: Clip, video: VideoConfig) -> Clip:
    """Mirrors, turns, shears, scales and crops clips, each in its own way; ids stay exact.

    A clip stays as it is if one of its objects would leave its first frame (`min_area`), or its
    perturbed first mask would no longer fit.

    Args:
      key: of this step.
      batch: with one leading axis.
      video: flip, turn, shear, zoom, crop, frame_turn, frame_shift and min_area.

    Returns:
      The batch with other frames, labels and perturbed masks, of the same shapes and types.
    """
    keys = jax.random.split(key, len(batch.frames))
    return jax.vmap(lambda k, clip: warp_clip(k, clip, video))(keys, batch)


def _product(a: Array, b: Array) -> Array:
    # GPUs would otherwise multiply in TF32, which moves pixels.
    return jnp.matmul(a, b, precision=jax.lax.Precision.HIGHEST)


def _pick(source: Array, x: Array, y: Array, fill: Array) -> Array:
    """source[y, x] for whole numbers in float32, `fill` beyond it."""
    height, width = source.shape[:2]
    inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
    column = jnp.clip(x, 0, width - 1).astype(jnp.int32)
    row = jnp.clip(y, 0, height - 1).astype(jnp.int32)
    inside = inside.reshape(inside.shape + (1,) * (source.ndim - 2))
    return jnp.where(inside, source[row, column], fill)


def _still_shown(clip: Clip, matrix: Array, least: float) -> Array:
    """Whether every object is still in the first frame, with a perturbed mask that fits."""
    size = clip.labels.shape[-1]
    x, y = source_points(matrix, size)
    slots = jnp.arange(1, len(clip.valid) + 1)[:, None, None]
    masks, perturbed = clip.labels[0] == slots, clip.perturbed > 0
    pick = jax.vmap(lambda mask: warp_ids(mask.astype(jnp.uint8), x, y) > 0)
    seen, seen_perturbed = pick(masks), pick(perturbed)
    large = seen.sum((1, 2)) >= max(1.0, least * size**2)
    fits = _iou(seen, seen_perturbed) >= _iou(masks, perturbed) - _IOU_LOSS
    return jnp.all(~clip.valid | (large & fits))


def _iou(a: Bool[Array, "o s s"], b: Bool[Array, "o s s"]) -> Float[Array, " o"]:
    return (a & b).sum((1, 2)) / jnp.maximum(1, (a | b).sum((1, 2)))
