"""Masks in and out."""

import numpy as np
import pytest
from io_helpers import moving_frames, read_ids, square_mask, write_folder, write_mask_image
from PIL import Image, ImageDraw

from rdejax.errors import BadFile, RdejaxError
from rdejax.io.given import MaskReader, collect_masks, load_given_masks
from rdejax.io.masks import (
    AS_WRITTEN,
    BENCHMARK,
    PAINTING,
    STATIC_IMAGE,
    VIDEO_FRAME,
    merged,
    read_mask,
    write_mask,
)
from rdejax.io.palette import davis_colour_ids, davis_palette
from rdejax.io.video import open_frames


def _ids(path):
    return set(np.unique(MaskReader().read(path)).tolist())


def _ramp(ids, size=(40, 60)):
    mask = np.zeros(size, np.uint8)
    for row, part in enumerate(np.array_split(np.asarray(ids, np.uint8), 5)):
        for column, index in enumerate(part):
            mask[row * 8 + 1 : row * 8 + 6, column * 5 + 1 : column * 5 + 5] = index
    return mask


def test_palette_is_that_of_davis():
    palette = davis_palette()
    assert palette.shape == (256, 3)
    known = {0: (0, 0, 0), 1: (128, 0, 0), 2: (0, 128, 0), 4: (0, 0, 128), 8: (64, 0, 0)}
    known |= {9: (192, 0, 0), 21: (128, 64, 128), 22: (0, 192, 128), 255: (224, 224, 192)}
    for index, colour in known.items():
        assert tuple(palette[index]) == colour
    assert len({tuple(colour) for colour in palette.tolist()}) == 256


@pytest.mark.parametrize("ids", [[1], [3, 7, 21, 22, 44], [1, 255], [255], list(range(1, 51))])
def test_palette_png_round_trip_keeps_ids(tmp_path, ids):
    mask = _ramp(ids)
    write_mask(tmp_path / "m.png", mask)
    np.testing.assert_array_equal(read_ids(tmp_path / "m.png"), mask)
    np.testing.assert_array_equal(MaskReader().read(tmp_path / "m.png"), mask)
    with Image.open(tmp_path / "m.png") as image:
        assert image.getpalette()[: 3 * 256] == davis_palette().ravel().tolist()
    assert [path.name for path in tmp_path.iterdir()] == ["m.png"]


def test_failed_write_leaves_nothing(tmp_path, monkeypatch):
    def full(self, path, **kwargs):
        open(path, "wb").write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", full)
    with pytest.raises(OSError, match="No space left") as caught:
        write_mask(tmp_path / "m.png", square_mask())
    assert caught.value.filename == str(tmp_path / "m.png")
    assert list(tmp_path.iterdir()) == []


def test_greyscale_values_are_ids_and_black_and_white_is_one_object(tmp_path):
    Image.fromarray(_ramp([1, 5, 9])).save(tmp_path / "ids.png")
    assert _ids(tmp_path / "ids.png") == {0, 1, 5, 9}
    Image.fromarray(square_mask(ids=(255,))).save(tmp_path / "bw.png")
    assert _ids(tmp_path / "bw.png") == {0, 1}
    Image.fromarray(square_mask(ids=(1,)) > 0).save(tmp_path / "bit.png")
    with Image.open(tmp_path / "bit.png") as image:
        assert image.mode == "1"
    assert _ids(tmp_path / "bit.png") == {0, 1}
    Image.fromarray(np.repeat(_ramp([1, 2])[..., None], 3, 2)).save(tmp_path / "grey-rgb.png")
    assert _ids(tmp_path / "grey-rgb.png") == {0, 1, 2}


def test_16_bit_greyscale(tmp_path):
    Image.fromarray(_ramp([1, 2]).astype(np.uint16)).save(tmp_path / "ids.png")
    assert _ids(tmp_path / "ids.png") == {0, 1, 2}
    Image.fromarray((square_mask() > 0).astype(np.uint16) * 65535).save(tmp_path / "bw.png")
    assert _ids(tmp_path / "bw.png") == {0, 1}
    Image.fromarray(_ramp([1, 2]).astype(np.uint16) * 300).save(tmp_path / "big.png")
    with pytest.raises(RdejaxError, match="id 600; ids must be 1 to 255"):
        MaskReader().read(tmp_path / "big.png")


