"""How a memory rule can break its contract, in sentences; see `rdejax.memory.check`."""

from pathlib import Path
from typing import Any

import flax.errors
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from rdejax.registry import raised_at

_TOLERANCE = 1e-3


class Breach(Exception):
    """A sentence on what is wrong."""


def numbers(leaf: Any) -> Any:
    """The numbers of a leaf: itself, or those of PRNG keys."""
    key = hasattr(leaf, "dtype") and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
    return jax.random.key_data(leaf) if key else leaf


def numbers_of(tree: Any) -> Any:
    """`numbers` of every leaf."""
    return jax.tree.map(numbers, tree)


def _named(tree: Any) -> dict[str, Any]:
    paths = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path) or "the state": leaf for path, leaf in paths}


def check_leaves(state: Any, method: str) -> None:
    """All leaves of a state are JAX arrays, and there are some."""
    leaves = _named(state)
    if not leaves:
        raise Breach(f"{method} returns {state!r}, no arrays; return the state")
    for name, leaf in leaves.items():
        if not isinstance(leaf, jax.Array):
            raise Breach(
                f"{method}: state{name} is {type(leaf).__name__}, no JAX array; make it one, such "
                "as jnp.zeros((), jnp.int32), or decorate its class with flax.struct.dataclass"
            )


def check_alike(before: Any, after: Any, method: str) -> None:
    """Structure, shapes and dtypes, which a scan's carry must keep."""
    carry = "the state is carried through lax.scan, so it must stay the same"
    if jax.tree.structure(before) != jax.tree.structure(after):
        raise Breach(
            f"{method} returns {_kind(after)} in place of {_kind(before)}, or with other fields; "
            f"{carry}"
        )
    for (name, old), new in zip(_named(before).items(), jax.tree.leaves(after), strict=True):
        if not isinstance(new, jax.Array):
            raise Breach(f"{method}: state{name} becomes {type(new).__name__}; {carry}")
        if old.shape != new.shape:
            grows = old.ndim == new.ndim and new.size > old.size
            mend = (
                "make the room in init and count what is used, or declare capacity_for, capacity "
                "and reserve, as rdejax/memory/bank.py does"
                if grows
                else "give it one shape in init"
            )
            verb = "grows" if grows else "changes"
            raise Breach(
                f"{method}: state{name} {verb} from {list(old.shape)} to {list(new.shape)}; "
                f"{carry}: {mend}"
            )
        if (old.dtype, _weak(old)) != (new.dtype, _weak(new)):
            weak = "" if old.dtype != new.dtype else " (a Python number's type)"
            raise Breach(
                f"{method}: state{name} changes from {old.dtype} to {new.dtype}{weak}; {carry}: "
                "give init the dtype that write computes"
            )


def _weak(leaf: Any) -> bool:
    return getattr(leaf, "weak_type", False)  # PRNG keys have none


def _kind(tree: Any) -> str:
    return type(tree).__name__


def check_readout(readout: Any, wanted: tuple[int, ...]) -> None:
    """A readout has this shape [n, o, h, w, cv], or more channels, and is floating point."""
    if not isinstance(readout, jax.Array):
        raise Breach(f"read: the readout is {type(readout).__name__}; return an array")
    names = "[n, o, h, w, cv]"
    if readout.ndim != 5 or readout.shape[:4] != wanted[:4] or readout.shape[4] < wanted[4]:
        raise Breach(
            f"read: wrong shape: the readout is {list(readout.shape)}, but {names} is "
            f"{list(wanted)}"
        )
    if not jnp.issubdtype(readout.dtype, jnp.floating):
        raise Breach(f"read: the readout is {readout.dtype}; give floating point")


def check_finite(readout: Array, what: str) -> None:
    """A readout holds no NaN and no infinity."""
    if not bool(jnp.isfinite(readout).all()):
        raise Breach(f"{what} gives NaN or infinity; look for a quotient or a logarithm of 0")


def close(a: Array, b: Array) -> bool:
    """Whether two readouts are the same but for rounding."""
    # EM and the like amplify rounding.
    scale = max(1.0, float(jnp.abs(b).max()))
    return a.shape == b.shape and bool(jnp.abs(a - b).max() <= _TOLERANCE * scale)


def difference(a: Any, b: Any) -> str:
    """Where two trees differ: "state.key by 0.3"; empty if they do not."""
    if jax.tree.structure(a) != jax.tree.structure(b):
        return "in structure"
    for (name, x), y in zip(_named(a).items(), jax.tree.leaves(b), strict=True):
        x, y = np.asarray(numbers(x)), np.asarray(numbers(y))
        if x.shape != y.shape:
            return f"state{name} in shape"
        if x.size and not np.allclose(x, y, atol=_TOLERANCE, rtol=_TOLERANCE, equal_nan=True):
            gap = np.abs(x.astype(np.float64) - y.astype(np.float64)).max()
            return f"state{name} by {gap:.3g}"
    return ""


# What JAX says, by the class of its error, in the words of a rule.
_JAX_ERRORS: tuple[tuple[Any, str], ...] = (
    (
        jax.errors.TracerBoolConversionError,
        "decides by the value of an array in Python (if, while, and); use jnp.where or lax.cond",
    ),
    (
        jax.errors.ConcretizationTypeError,
        "needs the value of an array in Python (int(), range, a shape); what decides shapes must "
        "be a plain number of the rule",
    ),
    (jax.errors.TracerArrayConversionError, "calls NumPy with JAX arrays; use jnp in place of np"),
    (
        (jax.errors.UnexpectedTracerError, flax.errors.TraceContextError),
        "keeps an array outside of the state (self, a global); what changes belongs into the state",
    ),
)


def sentence(error: Exception, file: str) -> str:
    """An exception of a rule's own in the words of a rule, with the line of its file."""
    line = raised_at(error, file)
    where = f"{Path(file).name}, line {line}" if line is not None else Path(file).name
    for kind, meaning in _JAX_ERRORS:
        if isinstance(error, kind):
            return f"{where}: {meaning}"
    detail = str(error).strip().splitlines() or [""]
    return f"{where}: {type(error).__name__}: {detail[0]}"
