"""The compiled programs of a video: its start, its frames, new objects.

Each is compiled for every geometry, number of groups and slots, and number of frames.
"""

import inspect
from functools import partial

import jax
import jax.numpy as jnp
from jax import Array, lax

from rdejax.models.protocol import Features, State, System, given_probs
from rdejax.propagate.blocks import encode, propagate
from rdejax.propagate.geometry import Geometry
from rdejax.propagate.nearness import bare, begun, joined, segmented
from rdejax.propagate.scanning import scan_some


@partial(jax.jit, static_argnames=("geometry", "groups"))
def start_video(
    model: System,
    frame: Array,
    masks: Array,
    valid: Array,
    given: dict[str, Array] | None = None,
    beside: dict[str, Array] | None = None,
    *,
    geometry: Geometry,
    groups: int,
) -> tuple[State, tuple[Array, Array]]:
    """State after the first mask, and the probabilities that stand for it.

    Args:
      model: the system.
      frame: uint8 [h, w, 3].
      masks: float32 [o, h, w], one-hot; zeros in unused slots.
      valid: bool [o].
      given: see `System.start`.
      beside: see `System.encode`; leading axis 1.
      geometry: of the video.
      groups: groups of slots.

    Returns:
      The state; slot numbers uint8 [h, w] (0 background) and float32 [o + 1, h, w].
    """
    features = encode(model, geometry, frame[None], beside)
    probs = given_probs(geometry.prepare_masks(masks), valid)
    state = model.start(features, probs, valid, groups=groups, given=given)
    return begun(state, probs, model.settings.near), _seen(geometry, probs)


@partial(jax.jit, static_argnames=("geometry", "at_once"))
def encode_blocks(
    model: System,
    frames: Array,
    used: Array | None = None,
    beside: dict[str, Array] | None = None,
    *,
    geometry: Geometry,
    at_once: int | None,
) -> Features:
    """Features of blocks of frames: every leaf [b, n, ...].

    Args:
      model: the system.
      frames: uint8 [b, n, h, w, 3].
      used: how many of the blocks, the first ones, are to be encoded; None: all.
      beside: see `System.encode`; leading axes [b, n].
      geometry: of the video.
      at_once: see `encode`.
    """
    b, n = frames.shape[:2]
    flat, also = jax.tree.map(lambda x: x.reshape(b * n, *x.shape[2:]), (frames, beside))
    features = encode(model, geometry, flat, also, at_once, None if used is None else n * used)
    return jax.tree.map(lambda x: x.reshape(b, n, *x.shape[1:]), features)


@partial(
    jax.jit,
    static_argnames=("geometry", "want_probs", "at_once"),
    donate_argnames="state",
)
def segment_blocks(
    model: System,
    state: State,
    frames: Array | None,
    count: Array,
    memorize: Array,
    beside: dict[str, Array] | None = None,
    features: Features | None = None,
    used: Array | None = None,
    *,
    geometry: Geometry,
    want_probs: bool,
    at_once: int | None = None,
) -> tuple[State, tuple[Array, Array | None]]:
    """The state after blocks of frames, and what is seen in them.

    Args:
      model: the system.
      state: before the first block; donated.
      frames: uint8 [b, n, h, w, 3]; None with `features`.
      count: int32 [b], see `propagate`.
      memorize: bool [b], see `propagate`.
      beside: see `System.encode`; leading axes [b, n].
      features: of the frames, if `encode_blocks` has run.
      used: see `encode_blocks`; other blocks change nothing, and 0 is seen in them.
      geometry: of the video.
      want_probs: whether probabilities are wanted.
      at_once: see `encode`.

    Returns:
      The state; slot numbers uint8 (uint16 of more than 255 slots) [b, n, h, w] (0 background) and,
      if wanted, float32 [b, n, o + 1, h, w].
    """
    if features is None:
        # Not by its compiled form: sweeps trace this with models that hold traced settings.
        encoded = inspect.unwrap(encode_blocks)
        features = encoded(model, frames, used, beside, geometry=geometry, at_once=at_once)

    def finish(probs: Array) -> tuple[Array, Array | None]:
        labels, probs = jax.vmap(partial(_seen, geometry))(probs)
        return labels, probs if want_probs else None

    scan = lax.scan if used is None else partial(scan_some, used=used)
    return propagate(model, state, features, count, memorize, finish, scan=scan)


