"""Sources of training data: layouts of images and videos, meaning of masks, specifications."""

import logging
import pickle
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from rdejax.data.sources.decoding import read_rgb
from rdejax.data.sources.image_pairs import find_pairs
from rdejax.data.sources.images import StaticFolder
from rdejax.data.sources.spec import open_source, parse
from rdejax.data.sources.video_layouts import find_videos
from rdejax.data.sources.videos import VideoFolder, VideoSource
from rdejax.errors import BadFile, RdejaxError
from rdejax.io.masks import VIDEO_FRAME, read_mask
from rdejax.io.palette import davis_palette

H, W = 20, 30


def save(path: Path, pixels: np.ndarray, mode: str | None = None) -> Path:
    """Writes an image; mode "P" with the DAVIS palette."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(pixels)
    if mode == "P":
        image.putpalette(davis_palette().tobytes())
    image.save(path)
    return path


def colour(value: int) -> np.ndarray:
    return np.full((H, W, 3), value, np.uint8)


def mask(*values: int) -> np.ndarray:
    """Background with a column of each value."""
    ids = np.zeros((H, W), np.uint8)
    for i, value in enumerate(values):
        ids[:, 3 * i + 1 : 3 * i + 3] = value
    return ids


def video(
    root: Path, name: str, masks: dict[int, np.ndarray], frames: int, mode="P", sub=""
) -> None:
    for i in range(frames):
        save(root / "JPEGImages" / sub / name / f"{i:05d}.jpg", colour(10 * i))
    for i, ids in masks.items():
        save(root / "Annotations" / sub / name / f"{i:05d}.png", ids, mode)


def write_list(path: Path, *names: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(names) + "\n")


@pytest.fixture
def davis(tmp_path):
    root = tmp_path / "DAVIS"
    for name in ("bear", "dog", "swan"):
        video(root, name, {i: mask(1, 2) for i in range(3)}, 3, sub="480p")
    write_list(root / "ImageSets/2017/train.txt", "swan", "bear")
    write_list(root / "ImageSets/2017/val.txt", "dog")
    write_list(root / "ImageSets/2016/train.txt", "dog", "bear")
    return root


# Static images


@pytest.mark.parametrize(
    "image, mask_name",
    [
        ("images/{}.jpg", "masks/{}.png"),
        ("Imgs/{}.jpg", "GT/{}.png"),
        ("im/{}.jpg", "gt/{}.png"),
        ("images/{}.jpg", "ground_truth_mask/{}.png"),
        ("DUTS-TR-Image/{}.jpg", "DUTS-TR-Mask/{}.png"),
        ("HRSOD_train/{}.jpg", "HRSOD_train_mask/{}.png"),
        ("images_train/{}.jpg", "masks_train/{}.png"),
        ("JPEGImages/{}.jpg", "SegmentationObject/{}.png"),
        ("JPEGImages/{}.jpg", "Annotations/{}.png"),
        ("images/deep/er/{}.png", "masks/deep/er/{}.png"),
        ("{}.jpg", "{}.png"),
        ("{}_im.jpg", "{}_gt.png"),
        ("{}.png", "{}_mask.png"),
        ("fewshot/class/{}.jpg", "fewshot/class/{}.png"),
    ],
)
def test_layouts_of_static_images(tmp_path, image, mask_name):
    for i in range(3):
        save(tmp_path / image.format(i), colour(80 * i))
        save(tmp_path / mask_name.format(i), mask(i + 1))
    save(tmp_path / image.format("lonely"), colour(0))
    found = find_pairs(tmp_path)
    assert [p.name for p in found.bare_images] == [Path(image.format("lonely")).name]
    source = open_source(str(tmp_path))
    assert isinstance(source, StaticFolder) and len(source) == 3
    for i in range(3):
        assert abs(int(source[i][0][0, 0, 0]) - 80 * i) < 5
        assert (source[i][1] == (mask(1) > 0)).all()


def test_instances_come_before_classes(tmp_path):
    save(tmp_path / "JPEGImages/a.jpg", colour(0))
    save(tmp_path / "SegmentationClass/a.png", mask(9, 9), "P")
    save(tmp_path / "SegmentationObject/a.png", mask(1, 2, 255), "P")
    assert set(np.unique(StaticFolder(tmp_path)[0][1])) == {0, 1, 2}


def test_several_pairs_of_folders_must_be_chosen_from(tmp_path):
    for part, count in (("TR", 1), ("TE", 2)):
        for i in range(count):
            save(tmp_path / f"DUTS-{part}-Image/{i}.jpg", colour(0))
            save(tmp_path / f"DUTS-{part}-Mask/{i}.png", mask(1))
    with pytest.raises(RdejaxError, match="several pairs of folders .duts-te, duts-tr."):
        StaticFolder(tmp_path)
    assert len(open_source(f"static:{tmp_path}@DUTS-TR")) == 1
    assert len(open_source(f"{tmp_path}@duts-te")) == 2
    with pytest.raises(RdejaxError, match="holds no folder 'dev'"):
        open_source(f"static:{tmp_path}@dev")


def test_split_may_be_a_folder(tmp_path):
    for part in ("train", "test"):
        save(tmp_path / part / "im/a.jpg", colour(0))
        save(tmp_path / part / "gt/a.png", mask(1))
    source = open_source(f"static:{tmp_path}@train")
    assert isinstance(source, StaticFolder) and "train" in str(source.pairs[0][0])


def test_sixteen_bit_masks(tmp_path):
    save(tmp_path / "images/a.png", colour(0))
    save(tmp_path / "masks/a.png", (mask(255) > 0).astype(np.uint16) * 65535)
    assert (StaticFolder(tmp_path)[0][1] == mask(1)).all()


# Videos


def test_davis(davis):
    source = VideoFolder(find_videos("davis2017", davis))
    assert isinstance(source, VideoSource) and (source.spacing, source.repeat) == (1, 5)
    assert [source.name(i) for i in range(len(source))] == ["swan", "bear"]
    assert source.length(0) == 3
    image, ids = source.read(1, 2)
    assert image.dtype == ids.dtype == np.uint8 and image.shape == (H, W, 3)
    assert abs(int(image[0, 0, 0]) - 20) < 4 and (ids == mask(1, 2)).all()
    assert len(VideoFolder(find_videos("davis2017", davis, "val"))) == 1
    merged = VideoFolder(find_videos("davis2016", davis))
    assert merged.name(0) == "dog" and (merged.read(0, 0)[1] == (mask(1, 2) > 0)).all()
    with pytest.raises(RdejaxError, match="trian.txt: no such list; choose by @ one of train, val"):
        VideoFolder(find_videos("davis2017", davis, "trian"))


def test_black_and_white_masks_are_one_object(tmp_path):
    video(tmp_path, "a", {0: mask(255), 1: mask(), 2: mask(255)}, 3, mode=None)
    source = VideoFolder(find_videos("folder", tmp_path))
    assert [set(np.unique(source.read(0, i)[1])) for i in range(3)] == [{0, 1}, {0}, {0, 1}]


@pytest.mark.parametrize("mode", ["P", None])
def test_255_beside_ids_is_void_in_the_whole_sequence(tmp_path, mode):
    # The object left in the second frame, whose void alone looks like a black and white mask.
    video(tmp_path, "a", {0: mask(2, 255), 1: mask(255), 2: mask(2)}, 3, mode)
    source = VideoFolder(find_videos("folder", tmp_path))
    assert [set(np.unique(source.read(0, i)[1])) for i in range(3)] == [{0, 2}, {0}, {0, 2}]


def test_ids_stay_what_they_are(tmp_path):
    """An object that is alone in a mask, or enters late, keeps its number."""
    root = tmp_path / "YouTubeVOS"
    video(root / "train", "x", {0: mask(3), 5: mask(3, 1), 10: mask(1)}, 11)
    source = VideoFolder(find_videos("youtube-vos", root))
    assert (source.spacing, source.repeat, source.length(0)) == (5, 1, 3)
    assert [set(np.unique(source.read(0, i)[1])) for i in range(3)] == [{0, 3}, {0, 1, 3}, {0, 1}]
    assert abs(int(source.read(0, 1)[0][0, 0, 0]) - 50) < 4  # the sixth frame, not the second


def test_masks_in_the_colours_of_davis(tmp_path):
    path = save(tmp_path / "m.png", davis_palette()[mask(1, 5)])
    assert (read_mask(path, VIDEO_FRAME) == mask(1, 5)).all()
    save(path, np.dstack([mask(200), mask(7), mask(9)]))
    with pytest.raises(
        BadFile, match="m.png: mask is in colours that are not DAVIS's .#c80709."
    ) as e:
        read_mask(path, VIDEO_FRAME)
    assert pickle.loads(pickle.dumps(e.value)).problem == "mask in colours"  # worker processes


def test_a_colour_is_one_object_in_all_masks_of_a_sequence(tmp_path):
    def painted(ids: np.ndarray) -> np.ndarray:
        return np.asarray([[0, 0, 0], [9, 7, 200], [255, 255, 255]], np.uint8)[ids]

    # White alone, both, blue alone: the ids do not depend on which mask is read first.
    video(
        tmp_path, "a", {0: painted(mask(2)), 1: painted(mask(1, 2)), 2: painted(mask(1))}, 3, None
    )
    for order in ([0, 1, 2], [2, 1, 0]):
        source = VideoFolder(find_videos("folder", tmp_path))
        found = {i: set(np.unique(source.read(0, i)[1]).tolist()) for i in order}
        assert found == {0: {0, 1}, 1: {0, 1, 2}, 2: {0, 2}}


def test_smoothed_and_narrow_masks(tmp_path):
    with pytest.raises(BadFile, match="smoothed edges"):
        read_mask(save(tmp_path / "s.png", mask(1, 140, 255)), VIDEO_FRAME)
    path = tmp_path / "four.png"
    Image.fromarray(mask(1, 2)).save(
        path, bits=4
    )  # Pillow ignores it for grey, so write it by hand
    write_grey4(path, mask(1, 2))
    assert (read_mask(path, VIDEO_FRAME) == mask(1, 2)).all()
    assert (read_mask(path.read_bytes(), VIDEO_FRAME, "bytes") == mask(1, 2)).all()


def write_grey4(path: Path, ids: np.ndarray) -> None:
    """A 4-bit greyscale PNG."""
    import struct
    import zlib

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    rows = b"".join(b"\0" + (row[::2] << 4 | row[1::2]).astype(np.uint8).tobytes() for row in ids)
    header = struct.pack(">IIBBBBB", ids.shape[1], ids.shape[0], 4, 0, 0, 0, 0)
    parts = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + parts)


def test_sparse_labels_tell_the_spacing(tmp_path):
    video(tmp_path, "a", {i: mask(1) for i in (0, 4, 8, 11)}, 12)
    video(tmp_path, "b", {i: mask(1) for i in (1, 5, 9)}, 12)
    source = VideoFolder(find_videos("folder", tmp_path))
    assert source.spacing == 4 and source.length(0) == 4
    assert source.files(1, 1)[0].name == "00005.jpg" and source.files(1, 1)[1].name == "00005.png"


def test_folder_takes_its_training_list(tmp_path):
    for name in "abc":
        video(tmp_path, name, {0: mask(1), 1: mask(1)}, 2)
    assert len(VideoFolder(find_videos("folder", tmp_path))) == 3
    write_list(tmp_path / "ImageSets/train.txt", "b")
    listed = VideoFolder(find_videos("folder", tmp_path))
    assert listed.name(0) == "b" and len(listed) == 1
    with pytest.raises(RdejaxError, match="val.txt: no such list"):
        VideoFolder(find_videos("folder", tmp_path, "val"))


@pytest.mark.parametrize("parts", [("",), ("a", "b"), ("a/BL30K/a",)])
def test_bl30k_is_listed_when_read(tmp_path, parts):
    root = tmp_path / "BL30K"
    for part in parts:
        video(root / part, "v", {i: mask(1) for i in range(3)}, 3)
    source = open_source(str(root) if parts != ("",) else f"bl30k:{root}")
    assert isinstance(source, VideoFolder) and source.kind == "bl30k"
    assert [source.name(i) for i in range(len(source))] == [f"{p}/v".lstrip("/") for p in parts]
    assert not source._listed and source.length(0) == 3 and len(source._listed) == 1
    (root / parts[-1] / "Annotations/v/00001.png").unlink()
    (root / parts[-1] / "Annotations/v/00002.png").unlink()
    with pytest.raises(RdejaxError, match="v: 1 frames with a mask; a clip needs two"):
        VideoFolder(find_videos("bl30k", root)).length(len(parts) - 1)


def test_file_names_of_large_sets_are_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr("rdejax.data.sources.videos._LISTED", 2)
    for i in range(4):
        video(tmp_path, f"v{i}", {0: mask(1), 1: mask(1)}, 2)
    source = VideoFolder(find_videos("bl30k", tmp_path))
    for i in (0, 1, 2, 3, 0):
        assert source.files(i, 1)[0].parent.name == f"v{i}"
    assert len(source._listed) == 2


def test_sequences_no_clip_can_be_cut_from(tmp_path, caplog):
    video(tmp_path, "good", {0: mask(1), 1: mask(1)}, 2)
    video(tmp_path, "short", {0: mask(1)}, 2)
    write_list(tmp_path / "ImageSets/train.txt", "gone", "short", "good")
    with pytest.raises(RdejaxError, match="gone: no such folder; .*short: 1 frames with a mask"):
        open_source(str(tmp_path))
    with caplog.at_level(logging.WARNING):
        source = open_source(str(tmp_path), skip_bad=True)
    assert isinstance(source, VideoFolder)
    assert len(source) == 1 and source.name(0) == "good" and source.length(0) == 2
    assert "skipped 2 sequences" in caplog.text and "short" in caplog.text
    write_list(tmp_path / "ImageSets/train.txt", "short")
    with pytest.raises(RdejaxError, match="no sequence with two frames"):
        open_source(str(tmp_path), skip_bad=True)


def test_bad_files_are_named(tmp_path):
    video(tmp_path, "a", {0: mask(1), 1: mask(1)[:, :25], 2: mask(1), 3: mask(1)}, 4)
    (tmp_path / "JPEGImages/a/00002.jpg").write_bytes(b"\xff\xd8 no")
    (tmp_path / "Annotations/a/00003.png").unlink()
    source = VideoFolder(find_videos("folder", tmp_path))
    with pytest.raises(RdejaxError, match="a/00001.png: mask is 25x20, its image 30x20"):
        source.read(0, 1)
    with pytest.raises(RdejaxError, match="a/00002.jpg: cannot be read"):
        source.read(0, 2)
    (tmp_path / "Annotations/a/00000.png").unlink()
    with pytest.raises(RdejaxError, match="a/00000.png: cannot be read .no such file"):
        source.read(0, 0)
    save(tmp_path / "JPEGImages/a/00000.png", colour(0))
    with pytest.raises(RdejaxError, match="00000.jpg is the same frame"):
        VideoFolder(find_videos("folder", tmp_path))


def test_worker_processes_get_the_same_source(davis):
    source = VideoFolder(find_videos("davis2017", davis))
    copy = pickle.loads(pickle.dumps(source))
    assert copy.name(1) == "bear" and (copy.read(1, 1)[1] == source.read(1, 1)[1]).all()


def test_images_stand_upright(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    path = tmp_path / "a.jpg"
    Image.fromarray(colour(9)).save(path, exif=exif)
    assert read_rgb(path).shape == (W, H, 3) and read_rgb(path, upright=False).shape == (H, W, 3)
    grey = save(tmp_path / "g.png", np.full((H, W), 40000, np.uint16))
    assert (read_rgb(grey) == 40000 // 257).all()


# Specifications


def test_kinds_are_recognised(davis, tmp_path):
    def kind(path) -> tuple[str, str | None]:
        found = parse(str(path))
        return found.kind, found.split

    assert kind(davis) == ("davis2017", None) and kind(f"{davis}@val") == ("davis2017", "val")
    (davis / "ImageSets/2017").rename(davis / "ImageSets/other")
    assert kind(davis) == ("davis2016", None)
    youtube = tmp_path / "yt"
    video(youtube / "train", "x", {0: mask(1), 1: mask(1)}, 2)
    assert kind(youtube / "train") == ("folder", None)
    (youtube / "train/meta.json").write_text("{}")
    assert kind(youtube) == ("youtube-vos", None) and kind(youtube / "train")[1] == "train"
    assert len(open_source(str(youtube / "train"))) == 1
    assert len(open_source(f"youtube-vos:{youtube}@train")) == 1
    assert parse("tfds:davis/480p@validation?data_dir=/x&image=a/b").options == {
        "data_dir": "/x",
        "image": "a/b",
    }
    assert parse("tfds:davis/480p?data_dir=/x@validation").split == "validation"
    assert parse("synthetic").kind == "synthetic"


def test_at_signs_and_colons_in_paths(tmp_path):
    root = tmp_path / "me@home:2"
    video(root, "a", {0: mask(1), 1: mask(1)}, 2)
    assert len(open_source(str(root))) == len(open_source(f"folder:{root}")) == 1


@pytest.mark.parametrize(
    "spec, message",
    [
        ("davis:/x", "give KIND:PATH with one of static, davis2016"),
        ("static:", "give KIND:PATH"),
        ("{}/none", "none: no such folder"),
        ("youtube-vos:{}", "train: no such folder; youtube-vos expects"),
        ("bl30k:{}", "no videos; bl30k expects"),
        ("folder:{}", "Annotations: no such folder"),
        ("static:{}", "no image with a mask"),
        ("folder:/x@", "give the name of a split after @"),
        ("tfds:x?dir=3", "after [?] give data_dir="),
    ],
)
def test_bad_specifications(tmp_path, spec, message):
    with pytest.raises(RdejaxError, match=message):
        open_source(spec.format(tmp_path))
