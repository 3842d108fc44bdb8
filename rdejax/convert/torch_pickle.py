"""Reads what `torch.save` wrote, without PyTorch and without running any code of the file.

A PyTorch file is a pickle beside raw arrays. The pickle is read by `pickle_values`, which knows
plain values only; here a handful of names get a meaning (tensors, storages of plain numbers). What
a file takes is bounded by its size: arrays lie in it uncompressed, each storage is read once, and
tensors that overlap may repeat it a few times only. An optimiser's state is not read.
"""

import contextlib
import errno
import math
import os
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import numpy as np

from rdejax.convert.pickle_values import UNKNOWN, Name, Refused, read_pickle
from rdejax.errors import RdejaxError, shorten

T = TypeVar("T")

_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
_LEGACY_PROTOCOL = 1001
_BFLOAT16 = "bfloat16"
# Storage class -> type of its elements.
_STORAGES = {
    "DoubleStorage": "f8",
    "FloatStorage": "f4",
    "HalfStorage": "f2",
    "BFloat16Storage": _BFLOAT16,
    "LongStorage": "i8",
    "IntStorage": "i4",
    "ShortStorage": "i2",
    "CharStorage": "i1",
    "ByteStorage": "u1",
    "BoolStorage": "?",
}
# Where training checkpoints keep the network's state dict.
_WRAPPERS = ("network", "state_dict", "model_state_dict", "model", "net", "module")
# How often tensors that share a storage (tied weights) may hold what is in the file once.
_MOST_COPIES = 4
# NumPy's own bound; PyTorch's networks have five at most.
_MOST_AXES = 32


class Storage:
    """A run of numbers in the file: type name (None: unknown), key, start and length."""

    __slots__ = ("dtype", "key", "start", "numel")

    def __init__(self, dtype: str | None, key: str, start: int, numel: int):
        self.dtype, self.key, self.start, self.numel = dtype, key, start, numel


class Tensor:
    """A view of a storage: offset, sizes and strides, counted in elements."""

    __slots__ = ("storage", "offset", "size", "stride")

    def __init__(self, storage: Storage, offset: int, size: tuple, stride: tuple):
        self.storage, self.offset, self.size, self.stride = storage, offset, size, stride

    @property
    def count(self) -> int:
        """Number of elements.

        Raises:
          ValueError: the view is no possible one, does not lie within its storage, or its type is
            not known.
        """
        if max(len(self.size), len(self.stride)) > _MOST_AXES:
            raise ValueError("a tensor of too many axes")
        numbers = (self.offset, *self.size, *self.stride)
        possible = all(type(n) is int and 0 <= n < 1 << 62 for n in numbers)
        if not possible or len(self.size) != len(self.stride):
            raise ValueError("a tensor of impossible shape")
        count = math.prod(self.size)
        last = sum((n - 1) * s for n, s in zip(self.size, self.stride, strict=True))
        if count and max(count, self.offset + last + 1) > self.storage.numel:
            raise ValueError("a tensor that reaches past its storage")
        _item_size(self.storage.dtype)
        return count

    def array(self, data: bytes | memoryview, order: str) -> np.ndarray:
        """The values; halves and doubles become float32, integers stay.

        Args:
          data: what the file holds under the storage's key.
          order: of bytes, "<" or ">".

        Raises:
          EOFError: the storage is longer than that.
          ValueError: see `count`.
        """
        count, dtype = self.count, self.storage.dtype
        kind = np.dtype(f"{order}u2" if dtype == _BFLOAT16 else f"{order}{dtype}")
        begin = self.storage.start * kind.itemsize
        if begin + self.storage.numel * kind.itemsize > len(data):
            raise EOFError
        if not count:
            return _widened(np.zeros(self.size, kind), dtype)
        flat = np.frombuffer(data, kind, self.storage.numel, begin)[self.offset :]
        steps = tuple(s * kind.itemsize for s in self.stride)
        view = np.lib.stride_tricks.as_strided(flat, self.size, steps, writeable=False)
        return _widened(np.array(view, order="C"), dtype)


