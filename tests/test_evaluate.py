"""J, F, their statistics and the DAVIS protocols: hand-worked answers, an oracle, the toolkit."""

import csv
import importlib.util
import json
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from rdejax.errors import RdejaxError
from rdejax.evaluate import (
    COLUMNS,
    boundary,
    contour_accuracy,
    evaluate,
    frame_scores,
    region_similarity,
    statistics,
)
from rdejax.evaluate.__main__ import main
from rdejax.evaluate.score_sequences import run_plans
from rdejax.io.datasets import list_sequences

EDGE = Path(__file__).parent / "data" / "evaluate" / "davis_edge.npz"


# --- measures ---------------------------------------------------------------------------------


def rectangle(top, left, height, width, size=(40, 60)):
    mask = np.zeros(size, np.uint8)
    mask[top : top + height, left : left + width] = 1
    return mask


def slow_boundary(mask):
    """The definition, pixel by pixel."""
    height, width = mask.shape
    found = set()
    for y in range(height):
        for x in range(width):
            for dy, dx in ((0, 1), (1, 0), (1, 1)):
                if y + dy < height and x + dx < width and mask[y, x] != mask[y + dy, x + dx]:
                    found.add((y, x))
    return found


def slow_f(truth, result, radius):
    """The definition, boundary pixel by boundary pixel."""
    one, other = slow_boundary(truth), slow_boundary(result)
    if not one or not other:
        return float(not one and not other)

    def share(of, near):
        hits = sum(any((y - v) ** 2 + (x - u) ** 2 <= radius**2 for v, u in near) for y, x in of)
        return hits / len(of)

    precision, recall = share(other, one), share(one, other)
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def slow_j(truth, result):
    pairs = list(zip(truth.ravel() != 0, result.ravel() != 0, strict=True))
    union = sum(bool(a or b) for a, b in pairs)
    return sum(bool(a and b) for a, b in pairs) / union if union else 1.0


def blob(rng, size):
    """A random smooth shape, now and then cut by the image border."""
    y, x = np.mgrid[: size[0], : size[1]]
    mask = np.zeros(size, bool)
    for _ in range(rng.integers(1, 4)):
        cy, cx = rng.uniform(0, size[0]), rng.uniform(0, size[1])
        ry, rx = rng.uniform(2, size[0] / 3), rng.uniform(2, size[1] / 3)
        mask |= ((y - cy) / ry) ** 2 + ((x - cx) / rx) ** 2 < 1
    return mask.astype(np.uint8)


def test_j_by_hand():
    # 4x5 and 4x5 shifted right by 2: 12 pixels in common, 28 in either.
    assert region_similarity(rectangle(3, 3, 4, 5), rectangle(3, 5, 4, 5)) == 12 / 28


def test_boundary_by_hand():
    mask = np.array([[0, 0, 0, 0], [0, 1, 1, 0], [0, 1, 1, 0], [0, 0, 0, 1]], np.uint8)
    expected = np.array([[1, 1, 1, 0], [1, 0, 1, 0], [1, 1, 1, 1], [0, 0, 1, 0]], np.uint8)
    np.testing.assert_array_equal(boundary(mask), expected)
    assert not boundary(np.ones((5, 7), np.uint8)).any()


def test_f_by_hand():
    # One pixel against the same pixel 3 further right: each boundary is a 2x2 block of pixels
    # (less the object's far side: all four, since the object pixel differs from its right).
    truth, result = rectangle(10, 10, 1, 1), rectangle(10, 13, 1, 1)
    assert boundary(truth).sum() == 4
    # Columns 9, 10 against 12, 13: within 2 px only 10 and 12 match, half of each.
    assert contour_accuracy(truth, result, tolerance=2) == 0.5
    assert contour_accuracy(truth, result, tolerance=3) == 1.0
    assert contour_accuracy(truth, result, tolerance=1) == 0.0
    # The default is 0.008 of the diagonal, rounded up: 1 pixel at 40x60 (0.577), 8 at 480x854.
    assert contour_accuracy(truth, result) == 0.0
    large = [rectangle(100, left, 50, 50, (480, 854)) for left in (100, 108, 109)]
    assert contour_accuracy(large[0], large[1]) == 1.0
    assert contour_accuracy(large[0], large[2]) < 1.0


