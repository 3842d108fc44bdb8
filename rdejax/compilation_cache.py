"""Compiled programs kept from run to run, in the user's cache folder.

JAX's own persistent cache does the work. It is off unless told where to write; the command lines
tell it, unless the user did. Nothing that goes wrong with it can spoil a run: what cannot be read
is compiled, what cannot be written is not kept.
"""

import contextlib
import hashlib
import logging
import os
import platform
import sys
import tempfile
import warnings
from importlib.metadata import version
from pathlib import Path

import platformdirs

# Older programs than fit go; a model at one size takes some ten MB.
_MOST_BYTES = 2 << 30
_DIR, _ENABLED = "JAX_COMPILATION_CACHE_DIR", "JAX_ENABLE_COMPILATION_CACHE"
_SETTINGS = {
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.05",
    "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
}


def keep_compiled(wanted: bool = True) -> Path | None:
    """Has JAX keep what it compiles; to be called before JAX is imported.

    What the environment says of JAX's cache (`JAX_COMPILATION_CACHE_DIR`,
    `JAX_ENABLE_COMPILATION_CACHE`) stays as it is. Folders are made for each version of JAX and
    each kind of processor: machine code of one may not run on another that shares the home.

    Args:
      wanted: False turns the cache off for this process.

    Returns:
      The folder; None if nothing is kept, or if the environment decides.
    """
    if not wanted:
        os.environ[_ENABLED] = "false"
        return None
    if _DIR in os.environ or _ENABLED in os.environ or "jax" in sys.modules:
        return None
    folder = platformdirs.user_cache_path("rdejax") / "compiled" / _kind()
    if not _writable(folder):
        return None
    _tidy(folder)
    os.environ[_DIR] = str(folder)
    for name, value in _SETTINGS.items():
        os.environ.setdefault(name, value)
    # An entry that another process is writing, or that a full disk cut short, is compiled again;
    # the user need not hear of it.
    warnings.filterwarnings("ignore", message=".*persistent compilation cache.*")
    logging.getLogger("jax._src.compilation_cache").setLevel(logging.ERROR)
    return folder


def _kind() -> str:
    """The version of JAX and the kind of processor, as a folder's name."""
    features = platform.machine()
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith(("model name", "flags", "Features")):
                features += line
            if not line:
                break
    return f"jax-{version('jaxlib')}-{hashlib.sha256(features.encode()).hexdigest()[:8]}"


def _writable(folder: Path) -> bool:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:  # a home that is read-only, full or not there
        return False


def _tidy(folder: Path) -> None:
    """Removes empty entries, and the oldest while there are too many; ignores what it may not."""
    found = []
    for path in folder.iterdir():
        with contextlib.suppress(OSError):
            status = path.stat()
            if status.st_size == 0 and path.suffix != ".lock":
                path.unlink()
            else:
                found.append((status.st_mtime, status.st_size, path))
    total = sum(size for _, size, _ in found)
    for _, size, path in sorted(found):
        if total <= _MOST_BYTES:
            return
        with contextlib.suppress(OSError):
            path.unlink()
            total -= size
