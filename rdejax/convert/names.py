"""Names, shapes and layouts: a PyTorch state dict onto the weights of a module.

The weights of this library are "/"-joined module paths. Rules turn a path into the PyTorch name;
the rest is layout: PyTorch convolutions are [out, in, *kernel], ours [*kernel, in, out].
"""

import dataclasses
import re
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from rdejax.errors import RdejaxError

Rule = tuple[str, str | Callable[[re.Match], str]]
Shape = tuple[int, ...]

_LEAVES = {
    "kernel": "weight",
    "bias": "bias",
    "scale": "weight",
    "mean": "running_mean",
    "var": "running_var",
}
# Counters that only matter for updating batch statistics, which these networks never do.
_IGNORED = re.compile(r"(^|\.)num_batches_tracked$")
_SHOWN = 40


@dataclasses.dataclass(frozen=True)
class AxisOrder:
    """How an array is stored in PyTorch.

    Attributes:
      shape: our shape -> PyTorch's.
      array: PyTorch's array -> ours.
    """

    shape: Callable[[Shape], Shape]
    array: Callable[[np.ndarray], np.ndarray]


VECTOR = AxisOrder(lambda s: s, lambda a: a)
LINEAR = AxisOrder(lambda s: s[::-1], lambda a: a.T)
CONV = AxisOrder(lambda s: (s[3], s[2], s[0], s[1]), lambda a: a.transpose(2, 3, 1, 0))
# A 1 x k x k convolution over time and space, here a k x k one on each frame.
FRAME_CONV = AxisOrder(
    lambda s: (s[3], s[2], 1, s[0], s[1]), lambda a: a[:, :, 0].transpose(2, 3, 1, 0)
)
# A 2 x k x k convolution that ends with one frame, here a k x k one over both frames' channels.
TWO_FRAME_CONV = AxisOrder(
    lambda s: (s[3], s[2] // 2, 2, s[0], s[1]),
    lambda a: a.transpose(3, 4, 2, 1, 0).reshape(*a.shape[3:], -1, a.shape[0]),
)


@dataclasses.dataclass(frozen=True)
class Target:
    """Where an entry of the state dict goes: our path, its layout, and PyTorch's shape."""

    path: str
    layout: AxisOrder
    shape: Shape


def _layout(path: str, ndim: int) -> AxisOrder:
    if ndim == 4 and path.startswith("memory/"):
        squeezes = re.fullmatch(r"memory/compress_\w+/squeeze/kernel", path)
        return TWO_FRAME_CONV if squeezes else FRAME_CONV
    return {4: CONV, 2: LINEAR}.get(ndim, VECTOR)


def torch_name(path: str, rules: Sequence[Rule]) -> str:
    """The PyTorch name of one of our paths."""
    module, _, leaf = path.rpartition("/")
    for pattern, replacement in rules:
        module = re.sub(pattern, replacement, module)
    return f"{module.replace('/', '.')}.{_LEAVES.get(leaf, leaf)}".lstrip(".")


def targets(shapes: Mapping[str, Shape], rules: Sequence[Rule]) -> dict[str, Target]:
    """The state dict that a module expects, by PyTorch name.

    Args:
      shapes: shape of each weight of the module, by path.
      rules: (regular expression, replacement) pairs, applied in turn to the module's path.
    """
    out = {}
    for path, shape in shapes.items():
        layout = _layout(path, len(shape))
        out[torch_name(path, rules)] = Target(path, layout, layout.shape(tuple(shape)))
    return out


def convert_arrays(
    state_dict: Mapping[str, np.ndarray],
    expected: Mapping[str, Target],
    *,
    source: str,
    ignore: str | None = None,
) -> dict[str, np.ndarray]:
    """The module's weights by path, float32.

    Args:
      state_dict: arrays by PyTorch name.
      expected: see `targets`.
      source: where the arrays come from, for the message.
      ignore: regular expression (full match) of names to leave out if they are not expected.

    Raises:
      RdejaxError: names all parameters that are missing, unexpected or of the wrong shape, or else
        one that holds NaN or infinity.
    """
    given = {name: a for name, a in state_dict.items() if not _IGNORED.search(name)}
    if ignore is not None:
        given = {n: a for n, a in given.items() if n in expected or not re.fullmatch(ignore, n)}
    problems = [f"missing {name}" for name in expected if name not in given]
    problems += [f"unexpected {name}" for name in given if name not in expected]
    problems += [
        f"{name} has shape {tuple(array.shape)}, expected {expected[name].shape}"
        for name, array in given.items()
        if name in expected and tuple(array.shape) != expected[name].shape
    ]
    if problems:
        more = f"; and {len(problems) - _SHOWN} more" if len(problems) > _SHOWN else ""
        raise RdejaxError(
            f"{source}: {len(problems)} parameters do not fit: {'; '.join(problems[:_SHOWN])}"
            f"{more}. Give a checkpoint of this architecture, or name another with --arch"
        )
    for name in expected:
        if not np.isfinite(given[name]).all():
            raise RdejaxError(
                f"{source}: parameter {name} holds NaN or infinity; take an earlier checkpoint"
            )
    return {
        target.path: np.ascontiguousarray(target.layout.array(given[name]), np.float32)
        for name, target in expected.items()
    }
