"""One video under many values of a memory rule's continuous settings, in one compiled run."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float

from rdejax.errors import RdejaxError
from rdejax.memory.registry import make_rule, rule_settings
from rdejax.models.matching import State, System
from rdejax.propagate.blocks import prepare, propagate, remembered
from rdejax.propagate.geometry import Geometry

_BLOCKS = 4  # blocks of frames per compiled call


def sweep_settings(
    model: System,
    frames: np.ndarray,
    first_mask: np.ndarray,
    *,
    size: int | None = None,
    **values: Sequence[float],
) -> np.ndarray:
    """Masks of a video for each of several values of the memory rule's settings.

    The settings are an axis of `jax.vmap`: one compilation, and what does not depend on them (the
    key encoder, most of all) is computed once. Memory use grows with their number.

    Args:
      model: see `rdejax.load_model`.
      frames: uint8 [T, H, W, 3] RGB.
      first_mask: id mask uint8 [H, W] of frame 0.
      size: shorter side the frames are resized to; default: the model's setting.
      **values: n values of each setting, which must be a number that the rule computes with (SWEM's
        `tau`, the EMA rules' `decay`), not one that gives a shape (`top_k`, `bases`). Several
        settings go together: the i-th run has the i-th value of each.

    Returns:
      uint8 [n, T, H, W], ids.

    Raises:
      RdejaxError: no objects, a setting that the rule lacks or that is not continuous, or unequal
        numbers of values.
    """
    settings = {name: jnp.asarray(v, jnp.float32) for name, v in values.items()}
    _check(model, values)
    frames, first_mask = np.asarray(frames), np.asarray(first_mask)
    ids = [int(i) for i in np.unique(first_mask) if i != 0]
    if not ids:
        raise RdejaxError("no object in the mask: every pixel is 0; give ids from 1 to 255")
    if frames.ndim != 4 or frames.shape[:0:-1] != (3, *first_mask.shape[::-1]):
        raise RdejaxError(
            f"frames are {list(frames.shape)} and the mask {list(first_mask.shape)}; give uint8 "
            "[T, H, W, 3] and [H, W]"
        )
    source = (frames.shape[1], frames.shape[2])
    wanted = model.settings.size if size is None else size
    geometry = Geometry.of(source, wanted, model.settings.pad)
    masks = np.stack([first_mask == i for i in ids]).astype(np.float32)
    every = 1 if model.frame_recurrent else model.settings.every
    blocks, write = _blocks(frames[1:], every)
    capacity = model.memory.capacity(len(blocks))
    state = _start(model, settings, frames[0], masks, geometry=geometry, capacity=capacity)
    labels = []
    for at in range(0, len(blocks), _BLOCKS):
        part = slice(at, at + _BLOCKS)
        state, label = _advance(
            model, settings, state, blocks[part], write[part], geometry=geometry
        )
        labels.append(np.asarray(label).reshape(len(label), -1, *source))
    table = np.array([0, *ids], np.uint8)
    first = np.broadcast_to(first_mask, (len(next(iter(settings.values()))), 1, *source))
    return np.concatenate([first, *(table[x] for x in labels)], axis=1)[:, : len(frames)]


def _check(model: System, values: dict[str, Any]) -> None:
    name = model.settings.memory
    known = rule_settings(name)
    usable = [key for key, default in known.items() if isinstance(default, float)]
    for key in values:
        if key not in usable:
            raise RdejaxError(
                f"setting {key!r} of memory {name!r} cannot be swept over in one run; "
                f"{', '.join(usable) or 'none'} can"
            )
    counts = {key: len(v) for key, v in values.items()}
    if not counts or 0 in counts.values() or len(set(counts.values())) > 1:
        raise RdejaxError(
            f"numbers of values {counts}: give one or more settings, each with as many values"
        )
    for each in zip(*values.values(), strict=True):
        # The constructor knows which values are possible; inside the run it sees none.
        settings = {**dict(model.settings.memory_settings), **dict(zip(values, each, strict=True))}
        sizes = {
            f"{key}_channels": getattr(model.config, f"{key}_channels") for key in ("key", "value")
        }
        nnx.eval_shape(partial(make_rule, name, rngs=nnx.Rngs(0), **sizes, **settings))


def _blocks(frames: np.ndarray, every: int) -> tuple[np.ndarray, np.ndarray]:
    """Frames after the first in blocks that end where one is memorised; padding at the end."""
    count = -(-len(frames) // every)
    padded = np.concatenate([frames, np.repeat(frames[-1:], count * every - len(frames), axis=0)])
    write = np.full(count, every - 1, np.int32)
    if count * every > len(frames):
        write[-1] = -1
    return padded.reshape(count, every, *frames.shape[1:]), write


def _with(model: System, values: dict[str, Array]) -> System:
    # A new object over the same weights: the settings are tracers of the vmap in progress.
    model = jax.tree.map(lambda x: x, model)
    for name, value in values.items():
        setattr(model.memory, name, value)
    return model


@partial(jax.jit, static_argnames=("geometry", "capacity"))
def _start(
    model: System,
    settings: dict[str, Float[Array, " s"]],
    frame: Array,
    masks: Array,
    *,
    geometry: Geometry,
    capacity: int | None,
) -> State:
    def one(values: dict[str, Array]) -> State:
        each = _with(model, values)
        features = each.encode(prepare(each, geometry, frame[None]))
        state = each.start(features, geometry.prepare_masks(masks))
        return state if capacity is None else each.reserve(state, capacity)

    return jax.vmap(one)(settings)


@partial(jax.jit, static_argnames="geometry", donate_argnames="state")
def _advance(
    model: System,
    settings: dict[str, Float[Array, " s"]],
    state: State,
    frames: Array,
    write: Array,
    *,
    geometry: Geometry,
) -> tuple[State, Array]:
    b, n = frames.shape[:2]
    flat = prepare(model, geometry, frames.reshape(b * n, *frames.shape[2:]))
    images = flat.reshape(b, n, *flat.shape[1:])

    def finish(probs: Array) -> Array:
        return jnp.argmax(geometry.restore(probs), axis=1).astype(jnp.uint8)

    def one(values: dict[str, Array], state: State) -> tuple[State, Array]:
        each = _with(model, values)
        return propagate(each, state, images, write, finish, partial(remembered, each, geometry))

    return jax.vmap(one)(settings, state)
