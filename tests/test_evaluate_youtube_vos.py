"""YouTube-VOS: late objects, every 5th frame, seen and unseen categories, and what is refused."""

import json

import numpy as np
import pytest
from PIL import Image

from rdejax.errors import RdejaxError
from rdejax.evaluate import COLUMNS, SEEN_COLUMNS, evaluate
from rdejax.evaluate.__main__ import main

SIZE = (36, 50)
STEMS = tuple(f"{5 * index:05d}" for index in range(6))


def scene(index, late=2, shift=0):
    """A square that moves right, and one of id 2 from annotated frame `late` on."""
    labels = np.zeros(SIZE, np.uint8)
    labels[4:14, 2 + index + shift : 12 + index + shift] = 1
    if index >= late:
        labels[20:30, 4 + index + shift : 14 + index + shift] = 2
    return labels


def save(path, labels):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(labels)
    image.putpalette([0, 0, 0, 200, 0, 0, 0, 200, 0] * 85)
    image.save(path)


def write_meta(root, split, videos, **more):
    content = {
        "videos": {
            video: {
                "objects": {
                    str(label): {"category": category, "frames": list(frames)}
                    for label, (category, frames) in objects.items()
                }
            }
            for video, objects in videos.items()
        },
        **more,
    }
    (root / split).mkdir(parents=True, exist_ok=True)
    (root / split / "meta.json").write_text(json.dumps(content))


VIDEOS = {
    "aa11": {1: ("dog", STEMS), 2: ("cat", STEMS[2:])},
    "bb22": {1: ("newt", STEMS), 2: ("dog", STEMS[4:])},
}
LATE = {"aa11": 2, "bb22": 4}


@pytest.fixture
def data(tmp_path):
    """Two videos with late objects; results of all frames, `aa11` 2 pixels off."""
    root, results = tmp_path / "yt", tmp_path / "results"
    for video, late in LATE.items():
        for index, stem in enumerate(STEMS):
            save(root / "valid" / "Annotations" / video / f"{stem}.png", scene(index, late))
            shift = 2 if video == "aa11" else 0
            save(results / video / f"{stem}.png", scene(index, late, shift))
            save(results / video / f"{int(stem) + 1:05d}.png", scene(0))  # not annotated
    write_meta(root, "valid", VIDEOS)
    write_meta(root, "train", {"cc": {1: ("dog", ["00000"])}, "dd": {1: ("cat", ["00000"])}})
    return root, results


# Squares of 10x10, 2 pixels apart: 80 pixels in common, 120 in either.
SHIFTED = 80 / 120


def test_an_object_counts_after_the_frame_of_its_mask(data):
    root, results = data
    scores = evaluate("youtube-vos", root, results)
    assert {score.name: score.frames for score in scores.objects} == {
        "aa11_1": STEMS[1:],
        "aa11_2": STEMS[3:],
        "bb22_1": STEMS[1:],
        "bb22_2": STEMS[5:],  # the last frame counts, unlike in DAVIS
    }
    rows = scores.object_rows
    assert rows["aa11_2"]["J-Mean"] == pytest.approx(SHIFTED)
    assert rows["bb22_2"]["J&F-Mean"] == 1
    # What stands in the frame that brings the mask is not looked at.
    save(results / "aa11" / f"{STEMS[2]}.png", scene(2, 99, 2))
    save(results / "aa11" / f"{STEMS[0]}.png", np.zeros(SIZE, np.uint8))
    assert evaluate("youtube-vos", root, results).object_rows == rows
    save(results / "aa11" / f"{STEMS[5]}.png", scene(5, 99, 2))
    assert evaluate("youtube-vos", root, results).object_rows["aa11_2"]["J-Mean"] == pytest.approx(
        SHIFTED * 2 / 3
    )


def test_meta_may_say_that_an_object_starts_later_than_its_mask(data):
    root, results = data
    write_meta(root, "valid", {**VIDEOS, "aa11": {1: ("dog", STEMS), 2: ("cat", STEMS[3:])}})
    scores = evaluate("youtube-vos", root, results)
    assert {s.name: s.frames for s in scores.objects}["aa11_2"] == STEMS[4:]


def test_results_of_annotated_frames_only(data):
    root, results = data
    rows = evaluate("youtube-vos", root, results).global_row
    for video in LATE:
        for path in (results / video).iterdir():
            if path.stem not in STEMS or path.stem == STEMS[0]:
                path.unlink()
    assert evaluate("youtube-vos", root, results).global_row == rows


def test_seen_and_unseen(data, capsys):
    root, results = data
    options = ["--dataset", "youtube-vos", "--root", str(root), "--results", str(results)]
    main(options)
    screen = capsys.readouterr().out
    content = json.loads((results / "results.json").read_text())
    row = content["global"]
    assert tuple(row) == (*COLUMNS, *SEEN_COLUMNS)
    # Seen: dog and cat of aa11 (shifted), dog of bb22 (exact); unseen: newt (exact).
    assert row["J-seen"] == pytest.approx((2 * SHIFTED + 1) / 3)
    assert row["J-unseen"] == row["F-unseen"] == 1
    f_seen = np.mean([content["objects"][n]["F-Mean"] for n in ("aa11_1", "aa11_2", "bb22_2")])
    assert row["F-seen"] == pytest.approx(f_seen)
    assert row["G"] == pytest.approx(np.mean([row[name] for name in SEEN_COLUMNS[1:]]))
    assert row["J-Mean"] == pytest.approx((2 * SHIFTED + 2) / 4)
    assert content["categories"]["bb22_1"] == {"category": "newt", "seen": False}
    assert content["frames"] == {"aa11_1": 5, "aa11_2": 3, "bb22_1": 5, "bb22_2": 1}
    assert f"J-seen {100 * row['J-seen']:.1f}" in screen and "first and last" not in screen
    header = (results / "global_results-val.csv").read_text().splitlines()[0]
    assert header == ",".join((*COLUMNS, *SEEN_COLUMNS))