def test_empty_masks():
    empty, whole = np.zeros((40, 60), bool), np.ones((40, 60), bool)
    some = rectangle(3, 3, 4, 5)
    assert region_similarity(empty, empty) == contour_accuracy(empty, empty) == 1
    for one, other in ((empty, some), (some, empty)):
        assert region_similarity(one, other) == contour_accuracy(one, other) == 0
    # A mask of the whole frame has no boundary, like an empty one.
    assert region_similarity(empty, whole) == 0
    assert contour_accuracy(empty, whole) == 1


def test_void_pixels_do_not_count():
    truth, result = rectangle(3, 3, 4, 5), rectangle(3, 3, 4, 8)
    void = rectangle(0, 8, 40, 20)
    assert region_similarity(truth, result) == 20 / 32
    assert region_similarity(truth, result, void) == 1
    assert contour_accuracy(truth, result) < contour_accuracy(truth, result, void) == 1
    assert region_similarity(truth, result, np.ones_like(void)) == 1


def test_sizes_must_agree():
    for measure in (region_similarity, contour_accuracy):
        with pytest.raises(ValueError, match="size"):
            measure(np.zeros((4, 5), bool), np.zeros((5, 4), bool))
        with pytest.raises(ValueError, match="void"):
            measure(*np.zeros((2, 4, 5), bool), np.zeros((5, 4), bool))


@pytest.mark.parametrize("seed", range(12))
def test_equals_the_definitions(seed):
    rng = np.random.default_rng(seed)
    size = (int(rng.integers(8, 40)), int(rng.integers(8, 40)))
    truth, result = blob(rng, size), blob(rng, size)
    radius = int(rng.integers(1, 4))
    assert {tuple(at) for at in np.argwhere(boundary(truth)).tolist()} == slow_boundary(truth)
    assert region_similarity(truth, result) == pytest.approx(slow_j(truth, result), abs=1e-12)
    expected = slow_f(truth, result, radius)
    assert contour_accuracy(truth, result, tolerance=radius) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("seed", range(6))
def test_many_objects_at_once_equal_one_by_one(seed):
    rng = np.random.default_rng(100 + seed)
    maps = np.zeros((2, 50, 70), np.uint8)
    for label in (1, 2, 5, 9):
        for labels in maps:
            labels[blob(rng, (50, 70)) > 0] = label
    ids = (1, 2, 5, 7, 9)
    scores = frame_scores(maps[0], maps[1], ids, tolerance=0.03)
    for (j, f), label in zip(scores, ids, strict=True):
        truth, result = maps == label
        assert j == region_similarity(truth, result)
        assert f == contour_accuracy(truth, result, tolerance=0.03)
    assert scores[3].tolist() == [1, 1]  # in neither map


def test_equals_the_toolkit_on_edge_cases():
    gold = np.load(EDGE)
    for index in range(len(gold["gt"])):
        truth, result, void = (gold[key][index] for key in ("gt", "pred", "void"))
        np.testing.assert_array_equal(boundary(truth), gold["boundary_gt"][index])
        for suffix, given in (("", None), ("_void", void)):
            found = {
                "J": region_similarity(truth, result, given),
                "F": contour_accuracy(truth, result, given),
                "F_th03": contour_accuracy(truth, result, given, 0.03),
                "F_abs2": contour_accuracy(truth, result, given, 2),
            }
            for key, value in found.items():
                # Both are quotients of the same integers in float64.
                assert value == pytest.approx(gold[key + suffix][index], abs=1e-12), (index, key)


# --- statistics -------------------------------------------------------------------------------


def test_statistics_by_hand():
    # Limits 1, 2.75, 4.5, 6.25, 8 -> frames 1, 3, 5, 6, 8: the bins at the ends are 1..3 and 6..8.
    found = statistics([0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.2, 0.6])
    assert found.mean == pytest.approx(4.7 / 8)
    assert found.recall == 5 / 8  # 0.5 itself is not above 0.5
    assert found.decay == pytest.approx(0.8 - 0.4)
    assert statistics([0.7]) == (0.7, 1.0, 0.0)
    with pytest.raises(ValueError, match="non-empty"):
        statistics([])


