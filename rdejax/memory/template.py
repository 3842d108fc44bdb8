"""The dynamic template memory of DMN-AOA: past frames, read at the object's own pixels only.

Published (Liang et al., ICCV 2021, supplement and abstract): templates are completed from all past
frames by a memory with query-key relevance, restricted to object pixels. The equations, the bound
on the frames and the cut are this project's reconstruction.
"""

from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int

from rdejax.errors import RdejaxError
from rdejax.memory.protocol import Entries, Masks, MemoryRule
from rdejax.memory.registry import register
from rdejax.nn.masked_softmax import softmax_over


@flax.struct.dataclass
class TemplateState:
    """The first frame in slot 0, later ones in a ring behind it.

    Attributes:
      key: [t, h, w, ck] for t slots.
      value: [o, t, h, w, cv].
      mask: [o, t, h, w], of the objects at the positions, 0 to 1.
      count: frames written, those that did not stay included.
    """

    key: Float[Array, "t h w ck"]
    value: Float[Array, "o t h w cv"]
    mask: Float[Array, "o t h w"]
    count: Int[Array, ""]


@register("template")
class TemplateMemory(MemoryRule):
    """A bounded bank in which an object is read from its own pixels alone.

        R[u, (t, p)] = q_u . K_t[p] / sqrt(ck) + log m_{t,o}[p],    m_{t,o}[p] >= least

    softmax over these (t, p), and R.V; 0 where an object has no such position. Of the memorised
    frames the first stays and the oldest other one makes room.

    Args:
      key_channels: unused, any width will do.
      value_channels: unused.
      slots: frames kept, 2 or more.
      least: a position whose share of the mask is below it is no position of the object.
      rngs: unused, nothing is learned.

    Raises:
      RdejaxError: fewer than two slots, or `least` outside of (0, 1].
    """

    similarity = "dot"

    def __init__(
        self,
        *,
        key_channels: int,
        value_channels: int,
        rngs: nnx.Rngs,
        slots: int = 8,
        least: float = 0.02,
    ):
        del key_channels, value_channels, rngs
        if slots < 2:
            raise RdejaxError(f"slots={slots}: give 2 (the first frame and another) or more")
        if not 0 < least <= 1:
            raise RdejaxError(f"least={least}: give a share of a position above 0, 1 at most")
        self.slots = slots
        self.least = least

    def init(self, key: Array, value: Array, masks: Masks) -> TemplateState:
        """The first frame, and empty slots."""
        more = ((0, self.slots - 1), (0, 0), (0, 0))
        return TemplateState(
            key=jnp.pad(key[None], (*more, (0, 0))),
            value=jnp.pad(value[:, None], ((0, 0), *more, (0, 0))),
            mask=jnp.pad(_on_grid(masks, key)[:, None], ((0, 0), *more)),
            count=jnp.ones((), jnp.int32),
        )

    def read(self, state: TemplateState, query: Array) -> tuple[Array, TemplateState]:
        """What every position of the frames finds at each object's pixels."""
        n, h, w, ck = query.shape
        objects = state.value.shape[0]
        each = jnp.broadcast_to(query.reshape(1, n * h * w, ck), (objects, n * h * w, ck))
        out = self.complete(state, each).reshape(objects, n, h, w, -1)
        return jnp.moveaxis(out, 1, 0), state

    def complete(
        self, state: TemplateState, query: Float[Array, "o u ck"]
    ) -> Float[Array, "o u cv"]:
        """R.V for queries that are each object's own."""
        weights = self.relevance(state, query)
        objects, places = (
            state.value.shape[0],
            weights.shape[2] * weights.shape[3] * weights.shape[4],
        )
        # What lies in a slot or at a position that does not count may be anything.
        there = (state.mask >= self.least)[..., None]
        value = jnp.where(there, state.value, jnp.zeros((), state.value.dtype))
        out = jnp.einsum(
            "oum,omc->ouc",
            weights.reshape(objects, -1, places).astype(value.dtype),
            value.reshape(objects, places, -1),
            preferred_element_type=jnp.float32,
        )
        return out.astype(value.dtype)

    def relevance(
        self, state: TemplateState, query: Float[Array, "o u ck"]
    ) -> Float[Array, "o u t h w"]:
        """The weights of memory positions in `complete`: rows sum to 1, or are 0."""
        frames, h, w, ck = state.key.shape
        held = (jnp.arange(frames) < state.count)[None, :, None, None]
        there = held & (state.mask >= self.least)
        prior = jnp.where(there, jnp.log(jnp.where(there, state.mask, 1.0)), 0.0)
        scores = jnp.einsum(
            "ouc,thwc->outhw", query.astype(jnp.float32), state.key.astype(jnp.float32)
        ) / jnp.sqrt(jnp.float32(ck))
        scores = scores + prior[:, None].astype(jnp.float32)
        flat = (query.shape[0], -1, frames * h * w)
        weights = softmax_over(scores.reshape(flat), there.reshape(flat))
        return weights.reshape(scores.shape)

    def write(self, state: TemplateState, key: Array, value: Array, masks: Masks) -> TemplateState:
        """Puts the frame into the next free slot, or that of the oldest frame but the first."""
        slot = self.slot(state.count)
        put = jax.lax.dynamic_update_index_in_dim
        return TemplateState(
            key=put(state.key, key, slot, 0),
            value=put(state.value, value, slot, 1),
            mask=put(state.mask, _on_grid(masks, key), slot, 1),
            count=state.count + 1,
        )

    def keep(self, state: TemplateState, key: Array, value: Array, masks: Masks) -> TemplateState:
        """Puts the frame in the place of the first one, and memorises it as any other."""
        written = self.write(state, key, value, masks)
        return TemplateState(
            key=written.key.at[0].set(key),
            value=written.value.at[:, 0].set(value),
            mask=written.mask.at[:, 0].set(_on_grid(masks, key)),
            count=written.count,
        )

    def slot(self, count: Int[Array, "*n"]) -> Int[Array, "*n"]:
        """Where the frame that is written after `count` others goes."""
        return jnp.where(count < 1, 0, 1 + (count - 1) % (self.slots - 1))

    def contents(self, state: TemplateState) -> Entries:
        """The frames that are kept, each called by its number."""
        count = int(state.count)
        slots = self.slot(jnp.arange(count)).tolist()
        latest = dict(zip(slots, range(count), strict=True))
        kept = range(min(count, self.slots))
        return Entries(state.key, state.value, ("",) * len(kept), tuple(latest[i] for i in kept))


def _on_grid(masks: Masks, key: Any) -> Float[Array, "o h w"]:
    """Soft masks as means over the positions."""
    o, height, width = masks.soft.shape
    h, w = key.shape[:2]
    return masks.soft.reshape(o, h, height // h, w, width // w).mean((2, 4))
