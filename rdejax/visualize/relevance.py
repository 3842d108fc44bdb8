"""Where a query looks: the weight of every memory position in what it reads.

A readout is a weighted sum of the values in memory, so its weights are its derivative by them.
Taken from the rule's own `read`, they hold whatever the rule does on the way: similarity, top-k,
entries that count twice.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from rdejax.errors import RdejaxError
from rdejax.memory.protocol import MemoryRule


@jax.jit
def relevance(
    rule: MemoryRule,
    memory: Any,
    query: Any,
    positions: Bool[Array, "h w"],
    slot: Int[Array, ""] | int,
) -> Float[Array, "e h w"]:
    """Mean weight of each memory position over some positions of a frame; sums to 1.

    Args:
      rule: the memory rule.
      memory: its state, see `check_on_grid`.
      query: [1, h, w, ck], the frame's key.
      positions: query positions that count, at least one.
      slot: of the object, in its group; rules with keys per object look elsewhere for each.
    """

    def mean_readout(value: Array) -> Array:
        readout, _ = rule.read(memory.replace(value=value), query)
        return jnp.mean(readout[0, slot, :, :, 0], where=positions)

    # Linear in the values: zeros of one channel will do.
    zeros = jnp.zeros((*memory.value.shape[:-1], 1), jnp.float32)
    return jax.grad(mean_readout)(zeros)[slot, ..., 0]


def check_on_grid(name: str, memory: Any, grid: tuple[int, int]) -> None:
    """Refuses memories whose entries are not positions of frames.

    Args:
      name: of the rule.
      memory: its state; what can be shown has a field `value` [o, e, h, w, cv].
      grid: (h, w) of the video.

    Raises:
      RdejaxError: the rule keeps something else.
    """
    shape = getattr(getattr(memory, "value", None), "shape", ())
    if len(shape) != 5 or shape[2:4] != grid:
        raise RdejaxError(
            f"memory rule {name!r} keeps no values on the frame's grid, so relevance has no place "
            "to be shown; choose a rule that does, such as --memory rde or --memory bank"
        )
