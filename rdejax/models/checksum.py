"""One number for the bits of a pytree's arrays, the same however they lie on devices."""

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

# What a checkpoint's record calls them.
CHECKSUMS = "checksums"


def checksums(state: Any) -> dict[str, dict[str, Any]]:
    """The checksum of each of a state's parts, and the types of its arrays, by name.

    Args:
      state: a mapping, or an object with fields, of pytrees of arrays.
    """
    parts: dict[str, list[Any]] = {}
    for path, leaf in jax.tree_util.tree_flatten_with_path(state)[0]:
        parts.setdefault(jax.tree_util.keystr(path[:1], simple=True), []).append(leaf)
    return {
        name: {
            "sum": checksum(leaves),
            "types": sorted({str(leaf.dtype) for leaf in leaves}),
        }
        for name, leaves in parts.items()
    }


def changed(noted: Mapping[str, Any], state: Any) -> list[str]:
    """Names of the parts of a state whose bits are not those of which `checksums` were noted.

    Parts of which none were noted, or that were read as arrays of other types, are not compared.
    """
    found = checksums(state)
    return [
        name
        for name in found.keys() & noted.keys()
        if noted[name]["types"] == found[name]["types"] and noted[name]["sum"] != found[name]["sum"]
    ]


def checksum(tree: Any) -> int:
    """Sum of all bits, weighted by place: one changed bit, or byte, always changes it.

    Every process of a run calls this with its part of the arrays and gets the number of the whole.

    Args:
      tree: pytree of arrays.

    Returns:
      0 to 2**32 - 1.
    """
    total = 0
    for leaf in jax.tree.leaves(tree):
        if isinstance(leaf, jax.Array):
            parts = [(s.index, s.data) for s in leaf.addressable_shards if s.replica_id == 0]
        else:
            parts = [((), leaf)]
        total += sum(_weighted(np.asarray(data), place, leaf.shape) for place, data in parts)
    if jax.process_count() > 1:
        totals = multihost_utils.process_allgather(np.uint32(total % 2**32))
        total = int(np.asarray(totals, np.uint64).sum())
    return total % 2**32


def _weighted(part: np.ndarray, place: tuple[slice, ...], shape: tuple[int, ...]) -> int:
    """Sum of a part's bits, as 32-bit words, each times an odd number that tells its place."""
    bits = np.ascontiguousarray(part)
    words = min(bits.itemsize, 4)
    bits = bits.view(f"u{words}").reshape(*part.shape, -1)  # several words of a long number
    weights = np.zeros((1,) * part.ndim, np.uint32)
    stride = 1
    for axis in reversed(range(part.ndim)):
        start = place[axis].start or 0 if place else 0
        along = np.arange(start, start + part.shape[axis], dtype=np.uint64) * stride
        stride *= shape[axis]
        narrow = (along % 2**32).astype(np.uint32)
        weights = weights + narrow.reshape(-1, *(1,) * (part.ndim - 1 - axis))
    count = bits.shape[-1]
    total = 0
    for word in range(count):
        odd = (weights * np.uint32(count) + np.uint32(word)) * np.uint32(2) + np.uint32(1)
        total += int((bits[..., word].astype(np.uint32) * odd).sum(dtype=np.uint32))
    return total
