"""Single functions of inference and training, plain and as they are here, in turn.

    python benchmarks/inference_parts.py [--only readout convolution]

Each pair computes the same (the largest difference is told); milliseconds are medians, with the
cores in use. A call alone has memory of its own, which the system hands out page by page: in a
whole program both sides are faster.
"""

import dataclasses
import os
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from jax import Array, lax
from measure import RESULTS, machine, matmul_gflops, write_results
from rich.console import Console
from rich.table import Table

from rdejax.memory.affinity import Places, largest
from rdejax.nn import winograd
from rdejax.nn.aggregate import aggregate, aggregate_logits
from rdejax.nn.layers import resize_bilinear

_RANDOM = np.random.default_rng(0)
# Functions of the same arguments by what they are: the plain one first.
Pair = tuple[str, dict[str, Callable[..., Any]], tuple[Array, ...]]


@dataclasses.dataclass(frozen=True)
class Arguments:
    """What to time."""

    only: tuple[str, ...] = ()
    """Groups by name; none: all."""
    turns: int = 5
    output: Path = RESULTS / "inference_parts.json"


def drawn(*shape: int) -> Array:
    """Normal random numbers."""
    return jnp.asarray(_RANDOM.standard_normal(shape, np.float32))


def convolved(x: Array, kernel: Array, stride: int = 1) -> Array:
    """XLA's convolution with zero padding."""
    pad = kernel.shape[0] // 2
    return lax.conv_general_dilated(
        x,
        kernel,
        (stride, stride),
        ((pad, pad), (pad, pad)),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )


def top_k() -> Iterator[Pair]:
    """The largest of each query's affinities."""
    scores = drawn(1620, 4860)
    for k in (5, 20, 40):
        functions = {
            "lax.top_k": lambda s, k=k: lax.top_k(s, k)[0],
            "groups": lambda s, k=k: largest(s, k)[0],
        }
        yield f"top {k} of 4860, 1620 queries", functions, (scores,)


def readout() -> Iterator[Pair]:
    """Values of the places that queries read."""
    for objects, k in ((1, 5), (1, 40), (3, 40)):
        value = drawn(objects, 4860, 128)
        index = jnp.asarray(_RANDOM.permuted(np.tile(np.arange(4860), (1620, 1)), axis=1)[:, :k])
        weight = jax.nn.softmax(drawn(1620, k))
        functions = {
            "dense": lambda v, i, w: jnp.einsum("qm,omc->oqc", Places(i, w).dense(4860), v),
            "gathered": lambda v, i, w: Places(i, w).read(v),
        }
        name = f"readout, {objects} objects, 128 channels, top {k}"
        yield name, functions, (value, index, weight)


def labels() -> Iterator[Pair]:
    """From logits of stride 4 to labels."""

    def labels_by(aggregation: Callable[[Array], Array], logits: Array) -> Array:
        enlarged = resize_bilinear(logits, (480, 864))[..., 0]
        return jnp.argmax(aggregation(jax.nn.sigmoid(enlarged)), axis=0).astype(jnp.uint8)

    for objects in (1, 3):
        functions = {
            "logarithm and softmax": lambda x: labels_by(
                lambda p: jax.nn.softmax(aggregate_logits(p), axis=0), x
            ),
            "odds": lambda x: labels_by(aggregate, x),
        }
        yield f"labels from logits, {objects} objects", functions, (drawn(objects, 120, 216, 1),)


def convolution() -> Iterator[Pair]:
    """Convolutions of inference."""
    image, kernel = drawn(1, 480, 864, 3), drawn(3, 3, 3, 32)
    functions = {
        "3 channels": lambda x, w: convolved(x, w, 2),
        "4 channels": lambda x, w: convolved(
            jnp.pad(x, ((0, 0),) * 3 + ((0, 1),)), jnp.pad(w, ((0, 0),) * 2 + ((0, 1), (0, 0))), 2
        ),
    }
    yield "first convolution, 3x3 stride 2 to 32", functions, (image, kernel)
    for height, width, cin, cout in ((60, 108, 512, 256), (120, 216, 256, 256)):
        kernel = drawn(3, 3, cin, cout)
        weights = jnp.asarray(winograd.transformed(np.asarray(kernel)))
        functions = {
            "plain": lambda x, w, t: convolved(x, w),
            "F(4, 3)": lambda x, w, t: winograd.convolve(x, t),
        }
        name = f"3x3, {height}x{width}, {cin} to {cout}"
        yield name, functions, (drawn(1, height, width, cin), kernel, weights)
    functions = {"convolution": convolved, "product": lambda x, w: x @ w[0, 0]}
    yield "1x1, 30x54, 1024 to 256", functions, (drawn(1, 30, 54, 1024), drawn(1, 1, 1024, 256))


def gradient() -> Iterator[Pair]:
    """Kernels' gradients in training."""

    def of_product(x: Array, grad: Array) -> Array:
        return (x.reshape(-1, x.shape[-1]).T @ grad.reshape(-1, grad.shape[-1]))[None, None]

    def of_convolution(x: Array, grad: Array) -> Array:
        like = jax.ShapeDtypeStruct((1, 1, x.shape[-1], grad.shape[-1]), x.dtype)
        return jax.linear_transpose(lambda kernel: convolved(x, kernel), like)(grad)[0]

    functions = {"convolution": of_convolution, "product": of_product}
    arguments = drawn(5, 96, 96, 64), drawn(5, 96, 96, 256)
    yield "gradient of 1x1, 5 x 96x96, 64 to 256", functions, arguments


GROUPS = (top_k, readout, labels, convolution, gradient)


def timed(pair: Pair, turns: int) -> dict[str, Any]:
    """Both of a pair, in turn."""
    name, functions, arguments = pair
    compiled = {what: jax.jit(function) for what, function in functions.items()}
    results = [jax.block_until_ready(function(*arguments)) for function in compiled.values()]
    times: dict[str, list[tuple[float, float]]] = {what: [] for what in compiled}
    for _ in range(turns):
        for what, function in compiled.items():
            busy, begun = time.process_time(), time.perf_counter()
            for _ in range(3):
                jax.block_until_ready(function(*arguments))
            seconds = time.perf_counter() - begun
            times[what].append((1000 * seconds / 3, (time.process_time() - busy) / seconds))
    plain, here = (np.asarray(x, np.float32) for x in results)
    return {
        "name": name,
        "ms": {what: statistics.median(ms for ms, _ in own) for what, own in times.items()},
        "cores": {what: statistics.median(c for _, c in own) for what, own in times.items()},
        "difference": float(np.abs(plain - here).max() / np.abs(plain).max()),
    }


def main() -> None:
    """Measures, prints a table and writes JSON."""
    args = tyro.cli(Arguments)
    groups = [group for group in GROUPS if not args.only or group.__name__ in args.only]
    rows = [timed(pair, args.turns) for group in groups for pair in group()]
    table = Table("what", "how", "ms", "cores", "ratio", "difference")
    for row in rows:
        first = next(iter(row["ms"].values()))
        for how, ms in row["ms"].items():
            cells = f"{ms:.2f}", f"{row['cores'][how]:.2f}", f"{first / ms:.2f}"
            table.add_row(row["name"], how, *cells, f"{row['difference']:.0e}")
    Console(width=120).print(table)
    about = {"machine": machine(), "matmul_gflops": matmul_gflops(), "cores_of": os.cpu_count()}
    write_results(args.output, {"rows": rows, **about})


if __name__ == "__main__":
    main()
