"""Systems: networks, a memory rule and a recipe under one name."""

from rdejax.models.protocol import Features, State, System
from rdejax.models.registry import create, names
from rdejax.models.settings import Settings

__all__ = ["Features", "Settings", "State", "System", "create", "names"]
