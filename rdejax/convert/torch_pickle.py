"""Reads what `torch.save` wrote, without PyTorch and without running any code of the file.

A PyTorch file is a pickle beside raw arrays. Unpickling calls whatever the file names, so this
reader knows a handful of names (ordered dictionaries, tensors, storages of plain numbers); every
other one becomes an inert `Unknown`, which is never imported nor called. Tensors are read when they
are asked for, so an optimiser's state costs nothing.
"""

import contextlib
import math
import os
import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from rdejax.errors import RdejaxError

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


class Unknown:
    """Stands for an object this reader does not know; accepts whatever the pickle does to it."""

    def __init__(self, *args: Any, **kwargs: Any):
        """Takes and forgets any arguments."""

    def __new__(cls, *args: Any, **kwargs: Any) -> "Unknown":
        """Takes any arguments, as pickles build objects in several ways."""
        del args, kwargs
        return super().__new__(cls)

    def __setstate__(self, state: Any) -> None:
        """Forgets the state."""

    def __setitem__(self, key: Any, value: Any) -> None:
        """Forgets an entry (subclasses of dict)."""

    def append(self, item: Any) -> None:
        """Forgets an element (subclasses of list)."""

    def extend(self, items: Any) -> None:
        """Forgets elements."""


class _Sealed:
    """What a pickle may hold but not change."""

    __slots__ = ()

    def __setstate__(self, state: Any) -> None:
        raise pickle.UnpicklingError("a pickle that changes how tensors are built")


class Storage(_Sealed):
    """A run of numbers in the file: type name (None: unknown), key, start and length."""

    __slots__ = ("dtype", "key", "start", "numel")

    def __init__(self, dtype: str | None, key: str, start: int, numel: int):
        self.dtype, self.key, self.start, self.numel = dtype, key, start, numel


class Tensor(_Sealed):
    """A view of a storage: offset, sizes and strides, counted in elements."""

    __slots__ = ("storage", "offset", "size", "stride")

    def __init__(self, storage: Storage, offset: int, size: tuple, stride: tuple):
        self.storage, self.offset, self.size, self.stride = storage, offset, size, stride

    def array(self, read: Callable[[Storage], np.ndarray]) -> np.ndarray:
        """The values; halves and doubles become float32, integers stay.

        Raises:
          ValueError: the view does not lie within its storage, or its type is not known.
        """
        size, stride, offset = tuple(self.size), tuple(self.stride), self.offset
        numbers = (offset, *size, *stride)
        if len(size) != len(stride) or any(type(n) is not int or n < 0 for n in numbers):
            raise ValueError("a tensor of impossible shape")
        count = math.prod(size)
        end = offset + sum((n - 1) * s for n, s in zip(size, stride, strict=True)) + 1
        if count and max(count, end) > self.storage.numel:
            raise ValueError("a tensor that reaches past its storage")
        flat = read(self.storage)
        if not count:
            return np.zeros(size, flat.dtype)
        steps = tuple(s * flat.itemsize for s in stride)
        view = np.lib.stride_tricks.as_strided(flat[offset:], size, steps, writeable=False)
        return np.array(view, order="C")


class _Builder(_Sealed):
    """A function that a pickle may call."""

    __slots__ = ("_call",)

    def __init__(self, call: Callable[..., Any]):
        self._call = call

    def __call__(self, *args: Any) -> Any:
        return self._call(*args)


def _rebuild_tensor(storage: Any, offset: int, size: tuple, stride: tuple, *rest: Any) -> Any:
    del rest  # requires_grad, hooks, metadata
    return Tensor(storage, offset, size, stride) if isinstance(storage, Storage) else Unknown()