def test_statistics_equal_the_toolkit():
    gold = np.load(EDGE)
    lengths = [int(key.split("_")[-1]) for key in gold.files if key.startswith("nan_ok_values")]
    assert len(lengths) > 8
    for length in lengths:
        values, expected = gold[f"nan_ok_values_{length}"], gold[f"nan_ok_stats_{length}"]
        found = statistics(values)
        np.testing.assert_allclose(found[:2], expected[:2], atol=1e-12)
        if length < 256:
            np.testing.assert_allclose(found[2], expected[2], atol=1e-12)
        else:  # the toolkit's bin limits overflow 8 bits; ours must not
            assert math.isfinite(found[2])


def test_decay_of_a_long_sequence():
    values = np.linspace(1, 0, 1001)
    assert statistics(values).decay == pytest.approx(0.75)


# --- a small data set on disk -----------------------------------------------------------------

SIZE = (36, 50)


def scene(index, shift=0, objects=2):
    """Ids of a frame with a falling square and a disc that moves right."""
    labels = np.zeros(SIZE, np.uint8)
    labels[3 + index : 13 + index, 4 + shift : 16 + shift] = 1
    if objects > 1:
        y, x = np.mgrid[: SIZE[0], : SIZE[1]]
        labels[(y - 20) ** 2 + (x - 28 - index - shift) ** 2 < 49] = 2
    return labels


def save(path, labels, palette=True):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(labels)
    if palette:
        image.putpalette([0, 0, 0, 200, 0, 0, 0, 200, 0, 0, 0, 200] * 64)
    image.save(path)


@pytest.fixture
def davis(tmp_path):
    """Two sequences in the DAVIS 2017 layout, and results two pixels off."""
    root, results = tmp_path / "davis", tmp_path / "results"
    for name, frames, objects in (("ball-game", 7, 2), ("one", 5, 1)):
        for index in range(frames):
            stem = f"{index:05d}"
            frame = root / "JPEGImages" / "480p" / name / f"{stem}.jpg"
            frame.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.zeros((*SIZE, 3), np.uint8)).save(frame)
            truth = scene(index, objects=objects)
            save(root / "Annotations" / "480p" / name / f"{stem}.png", truth)
            save(results / name / f"{stem}.png", scene(index, 2, objects))
    for year in ("2016", "2017"):
        (root / "ImageSets" / year).mkdir(parents=True)
        (root / "ImageSets" / year / "val.txt").write_text("one\nball-game\n\n")
    return root, results


def expected_row(pairs, merge):
    """Columns for (truth, result) frames per object, by the slow definitions (radius is 1)."""
    sums = np.zeros((2, 3))
    groups = [[(np.minimum(a, 1), np.minimum(b, 1)) for a, b in pairs]] if merge else []
    for label in [] if merge else range(1, int(pairs[0][0].max()) + 1):
        groups.append([(a == label, b == label) for a, b in pairs])
    for group in groups:
        j = [slow_j(a, b) for a, b in group[1:-1]]
        f = [slow_f(a, b, 1) for a, b in group[1:-1]]
        sums += [statistics(j), statistics(f)]
    j, f = sums / len(groups)
    return [(j[0] + f[0]) / 2, *j, *f], len(groups)


@pytest.mark.parametrize("dataset", ["davis2016", "davis2017"])
def test_command_line_end_to_end(davis, dataset, capsys):
    root, results = davis
    main(["--dataset", dataset, "--root", str(root), "--results", str(results)])
    screen = capsys.readouterr().out
    found = json.loads((results / "results.json").read_text())
    rows, counts = {}, {}
    for name, frames, objects in (("one", 5, 1), ("ball-game", 7, 2)):
        pairs = [(scene(i, 0, objects), scene(i, 2, objects)) for i in range(frames)]
        rows[name], counts[name] = expected_row(pairs, dataset == "davis2016")
        assert name in screen
    assert list(found["sequences"]) == ["one", "ball-game"]
    for name, row in rows.items():
        assert tuple(found["sequences"][name]) == COLUMNS
        np.testing.assert_allclose(list(found["sequences"][name].values()), row, atol=1e-9)
    # The global numbers weigh objects, not sequences.
    total = np.average(list(rows.values()), axis=0, weights=list(counts.values()))
    assert tuple(found["global"]) == COLUMNS
    np.testing.assert_allclose(list(found["global"].values()), total, atol=1e-9)

    with open(results / "global_results-val.csv", newline="") as file:
        header, values = list(csv.reader(file))
    assert header == list(COLUMNS)
    assert values == [f"{value:.3f}" for value in total]
    with open(results / "per-sequence_results-val.csv", newline="") as file:
        lines = list(csv.reader(file))
    assert lines[0] == ["Sequence", "J-Mean", "F-Mean"]
    names = ["one_1", "ball-game_1"] + (["ball-game_2"] if dataset == "davis2017" else [])
    assert [line[0] for line in lines[1:]] == names
    assert lines[1][1:] == [f"{rows['one'][1]:.3f}", f"{rows['one'][4]:.3f}"]


