"""Proposals: boxes and masks of what may be an object, whoever made them.

Three sources give the same thing: the model's own head (`rdejax.nn.dmn_detector`), an outside
detector (`from_arrays`), and true masks (`oracle`), for tests and ablations.
"""

from collections.abc import Mapping

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float, Key, Shaped

from rdejax.errors import RdejaxError
from rdejax.nn.dmn_boxes import box_of, resampled, resampling

STRIDE = 4
"""Of the masks of proposals."""
NAMES = ("proposal_masks", "proposal_boxes", "proposal_scores")
"""Arrays of an outside detector; the first is needed, the others may be left out."""


@flax.struct.dataclass
class Proposals:
    """What was proposed in n frames, in a static number of places.

    Attributes:
      boxes: [n, p, 4] left, top, right, bottom in pixels of the padded frame.
      masks: [n, p, h4, w4] of stride 4, 0 to 1.
      scores: [n, p], 0 to 1.
      valid: [n, p] places that hold a proposal; the others change nothing.
    """

    boxes: Float[Array, "n p 4"]
    masks: Float[Array, "n p h4 w4"]
    scores: Float[Array, "n p"]
    valid: Bool[Array, "n p"]


def checked_arrays(
    arrays: Mapping[str, Shaped[np.ndarray, "..."]],
) -> dict[str, Shaped[np.ndarray, "..."]]:
    """An outside detector's arrays of some frames, as `from_arrays` takes them.

    Args:
      arrays: by name: "proposal_masks" [n, p, mh, mw], bool, or numbers from 0 to 1, over the whole
        frame at any resolution; "proposal_boxes" [n, p, 4], left, top, right, bottom as shares of
        the frame's width and height; "proposal_scores" [n, p], 0 to 1, 0 in unused places.

    Raises:
      RdejaxError: names the array, what is wrong with it, and what it should be.
    """
    if not arrays:
        return {}
    if NAMES[0] not in arrays:
        raise RdejaxError(
            f"{', '.join(arrays)} without {NAMES[0]}: give the masks [frames, proposals, height, "
            "width], too"
        )
    shape = arrays[NAMES[0]].shape
    out = {}
    for name, array in arrays.items():
        if name == NAMES[0] and (array.ndim != 4 or 0 in shape[1:]):
            raise RdejaxError(
                f"{name} has shape {list(array.shape)}; give [frames, proposals, height, width]"
            )
        want = (*shape[:2], 4) if name == NAMES[1] else shape[:2]
        if name != NAMES[0] and array.shape != want:
            raise RdejaxError(
                f"{name} has shape {list(array.shape)} beside masks {list(shape)}; give "
                f"{list(want)}"
            )
        if array.dtype.kind not in "bfiu":
            raise RdejaxError(f"{name} holds {array.dtype}, no numbers; give floats from 0 to 1")
        if array.size and not (np.min(array) >= 0 and np.max(array) <= 1):
            most = "shares of the frame, 0 to 1" if name == NAMES[1] else "numbers from 0 to 1"
            raise RdejaxError(
                f"{name} holds values from {np.min(array):g} to {np.max(array):g}; give {most}"
            )
        kept = array.dtype in (bool, np.float16, np.float32)
        out[name] = array if kept else array.astype(np.float32)
    boxes = out.get(NAMES[1])
    used = out[NAMES[2]] > 0 if NAMES[2] in out else None
    if boxes is not None:
        flat = (boxes[..., 2:] <= boxes[..., :2]).any(-1)
        flat = flat & used if used is not None else flat & out[NAMES[0]].any((2, 3))
        if flat.any():
            frame, place = np.argwhere(flat)[0].tolist()
            raise RdejaxError(
                f"{NAMES[1]} of frame {frame}, proposal {place} is {boxes[frame, place].tolist()}; "
                "give left, top, right, bottom with left below right and top below bottom"
            )
    return out


