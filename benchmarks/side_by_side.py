"""This library beside PyTorch: the same network, weights and frames, in turn.

    pip install "rdejax[bench]"
    python benchmarks/side_by_side.py --objects 1 3
    python benchmarks/side_by_side.py --device cuda --compile \
        --dtypes float32 bfloat16 --objects 1 3 10

The peer (`benchmarks/peer`) is `rde` and its loop in plain PyTorch. Either segments the clip once,
to compile and warm up, and their masks are held against each other; then they take turns. A ratio
is PyTorch's median time over ours: above 1, this library is faster. The cores in use stand beside
every time: on a machine that does something else, too, neither time means anything, so turns below
`--least-cores` are thrown away. `--peer-python` runs the peer with another interpreter, for a
PyTorch that lives elsewhere.
"""

import dataclasses
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from measure import RESULTS, machine, moving_square, write_results
from rich.console import Console
from rich.table import Table

import rdejax
from rdejax.cli import cli_errors
from rdejax.errors import RdejaxError
from rdejax.models import create
from rdejax.models.weights import save_weights


@dataclasses.dataclass(frozen=True)
class Arguments:
    """Times both."""

    objects: tuple[int, ...] = (1, 3)
    dtypes: tuple[str, ...] = ("float32",)
    height: int = 480
    width: int = 854
    frames: int = 7
    """Of the clip, the first included."""
    turns: int = 5
    compile: bool = False
    """Measure the peer through torch.compile, too."""
    tf32: bool = False
    """Let both round the factors of float32 products on GPUs."""
    device: str = "cpu"
    """PyTorch's; JAX takes the same kind by itself."""
    weights: Path | None = None
    """Converted weights of `rde`; random ones take as long."""
    least_cores: float = 0.0
    """Cores that a turn must have used to count; 1.75 of 2 says that nothing else ran."""
    peer_python: Path = Path(sys.executable)
    output: Path = RESULTS / "side_by_side.json"


class Peer:
    """The peer's process."""

    def __init__(self, python: Path, job: dict[str, Any]):
        here = Path(__file__).parent
        self._process = subprocess.Popen(
            [python, "-m", "peer.worker", json.dumps(job)],
            cwd=here,
            env={**os.environ, "PYTHONPATH": str(here)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.about = self._answer()

    def turn(self) -> tuple[float, float]:
        """Seconds for the clip, and cores in use."""
        assert self._process.stdin is not None
        self._process.stdin.write("turn\n")
        self._process.stdin.flush()
        answer = self._answer()
        return answer["seconds"], answer["cores"]

    def close(self) -> None:
        """Ends it."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RdejaxError("the peer ended; its message is above (PyTorch: rdejax[bench])")
        return json.loads(line)


def compare(args: Arguments, objects: int, dtype: str, folder: Path) -> dict[str, Any]:
    """Both, in turn, on one clip."""
    weights = args.weights or folder / "weights.safetensors"
    if not weights.exists():
        save_weights(weights, with_contrast(create("rde")))
    settings: dict[str, Any] = {} if dtype == "float32" else {"precision": dtype}
    model = rdejax.load_model(str(weights), size=None, **settings)
    frames, mask = moving_square(args.frames, args.height, args.width, objects)
    clip = folder / f"clip-{objects}.npz"
    np.savez(clip, frames=frames, mask=mask)
    job = {
        "weights": str(weights.resolve()),
        "clip": str(clip),
        "dtype": dtype,
        "device": args.device,
        "tf32": args.tf32,
        "every": model.settings.every,
        "top_k": dict(model.settings.memory_settings)["top_k"],
    }
    kinds = {"eager": False, **({"compiled": True} if args.compile else {})}
    theirs = {kind: folder / f"{kind}.npy" for kind in kinds}
    peers = {
        kind: Peer(args.peer_python, {**job, "compile": compiled, "masks": str(theirs[kind])})
        for kind, compiled in kinds.items()
    }

    def ours() -> np.ndarray:
        return rdejax.segment_video(model, frames, mask)[1:]

    ours_masks = ours()

    def our_turn() -> tuple[float, float]:
        busy, begun = time.process_time(), time.perf_counter()
        ours()
        seconds = time.perf_counter() - begun
        return seconds, (time.process_time() - busy) / seconds

    takers = {"rdejax": our_turn, **{kind: peer.turn for kind, peer in peers.items()}}
    turns: dict[str, list[tuple[float, float]]] = {name: [] for name in takers}
    for _ in range(args.turns):
        for name, take in takers.items():
            turns[name].append(take())
    result: dict[str, Any] = {"objects": objects, "dtype": dtype, "peer": {}}
    for kind, peer in peers.items():
        result["peer"][kind] = peer.about
        peer.close()
    result["ms_per_frame"], result["cores"], result["kept_turns"] = {}, {}, {}
    for name, values in turns.items():
        kept = [value for value in values if value[1] >= args.least_cores] or values
        seconds, cores = zip(*kept, strict=True)
        result["ms_per_frame"][name] = 1000 * statistics.median(seconds) / args.frames
        result["cores"][name] = statistics.median(cores)
        result["kept_turns"][name] = sum(value[1] >= args.least_cores for value in values)
    fastest = result["ms_per_frame"]
    result["ratio"] = {kind: fastest[kind] / fastest["rdejax"] for kind in kinds}
    result["equal_pixels"] = {
        kind: float((np.load(path) == ours_masks).mean()) for kind, path in theirs.items()
    }
    shown = [float((ours_masks == i).mean()) for i in range(objects + 1)]
    result["share_of_labels"] = shown
    return result


def with_contrast(model: Any) -> Any:
    """Random weights whose masks have both objects and background: a last layer that says more."""
    kernel = model.decoder.pred.kernel
    kernel[...] = 20.0 * kernel[...]
    model.decoder.pred.bias[...] = jnp.zeros(1)
    return model


def check_device(device: str) -> None:
    """Refuses a GPU that JAX does not see; the peer would end in the middle, or be another's."""
    found = jax.default_backend()
    if device.startswith("cuda") != (found == "gpu"):
        raise RdejaxError(
            f"--device {device}: JAX runs on {found!r} here, and both must run on the same; "
            + ("install rdejax[cuda] on a machine with a GPU" if found != "gpu" else "give cuda")
        )


def main() -> None:
    """Measures, prints a table and writes JSON."""
    args = tyro.cli(Arguments)
    with cli_errors():
        check_device(args.device)
    with cli_errors(), tempfile.TemporaryDirectory() as folder:
        rows = [
            compare(args, objects, dtype, Path(folder))
            for dtype in args.dtypes
            for objects in args.objects
        ]
        table = Table("objects", "type", "who", "ms a frame", "cores", "ratio", "equal pixels")
        for row in rows:
            for name, ms in row["ms_per_frame"].items():
                ratio = f"{row['ratio'][name]:.2f}" if name in row["ratio"] else ""
                equal = f"{row['equal_pixels'][name]:.5f}" if name in row["equal_pixels"] else ""
                cores = f"{row['cores'][name]:.2f}"
                table.add_row(
                    str(row["objects"]), row["dtype"], name, f"{ms:.1f}", cores, ratio, equal
                )
        Console(width=110).print(table)
        size = [args.height, args.width]
        content = {"size": size, "frames": args.frames, "rows": rows, "device": args.device}
        about = {"cores_of": os.cpu_count(), "machine": machine(), "jax": jax.__version__}
        write_results(args.output, {**content, **about})


if __name__ == "__main__":
    main()
