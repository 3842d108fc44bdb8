"""Id masks from files and to files: the one place that knows which pixels become which id.

`read_mask` reads masks whose meaning is settled by where they come from; what legitimately differs
is a `MaskRules`, and all of them stand below. `rdejax.io.mask_reader` reads what people draw to
start objects, with more checks and with a memory of the colours seen. Both begin with
`load_pixels`.
"""

import dataclasses
import hashlib
import io
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
from jaxtyping import Shaped, UInt8
from PIL import Image

from rdejax.errors import BadFile, first_line
from rdejax.files import atomic
from rdejax.io.palette import davis_colour_ids, davis_palette
from rdejax.io.pictures import decoded

# "Not labelled" in the masks of several data sets.
VOID = 255
# Difference between channels up to which a colour image counts as grey: above JPEG's noise.
_NOISE = 16
# Formats, by Pillow's names, that give back other pixels than were saved; WebP may or may not.
_LOSSY = ("JPEG", "MPO", "JPEG2000", "AVIF")
# Signature and first chunk's beginning; last chunk, of length 0 and with its checksum.
_PNG_HEAD = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR"
_PNG_END = b"\0\0\0\0IEND\xaeB`\x82"

IdMask = UInt8[np.ndarray, "h w"]


@dataclasses.dataclass(frozen=True)
class MaskRules:
    """How pixels become ids, and what is said where they cannot.

    Attributes:
      colours: of RGB images "refuse" all; take the "grey" ones, whose channels agree; also those in
        "davis" colours, which get DAVIS's ids; or all, where anything but black is one "object".
      edges: of greyscale images "keep" all values as ids; "refuse" values that smoothed edges leave
        (128 to 254 beside 255); or "cut" those with 255 at one half. With "cut" a single value
        beside 0, in palette images too, is the object 1.
      void: "keep" 255; or "drop" it, unless it is the only id and so the object 1.
      merge: everything but the background is the object 1.
      missing: what is said of a file that is not there.
      unreadable: what is said of another that cannot be read, for {detail}.
      refused: what is said of colours, or of a kind of image, that are not taken, for {mode}.
    """

    colours: Literal["refuse", "grey", "davis", "object"] = "refuse"
    edges: Literal["keep", "refuse", "cut"] = "keep"
    void: Literal["keep", "drop"] = "keep"
    merge: bool = False
    missing: str = "no such mask"
    unreadable: str = "unreadable or truncated mask ({detail}); save it as PNG again"
    refused: str = "a {mode} image cannot be a mask; save it as a palette, greyscale or RGB PNG"


# Masks that rdejax infer wrote, and the wording for those that people give it.
AS_WRITTEN = MaskRules()

# True and resulting masks of a benchmark: the ids that lie in the file, and nothing else.
BENCHMARK = MaskRules(
    missing="no such mask; run rdejax infer again on this sequence",
    unreadable="not a readable image ({detail}); write it again",
    refused="image mode {mode} holds no ids; write a palette or grey PNG",
)

# Masks to be painted over frames, of whatever origin.
PAINTING = MaskRules(
    colours="object",
    void="drop",
    missing="not a readable mask (no such file); run rdejax infer again on this video",
    unreadable="not a readable mask ({detail}); run rdejax infer again on this video",
)

_TRAINING = MaskRules(
    missing="cannot be read (no such file)",
    unreadable="cannot be read ({detail}); replace it or leave it and its mask out",
    refused="mask is in colours; save object ids as a greyscale image",
)
# Masks of static images, each with a meaning of its own.
STATIC_IMAGE = dataclasses.replace(_TRAINING, colours="grey", edges="cut", void="drop")
# Masks of a video's frames: values mean the same in all of them, so `settle_void` comes later.
VIDEO_FRAME = dataclasses.replace(_TRAINING, colours="davis", edges="refuse")


def merged(rules: MaskRules) -> MaskRules:
    """The rules where every object is the same one, whatever the colour (DAVIS 2016)."""
    return dataclasses.replace(rules, colours="object", merge=True)


@dataclasses.dataclass(frozen=True)
class Pixels:
    """A decoded image, before anything is an id.

    Attributes:
      values: [h, w] palette indices or grey values (int64 for 16 bits, 0 and 1 for one bit), or
        [h, w, 3] RGB. What is transparent is 0.
      mode: what Pillow calls this kind of image.
      stretch: what Pillow multiplied the values of a 2- or 4-bit grey PNG by, to fill 0 to 255.
    """

    values: Shaped[np.ndarray, "h w *rgb"]
    mode: str
    stretch: int = 1

    @property
    def indexed(self) -> bool:
        """Whether values are indices and not brightness."""
        return self.mode in ("P", "PA", "1")


