"""Objects that look alike are told apart by where they were: a pixel goes to the nearer one.

Matching by keys knows no places, so what it finds of two dancers in the same dress goes to either.
This prior between objects (this project's own, no published one) makes an object pay for every
pixel that lies farther from its latest mask than from another object's. It shares out what was
found among the objects and leaves the background's probability as it is, so that an object alone
is segmented as without it, and a new place that no other object claims costs nothing.
"""

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float

from rdejax.models.protocol import Features, State, System
from rdejax.nn.layers import resize_bilinear

_GRID = 8  # pixels of the working resolution to a position of the distances
_CELL = 16 // _GRID  # positions to a side of a cell of the networks' grid
_FREE = 0.5  # cells that cost nothing: what moves covers new pixels
_MOST = 4.0  # largest cost in logits, so that clear evidence wins over any distance
_SEEN = 0.3  # an object that covers no position by more than this is not seen
_RETURN = 1.0  # cells per frame by which the unseen may be farther than it was last seen
_NOWHERE = 1e4


def distances(masks: Float[Array, "o H W"]) -> tuple[Float[Array, "o h w"], Bool[Array, " o"]]:
    """How far from each object a position lies, in cells of 16 pixels, and which can be seen.

    Args:
      masks: in [0, 1]; sides are multiples of 8.

    Returns:
      Distances on a grid of stride 8, 0 on the object; those of an object that is not seen mean
      nothing.
    """
    o, height, width = masks.shape
    h, w = height // _GRID, width // _GRID
    rows = masks.reshape(o, h, _GRID, width).mean(2)  # one axis at a time is far faster on CPUs
    cover = rows.reshape(o, h, w, _GRID).mean(3)
    most = cover.max((1, 2), keepdims=True)
    # Squared distances, first along the columns, then along the rows.
    start = jnp.where(cover >= jnp.minimum(0.5, most), 0.0, _NOWHERE**2)
    along = jnp.min(start[:, None] + _squares(h)[None, :, :, None], axis=2)
    across = jnp.min(along[:, :, None] + _squares(w)[None, None], axis=3)
    return jnp.sqrt(across) / _CELL, most[:, 0, 0] > _SEEN


def moved_on(away: Float[Array, "o h w"], masks: Float[Array, "o H W"]) -> Float[Array, "o h w"]:
    """Distances after a frame; an object that is not seen in it may come back farther away."""
    new, seen = distances(masks)
    return jnp.where(seen[:, None, None], new, jnp.maximum(away - _RETURN, 0.0))


def prefer_near(
    probs: Float[Array, "c H W"],
    away: Float[Array, "o h w"],
    valid: Bool[Array, " o"],
    near: float,
) -> Float[Array, "c H W"]:
    """Probabilities of background and objects, those of objects lower where another is nearer.

    Args:
      probs: sums over axis 0 are 1; c is o + 1.
      away: distances from the objects' latest masks.
      valid: slots that hold an object.
      near: logits that a cell of distance costs.

    Returns:
      Probabilities, the background's as it was.
    """
    away = jnp.where(valid[:, None, None], away, _NOWHERE)
    farther = away - away.min(axis=0, keepdims=True) - _FREE
    cost = jnp.clip(near * farther, 0.0, _MOST)
    cost = resize_bilinear(cost[..., None], (probs.shape[1], probs.shape[2]))[..., 0]
    found = probs[1:]
    shared = found * jnp.exp(-cost)
    # Less than any probability that counts, for where there is no object at all.
    share = found.sum(axis=0, keepdims=True) / (shared.sum(axis=0, keepdims=True) + 1e-30)
    return jnp.concatenate([probs[:1], shared * share])


def begun(state: State, probs: Float[Array, "c H W"], near: float) -> State:
    """The state with distances from all objects as they are in this frame, if they are wanted."""
    if not near:
        return state
    away = distances(probs[1:])[0]
    return state.replace(away=away.reshape(*state.valid.shape, *away.shape[1:]))  # type: ignore[attr-defined]


def shared_out(
    state: State, probs: Float[Array, "n c H W"], real: Bool[Array, " n"], near: float
) -> tuple[State, Float[Array, "n c H W"]]:
    """Probabilities of the frames of a block with `prefer_near`, and the state after them.

    Args:
      state: before the block.
      probs: of its frames, in the order of time.
      real: frames that are no padding; these come last and change no state.
      near: see `prefer_near`.
    """
    if state.away is None or state.valid.size == 1:  # an object alone has none to be told from
        return state, probs
    valid, shape = state.valid.reshape(-1), state.away.shape

    def frame(away: Array, now: tuple[Array, Array]) -> tuple[Array, Array]:
        probs, counts = now
        probs = prefer_near(probs, away, valid, near)
        return jnp.where(counts, moved_on(away, probs[1:]), away), probs

    before = state.away.reshape(-1, *shape[2:])
    if len(probs) == 1:
        away, first = frame(before, (probs[0], real[0]))
        probs = first[None]
    else:
        away, probs = lax.scan(frame, before, (probs, real))
    return state.replace(away=away.reshape(shape)), probs  # type: ignore[attr-defined]


def segmented(
    model: System, state: State, features: Features, real: Bool[Array, " n"] | None = None
) -> tuple[State, Float[Array, "n c H W"]]:
    """The state after frames that share a memory, and their probabilities, `prefer_near` included.

    Args:
      model: the system.
      state: see `System.segment`.
      features: see `System.segment`.
      real: see `System.segment`.
    """
    state, probs = model.segment_probs(state, features, real)
    real = jnp.ones(len(probs), bool) if real is None else real
    return shared_out(state, probs, real, model.settings.near)


def bare(state: State) -> State:
    """The state without distances: the groups that a system adds have none to merge them with."""
    return state.replace(away=None)  # type: ignore[attr-defined]


def joined(
    state: State,
    away: Float[Array, "g s h w"] | None,
    probs: Float[Array, "c H W"],
    new: Bool[Array, "g s"],
) -> State:
    """The state after a frame that brought new objects.

    Args:
      state: with the new objects.
      away: distances of the old ones, after this frame; None: they are not wanted.
      probs: of this frame, old and new objects.
      new: slots of the new objects.
    """
    if away is None:
        return state
    fresh = distances(probs[1:])[0].reshape(away.shape)
    return state.replace(away=jnp.where(new[..., None, None], fresh, away))  # type: ignore[attr-defined]


def _squares(count: int) -> Float[Array, "n n"]:
    at = jnp.arange(count, dtype=jnp.float32)
    return (at[:, None] - at[None]) ** 2
