"""The one place where time is: a scan over blocks of frames that share a memory.

Between two memorised frames the memory does not change. So the frames of a block are encoded, read
and decoded as one batch, and the scan runs over blocks; the result is the same as frame by frame.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int, UInt8

from rdejax.models.matching import Features, State, System
from rdejax.propagate.geometry import Geometry


def one_frame(features: Features, index: Int[Array, ""] | int) -> Features:
    """Features of one frame of a batch; keeps the leading axis, of length 1."""
    return jax.tree.map(lambda x: lax.dynamic_slice_in_dim(x, index, 1, axis=0), features)


def prepare(
    model: System, geometry: Geometry, frames: UInt8[Array, "n h w 3"]
) -> Float[Array, "n H W 3"]:
    """Frames of a video as the system's networks take them."""
    return geometry.prepare(frames, model.mean, model.std, model.pad_value)


def remembered(
    model: System, geometry: Geometry, probs: Float[Array, "o+1 H W"]
) -> Float[Array, "o+1 H W"]:
    """Probabilities of a frame as the system's memory gets to see them."""
    return geometry.clear_border(probs) if model.clear_border else probs


def propagate(
    model: System,
    state: State,
    frames: Float[Array, "b n H W 3"],
    write: Int[Array, " b"],
    finish: Callable[[Float[Array, "n o+1 H W"]], Any],
    remember: Callable[[Float[Array, "o+1 H W"]], Float[Array, "o+1 H W"]] = lambda probs: probs,
) -> tuple[State, Any]:
    """Segments blocks of frames and memorises at most one frame of each.

    Args:
      model: the system.
      state: the state before the first block; use the returned one from then on.
      frames: normalised, padded frames: b blocks of n.
      write: per block, the index of the frame to memorise, or -1. Frames after it in the block are
        read from the memory before it, so they must be padding.
      finish: what to keep of a block's probabilities; keeping less saves memory.
      remember: what memory gets to see of a frame's probabilities; default: all.

    Returns:
      The state after the last block, and what `finish` returned for each block, stacked.
    """

    def block(state: State, inputs: tuple[Array, Array]) -> tuple[State, Any]:
        images, index = inputs
        features = model.encode(images)
        state, logits = model.segment(state, features)
        probs = jax.nn.softmax(logits, axis=1)

        def memorize(state: State) -> State:
            at = jnp.maximum(index, 0)
            masks = lax.dynamic_index_in_dim(probs, at, 0, keepdims=False)
            return model.memorize(state, one_frame(features, at), remember(masks))

        state = lax.cond(index >= 0, memorize, lambda s: s, state)
        return state, finish(probs)

    return lax.scan(block, state, (frames, write))
