"""This library beside PyTorch: the same network, weights and frames, in turn.

    pip install "rdejax[bench]"
    python benchmarks/side_by_side.py --systems rde swem stcn xmem --objects 1 3
    python benchmarks/side_by_side.py --device cuda --compile \
        --dtypes float32 bfloat16 --objects 1 3 10

The peer (`benchmarks/peer`) is the system and its loop in plain PyTorch. Either segments the clip
once, to compile and warm up, and their masks are held against each other; then they take turns. The
clip is cut after a memorised frame, so that a frame costs what it does in a long video. A ratio
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

    systems: tuple[str, ...] = ("rde",)
    """Of rde, stcn, swem, xmem."""
    objects: tuple[int, ...] = (1, 3)
    dtypes: tuple[str, ...] = ("float32",)
    height: int = 480
    width: int = 854
    frames: int = 6
    """Of the clip after the first; up to the last that is memorised count."""
    turns: int = 5
    compile: bool = False
    """Measure the peer through torch.compile, too."""
    tf32: bool = False
    """Let both round the factors of float32 products on GPUs."""
    device: str = "cpu"
    """PyTorch's; JAX takes the same kind by itself."""
    weights: Path | None = None
    """Weights of the one system; random ones take as long."""
    least_cores: float = 0.0
    """Cores that a turn must have used to count; 1.75 of 2 says that nothing else ran."""
    peer_python: Path = Path(sys.executable)
    keep: bool = False
    """Keep the rows that the output has of other systems and numbers of objects."""
    output: Path = RESULTS / "side_by_side.json"


