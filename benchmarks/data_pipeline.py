"""Clips per second and core from each kind of source, and colour changes on host and device.

python benchmarks/data_pipeline.py                       # 5 frames of 192 pixels, two objects
python benchmarks/data_pipeline.py --size 384 --clips 20

The sources are made up: a folder of images with masks and a folder of 480p videos, both written by
the procedural generator, and that generator itself. Each is asked for whole clips in one thread;
clips per core are clips per second of processor time, which other work on the machine does not
change much. "first" includes what is done once (decoding images that are then kept, making
patterns), "later" is the steady state. Colour changes (`video.on_device`) compare the work of
OpenCV on one core with the jitted function on JAX's default device, for the same batch; the ratio
above 1 says that the device is faster. Writes benchmarks/results/data_pipeline.json.
"""

import dataclasses
import tempfile
import time
from pathlib import Path
from typing import Any

import cv2
import jax
import numpy as np
import tyro
from measure import RESULTS, machine, measure, peak_memory_bytes, write_results
from PIL import Image
from rich.console import Console
from rich.table import Table

from rdejax.cli import cli_errors
from rdejax.data.batch import Clip
from rdejax.data.clips.augment import (
    affine,
    compose_colours,
    draw_colour,
    draw_frame_colour,
)
from rdejax.data.clips.augment_on_device import augment_batch
from rdejax.data.config import ClipConfig, VideoConfig
from rdejax.data.loader import ClipMaker, make_mixture
from rdejax.data.sources.spec import open_source
from rdejax.data.synthetic.procedural import ProceduralImages
from rdejax.errors import RdejaxError
from rdejax.io.palette import davis_palette

_VIDEO_SHAPE = (480, 854)


@dataclasses.dataclass(frozen=True)
class Arguments:
    """Measures the making of training clips."""

    clips: int = 60
    """Clips timed per source, after as many that are not."""
    frames: int = 5
    size: int = 192
    objects: int = 2
    batch: int = 8
    """Clips of the batch whose colours are changed on host and device."""
    repeats: int = 10
    images: int = 40
    """Images in the made-up folder."""
    videos: int = 6
    """Videos in the made-up folder, of 12 frames each."""
    output: Path = RESULTS / "data_pipeline.json"


def write_images(root: Path, count: int) -> str:
    """A folder of images and masks; returns its specification."""
    draw = ProceduralImages(size=320)
    for kind in ("images", "masks"):
        (root / kind).mkdir(parents=True)
    for i in range(count):
        image, ids = draw(np.random.default_rng(i))
        Image.fromarray(image).save(root / "images" / f"{i:03d}.jpg", quality=90)
        Image.fromarray(ids).save(root / "masks" / f"{i:03d}.png")
    return f"static:{root}"


def write_videos(root: Path, count: int, frames: int = 12) -> str:
    """A folder of 480p videos, in each of which the view drifts over one scene."""
    draw = ProceduralImages(size=640)
    height, width = _VIDEO_SHAPE
    for i in range(count):
        rng = np.random.default_rng(1000 + i)
        image, ids = draw(rng)
        for kind in ("JPEGImages", "Annotations"):
            (root / kind / f"video{i}").mkdir(parents=True)
        for t in range(frames):
            middle = (image.shape[1] / 2, image.shape[0] / 2)
            matrix = affine(middle, turn=2.0 * t, zoom=1 + 0.02 * t)[:2]
            move = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
            frame = cv2.resize(
                cv2.warpAffine(image, matrix, image.shape[1::-1], flags=move), (width, height)
            )
            still = cv2.INTER_NEAREST | cv2.WARP_INVERSE_MAP
            mask = cv2.warpAffine(ids, matrix, image.shape[1::-1], flags=still)
            mask = cv2.resize(mask, (width, height), interpolation=cv2.INTER_NEAREST)
            Image.fromarray(frame).save(
                root / "JPEGImages" / f"video{i}" / f"{t:05d}.jpg", quality=90
            )
            palette = Image.fromarray(mask)
            palette.putpalette(davis_palette().tobytes())
            palette.save(root / "Annotations" / f"video{i}" / f"{t:05d}.png")
    return f"folder:{root}"


