"""A stream's state on disk: one safetensors file, the arrays by path and what they belong to."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from safetensors import SafetensorError

from rdejax.errors import RdejaxError
from rdejax.files import read_arrays, write_arrays
from rdejax.propagate.geometry import nearest_zoom


def save_state(path: str | os.PathLike, state: Any, about: Mapping[str, Any]) -> None:
    """Writes a state; to a temporary name first, so never half a file.

    Args:
      path: of the file.
      state: pytree of arrays.
      about: what else is needed to go on, JSON values.

    Raises:
      OSError: the file cannot be written.
    """
    arrays = {name: np.asarray(_data(leaf)) for name, leaf in _by_name(state).items()}
    write_arrays(Path(path), arrays, {"stream": json.dumps(about)})


def read_state(path: str | os.PathLike) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """The leaves of a saved state by path, and what else was saved.

    Raises:
      RdejaxError: no such file, not a saved stream, or one that was changed.
    """
    try:
        arrays, told = read_arrays(Path(path))
        about = json.loads(told["stream"])
        if not isinstance(about, dict):
            raise TypeError("not a JSON object")
    except RdejaxError:
        raise
    except (SafetensorError, OSError, KeyError, ValueError, TypeError, RecursionError):
        raise RdejaxError(f"{path}: not a saved stream; give a file that save() wrote") from None
    return arrays, about


def check_numbers(path: str | os.PathLike, about: Any) -> None:
    """Looks at what a state needs beside its arrays.

    Raises:
      RdejaxError: something is missing, or cannot be of a video.
    """

    def whole(value: Any, least: int) -> bool:
        return type(value) is int and value >= least

    try:
        starts, (height, width), layout = about["starts"], about["source"], about["layout"]
        slots, zoom = [*layout["ids"].values()], about["zoom"]
        total = layout["groups"] * layout["slots"]
        good = (
            whole(about["time"], 1)
            and whole(about["writes"], 0)
            and about["writes"] <= about["time"]
            and whole(height, 1)
            and whole(width, 1)
            and type(zoom) is float
            and 1 <= zoom <= nearest_zoom(about["settings"]["zoom"])
            and all(whole(start, 0) and start < about["time"] for start in starts)
            and bool(starts) == bool(slots)
            and all(whole(layout[name], 1) for name in ("groups", "slots", "used"))
            and layout["used"] <= layout["groups"] <= 255
            and total <= 255
            and all(whole(slot, 0) and slot < total for slot in slots)
            and len(set(slots)) == len(slots) > 0
            and all(1 <= int(number) <= 255 for number in layout["ids"])
        )
    except (KeyError, TypeError, ValueError, AttributeError):
        good = False
    if not good:
        raise RdejaxError(f"{path}: was changed since it was saved; segment the video again")


def check_same(path: str | os.PathLike, about: Mapping[str, Any], mine: Mapping[str, Any]) -> None:
    """Compares what a stream was saved with to what this one has.

    Raises:
      RdejaxError: another model or other settings.
    """
    for name, value in json.loads(json.dumps(mine)).items():
        if about.get(name) != value:
            raise RdejaxError(
                f"{path}: saved with {name} {about.get(name)}, this stream has {value}; "
                "load the model with the same settings"
            )


def filled(path: str | os.PathLike, template: Any, arrays: Mapping[str, np.ndarray]) -> Any:
    """The saved arrays in the structure of `template`, as JAX arrays.

    Raises:
      RdejaxError: other arrays than the template's, as an earlier version wrote; or NaN.
    """
    by_name = _by_name(template)
    wanted = {name: jax.eval_shape(_data, leaf) for name, leaf in by_name.items()}
    have = {name: (array.shape, array.dtype) for name, array in arrays.items()}
    if have != {name: (leaf.shape, leaf.dtype) for name, leaf in wanted.items()}:
        raise RdejaxError(
            f"{path}: its arrays are not those of this model's state; it was changed or comes from "
            "another version, so segment the video again"
        )
    for name, array in arrays.items():
        if np.issubdtype(array.dtype, np.floating) and np.isnan(array).any():
            raise RdejaxError(f"{path}: {name} holds NaN; segment the video again")
    leaves = [_as_leaf(jnp.asarray(arrays[name]), leaf) for name, leaf in by_name.items()]
    return jax.tree.unflatten(jax.tree.structure(template), leaves)


def _is_key(leaf: Any) -> bool:
    return jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _data(leaf: Any) -> Any:
    """The numbers of a leaf: itself, or those of PRNG keys."""
    return jax.random.key_data(leaf) if _is_key(leaf) else leaf


def _as_leaf(numbers: jax.Array, like: Any) -> jax.Array:
    """Inverse of `_data`."""
    if not _is_key(like):
        return numbers
    impls: list[Any] = []  # shapes do not tell it, tracers do
    jax.eval_shape(lambda keys: impls.append(jax.random.key_impl(keys)), like)
    return jax.random.wrap_key_data(numbers, impl=impls[0])


def _by_name(tree: Any) -> dict[str, Any]:
    paths = jax.tree_util.tree_flatten_with_path(tree)[0]
    return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in paths}
