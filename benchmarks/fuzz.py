"""Damaged and hostile files by the thousand: each is read, or refused in one sentence.

python benchmarks/fuzz.py                          # 1 000 inputs of each kind
python benchmarks/fuzz.py --inputs 50 --only pth   # a look at one kind

Hypothesis draws the edits: bytes replaced, cut out, put in or repeated, in a small file that is
whole; and, for masks, images of all kinds, and for model descriptions, JSON values. A reader may
raise `RdejaxError` with one sentence; anything else, more than the memory or the time allowed, or
(where the format has checksums) another content than the whole file's is a failure, of which
Hypothesis finds the smallest and `benchmarks/results/fuzz/` keeps the file. What was found so far
is in tests/data/fuzz, which `tests/test_fuzz_findings.py` reads. Writes
benchmarks/results/fuzz.json.
"""

import dataclasses
import json
import resource
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hypothesis
import hypothesis.strategies as st
import numpy as np
import tyro
from measure import RESULTS, machine, moving_square, write_results
from PIL import Image

from rdejax.cli import cli_errors
from rdejax.convert import load_state_dict
from rdejax.errors import RdejaxError
from rdejax.io.given import MaskReader
from rdejax.io.masks import AS_WRITTEN, BENCHMARK, STATIC_IMAGE, VIDEO_FRAME, read_mask, write_mask
from rdejax.io.overlay import VideoWriter
from rdejax.io.video import open_frames, read_image
from rdejax.models.registry import find_system
from rdejax.models.weights import FORMAT, StoredModel, read_model
from rdejax.propagate.save import check_numbers, read_state

ROOT = Path(__file__).parents[1]
FIXTURES = ROOT / "tests" / "data" / "convert"
FOUND = RESULTS / "fuzz"
# What one input may take beyond what the process has.
BYTES, SECONDS = 1 << 30, 20.0


@dataclasses.dataclass(frozen=True)
class Arguments:
    """What is read."""

    inputs: int = 1000
    """Inputs of each kind; a tenth of the descriptions of models."""
    only: tuple[str, ...] = ()
    """Kinds; all unless given."""


class Wrong(Exception):
    """Another content than the whole file's, without a word."""


@dataclasses.dataclass(frozen=True)
class Target:
    """A kind of file.

    Attributes:
      seeds: whole files.
      suffix: of their names.
      read: reads one; a content that can be compared.
      exact: whether the format's checksums leave no other content than the whole file's.
      places: where edits begin, as a share of the file; all over it unless given.
    """

    seeds: list[bytes]
    suffix: str
    read: Callable[[Path], Any]
    exact: bool = True
    places: tuple[float, float] = (0.0, 1.0)


def edits() -> st.SearchStrategy[list[tuple[str, float, bytes]]]:
    kinds = st.sampled_from(["replace", "insert", "cut", "repeat", "end"])
    one = st.tuples(kinds, st.floats(0, 1, exclude_max=True), st.binary(min_size=1, max_size=9))
    return st.lists(one, min_size=1, max_size=6)


def edited(data: bytes, changes: list[tuple[str, float, bytes]], places: tuple) -> bytes:
    low, high = places
    for kind, share, new in changes:
        at = int((low + share * (high - low)) * len(data))
        count = len(new) ** 2
        if kind == "replace":
            data = data[:at] + new + data[at + len(new) :]
        elif kind == "insert":
            data = data[:at] + new + data[at:]
        elif kind == "cut":
            data = data[:at] + data[at + count :]
        elif kind == "repeat":
            data = data[:at] + data[at : at + count] * 2 + data[at + count :]
        elif share > 0.7:  # most cut-off files are alike
            data = data[:at]
    return data


def read_png_masks(path: Path) -> Any:
    values = [read_mask(path, rules) for rules in (AS_WRITTEN, BENCHMARK, STATIC_IMAGE)]
    return [*values, read_mask(path, VIDEO_FRAME), MaskReader().read(path)]


def read_video(path: Path) -> Any:
    source = open_frames(path)
    frames = [frame for _, frame in source]
    assert all(frame.shape[:2] == source.size for frame in frames)
    return frames


def read_weights_file(path: Path) -> Any:
    stored = read_model(path)
    return [*stored.arrays.values()]


def read_stream(path: Path) -> Any:
    arrays, about = read_state(path)
    check_numbers(path, about)
    return [*arrays.values()]


def same(a: Any, b: Any) -> bool:
    if isinstance(a, dict):
        return isinstance(b, dict) and list(a) == list(b) and same([*a.values()], [*b.values()])
    return len(a) == len(b) and all(np.array_equal(x, y) for x, y in zip(a, b, strict=True))


