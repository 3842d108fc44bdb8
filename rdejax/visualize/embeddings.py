"""Value embeddings along a video as colours (the RDE paper's figure)."""

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float, UInt8

from rdejax.propagate.geometry import Geometry
from rdejax.visualize.grid import Picture, fit, grid, outlined
from rdejax.visualize.pca import fit_basis
from rdejax.visualize.strides import spread
from rdejax.visualize.style import TILE


def embedding_rows(
    frames: Sequence[Picture],
    numbers: Sequence[int],
    values: Mapping[str, Sequence[Float[np.ndarray, "h w cv"]]],
    geometry: Geometry,
    masks: Mapping[str, Sequence[UInt8[np.ndarray, "H W"]]] | None = None,
    *,
    width: int = TILE,
) -> Picture:
    """The frames, and under them one row of PCA colours for each kind of memory.

    One basis is fitted over every value shown, so a colour means the same in every tile. Padding of
    the frame is neither fitted nor shown; each square is one position of the stride-16 grid.

    Args:
      frames: RGB, `geometry.source` large.
      numbers: of the frames.
      values: name of the memory -> one value embedding for each frame.
      geometry: of the video.
      masks: name of the memory -> ids of each frame, whose contours are drawn; default: none.
      width: of a tile, in pixels.
    """
    shown = {name: [spread(v, geometry) for v in row] for name, row in values.items()}
    # Every pixel of the video counts: positions that are mostly padding weigh little.
    step = max(1, min(geometry.source) // 240)
    pixels = [v[::step, ::step].reshape(-1, v.shape[-1]) for row in shown.values() for v in row]
    basis = fit_basis(np.concatenate(pixels))
    rows = [[fit(frame, width) for frame in frames]]
    for name, row in shown.items():
        tiles = [fit(basis.colours(v), width) for v in row]
        if masks is not None:
            tiles = [outlined(tile, mask) for tile, mask in zip(tiles, masks[name], strict=True)]
        rows.append(tiles)
    columns = [f"frame {number}" for number in numbers]
    return grid(rows, columns=columns, names=["video", *values])