_BUILDERS: dict[tuple[str, str], Callable[..., Any]] = {
    ("torch._utils", "_rebuild_tensor"): _rebuild_tensor,
    ("torch._utils", "_rebuild_tensor_v2"): _rebuild_tensor,
    ("torch._utils", "_rebuild_parameter"): lambda data, *rest: data,
    ("torch._utils", "_rebuild_parameter_with_state"): lambda data, *rest: data,
    ("torch", "Size"): lambda sizes=(): tuple(sizes),
}
_TYPES = {
    ("collections", "OrderedDict"): OrderedDict,
    ("builtins", "dict"): dict,
    ("builtins", "list"): list,
    ("builtins", "set"): set,
    ("__builtin__", "set"): set,
}


class _Unpickler(pickle.Unpickler):
    """Unpickler that resolves names in its own tables and nowhere else."""

    def __init__(self, file: BinaryIO):
        super().__init__(file, encoding="utf-8", errors="replace")
        self.storages: dict[str, Storage] = {}

    def find_class(self, module_name: str, global_name: str) -> Any:
        """What stands for a name of the file; `Unknown` for all but a few."""
        name = (module_name, global_name)
        if name in _TYPES:
            return _TYPES[name]
        if name in _BUILDERS:
            return _Builder(_BUILDERS[name])
        # A class of its own, so that nothing the pickle does to it stays behind.
        kind = _STORAGES.get(global_name) if module_name in ("torch", "torch.cuda") else None
        return type("Unknown", (Unknown,), {"storage_type": kind})

    def persistent_load(self, pid: Any) -> Any:
        """The storage an id tells of: ("storage", type, key, device, length[, view])."""
        if not (isinstance(pid, tuple) and len(pid) >= 5 and pid[0] == "storage"):
            return Unknown()
        dtype = getattr(pid[1], "storage_type", None)
        key, numel = str(pid[2]), pid[4]
        if type(numel) is not int or numel < 0:
            raise pickle.UnpicklingError("a storage of impossible length")
        self.storages.setdefault(key, Storage(dtype, key, 0, numel))
        if len(pid) > 5 and pid[5] is not None:
            _, start, numel = pid[5]
            if any(type(n) is not int or n < 0 for n in (start, numel)):
                raise pickle.UnpicklingError("a storage view of impossible place")
            return Storage(dtype, key, start, numel)
        return Storage(dtype, key, 0, numel)


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
        order = f"{self.prefix}byteorder"
        self.order = ">" if order in names and self.archive.read(order) == b"big" else "<"
        with self.archive.open(pickles[0]) as data:
            self.root = _Unpickler(data).load()  # type: ignore[arg-type]

    def read(self, storage: Storage) -> np.ndarray:
        """The elements of a storage."""
        data = self.archive.read(f"{self.prefix}data/{storage.key}")
        return _numbers(data, storage, self.order)


class _LegacyFile:
    """The format before: five pickles, then each storage as a length and raw numbers."""

    def __init__(self, file: BinaryIO):
        self.file = file
        _Unpickler(file).load()  # the magic number
        if _Unpickler(file).load() != _LEGACY_PROTOCOL:
            raise _NotACheckpoint("a PyTorch file of another protocol")
        system = _Unpickler(file).load()
        self.order = "<" if system.get("little_endian", True) else ">"
        unpickler = _Unpickler(file)
        self.root = unpickler.load()
        self.places: dict[str, int] = {}
        end = os.fstat(file.fileno()).st_size
        for key in _Unpickler(file).load():
            known = unpickler.storages.get(str(key))
            if known is None or known.dtype is None:
                raise ValueError("a storage of unknown type")
            numel = int.from_bytes(_exactly(file, 8), "little")
            self.places[str(key)] = file.tell()
            after = file.tell() + numel * _item_size(known.dtype)
            if after > end:
                raise EOFError
            file.seek(after)

    def read(self, storage: Storage) -> np.ndarray:
        """The elements of a storage."""
        size = _item_size(storage.dtype)
        self.file.seek(self.places[storage.key] + storage.start * size)
        data = _exactly(self.file, storage.numel * size)
        return _numbers(data, Storage(storage.dtype, storage.key, 0, storage.numel), self.order)


