"""Results in the formats of other tools, read back by these where they are installed."""

import json
import shutil
from fractions import Fraction

import numpy as np
import pytest
from io_helpers import fake_api, moving_frames, square_mask, write_mask_image, write_video
from PIL import Image

from rdejax.export.__main__ import main
from rdejax.infer.__main__ import main as infer
from rdejax.io.masks import AS_WRITTEN, read_mask

COUNT, IDS = 5, (3, 44)


@pytest.fixture
def result(tmp_path, monkeypatch):
    """Masks of five frames with the objects 3 and 44, of which 44 is missing in the last one."""
    fake_api(monkeypatch)
    write_video(tmp_path / "clip.mp4", moving_frames(COUNT))
    write_mask_image(tmp_path / "mask.png", square_mask(ids=IDS))
    infer([str(tmp_path / "clip.mp4"), "--mask", str(tmp_path / "mask.png"), "--quiet",
           "--output", str(tmp_path / "out")])  # fmt: skip
    path = tmp_path / "out" / "masks" / "00004.png"
    last = read_mask(path, AS_WRITTEN)
    write_mask_image(path, np.where(last == 44, 0, last))
    return tmp_path


def masks(result):
    files = sorted((result / "out" / "masks").glob("*.png"))
    return np.stack([read_mask(path, AS_WRITTEN) for path in files])


def export(result, kind, name, *more):
    arguments = [result / "out", "--format", kind, "--output", result / name, *more]
    main([str(argument) for argument in arguments])
    return result / name


def test_coco_is_read_by_its_own_tools_and_keeps_ids(result):
    coco_tools = pytest.importorskip("pycocotools.coco")
    (result / "out" / "scores.csv").write_text("frame,object,score\n00002,44,0.75\n")
    data = coco_tools.COCO(str(export(result, "coco", "a.json")))
    seen = np.zeros((COUNT, 36, 52), np.uint8)
    for annotation in data.loadAnns(data.getAnnIds()):
        image = data.loadImgs(annotation["image_id"])[0]
        mask = data.annToMask(annotation).astype(bool)
        seen[image["frame_index"]][mask] = annotation["object_id"]
        assert annotation["area"] == mask.sum()
        left, top, width, height = annotation["bbox"]
        rows, columns = np.nonzero(mask)
        assert (left, top) == (columns.min(), rows.min())
        assert (left + width - 1, top + height - 1) == (columns.max(), rows.max())
    np.testing.assert_array_equal(seen, masks(result))
    scored = [a for a in data.loadAnns(data.getAnnIds()) if "score" in a]
    assert [(a["object_id"], a["score"]) for a in scored] == [(44, 0.75)]
    assert len({a["track_id"] for a in data.loadAnns(data.getAnnIds())}) == 2


def test_youtube_vis_has_a_track_for_each_object(result):
    rle = pytest.importorskip("pycocotools.mask")
    data = json.loads(export(result, "youtube-vis", "v.json").read_text())
    assert data["videos"][0]["length"] == COUNT
    seen = np.zeros((COUNT, 36, 52), np.uint8)
    for track in data["annotations"]:
        assert len(track["segmentations"]) == len(track["areas"]) == len(track["bboxes"]) == COUNT
        for t, segmentation in enumerate(track["segmentations"]):
            if segmentation is not None:
                seen[t][rle.decode(segmentation).astype(bool)] = track["object_id"]
    np.testing.assert_array_equal(seen, masks(result))
    assert data["annotations"][1]["segmentations"][-1] is None


def test_a_png_for_each_object(result):
    folder = export(result, "png", "png")
    for number in IDS:
        files = sorted((folder / str(number)).glob("*.png"))
        stack = np.stack([np.asarray(Image.open(path)) for path in files])
        np.testing.assert_array_equal(stack, np.where(masks(result) == number, 255, 0))
    one = export(result, "png", "one", "--objects", "44")
    assert [path.name for path in one.iterdir()] == ["44"]


@pytest.mark.parametrize(
    ("codec", "suffix", "form"), [("prores", ".mov", "yuva444p"), ("vp9", ".webm", "yuva420p")]
)
def test_alpha_is_the_object(result, codec, suffix, form):
    import av

    folder = export(result, "alpha", "alpha", "--video", result / "clip.mp4", "--codec", codec)
    assert sorted(path.name for path in folder.iterdir()) == [f"3{suffix}", f"44{suffix}"]
    # FFmpeg's own VP9 decoder knows no alpha channel; libvpx's does.
    with av.open(str(folder / f"3{suffix}")) as container:
        stream = container.streams.video[0]
        assert stream.average_rate == Fraction(25)
        decoder = stream.codec_context
        if codec == "vp9":
            decoder = av.codec.CodecContext.create("libvpx-vp9", "r")
        frames = [f for packet in container.demux(stream) for f in decoder.decode(packet)]
    assert len(frames) == COUNT and frames[0].format.name.startswith(form)
    alpha = np.stack([f.to_ndarray(format="rgba")[..., 3] for f in frames])
    agree = (alpha > 127) == (masks(result) == 3)
    assert agree.mean() > 0.99


def test_several_videos_go_into_one_file_and_folders_of_their_own(result):
    pytest.importorskip("pycocotools")
    both = result / "both"
    both.mkdir()
    (result / "out").rename(both / "a")
    shutil.copytree(both / "a", both / "b")
    main([str(both), "--format", "coco", "--output", str(result / "c.json")])
    data = json.loads((result / "c.json").read_text())
    assert [video["name"] for video in data["videos"]] == ["a", "b"]
    assert len(data["images"]) == 2 * COUNT
    main([str(both), "--format", "png", "--output", str(result / "pngs")])
    assert sorted(path.name for path in (result / "pngs").iterdir()) == ["a", "b"]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["nowhere", "--format", "png"], "no such folder"),
        (["out", "--format", "alpha"], "--video is missing"),
        (["out", "--format", "png", "--objects", "5"], "has no object 5; there are [3, 44]"),
        (["out", "--format", "png", "--output", "out"], "exists already"),
        (["out", "--format", "png", "--output", "out", "--overwrite"], "would replace"),
        (["out", "--format", "alpha", "--video", "mask.png"], "single image"),
    ],
)
def test_what_is_wrong_is_one_sentence_and_leaves_nothing(
    result, capsys, monkeypatch, arguments, says
):
    monkeypatch.chdir(result)
    if "--output" not in arguments:
        arguments = [*arguments, "--output", "dest"]
    before = sorted(path.name for path in result.iterdir())
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    message = capsys.readouterr().err.strip()
    assert says in message and "\n" not in message
    assert sorted(path.name for path in result.iterdir()) == before


def test_an_unfinished_run_is_not_exported(result, capsys):
    (result / "out" / "unfinished").mkdir()
    with pytest.raises(SystemExit):
        export(result, "png", "dest")
    assert "not finished" in capsys.readouterr().err
