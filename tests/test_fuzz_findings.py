"""What benchmarks/fuzz.py has found: each was a traceback, or another content without a word."""

from pathlib import Path

import numpy as np
import pytest

from rdejax.convert import load_state_dict
from rdejax.errors import RdejaxError
from rdejax.io.given import MaskReader
from rdejax.io.masks import AS_WRITTEN, STATIC_IMAGE, read_mask
from rdejax.io.video import open_frames, read_image
from rdejax.models.registry import find_system
from rdejax.models.weights import StoredModel

FILES = Path(__file__).parent / "data" / "fuzz"


@pytest.mark.parametrize(
    ("name", "read"),
    [
        ("mask_other_pixels.png", lambda path: read_mask(path, AS_WRITTEN)),
        ("mask_other_pixels.png", lambda path: read_mask(path.read_bytes(), STATIC_IMAGE, "x")),
        ("mask_other_pixels.png", lambda path: MaskReader().read(path)),
        ("frame_other_pixels.png", read_image),
        ("place_before_the_file.pth", load_state_dict),
    ],
)
def test_damaged_files_are_refused(name, read) -> None:
    assert (FILES / name).is_file()
    with pytest.raises(RdejaxError) as caught:
        read(FILES / name)
    assert "\n" not in str(caught.value)


def test_titles_of_videos_may_be_in_any_encoding() -> None:
    frames = [frame for _, frame in open_frames(FILES / "title_no_text.mp4")]
    assert len(frames) == 6 and np.shape(frames[0]) == (48, 64, 3)


@pytest.mark.parametrize(
    ("system", "config"),
    [
        ("rde-lite", {"key_channels": None}),
        ("rde-lite", {"value_channels": -1}),
        ("rde-lite", {"decoder_widths": []}),
        ("rde-lite", {"decoder_widths": [8, 8, 1.5]}),
        ("rde-lite", {"key_channels": 10**12}),
        ("rde-lite", {"key_channels": True}),
        ("stcn", {"key_depth": {"a": 1}}),
        ("stcn", {"key_depth": 34}),
        ("stcn", {"single_object": 1}),
    ],
)
def test_sizes_in_files_are_of_their_kind(system, config) -> None:
    settings = find_system(system).default_settings
    with pytest.raises(RdejaxError, match="size|depth"):
        StoredModel(system, config, settings, {}, "a file").build()
