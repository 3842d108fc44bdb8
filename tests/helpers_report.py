"""Made-up results of a small data set, and a reader of the page made from them."""

import base64
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
from PIL import Image

# A folder may be called so; in a page it must stay text.
HOSTILE = """<img src=x onerror="alert(1)">&'quotes'"""
_VOID = {"br", "img", "link", "meta"}


def squares(count, size=(48, 64), ids=(1,), shift=0):
    """id maps [count, H, W]: squares drifting right, `shift` pixels from where they belong."""
    masks = np.zeros((count, *size), np.uint8)
    for frame in range(count):
        for number, index in enumerate(ids):
            left = 4 + 20 * number + frame + shift
            masks[frame, 8:26, left : left + 16] = index
    return masks


def write_masks(folder: Path, masks, first=0):
    folder.mkdir(parents=True)
    for number, mask in enumerate(masks):
        image = Image.fromarray(mask)
        image.putpalette(bytes(range(256)) * 3)
        image.save(folder / f"{number + first:05d}.png")


def make_dataset(root: Path, results: Path, shifts, count=6, size=(48, 64), noise=0):
    """A `folder` data set and results that are off by `shifts` (name -> pixels; None: empty).

    The last sequence has two objects.
    """
    rng = np.random.default_rng(0)
    for place, (name, shift) in enumerate(shifts.items()):
        ids = (1, 5) if place == len(shifts) - 1 else (1,)
        truth = squares(count, size, ids)
        frames = np.full((count, *size, 3), 90, np.uint8)
        if noise:
            frames = rng.integers(0, noise, frames.shape, np.uint8)
        folder = root / "JPEGImages" / name
        folder.mkdir(parents=True)
        for number, frame in enumerate(frames):
            Image.fromarray(frame).save(folder / f"{number:05d}.jpg")
        write_masks(root / "Annotations" / name, truth)
        masks = np.zeros_like(truth) if shift is None else squares(count, size, ids, shift)
        write_masks(results / name, masks)


class Page(HTMLParser):
    """A page's elements and text; refuses a tag that is not closed in order.

    Attributes:
      elements: (tag, attributes) in order.
      texts: (tag it lies in, text) in order.
    """

    def __init__(self, path: Path):
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[tuple[str, str]] = []
        self._open: list[str] = []
        self.feed(path.read_text("utf-8"))
        self.close()
        assert not self._open

    def handle_starttag(self, tag, attrs):
        names = [name for name, _ in attrs]
        assert len(set(names)) == len(names), (tag, names)
        self.elements.append((tag, dict(attrs)))
        if tag not in _VOID:
            self._open.append(tag)

    def handle_endtag(self, tag):
        assert self._open.pop() == tag

    def handle_data(self, data):
        if data.strip():
            self.texts.append((self._open[-1] if self._open else "", data))

    def all(self, tag):
        """Attributes of every element of a kind."""
        return [attributes for name, attributes in self.elements if name == tag]

    def text(self, *tags):
        """All text in elements of these kinds (of any but style and script by default)."""
        return " ".join(
            text
            for tag, text in self.texts
            if (tag in tags if tags else tag not in ("style", "script"))
        )

    def files(self, kind):
        """Contents of the data URIs of a MIME type."""
        uris = [value for _, attributes in self.elements for value in attributes.values() if value]
        start = f"data:{kind};base64,"
        return [
            base64.b64decode(uri.removeprefix(start), validate=True)
            for uri in uris
            if uri.startswith(start)
        ]
