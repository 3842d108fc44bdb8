"""What the benchmark scripts share: timing compiled functions, the machine's own speed, files."""

import dataclasses
import json
import os
import platform
import resource
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from rdejax.api import load_model
from rdejax.models import System, create
from rdejax.models.weights import bundled

RESULTS = Path(__file__).parent / "results"


@dataclasses.dataclass(frozen=True)
class Timing:
    """One compiled function.

    Attributes:
      name: what it does.
      compile_s: tracing, lowering and compiling.
      first_s: the first run, after compiling.
      median_s: median of the later runs.
      spread_s: smallest and largest of the later runs.
      flops: floating-point operations of one run, as XLA counts them.
      scratch_bytes: temporary buffers of one run.
      output_bytes: its results.
    """

    name: str
    compile_s: float
    first_s: float
    median_s: float
    spread_s: tuple[float, float]
    flops: float
    scratch_bytes: int
    output_bytes: int

    @property
    def gflops(self) -> float:
        """Achieved GFLOP/s of the median run."""
        return self.flops / self.median_s / 1e9


def measure(
    name: str, function: Callable[..., Any], *arguments: Any, repeats: int
) -> tuple[Timing, Any]:
    """Compiles `function` for `arguments` and times it; returns the timing and the result."""
    started = time.perf_counter()
    compiled = jax.jit(function).lower(*arguments).compile()
    compile_s = time.perf_counter() - started
    result, first_s = _timed(compiled, *arguments)
    times = [_timed(compiled, *arguments)[1] for _ in range(repeats)]
    memory = compiled.memory_analysis()
    timing = Timing(
        name=name,
        compile_s=compile_s,
        first_s=first_s,
        median_s=statistics.median(times),
        spread_s=(min(times), max(times)),
        flops=_flops(compiled),
        scratch_bytes=int(memory.temp_size_in_bytes) if memory else 0,
        output_bytes=int(memory.output_size_in_bytes) if memory else 0,
    )
    return timing, result


def matmul_gflops(size: int = 2048, repeats: int = 5) -> float:
    """Fastest of several float32 products of two size x size matrices: the machine's yardstick."""
    a = jnp.asarray(np.random.default_rng(0).standard_normal((size, size), np.float32))
    product = jax.jit(jnp.matmul)
    _timed(product, a, a)
    best = min(_timed(product, a, a)[1] for _ in range(repeats))
    return 2 * size**3 / best / 1e9


def peak_memory_bytes() -> int:
    """Largest resident size of this process so far."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def tree_bytes(tree: Any) -> int:
    """Bytes of all arrays of a pytree."""
    return sum(int(leaf.nbytes) for leaf in jax.tree.leaves(tree) if hasattr(leaf, "nbytes"))


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    granted = getattr(os, "sched_getaffinity", None)
    return {
        "backend": jax.default_backend(),
        "device": jax.devices()[0].device_kind,
        "cores": len(granted(0)) if granted else os.cpu_count(),
        "processor": _processor(),
        "python": platform.python_version(),
        "jax": jax.__version__,
    }


def write_results(path: Path, content: dict[str, Any]) -> None:
    """Writes JSON and says where."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    print(f"wrote {path}")


def load_or_create(name: str, **settings: Any) -> tuple[System, str]:
    """A system and where its weights come from: "bundled" where there are any, else "random"."""
    if name in bundled():
        return load_model(name, **settings), "bundled"
    return create(name, **settings), "random"


def moving_square(frames: int, height: int, width: int, objects: int = 1) -> tuple:
    """Synthetic uint8 frames [T, H, W, 3] of noise with squares that move, and their first mask."""
    rng = np.random.default_rng(0)
    video = rng.integers(0, 256, (1, height, width, 3), np.uint8).repeat(frames, axis=0)
    mask = np.zeros((height, width), np.uint8)
    side = max(4, min(height, width) // 4)
    for index in range(objects):
        top = (height - side) * (index + 1) // (objects + 1)
        colour = rng.integers(0, 256, 3, np.uint8)
        for t in range(frames):
            left = (index * side + t) % (width - side)
            video[t, top : top + side, left : left + side] = colour
        left = index * side % (width - side)
        mask[top : top + side, left : left + side] = index + 1
    return video, mask


def _timed(function: Callable[..., Any], *arguments: Any) -> tuple[Any, float]:
    started = time.perf_counter()
    result = jax.block_until_ready(function(*arguments))
    return result, time.perf_counter() - started


def _flops(compiled: Any) -> float:
    analysis = compiled.cost_analysis()
    if isinstance(analysis, list):  # one entry per device in older JAX
        analysis = analysis[0] if analysis else {}
    return float((analysis or {}).get("flops", 0.0))


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor()
