"""XMem's long-term memory: prototypes of the working memory, the least used of which are forgotten.

The facts are the public code's; that appending and forgetting are one scatter is this library's
reconstruction, equal in effect (see `append`).
"""

import flax.struct
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from rdejax.memory.affinity import anisotropic_l2, softmax_weights

# Frames an element has been read for when it is new; keeps the usage of one never read finite.
NEW_LIFE = 1e-7


@flax.struct.dataclass
class LongTerm:
    """Elements in no order; a place is free where `born` is 0.

    Attributes:
      key: [l, ck].
      shrinkage: [l].
      value: [o, l, cv].
      use: [l] float32, sum of the attention it got.
      life: [l] float32, frames it was read for.
      born: [l] int32, frames memorised when it came.
    """

    key: Float[Array, "l ck"]
    shrinkage: Float[Array, " l"]
    value: Float[Array, "o l cv"]
    use: Float[Array, " l"]
    life: Float[Array, " l"]
    born: Int[Array, " l"]

    @property
    def valid(self) -> Bool[Array, "*l"]:
        """Places that hold an element."""
        return self.born > 0


@flax.struct.dataclass
class Candidates:
    """Elements of the working memory that may become prototypes.

    Attributes:
      key: [m, ck].
      shrinkage: [m].
      selection: [m, ck], of the frames they come from.
      value: [o, m, cv].
      usage: [m], attention per frame.
    """

    key: Float[Array, "m ck"]
    shrinkage: Float[Array, " m"]
    selection: Float[Array, "m ck"]
    value: Float[Array, "o m cv"]
    usage: Float[Array, " m"]


@flax.struct.dataclass
class LongTermElements:
    """What is appended to the long-term memory; see `LongTerm`."""

    key: Float[Array, "p ck"]
    shrinkage: Float[Array, " p"]
    value: Float[Array, "o p cv"]


def empty(places: int, key: Array, value: Array) -> LongTerm:
    """A long-term memory without elements, for such keys [..., ck] and values [o, ..., cv]."""
    zeros = jnp.zeros(places, jnp.float32)
    return LongTerm(
        key=jnp.zeros((places, key.shape[-1]), key.dtype),
        shrinkage=zeros,
        value=jnp.zeros((value.shape[0], places, value.shape[-1]), value.dtype),
        use=zeros,
        life=zeros,
        born=jnp.zeros(places, jnp.int32),
    )


def prototypes(candidates: Candidates, count: int) -> tuple[LongTermElements, Int[Array, " p"]]:
    """The `count` most used candidates, each with a value and shrinkage of all candidates.

    Potentiation: keys are copied; values and shrinkage are means over the candidates, weighted by
    the softmax of their similarity to the prototype, with the candidates' shrinkage and the
    prototype's own selection.

    Returns:
      The prototypes in falling order of usage, and which of the candidates they are.
    """
    index = lax.top_k(candidates.usage, count)[1]
    key = candidates.key[index]
    scores = anisotropic_l2(key, candidates.selection[index], candidates.key, candidates.shrinkage)
    weights = softmax_weights(scores, jnp.ones(scores.shape[1], jnp.int32))
    value = jnp.einsum("pm,omc->opc", weights, candidates.value.astype(jnp.float32))
    shrinkage = weights @ candidates.shrinkage.astype(jnp.float32)
    return LongTermElements(key, shrinkage, value.astype(candidates.value.dtype)), index


def append(
    store: LongTerm, new: LongTermElements, time: Int[Array, ""], *, counted: bool
) -> LongTerm:
    """Puts new elements into the free places, or else those of the least used elements.

    The same elements survive as in the public code, which first drops the least used until the new
    ones fit and then appends; there is no error in a store that is filled exactly, and elements of
    equal usage do not go together.

    Args:
      store: the long-term memory.
      new: at most as many elements as it has places.
      time: frames memorised so far, 1 or more.
      counted: whether usage was counted; if not, the oldest elements go first.
    """
    worth = store.use / jnp.maximum(store.life, NEW_LIFE) if counted else store.born
    worth = jnp.where(store.valid, worth.astype(jnp.float32), -jnp.inf)
    place = lax.top_k(-worth, new.key.shape[0])[1]
    return LongTerm(
        key=store.key.at[place].set(new.key),
        shrinkage=store.shrinkage.at[place].set(new.shrinkage),
        value=store.value.at[:, place].set(new.value),
        use=store.use.at[place].set(0.0),
        life=store.life.at[place].set(NEW_LIFE),
        born=store.born.at[place].set(time),
    )


def counted(store: LongTerm, attention: Float[Array, " l"], frames: int) -> LongTerm:
    """The store after it was read for `frames` frames with this attention in all."""
    life = jnp.where(store.valid, store.life + frames, store.life)
    return store.replace(use=store.use + attention, life=life)  # type: ignore[attr-defined]
