"""Writes synthetic videos with exact masks as a folder data set, for trying things out.

    python examples/make_clips.py clips --count 4 --frames 12

    clips/JPEGImages/<name>/00000.jpg ...   clips/Annotations/<name>/00000.png ...

Segment and score them with `--dataset folder --root clips` of `rdejax infer` and `rdejax.evaluate`.
"""

import dataclasses
from pathlib import Path
from typing import Annotated

import numpy as np
import tyro
from PIL import Image

from rdejax.cli import cli_errors
from rdejax.data.clips.from_images import make_clip
from rdejax.data.config import ClipConfig
from rdejax.data.synthetic.procedural import ProceduralImages
from rdejax.io.masks import write_mask


@dataclasses.dataclass(frozen=True)
class Arguments:
    """Writes synthetic videos with exact masks as a folder data set."""

    root: Annotated[Path, tyro.conf.Positional]
    """The folder to make."""
    count: int = 4
    frames: int = 12
    size: int = 160
    """Side of the square frames, in pixels."""
    objects: int = 2
    seed: int = 0


def main() -> None:
    """Writes the clips."""
    args = tyro.cli(Arguments)
    with cli_errors():
        config = ClipConfig(frames=args.frames, size=args.size, objects=args.objects)
        draw = ProceduralImages(args.seed, max(64, args.size))
        for number in range(args.count):
            rng = np.random.default_rng((args.seed, number))
            clip = make_clip(rng, draw, config)
            for kind in ("JPEGImages", "Annotations"):
                (args.root / kind / f"clip{number:02}").mkdir(parents=True, exist_ok=True)
            for t, (frame, labels) in enumerate(zip(clip.frames, clip.labels, strict=True)):
                stem = f"clip{number:02}/{t:05}"
                Image.fromarray(frame).save(args.root / "JPEGImages" / f"{stem}.jpg", quality=95)
                write_mask(args.root / "Annotations" / f"{stem}.png", labels)
        print(f"{args.count} clips of {args.frames} frames in {args.root}")


if __name__ == "__main__":
    main()
