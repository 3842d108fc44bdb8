"""Settings of all tests: CPU, and one compilation cache that later runs and subprocesses share."""

import os
from pathlib import Path

# Before anything imports JAX. Exactness is promised on CPU only, so that is where tests run; set
# JAX_PLATFORMS to try another. Environment variables, because tests also start command lines.
os.environ.setdefault("JAX_PLATFORMS", "cpu")

CACHE = Path(__file__).resolve().parents[1] / ".pytest_cache" / "jax"


def pytest_configure() -> None:
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(CACHE))
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.5")
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "0")
