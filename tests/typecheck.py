"""Shapes and dtypes of rdejax, checked at run time in the tests (`install` in conftest.py)."""

import dataclasses
from collections.abc import Callable
from typing import Any, get_args

import jax
import jaxtyping
from beartype import BeartypeConf, beartype

PACKAGE = "rdejax"
# A Python integer will do where a float is asked for, as for every other type checker.
_checked = beartype(conf=BeartypeConf(is_pep484_tower=True))


def check(function: Callable[..., Any]) -> Callable[..., Any]:
    """Checks the arguments and results that are, or hold, arrays.

    Classes are left to pyright, which sees every call; tests put doubles in their place.
    """
    hints = function.__annotations__
    function.__annotations__ = {name: hint for name, hint in hints.items() if _of_arrays(hint)}
    return _checked(function)


def _of_arrays(hint: Any) -> bool:
    if isinstance(hint, type) and issubclass(hint, jaxtyping.AbstractArray):
        return True
    return any(map(_of_arrays, get_args(hint)))


def install() -> None:
    """Checks every annotated function and dataclass of the package from its import on.

    Annotations of a dataclass's fields are true where code makes one. JAX rebuilds them with
    whatever a transformation has as leaves (stacked arrays, shapes, specs, placeholders), so that
    must not count as making one.
    """
    jaxtyping.install_import_hook(PACKAGE, f"{__name__}.check")
    register = jax.tree_util.register_dataclass

    def register_unchecked(cls: Any, *args: Any, **options: Any) -> Any:
        if not cls.__module__.startswith(f"{PACKAGE}."):
            return register(cls, *args, **options)
        data, meta = args

        def parts(x: Any) -> tuple[list[tuple[Any, Any]], tuple]:
            keyed = [(jax.tree_util.GetAttrKey(name), getattr(x, name)) for name in data]
            return keyed, tuple(getattr(x, name) for name in meta)

        def rebuilt(fixed: tuple, leaves: Any) -> Any:
            x = object.__new__(cls)
            for name, value in zip((*data, *meta), (*leaves, *fixed), strict=True):
                object.__setattr__(x, name, value)
            return x

        assert {f.name for f in dataclasses.fields(cls)} == {*data, *meta}
        jax.tree_util.register_pytree_with_keys(cls, parts, rebuilt)
        return cls

    jax.tree_util.register_dataclass = register_unchecked
