"""Small videos, masks and a stream without a network, for the tests of reading and writing."""

import json
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace

import jax.numpy as jnp
import numpy as np
from flax import nnx
from PIL import Image

from rdejax.errors import RdejaxError
from rdejax.models.rde import RDE
from rdejax.models.settings import Settings


def moving_frames(count=8, size=(36, 52), seed=0):
    """A bright square moving over noise; uint8 [count, H, W, 3]."""
    rng = np.random.default_rng(seed)
    height, width = size
    background = rng.integers(0, 90, (*size, 3), np.uint8)
    frames = np.repeat(background[None], count, 0)
    side = max(1, min(size) // 3)
    for index in range(count):
        left = min(index, width - side)
        frames[index, : side + 1, left : left + side] = (230, 200, 40)
    return frames


def square_mask(size=(36, 52), ids=(1,)):
    """Neighbouring rectangles of these ids."""
    mask = np.zeros(size, np.uint8)
    side = max(1, min(size) // 3)
    for number, index in enumerate(ids):
        left = min(number * side, size[1] - 1)
        mask[: side + 1, left : left + side] = index
    return mask


def write_folder(path: Path, frames, names=None, suffix=".png"):
    """Frames as image files."""
    path.mkdir(parents=True, exist_ok=True)
    for index, frame in enumerate(frames):
        name = names[index] if names else f"{index:05d}"
        Image.fromarray(frame).save(path / f"{name}{suffix}")
    return path


def write_mask_image(path: Path, ids, mode="P"):
    """An id map as a palette or greyscale PNG."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(ids)
    if mode == "P":
        image.putpalette(bytes(range(256)) * 3)
    image.save(path)
    return path


def write_video(path: Path, frames, *, fps=Fraction(25), codec="libx264", options=None, **kwargs):
    """Frames as a video file, key frames every 12."""
    import av

    with av.open(str(path), "w", options=options or {}, **kwargs) as container:
        stream = container.add_stream(codec, rate=fps)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuv420p"
        stream.codec_context.gop_size = 12
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
    return path


def read_ids(path: Path):
    """Palette indices of a written mask."""
    with Image.open(path) as image:
        assert image.mode == "P"
        return np.array(image)


class FakeStream:
    """Stands for `rdejax.stream`: shifts the given objects by one pixel a frame.

    The result depends on everything pushed before, so a lost or repeated frame shows.
    """

    def __init__(self, fail_at=None, error=None):
        self.count = 0
        self.ids = None
        self.pushed = []
        self._fail_at = fail_at
        self._error = error or RuntimeError("stop here")

    def push(self, frames, masks=None):
        results = []
        for offset, frame in enumerate(frames):
            if self._fail_at is not None and self.count >= self._fail_at:
                raise self._error
            if self.ids is None:
                self.ids = np.zeros(frame.shape[:2], np.uint8)
            self.ids = np.roll(self.ids, 1, axis=1)
            given = (masks or {}).get(offset)
            if given is not None:
                self.ids = np.where(given > 0, given, self.ids)
            results.append(self.ids)
            self.count += 1
        self.pushed.append(len(frames))
        return np.stack(results)

    def submit(self, frames, masks=None, beside=None, *, last=False):
        results = self.push(frames, masks)
        return SimpleNamespace(masks=lambda: results)

    @property
    def objects(self):
        return [] if self.ids is None else [i for i in np.unique(self.ids).tolist() if i]

    def save(self, path):
        if not self.objects:
            raise RdejaxError("nothing to save")
        with open(path, "wb") as file:
            np.savez(file, count=self.count, ids=self.ids)

    def restore(self, path):
        try:
            with np.load(path) as values:
                self.count, self.ids = int(values["count"]), values["ids"]
        except ValueError:
            raise RdejaxError(f"{path}: not a saved state") from None


class FakeModel(nnx.Module):
    """What the command line needs of a model; called "...-own" it has settings of its own."""

    default_settings = Settings(every=5, memory="rde", memory_settings=(("top_k", 30),))

    def __init__(self, checkpoint, **settings):
        if checkpoint == "missing":
            raise RdejaxError("missing: no such checkpoint")
        self.name = "rde" if "rde" in checkpoint else "rde-lite"
        base = self.default_settings
        if checkpoint.endswith("-own"):
            base = base.override(every=2)
        self.settings = base.override(**settings)
        self.weight = nnx.Param(jnp.zeros(7))

    @property
    def published(self):
        return RDE.published if self.name == "rde" else {}


def fake_api(monkeypatch=None, delay=0.0):
    """Puts a fake model behind `rdejax.load_model` and `rdejax.stream`; returns what was loaded."""
    import time

    import rdejax
    from rdejax.models import registry

    loaded = []

    class Slow(FakeStream):
        def push(self, frames, masks=None):
            time.sleep(delay)
            return super().push(frames, masks)

    def load_model(checkpoint, **settings):
        loaded.append(FakeModel(checkpoint, **settings))
        return loaded[-1]

    def resettled(model, **settings):
        model.settings = model.settings.override(**settings)
        return model

    put = monkeypatch.setattr if monkeypatch else setattr
    put(rdejax, "load_model", load_model)
    put(registry, "resettled", resettled)
    put(rdejax, "stream", lambda model, **_: Slow())
    return loaded


def tiny_weights(path: Path, *, poison=None):
    """A small rde-lite with random weights as a weights file; `poison` changes the arrays."""
    from safetensors.numpy import save_file

    from rdejax.models import create
    from rdejax.models.weights import FORMAT

    config = {"key_channels": 8, "value_channels": 32, "decoder_widths": (16, 8, 8)}
    # Only shapes are needed of the model: its own initialisers would take a minute to compile.
    model = nnx.eval_shape(lambda: create("rde-lite", config=config))
    rng = np.random.default_rng(0)
    arrays = {}
    for name, leaf in nnx.to_flat_state(nnx.state(model)):
        key = "/".join(map(str, name))
        fan_in = max(1, int(np.prod(leaf.shape[:-1])))
        arrays[key] = rng.normal(0, fan_in**-0.5, leaf.shape).astype(np.float32)
        if key.endswith(("var", "scale")):
            arrays[key] = np.ones(leaf.shape, np.float32)
    if poison:
        poison(arrays)
    metadata = {
        "format": FORMAT,
        "arch": "rde-lite",
        "config": json.dumps(config),
        "settings": json.dumps(model.settings.as_dict()),
    }
    save_file(arrays, path, metadata)
    return path