def test_low_bit_depth_greyscale_png_is_not_stretched(tmp_path):
    import struct
    import zlib

    def chunk(kind, data):
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    # 8x4 pixels of 4 bits: rows of ids 0, 1, 2, 3.
    rows = b"".join(b"\0" + bytes([index * 17] * 4) for index in range(4))
    (tmp_path / "m.png").write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", struct.pack(">IIBBBBB", 8, 4, 4, 0, 0, 0, 0))
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )
    mask = MaskReader().read(tmp_path / "m.png")
    np.testing.assert_array_equal(mask[:, 0], [0, 1, 2, 3])


def _colour_mask(path, colours, size=(36, 52)):
    image = np.zeros((*size, 3), np.uint8)
    for number, colour in enumerate(colours):
        image[4:14, 2 + 12 * number : 12 + 12 * number] = colour
    Image.fromarray(image).save(path)
    return path


def test_davis_colours_get_their_ids(tmp_path):
    path = _colour_mask(tmp_path / "m.png", [(0, 128, 0), (128, 0, 0), (191, 0, 0)])
    mask = MaskReader().read(path)
    assert [mask[5, 5], mask[5, 17], mask[5, 29]] == [2, 1, 9]
    assert davis_colour_ids()[192, 0, 0] == 9


def test_other_colours_are_numbered_in_sorted_order_and_remembered(tmp_path):
    first = _colour_mask(tmp_path / "0.png", [(255, 0, 0), (0, 0, 255)])
    second = _colour_mask(tmp_path / "1.png", [(0, 255, 0), (255, 0, 0)])
    reader = MaskReader()
    mask = reader.read(first)
    assert [mask[5, 5], mask[5, 17]] == [2, 1]
    mask = reader.read(second)
    assert [mask[5, 5], mask[5, 17]] == [3, 2]
    assert reader.colours == {1: (0, 0, 255), 2: (255, 0, 0), 3: (0, 255, 0)}
    # A DAVIS colour whose id is taken already gets a free one.
    mask = reader.read(_colour_mask(tmp_path / "2.png", [(128, 0, 0)]))
    assert mask[5, 5] == 4


def test_transparent_pixels_are_background(tmp_path):
    image = np.zeros((20, 20, 4), np.uint8)
    image[..., :3] = (10, 200, 30)
    image[5:15, 5:15, 3] = 255
    Image.fromarray(image).save(tmp_path / "m.png")
    mask = MaskReader().read(tmp_path / "m.png")
    assert mask.sum() == 100 and mask[7, 7] == 1
    image[..., :3] = 255
    Image.fromarray(image).convert("LA").save(tmp_path / "la.png")
    assert _ids(tmp_path / "la.png") == {0, 1}


def _smooth(mode, colour, path, **kwargs):
    big = Image.new(mode, (400, 300))
    ImageDraw.Draw(big).ellipse((80, 60, 320, 240), fill=colour)
    big.resize((100, 75), Image.Resampling.BILINEAR).save(path, **kwargs)
    return path


@pytest.mark.parametrize(
    ("mode", "colour", "name", "kwargs"),
    [
        ("L", 255, "smooth.png", {}),
        ("RGB", (200, 10, 10), "smooth.png", {}),
        ("L", 255, "lossy.jpg", {"quality": 90}),
        ("L", 255, "lossy.jpg", {"quality": 30}),
        ("RGB", (255, 0, 0), "lossy.jpg", {"quality": 95}),
    ],
)
def test_smoothed_and_lossy_masks_are_refused(tmp_path, mode, colour, name, kwargs):
    path = _smooth(mode, colour, tmp_path / name, **kwargs)
    with pytest.raises(RdejaxError, match=rf"{name}.*smoothed or JPEG-compressed") as caught:
        MaskReader().read(path)
    assert "PNG" in str(caught.value)


def test_photograph_instead_of_a_mask_is_refused(tmp_path):
    photo = np.random.default_rng(0).integers(0, 255, (60, 60, 3), np.uint8)
    Image.fromarray(photo).save(tmp_path / "photo.png")
    with pytest.raises(RdejaxError, match=r"photo\.png: the mask holds \d+ different ids"):
        MaskReader().read(tmp_path / "photo.png")