def _rebuild_tensor(storage: Any, offset: Any, size: Any, stride: Any, *rest: Any) -> Any:
    del rest  # requires_grad, hooks, metadata
    if not (isinstance(storage, Storage) and isinstance(size, tuple) and isinstance(stride, tuple)):
        return UNKNOWN
    return Tensor(storage, offset, size, stride)


def _build(name: Name, arguments: tuple) -> Any:
    """What a call that a file asks for would give, as far as it matters here."""
    known = f"{name.module}.{name.name}"
    if known in ("torch._utils._rebuild_tensor", "torch._utils._rebuild_tensor_v2"):
        return _rebuild_tensor(*arguments)
    if known.startswith("torch._utils._rebuild_parameter"):
        return arguments[0]
    if known == "torch.Size":
        sizes = arguments[0] if arguments else ()
        return tuple(sizes) if isinstance(sizes, list | tuple) else UNKNOWN
    return UNKNOWN


class _Storages:
    """The storages that a pickle tells of."""

    def __init__(self):
        self.types: dict[str, str | None] = {}

    def __call__(self, pid: Any) -> Any:
        """The storage an id tells of: ("storage", type, key, device, length[, view])."""
        if not (isinstance(pid, tuple) and len(pid) >= 5 and pid[0] == "storage"):
            return UNKNOWN
        kind, key, numel = pid[1], pid[2], pid[4]
        if not isinstance(key, str | int) or type(numel) is not int or numel < 0:
            raise Refused("a storage of impossible name or length")
        known = isinstance(kind, Name) and kind.module in ("torch", "torch.cuda")
        dtype = _STORAGES.get(kind.name) if known else None
        self.types.setdefault(str(key), dtype)
        if len(pid) == 5 or pid[5] is None:
            return Storage(dtype, str(key), 0, numel)
        view = pid[5]
        if not (isinstance(view, tuple) and len(view) == 3) or any(
            type(n) is not int or n < 0 for n in view[1:]
        ):
            raise Refused("a storage view of impossible place")
        return Storage(dtype, str(key), view[1], view[2])


class _ZipFile:
    """The format since PyTorch 1.6: a zip archive of data.pkl and data/<key>."""

    def __init__(self, file: BinaryIO):
        self.archive = zipfile.ZipFile(file)
        names = self.archive.namelist()
        pickles = [n for n in names if n == "data.pkl" or n.endswith("/data.pkl")]
        if not pickles:
            raise _NotACheckpoint("a zip archive without data.pkl")
        self.prefix = pickles[0].removesuffix("data.pkl")
        if f"{self.prefix}constants.pkl" in names:
            raise _NotACheckpoint("a TorchScript archive")
        self._check(os.fstat(file.fileno()).st_size)
        order = f"{self.prefix}byteorder"
        self.order = ">" if order in names and self.archive.read(order) == b"big" else "<"
        data = self.archive.read(pickles[0])
        self.root, _ = read_pickle(data, build=_build, persistent=_Storages())

    def _check(self, size: int) -> None:
        """Refuses members that unpack to more than the file holds."""
        members = self.archive.infolist()
        for member in members:
            if member.compress_type != zipfile.ZIP_STORED or member.flag_bits & 1:
                raise Refused(f"{member.filename[:80]!r} is compressed, as torch.save does not do")
        if sum(member.file_size for member in members) > size:
            raise Refused("members that are longer than the file")

    def read(self, key: str) -> bytes:
        """What is stored under a key."""
        return self.archive.read(f"{self.prefix}data/{key}")


