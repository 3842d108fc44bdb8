"""How fast J and F are computed, against a plain implementation in the same run.

    python benchmarks/evaluate_speed.py

Both score the same made-up DAVIS layout from PNG files on disk and must agree. The plain one is
written from the definitions: frame by frame and object by object in one thread, boundaries and
dilations over the full frame. Ours works on the window around each object, on several cores. Both
spend most of what a file costs on decoding it, so the scores of masks in memory are timed, too.
"""

import dataclasses
import math
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import tyro
from measure import RESULTS, machine, write_results
from PIL import Image
from rich.console import Console
from rich.table import Table

from rdejax.cli import cli_errors
from rdejax.evaluate import evaluate, frame_scores, statistics
from rdejax.evaluate.score_sequences import usable_cores


@dataclasses.dataclass(frozen=True)
class Arguments:
    """What to measure.

    Attributes:
      objects: objects in a video, one data set for each number.
      sequences: videos.
      frames: frames of each.
      height: of the frames.
      width: of the frames.
      repeats: timed runs; the fastest counts.
      output: JSON file.
    """

    objects: tuple[int, ...] = (1, 3, 8)
    sequences: int = 2
    frames: int = 40
    height: int = 480
    width: int = 854
    repeats: int = 3
    output: Path = RESULTS / "evaluate_speed.json"


def ellipses(
    size: tuple[int, int], objects: int, t: int, shift: float, rng: np.random.Generator
) -> np.ndarray:
    """Ids [H, W] of ragged ellipses that turn and drift; `shift` pixels and `rng` make errors."""
    labels = np.zeros(size, np.uint8)
    for k in range(objects):
        phase = 2 * math.pi * k / objects
        centre = (
            size[1] * (0.5 + 0.3 * math.cos(phase + 0.02 * t)) + shift,
            size[0] * (0.5 + 0.28 * math.sin(phase + 0.02 * t)) + shift,
        )
        scale = size[0] * (0.28 if objects == 1 else 0.13)
        angles = np.linspace(0, 2 * math.pi, 90, endpoint=False)
        radii = scale * (1 + 0.15 * np.sin(5 * angles + 0.1 * t) + 0.02 * rng.normal(size=90))
        x = centre[0] + 1.4 * radii * np.cos(angles + 0.03 * t)
        y = centre[1] + radii * np.sin(angles + 0.03 * t)
        cv2.fillPoly(labels, [np.stack([x, y], -1).astype(np.int32)], k + 1)
    return labels


def write_data(root: Path, results: Path, objects: int, args: Arguments) -> None:
    """True masks in the layout of DAVIS 2017, and results a few pixels off."""
    (root / "ImageSets" / "2017").mkdir(parents=True)
    names = [f"video{index}" for index in range(args.sequences)]
    (root / "ImageSets" / "2017" / "val.txt").write_text("\n".join(names))
    size = (args.height, args.width)
    for index, name in enumerate(names):
        rng = np.random.default_rng(index)
        for folder, shift in ((root / "Annotations" / "480p" / name, 0.0), (results / name, 6.0)):
            folder.mkdir(parents=True)
            for t in range(args.frames):
                labels = ellipses(size, objects, t + 17 * index, shift, rng)
                image = Image.fromarray(labels)
                image.putpalette(bytes(range(256)) * 3)
                image.save(folder / f"{t:05d}.png")


def plain_boundary(mask: np.ndarray) -> np.ndarray:
    """Pixels unlike their right, lower or lower-right neighbour; bool [H, W]."""
    right, below, diagonal = (np.zeros_like(mask) for _ in range(3))
    right[:, :-1] = mask[:, 1:]
    below[:-1] = mask[1:]
    diagonal[:-1, :-1] = mask[1:, 1:]
    edge = (mask ^ right) | (mask ^ below) | (mask ^ diagonal)
    edge[-1] = mask[-1] ^ right[-1]
    edge[:, -1] = mask[:, -1] ^ below[:, -1]
    edge[-1, -1] = False
    return edge


def plain_scores(truth: np.ndarray, result: np.ndarray) -> tuple[float, float]:
    """J and F of one object in one frame; bool [H, W] each."""
    union = np.sum(truth | result)
    j = np.sum(truth & result) / union if union else 1.0
    radius = math.ceil(0.008 * math.hypot(*truth.shape))
    y, x = np.mgrid[-radius : radius + 1, -radius : radius + 1]
    disc = (x**2 + y**2 <= radius**2).astype(np.uint8)
    one, other = plain_boundary(truth), plain_boundary(result)
    near_one, near_other = (cv2.dilate(edge.astype(np.uint8), disc) > 0 for edge in (one, other))
    if not one.any() or not other.any():
        return j, float(one.any() == other.any())
    precision = np.sum(other & near_one) / np.sum(other)
    recall = np.sum(one & near_other) / np.sum(one)
    both = precision + recall
    return j, 2 * precision * recall / both if both else 0.0