def test_perfect_results_score_one_and_end_frames_do_not_count(davis):
    root, results = davis
    perfect = evaluate("davis2017", root, root / "Annotations" / "480p").global_row
    assert [perfect[key] for key in COLUMNS] == [1, 1, 1, 0, 1, 1, 0]
    before = evaluate("davis2017", root, results, workers=1)
    for name, last in (("one", "00004"), ("ball-game", "00006")):
        save(results / name / "00000.png", np.zeros(SIZE, np.uint8))
        (results / name / f"{last}.png").unlink()
    after = evaluate("davis2017", root, results, workers=4)
    assert before.object_rows == after.object_rows


def test_object_missing_from_results_is_empty(davis):
    root, results = davis
    for index in range(7):
        labels = scene(index)
        labels[labels == 2] = 0
        save(results / "ball-game" / f"{index:05d}.png", labels)
    rows = evaluate("davis2017", root, results).object_rows
    assert rows["ball-game_2"]["J&F-Mean"] == 0
    assert rows["ball-game_1"]["J&F-Mean"] == 1


def test_void_in_truth_is_background(davis):
    # As in the toolkit's semi-supervised task: 255 is no object, and not left out either.
    root, results = davis
    for index in range(5):
        truth = scene(index, objects=1)
        truth[30:, 40:] = 255
        save(root / "Annotations" / "480p" / "one" / f"{index:05d}.png", truth)
        result = scene(index, objects=1)
        result[30:, 40:] = 1
        save(results / "one" / f"{index:05d}.png", result)
    row = evaluate("davis2017", root, results).object_rows["one_1"]
    assert row["J-Mean"] == pytest.approx(120 / 180)


def test_binary_0_255_masks(davis):
    root, results = davis
    reference = evaluate("davis2016", root, results).object_rows
    for folder in (root / "Annotations" / "480p", results):
        for path in folder.glob("*/*.png"):
            white = (np.asarray(Image.open(path)) > 0).astype(np.uint8) * 255
            save(path, white, palette=False)
    assert evaluate("davis2016", root, results).object_rows == reference
    assert evaluate("folder", root, results).object_rows == reference
    with pytest.raises(RdejaxError, match="davis2016"):
        evaluate("davis2017", root, results)


def test_folder_scores_an_object_from_its_first_frame_on(tmp_path):
    for index in range(6):
        truth = scene(index, objects=1)
        if index >= 2:
            truth[25:30, 30:40] = 7
        result = scene(index, objects=1)
        if index >= 3:
            result[25:30, 35:40] = 7  # half of it
        for top, labels in (("truth/Annotations", truth), ("results", result)):
            save(tmp_path / top / "clip" / f"f{index}.png", labels)
    scores = evaluate("folder", tmp_path / "truth", tmp_path / "results")
    assert {score.name: score.frames for score in scores.objects} == {
        "clip_1": ("f1", "f2", "f3", "f4"),
        "clip_7": ("f3", "f4"),
    }
    assert scores.object_rows["clip_1"]["J&F-Mean"] == 1
    assert scores.object_rows["clip_7"]["J-Mean"] == 0.5
    late = scene(4, objects=1)
    late[0] = 3
    save(tmp_path / "truth/Annotations/clip/f4.png", late)
    notes = evaluate("folder", tmp_path / "truth", tmp_path / "results").notes
    assert len(notes) == 1 and "object 3" in notes[0]


# --- errors -----------------------------------------------------------------------------------


