"""Settings of all tests: CPU, and one compilation cache that later runs and subprocesses share."""

import gc
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

# Before anything imports JAX. Exactness is promised on CPU only, so that is where tests run; set
# JAX_PLATFORMS to try another. Environment variables, because tests also start command lines.
os.environ.setdefault("JAX_PLATFORMS", "cpu")

CACHE = Path(__file__).resolve().parents[1] / ".pytest_cache" / "jax"


def pytest_configure() -> None:
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(CACHE))
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.5")
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "0")


@pytest.fixture(scope="module", autouse=True)
def _forget_compiled_functions() -> Iterator[None]:
    """Without it a process of the whole suite grows to many gigabytes; the disk cache remains."""
    yield
    if "jax" in sys.modules:
        sys.modules["jax"].clear_caches()
    gc.collect()