def time_source(name: str, spec: str, args: Arguments) -> dict[str, Any]:
    """Clips per second of one source, in one thread."""
    clip = ClipConfig(frames=args.frames, size=args.size, objects=args.objects)
    mixture = make_mixture([open_source(spec)], [1.0], clip, VideoConfig())
    maker = ClipMaker(mixture, 1, 0, 0, 0, 2 * args.clips)
    cpu, wall = [time.process_time()], [time.perf_counter()]
    for part in range(2):
        for number in range(args.clips):
            maker(part * args.clips + number)
        cpu.append(time.process_time())
        wall.append(time.perf_counter())
    return {
        "source": name,
        "first_clips_per_core_s": args.clips / (cpu[1] - cpu[0]),
        "clips_per_core_s": args.clips / (cpu[2] - cpu[1]),
        "clips_per_wall_s": args.clips / (wall[2] - wall[1]),
        "frames_per_core_s": args.clips * args.frames / (cpu[2] - cpu[1]),
    }


def host_colours(rng: np.random.Generator, batch: Clip, video: VideoConfig) -> None:
    """What `augment_batch` does, by OpenCV."""
    for clip in batch.frames:
        common = draw_colour(rng, video)
        for frame in clip:
            cv2.transform(frame, compose_colours(common, draw_frame_colour(rng, video)))


def time_colours(args: Arguments) -> dict[str, Any]:
    """Seconds per batch on the host and on the device; copying between them is not in it."""
    clip = ClipConfig(frames=args.frames, size=args.size, objects=args.objects)
    mixture = make_mixture([ProceduralImages()], [1.0], clip, VideoConfig())
    clips = [mixture(np.random.default_rng(i), 0.0) for i in range(args.batch)]
    batch = jax.tree.map(lambda *x: np.stack(x), *clips)
    video, rng = VideoConfig(), np.random.default_rng(0)
    times = []
    for _ in range(args.repeats):
        started = time.process_time()
        host_colours(rng, batch, video)
        times.append(time.process_time() - started)
    host_s = float(np.median(times))

    def run(key, values):
        return augment_batch(key, values, video)

    placed = jax.device_put(batch)
    timing, _ = measure("colours", run, jax.random.key(0), placed, repeats=args.repeats)
    return {
        "host_core_s": host_s,
        "device_s": timing.median_s,
        "ratio": host_s / timing.median_s,
        "compile_s": timing.compile_s,
    }


def print_results(sources: list[dict[str, Any]], colours: dict[str, Any]) -> None:
    """A table of the sources, and a line on the colours."""
    table = Table(title="clips per second and core")
    for column in ("source", "first", "later", "frames/s", "wall clips/s"):
        table.add_column(column, justify="left" if column == "source" else "right")
    for row in sources:
        table.add_row(
            row["source"],
            f"{row['first_clips_per_core_s']:.1f}",
            f"{row['clips_per_core_s']:.1f}",
            f"{row['frames_per_core_s']:.0f}",
            f"{row['clips_per_wall_s']:.1f}",
        )
    Console().print(table)
    print(
        f"colours of a batch: {1000 * colours['host_core_s']:.1f} ms on a core of the host, "
        f"{1000 * colours['device_s']:.1f} ms on the device (ratio {colours['ratio']:.2f})"
    )


def main() -> None:
    """Makes the data, measures, prints tables and writes JSON."""
    args = tyro.cli(Arguments)
    with cli_errors():
        for name in ("clips", "batch", "repeats", "images", "videos"):
            if getattr(args, name) < 1:
                raise RdejaxError(f"{name}={getattr(args, name)}: give 1 or more")
        cv2.setNumThreads(1)
        with tempfile.TemporaryDirectory() as folder:
            specs = {
                "static": write_images(Path(folder) / "static", args.images),
                "synthetic": "synthetic",
                "video": write_videos(Path(folder) / "video", args.videos),
            }
            sources = [time_source(name, spec, args) for name, spec in specs.items()]
        colours = time_colours(args)
        print_results(sources, colours)
        settings = dataclasses.asdict(args)
        del settings["output"]
        write_results(
            args.output,
            {
                "settings": settings,
                "sources": sources,
                "colours": colours,
                "peak_rss_bytes": peak_memory_bytes(),
                "machine": machine(),
            },
        )


if __name__ == "__main__":
    main()