def break_results(kind, root, results):
    """Damages the data set; returns what the error must name."""
    target = results / "ball-game" / "00003.png"
    if kind == "missing sequence":
        for path in (results / "one").iterdir():
            path.unlink()
        (results / "one").rmdir()
        return "one"
    if kind == "missing frame":
        target.unlink()
        return "00003"
    if kind == "wrong size":
        save(target, np.zeros((36, 49), np.uint8))
        return "00003.png: mask is 49x36"
    if kind == "damaged":
        target.write_bytes(target.read_bytes()[:60])
        return "00003.png"
    if kind == "not an image":
        target.write_bytes(b"hello")
        return "00003.png"
    if kind == "colour":
        Image.fromarray(np.zeros((*SIZE, 3), np.uint8)).save(target)
        return "00003.png: image mode RGB"
    if kind == "unknown id":
        save(target, scene(3) * 2)
        return "00003.png: holds id 4"
    if kind == "too short":
        for index in range(2, 5):
            (root / "Annotations" / "480p" / "one" / f"{index:05d}.png").unlink()
        return "only 2 true masks"
    if kind == "empty first mask":
        save(root / "Annotations" / "480p" / "one" / "00000.png", np.zeros(SIZE, np.uint8))
        return "holds no object"
    raise AssertionError(kind)


KINDS = (
    "missing sequence",
    "missing frame",
    "wrong size",
    "damaged",
    "not an image",
    "colour",
    "unknown id",
    "too short",
    "empty first mask",
)


@pytest.mark.parametrize("kind", KINDS)
def test_bad_results_are_named(davis, kind, capsys):
    root, results = davis
    named = break_results(kind, root, results)
    with pytest.raises(SystemExit) as exit_:
        main(["--dataset", "davis2017", "--root", str(root), "--results", str(results)])
    message = capsys.readouterr().err
    assert exit_.value.code == 2
    assert message.startswith("error: ") and named in message and message.count("\n") == 1
    assert not (results / "results.json").exists()


def test_unknown_id_in_folder_mode(davis):
    root, results = davis
    save(results / "ball-game" / "00003.png", scene(3) * 2)
    with pytest.raises(RdejaxError, match="00003.png: holds id 4"):
        evaluate("folder", root, results)


def test_module_runs_as_a_program(davis):
    root, results = davis
    command = [sys.executable, "-m", "rdejax.evaluate", "--dataset", "davis2017"]
    good = subprocess.run(
        [*command, "--root", root, "--results", results], capture_output=True, text=True
    )
    assert good.returncode == 0 and "Global" in good.stdout, good.stderr
    bad = subprocess.run(
        [*command, "--root", root, "--results", results / "no"], capture_output=True, text=True
    )
    assert bad.returncode == 2 and "Traceback" not in bad.stderr
    assert bad.stderr.startswith("error: ")


# --- listing of data sets ---------------------------------------------------------------------


def test_davis_listing(davis):
    root, _ = davis
    first, second = list_sequences("davis2017", root)
    assert (first.name, second.name) == ("one", "ball-game")
    assert [path.name for path in second.frames] == [f"{index:05d}.jpg" for index in range(7)]
    assert list(second.masks) == [f"{index:05d}" for index in range(7)]
    assert list(second.given_masks) == ["00000"]
    assert not second.merge_objects
    assert list_sequences("davis2016", root)[0].merge_objects


def test_davis_2016_list_of_path_pairs(davis):
    root, _ = davis
    lines = [
        f"/JPEGImages/480p/one/{i:05d}.jpg /Annotations/480p/one/{i:05d}.png" for i in range(5)
    ]
    (root / "ImageSets" / "2016" / "val.txt").unlink()
    (root / "ImageSets" / "480p").mkdir()
    (root / "ImageSets" / "480p" / "val.txt").write_text("\n".join(lines))
    assert [sequence.name for sequence in list_sequences("davis2016", root)] == ["one"]


def test_folder_and_youtube_listings(tmp_path):
    for top in ("plain", "yt/valid"):
        for stem in ("f1", "f2", "f10"):
            save(tmp_path / top / "JPEGImages" / "clip" / f"{stem}.png", scene(0))
        for stem in ("f10", "f2"):
            save(tmp_path / top / "Annotations" / "clip" / f"{stem}.png", scene(0))
    for dataset, root in (("folder", "plain"), ("youtube-vos", "yt")):
        (clip,) = list_sequences(dataset, tmp_path / root)
        assert [path.stem for path in clip.frames] == ["f1", "f2", "f10"]
        assert list(clip.given_masks) == ["f2", "f10"]


