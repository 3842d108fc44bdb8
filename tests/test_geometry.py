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


@pytest.mark.parametrize(
    ("source", "side", "most", "inner"),
    [
        ((480, 854), 160, 1.5, (480, 854)),  # ten positions of the grid a side: large enough
        ((480, 854), 108, 1.5, (640, 1139)),  # 6.75 of 9: a third larger
        ((480, 854), 40, 1.5, (720, 1281)),  # never more than the setting says
        ((480, 854), 40, 1.0, (480, 854)),
        ((960, 1708), 216, 1.5, (640, 1139)),  # counted where the network sees it
        ((240, 427), 20, 1.5, (480, 854)),  # at most `enlarge` times as large as the video
    ],
)
def test_small_objects_make_frames_larger(source, side, most, inner):
    geometry = Geometry.of(source, 480, enlarge=2.0)
    zoom = geometry.zoom_for(side**2, most)
    assert Geometry.of(source, 480, enlarge=2.0, zoom=zoom).inner == inner


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
    for bad in (0.5, 9, float("nan")):
        with pytest.raises(RdejaxError, match="zoom"):
            Settings(zoom=bad)
    older = {k: v for k, v in Settings().as_dict().items() if k not in ("enlarge", "zoom")}
    assert Settings.from_dict(older) == Settings()
