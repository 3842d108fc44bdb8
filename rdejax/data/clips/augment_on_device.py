"""Colour augmentation of whole batches on the accelerator, to be jitted into the step.

The same changes as `rdejax.data.clips.augment` makes on the host, drawn from a JAX key. They apply
to every clip of a batch, whatever it was made from. Clips are independent of each other, so a
sharded batch stays where it is. Warps stay on the host, which resamples every frame to the clip's
size anyway: a second time would only cost sharpness.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float, UInt8

from rdejax.data.batch import Clip
from rdejax.data.clips.appearance import colour_matrix
from rdejax.data.config import VideoConfig

# The colour matrix is affine in contrast and in the chroma's rotation, so three instances of the
# host's tell all of them, and there is one formula.
_GREY = colour_matrix(1.0, 0.0)[:, :3]
_BASIS = np.stack(
    [_GREY, *(colour_matrix(1.0, 1.0, hue)[:, :3] - _GREY for hue in (0.0, np.pi / 2))]
)
_PIVOT = float(colour_matrix(0.0)[0, 3])
_EXACT = jax.lax.Precision.HIGHEST  # GPUs would otherwise multiply in TF32, which moves colours


def colour_matrices(brightness, contrast, saturation, hue) -> Float[Array, "*n 3 4"]:
    """Affine maps of RGB in levels of 255; as `augment.change_colour`, for arrays [*n].

    Args:
      brightness: factor on all.
      contrast: factor about mid grey.
      saturation: factor on the chroma.
      hue: its rotation in radians.
    """
    values = jnp.broadcast_arrays(brightness, contrast, saturation, hue)
    brightness, contrast, saturation, hue = (jnp.asarray(v, jnp.float32) for v in values)
    chroma = saturation * jnp.cos(hue), saturation * jnp.sin(hue)
    weights = jnp.stack([jnp.ones_like(hue), *chroma], axis=-1)
    mix = contrast[..., None, None] * jnp.einsum(
        "...k,kij->...ij", weights, _BASIS, precision=_EXACT
    )
    shift = jnp.broadcast_to((_PIVOT * (1.0 - contrast))[..., None, None], (*mix.shape[:-1], 1))
    return brightness[..., None, None] * jnp.concatenate([mix, shift], axis=-1)


def compose_colours(
    first: Float[Array, "*n 3 4"], second: Float[Array, "*n 3 4"]
) -> Float[Array, "*n 3 4"]:
    """One map after the other."""
    mix = jnp.matmul(second[..., :3], first, precision=_EXACT)
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
    return compose_colours(jnp.broadcast_to(common, each.shape), each)


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
