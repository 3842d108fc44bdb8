"""The one place where time is; its parts, for differentiating through a video.

    geometry = Geometry.of((height, width), size=None)
    features = model.encode(prepare(model, geometry, frames))
    state = model.start(one_frame(features, 0), given_probs(masks, valid), valid)
    state, probs = propagate(model, state, blocks, count, memorize, scan=scan)

docs/gradients.md and examples/notebooks/gradients.ipynb make a whole of it. All are pure functions
of arrays: `jax.grad`, `jax.checkpoint`, `jax.vmap` and `jax.jit` take them.
"""

from rdejax.models.protocol import given_probs, one_frame
from rdejax.propagate.blocks import encode, prepare, propagate
from rdejax.propagate.geometry import Geometry
from rdejax.propagate.scanning import scan

__all__ = ["Geometry", "encode", "given_probs", "one_frame", "prepare", "propagate", "scan"]
