"""From a checkpoint to a system with its weights."""

import os
from typing import Any

from flax import nnx

from rdejax.convert.archs import StateDict, detect_arch, find_arch, widen_masks
from rdejax.convert.names import convert_arrays, targets
from rdejax.convert.torch_pickle import load_state_dict
from rdejax.models.protocol import System
from rdejax.models.registry import create
from rdejax.models.weights import load_into, neutral_weights, shapes_of


def convert_file(path: str | os.PathLike, *, arch: str | None = None, **settings: Any) -> System:
    """The system of a public PyTorch checkpoint, see `convert_state_dict`.

    Raises:
      RdejaxError: see `torch_pickle.load_state_dict` and `convert_state_dict`.
    """
    return convert_state_dict(load_state_dict(path), arch=arch, source=str(path), **settings)


def convert_state_dict(
    state_dict: StateDict,
    *,
    arch: str | None = None,
    source: str = "state dict",
    keep_single_object: bool = False,
    **settings: Any,
) -> System:
    """The system whose weights are in a PyTorch state dict.

    Args:
      state_dict: arrays by PyTorch name, in PyTorch's layouts.
      arch: "rde", "stcn", "swem", "xmem" or "stm"; default: told by the names.
      source: where it comes from, for messages.
      keep_single_object: leave a single-object value encoder (four input channels) as it is; by
        default it gets a fifth channel of zeros and can be run on several objects.
      **settings: overrides of the system's settings, see `rdejax.load_model`.

    Raises:
      RdejaxError: unknown architecture; parameters missing, unexpected, of the wrong
        shape (all are named) or not finite.
    """
    chosen = find_arch(arch or detect_arch(state_dict, source))
    config = chosen.config(state_dict)
    if config.get("single_object") and not keep_single_object:
        state_dict = widen_masks(state_dict)
        config["single_object"] = False
    overrides = {**chosen.settings(state_dict), **settings}
    if "memory" in settings:
        # Another rule has none of the compressor's settings.
        overrides = settings
    model = _without_values(chosen.system, config, overrides)
    fresh = neutral_weights(model)
    shapes = {path: shape for path, shape in shapes_of(model).items() if path not in fresh}
    # Without a compressor, because the settings ask for a memory that has none, its weights go.
    has_sam = any(path.startswith("memory/compress_") for path in shapes)
    leave = [chosen.ignore, r"mem_compress\..*" if settings and not has_sam else None]
    ignore = "|".join(pattern for pattern in leave if pattern) or None
    expected = targets(shapes, chosen.rules)
    arrays = convert_arrays(state_dict, expected, source=source, ignore=ignore)
    load_into(model, arrays | fresh, source=source)
    return model


def _without_values(system: str, config: dict[str, Any], overrides: dict[str, Any]) -> System:
    """A system whose weights have shapes only: drawing random ones first takes far longer."""
    return nnx.eval_shape(lambda: create(system, config=config, **overrides))
