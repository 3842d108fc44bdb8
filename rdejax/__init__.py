"""rdejax: semi-supervised video object segmentation with functional memory, in JAX."""

from typing import TYPE_CHECKING, Any

from rdejax.errors import RdejaxError

if TYPE_CHECKING:
    from rdejax.api import load_model, segment_video, stream
    from rdejax.propagate.sweep import sweep_settings

__version__ = "0.1.0"
__all__ = ["RdejaxError", "load_model", "segment_video", "stream", "sweep_settings"]


def __getattr__(name: str) -> Any:
    # On first use: importing JAX takes seconds, which `rdejax infer --help` need not wait for.
    if name in ("load_model", "segment_video", "stream"):
        import rdejax.api

        return getattr(rdejax.api, name)
    if name == "sweep_settings":
        import rdejax.propagate.sweep

        return rdejax.propagate.sweep.sweep_settings
    raise AttributeError(f"module 'rdejax' has no attribute {name!r}")