@pytest.mark.parametrize("form", ["names.txt", "names.json", "meta"])
def test_seen_categories_from_elsewhere(data, form):
    root, results = data
    seen = None
    if form == "meta":  # before the training set's
        write_meta(root, "valid", VIDEOS, seen=["newt"])
    else:
        seen = root / form
        seen.write_text('["newt"]' if form.endswith("json") else "\nnewt\n")
    scores = evaluate("youtube-vos", root, results, seen=seen)
    assert {score.name: score.seen for score in scores.objects} == {
        "aa11_1": False,
        "aa11_2": False,
        "bb22_1": True,
        "bb22_2": False,
    }


def test_unknown_categories_are_named(data):
    root, results = data

    def note():
        scores = evaluate("youtube-vos", root, results)
        assert tuple(scores.global_row) == COLUMNS and len(scores.objects) == 4
        return " ".join(scores.notes)

    (root / "train" / "meta.json").unlink()
    assert "train/meta.json or give --seen FILE" in note()
    write_meta(root, "valid", {**VIDEOS, "bb22": {1: (None, STEMS), 2: ("dog", STEMS[4:])}})
    assert "meta.json has no category for bb22_1 (1 of 4 objects)" in note()
    (root / "valid" / "meta.json").unlink()
    assert "meta.json (no such file) has no category for aa11_1, aa11_2" in note()


def test_only_seen_categories(data):
    root, results = data
    (root / "seen.txt").write_text("dog\ncat\nnewt\n")
    scores = evaluate("youtube-vos", root, results, seen=root / "seen.txt")
    assert np.isnan(scores.global_row["G"]) and np.isnan(scores.global_row["F-unseen"])
    assert scores.global_row["J-seen"] == pytest.approx((2 * SHIFTED + 2) / 4)
    assert "a category that is unseen" in scores.notes[0]


def test_objects_that_cannot_be_scored_are_named(data):
    root, results = data
    write_meta(root, "valid", {**VIDEOS, "aa11": {**VIDEOS["aa11"], 3: ("cat", STEMS)}})
    save(root / "valid" / "Annotations" / "bb22" / f"{STEMS[4]}.png", scene(4, 99))
    scores = evaluate("youtube-vos", root, results)
    assert "aa11: no true mask holds the listed object 3; left out" in scores.notes
    assert "bb22: object 2 appears too late to be scored; left out" in scores.notes
    assert [score.name for score in scores.objects] == ["aa11_1", "aa11_2", "bb22_1"]


def test_splits_without_public_masks_are_refused(data):
    root, results = data
    for video, late in LATE.items():
        for index, stem in enumerate(STEMS):
            if index not in (0, late):
                (root / "valid" / "Annotations" / video / f"{stem}.png").unlink()
    with pytest.raises(RdejaxError, match=r"aa11: no true mask for frame 00005, .*4 of the 6"):
        evaluate("youtube-vos", root, results)
    (root / "valid" / "meta.json").unlink()
    for video, late in LATE.items():
        (root / "valid" / "Annotations" / video / f"{STEMS[late]}.png").unlink()
    with pytest.raises(RdejaxError, match=r"nothing can be scored.*rdejax submit"):
        evaluate("youtube-vos", root, results)


def break_results(kind, root, results):
    target = results / "bb22" / f"{STEMS[3]}.png"
    if kind == "missing sequence":
        (results / "bb22").rename(results / "elsewhere")
        return "no results for bb22 (1 of 2"
    if kind == "missing frame":
        target.unlink()
        return "bb22: no mask for frame 00015 (1 of 5"
    if kind == "wrong size":
        save(target, np.zeros((36, 49), np.uint8))
        return "00015.png: mask is 49x36"
    if kind == "unknown id":
        save(target, scene(3) * 3)
        return "00015.png: holds id 3"
    if kind == "damaged":
        target.write_bytes(target.read_bytes()[:60])
        return "00015.png: not a readable image"
    if kind == "colour":
        Image.fromarray(np.zeros((*SIZE, 3), np.uint8)).save(target)
        return "00015.png: image mode RGB"
    if kind == "bad meta":
        (root / "valid" / "meta.json").write_text('{"videos": {"aa11": {}}}')
        return "meta.json: not a meta.json of YouTube-VOS"
    if kind == "bad json":
        (root / "train" / "meta.json").write_text("{")
        return "meta.json: not a JSON object"
    raise AssertionError(kind)


KINDS = (
    "missing sequence",
    "missing frame",
    "wrong size",
    "unknown id",
    "damaged",
    "colour",
    "bad meta",
    "bad json",
)


@pytest.mark.parametrize("kind", KINDS)
def test_bad_input_is_named(data, kind, capsys):
    root, results = data
    named = break_results(kind, root, results)
    with pytest.raises(SystemExit) as exit_:
        main(["--dataset", "youtube-vos", "--root", str(root), "--results", str(results)])
    message = capsys.readouterr().err
    assert exit_.value.code == 2
    assert message.startswith("error: ") and named in message and message.count("\n") == 1
    assert not (results / "results.json").exists()


@pytest.mark.parametrize("content", [None, "", "{}", b"\xff\xfe\x00"])
def test_bad_lists_of_seen_categories(data, content):
    root, results = data
    path = root / "seen.json"
    if content is not None:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(RdejaxError, match=r"seen.json: no "):
        evaluate("youtube-vos", root, results, seen=path)
    with pytest.raises(RdejaxError, match="--seen belongs to youtube-vos"):
        evaluate("davis2017", root, results, seen=path)