def test_many_small_and_thin_objects_are_no_smoothing(tmp_path):
    mask = np.zeros((60, 60), np.uint8)
    for index in range(1, 40):
        row, column = divmod(index, 8)
        mask[row * 10 : row * 10 + 2, column * 7 : column * 7 + 3] = index
    Image.fromarray(mask).save(tmp_path / "m.png")
    assert len(_ids(tmp_path / "m.png")) == 40
    # An object with a thin border of "void" around it, as VOC has it.
    mask = np.zeros((60, 60), np.uint8)
    mask[10:40, 10:40] = 255
    mask[11:39, 11:39] = 1
    Image.fromarray(mask).save(tmp_path / "void.png")
    assert _ids(tmp_path / "void.png") == {0, 1, 255}


def test_more_objects_than_allowed(tmp_path):
    path = write_mask_image(tmp_path / "m.png", _ramp(range(1, 13)))
    with pytest.raises(RdejaxError, match=r"m\.png: the mask holds 12 .*--max-objects 12"):
        MaskReader(max_objects=11).read(path)
    assert len(np.unique(MaskReader(max_objects=12).read(path))) == 13


def test_more_objects_than_allowed_over_several_masks(tmp_path):
    files = {
        t: write_mask_image(tmp_path / f"{t}.png", square_mask(ids=ids))
        for t, ids in enumerate([(1, 2), (2, 3)])
    }
    with pytest.raises(RdejaxError, match=r"1\.png: .*3 objects.*--max-objects 3"):
        collect_masks(files, (36, 52), max_objects=2)