class Peer:
    """A process that takes turns: the peer's, or another `module` of this folder."""

    def __init__(self, python: Path | str, job: dict[str, Any], module: str = "peer.worker"):
        here = Path(__file__).parent
        self._process = subprocess.Popen(
            [python, "-m", module, json.dumps(job)],
            cwd=here,
            env={**os.environ, "PYTHONPATH": os.pathsep.join([str(here), *sys.path])}
            if python == sys.executable
            else {**os.environ, "PYTHONPATH": str(here)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.about = self._answer()

    def turn(self) -> tuple[float, float]:
        """Seconds for the clip, and cores in use."""
        answer = self.ask()
        return answer["seconds"], answer["cores"]

    def ask(self) -> dict[str, Any]:
        """What it says of one more turn."""
        assert self._process.stdin is not None
        self._process.stdin.write("turn\n")
        self._process.stdin.flush()
        return self._answer()

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


def job_of(model: Any) -> dict[str, Any]:
    """What the peer has to know of a system."""
    config, rule = model.config, vars(model.memory)
    job = {
        "system": model.name,
        "every": model.settings.every,
        "memory": {k: v for k, v in rule.items() if v is None or isinstance(v, int | float)},
        "sizes": {
            "depth": config.key_depth,
            "keys": config.key_channels,
            "values": config.value_channels,
        },
    }
    if model.name == "xmem":
        job |= {"hidden": config.hidden_dim, "widths": config.decoder_widths}
    return job


def made_up(model: Any, frames: int, height: int, width: int, objects: int) -> dict[str, Any]:
    """Frames, first mask and, where the memory starts from some, bases."""
    video, mask = moving_square(frames + 1, height, width, objects)
    clip: dict[str, Any] = {"frames": video, "mask": mask}
    if "initial_bases" in model.object_inputs:
        bases, ck = model.memory.bases, model.config.key_channels
        draw = np.random.default_rng(0).standard_normal((objects, 2, ck, bases), np.float32)
        clip["bases"] = draw * np.float32(2 / bases) ** 0.5
    return clip


def segmented(model: Any, clip: dict[str, Any]) -> np.ndarray:
    """Our masks after the first frame."""
    given = {"initial_bases": clip["bases"]} if "bases" in clip else {}
    return rdejax.segment_video(model, clip["frames"], clip["mask"], **given)[1:]


def compare(args: Arguments, system: str, objects: int, dtype: str, folder: Path) -> dict[str, Any]:
    """Both, in turn, on one clip."""
    weights = args.weights or folder / f"{system}.safetensors"
    if not weights.exists():
        save_weights(weights, with_contrast(create(system)))
    settings: dict[str, Any] = {} if dtype == "float32" else {"precision": dtype}
    model = rdejax.load_model(str(weights), size=None, **settings)
    frames = max(args.frames // model.settings.every, 1) * model.settings.every
    clip = made_up(model, frames, args.height, args.width, objects)
    path = folder / f"{system}-{objects}.npz"
    np.savez(path, **clip)
    job = {
        **job_of(model),
        "weights": str(weights.resolve()),
        "clip": str(path),
        "dtype": dtype,
        "device": args.device,
        "tf32": args.tf32,
    }
    kinds = {"eager": False, **({"compiled": True} if args.compile else {})}
    theirs = {kind: folder / f"{kind}.npy" for kind in kinds}
    peers = {
        kind: Peer(args.peer_python, {**job, "compile": compiled, "masks": str(theirs[kind])})
        for kind, compiled in kinds.items()
    }

    ours_masks = segmented(model, clip)

    def our_turn() -> tuple[float, float]:
        busy, begun = time.process_time(), time.perf_counter()
        segmented(model, clip)
        seconds = time.perf_counter() - begun
        return seconds, (time.process_time() - busy) / seconds

    takers = {"rdejax": our_turn, **{kind: peer.turn for kind, peer in peers.items()}}
    turns: dict[str, list[tuple[float, float]]] = {name: [] for name in takers}
    for _ in range(args.turns):
        for name, take in takers.items():
            turns[name].append(take())
    result: dict[str, Any] = {
        "system": system,
        "objects": objects,
        "dtype": dtype,
        "frames": frames,
        "peer": {},
    }
    for kind, peer in peers.items():
        result["peer"][kind] = peer.about
        peer.close()
    result["ms_per_frame"], result["cores"], result["kept_turns"] = {}, {}, {}
    for name, values in turns.items():
        kept = [value for value in values if value[1] >= args.least_cores] or values
        seconds, cores = zip(*kept, strict=True)
        result["ms_per_frame"][name] = 1000 * statistics.median(seconds) / frames
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


def kept_rows(path: Path, new: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows of an earlier run that none of the new ones replaces."""

    def what(row: dict[str, Any]) -> tuple:
        return row["system"], row["objects"], row["dtype"]

    old = json.loads(path.read_text())["rows"] if path.exists() else []
    return [row for row in old if what(row) not in [what(other) for other in new]]


def main() -> None:
    """Measures, prints a table and writes JSON."""
    args = tyro.cli(Arguments)
    with cli_errors():
        check_device(args.device)
    with cli_errors(), tempfile.TemporaryDirectory() as folder:
        rows = [
            compare(args, system, objects, dtype, Path(folder))
            for system in args.systems
            for dtype in args.dtypes
            for objects in args.objects
        ]
        columns = "system", "objects", "type", "who", "ms a frame", "cores", "ratio", "equal pixels"
        table = Table(*columns)
        for row in rows:
            for name, ms in row["ms_per_frame"].items():
                ratio = f"{row['ratio'][name]:.2f}" if name in row["ratio"] else ""
                equal = f"{row['equal_pixels'][name]:.5f}" if name in row["equal_pixels"] else ""
                cores = f"{row['cores'][name]:.2f}"
                what = row["system"], str(row["objects"]), row["dtype"]
                table.add_row(*what, name, f"{ms:.1f}", cores, ratio, equal)
        Console(width=110).print(table)
        content = {
            "size": [args.height, args.width],
            "rows": (kept_rows(args.output, rows) if args.keep else []) + rows,
            "device": args.device,
        }
        about = {"cores_of": os.cpu_count(), "machine": machine(), "jax": jax.__version__}
        write_results(args.output, {**content, **about})


if __name__ == "__main__":
    main()
