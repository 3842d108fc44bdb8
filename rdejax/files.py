"""Files that appear whole or not at all."""

import contextlib
import errno
import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from rdejax.errors import RdejaxError

# What a safetensors file's metadata calls the digest of all else in it.
_DIGEST = "sha256"
# Names have at most 255 bytes; a temporary one is longer than the name it stands for.
_LONG = 200


def temporary_name(path: Path) -> Path:
    """A hidden name beside `path`, with its suffix, for what is not yet or no longer there."""
    stem = path.stem
    if len(os.fsencode(path.name)) > _LONG:
        stem = hashlib.sha256(os.fsencode(stem)).hexdigest()[:32]
    return path.with_name(f".{stem}.tmp-{os.getpid()}{path.suffix}")


@contextlib.contextmanager
def atomic(path: str | Path) -> Iterator[Path]:
    """Yields a temporary name beside `path`, renamed to `path` when the block ends without error.

    The temporary name is hidden and keeps the suffix, because encoders choose the format by it. On
    any error the temporary file is removed and `path` is left as it was. What was written is on the
    disk before the rename: after a power failure there is no empty file of that name.
    """
    path = Path(path)
    if not path.name:  # "", "." and "/"
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    temporary = temporary_name(path)
    try:
        yield temporary
        _flush(temporary)
        os.replace(temporary, path)
    except BaseException as error:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.filename in (None, str(temporary)):
            # People know the file by its final name; some errors (a full disk) come without one.
            error.filename = str(path)
        raise


def write_json(path: str | Path, value: Any) -> None:
    """Writes `value` as indented JSON, atomically.

    Names of files that are no UTF-8 are written as JSON's escapes, which give them back when read.
    """
    text = json.dumps(value, indent=2, ensure_ascii=False) + "\n"
    with atomic(path) as temporary:
        temporary.write_bytes(text.encode("utf-8", "backslashreplace"))


def read_json(path: str | Path) -> dict[str, Any] | None:
    """Reads a JSON object written by `write_json`; None if there is no such file.

    Raises:
      RdejaxError: the file is not a JSON object.
    """
    path = Path(path)
    try:
        value = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        return None
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise RdejaxError(
            f"{path}: not a JSON object; it is damaged or of another program, move it away"
        )
    return value


def write_arrays(path: str | Path, arrays: Mapping[str, Any], about: Mapping[str, str]) -> None:
    """Writes a safetensors file, atomically; the same content always gives the same bytes.

    A digest of the content is added, which `read_arrays` compares: the format itself has none.

    Args:
      path: of the file.
      arrays: NumPy's, by name.
      about: the file's metadata.

    Raises:
      OSError: the file cannot be written.
    """
    # For command lines that ask for --help, too.
    import numpy as np
    from safetensors import SafetensorError
    from safetensors.numpy import save_file

    # `np.ascontiguousarray` would make vectors of numbers.
    arrays = {name: np.asarray(array, order="C") for name, array in arrays.items()}
    about = {**about, _DIGEST: _digest(arrays, about)}
    with atomic(path) as temporary:
        temporary.touch()  # its errors are the system's own, and say what is wrong
        mode = temporary.stat().st_mode
        try:
            save_file(arrays, temporary, about)
        except SafetensorError as error:
            found = re.search(r"os error (\d+)", str(error))
            number = int(found[1]) if found else errno.EIO
            raise OSError(number, os.strerror(number), str(temporary)) from error
        temporary.chmod(mode & 0o777)  # safetensors makes files that only their owner can read
        _order_header(temporary)


def read_arrays(path: str | Path) -> tuple[dict[str, Any], dict[str, str]]:
    """Arrays and metadata of a safetensors file.

    Raises:
      RdejaxError: it is not as `write_arrays` wrote it. Files of others have no digest to compare.
      SafetensorError: of the library: not such a file.
      OSError: it cannot be read.
    """
    from safetensors import safe_open

    with safe_open(path, framework="numpy") as file:
        about = file.metadata() or {}
        arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    noted = about.pop(_DIGEST, None)
    if noted is not None and noted != _digest(arrays, about):
        raise RdejaxError(
            f"{path}: was changed or damaged since it was written (its digest is another); take a "
            "copy of it, or make it again"
        )
    return arrays, about


def _digest(arrays: Mapping[str, Any], about: Mapping[str, str]) -> str:
    digest = hashlib.sha256(json.dumps(sorted(about.items())).encode())
    for name, array in sorted(arrays.items()):
        digest.update(json.dumps([name, str(array.dtype), array.shape]).encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def _order_header(path: Path) -> None:
    """Sorts a safetensors file's metadata, which the library writes in a random order."""
    with open(path, "r+b") as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length))
        about = header.pop("__metadata__", {})
        ordered = {"__metadata__": dict(sorted(about.items())), **header}
        text = json.dumps(ordered, separators=(",", ":"), ensure_ascii=False).encode()
        if len(text) <= length:
            file.seek(8)
            file.write(text.ljust(length))


def _flush(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # file systems that cannot
            raise
    finally:
        os.close(handle)