@pytest.mark.parametrize("content", [b"", b"text", b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR"])
def test_unreadable_mask_is_refused_by_name(tmp_path, content):
    (tmp_path / "m.png").write_bytes(content)
    with pytest.raises(RdejaxError, match=r"m\.png: unreadable or truncated mask"):
        MaskReader().read(tmp_path / "m.png")


def test_truncated_mask_is_refused_by_name(tmp_path):
    path = write_mask_image(tmp_path / "m.png", _ramp(range(1, 40)))
    path.write_bytes(path.read_bytes()[:-60])
    with pytest.raises(RdejaxError, match=r"m\.png: unreadable or truncated mask"):
        MaskReader().read(path)


def test_cmyk_cannot_be_a_mask(tmp_path):
    Image.new("CMYK", (20, 20), (0, 200, 0, 0)).save(tmp_path / "m.jpg")
    with pytest.raises(RdejaxError, match="CMYK"):
        MaskReader().read(tmp_path / "m.jpg")


def _source(tmp_path, names=None, count=4):
    return open_frames(write_folder(tmp_path / "frames", moving_frames(count), names=names))


def test_mask_of_another_size(tmp_path):
    source = _source(tmp_path)
    path = write_mask_image(tmp_path / "m.png", square_mask((52, 36)))
    with pytest.raises(RdejaxError, match=r"m\.png: the mask is 36x52 but the video is 52x36"):
        load_given_masks(path, source)


def test_mask_that_misses_the_size_by_rounding_is_stretched(tmp_path):
    mask = square_mask((480, 853), ids=(1, 2))
    path = write_mask_image(tmp_path / "m.png", mask)
    given = collect_masks({0: path}, (480, 854))
    assert given.masks[0].shape == (480, 854)
    np.testing.assert_array_equal(given.masks[0][:, :426], mask[:, :426])
    np.testing.assert_array_equal(given.masks[0][:, -426:], mask[:, -426:])
    assert "miss the size 854x480" in given.notes[0]
    # In a small video a pixel is no rounding any more.
    path = write_mask_image(tmp_path / "small.png", square_mask((36, 51)))
    with pytest.raises(RdejaxError, match=r"small\.png: the mask is 51x36"):
        collect_masks({0: path}, (36, 52))


def test_mask_without_object(tmp_path):
    source = _source(tmp_path)
    path = write_mask_image(tmp_path / "m.png", np.zeros((36, 52), np.uint8))
    with pytest.raises(RdejaxError, match=r"m\.png: the mask holds no object"):
        load_given_masks(path, source)
    folder = write_mask_image(tmp_path / "masks" / "1.png", np.zeros((36, 52), np.uint8)).parent
    with pytest.raises(RdejaxError, match=r"1\.png: the mask holds no object"):
        load_given_masks(folder, source)


def test_missing_mask(tmp_path):
    with pytest.raises(RdejaxError, match=r"m\.png: no such mask"):
        load_given_masks(tmp_path / "m.png", _source(tmp_path))
    (tmp_path / "masks").mkdir()
    with pytest.raises(RdejaxError, match="no masks"):
        load_given_masks(tmp_path / "masks", _source(tmp_path))


def test_masks_of_a_folder_are_matched_by_name_or_number(tmp_path):
    source = _source(tmp_path)
    write_mask_image(tmp_path / "masks" / "0.png", square_mask(ids=(1,)))
    write_mask_image(tmp_path / "masks" / "00002.png", square_mask(ids=(1, 2)))
    write_mask_image(tmp_path / "masks" / "3.png", np.zeros((36, 52), np.uint8))
    given = load_given_masks(tmp_path / "masks", source)
    assert given.objects == {1: 0, 2: 2}
    # Each id is taken from its first mask only.
    assert {t: set(np.unique(m)) - {0} for t, m in given.masks.items()} == {0: {1}, 2: {2}}
    assert "1 of 3 masks hold no object" in given.notes[0]


def test_names_without_numbers(tmp_path):
    source = _source(tmp_path, names=["a1", "a2", "a10", "b"])
    write_mask_image(tmp_path / "masks" / "a10.png", square_mask())
    assert load_given_masks(tmp_path / "masks", source).objects == {1: 2}


def test_mask_of_no_frame(tmp_path):
    source = _source(tmp_path)
    write_mask_image(tmp_path / "masks" / "00000.png", square_mask())
    stray = write_mask_image(tmp_path / "masks" / "7.png", square_mask())
    with pytest.raises(RdejaxError, match=r"7\.png: no frame of this name.*00000 to 00003"):
        load_given_masks(tmp_path / "masks", source)
    stray.rename(tmp_path / "masks" / "0.png")
    with pytest.raises(RdejaxError, match="two masks"):
        load_given_masks(tmp_path / "masks", source)


def test_single_mask_is_the_first_frames_and_says_so(tmp_path):
    source = _source(tmp_path)
    path = write_mask_image(tmp_path / "00002.png", square_mask(ids=(4,)))
    given = load_given_masks(path, source)
    assert given.objects == {4: 0}
    assert "first frame (00000)" in given.notes[0]


def test_merging_and_void(tmp_path):
    files = {0: write_mask_image(tmp_path / "m.png", square_mask(ids=(3, 7, 255)))}
    assert collect_masks(files, (36, 52), merge_objects=True).objects == {1: 0}
    assert collect_masks(files, (36, 52), drop_void=True).objects == {3: 0, 7: 0}
    files[1] = write_mask_image(tmp_path / "n.png", square_mask(ids=(255,)))
    assert collect_masks(files, (36, 52), drop_void=True).objects == {3: 0, 7: 0}
    assert collect_masks({0: files[1]}, (36, 52), drop_void=True).objects == {1: 0}


def _saved(path, values, mode=None):
    image = Image.fromarray(np.array([values], np.uint16 if mode == "I" else np.uint8))
    if mode == "P":
        image.putpalette(davis_palette().tobytes())
    elif mode not in (None, "I"):
        image = image.convert(mode)
    image.save(path)
    return path


@pytest.mark.parametrize(
    ("rules", "mode", "values", "ids"),
    [
        # Benchmarks: what lies in the file, void included.
        (BENCHMARK, "P", [0, 2, 255], [0, 2, 255]),
        (BENCHMARK, None, [0, 255, 255], [0, 255, 255]),
        (BENCHMARK, "1", [0, 255, 255], [0, 1, 1]),
        (BENCHMARK, "I", [0, 3, 200], [0, 3, 200]),
        (merged(BENCHMARK), "P", [0, 2, 255], [0, 1, 1]),
        (merged(BENCHMARK), "RGB", [0, 2, 255], [0, 1, 1]),
        # Frames of training videos: void is settled later, over all frames.
        (VIDEO_FRAME, "P", [0, 2, 255], [0, 2, 255]),
        (VIDEO_FRAME, "RGB", [0, 2, 7], [0, 2, 7]),
        (VIDEO_FRAME, "I", [0, 65535, 0], [0, 1, 0]),
        # Static images: one object, whatever its value; soft edges only where values are grey.
        (STATIC_IMAGE, "P", [0, 5, 5], [0, 1, 1]),
        (STATIC_IMAGE, "P", [0, 255, 255], [0, 1, 1]),
        (STATIC_IMAGE, "P", [0, 2, 3, 255], [0, 2, 3, 0]),
        (STATIC_IMAGE, None, [0, 100, 200, 255], [0, 0, 1, 1]),
        (STATIC_IMAGE, None, [0, 2, 3], [0, 2, 3]),
        # Pictures for people.
        (PAINTING, "P", [0, 2, 255], [0, 2, 0]),
        (PAINTING, None, [0, 255, 255], [0, 1, 1]),
        (AS_WRITTEN, "P", [0, 2, 255], [0, 2, 255]),
    ],
)
def test_which_pixels_become_which_id(tmp_path, rules, mode, values, ids):
    path = _saved(tmp_path / "m.png", values, mode)
    mask = read_mask(path, rules)
    assert mask.dtype == np.uint8 and mask.tolist() == [ids]
    assert read_mask(path.read_bytes(), rules, "bytes").tolist() == [ids]


@pytest.mark.parametrize(
    ("rules", "mode", "values", "problem"),
    [
        (BENCHMARK, "RGB", [0, 2, 2], "mask in colours"),
        (AS_WRITTEN, "RGB", [0, 2, 2], "mask in colours"),
        (VIDEO_FRAME, "I", [0, 300, 2], "ids above 255"),
        (VIDEO_FRAME, None, [0, 140, 255], "smoothed mask"),
        (PAINTING, "CMYK", [0, 2, 2], "mask in colours"),
    ],
)
def test_masks_that_the_rules_refuse(tmp_path, rules, mode, values, problem):
    path = _saved(tmp_path / ("m.tif" if mode == "CMYK" else "m.png"), values, mode)
    with pytest.raises(BadFile, match=r"m\.(png|tif): ") as caught:
        read_mask(path, rules)
    assert caught.value.problem == problem


@pytest.mark.parametrize("name", ["m.jpg", "m.webp"])
@pytest.mark.parametrize("ids", [(1, 2), (1,), (40, 200)])
def test_lossy_masks_grow_no_objects(tmp_path, name, ids):
    pixels = np.zeros((64, 64), np.uint8)
    for number, index in enumerate(ids):
        pixels[8:40, 8 + 24 * number : 30 + 24 * number] = index
    Image.fromarray(pixels).convert("RGB" if name.endswith("webp") else "L").save(tmp_path / name)
    for read in (MaskReader().read, lambda path: read_mask(path, BENCHMARK)):
        with pytest.raises(RdejaxError, match=rf"{name}.*only black and white.*as PNG"):
            read(tmp_path / name)


def test_black_and_white_and_lossless_files_of_lossy_kinds_are_taken(tmp_path):
    pixels = np.zeros((64, 64), np.uint8)
    pixels[16:32, 16:48] = 255
    Image.fromarray(pixels).save(tmp_path / "m.jpg", quality=100)
    assert set(np.unique(MaskReader().read(tmp_path / "m.jpg")).tolist()) == {0, 1}
    pixels[16:32, 16:32] = 7
    Image.fromarray(pixels).convert("RGB").save(tmp_path / "m.webp", lossless=True)
    assert set(np.unique(MaskReader().read(tmp_path / "m.webp")).tolist()) == {0, 7, 255}


@pytest.mark.parametrize("suffix", [".png", ".gif", ".tif"])
def test_an_animation_is_no_mask(tmp_path, suffix):
    """The first of its pictures would be taken without a word."""
    path = tmp_path / f"m{suffix}"
    pictures = [Image.fromarray(np.full((4, 5), value, np.uint8)) for value in (1, 2)]
    pictures[0].save(path)
    read_mask(path, AS_WRITTEN)
    pictures[0].save(path, save_all=True, append_images=pictures[1:])
    with pytest.raises(RdejaxError, match="holds 2 pictures; save the one that is meant"):
        read_mask(path, AS_WRITTEN)
