"""The DAVIS colours: one colour per object id, known to every tool of the field."""

import functools

import numpy as np
from jaxtyping import UInt8


@functools.cache
def davis_palette() -> UInt8[np.ndarray, "256 3"]:
    """The PASCAL VOC / DAVIS colour map, read-only.

    Bits 0, 3, 6 of an id go, lowest first, to the top bits of red, bits 1, 4, 7 to those of green
    and bits 2, 5 to those of blue: neighbouring ids get colours far apart. Id 0 is black.
    """
    ids = np.arange(256)
    palette = np.zeros((256, 3), np.uint8)
    for weight in range(8):
        for channel in range(3):
            bit = ids >> (3 * weight + channel) & 1
            palette[:, channel] |= (bit << (7 - weight)).astype(np.uint8)
    palette.flags.writeable = False
    return palette


@functools.cache
def davis_colour_ids() -> dict[tuple[int, int, int], int]:
    """Colour -> id for the DAVIS colours without black.

    The masks published with DAVIS write 191 where the colour map says 192; both are known here.
    """
    table = {}
    for index, (red, green, blue) in enumerate(davis_palette().tolist()):
        for high in (192, 191):
            colour = tuple(high if value == 192 else value for value in (red, green, blue))
            table.setdefault(colour, index)
    del table[0, 0, 0]
    return table
