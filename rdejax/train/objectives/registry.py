"""Objectives by name, from this package or from a user's own file."""

from collections.abc import Callable

from rdejax.registry import C, Registry
from rdejax.train.objectives.protocol import Objective

_OBJECTIVES = Registry[Objective]("objective", "rdejax.train.objectives", files=True)


def register(name: str) -> Callable[[C], C]:
    """Class decorator: makes an `Objective` known by `name` to recipes and the command line."""
    return _OBJECTIVES.register(name)


def find_objective(name: str) -> type[Objective]:
    """The objective registered as `name`, or the one that the Python file `name` registers.

    Raises:
      RdejaxError: see `Registry.find`.
    """
    return _OBJECTIVES.find(name)
