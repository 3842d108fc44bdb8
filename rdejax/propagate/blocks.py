"""The one place where time is: a scan over blocks of frames that share a memory.

Between two memorised frames the memory does not change. So the frames of a block are read and
decoded as one batch, and the scan runs over blocks; the frames of all blocks were encoded as one
batch before. The result is the same as frame by frame.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float, Int, Shaped

from rdejax.models.protocol import Features, State, System, one_frame
from rdejax.propagate.geometry import Geometry
from rdejax.propagate.nearness import segmented
from rdejax.propagate.scanning import scan_some


def prepare(
    model: System, geometry: Geometry, frames: Shaped[Array, "n h w 3"]
) -> Float[Array, "n H W 3"]:
    """Frames of a video as the system's networks take them: resized, normalised, padded.

    Args:
      model: the system, for its normalisation.
      geometry: of the video.
      frames: RGB from 0 to 255, uint8, or floating point where gradients by pixels are wanted.
    """
    return geometry.prepare(frames, model.mean, model.std).astype(model.settings.precision)


def encode(
    model: System,
    geometry: Geometry,
    frames: Shaped[Array, "n h w 3"],
    beside: dict[str, Array] | None = None,
    at_once: int | None = None,
    used: Int[Array, ""] | None = None,
) -> Features:
    """Features of a video's frames, encoded as one batch.

    Args:
      model: the system.
      geometry: of the video.
      frames: the frames.
      beside: see `System.encode`.
      at_once: most frames encoded at once, which bounds the memory that the encoder's inner
        features take; None: all.
      used: how many of the frames, the first ones, are encoded at all if they are more than
        `at_once`; None: all of them.
    """

    def some(inputs: tuple[Array, dict[str, Array] | None]) -> Features:
        frames, beside = inputs
        return model.encode(prepare(model, geometry, frames), geometry.inside(), beside)

    count = frames.shape[0]
    if at_once is None or count <= at_once:
        return some((frames, beside))
    # The last batch is filled up with copies of the last frame rather than compiled a second time.
    batches = -(-count // at_once)
    index = jnp.minimum(jnp.arange(batches * at_once), count - 1)
    parts = jax.tree.map(
        lambda x: x[index].reshape(batches, at_once, *x.shape[1:]), (frames, beside)
    )
    if used is None:
        features = lax.map(some, parts)
    else:
        batches = (used + at_once - 1) // at_once
        features = scan_some(lambda none, x: (none, some(x)), (), parts, batches)[1]
    return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:])[:count], features)


def propagate(
    model: System,
    state: State,
    features: Features,
    count: Int[Array | np.ndarray, " b"],
    memorize: Bool[Array | np.ndarray, " b"],
    finish: Callable[[Float[Array, "n c H W"]], Any] = lambda probs: probs,
    *,
    scan: Callable[..., Any] = lax.scan,
) -> tuple[State, Any]:
    """Segments blocks of frames and memorises at most one frame of each, the last real one.

    Args:
      model: the system.
      state: the state before the first block; use the returned one from then on.
      features: of b blocks of n frames, every leaf [b, n, ...].
      count: real frames of each block, from 1 to n; those behind them are padding.
      memorize: whether a block's last real frame is memorised.
      finish: what to keep of a block's probabilities; keeping less saves memory.
      scan: in place of `jax.lax.scan`; `rdejax.propagate.scan` where gradients are taken, which
        does without a loop on CPUs, and without a branch where `memorize` is a NumPy array. One
        that leaves blocks out (`scanning.scan_some`) may be given blocks without a real frame.

    Returns:
      The state after the last block, and what `finish` returned for each block, stacked.
    """
    width = jax.tree.leaves(features)[0].shape[1]

    def block(state: State, inputs: tuple[Features, Array, Array]) -> tuple[State, Any]:
        features, count, memorize = inputs
        real = None if width == 1 else jnp.arange(width) < count
        state, probs = segmented(model, state, features, real)

        def write(state: State) -> State:
            last = lax.dynamic_index_in_dim(probs, count - 1, 0, keepdims=False)
            return model.memorize(state, one_frame(features, count - 1), last)

        if isinstance(memorize, np.bool_):
            state = write(state) if memorize else state
        else:
            state = lax.cond(memorize, write, lambda s: s, state)
        return state, finish(probs)

    return scan(block, state, (features, count, memorize))
