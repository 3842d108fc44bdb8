"""Images and id masks of training data, from files or from encoded bytes."""

import io
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageOps

from rdejax.errors import RdejaxError
from rdejax.io.palette import davis_colour_ids

VOID = 255  # "not labelled" in the palette masks of several data sets
_COLOURED = 16  # difference between channels from which a mask is in colours, above JPEG's noise


class BadFile(RdejaxError):
    """A file of a data set that cannot be used.

    Attributes:
      problem: what is wrong, in a word or two; `rdejax.data.check` counts by it.
    """

    def __init__(self, text: str, problem: str = "unreadable"):
        super().__init__(text)
        self.problem = problem


def open_picture(source: Path | bytes, name: str | None = None) -> Image.Image:
    """Opens and decodes an image of any mode.

    Args:
      source: a file, or its content.
      name: what errors call it; needed for bytes.

    Raises:
      BadFile: missing, truncated or no image.
    """
    name = name or str(source)
    try:
        opened = Image.open(io.BytesIO(source) if isinstance(source, bytes) else source)
        opened.load()
    except FileNotFoundError:
        raise BadFile(f"{name}: cannot be read (no such file)", "missing") from None
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        # Pillow reports broken files by all of these (SyntaxError: a broken PNG).
        detail = (str(error).splitlines() or [type(error).__name__])[0]
        text = f"{name}: cannot be read ({detail}); replace it or leave it and its mask out"
        raise BadFile(text) from None
    return opened


def read_rgb(
    source: Path | bytes, name: str | None = None, *, upright: bool = True
) -> UInt8[np.ndarray, "h w 3"]:
    """An image, RGB.

    Greyscale is expanded, alpha dropped, 16-bit grey scaled to 8 bits.

    Args:
      source: a file, or its content.
      name: what errors call it; needed for bytes.
      upright: turn the image as its EXIF orientation says.

    Raises:
      BadFile: missing, truncated or no image.
    """
    opened = open_picture(source, name)
    if opened.mode.startswith("I"):
        wide = np.clip(np.asarray(opened).astype(np.int64), 0, 65535)
        opened = Image.fromarray((wide // 257).astype(np.uint8))
    return np.asarray((ImageOps.exif_transpose(opened) if upright else opened).convert("RGB"))


def read_ids(source: Path | bytes, name: str | None = None) -> UInt8[np.ndarray, "h w"]:
    """The ids of a mask of a static image, 0 for background.

    One value beside 0 means a binary mask; 255 is void in a palette image, and in a greyscale one
    stands for a binary mask with soft edges, which is cut at one half.

    Raises:
      BadFile: an unreadable file, ids above 255, or a mask in colours.
    """
    opened = open_picture(source, name)
    name = name or str(source)
    if opened.mode == "P":
        ids = np.array(opened)
        if ids.max() == VOID and len(np.unique(ids)) > 2:
            ids[ids == VOID] = 0
        return _binary(ids) if len(np.unique(ids)) <= 2 else ids
    if opened.mode.startswith("I"):
        return _narrow(np.asarray(opened), name)
    if opened.mode in ("RGB", "RGBA") and _in_colours(opened):
        raise BadFile(
            f"{name}: mask is in colours; save object ids as a greyscale image", "mask in colours"
        )
    ids = np.array(opened.convert("L"))
    values = np.unique(ids)
    # 255 beside other values means a binary mask with soft or compressed edges.
    return _binary(ids) if len(values) <= 2 or values[-1] == 255 else ids


def read_labels(source: Path | bytes, name: str | None = None) -> UInt8[np.ndarray, "h w"]:
    """The values of a mask of a video's frame, which mean the same in all of its frames.

    Palette indices and grey values are kept, one bit becomes 0 and 1, DAVIS's colours become
    DAVIS's ids. 255 is left for `settle_void`, since one mask alone cannot tell what it means.

    Raises:
      BadFile: an unreadable file, ids above 255, colours other than DAVIS's, or a smoothed mask.
    """
    opened = open_picture(source, name)
    name = name or str(source)
    if opened.mode in ("P", "1"):
        return np.asarray(opened).astype(np.uint8)
    if opened.mode == "PA":
        return np.ascontiguousarray(np.asarray(opened)[..., 0])
    if opened.mode.startswith("I"):
        return _narrow(np.asarray(opened), name)
    if opened.mode in ("RGB", "RGBA") and _in_colours(opened):
        return _davis_ids(np.asarray(opened.convert("RGB")), name)
    labels = np.asarray(opened.convert("L")) // _grey_step(source)
    counts = np.bincount(labels.ravel(), minlength=256)
    if counts[VOID] and counts[128:VOID].any():
        raise BadFile(
            f"{name}: mask has smoothed edges; save ids as PNG without smoothing (anti-aliasing)",
            "smoothed mask",
        )
    return labels


def settle_void(
    labels: UInt8[np.ndarray, "h w"], *, binary: bool, merge: bool = False
) -> UInt8[np.ndarray, "h w"]:
    """Ids from `read_labels`' values.

    Args:
      labels: values of a mask.
      binary: the video's masks hold 0 and 255 only, so 255 is the object; otherwise it is void.
      merge: every object is the same one, number 1 (DAVIS 2016).
    """
    if binary:
        return (labels > 0).astype(np.uint8)
    ids = np.where(labels == VOID, 0, labels).astype(np.uint8)
    return (ids > 0).astype(np.uint8) if merge else ids


def same_size(image: np.ndarray, ids: np.ndarray, name: str) -> None:
    """Checks that a mask fits its image.

    Raises:
      BadFile: it does not; names the mask.
    """
    if ids.shape != image.shape[:2]:
        raise BadFile(size_text(name, ids.shape[::-1], image.shape[1::-1]), "mask of another size")


def size_text(name: str, mask: tuple[int, ...], image: tuple[int, ...]) -> str:
    """The sentence for a mask whose size (width, height) is not its image's."""
    return (
        f"{name}: mask is {mask[0]}x{mask[1]}, its image {image[0]}x{image[1]}; "
        "make them the same size"
    )


def _narrow(wide: np.ndarray, name: str) -> UInt8[np.ndarray, "h w"]:
    if wide.max() == 65535 and ((wide == 0) | (wide == 65535)).all():
        return (wide > 0).astype(np.uint8)
    if wide.max() > 255:
        raise BadFile(
            f"{name}: mask holds ids up to {wide.max()}; number them 1 to 255", "ids above 255"
        )
    return wide.astype(np.uint8)


def _in_colours(opened: Image.Image) -> bool:
    colours = np.asarray(opened.convert("RGB")).astype(np.int16)
    return bool(np.abs(np.diff(colours, axis=-1)).max() > _COLOURED)


def _davis_ids(image: UInt8[np.ndarray, "h w 3"], name: str) -> UInt8[np.ndarray, "h w"]:
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


def _grey_step(source: Path | bytes) -> int:
    # What Pillow multiplies the values of a 2- or 4-bit greyscale PNG by, to fill 0 to 255.
    if isinstance(source, bytes):
        head = source[:26]
    else:
        with source.open("rb") as file:
            head = file.read(26)
    if head[:8] != b"\x89PNG\r\n\x1a\n" or head[25] != 0:
        return 1
    return {2: 85, 4: 17}.get(head[24], 1)


def _binary(ids: np.ndarray) -> np.ndarray:
    return (ids > (127 if ids.max() > 127 else 0)).astype(np.uint8)
