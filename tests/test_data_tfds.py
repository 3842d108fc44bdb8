"""TFDS data sets: written from any source and read back, without TensorFlow."""

import json
import logging
import pickle
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from test_data_sources import H, W, colour, mask, save, video, write_list

pytest.importorskip("tensorflow_datasets")

from rdejax.data.__main__ import main
from rdejax.data.builders.write_tfds import write_tfds
from rdejax.data.check.source import check_source
from rdejax.data.sources.spec import open_source
from rdejax.data.sources.tfds import Feature, TfdsImages, TfdsVideos, _choose, open_tfds
from rdejax.data.sources.video_layouts import find_videos
from rdejax.data.sources.videos import VideoFolder, VideoSource
from rdejax.errors import RdejaxError


@pytest.fixture(autouse=True)
def no_tensorflow():
    """Where it is not installed, importing it fails; where it is, this finds out."""
    before = "tensorflow" in sys.modules
    yield
    assert before or "tensorflow" not in sys.modules


@pytest.fixture
def videos(tmp_path):
    """Four videos of different lengths, of which the third and fourth have a list of their own."""
    root = tmp_path / "videos"
    for n, name in enumerate(("deer", "ant", "cat", "bee")):
        video(root, name, {i: mask(n + 1, 7) for i in range(0, 3 * (n + 2), 3)}, 3 * (n + 2))
    write_list(root / "ImageSets/train.txt", "deer", "ant")
    write_list(root / "ImageSets/test-dev.txt", "cat", "bee")
    return root


def same_videos(a: VideoSource, b: VideoSource) -> bool:
    names = [a.name(i) for i in range(len(a))] == [b.name(i) for i in range(len(b))]
    pairs = [(a.read(i, f), b.read(i, f)) for i in range(len(a)) for f in range(a.length(i))]
    return names and all(
        (x == y).all() for one, two in pairs for x, y in zip(one, two, strict=True)
    )


def test_videos_come_back_as_they_were(videos, tmp_path):
    folder = write_tfds([f"folder:{videos}", f"folder:{videos}@test-dev"], tmp_path / "out")
    assert folder == tmp_path / "out/videos/1.0.0"
    train, test = open_source(f"tfds:{folder}"), open_source(f"tfds:{folder}@test_dev")
    assert isinstance(train, TfdsVideos) and isinstance(train, VideoSource)
    source = VideoFolder(find_videos("folder", videos))
    assert train.spacing == source.spacing == 3 and train.repeat == 1
    assert [train.length(i) for i in range(2)] == [2, 3]
    assert isinstance(test, TfdsVideos)
    assert same_videos(source, train)
    assert same_videos(VideoFolder(find_videos("folder", videos, "test-dev")), test)
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [folder.parent.name]
    by_name = open_source(f"tfds:{folder.parent.name}?data_dir={tmp_path / 'out'}")
    assert isinstance(by_name, TfdsVideos) and same_videos(train, by_name)
    recognised = open_source(str(folder))
    assert isinstance(recognised, TfdsVideos) and len(recognised) == 2


def test_jpeg_files_are_kept_byte_for_byte(videos, tmp_path):
    source = open_source(f"tfds:{write_tfds([str(videos)], tmp_path / 'out')}")
    assert isinstance(source, TfdsVideos)
    stored = source.records.images(1, "video/frames")[2]
    assert stored == (videos / "JPEGImages/ant/00006.jpg").read_bytes()


def test_worker_processes_open_the_records_again(videos, tmp_path):
    source = open_source(f"tfds:{write_tfds([str(videos)], tmp_path / 'out')}")
    assert isinstance(source, TfdsVideos)
    source.read(0, 0)
    packed = pickle.dumps(source)
    assert len(packed) < 2000 and same_videos(source, pickle.loads(packed))


def test_ids_void_and_merged_objects(tmp_path):
    root = tmp_path / "DAVIS"
    video(root, "a", {0: mask(2, 255), 1: mask(255), 2: mask(3)}, 3, sub="480p")
    write_list(root / "ImageSets/2016/train.txt", "a")
    for kind in ("davis2016", "folder"):
        before = open_source(f"{kind}:{root}")
        after = open_source(f"tfds:{write_tfds([f'{kind}:{root}'], tmp_path / kind)}")
        assert isinstance(before, VideoFolder) and isinstance(after, TfdsVideos)
        assert same_videos(before, after) and after.repeat == before.repeat


