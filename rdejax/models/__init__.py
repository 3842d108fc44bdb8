"""Systems: networks, a memory rule and a recipe under one name."""

from rdejax.models.protocol import Features, State, System
from rdejax.models.registry import create, names

__all__ = ["Features", "State", "System", "create", "names"]
