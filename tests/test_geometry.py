"""The size the network works at: reduced, kept or enlarged; masks at the video's own size."""

import jax.numpy as jnp
import numpy as np
import pytest

from rdejax.errors import RdejaxError
from rdejax.models.settings import Settings
from rdejax.propagate.geometry import Geometry


@pytest.mark.parametrize(
    ("source", "size", "enlarge", "inner"),
    [
        ((960, 1280), 480, 1.0, (480, 640)),  # larger videos are reduced
        ((960, 1280), 480, 2.0, (480, 640)),
        ((240, 432), 480, 1.0, (240, 432)),  # smaller ones keep their size
        ((240, 432), 480, 2.0, (480, 864)),  # or grow up to `size`
        ((360, 640), 480, 2.0, (480, 853)),
        ((120, 160), 480, 2.0, (240, 320)),  # but not by more than they may
        ((240, 432), 480, 1.5, (360, 648)),
        ((240, 432), None, 2.0, (240, 432)),  # without a size there is nothing to grow to
        ((480, 854), 480, 2.0, (480, 854)),
    ],
)
def test_sizes(source, size, enlarge, inner):
    geometry = Geometry.of(source, size, enlarge=enlarge)
    assert geometry.source == source and geometry.inner == inner
    top, bottom, left, right = geometry.padding
    assert (inner[0] + top + bottom) % 16 == (inner[1] + left + right) % 16 == 0


def test_masks_of_enlarged_frames_come_back_as_they_were():
    ids = np.zeros((30, 50), np.uint8)
    ids[5:20, 8:30], ids[12:28, 25:44] = 1, 2
    masks = jnp.stack([jnp.asarray(ids == i, jnp.float32) for i in range(3)])
    geometry = Geometry.of((30, 50), 60, enlarge=2.0)
    inner = geometry.prepare_masks(masks)
    assert inner.shape == (3, 64, 112)
    back = geometry.restore(inner[None])[0]
    assert back.shape == (3, 30, 50)
    assert (np.asarray(back.argmax(0)) == ids).all()


def test_a_factor_below_one_is_refused():
    for bad in (0.5, float("inf"), float("nan")):
        with pytest.raises(RdejaxError, match="enlarge"):
            Settings(enlarge=bad)
    assert Settings().override(enlarge=2.0).enlarge == 2.0
    older = {k: v for k, v in Settings().as_dict().items() if k != "enlarge"}
    assert Settings.from_dict(older) == Settings()
