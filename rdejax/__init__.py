"""rdejax: semi-supervised video object segmentation with functional memory, in JAX."""

from rdejax.api import load_model, segment_video, stream
from rdejax.errors import RdejaxError

__version__ = "0.1.0"
__all__ = ["RdejaxError", "load_model", "segment_video", "stream"]