def read_mask(source: str | Path | bytes, rules: MaskRules, name: str | None = None) -> IdMask:
    """Reads a mask.

    Args:
      source: a palette, greyscale, 1-bit or colour image: a file, or its content.
      rules: which pixels become which ids.
      name: what errors call it; needed for bytes.

    Returns:
      uint8 [h, w] ids, 0 is background; may be read-only.

    Raises:
      BadFile: missing, unreadable, in colours or with smoothed edges that the rules refuse, or with
        ids above 255.
    """
    name = name or str(source)
    pixels = load_pixels(source, rules, name)
    values = pixels.values
    if values.ndim == 3 and rules.colours == "object":
        return np.asarray(values.any(axis=-1), np.uint8)
    if values.ndim == 3 and not agree(values, _NOISE):
        return _davis_ids(values, rules, name, pixels.mode)
    if values.ndim == 3:
        if rules.colours == "refuse":
            raise _refused(rules, name, pixels.mode)
        values = np.asarray(Image.fromarray(values).convert("L"))
    if rules.merge:
        return (values != 0).astype(np.uint8)
    if values.dtype != np.uint8:
        return _narrow(values, name)
    if rules.edges != "cut":
        values = values // pixels.stretch if pixels.stretch > 1 else values
    elif not pixels.indexed and values.max(initial=0) == 255:
        return _cut(values)
    if rules.edges == "refuse" and not pixels.indexed:
        _refuse_smoothed(values, name)
    if rules.void == "drop":
        values = settle_void(values, binary=holds_void_only(values))
    if rules.edges == "cut" and len(np.unique(values)) <= 2:
        return _cut(values)
    return values


def load_pixels(source: str | Path | bytes, rules: MaskRules, name: str) -> Pixels:
    """Decodes an image of any kind that can be a mask.

    Raises:
      BadFile: missing, unreadable, or of another kind.
    """
    try:
        image = decoded(source)
        lossy = image.format in _LOSSY or (image.format == "WEBP" and not _is_exact_webp(source))
        head = b"" if image.mode != "L" else _head(source)
    except FileNotFoundError:
        raise BadFile(f"{name}: {rules.missing}", "missing") from None
    except Exception as error:  # Pillow raises many kinds for a damaged file
        detail = first_line(error)
        raise BadFile(f"{name}: {rules.unreadable.format(detail=detail)}") from None
    array, mode = np.asarray(image), image.mode
    # Where soft edges are cut at one half, those of compression are, too.
    lossy = lossy and mode in ("L", "RGB") and rules.edges != "cut"
    if lossy and not set(np.unique(array).tolist()) <= {0, 255}:
        raise BadFile(
            f"{name}: a {image.format} image cannot keep the ids of a mask, only black and white: "
            "smoothed or JPEG-compressed edges become further objects; save the mask as PNG",
            "lossy mask",
        )
    if mode in ("P", "L"):
        return Pixels(array, mode, _stretch(head))
    if mode == "1":
        return Pixels(array.astype(np.uint8), mode)
    if mode.startswith("I"):
        return Pixels(array.astype(np.int64), mode)
    if mode in ("PA", "LA", "La", "RGBA"):
        visible = np.where(array[..., -1:] == 0, np.uint8(0), array[..., :-1])
        return Pixels(visible if mode == "RGBA" else visible[..., 0], mode)
    if mode == "RGB":
        return Pixels(array, mode)
    raise _refused(rules, name, mode)


def agree(image: UInt8[np.ndarray, "h w 3"], tolerance: int = 0) -> bool:
    """Whether red and green, and green and blue, differ by at most `tolerance` everywhere."""
    return bool(np.abs(np.diff(image.astype(np.int16), axis=-1)).max(initial=0) <= tolerance)


def settle_void(labels: IdMask, *, binary: bool, merge: bool = False) -> IdMask:
    """Ids from values of which 255 is void or the object.

    Args:
      labels: values of a mask.
      binary: the video's masks hold 0 and 255 only, so 255 is the object; otherwise it is void.
      merge: every object is the same one, number 1.
    """
    if binary:
        return (labels > 0).astype(np.uint8)
    ids = np.where(labels == VOID, 0, labels).astype(np.uint8)
    return (ids > 0).astype(np.uint8) if merge else ids


def holds_void_only(labels: IdMask) -> bool:
    """Whether a mask holds 255 and no other object."""
    return ids_of(labels) == {VOID}


