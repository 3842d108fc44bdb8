"""Settings of all tests: CPU, checked shapes, and compilations that are cheap and made once."""

import contextlib
import ctypes
import gc
import os
import sys
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import pytest

CACHE = Path(__file__).resolve().parents[1] / ".pytest_cache" / "jax"

# XLA ends the process at a flag that it does not know, and this one goes with JAX 0.10.
OLDER_WAY = ["--xla_cpu_use_fusion_emitters=false"] * version("jax").startswith("0.10.")

# Before anything imports JAX; environment variables, because tests also start command lines.
SETTINGS = {
    # Exactness is promised on CPU only, so that is where tests run; set it to try another.
    "JAX_PLATFORMS": "cpu",
    # One cache for all processes and later runs. Small programs count: a model has hundreds.
    "JAX_COMPILATION_CACHE_DIR": str(CACHE),
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "0",
    # Tests compile much and run little. Without optimised machine code, and with XLA's older way
    # of making it, compiling takes a fifth of the time and half of the memory.
    "XLA_FLAGS": " ".join(("--xla_backend_optimization_level=0", *OLDER_WAY)),
    # What is freed goes back to the system, where threads compile.
    "MALLOC_ARENA_MAX": "2",
    # Shapes are broadcast on purpose or not at all.
    "JAX_NUMPY_RANK_PROMOTION": "raise",
}
for _name, _value in SETTINGS.items():
    os.environ.setdefault(_name, _value)

sys.path.insert(0, str(Path(__file__).parent))
import typecheck  # noqa: E402

typecheck.install()


@pytest.fixture(scope="module", autouse=True)
def _forget_compiled_functions() -> Iterator[None]:
    """Without it a process of the whole suite grows to many gigabytes; the disk cache remains."""
    yield
    if "jax" in sys.modules:
        sys.modules["jax"].clear_caches()
    gc.collect()
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):  # another C library than glibc
            # What was freed stays with the process otherwise: most of a gigabyte after some files.
            ctypes.CDLL("libc.so.6").malloc_trim(0)
