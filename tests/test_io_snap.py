"""Masks as people paint them: soft edges, JPEG, white paper."""

import numpy as np
import pytest
from io_helpers import write_folder
from PIL import Image, ImageDraw

from rdejax.errors import RdejaxError
from rdejax.io.given import MaskReader, collect_masks, load_given_masks
from rdejax.io.snap import snap
from rdejax.io.video import open_frames

SIZE = (90, 160)
RED, BLUE, GREEN = (255, 0, 0), (0, 0, 255), (0, 255, 0)
SHAPES = ((RED, (20, 15, 60, 55)), (BLUE, (50, 30, 100, 75)), (GREEN, (110, 20, 140, 60)))


def painted(background=(0, 0, 0), shapes=SHAPES, mode="RGB", smooth=4):
    """Ellipses drawn larger and reduced, so that their edges are soft; 1: hard edges."""
    picture = Image.new(mode, (SIZE[1] * smooth, SIZE[0] * smooth), background)
    draw = ImageDraw.Draw(picture)
    for colour, box in shapes:
        draw.ellipse([smooth * side for side in box], fill=colour)
    return picture.resize((SIZE[1], SIZE[0]), Image.Resampling.BILINEAR)


def regions(mask):
    return {index: int((mask == index).sum()) for index in np.unique(mask).tolist()}


@pytest.mark.parametrize(
    ("name", "options"),
    [("soft.png", {}), ("m.jpg", {"quality": 90}), ("m.jpg", {"quality": 50}), ("m.webp", {})],
)
def test_painted_masks_are_refused_with_the_cure_and_snapped_to_what_was_meant(
    tmp_path, name, options
):
    painted().save(tmp_path / name, **options)
    with pytest.raises(RdejaxError, match=rf"{name}.*--snap-mask"):
        MaskReader().read(tmp_path / name)
    given = collect_masks({0: tmp_path / name}, SIZE, snap=True)
    assert sorted(given.colours.values()) == sorted((RED, BLUE, GREEN))
    hard = np.asarray(painted(smooth=1))
    for index, colour in given.colours.items():
        meant, got = (hard == colour).all(-1), given.masks[0] == index
        assert (meant & got).sum() / (meant | got).sum() > 0.93, colour
    assert any("snapped to 4 true colours: black (" in note for note in given.notes)
    assert any("#ff0000 is object" in note for note in given.notes)


def test_an_edge_does_not_become_a_third_object(tmp_path):
    """Between white and black lie greys, of which one is an object elsewhere."""
    grey = (128, 128, 128)
    picture = painted(shapes=((grey, (10, 10, 40, 40)), ((255, 255, 255), (80, 20, 140, 70))))
    result = snap(np.asarray(picture), "m.png")
    assert result.colours == ((0, 0, 0), (255, 255, 255), grey)
    where = np.argwhere((result.image == 128).all(-1))
    assert where[:, 1].max() <= 41


def test_a_grey_picture_of_one_object_stays_one_object(tmp_path):
    painted(0, [(255, (20, 15, 60, 55))], "L").save(tmp_path / "m.jpg", quality=40)
    assert set(regions(MaskReader(snap=True).read(tmp_path / "m.jpg"))) == {0, 1}


def test_palette_masks_are_left_as_they_are(tmp_path):
    ids = np.zeros(SIZE, np.uint8)
    ids[10:12, 10:80], ids[40, 40] = 3, 9
    image = Image.fromarray(ids)
    image.putpalette(bytes(range(256)) * 3)
    image.save(tmp_path / "m.png")
    reader = MaskReader(snap=True)
    np.testing.assert_array_equal(reader.read(tmp_path / "m.png"), ids)
    assert not reader.remarks


def test_a_photograph_is_no_mask_even_so(tmp_path):
    noise = np.random.default_rng(0).integers(0, 255, (*SIZE, 3)).astype(np.uint8)
    Image.fromarray(noise).save(tmp_path / "photo.png")
    with pytest.raises(RdejaxError, match=r"photo\.png: no few true colours"):
        MaskReader(snap=True).read(tmp_path / "photo.png")
    with pytest.raises(RdejaxError, match="photo") as caught:
        MaskReader().read(tmp_path / "photo.png")
    assert "--max-objects" not in str(caught.value)  # of thousands of objects


def test_red_on_white_is_one_object_and_says_so(tmp_path):
    painted((255, 255, 255), SHAPES[:1], smooth=1).save(tmp_path / "m.png")
    given = collect_masks({0: tmp_path / "m.png"}, SIZE)
    assert given.colours == {1: RED}
    assert any("white was taken for the background" in note for note in given.notes)
    both = collect_masks({0: tmp_path / "m.png"}, SIZE, background="black")
    assert len(both.objects) == 2 and not both.notes


def test_black_on_white_says_what_was_taken_and_can_be_turned_round(tmp_path):
    painted(255, [(0, (20, 15, 60, 55))], "L", smooth=1).save(tmp_path / "m.png")
    given = collect_masks({0: tmp_path / "m.png"}, SIZE)
    assert any("black was taken for the background and white" in note for note in given.notes)
    turned = collect_masks({0: tmp_path / "m.png"}, SIZE, background="white")
    np.testing.assert_array_equal(turned.masks[0] == 1, given.masks[0] == 0)
    assert not turned.notes


def test_white_on_black_and_palettes_need_no_word(tmp_path):
    painted(0, [(255, (20, 15, 60, 55))], "L", smooth=1).save(tmp_path / "m.png")
    assert not collect_masks({0: tmp_path / "m.png"}, SIZE).notes


def test_later_masks_that_are_not_used_are_told(tmp_path):
    frames = open_frames(write_folder(tmp_path / "f", np.zeros((3, *SIZE, 3), np.uint8)))
    for name in ("00000", "00002"):
        (tmp_path / "m").mkdir(exist_ok=True)
        painted(0, [(255, (20, 15, 60, 55))], "L", smooth=1).save(tmp_path / "m" / f"{name}.png")
    given = load_given_masks(tmp_path / "m", frames)
    assert list(given.masks) == [0] and any("--use-all-masks" in note for note in given.notes)
    used = load_given_masks(tmp_path / "m", frames, all_masks=True)
    assert list(used.masks) == [0, 2] and not used.notes and used.objects == {1: 0}
    last = load_given_masks(tmp_path / "m", frames, last_first=True)
    assert list(last.masks) == [2] and last.objects == {1: 2}