def plain_evaluate(root: Path, results: Path) -> np.ndarray:
    """The mean, recall and decay of J and of F over all objects: [6]."""
    rows = []
    for folder in sorted((root / "Annotations" / "480p").iterdir()):
        files = sorted(folder.iterdir())
        count = int(np.asarray(Image.open(files[0])).max())
        scores = np.zeros((count, 2, len(files) - 2))
        for t, file in enumerate(files[1:-1]):
            truth = np.asarray(Image.open(file))
            result = np.asarray(Image.open(results / folder.name / file.name))
            for label in range(1, count + 1):
                scores[label - 1, :, t] = plain_scores(truth == label, result == label)
        rows += [[*statistics(j), *statistics(f)] for j, f in scores]
    return np.mean(rows, axis=0)


def fastest(function: Callable[[], object], repeats: int) -> float:
    """Seconds of the fastest of several runs."""
    times = []
    for _ in range(repeats):
        started = time.perf_counter()
        function()
        times.append(time.perf_counter() - started)
    return min(times)


def in_memory(objects: int, args: Arguments) -> tuple[float, float]:
    """Seconds that ours and the plain one take for a frame whose masks are in memory."""
    size, rng = (args.height, args.width), np.random.default_rng(0)
    ids = tuple(range(1, objects + 1))
    pairs = [[ellipses(size, objects, t, shift, rng) for shift in (0.0, 6.0)] for t in range(5)]

    def ours() -> None:
        for truth, result in pairs:
            frame_scores(truth, result, ids)

    def plain() -> None:
        for truth, result in pairs:
            for label in ids:
                plain_scores(truth == label, result == label)

    return fastest(ours, args.repeats) / len(pairs), fastest(plain, args.repeats) / len(pairs)


def compare(objects: int, args: Arguments) -> dict[str, float]:
    """Times of both on one data set, after they were found equal."""
    with tempfile.TemporaryDirectory(prefix="rdejax-evaluate-speed-") as folder:
        root, results = Path(folder) / "davis", Path(folder) / "results"
        write_data(root, results, objects, args)
        ours = list(evaluate("davis2017", root, results).global_row.values())[1:]
        np.testing.assert_allclose(ours, plain_evaluate(root, results), rtol=0, atol=1e-12)
        cores = cv2.getNumThreads()
        cv2.setNumThreads(1)  # OpenCV's own threads would make "one thread" several
        plain = fastest(lambda: plain_evaluate(root, results), args.repeats)
        single = fastest(lambda: evaluate("davis2017", root, results, workers=1), args.repeats)
        several = fastest(lambda: evaluate("davis2017", root, results), args.repeats)
        frame, plain_frame = in_memory(objects, args)
        cv2.setNumThreads(cores)
    masks = objects * args.sequences * (args.frames - 2)
    return {
        "objects": objects,
        "object_masks": masks,
        "plain_s": plain,
        "one_thread_s": single,
        "all_cores_s": several,
        "masks_per_second": masks / several,
        "frame_in_memory_ms": 1e3 * frame,
        "plain_frame_in_memory_ms": 1e3 * plain_frame,
        "ratio_in_memory": plain_frame / frame,
        "ratio_one_thread": plain / single,
        "ratio_all_cores": plain / several,
    }


def print_rows(rows: list[dict[str, float]], args: Arguments) -> None:
    """The table on screen."""
    cores = f"{usable_cores()} cores"
    table = Table(
        title=f"J and F of {args.sequences * args.frames} frames of {args.width}x{args.height}",
        caption="in brackets: times faster than the plain one, which has one thread",
    )
    for column in (
        "objects",
        "files, plain",
        "one thread",
        cores,
        "frame in memory, plain",
        "ours",
    ):
        table.add_column(column, justify="right")
    for row in rows:
        table.add_row(
            f"{row['objects']:.0f}",
            f"{row['plain_s']:.2f} s",
            f"{row['one_thread_s']:.2f} s ({row['ratio_one_thread']:.1f})",
            f"{row['all_cores_s']:.2f} s ({row['ratio_all_cores']:.1f})",
            f"{row['plain_frame_in_memory_ms']:.1f} ms",
            f"{row['frame_in_memory_ms']:.2f} ms ({row['ratio_in_memory']:.1f})",
        )
    console = Console()
    console.width = max(console.width, 110)
    console.print(table)


def main() -> None:
    args = tyro.cli(Arguments, description=__doc__)
    with cli_errors():
        rows = [compare(objects, args) for objects in args.objects]
    print_rows(rows, args)
    setting = {k: v for k, v in dataclasses.asdict(args).items() if k != "output"}
    write_results(args.output, {"machine": machine(), "settings": setting, "rows": rows})


if __name__ == "__main__":
    main()