def test_sets_of_other_makers_have_no_notes(videos, tmp_path):
    """TFDS's own `davis` has these features and no metadata: names and lengths are in records."""
    folder = write_tfds([str(videos)], tmp_path / "out", name="plain")
    (folder / "metadata.json").unlink()
    source = open_source(f"tfds:{folder}")
    assert isinstance(source, TfdsVideos) and source.spacing == 1
    assert [source.name(i) for i in range(2)] == ["deer", "ant"] and source.length(1) == 3
    assert same_videos(VideoFolder(find_videos("folder", videos)), source)


def test_black_and_white_masks_of_other_makers(tmp_path):
    """Ours hold ids; those of others may hold 0 and 255."""
    from rdejax.data.builders.tfds_builders import video_builder

    def png(pixels: np.ndarray) -> bytes:
        return save(tmp_path / "x.png", pixels).read_bytes()

    def examples(masks):
        yield {
            "video": {
                "frames": [png(colour(i)) for i in range(len(masks))],
                "segmentations": [png(m) for m in masks],
            },
            "metadata": {"num_frames": len(masks), "video_name": "x"},
        }

    for name, masks, last in (
        ("binary", [mask(255), mask(), mask(255)], {0, 1}),
        ("ids", [mask(4, 255), mask(4), mask(255)], {0}),
    ):
        video_builder(
            name, str(tmp_path / "out"), {"train": examples(masks)}
        ).download_and_prepare()
        source = open_source(f"tfds:{name}?data_dir={tmp_path / 'out'}")
        assert isinstance(source, TfdsVideos) and set(np.unique(source.read(0, 2)[1])) == last


def static_images(root: Path) -> Path:
    for i in range(5):
        save(root / f"images/{i}.{'jpg' if i % 2 else 'bmp'}", colour(40 * i))
        save(root / f"masks/{i}.png", mask(*range(1, i + 2)))
    return root


def test_static_images_come_back_as_they_were(tmp_path):
    before = open_source(str(static_images(tmp_path / "Some Set")))
    folder = write_tfds([str(tmp_path / "Some Set")], tmp_path / "out")
    assert folder == tmp_path / "out/some_set/1.0.0"
    after = open_source(f"tfds:{folder}")
    assert isinstance(after, TfdsImages) and len(after) == 5
    for i in range(5):
        for x, y in zip(before[i], after[i], strict=True):
            assert (x == y).all()
    findings = check_source(f"tfds:{folder}")
    assert not findings.problems and findings.objects[5] == 1
    with pytest.raises(RdejaxError, match="already there"):
        write_tfds([str(tmp_path / "Some Set")], tmp_path / "out")


def test_bad_files_stop_or_are_left_out(videos, tmp_path, caplog):
    (videos / "JPEGImages/deer/00003.jpg").write_bytes(b"no")
    with pytest.raises(RdejaxError, match="00003.jpg: cannot be read"):
        write_tfds([str(videos)], tmp_path / "out")
    assert not list((tmp_path / "out").rglob("*.array_record*"))  # whole or not there
    with caplog.at_level(logging.WARNING):
        folder = write_tfds([str(videos)], tmp_path / "out", skip_bad=True)
    assert "00003.jpg" in caplog.text
    source = open_source(f"tfds:{folder}")
    assert isinstance(source, TfdsVideos) and len(source) == 1 and source.name(0) == "ant"
    images = static_images(tmp_path / "still")
    save(images / "masks/2.png", mask())
    with pytest.raises(RdejaxError, match="2.png: mask holds no object"):
        write_tfds([str(images)], tmp_path / "out")
    folder = write_tfds([str(images)], tmp_path / "out", skip_bad=True)
    assert len(open_source(f"tfds:{folder}")) == 4


def test_what_does_not_fit_together(videos, tmp_path):
    images = static_images(tmp_path / "still")
    with pytest.raises(RdejaxError, match="do not fit one data set"):
        write_tfds([str(videos), f"static:{tmp_path}@still"], tmp_path / "out")
    with pytest.raises(RdejaxError, match="is the split 'train' already"):
        write_tfds([str(videos), str(videos)], tmp_path / "out")
    with pytest.raises(RdejaxError, match="name 'My Set': give lower-case"):
        write_tfds([str(images)], tmp_path / "out", name="My Set")
    with pytest.raises(RdejaxError, match="nothing to convert"):
        write_tfds([], tmp_path / "out")


