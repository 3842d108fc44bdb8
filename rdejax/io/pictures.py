"""Images decoded by Pillow, with what it leaves unchecked."""

import io
from pathlib import Path

from PIL import Image


def decoded(source: str | Path | bytes) -> Image.Image:
    """An image, decoded.

    The checksums of PNG files are compared: Pillow decodes a damaged one to other pixels without a
    word as soon as there are enough of them. Animations are refused: nothing says which picture is
    meant.

    Args:
      source: a file, or its content.

    Raises:
      Exception: of many kinds, for a file that is damaged, missing or no image.
    """

    def opened() -> Image.Image:
        return Image.open(io.BytesIO(source) if isinstance(source, bytes) else source)

    with opened() as image:
        count = getattr(image, "n_frames", 1)
        if count > 1 and image.format != "MPO":  # of cameras: the second one is a preview
            raise ValueError(f"holds {count} pictures; save the one that is meant")
        if image.format != "PNG":
            image.load()
            return image
        image.verify()  # which leaves the image of no further use
    with opened() as image:
        image.load()
        return image
