"""One compiled run over several values of a setting against one run for each, on the demo clip.

python benchmarks/sweep.py

Writes benchmarks/results/sweep.json: seconds of both, with and without compilation, and the ratio.
"""

import dataclasses
import time
from pathlib import Path
from typing import Any

import numpy as np
import tyro
from measure import RESULTS, machine, write_results
from PIL import Image

import rdejax
from rdejax.cli import cli_errors
from rdejax.io.video import open_frames

DEMO = Path(__file__).parents[1] / "examples" / "demo"


@dataclasses.dataclass(frozen=True)
class Arguments:
    """Sweeps SWEM's tau, or another continuous setting."""

    checkpoint: str = "rde-lite"
    memory: str = "swem"
    setting: str = "tau"
    values: tuple[float, ...] = (0.02, 0.05, 0.1, 0.2)
    frames: int = 16
    size: int = 240
    output: Path = RESULTS / "sweep.json"


def main() -> None:
    """Times both ways and writes JSON."""
    args = tyro.cli(Arguments)
    with cli_errors():
        video = open_frames(DEMO / "cockatoo.mp4")
        frames = np.stack([frame for _, frame in video])[: args.frames]
        mask = np.asarray(Image.open(DEMO / "cockatoo.png"))
        options: dict[str, Any] = {"memory": args.memory, "size": args.size, "every": 1}
        model = rdejax.load_model(args.checkpoint, **options)

        values: dict[str, Any] = {args.setting: args.values}

        def together() -> np.ndarray:
            return rdejax.sweep_settings(model, frames, mask, **values)

        def apart() -> np.ndarray:
            out = []
            for value in args.values:
                changed: Any = {args.setting: value}
                one = rdejax.load_model(args.checkpoint, **options, **changed)
                out.append(rdejax.segment_video(one, frames, mask))
            return np.stack(out)

        seconds = {}
        for name, run in (("together", together), ("apart", apart)):
            for turn in ("first", "second"):
                started = time.perf_counter()
                masks = run()
                seconds[f"{name}, {turn}"] = round(time.perf_counter() - started, 2)
                print(f"{name}, {turn} time: {seconds[f'{name}, {turn}']} s, {masks.shape}")
        ratio = {
            turn: seconds[f"apart, {turn}"] / seconds[f"together, {turn}"]
            for turn in ("first", "second")
        }
        print(
            f"one run for each takes {ratio['first']:.2f} (with compilation) and "
            f"{ratio['second']:.2f} times as long"
        )
        content = {"machine": machine(), "arguments": dataclasses.asdict(args) | {"output": ""}}
        write_results(args.output, {**content, "seconds": seconds, "ratio": ratio})


if __name__ == "__main__":
    main()