def from_arrays(arrays: Mapping[str, Array], inside: Bool[Array, "H W"], most: int) -> Proposals:
    """An outside detector's proposals on the grid of stride 4 of padded frames.

    Without boxes they are those of the masks; without scores all are 1, and empty masks no
    proposals.

    Args:
      arrays: see `checked_arrays`.
      inside: the video's own pixels in the padded frame, a rectangle.
      most: of each frame the `most` highest scores are kept.
    """
    masks = arrays[NAMES[0]].astype(jnp.float32)
    given = arrays.get(NAMES[2])
    # Without scores: that of an empty mask is 0.
    scores = masks.max((2, 3)) if given is None else given.astype(jnp.float32)
    boxes = arrays.get(NAMES[1])
    if masks.shape[1] > most:
        scores, index = lax.top_k(scores, most)
        masks = jnp.take_along_axis(masks, index[..., None, None], axis=1)
        boxes = boxes if boxes is None else jnp.take_along_axis(boxes, index[..., None], axis=1)
    top, height, down = _axis(inside.any(1), masks.shape[2])
    left, width, across = _axis(inside.any(0), masks.shape[3])
    masks = resampled(masks, down, across)
    if boxes is None:
        box, _ = box_of(masks, STRIDE)
    else:
        scale = jnp.stack([width, height, width, height]).reshape(1, 1, 4)
        box = boxes.astype(jnp.float32) * scale + jnp.stack([left, top, left, top]).reshape(1, 1, 4)
    return Proposals(box, masks, scores, scores > 0)


def _axis(inside: Bool[Array, " N"], size: int) -> tuple[Array, Array, Float[Array, "n m"]]:
    """First pixel and length of the rectangle along an axis; weights of `size` samples on it."""
    first, length = jnp.argmax(inside).astype(jnp.float32), inside.sum().astype(jnp.float32)
    places = (jnp.arange(inside.size // STRIDE, dtype=jnp.float32) + 0.5) * STRIDE
    return first, length, resampling((places - first) / length, STRIDE / length, size)


def oracle(
    masks: Float[Array, "n o h4 w4"],
    count: int,
    key: Key[Array, ""],
    *,
    jitter: float = 0.0,
) -> Proposals:
    """True masks as proposals, among random ellipses, in random order in each frame.

    Args:
      masks: true masks at stride 4; empty ones are no proposals.
      count: proposals of each frame, no fewer than objects.
      key: of the order, the ellipses and the jitter.
      jitter: standard deviation of shift (as a share of the box's size) and of log scale.

    Raises:
      RdejaxError: fewer proposals than objects.
    """
    n, o, h, w = masks.shape
    if count < o:
        raise RdejaxError(f"{count} proposals cannot hold the masks of {o} objects; give more")

    def one(key: Array, masks: Array) -> tuple[Array, Array]:
        order, shift, other, score = jax.random.split(key, 4)
        true = _moved(masks, jitter * jax.random.normal(shift, (o, 3))) if jitter else masks
        ellipses = _ellipses(other, count - o, h, w)
        scores = jnp.concatenate(
            [(masks.max((1, 2)) > 0.5).astype(jnp.float32), jax.random.uniform(score, (count - o,))]
        )
        index = jax.random.permutation(order, count)
        return jnp.concatenate([true, ellipses])[index], scores[index]

    found, scores = jax.vmap(one)(jax.random.split(key, n), masks)
    return Proposals(box_of(found, STRIDE)[0], found, scores, scores > 0)


def _moved(masks: Float[Array, "o h w"], by: Float[Array, "o 3"]) -> Float[Array, "o h w"]:
    """Masks shifted in x and y by shares of their boxes, and scaled about their centres."""
    _, h, w = masks.shape
    boxes, _ = box_of(masks, 1)

    def one(mask: Array, box: Array, by: Array) -> Array:
        centre, size = (box[2:] + box[:2]) / 2, box[2:] - box[:2]
        scale = jnp.exp(jnp.clip(by[2], -0.5, 0.5))

        def axis(k: int, count: int) -> Array:
            at = jnp.arange(count, dtype=jnp.float32) + 0.5
            source = centre[k] + (at - centre[k] - by[k] * size[k]) / scale
            return resampling(source / count, 1.0 / count, count)

        return resampled(mask, axis(1, h), axis(0, w))

    return jax.vmap(one)(masks, boxes, by)


def _ellipses(key: Key[Array, ""], count: int, h: int, w: int) -> Float[Array, "k h w"]:
    at = jax.random.uniform(key, (count, 4))
    y = ((jnp.arange(h) + 0.5) / h)[None, :, None]
    x = ((jnp.arange(w) + 0.5) / w)[None, None, :]
    cy, cx, ry, rx = (v[:, None, None] for v in jnp.unstack(at, axis=1))
    inside = ((y - cy) / (0.05 + 0.25 * ry)) ** 2 + ((x - cx) / (0.05 + 0.25 * rx)) ** 2 < 1
    return inside.astype(jnp.float32)