def test_listing_errors_name_the_folder(davis, tmp_path):
    root, _ = davis
    cases = {
        "no such folder": ("folder", tmp_path / "nowhere", "val"),
        "trian.txt.*use --split with one of val": ("davis2017", root, "trian"),
        "unknown data set": ("davis2018", root, "val"),
        "val: no such folder": ("youtube-vos", root, "val"),
    }
    for message, arguments in cases.items():
        with pytest.raises(RdejaxError, match=message):
            list_sequences(*arguments)
    (root / "ImageSets" / "2017" / "val.txt").write_text("one\nabsent\n")
    with pytest.raises(RdejaxError, match="absent"):
        list_sequences("davis2017", root)
    save(root / "Annotations" / "480p" / "one" / "stray.png", scene(0))
    with pytest.raises(RdejaxError, match="stray.png: no frame"):
        list_sequences("davis2016", root)
    for path in (root / "JPEGImages" / "480p" / "ball-game").iterdir():
        path.unlink()
    (root / "ImageSets" / "2016" / "val.txt").write_text("ball-game\n")
    with pytest.raises(RdejaxError, match="no images"):
        list_sequences("davis2016", root)


# --- baselines --------------------------------------------------------------------------------

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"


def test_repeating_the_first_mask(davis):
    root, results = davis
    output = results.parent / "repeated"
    script = str(BENCHMARKS / "baseline_repeat_first_mask.py")
    command = [sys.executable, script, "--dataset", "davis2017", "--root", root, "--output", output]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    rows = evaluate("davis2017", root, output).object_rows
    # The square of 10x12 falls a pixel per frame: after t frames 10 - t of its rows still agree.
    expected = np.mean([12 * (10 - t) / (12 * (10 + t)) for t in (1, 2, 3)])
    assert rows["one_1"]["J-Mean"] == pytest.approx(expected)


def test_label_propagation_follows_the_features():
    spec = importlib.util.spec_from_file_location(
        "baseline_label_propagation", BENCHMARKS / "baseline_label_propagation.py"
    )
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    rng = np.random.default_rng(0)
    key = np.asarray(module.unit(rng.standard_normal((5, 7, 16)).astype(np.float32)))
    labels = rng.random((5, 7, 2)).astype(np.float32)
    moved = np.roll(key, (2, 3), axis=(0, 1))
    settings = {"top_k": 1, "temperature": 0.1, "radius": None}
    # Only the first frame is there; the second holds better matches and must not be seen.
    keys, values = np.stack([key, moved]), np.stack([labels, np.zeros_like(labels)])
    there = np.array([True, False])
    found = module.propagate(moved, keys, values, there, **settings)
    np.testing.assert_allclose(found, np.roll(labels, (2, 3), axis=(0, 1)), rtol=1e-6)
    near = module.propagate(moved, keys, values, there, **{**settings, "radius": 0})
    np.testing.assert_allclose(near, labels, rtol=1e-6)


@pytest.mark.parametrize("workers", [0, -3])
def test_too_few_threads_are_refused(workers):
    with pytest.raises(RdejaxError, match=f"workers={workers}: give 1 or more"):
        run_plans([], workers)


def test_true_masks_in_colours_have_the_ids_that_inference_gives_them(tmp_path):
    """What infer takes as first masks, evaluation takes as true ones."""

    from rdejax.evaluate.truth import read_truth
    from rdejax.io.datasets import VideoSequence
    from rdejax.io.given import collect_masks

    colours, paths = {2: (200, 7, 9), 1: (10, 200, 30), 3: (220, 20, 220)}, {}
    for frame, ids in enumerate(((2,), (1, 2), (2, 3))):
        picture = np.zeros((20, 40, 3), np.uint8)
        for index in ids:
            picture[4:16, 10 * index : 10 * index + 8] = colours[index]
        paths[f"{frame:05d}"] = tmp_path / f"{frame:05d}.png"
        Image.fromarray(picture).save(paths[f"{frame:05d}"])
    sequence = VideoSequence("s", (), paths)
    given = collect_masks(dict(enumerate(paths.values())), (20, 40), all_masks=True)
    for frame, path in enumerate(paths.values()):
        np.testing.assert_array_equal(read_truth(sequence, path), given.masks[frame])
    assert len(given.objects) == 3
    (tmp_path / "00001.png").write_bytes(b"")
    with pytest.raises(RdejaxError, match="00001.png"):
        read_truth(sequence, paths["00001"])
