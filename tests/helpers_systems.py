"""Every registered system at tiny sizes, in seconds: no deep trunk, no compiled initialisers."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from rdejax.models.protocol import System
from rdejax.models.registry import find_system, outline
from rdejax.nn.layers import Conv

_BODY = {"key_depth": 18, "key_channels": 8, "value_channels": 16}
_LITE = {"key_channels": 8, "value_channels": 32, "decoder_widths": (16, 8, 8)}
_PROPOSALS = {
    "channels": 16,
    "key_channels": 8,
    "value_channels": 8,
    "match_channels": 8,
    "grid": 4,
    "proposals": 6,
    "mask_convs": 1,
    "refine_widths": (16, 8, 8),
}
_BASES = {"bases": 4, "top_l": 2}
STORES = {
    "min_mid_term_frames": 2,
    "max_mid_term_frames": 4,
    "num_prototypes": 5,
    "max_long_term_elements": 12,
}
# Sizes and settings of each system; `every` is 2 where a system has intervals.
SIZES: dict[str, dict[str, Any]] = {
    "dmn-aoa": {**_PROPOSALS, "key_depth": 18},
    "dmn-lite": _PROPOSALS,
    "rde": _BODY,
    "rde-lite": _LITE,
    "stcn": _BODY,
    "stm": {**_BODY, "decoder_width": 16},
    "swem": _BODY,
    "swem-lite": _LITE,
    "xmem": {**_BODY, "hidden_dim": 6, "decoder_widths": (16, 8, 8)},
    "xmem-lite": {**_LITE, "hidden_dim": 6},
}
SETTINGS: dict[str, dict[str, Any]] = {
    "stm": {"every": 1, "keep_every": 2},
    "swem": {"every": 2, **_BASES},
    "swem-lite": {"every": 2, **_BASES},
    "xmem": {"every": 2, **STORES},
    "xmem-lite": {"every": 2, **STORES},
}


class TinyTrunk(nnx.Module):
    """Features of stride 4, 8 and 16 from one convolution each."""

    def __init__(self, cin: int, channels: tuple[int, int, int], *, rngs: nnx.Rngs):
        c4, c8, c16 = self.channels = channels
        self.to4 = Conv(cin, c4, 5, stride=4, rngs=rngs)
        self.to8 = Conv(c4, c8, 3, stride=2, rngs=rngs)
        self.to16 = Conv(c8, c16, 3, stride=2, rngs=rngs)

    def __call__(self, x: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        f4 = jax.nn.relu(self.to4(x))
        f8 = jax.nn.relu(self.to8(f4))
        return f4, f8, self.to16(f8)


def tiny(name: str, *, config: dict[str, Any] | None = None, **settings: Any) -> Any:
    """A system of tiny sizes with random weights.

    Args:
      name: registered name.
      config: changes of its sizes.
      **settings: changes of its settings, `size=None` and those of `SETTINGS`.
    """
    system = find_system(name)
    ours = {"size": None, "every": 2} | SETTINGS.get(name, {}) | settings
    chosen = system.default_settings.override(**ours)
    model = outline(name, config=SIZES[name] | (config or {}), settings=chosen)
    return filled(with_tiny_trunks(model))


def with_tiny_trunks(model: System) -> Any:
    """The system with `TinyTrunk` in place of its trunks, as far as they are called like one."""
    for owner, trunk, cin in (
        (model, "key_encoder", 3),
        (getattr(model, "value_encoder", None), "trunk", 5),
    ):
        # STM's memory encoder goes into its trunk's layers.
        if hasattr(owner, trunk) and not (trunk == "trunk" and model.name == "stm"):
            channels = getattr(owner, trunk).channels
            made = nnx.eval_shape(lambda c=cin, w=channels: TinyTrunk(c, w, rngs=nnx.Rngs(0)))
            setattr(owner, trunk, made)
    return model


def filled(model: Any, seed: int = 0) -> Any:
    """The system with random weights that keep signals at their size."""
    rng = np.random.default_rng(seed)
    state = nnx.state(model)
    new = []
    for path, leaf in nnx.to_flat_state(state):
        kind, shape = str(path[-1]), leaf.shape
        if kind in ("scale", "var"):
            array = np.ones(shape)
        elif kind in ("bias", "mean"):
            array = rng.normal(0, 0.1, shape)
        else:
            array = rng.normal(0, 1.3 * max(1, int(np.prod(shape[:-1]))) ** -0.5, shape)
        new.append((path, leaf.replace(jnp.asarray(array, jnp.float32))))
    nnx.update(model, nnx.from_flat_state(new))
    return model


def video(frames: int, size: tuple[int, int] = (32, 48)) -> tuple[np.ndarray, np.ndarray]:
    """Frames uint8 [t, H, W, 3] of two squares that move over noise, and the first mask (4, 9)."""
    rng = np.random.default_rng(0)
    height, width = size
    clip = np.repeat(rng.integers(0, 120, (1, height, width, 3)), frames, 0).astype(np.uint8)
    mask = np.zeros(size, np.uint8)
    for t in range(frames):
        for k, (y, x) in enumerate(((3, 4 + t), (16, width - 18 - t))):
            clip[t, y : y + 12, x : x + 14] = (200, 90, 30) if k else (40, 220, 130)
            if t == 0:
                mask[y : y + 12, x : x + 14] = (4, 9)[k]
    return clip, mask
