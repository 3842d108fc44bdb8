"""Deterministic network weights from parameter names: the weights of the reference vectors.

``fill(name, shape)`` returns the float32 value of one entry of a network's
state dict.  It depends on nothing but the entry's name and shape: the random
generator is ``np.random.default_rng(zlib.crc32(name.encode()))`` and exactly
one ``standard_normal(shape)`` draw (float64, C order, then scaled and cast to
float32) is made from it.  Names and shapes follow the PyTorch conventions
(convolutions are [out, in, *kernel], linear layers [out, in]).

Rules, first match wins (N is the standard normal draw):

  1. ``*.num_batches_tracked``                      0
  2. ``*.mean`` / ``*.std``, shape (1, 3, 1, 1)     ImageNet mean / std
  3. ``*.running_mean``                             0.1 N
  4. ``*.running_var``                              1 + 0.1 |N|
  5. batch norm ``*.weight``                        1 + 0.05 N, times 0.3 in the
                                                    last norm of a residual block
  6. batch norm ``*.bias``                          0.05 N
  7. any other array with ndim >= 2                 gain * sqrt(2 / fan_in) N,
                                                    fan_in = prod(shape[1:])
  8. ``decoder.pred.bias``                          1 + 0.02 N
  9. any other ``*.bias``                           0.02 N

A batch norm is a module whose last name component starts with "bn", or the
child "1" of a "downsample".  The last norm of a residual block is any "bn3"
(bottleneck blocks) and any "bn2" under "value_encoder." (basic blocks).  The
"bn2" of a key encoder is always treated as a bottleneck's middle norm.

GAINS lists the only exceptions to gain = 1.  They keep the key affinities, the
recurrent memory and the logits of an untrained network in a useful range.
"""

import math
import zlib

import numpy as np

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

# (substring of the name, leading dimension or None for any, gain)
GAINS = (
    ("key_proj.key_proj.weight", 64, 0.28),
    ("key_proj.key_proj.weight", 128, 0.06),
    ("key_comp.weight", None, 0.3),
    ("value_encoder.conv1.weight", None, 8.0),
    ("value_encoder.fuser.block1.", None, 0.3),
    ("mem_compress.key_encoder.non_local.W.weight", None, 0.1),
    ("mem_compress.value_encoder.non_local.W.weight", None, 0.002),
    ("mem_compress.value_encoder.conv1.conv1.weight", None, 0.2),
    ("compress_key.weight", None, 0.3),
    ("compress_value.weight", None, 0.35),
    ("skip_conv.weight", None, 0.5),
)


def is_batch_norm(module):
    parts = module.split(".")
    return parts[-1].startswith("bn") or parts[-2:] == ["downsample", "1"]


def ends_residual_block(module):
    last = module.split(".")[-1]
    return last == "bn3" or (last == "bn2" and module.startswith("value_encoder."))


def gain(name, shape):
    for part, lead, value in GAINS:
        if part in name and lead in (None, shape[0]):
            return value
    return 1.0


def fill(name, shape):
    shape = tuple(int(s) for s in shape)
    module, _, kind = name.rpartition(".")
    if kind == "num_batches_tracked":
        return np.zeros(shape, np.float32)
    if kind in ("mean", "std") and shape == (1, 3, 1, 1):
        value = IMAGENET_MEAN if kind == "mean" else IMAGENET_STD
        return np.array(value, np.float32).reshape(shape)

    n = np.random.default_rng(zlib.crc32(name.encode())).standard_normal(shape)
    if kind == "running_mean":
        out = 0.1 * n
    elif kind == "running_var":
        out = 1 + 0.1 * np.abs(n)
    elif is_batch_norm(module) and kind == "weight":
        out = (1 + 0.05 * n) * (0.3 if ends_residual_block(module) else 1.0)
    elif is_batch_norm(module):
        out = 0.05 * n
    elif len(shape) >= 2:
        out = gain(name, shape) * math.sqrt(2 / math.prod(shape[1:])) * n
    elif kind == "bias":
        out = 0.02 * n + (1.0 if name == "decoder.pred.bias" else 0.0)
    else:
        raise ValueError(f"no rule for {name} {shape}")
    return out.astype(np.float32)
