"""Objectives by name."""

from rdejax.errors import RdejaxError
from rdejax.train.objectives.protocol import Objective
from rdejax.train.objectives.rde import RDEObjective
from rdejax.train.objectives.unroll import UnrollObjective

_OBJECTIVES: dict[str, type[Objective]] = {
    kind.name: kind for kind in (UnrollObjective, RDEObjective)
}


def find_objective(name: str) -> type[Objective]:
    """The objective of that name.

    Raises:
      RdejaxError: no such objective; names the known ones.
    """
    if name not in _OBJECTIVES:
        known = ", ".join(sorted(_OBJECTIVES))
        raise RdejaxError(f"objective {name!r} is unknown; choose one of {known}")
    return _OBJECTIVES[name]