def ids_of(labels: IdMask) -> frozenset[int]:
    """The ids that a map holds, without 0; `VOID` is among them."""
    # OpenCV's histogram of bytes is some ten times faster than np.unique or np.bincount.
    counts = cv2.calcHist([labels], [0], None, [256], [0, 256])
    return frozenset(np.flatnonzero(counts).tolist()) - {0}


def new_ids(mask: np.ndarray, known: Iterable[int]) -> list[int]:
    """Ids in the mask that are not known yet, ascending."""
    return sorted(set(np.unique(mask).tolist()) - {0} - set(known))


def digest_masks(masks: Mapping[int, IdMask]) -> str:
    """What tells the masks of a video, by frame number, from changed ones."""
    digest = hashlib.sha256()
    for frame, mask in sorted(masks.items()):
        digest.update(f"{frame}\n".encode() + mask.tobytes())
    return digest.hexdigest()[:16]


def write_mask(path: str | Path, mask: IdMask) -> None:
    """Writes uint8 [H, W] ids as a lossless palette PNG with the DAVIS colours, atomically."""
    image = Image.fromarray(np.ascontiguousarray(mask, np.uint8))
    image.putpalette(davis_palette().tobytes())
    with atomic(path) as temporary:
        image.save(temporary, format="PNG", compress_level=3)


def is_whole_png(path: str | Path) -> bool:
    """Whether a file begins and ends as a PNG does; one emptied or cut off does not."""
    try:
        with open(path, "rb") as file:
            begins = file.read(len(_PNG_HEAD)) == _PNG_HEAD
            file.seek(-len(_PNG_END), io.SEEK_END)
            return begins and file.read() == _PNG_END
    except OSError:  # nothing there, or too short to have an end
        return False


def whole_masks(folder: Path) -> set[str]:
    """Names, without ".png", of the whole masks in a folder, which may be missing."""
    return {path.stem for path in folder.glob("*.png") if is_whole_png(path)}


def _refused(rules: MaskRules, name: str, mode: str) -> BadFile:
    return BadFile(f"{name}: {rules.refused.format(mode=mode)}", "mask in colours")


def _davis_ids(image: UInt8[np.ndarray, "h w 3"], rules: MaskRules, name: str, mode: str) -> IdMask:
    if rules.colours != "davis":
        raise _refused(rules, name, mode)
    codes = image.astype(np.int32) @ np.array([1 << 16, 1 << 8, 1], np.int32)
    present, where = np.unique(codes, return_inverse=True)
    known = {(r << 16) + (g << 8) + b: index for (r, g, b), index in davis_colour_ids().items()}
    known[0] = 0
    strange = [code for code in present.tolist() if code not in known]
    if strange:
        raise BadFile(
            f"{name}: mask is in colours that are not DAVIS's (#{strange[0]:06x}); save object ids "
            "as a palette or greyscale image",
            "mask in colours",
        )
    table = np.array([known[code] for code in present.tolist()], np.uint8)
    return table[where].reshape(codes.shape)


def _narrow(wide: Shaped[np.ndarray, "h w"], name: str) -> IdMask:
    if wide.max(initial=0) == 65535 and ((wide == 0) | (wide == 65535)).all():
        return (wide > 0).astype(np.uint8)
    if wide.max(initial=0) > 255:
        raise BadFile(
            f"{name}: mask holds ids up to {wide.max()}; number them 1 to 255", "ids above 255"
        )
    return wide.astype(np.uint8)


def _refuse_smoothed(values: IdMask, name: str) -> None:
    counts = np.bincount(values.ravel(), minlength=256)
    if counts[VOID] and counts[128:VOID].any():
        raise BadFile(
            f"{name}: mask has smoothed edges; save ids as PNG without smoothing (anti-aliasing)",
            "smoothed mask",
        )


def _cut(values: IdMask) -> IdMask:
    """One object; soft edges up to bright values are cut at one half."""
    return (values > (127 if values.max(initial=0) > 127 else 0)).astype(np.uint8)


def _head(source: str | Path | bytes) -> bytes:
    if isinstance(source, bytes):
        return source[:26]
    with open(source, "rb") as file:
        return file.read(26)


def _is_exact_webp(source: str | Path | bytes) -> bool:
    return _head(source)[12:16] == b"VP8L"


def _stretch(head: bytes) -> int:
    if head[:8] != _PNG_HEAD[:8] or head[25] != 0:
        return 1
    return {2: 85, 4: 17}.get(head[24], 1)
