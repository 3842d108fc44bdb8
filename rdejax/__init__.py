"""rdejax: semi-supervised video object segmentation with functional memory, in JAX."""

import importlib
from typing import TYPE_CHECKING, Any

from rdejax.errors import RdejaxError

if TYPE_CHECKING:
    from rdejax.api import load_model, segment_video, stream
    from rdejax.memory.check import check_rule
    from rdejax.propagate.sweep import sweep_settings

__version__ = "0.1.0"
__all__ = [
    "RdejaxError",
    "check_rule",
    "load_model",
    "segment_video",
    "stream",
    "sweep_settings",
]

_MODULES = {
    "check_rule": "rdejax.memory.check",
    "load_model": "rdejax.api",
    "segment_video": "rdejax.api",
    "stream": "rdejax.api",
    "sweep_settings": "rdejax.propagate.sweep",
}

if not TYPE_CHECKING:  # or a type checker would take every name for one of this module

    def __getattr__(name: str) -> Any:
        # On first use: importing JAX takes seconds, which `rdejax infer --help` need not wait for.
        if name not in _MODULES:
            raise AttributeError(f"module 'rdejax' has no attribute {name!r}")
        return getattr(importlib.import_module(_MODULES[name]), name)

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})