def whole_files(folder: Path) -> dict[str, Target]:
    """A small file of each kind."""
    pictures, mask = moving_square(6, 48, 64)
    write_mask(folder / "mask.png", mask)
    Image.fromarray(mask * 255).save(folder / "grey.png")
    Image.fromarray(pictures[0]).save(folder / "frame.png")
    with VideoWriter(folder / "video.mp4", (48, 64), 24) as video:
        for picture in pictures:
            video.write(picture)
    from safetensors.numpy import save_file

    about = {
        "format": FORMAT,
        "arch": "rde-lite",
        "config": "{}",
        "settings": json.dumps(find_system("rde-lite").default_settings.as_dict()),
    }
    arrays = {"a/kernel": np.ones((3, 4), np.float32), "b": np.zeros(5, np.float16)}
    save_file(arrays, folder / "w.safetensors", about)
    state = {"time": 3, "writes": 1, "starts": [0], "source": [48, 64]}
    state["layout"] = {"groups": 1, "slots": 1, "used": 1, "ids": {"1": 0}}
    save_file(arrays, folder / "s.safetensors", {"stream": json.dumps(state)})

    def files(*names: str) -> list[bytes]:
        return [(folder / name).read_bytes() for name in names]

    def checkpoints(kind: str) -> list[bytes]:
        names = [f"types_{kind}.pth", f"training_{kind}.pth", f"attack_{kind}.pth"]
        return [(FIXTURES / name).read_bytes() for name in names]

    video_bytes = (folder / "video.mp4").read_bytes()
    heads = video_bytes.index(b"moov") / len(video_bytes)
    places = (heads, 1.0) if heads > 0.5 else (0.0, video_bytes.index(b"mdat") / len(video_bytes))
    return {
        "masks": Target(files("mask.png", "grey.png"), ".png", read_png_masks),
        "frames": Target(files("frame.png"), ".png", lambda path: [read_image(path)]),
        "mp4": Target([video_bytes], ".mp4", read_video, exact=False, places=places),
        "pth": Target(checkpoints("zip"), ".pth", load_state_dict),
        "legacy_pth": Target(checkpoints("legacy"), ".pth", load_state_dict, exact=False),
        "safetensors": Target(
            files("w.safetensors"), ".safetensors", read_weights_file, exact=False
        ),
        "streams": Target(files("s.safetensors"), ".safetensors", read_stream, exact=False),
    }


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=5,
)
SYSTEMS = ("rde-lite", "swem-lite", "xmem-lite", "stcn", "stm")


@st.composite
def descriptions(draw: st.DrawFn) -> StoredModel:
    """A model's description with some values exchanged, and no weights."""
    system = find_system(draw(st.sampled_from(SYSTEMS)))
    sizes = {field.name: draw(JSON) for field in dataclasses.fields(system.Config)}
    config = {name: value for name, value in sizes.items() if draw(st.integers(0, 3)) == 0}
    usual = system.default_settings.as_dict()
    for name in draw(st.lists(st.sampled_from([*usual]), max_size=2)):
        usual[name] = draw(JSON)
    rule = usual["memory_settings"]
    if isinstance(rule, dict):
        names = ["top_k", "strategy", "repeat", "aspp", "bases", "iterations", "top_l", "tau"]
        for name in draw(st.lists(st.sampled_from(names), max_size=2)):
            rule[name] = draw(JSON)
    try:
        settings = system.default_settings.from_dict(json.loads(json.dumps(usual)))
    except (RdejaxError, ValueError, TypeError, AttributeError):
        settings = system.default_settings  # as `read_model` refuses
    return StoredModel(system.name, config, settings, {}, "x.safetensors")


@st.composite
def images(draw: st.DrawFn) -> tuple[str, str, np.ndarray]:
    """An image of any kind that may be given as a mask."""
    mode = draw(st.sampled_from(["P", "L", "1", "I;16", "RGB", "RGBA", "LA", "PA", "CMYK", "F"]))
    suffix = draw(st.sampled_from([".png", ".tiff", ".bmp", ".webp", ".jpg", ".gif"]))
    shape = (draw(st.integers(1, 24)), draw(st.integers(1, 24)))
    values = draw(st.lists(st.integers(0, 255), min_size=1, max_size=6))
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    channels = {"RGB": 3, "RGBA": 4, "LA": 2, "PA": 2, "CMYK": 4}.get(mode)
    shape = shape if channels is None else (*shape, channels)
    return mode, suffix, rng.choice(np.asarray(values, np.uint8), shape)


def read_drawn(drawn: tuple[str, str, np.ndarray], folder: Path) -> Path | None:
    """Reads a drawn image by all rules; what ids a palette or grey PNG has, it keeps."""
    mode, suffix, values = drawn
    path = folder / f"drawn{suffix}"
    kind = {"1": bool, "I;16": np.uint16, "F": np.float32}.get(mode, np.uint8)
    try:
        image = Image.frombytes(mode, values.shape[1::-1], values.astype(kind).tobytes())
        if mode in ("P", "PA"):
            image.putpalette(bytes(range(256)) * 3)
        image.save(path)
    except (OSError, ValueError, KeyError):
        return None  # no such file
    for rules in (AS_WRITTEN, BENCHMARK, STATIC_IMAGE, VIDEO_FRAME):
        refusing(lambda rules=rules: read_mask(path, rules))
    got = refusing(lambda: MaskReader().read(path))
    if got is not None and mode in ("P", "L") and suffix == ".png":
        binary = mode == "L" and set(np.unique(values).tolist()) <= {0, 255}
        expected = (values > 0).astype(np.uint8) if binary else values
        if not np.array_equal(got, expected):
            raise Wrong(f"{mode} {np.unique(values)} became {np.unique(got)}")
    return path


