"""Where a query looks: the weight of every memory position in what it reads, as heat over frames.

A readout is a weighted sum of the values in memory, so its weights are its derivative by them.
Taken from the rule's own `read`, they hold whatever the rule does on the way: similarity, top-k,
entries that count twice.
"""

from collections.abc import Sequence
from typing import Any

import cv2
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from rdejax.errors import RdejaxError
from rdejax.memory.protocol import Entries, MemoryRule
from rdejax.visualize.grid import Picture, fit, greyed, in_rows
from rdejax.visualize.style import MARK, MARK_EDGE, TILE

_GAMMA = 0.5  # weights are few and large; without it only the largest would be seen
_OPACITY = 0.9


def relevance(
    rule: MemoryRule, memory: Any, query: Any, positions: Bool[np.ndarray, "h w"], slot: int
) -> Float[Array, "e h w"]:
    """Mean weight of each memory position over some positions of a frame.

    It sums to 1, but for what goes to elements off the grid (XMem's long-term memory).

    Args:
      rule: the memory rule.
      memory: its state, see `check_on_grid`.
      query: [1, h, w, ck] (or the pytree of the system's key projection), the frame's key.
      positions: query positions that count, at least one.
      slot: of the object, in its group; rules with keys per object look elsewhere for each.
    """
    # Each value of an entry is one element of the state, so the state's derivative, laid out as the
    # state is, gives the entries' derivative.
    entries = rule.contents(_readout_by_state(rule, memory, query, positions, slot))
    assert entries is not None
    return entries.value[slot, ..., 0]


@jax.jit
def _readout_by_state(rule: MemoryRule, memory: Any, query: Any, positions: Any, slot: Any) -> Any:
    """The state with the derivative of the first channel's mean in place of every real number."""
    leaves, tree = jax.tree.flatten(memory)
    real = [i for i, leaf in enumerate(leaves) if jnp.issubdtype(leaf.dtype, jnp.floating)]

    def with_leaves(some: list[Array]) -> Any:
        new = dict(zip(real, some, strict=True))
        return jax.tree.unflatten(tree, [new.get(i, leaf) for i, leaf in enumerate(leaves)])

    def mean_readout(some: list[Array]) -> Array:
        readout = rule.read(with_leaves(some), query)[0]
        return jnp.mean(readout[0, slot, :, :, 0].astype(jnp.float32), where=positions)

    return with_leaves(jax.grad(mean_readout)([leaves[i] for i in real]))


def check_on_grid(name: str, entries: Entries | None, grid: tuple[int, int]) -> Entries:
    """Refuses memories whose entries are not positions of frames.

    Args:
      name: of the rule.
      entries: see `MemoryRule.contents`.
      grid: (h, w) of the video.

    Raises:
      RdejaxError: the rule keeps something else.
    """
    if entries is None or entries.value.shape[2:4] != grid:
        raise RdejaxError(
            f"memory rule {name!r} keeps no values on the frame's grid, so relevance has no place "
            "to be shown; choose a rule that does, such as --memory rde or --memory bank"
        )
    return entries


def heat_overlay(frame: Picture, heat: Float[np.ndarray, "H W"]) -> Picture:
    """Paints heat over a grey frame: clear where there is none, then violet, red, yellow.

    Args:
      frame: RGB.
      heat: 0 to 1, what is outside is clipped.
    """
    strength = np.clip(heat, 0.0, 1.0) ** _GAMMA
    levels = np.round(255 * strength).astype(np.uint8)
    paint = cv2.cvtColor(cv2.applyColorMap(levels, cv2.COLORMAP_INFERNO), cv2.COLOR_BGR2RGB)
    opacity = (_OPACITY * strength)[..., None]
    return np.round(greyed(frame) * (1 - opacity) + paint * opacity).astype(np.uint8)


def mark_pixel(frame: Picture, pixel: tuple[int, int]) -> Picture:
    """The frame with a ring around (x, y)."""
    frame = frame.copy()
    radius = max(6, round(min(frame.shape[:2]) / 28))
    line = max(1, radius // 4)
    for colour, thickness in ((MARK_EDGE, line + 4), (MARK, line)):
        cv2.circle(frame, pixel, radius, colour, thickness, cv2.LINE_AA)
    return frame


def relevance_sheet(
    query: Picture,
    title: str,
    frames: Sequence[Picture],
    heats: Float[np.ndarray, "e H W"],
    shares: Float[np.ndarray, " e"],
    names: Sequence[str],
    *,
    columns: int = 4,
    width: int = TILE,
) -> Picture:
    """The query and, beside it, where in each entry of the memory it looks.

    The heat has one scale for all entries, so a pale tile is looked at little.

    Args:
      query: the frame that looks, with its object or pixel marked.
      title: caption of the query.
      frames: RGB, the picture to show each entry on.
      heats: weight of the memory position under each pixel.
      shares: share of each entry in the whole weight, 0 to 1.
      names: of the entries.
      columns: tiles in a row.
      width: of a tile, in pixels.
    """
    scale = max(float(heats.max()), 1e-12)
    tiles, captions = [fit(query, width)], [title]
    for frame, heat, share, name in zip(frames, heats, shares, names, strict=True):
        tiles.append(fit(heat_overlay(frame, heat / scale), width))
        captions.append(f"{name}: {100 * share:.1f} %")
    return in_rows(tiles, captions, columns)
