"""The architectures whose public checkpoints can be converted, one entry each."""

import dataclasses
import re
from collections.abc import Callable, Collection, Mapping
from typing import Any

import numpy as np

from rdejax.convert.names import Rule
from rdejax.errors import RdejaxError

StateDict = Mapping[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class Arch:
    """How one system's public checkpoints look.

    Attributes:
      system: name of the system here.
      rules: from our paths to PyTorch names, see `names.targets`.
      config: sizes of the networks, read off the state dict.
      settings: settings that change the weights, read off the state dict.
      ignore: regular expression (full match) of names that hold nothing learned.
    """

    system: str
    rules: tuple[Rule, ...]
    config: Callable[[StateDict], dict[str, Any]]
    settings: Callable[[StateDict], dict[str, Any]]
    ignore: str | None = None


RESNET_RULES: tuple[Rule, ...] = (
    (r"/downsample/conv$", "/downsample/0"),
    (r"/downsample/bn$", "/downsample/1"),
)
_BODY: tuple[Rule, ...] = (
    (r"^key_encoder/layer1/", "key_encoder/res2/"),
    (r"^key_proj$", "key_proj/key_proj"),
    (r"^value_encoder/trunk/", "value_encoder/"),
    (r"^value_encoder/(block\d|attention)\b", r"value_encoder/fuser/\1"),
    (r"/attention/mlp1$", "/attention/ChannelGate/mlp/1"),
    (r"/attention/mlp2$", "/attention/ChannelGate/mlp/3"),
    (r"/attention/spatial$", "/attention/SpatialGate/spatial/conv"),
    *RESNET_RULES,
)
_SAM: tuple[Rule, ...] = (
    (r"^memory/compress_(key|value)/squeeze$", r"mem_compress/compress_\1"),
    (r"^memory/compress_(key|value)/", r"mem_compress/\1_encoder/"),
    (r"/non_local/(phi|g)$", r"/non_local/\1/0"),
    (r"/non_local/out$", "/non_local/W"),
    (r"/se_blocks/(\d+)/squeeze$", r"/se_block/\1/ses/fc/0"),
    (r"/se_blocks/(\d+)/excite$", r"/se_block/\1/ses/fc/2"),
    (r"/se_blocks/", "/se_block/"),
    (r"/aspp/branches/(\d)$", lambda m: f"/conv1/aspp{int(m[1]) + 1}/atrous_conv"),
    (r"/aspp/join$", "/conv1/conv1"),
)


def _width(state_dict: StateDict, name: str, published: int) -> int:
    array = state_dict.get(name)
    return published if array is None or array.ndim == 0 else array.shape[0]


def _body_config(state_dict: StateDict) -> dict[str, Any]:
    bottleneck = any(re.match(r"key_encoder\..*\.conv3\.", name) for name in state_dict)
    first = state_dict.get("value_encoder.conv1.weight")
    return {
        "key_depth": 50 if bottleneck else 18,
        "key_channels": _width(state_dict, "key_proj.key_proj.weight", 64),
        "value_channels": _width(state_dict, "key_comp.weight", 512),
        "single_object": first is not None and first.ndim == 4 and first.shape[1] == 4,
    }


def _sam_settings(state_dict: StateDict) -> dict[str, Any]:
    pattern = re.compile(r"mem_compress\.\w+_encoder\.se_block\.(\d+)\.")
    # Counted, for a number in a name may be any.
    blocks = {match[1] for name in state_dict if (match := pattern.match(name))}
    # Nothing of the compressor there: the published one is what is missing.
    has_sam = any(name.startswith("mem_compress.") for name in state_dict)
    aspp = any(re.match(r"mem_compress\.\w+_encoder\.conv1\.", name) for name in state_dict)
    return {"repeat": len(blocks), "aspp": aspp or not has_sam}


_FUSION: tuple[Rule, ...] = (
    (r"^fusion/layer$", "swem_core/fusion_layer/layer_f"),
    (r"^fusion/gate$", "swem_core/fusion_layer/layer_a"),
)


def _swem_config(state_dict: StateDict) -> dict[str, Any]:
    return {
        **_body_config(state_dict),
        "key_channels": _width(state_dict, "key_proj.key_proj.weight", 128),
    }


def _swem_settings(state_dict: StateDict) -> dict[str, Any]:
    layer = state_dict.get("swem_core.fusion_layer.layer_f.weight")
    if layer is None or layer.ndim != 4:
        return {}
    return {"top_l": (layer.shape[1] - 2 * layer.shape[0]) // 2}


_XMEM: tuple[Rule, ...] = (
    (r"^anisotropy/shrinkage$", "key_proj/d_proj"),
    (r"^anisotropy/selection$", "key_proj/e_proj"),
    (r"^value_encoder/deep_update/", "value_encoder/hidden_reinforce/"),
    (r"^decoder/hidden_update/gate/", "decoder/hidden_update/"),
)


def _xmem_config(state_dict: StateDict) -> dict[str, Any]:
    gates = _width(state_dict, "decoder.hidden_update.transform.weight", 0)
    return {
        **_body_config(state_dict),
        "value_channels": _width(state_dict, "value_encoder.fuser.block1.conv1.weight", 512),
        "hidden_dim": gates // 3,
    }


_STM: tuple[Rule, ...] = (
    (r"^(key_encoder|value_encoder/trunk)/layer(\d)/", lambda m: f"{m[1]}/res{int(m[2]) + 1}/"),
    (r"^value_encoder/(key|value)$", lambda m: f"KV_M_r4/{m[1].capitalize()}"),
    (r"^value_encoder/conv_mask$", "Encoder_M/conv1_m"),
    (r"^value_encoder/conv_others$", "Encoder_M/conv1_o"),
    (r"^value_encoder/trunk/", "Encoder_M/"),
    (r"^key_encoder/", "Encoder_Q/"),
    (r"^key_proj$", "KV_Q_r4/Key"),
    (r"^key_comp$", "KV_Q_r4/Value"),
    (r"^decoder/compress$", "Decoder/convFM"),
    (r"^decoder/block/", "Decoder/ResMM/"),
    (r"^decoder/refine_16_8/", "Decoder/RF3/"),
    (r"^decoder/refine_8_4/", "Decoder/RF2/"),
    (r"/skip_conv$", "/convFS"),
    (r"/skip_block/", "/ResFS/"),
    (r"/out/", "/ResMM/"),
    (r"^decoder/pred$", "Decoder/pred2"),
    *RESNET_RULES,
)


def _stm_config(state_dict: StateDict) -> dict[str, Any]:
    bottleneck = any(re.match(r"Encoder_[MQ]\..*\.conv3\.", name) for name in state_dict)
    return {
        "key_depth": 50 if bottleneck else 18,
        "key_channels": _width(state_dict, "KV_Q_r4.Key.weight", 128),
        "value_channels": _width(state_dict, "KV_Q_r4.Value.weight", 512),
        "decoder_width": _width(state_dict, "Decoder.convFM.weight", 256),
    }


ARCHS = {
    "rde": Arch("rde", (*_BODY, *_SAM), _body_config, _sam_settings),
    "stcn": Arch("stcn", _BODY, _body_config, lambda state_dict: {}),
    # Its encoders normalise the image themselves; here the system does.
    "swem": Arch(
        "swem",
        (*_BODY, *_FUSION),
        _swem_config,
        _swem_settings,
        ignore=r"(key|value)_encoder\.(mean|std)",
    ),
    "xmem": Arch("xmem", (*_BODY, *_XMEM), _xmem_config, lambda state_dict: {}),
    "stm": Arch(
        "stm", _STM, _stm_config, lambda state_dict: {}, ignore=r"Encoder_[MQ]\.(mean|std)"
    ),
}


def widen_masks(state_dict: StateDict) -> dict[str, np.ndarray]:
    """The state dict of a single-object network, made to take the sum of other objects' masks.

    The fifth input channel of the value encoder is zero, as for inference in the original.
    """
    name = "value_encoder.conv1.weight"
    kernel = state_dict[name]
    return {**state_dict, name: np.pad(kernel, ((0, 0), (0, 1), (0, 0), (0, 0)))}


def find_arch(name: str) -> Arch:
    """The architecture called `name`.

    Raises:
      RdejaxError: it is not known.
    """
    if name in ARCHS:
        return ARCHS[name]
    raise RdejaxError(f"--arch {name} is not known; choose one of {', '.join(ARCHS)}")


def detect_arch(names: Collection[str], source: str) -> str:
    """The architecture that parameter names tell of.

    Raises:
      RdejaxError: none that is known.
    """
    if any(re.match(r"key_proj\.[de]_proj\.", n) for n in names):
        return "xmem"
    if any(n.startswith("mem_compress.") for n in names):
        return "rde"
    if any(n.startswith("swem_core.") for n in names):
        return "swem"
    if any(n.startswith("Encoder_M.") for n in names):
        return "stm"
    if any(n.startswith("key_encoder.res2.") for n in names):
        return "stcn"
    some = ", ".join(list(names)[:3]) or "none"
    raise RdejaxError(
        f"{source}: not a network that is known here (parameters: {some}, ...); "
        f"give a checkpoint of {' or '.join(ARCHS)}"
    )