class _LegacyFile:
    """The format before: five pickles, then each storage as a length and raw numbers."""

    def __init__(self, file: BinaryIO):
        storages = _Storages()
        data, position = file.read(), 0
        self.data = memoryview(data)
        values = []
        for _ in range(5):  # magic number, protocol, system, the checkpoint, keys of storages
            value, position = read_pickle(data, build=_build, persistent=storages, start=position)
            values.append(value)
        _, protocol, system, self.root, keys = values
        if protocol != _LEGACY_PROTOCOL:
            raise _NotACheckpoint("a PyTorch file of another protocol")
        if not isinstance(system, dict) or not isinstance(keys, list):
            raise Refused("a PyTorch file without its system or storages")
        self.order = "<" if system.get("little_endian", True) else ">"
        self.places: dict[str, tuple[int, int]] = {}
        for key in keys:
            dtype = storages.types.get(key) if isinstance(key, str) else None
            begin = position + 8
            length = int.from_bytes(data[position:begin], "little") * _item_size(dtype)
            position = begin + length
            if position > len(data):
                raise EOFError
            self.places[key] = begin, length

    def read(self, key: str) -> memoryview:
        """What is stored under a key."""
        begin, length = self.places[key]
        return self.data[begin : begin + length]


class _NotACheckpoint(Exception):
    """The file is of another kind; says which."""


def _item_size(dtype: str | None) -> int:
    if dtype is None:
        raise ValueError("a storage of unknown type")
    return 2 if dtype == _BFLOAT16 else np.dtype(dtype).itemsize


def _widened(array: np.ndarray, dtype: str | None) -> np.ndarray:
    if dtype == _BFLOAT16:
        # A bfloat16 is the upper half of a float32.
        return (array.astype(np.uint32) << 16).view(np.float32)
    if array.dtype.kind == "f":
        with np.errstate(over="ignore"):  # becomes infinite, which is reported by name later
            return array.astype(np.float32)
    return array.astype(array.dtype.newbyteorder("="))


@contextlib.contextmanager
def _plain_errors(path: Path) -> Iterator[None]:
    """One sentence for whatever a damaged or foreign file makes the readers raise."""
    again = "download or copy it again"
    try:
        yield
    except RdejaxError:
        raise
    except OSError as error:
        if error.errno != errno.EINVAL:  # the archive tells of a place that no file has
            raise
        raise RdejaxError(f"{path}: a damaged zip archive; {again}") from None
    except _NotACheckpoint as error:
        raise RdejaxError(
            f"{path}: {error}, not a PyTorch checkpoint; give a file that torch.save wrote from a "
            "state dict"
        ) from None
    except EOFError:
        raise RdejaxError(f"{path}: the file ends too early; {again}") from None
    except zipfile.BadZipFile as error:
        raise RdejaxError(f"{path}: a damaged zip archive ({error}); {again}") from None
    except Exception as error:  # a file of unknown origin can raise anything
        text = (str(error).splitlines() or [""])[0][:200]
        what = text if isinstance(error, Refused) else f"{type(error).__name__}: {text}"
        raise RdejaxError(
            f"{path}: a damaged or unsupported checkpoint ({what}); give a file that torch.save "
            "wrote from a state dict"
        ) from None


def _open(file: BinaryIO) -> _ZipFile | _LegacyFile:
    start = file.read(64)
    file.seek(0)
    if start.startswith(b"PK"):
        return _ZipFile(file)
    # Protocol 2, a long integer of ten bytes: the magic number.
    magic = b"\x80\x02\x8a\x0a" + _LEGACY_MAGIC.to_bytes(10, "little") + b"."
    if start.startswith(magic):
        return _LegacyFile(file)
    if magic.startswith(start[: len(magic)]):
        raise EOFError
    raise _NotACheckpoint("a file of another kind")


