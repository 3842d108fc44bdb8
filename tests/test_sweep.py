"""Sweeping a rule's settings in one run equals running them one by one."""

import numpy as np
import pytest

import rdejax
from rdejax.errors import RdejaxError
from rdejax.models import create

SIZES = {"key_channels": 16, "value_channels": 32, "decoder_widths": (16, 16, 16)}


@pytest.fixture(scope="module")
def video():
    rng = np.random.default_rng(0)
    frames = rng.integers(0, 255, (6, 40, 56, 3), np.uint8)
    mask = np.zeros((40, 56), np.uint8)
    mask[8:24, 8:24], mask[24:40, 32:56] = 3, 7
    return frames, mask


def model(**settings):
    return create("rde-lite", config=SIZES, memory="swem", bases=8, top_l=4, size=None, **settings)


def test_equals_one_by_one(video) -> None:
    taus = (0.02, 0.05, 0.5)
    together = rdejax.sweep_settings(model(every=2), *video, tau=taus)
    assert together.shape == (3, 6, 40, 56) and together.dtype == np.uint8
    assert set(np.unique(together)) <= {0, 3, 7}
    for tau, mine in zip(taus, together, strict=True):
        alone = rdejax.segment_video(model(every=2, tau=tau), *video)
        assert (mine != alone).mean() < 2e-3  # untrained weights: many pixels are near ties
    assert (together[0] != together[2]).mean() > 0


def test_one_sweep_after_another(video) -> None:
    frames, mask = video
    swept = model(every=2)
    three = rdejax.sweep_settings(swept, frames, mask, tau=(0.02, 0.05, 0.5))
    two = rdejax.sweep_settings(swept, frames, mask, tau=(0.02, 0.05))
    assert two.shape == (2, 6, 40, 56) and (two != three[:2]).mean() < 2e-3


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"bases": (4, 8)}, "setting 'bases' of memory 'swem' cannot be swept over.*tau can"),
        ({"nonsense": (1.0,)}, "setting 'nonsense'"),
        ({"tau": ()}, "numbers of values"),
        ({}, "numbers of values"),
        ({"tau": (0.1, -1.0)}, "tau=-1.0: give a positive temperature"),
    ],
)
def test_wrong_settings(video, values, sentence) -> None:
    with pytest.raises(RdejaxError, match=sentence):
        rdejax.sweep_settings(model(), *video, **values)


def test_a_mask_without_objects_and_one_of_another_size(video) -> None:
    frames, mask = video
    with pytest.raises(RdejaxError, match="no object in the mask"):
        rdejax.sweep_settings(model(), frames, np.zeros_like(mask), tau=(0.1,))
    with pytest.raises(RdejaxError, match="the mask of frame 0 is 56x39, the video 56x40"):
        rdejax.sweep_settings(model(), frames, mask[1:], tau=(0.1,))
