"""Semi-supervised video object segmentation with functional memory, in JAX.

    model = rdejax.load_model("rde-lite")
    masks = rdejax.segment_video(model, frames, first_mask)

`load_model` gives a `System` with its weights, `segment_video` the masks of a video in memory,
`stream` (a `Stream`) those of videos of any length; `sweep_settings` runs many values of a setting
at once, `check_rule` puts a `MemoryRule` of one's own through its contract. What can be put right
comes as `RdejaxError`, in a sentence. `rdejax.propagate` has the parts for differentiating through
a video.
"""

import importlib
from typing import TYPE_CHECKING, Any

from rdejax.errors import RdejaxError

if TYPE_CHECKING:
    from rdejax.api import load_model, segment_video, stream
    from rdejax.memory.check import RuleCheck, check_rule
    from rdejax.memory.protocol import Masks, MemoryRule
    from rdejax.memory.registry import register as register_rule
    from rdejax.models import Settings, System
    from rdejax.propagate.stream import Stream
    from rdejax.propagate.sweep import sweep_settings

__version__ = "0.1.0"
__all__ = [
    "Masks",
    "MemoryRule",
    "RdejaxError",
    "RuleCheck",
    "Settings",
    "Stream",
    "System",
    "check_rule",
    "load_model",
    "register_rule",
    "segment_video",
    "stream",
    "sweep_settings",
]

_PLACES = {
    "Masks": ("memory.protocol", "Masks"),
    "MemoryRule": ("memory.protocol", "MemoryRule"),
    "RuleCheck": ("memory.check", "RuleCheck"),
    "Settings": ("models", "Settings"),
    "Stream": ("propagate.stream", "Stream"),
    "System": ("models", "System"),
    "check_rule": ("memory.check", "check_rule"),
    "load_model": ("api", "load_model"),
    "register_rule": ("memory.registry", "register"),
    "segment_video": ("api", "segment_video"),
    "stream": ("api", "stream"),
    "sweep_settings": ("propagate.sweep", "sweep_settings"),
}

if not TYPE_CHECKING:  # or a type checker would take every name for one of this module

    def __getattr__(name: str) -> Any:
        # On first use: importing JAX takes seconds, which `rdejax infer --help` need not wait for.
        if name not in _PLACES:
            raise AttributeError(f"module 'rdejax' has no attribute {name!r}")
        module, attribute = _PLACES[name]
        return getattr(importlib.import_module(f"rdejax.{module}"), attribute)

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})
