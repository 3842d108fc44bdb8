"""One video under many values of a memory rule's continuous settings, in one compiled run."""

import dataclasses
import inspect
from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, UInt8

from rdejax.errors import RdejaxError
from rdejax.io.masks import new_ids
from rdejax.memory.protocol import MemoryRule
from rdejax.memory.registry import rule_settings
from rdejax.models import System
from rdejax.models.protocol import State
from rdejax.models.registry import outline
from rdejax.nn.replaced import replaced
from rdejax.propagate import ids
from rdejax.propagate.geometry import Geometry
from rdejax.propagate.inputs import in_blocks
from rdejax.propagate.programs import segment_blocks, start_video
from rdejax.propagate.schedule import LONGEST_BLOCK, encoded_at_once, next_blocks

_BLOCKS = 4  # blocks of frames per compiled call
# Not compiled by themselves: jit would compare this rule's settings, which are tracers here.
_start_video, _segment_blocks = inspect.unwrap(start_video), inspect.unwrap(segment_blocks)


def sweep_settings(
    model: System,
    frames: np.ndarray,
    first_mask: np.ndarray,
    *,
    size: int | None = None,
    **values: Sequence[float],
) -> UInt8[np.ndarray, "s t h w"]:
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
    if not isinstance(getattr(model, "memory", None), MemoryRule):
        raise RdejaxError(f"settings of {model.name!r} cannot be swept over: it has no memory rule")
    settings = {name: jnp.asarray(v, jnp.float32) for name, v in values.items()}
    _check(model, values)
    frames = ids.checked_frames(frames, None)
    source = (frames.shape[1], frames.shape[2])
    mask = ids.checked_mask(0, first_mask, len(frames), source)
    numbers = new_ids(mask, ())
    if not numbers:
        raise RdejaxError("no object in the mask: every pixel is 0; give ids from 1 to 255")
    wanted = model.settings.size if size is None else size
    masks, valid = ids.one_hot(mask, numbers, range(len(numbers)), len(numbers))
    geometry = Geometry.beginning(model.settings, source, wanted, masks.sum((1, 2)).min())
    width, count = min(model.settings.every, LONGEST_BLOCK), len(frames)
    writes = sum(model.memorizes(time, (0,)) for time in range(1, count))
    state = _start(model, settings, frames[0], masks, valid, geometry=geometry, writes=writes)
    labels, time = [], 1
    while time < count:
        blocks = next_blocks(
            lambda t: model.memorizes(t, (0,)), time, count - time, longest=width, most=_BLOCKS
        )
        used = sum(block.length for block in blocks)
        state, label = _advance(
            model,
            settings,
            state,
            in_blocks(frames[time : time + used], blocks, width),
            np.asarray([block.length for block in blocks], np.int32),
            np.asarray([block.memorize for block in blocks]),
            geometry=geometry,
        )
        real = np.concatenate([np.arange(width) < block.length for block in blocks])
        labels.append(np.asarray(label).reshape(len(label), -1, *source)[:, real])
        time += used
    table = np.array([0, *numbers], np.uint8)
    first = np.broadcast_to(mask, (len(next(iter(settings.values()))), 1, *source))
    return np.concatenate([first, *(table[x] for x in labels)], axis=1)


def _check(model: System, values: dict[str, Any]) -> None:
    name = model.settings.memory
    usable = [key for key, value in rule_settings(name).items() if isinstance(value, float)]
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
    sizes = dataclasses.asdict(model.config)
    for each in zip(*values.values(), strict=True):
        # The constructor knows which values are possible; inside the run it sees none.
        settings = model.settings.override(**dict(zip(values, each, strict=True)))
        outline(model.name, config=sizes, settings=settings)


def _with(model: Any, values: dict[str, Array]) -> System:
    return replaced(model, memory=replaced(model.memory, **values))


@partial(jax.jit, static_argnames=("geometry", "writes"))
def _start(
    model: System,
    settings: dict[str, Float[Array, " s"]],
    *inputs: Array,
    geometry: Geometry,
    writes: int,
) -> State:
    def one(values: dict[str, Array]) -> State:
        each = _with(model, values)
        return each.reserve(_start_video(each, *inputs, geometry=geometry, groups=1)[0], writes)

    return jax.vmap(one)(settings)


@partial(jax.jit, static_argnames="geometry", donate_argnames="state")
def _advance(
    model: System,
    settings: dict[str, Float[Array, " s"]],
    state: State,
    *inputs: Array,
    geometry: Geometry,
) -> tuple[State, UInt8[Array, "s b n h w"]]:
    at_once = encoded_at_once(geometry.inner)

    def one(values: dict[str, Array], state: State) -> tuple[State, Array]:
        each = _with(model, values)
        state, (labels, _) = _segment_blocks(
            each, state, *inputs, geometry=geometry, want_probs=False, at_once=at_once
        )
        return state, labels

    return jax.vmap(one)(settings, state)