def refusing(read: Callable[[], Any]) -> Any:
    """What is read, or None where it is refused in a sentence."""
    try:
        return read()
    except RdejaxError as error:
        text = str(error)
        if "\n" in text or len(text) > 4000:
            raise Wrong(f"{len(text)} letters, {text.count(chr(10))} lines: {text[:80]}") from None
        return None


@dataclasses.dataclass
class Tally:
    """What became of a kind's inputs."""

    counts: Counter = dataclasses.field(default_factory=Counter)
    slowest: float = 0.0

    def count(self, read: Callable[[], str]) -> None:
        begun = time.perf_counter()
        self.counts[read()] += 1
        seconds = time.perf_counter() - begun
        self.slowest = max(self.slowest, seconds)
        if seconds > SECONDS:
            raise Wrong(f"took {seconds:.1f} s")


def trial(name: str, targets: dict[str, Target], tally: Tally, folder: Path) -> Callable[[], None]:
    """A property that Hypothesis tries to break."""
    if name == "drawn masks":

        @hypothesis.given(images())
        def drawn(image: tuple[str, str, np.ndarray]) -> None:
            tally.count(lambda: "read or refused" if read_drawn(image, folder) else "no file")

        return drawn
    if name == "descriptions":

        @hypothesis.given(descriptions())
        def described(stored: StoredModel) -> None:
            tally.count(lambda: "refused" if refusing(stored.build) is None else "read")

        return described
    target = targets[name]
    wholes = []
    path = folder / f"input{target.suffix}"
    for seed in target.seeds:
        path.write_bytes(seed)
        wholes.append(target.read(path))

    @hypothesis.given(st.integers(0, len(target.seeds) - 1), edits())
    def damaged(number: int, changes: list[tuple[str, float, bytes]]) -> None:
        path.write_bytes(edited(target.seeds[number], changes, target.places))

        def read() -> str:
            got = refusing(lambda: target.read(path))
            if got is None:
                return "refused"
            if same(got, wholes[number]):
                return "read"
            if target.exact:
                raise Wrong("another content than the whole file's")
            return "read otherwise"

        tally.count(read)

    return damaged


def fuzz(name: str, targets: dict[str, Target], inputs: int) -> dict[str, Any]:
    """Tries one kind; the row of the table."""
    tally = Tally()
    settings = hypothesis.settings(
        max_examples=inputs,
        deadline=None,
        database=None,
        derandomize=True,
        suppress_health_check=[*hypothesis.HealthCheck],  # type: ignore[arg-type]
    )
    failure = None
    with tempfile.TemporaryDirectory() as folder:
        run = settings(trial(name, targets, tally, Path(folder)))
        try:
            run()
        except Exception as error:
            failure = f"{type(error).__name__}: {str(error).splitlines()[0][:200]}"
            traceback.print_exc()
            keep(Path(folder), name)
    row = {"kind": name, "inputs": sum(tally.counts.values()), **tally.counts}
    return {**row, "slowest_seconds": round(tally.slowest, 2), "failure": failure}


def keep(folder: Path, name: str) -> None:
    """Keeps the smallest input that failed, which Hypothesis tries last."""
    FOUND.mkdir(parents=True, exist_ok=True)
    for path in folder.iterdir():
        (FOUND / f"{name.replace(' ', '_')}{path.suffix}").write_bytes(path.read_bytes())


def limit_memory() -> None:
    """Too much memory is an error of the input that asks for it."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    most = pages * resource.getpagesize() + 4 * BYTES  # threads reserve what they do not use
    resource.setrlimit(resource.RLIMIT_AS, (most, most))


def main(args: Arguments) -> None:
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as folder:
        targets = whole_files(Path(folder))
    names = [*targets, "drawn masks", "descriptions"]
    limit_memory()
    rows = []
    for name in args.only or names:
        if name not in names:
            raise RdejaxError(f"--only {name}: choose among {', '.join(names)}")
        # A network is built for each, if only of shapes.
        share = 10 if name == "descriptions" else 1
        rows.append(fuzz(name, targets, max(1, args.inputs // share)))
        print(rows[-1], flush=True)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    if not args.only:
        content = {"machine": machine(), "peak_megabytes": peak, "rows": rows}
        write_results(RESULTS / "fuzz.json", content)
    if failed := [row["kind"] for row in rows if row["failure"]]:
        raise RdejaxError(f"failures: {', '.join(failed)}; see {FOUND}")


if __name__ == "__main__":
    with cli_errors():
        main(tyro.cli(Arguments, description=__doc__))
