"""Objects that look alike are told apart by where they were: a pixel goes to the nearer one.

Matching by keys knows no places, so what it finds of two dancers in the same dress goes to either.
This prior between objects (this project's own, no published one) makes an object pay for every
pixel that lies farther from its latest mask than from another object's. It shares out what was
found among the objects and leaves the background's probability as it is, so that an object alone
is segmented as without it, and a new place that no other object claims costs nothing.
"""

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float

from rdejax.models.protocol import Features, State, System

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
    cover = masks.reshape(o, h, _GRID, w, _GRID).mean((2, 4))
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
    logits: Float[Array, "c H W"],
    away: Float[Array, "o h w"],
    valid: Bool[Array, " o"],
    near: float,
) -> Float[Array, "c H W"]:
    """Logits of background and objects, those of objects lower where another one is nearer.

    Args:
      logits: a softmax over axis 0 gives probabilities; c is o + 1.
      away: distances from the objects' latest masks.
      valid: slots that hold an object.
      near: logits that a cell of distance costs.

    Returns:
      Logits with the same probability of the background.
    """
    away = jnp.where(valid[:, None, None], away, _NOWHERE)
    farther = away - away.min(axis=0, keepdims=True) - _FREE
    cost = jnp.clip(near * farther, 0.0, _MOST)
    cost = jax.image.resize(cost, (len(away), *logits.shape[1:]), "bilinear")
    found = logits[1:]
    shared = found - cost
    lost = [jax.nn.logsumexp(x, axis=0, keepdims=True) for x in (found, shared)]
    return jnp.concatenate([logits[:1], shared + (lost[0] - lost[1])])


def begun(state: State, probs: Float[Array, "c H W"], near: float) -> State:
    """The state with distances from all objects as they are in this frame, if they are wanted."""
    if not near:
        return state
    away = distances(probs[1:])[0]
    return state.replace(away=away.reshape(*state.valid.shape, *away.shape[1:]))  # type: ignore[attr-defined]


def shared_out(
    state: State, logits: Float[Array, "n c H W"], real: Bool[Array, " n"], near: float
) -> tuple[State, Float[Array, "n c H W"]]:
    """Logits of the frames of a block with `prefer_near`, and the state after them.

    Args:
      state: before the block.
      logits: of its frames, in the order of time.
      real: frames that are no padding; these come last and change no state.
      near: see `prefer_near`.
    """
    if state.away is None or state.valid.size == 1:  # an object alone has none to be told from
        return state, logits
    valid, shape = state.valid.reshape(-1), state.away.shape

    def frame(away: Array, now: tuple[Array, Array]) -> tuple[Array, Array]:
        logits, counts = now
        logits = prefer_near(logits, away, valid, near)
        new = moved_on(away, jax.nn.softmax(logits, axis=0)[1:])
        return jnp.where(counts, new, away), logits

    away, logits = lax.scan(frame, state.away.reshape(-1, *shape[2:]), (logits, real))
    return state.replace(away=away.reshape(shape)), logits  # type: ignore[attr-defined]


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
    if state.away is None or state.valid.size == 1:
        return model.segment_probs(state, features, real)
    state, logits = model.segment(state, features, real)
    real = jnp.ones(len(logits), bool) if real is None else real
    state, logits = shared_out(state, logits, real, model.settings.near)
    return state, jax.nn.softmax(logits, axis=1)


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
