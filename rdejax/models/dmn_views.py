"""What can be seen of DMN-AOA: relevance, alignment and refinement (`rdejax visualize view`).

The published figures show the same three things; how they were drawn is not told.
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from rdejax.errors import RdejaxError
from rdejax.memory.views import Arrows, Heat, Masks, Moment, View
from rdejax.nn.dmn_networks import coarse_logits, full_size

# Arrows to a side of a template's grid, at most.
_ARROWS = 7


def dmn_views(model: Any) -> Mapping[str, View]:
    """The views of a system of `rdejax.models.dmn_aoa`."""
    return {
        "relevance": View(
            Heat,
            lambda moment: _relevance(model, moment),
            "where the object's pixels look in the template memory",
        ),
        "alignment": View(
            Arrows,
            lambda moment: _alignment(model, moment),
            "which place of the template each place of the matched proposal is compared with",
        ),
        "refinement": View(
            Masks, lambda moment: _refinement(model, moment), "coarse masks and refined ones"
        ),
    }


def _relevance(model: Any, moment: Moment) -> Heat:
    """Mean weight of memory positions for the asking positions of the frame."""
    memory = jax.tree.map(lambda x: x[moment.group], moment.before.memory)
    asking = moment.query.key[0][np.asarray(moment.positions)]
    if not len(asking):
        raise RdejaxError(
            "the object has no pixel in this frame; choose another one with --frames, or a --pixel"
        )
    queries = jnp.broadcast_to(asking[None], (memory.value.shape[0], *asking.shape))
    weights = np.asarray(model.memory.relevance(memory, queries)[moment.slot]).mean(0)
    writes = model.memory.contents(memory).writes
    frames = tuple(moment.written[write] for write in writes)
    return Heat(weights[: len(frames)], frames, tuple(f"frame {t}" for t in frames))


def _alignment(model: Any, moment: Moment) -> Arrows:
    """From the matched proposal's places to those of the template they stand for."""
    state, features = moment.before, moment.query
    row = moment.group * state.valid.shape[1] + moment.slot
    matched = jax.jit(type(model).match)(model, state, features)
    places = len(matched.proposals)
    shares = np.asarray(matched.assignment[row, :places])
    # An absent object has no proposal: the most similar one is shown.
    score = shares if shares.max() > 0.5 else np.asarray(matched.similarity[row])
    chosen = int(np.where(matched.proposals, score, -np.inf).argmax())
    template, mask = model.template(state, features)
    weights = model.alignment.weights(
        template[row][None], features.phi[0, chosen][None], features.foreground[0, chosen][None]
    )[0, 0]
    query = jax.tree.map(lambda x: x[moment.group, moment.slot], state.query)
    grid = model.config.grid
    step = -(-grid // _ARROWS)
    shown = np.arange(grid * grid).reshape(grid, grid)[step // 2 :: step, step // 2 :: step].ravel()
    shown = shown[np.asarray(mask[row])[shown] > 0.5]
    end = _places(np.asarray(query.box), grid)[shown]
    here = _places(np.asarray(features.proposals.boxes[0, chosen]), grid)
    # What a place is compared with is a weighted mean of all places, hence their mean place.
    begin = np.stack([(np.asarray(weights) @ here)[shown], here[shown]])
    frame = moment.written[int(query.write)]
    return Arrows(
        begin,
        np.stack([end, end]),
        np.ones(begin.shape[:2], np.float32),
        (frame, frame),
        (f"aligned with frame {frame}", "not aligned: the same places"),
    )


def _places(box: np.ndarray, grid: int) -> np.ndarray:
    """[grid * grid, 2] (y, x) of the middles of a box's bins."""
    left, top, right, bottom = box
    middle = (np.arange(grid) + 0.5) / grid
    y, x = np.meshgrid(top + middle * (bottom - top), left + middle * (right - left), indexing="ij")
    return np.stack([y, x], axis=-1).reshape(-1, 2).astype(np.float32)


def _refinement(model: Any, moment: Moment) -> Masks:
    """The object's mask before and after RefineNet."""
    row = moment.group * moment.before.valid.shape[1] + moment.slot
    coarse = jax.jit(type(model).match)(model, moment.before, moment.query).coarse
    logits = jax.jit(type(model).refined)(model, moment.before, moment.query, coarse)
    probs = {
        "coarse": jax.nn.sigmoid(full_size(coarse_logits(coarse))[row]),
        "refined": jax.nn.softmax(logits, axis=0)[row + 1],
    }
    return Masks({name: np.asarray(p, np.float32) for name, p in probs.items()})