def test_names_are_helped_with(videos, tmp_path):
    folder = write_tfds([str(videos)], tmp_path / "out")
    with pytest.raises(RdejaxError, match="no data set 'davsi'; near names: .*davis"):
        open_source("tfds:davsi/480p")
    with pytest.raises(RdejaxError, match="no configuration '481p'; choose one of 480p, full_res"):
        open_source(f"tfds:davis/481p?data_dir={tmp_path}")
    with pytest.raises(RdejaxError, match="not prepared in .*tfds build davis/480p"):
        open_source(f"tfds:davis/480p?data_dir={tmp_path}")
    with pytest.raises(RdejaxError, match="no split 'dev'; choose one of train"):
        open_source(f"tfds:{folder}@dev")
    info = json.loads((folder / "dataset_info.json").read_text())
    (folder / "dataset_info.json").write_text(json.dumps(info | {"fileFormat": "tfrecord"}))
    with pytest.raises(RdejaxError, match="prepared as tfrecord .*convert_format"):
        open_source(f"tfds:{folder}")


def test_broken_records_are_named(videos, tmp_path):
    folder = write_tfds([str(videos)], tmp_path / "out")
    source = open_source(f"tfds:{folder}")
    path = next(folder.glob("*.array_record*"))
    path.write_bytes(path.read_bytes()[:300])
    assert isinstance(source, TfdsVideos)
    with pytest.raises(RdejaxError, match="train record 0: cannot be read"):
        source.read(0, 0)
    report = check_source(f"tfds:{folder}")
    assert report.problems and "cannot be read" in report.problems[0].text


def test_features_are_told_apart():
    frames, masks = Feature("video/frames", 1, 3), Feature("video/segmentations", 1, 1)
    image, label = Feature("image", 0, 3), Feature("segmentation_mask", 0, 1)
    coloured, depth = Feature("segmentation_colour", 0, 3), Feature("depth", 0, 1)
    assert _choose([frames, masks], {}, "x") == (frames, masks)
    assert _choose([image, coloured, depth, label], {}, "x") == (image, label)
    assert _choose([image, depth], {}, "x") == (image, depth)
    other = Feature("image_right", 0, 3)
    with pytest.raises(RdejaxError, match="[?]image=KEY&mask=KEY .*image_right"):
        _choose([image, other, label], {}, "x")
    assert _choose([image, other, label], {"image": "image_right"}, "x") == (other, label)
    with pytest.raises(RdejaxError, match="mask=no is no image"):
        _choose([image, label], {"mask": "no"}, "x")


def test_upright_images_survive(tmp_path):
    """A turned JPEG is stored as its pixels: other readers do not look at the orientation."""
    exif = Image.Exif()
    exif[0x0112] = 6
    for i in range(2):
        path = tmp_path / f"v/JPEGImages/a/{i}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(colour(9)).save(path, exif=exif)
        save(tmp_path / f"v/Annotations/a/{i}.png", np.ones((W, H), np.uint8))
    source = open_source(f"tfds:{write_tfds([str(tmp_path / 'v')], tmp_path / 'out')}")
    assert isinstance(source, TfdsVideos) and source.read(0, 0)[0].shape == (W, H, 3)
    assert source.records.images(0, "video/frames")[0][1:4] == b"PNG"


def test_command(videos, tmp_path, capsys):
    main(["convert", f"folder:{videos}", "--output", str(tmp_path / "out"), "--name", "mine"])
    out = capsys.readouterr().out
    folder = tmp_path / "out/mine/1.0.0"
    assert out == f"wrote {folder}; train on it with --data tfds:{folder}\n"
    main([f"tfds:mine?data_dir={tmp_path / 'out'}", "--quick"])
    assert "2 sequences, 5 images" in capsys.readouterr().out
    with pytest.raises(SystemExit) as exit:
        main(["convert", f"folder:{videos}", "--output", str(tmp_path / "out"), "--name", "mine"])
    assert exit.value.code == 2 and "already there" in capsys.readouterr().err


def test_tfds_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", None)
    with pytest.raises(RdejaxError, match="needs tensorflow-datasets .*rdejax.tfds"):
        open_tfds("davis/480p")
