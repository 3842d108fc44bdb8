"""Where the time of a frame goes, for each system and number of objects.

python benchmarks/profile_inference.py                   # rde and rde-lite, 480p, 1 and 3 objects
python benchmarks/profile_inference.py --height 96 --width 160 --repeats 2

Every configuration runs in its own process, so that peak memory and first-frame times are its own.
Stages are compiled one by one and waited for; `block` is what inference really runs: `every` frames
encoded, read and decoded together, the last one memorised. GFLOP/s are XLA's count of operations
over time, to be held against the matrix product measured in the same process. Systems without
bundled weights run with random ones, which costs the same time. Writes
benchmarks/results/profile_inference.json.
"""

import dataclasses
import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from flax import nnx
from measure import (
    RESULTS,
    Timing,
    load_or_create,
    machine,
    matmul_gflops,
    measure,
    moving_square,
    peak_memory_bytes,
    tree_bytes,
    write_results,
)
from rich.console import Console
from rich.table import Table

from rdejax.cli import cli_errors
from rdejax.models.matching import Matching
from rdejax.models.protocol import given_probs

STAGES = ("encode", "read", "decode", "memorise")


@dataclasses.dataclass(frozen=True)
class Arguments:
    """Times inference stage by stage."""

    models: tuple[str, ...] = ("rde", "rde-lite")
    objects: tuple[int, ...] = (1, 3)
    height: int = 480
    width: int = 854
    repeats: int = 5
    """Timed runs of each compiled function; the median counts."""
    matmul: int = 2048
    """Side of the square matrices of the yardstick."""
    output: Path = RESULTS / "profile_inference.json"


def padded(size: int) -> int:
    """The next multiple of 16, which the networks need."""
    return -(-size // 16) * 16


def profile(name: str, objects: int, args: Arguments) -> dict[str, Any]:
    """All figures of one system with one number of objects."""
    system, weights_from = load_or_create(name)
    graph, weights = nnx.split(system)
    every = system.settings.every
    video, mask = moving_square(every + 1, padded(args.height), padded(args.width), objects)
    frames = (jnp.asarray(video, jnp.float32) / 255 - jnp.asarray(system.mean)) / jnp.asarray(
        system.std
    )
    masks = jnp.asarray(np.arange(1, objects + 1)[:, None, None] == mask, jnp.float32)

    def stage(label: str, body: Any, *arguments: Any) -> tuple[Timing, Any]:
        def function(weights: Any, *rest: Any) -> Any:
            return body(nnx.merge(graph, weights), *rest)

        return measure(label, function, weights, *arguments, repeats=args.repeats)

    def block(net: Matching, state: Any, frames: Any) -> Any:
        features = net.encode(frames)
        state, logits = net.segment(state, features)
        probs = jax.nn.softmax(logits, axis=1)
        last = jax.tree.map(lambda x: x[-1:], features)
        return net.memorize(state, last, probs[-1]), jnp.argmax(probs, axis=1).astype(jnp.uint8)

    encode, features = stage("encode", lambda net, x: net.encode(x), frames[:1])
    start, state = stage(
        "start",
        lambda net, f, m: net.start(f, given_probs(m, jnp.ones(len(m), bool))),
        features,
        masks,
    )
    read, (_, readout) = stage("read", lambda net, s, f: net.read(s, f), state, features)
    decode, logits = stage(
        "decode", lambda net, s, f, r: net.decode(s, f, r), state, features, readout
    )
    probs = jax.nn.softmax(logits, axis=1)[0]
    memorise, state = stage(
        "memorise", lambda net, s, f, p: net.memorize(s, f, p), state, features, probs
    )
    whole, _ = stage("block", block, state, frames[1:])
    return {
        "model": name,
        "objects": objects,
        "weights": weights_from,
        "parameters": sum(
            int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(nnx.state(system, nnx.Param))
        ),
        "size": [args.height, args.width],
        "every": every,
        "state_bytes": tree_bytes(state),
        "weight_bytes": tree_bytes(weights),
        "peak_rss_bytes": peak_memory_bytes(),
        "matmul_gflops": matmul_gflops(args.matmul),
        "block_ms_per_frame": 1000 * whole.median_s / every,
        "first_block_s": whole.compile_s + whole.first_s,
        "stages": {
            timing.name: {**dataclasses.asdict(timing), "gflops": timing.gflops}
            for timing in (encode, start, read, decode, memorise, whole)
        },
        "machine": machine(),
    }


def in_own_process(name: str, objects: int, args: Arguments) -> dict[str, Any]:
    """Runs `profile` in a fresh interpreter."""
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=spawn) as pool:
        return pool.submit(profile, name, objects, args).result()


def print_tables(runs: list[dict[str, Any]], size: str) -> None:
    """Milliseconds and GFLOP/s per stage; totals; memory."""
    console = Console()
    if not console.is_terminal:
        console.width = max(console.width, 130)
    table = Table(title=f"ms per frame at {size} (achieved GFLOP/s)")
    for column in ("system", "objects", *STAGES, "sum", "block", "fps", "matmul"):
        table.add_column(column, justify="right", no_wrap=True)
    second = Table(title="first frame and memory")
    titles = ("system", "objects", "compile s", "first block s", "peak RSS MB", "scratch MB")
    for column in (*titles, "state MB", "weights MB"):
        second.add_column(column, justify="right", no_wrap=True)
    for run in runs:
        stages, every = run["stages"], run["every"]
        # One frame in `every` is memorised: its time is spread over them all.
        share = {name: 1000 * stages[name]["median_s"] for name in STAGES}
        share["memorise"] /= every
        cells = [f"{share[name]:.1f} ({stages[name]['gflops']:.0f})" for name in STAGES]
        per_frame = run["block_ms_per_frame"]
        label = (run["model"], str(run["objects"]))
        table.add_row(
            *label,
            *cells,
            f"{sum(share.values()):.1f}",
            f"{per_frame:.1f} ({stages['block']['gflops']:.0f})",
            f"{1000 / per_frame:.1f}",
            f"({run['matmul_gflops']:.0f})",
        )
        compile_s = sum(stage["compile_s"] for stage in stages.values())
        second.add_row(
            *label,
            f"{compile_s:.1f}",
            f"{run['first_block_s']:.1f}",
            f"{run['peak_rss_bytes'] / 1e6:.0f}",
            f"{stages['block']['scratch_bytes'] / 1e6:.0f}",
            f"{run['state_bytes'] / 1e6:.2f}",
            f"{run['weight_bytes'] / 1e6:.1f}",
        )
    console.print(table)
    console.print(second)


def main() -> None:
    """Profiles every configuration, prints tables, writes JSON."""
    args = tyro.cli(Arguments)
    with cli_errors():
        runs = [in_own_process(name, n, args) for name in args.models for n in args.objects]
        print_tables(runs, f"{args.width}x{args.height}")
        write_results(args.output, {"runs": runs})


if __name__ == "__main__":
    main()