@partial(jax.jit, static_argnames=("geometry", "memorize"), donate_argnames="state")
def add_objects(
    model: System,
    state: State,
    frame: Array,
    masks: Array,
    new: Array,
    given: dict[str, Array] | None = None,
    beside: dict[str, Array] | None = None,
    *,
    geometry: Geometry,
    memorize: bool,
) -> tuple[State, tuple[Array, Array]]:
    """State with new objects whose masks are in this frame, and the frame's probabilities.

    The objects that are there already are segmented first; see `System.given_beside`.

    Args:
      model: the system.
      state: before this frame; donated.
      frame: uint8 [h, w, 3].
      masks: float32 [o, h, w] of the new objects; zeros in all other slots.
      new: bool [groups, slots] of the new objects.
      given: see `System.start`.
      beside: see `System.encode`; leading axis 1.
      geometry: of the video.
      memorize: whether the old groups memorise this frame.

    Returns:
      The state; slot numbers uint8 [h, w] (0 background) and float32 [o + 1, h, w].
    """
    features = encode(model, geometry, frame[None], beside)
    state, probs = segmented(model, state, features)
    present = (state.valid | new).reshape(-1)
    probs = model.given_beside(probs[0], geometry.prepare_masks(masks), present)
    if memorize:
        state = model.memorize(state, features, probs, groups=state.valid.any(axis=1))
    away = state.away
    state = model.add(bare(state), features, probs, new, given)
    return joined(state, away, probs, new), _seen(geometry, probs)


@partial(
    jax.jit,
    static_argnames=("geometry", "memorize", "permanent", "adds"),
    donate_argnames="state",
)
def correct_objects(
    model: System,
    state: State,
    frame: Array,
    masks: Array,
    corrected: Array,
    new: Array,
    given: dict[str, Array] | None = None,
    beside: dict[str, Array] | None = None,
    *,
    geometry: Geometry,
    memorize: bool,
    permanent: bool,
    adds: bool,
) -> tuple[State, tuple[Array, Array]]:
    """State after a frame in which the masks of some known objects are given, and what is seen.

    The other objects are as predicted, where no given mask covers them; what was predicted of the
    corrected ones is shared out among the others. The groups of corrected objects memorise the
    frame, whatever the schedule.

    Args:
      model: the system.
      state: before this frame; donated.
      frame: uint8 [h, w, 3].
      masks: float32 [o, h, w] of the corrected and the new objects; zeros in all other slots.
      corrected: bool [groups, slots] of the corrected objects.
      new: bool [groups, slots] of the new objects.
      given: see `System.start`; of the new ones.
      beside: see `System.encode`; leading axis 1.
      geometry: of the video.
      memorize: whether all old groups memorise this frame.
      permanent: whether it is memorised by `System.keep`.
      adds: whether there are new objects.

    Returns:
      The state; slot numbers uint8 [h, w] (0 background) of what was predicted without the
      corrected objects, and float32 [o + 1, h, w] with them.
    """
    features = encode(model, geometry, frame[None], beside)
    state, probs = segmented(model, state, features)
    others = _without(probs[0], corrected.reshape(-1))
    present = (state.valid | new).reshape(-1)
    probs = model.given_beside(others, geometry.prepare_masks(masks), present)
    groups = state.valid.any(axis=1) if memorize else corrected.any(axis=1)
    write = model.keep if permanent else model.memorize
    state = write(state, features, probs, groups=groups)
    away = state.away
    if adds:
        state = model.add(bare(state), features, probs, new, given)
    state = joined(state, away, probs, corrected | new)
    return state, (_seen(geometry, others)[0], geometry.restore(probs[None])[0])


def _without(probs: Array, gone: Array) -> Array:
    """Probabilities [o + 1, H, W] without some objects (bool [o])."""
    left = jnp.where(jnp.concatenate([jnp.zeros(1, bool), gone])[:, None, None], 0.0, probs)
    # The background's is never quite 0, but may be too small to divide by.
    left = left.at[0].add(1e-12)
    return left / left.sum(axis=0, keepdims=True)


def _seen(geometry: Geometry, probs: Array) -> tuple[Array, Array]:
    """Labels and probabilities of one frame at the video's own size."""
    probs = geometry.restore(probs[None])[0]
    # Slots may be more than the 255 ids there are: each group has as many as the largest.
    kind = jnp.uint8 if probs.shape[0] <= 256 else jnp.uint16
    return jnp.argmax(probs, axis=0).astype(kind), probs