def load_state_dict(path: str | os.PathLike) -> dict[str, np.ndarray]:
    """The network's arrays by PyTorch name, from a checkpoint.

    Takes a bare state dict or a training checkpoint that holds one as "network", "state_dict",
    "model" and the like. The prefix "module." of DataParallel is taken off. Layouts are PyTorch's;
    floating-point numbers come as float32.

    Args:
      path: of the file, in PyTorch's zip format or the one before it.

    Raises:
      RdejaxError: no such file, not a checkpoint, damaged or truncated, of unsupported content, or
        a weight is NaN or infinite (it is named).
    """
    path = Path(path)
    if not path.is_file():
        raise RdejaxError(f"{path}: no such file; give a PyTorch checkpoint (.pth)")
    with open(path, "rb") as file, _plain_errors(path):
        reader = _open(file)
        tensors = _find_state_dict(reader.root)
        if tensors is None:
            raise RdejaxError(
                f"{path}: holds no state dict ({_describe(reader.root)}); save "
                "network.state_dict() with torch.save and give that file"
            )
        foreign = [name for name, value in tensors.items() if not isinstance(value, Tensor)]
        if foreign:
            raise RdejaxError(
                f"{path}: {shorten(foreign)[:200]} in the state dict is no plain tensor; save the "
                "network's state dict on its own"
            )
        arrays = _read_all(tensors, reader, os.fstat(file.fileno()).st_size)
    for name, array in arrays.items():
        if not np.isfinite(array).all():
            raise RdejaxError(
                f"{path}: parameter {name[:200]} holds NaN or infinity; take an earlier checkpoint"
            )
    return _without_prefix(arrays)


def _read_all(
    tensors: dict[str, Tensor], reader: _ZipFile | _LegacyFile, size: int
) -> dict[str, np.ndarray]:
    """The tensors' values by name, in order; each storage is read once."""
    by_key: dict[str, list[str]] = {}
    total = 0
    for name, tensor in tensors.items():
        total += _named(name, lambda tensor=tensor: tensor.count) * _item_size(tensor.storage.dtype)
        by_key.setdefault(tensor.storage.key, []).append(name)
    if total > _MOST_COPIES * size:
        raise Refused(f"tensors of {total} bytes in a file of {size}")
    arrays: dict[str, np.ndarray] = {}
    for key, names in by_key.items():
        data = _named(names[0], lambda key=key: reader.read(key))
        for name in names:
            tensor = tensors[name]
            arrays[name] = _named(name, lambda t=tensor, d=data: t.array(d, reader.order))
    return {name: arrays[name] for name in tensors}


def _named(name: str, call: Callable[[], T]) -> T:
    try:
        return call()
    except (ValueError, KeyError) as error:
        raise ValueError(f"parameter {name[:80]} is {error}") from error


def _find_state_dict(root: Any, seen: set[int] | None = None, deep: int = 8) -> Any:
    """The state dict in a checkpoint, or None: of what wrappers hold, or else the root itself."""
    seen = set() if seen is None else seen
    if not deep or not isinstance(root, dict) or id(root) in seen:
        return None
    seen.add(id(root))
    if not all(isinstance(key, str) for key in root):
        return None
    for key in _WRAPPERS:
        found = _find_state_dict(root.get(key), seen, deep - 1)
        if found is not None:
            return found
    has_tensors = any(isinstance(value, Tensor) for value in root.values())
    return dict(root) if has_tensors else None


def _without_prefix(arrays: dict[str, np.ndarray], prefix: str = "module.") -> dict:
    for _ in range(3):  # of wrappers in wrappers
        if arrays and all(name.startswith(prefix) for name in arrays):
            arrays = {name.removeprefix(prefix): array for name, array in arrays.items()}
    return arrays


def _describe(root: Any) -> str:
    if isinstance(root, dict):
        names = ", ".join(repr(key)[:40] for key in list(root)[:8] if isinstance(key, str))
        return f"a dictionary of {names or 'no names'}"
    plain = root is None or type(root) in (bool, int, float, str, bytes, list, tuple, Tensor)
    return f"a {type(root).__name__}" if plain else "a pickled object"