class _NotACheckpoint(Exception):
    """The file is of another kind; says which."""


def _exactly(file: BinaryIO, count: int) -> bytes:
    data = file.read(count)
    if len(data) != count:
        raise EOFError
    return data


def _item_size(dtype: str | None) -> int:
    if dtype is None:
        raise ValueError("a storage of unknown type")
    return 2 if dtype == _BFLOAT16 else np.dtype(dtype).itemsize


def _numbers(data: bytes, storage: Storage, order: str) -> np.ndarray:
    size = _item_size(storage.dtype)
    data = data[storage.start * size : (storage.start + storage.numel) * size]
    if len(data) != storage.numel * size:
        raise EOFError
    if storage.dtype == _BFLOAT16:
        # A bfloat16 is the upper half of a float32.
        upper = np.frombuffer(data, f"{order}u2").astype(np.uint32)
        return (upper << 16).view(np.float32)
    array = np.frombuffer(data, f"{order}{storage.dtype}")
    if array.dtype.kind == "f":
        with np.errstate(over="ignore"):  # becomes infinite, which is reported by name later
            return array.astype(np.float32)
    return array.astype(np.dtype(storage.dtype))


@contextlib.contextmanager
def _plain_errors(path: Path) -> Iterator[None]:
    """One sentence for whatever a damaged or foreign file makes the readers raise."""
    again = "download or copy it again"
    try:
        yield
    except (RdejaxError, OSError):
        raise
    except _NotACheckpoint as error:
        raise RdejaxError(
            f"{path}: {error}, not a PyTorch checkpoint; give a file that torch.save wrote from a "
            "state dict"
        ) from None
    except EOFError:
        raise RdejaxError(f"{path}: the file ends too early; {again}") from None
    except zipfile.BadZipFile as error:
        raise RdejaxError(f"{path}: a damaged zip archive ({error}); {again}") from None
    except Exception as error:  # a pickle of unknown origin can raise anything
        raise RdejaxError(
            f"{path}: a damaged or unsupported checkpoint ({type(error).__name__}: {error}); "
            "give a file that torch.save wrote from a state dict"
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
                f"{path}: {', '.join(map(str, foreign[:5]))} in the state dict is no plain tensor; "
                "save the network's state dict on its own"
            )
        arrays = {name: _read(name, value, reader) for name, value in tensors.items()}
    for name, array in arrays.items():
        if not np.isfinite(array).all():
            raise RdejaxError(
                f"{path}: parameter {name} holds NaN or infinity; take an earlier checkpoint"
            )
    return _without_prefix(arrays)


def _read(name: str, tensor: Tensor, reader: _ZipFile | _LegacyFile) -> np.ndarray:
    try:
        return tensor.array(reader.read)
    except (ValueError, KeyError) as error:
        raise ValueError(f"parameter {name} is {error}") from error


def _find_state_dict(root: Any) -> dict[str, Any] | None:
    if not isinstance(root, dict) or not all(isinstance(key, str) for key in root):
        return None
    for key in _WRAPPERS:
        if key in root and (found := _find_state_dict(root[key])) is not None:
            return found
    has_tensors = any(isinstance(value, Tensor) for value in root.values())
    return dict(root) if has_tensors else None


def _without_prefix(arrays: dict[str, np.ndarray], prefix: str = "module.") -> dict:
    while arrays and all(name.startswith(prefix) for name in arrays):
        arrays = {name.removeprefix(prefix): array for name, array in arrays.items()}
    return arrays


def _describe(root: Any) -> str:
    if isinstance(root, dict):
        return "a dictionary of " + (", ".join(repr(k) for k in list(root)[:8]) or "nothing")
    return "a pickled object" if isinstance(root, Unknown) else f"a {type(root).__name__}"
