"""The page about a run: what it shows, what it must not load, how large it is, bad folders."""

import io
import json
import re
import sys

import av
import numpy as np
import pytest
from helpers_report import HOSTILE, Page, make_dataset
from io_helpers import fake_api, moving_frames, square_mask, write_mask_image, write_video
from PIL import Image

from rdejax.errors import RdejaxError
from rdejax.evaluate import ObjectScore, evaluate
from rdejax.evaluate.__main__ import main as evaluate_main
from rdejax.evaluate.score_table import ScoreTable
from rdejax.evaluate.scores import mean_curve
from rdejax.infer.__main__ import main as infer_main
from rdejax.io.masks import PAINTING, merged, read_mask
from rdejax.report import score_charts, write_report
from rdejax.report.__main__ import main
from rdejax.report.mp4 import plan_clips
from rdejax.report.score_charts import _bar_chart, _curve_chart, inline_svg
from rdejax.report.write import read_table
from rdejax.visualize.charts import chart_style, new_figure, printable

SHIFTS = {"good": 0, HOSTILE: 2, "middling": 5, "two": 9}


@pytest.fixture(scope="module")
def scored(tmp_path_factory):
    """(data set, results, page) of four sequences."""
    base = tmp_path_factory.mktemp("scored")
    make_dataset(base / "data", base / "out", SHIFTS)
    path = write_report(base / "out", dataset="folder", root=base / "data")
    return base / "data", base / "out", path


def frames_of(content):
    """Number of frames of an MP4, and (H, W)."""
    with av.open(io.BytesIO(content)) as container:
        assert container.streams.video[0].codec_context.name == "h264"
        frames = list(container.decode(video=0))
    return len(frames), (frames[0].height, frames[0].width)


# --- what the page shows ----------------------------------------------------------------------


def test_page_is_well_formed_and_accessible(scored):
    page = Page(scored[2])
    assert [attributes["id"] for attributes in page.all("section")] == [
        "summary",
        "scores",
        "plots",
        "strips",
        "clips",
        "settings",
    ]
    assert page.all("html") == [{"lang": "en"}] and len(page.all("h1")) == 1
    assert all(attributes["alt"] for attributes in page.all("img"))
    assert all(attributes["aria-label"] for attributes in page.all("video"))
    assert all(attributes["scope"] in ("row", "col") for attributes in page.all("th"))
    for attributes in page.all("svg"):
        assert attributes.get("aria-hidden") == "true" or attributes["aria-label"]


def test_page_shows_the_evaluations_numbers(scored):
    data, out, path = scored
    scores = evaluate("folder", data, out)
    page = Page(path)
    values = [float(a["data-value"]) for a in page.all("td") if a.get("data-value")]
    for row in (*scores.sequence_rows.values(), *scores.object_rows.values(), scores.global_row):
        for value in row.values():
            assert any(abs(value - shown) < 1e-8 for shown in values)
    assert f"{100 * scores.global_row['J&F-Mean']:.1f}" in page.text("dd")
    # The worst sequence comes first where the worst are shown.
    strips = [text for tag, text in page.texts if tag == "strong"]
    assert strips.index("two") < strips.index("good")
    assert "By object" in page.text("summary")


def test_clips_and_pictures_decode(scored):
    page = Page(scored[2])
    clips = page.files("video/mp4")
    assert [frames_of(clip) for clip in clips] == [(6, (48, 64))] * 4
    pictures = page.files("image/jpeg")
    # Truth and result of the four frames that count of six, of four sequences.
    assert len(pictures) == 2 * 4 * 4
    for content in pictures:
        with Image.open(io.BytesIO(content)) as image:
            image.load()
            assert image.size == (64, 48)
    assert page.text("span").count("J ") >= 16


def test_truth_and_result_of_a_strip_differ_as_the_masks_do(scored):
    page = Page(scored[2])
    pictures = {
        attributes["alt"]: np.asarray(Image.open(io.BytesIO(content))).astype(int)
        for attributes, content in zip(page.all("img"), page.files("image/jpeg"), strict=True)
    }
    same = np.abs(
        pictures["truth in frame 00002 of good"] - pictures["result in frame 00002 of good"]
    )
    assert same.max() == 0
    moved = np.abs(
        pictures["truth in frame 00002 of middling"] - pictures["result in frame 00002 of middling"]
    ).max(-1)
    # The object covers columns 6 to 21 in the truth, 11 to 26 in the result.
    assert moved[12:22, 7:10].min() > 20 and moved[12:22, 23:26].min() > 20
    assert moved[:, 40:].max() < 20


def test_nothing_is_loaded_from_elsewhere(scored):
    text = scored[2].read_text("utf-8")
    page = Page(scored[2])
    for tag, attributes in page.elements:
        for name in ("src", "href", "xlink:href", "srcset", "poster", "action", "data"):
            assert (attributes.get(name) or "data:").startswith("data:"), (tag, name)
    bare = re.sub(r"data:[a-z0-9/]+;base64,[A-Za-z0-9+/=]+", "", text)
    assert "://" not in bare and "url(" not in bare and "@import" not in bare
    assert not page.all("link") and not page.all("iframe")
    policy = next(a["content"] for a in page.all("meta") if "http-equiv" in a)
    assert policy.startswith("default-src 'none';") and "unsafe" not in policy


def test_hostile_names_stay_text(scored):
    page = Page(scored[2])
    assert not any("onerror" in attributes for _, attributes in page.elements)
    assert len(page.all("script")) == 1
    assert HOSTILE in page.text("th") and HOSTILE in page.text("strong")
    assert any(attributes["alt"].endswith(HOSTILE) for attributes in page.all("img"))


def test_names_that_are_no_text_are_shown():
    # A name that is not UTF-8, as os.listdir gives it, and one that XML forbids.
    assert printable("a\udcff\x07") == "a\ufffd\ufffd"


@pytest.mark.parametrize("name", ["a\udcff", "bell\x07", "$\\frac{1}{2}$", "{{ 7 * 7 }}", "\u732b"])
def test_any_name_makes_a_page(tmp_path, name):
    make_dataset(tmp_path / "data", tmp_path / "out", {name: 0, "b": 3})
    page = Page(write_report(tmp_path / "out", dataset="folder", root=tmp_path / "data"))
    assert printable(name) in page.text("th") and printable(name) in page.text("text")


# --- size -------------------------------------------------------------------------------------


def test_page_keeps_its_size_and_takes_the_worst_first(tmp_path):
    shifts = {f"s{number:02d}": 0 for number in range(10)} | {"worst": None, "last": 0}
    make_dataset(tmp_path / "data", tmp_path / "out", shifts, count=60, size=(120, 160), noise=255)
    path = write_report(tmp_path / "out", dataset="folder", root=tmp_path / "data", megabytes=0.5)
    assert path.stat().st_size < 500_000
    page = Page(path)
    names = [attributes["aria-label"].split(",")[0] for attributes in page.all("video")]
    assert 1 < len(names) < 12 and "worst" in names
    assert (
        f"{len(names)} of 12 clips are here, the worst and the best sequences first" in page.text()
    )
    assert all(frames_of(clip)[0] == 60 for clip in page.files("video/mp4"))


@pytest.mark.parametrize("count", [1, 30, 500])
def test_plan_fits_the_bytes(count):
    plans = plan_clips([(70, (480, 854))] * count, 10_000_000)
    assert sum(plan.most_bytes for plan in plans) <= 10_000_000
    assert [plan.index for plan in plans] == list(range(len(plans)))
    assert len(plans) == (count if count <= 30 else 85) and {plan.frames for plan in plans} == {70}
    assert plans[0].side == (640 if count <= 30 else 320)


def test_plan_cuts_long_videos_and_may_take_none():
    (plan,) = plan_clips([(100_000, (480, 854))], 10_000_000)
    assert plan.frames == 1500
    assert plan_clips([(70, (480, 854))], 5_000) == []
    assert plan_clips([], 5_000) == []


# --- runs without truth -----------------------------------------------------------------------


@pytest.fixture
def clip(tmp_path, monkeypatch):
    fake_api(monkeypatch)
    write_video(tmp_path / "clip.mp4", moving_frames(8))
    write_mask_image(tmp_path / "mask.png", square_mask(ids=(3, 44)))
    return tmp_path


def infer(clip, *more):
    files = [
        str(clip / "clip.mp4"),
        "--mask",
        str(clip / "mask.png"),
        "--output",
        str(clip / "out"),
    ]
    infer_main([*files, "--quiet", *more])


def test_report_of_a_single_video(clip):
    infer(clip, "--report", "--chunk", "2", "--no-overlay")
    out = clip / "out"
    page = Page(out / "report.html")
    assert [frames_of(content)[0] for content in page.files("video/mp4")] == [8]
    assert "There are no scores: a single video has no true masks" in page.text("p")
    settings = page.text("th", "td")
    assert "top_k" in settings and "52x36" in settings and "rde-lite" in settings
    rows = (out / "timing.csv").read_text().splitlines()
    assert rows[0] == "frames,seconds" and rows[-1].split(",")[0] == "8"
    assert "Time per frame along the video" in page.text("strong")
    # Made again later: from the frames, or from the masks alone.
    (out / "timing.csv").unlink()
    main([str(out), "--video", str(clip / "clip.mp4"), "--output", str(clip / "a.html")])
    main([str(out), "--output", str(clip / "b.html")])
    first, second = (Page(clip / name) for name in ("a.html", "b.html"))
    assert first.files("image/jpeg") == page.files("image/jpeg") != second.files("image/jpeg")
    assert "Time per frame" not in first.text()


def test_report_from_the_overlay_and_of_a_run_that_is_whole(clip):
    infer(clip)
    assert not (clip / "out" / "report.html").exists()
    main([str(clip / "out"), "--output", str(clip / "page.html")])
    page = Page(clip / "page.html")
    assert [frames_of(content)[0] for content in page.files("video/mp4")] == [8]
    picture = np.asarray(Image.open(io.BytesIO(page.files("image/jpeg")[0])))
    # Yellow of the frame under the paint of object 3: not the grey of masks without frames.
    assert picture[5, 3, 0] > 100
    infer(clip, "--report")
    assert (clip / "out" / "report.html").exists()


def test_results_without_scores_or_frames(tmp_path):
    make_dataset(tmp_path / "data", tmp_path / "out", {"a": 0, "b": 3})
    facts = {"frames": 6, "seconds": 3.0, "compile_seconds": 0.6, "objects": [1]}
    summary = {"frames": 12, "run": {}, "sequences": {"a": facts, "b": facts}}
    (tmp_path / "out" / "summary.json").write_text(json.dumps(summary))
    page = Page(write_report(tmp_path / "out"))
    assert "There are no scores: the run was not evaluated" in page.text("p")
    assert "masks without frames" in page.text("li")
    assert "400.0 ms" in page.text("text") and len(page.files("video/mp4")) == 2


def test_incomplete_results_json_leaves_dashes(tmp_path):
    make_dataset(tmp_path / "data", tmp_path / "out", {"a": 0, "b": 3})
    sequences = {"a": {"J&F-Mean": 0.5, "J-Mean": None}, "b": {"J-Mean": 0.25}}
    content = {"global": {"J&F-Mean": 0.5, "J-Mean": 0.25}, "sequences": sequences}
    (tmp_path / "out" / "results.json").write_text(json.dumps(content))
    page = Page(write_report(tmp_path / "out"))
    assert [a["data-value"] for a in page.all("td")][:4] == ["0.500000000", "", "", "0.250000000"]
    assert "–" in page.text("td", "text")


def test_without_matplotlib_the_page_says_what_its_plots_need(tmp_path, monkeypatch):
    make_dataset(tmp_path / "data", tmp_path / "out", {"a": 0, "b": 3})
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    page = Page(write_report(tmp_path / "out", dataset="folder", root=tmp_path / "data"))
    assert "no plots: charts need matplotlib" in page.text("li") and not page.all("svg")
    assert len(page.files("video/mp4")) == 2 and "100.0" in page.text("td")


def test_numbers_of_results_json_where_the_truth_is_not_at_hand(tmp_path):
    make_dataset(tmp_path / "data", tmp_path / "out", {"a": 0, "b": 3})
    arguments = ["--dataset", "folder", "--root", str(tmp_path / "data")]
    evaluate_main([*arguments, "--results", str(tmp_path / "out"), "--report"])
    page = Page(tmp_path / "out" / "report.html")
    assert "b along time" in page.text("strong") and len(page.files("video/mp4")) == 2
    later = Page(write_report(tmp_path / "out", tmp_path / "later.html"))
    numbers = [[a.get("data-value") for a in shown.all("td")] for shown in (page, later)]
    # Two sequences and the global row of seven columns.
    assert numbers[0][:21] == numbers[1][:21] and None not in numbers[0][:21]
    assert "along time" not in later.text("strong")
    table = read_table(tmp_path / "out" / "results.json")
    expected = ScoreTable.of(evaluate("folder", tmp_path / "data", tmp_path / "out"))
    assert table.total == expected.total and table.objects == expected.objects
    assert table.ranking == expected.ranking == ["b", "a"]


def test_truth_of_first_masks_only_is_no_error(tmp_path):
    make_dataset(tmp_path / "data", tmp_path / "out", {"a": 0})
    for path in sorted((tmp_path / "data" / "Annotations" / "a").iterdir())[1:]:
        path.unlink()
    page = Page(write_report(tmp_path / "out", dataset="folder", root=tmp_path / "data"))
    assert "only 1 true masks" in page.text("p") and len(page.files("video/mp4")) == 1


def test_report_of_a_data_set_run(tmp_path, monkeypatch):
    fake_api(monkeypatch)
    make_dataset(tmp_path / "data", tmp_path / "unused", {"a": 0, "b": 3})
    where = ["--root", str(tmp_path / "data"), "--output", str(tmp_path / "out")]
    infer_main(["--dataset", "folder", *where, "--quiet", "--report"])
    page = Page(tmp_path / "out" / "report.html")
    # The stand-in for a model moves objects as the squares move.
    assert "100.0" in page.text("dd") and "Time per frame" in page.text("strong")
    assert not (tmp_path / "out" / "timing.csv").exists()


# --- bad folders ------------------------------------------------------------------------------


def fails(capsys, *arguments):
    with pytest.raises(SystemExit) as caught:
        main([str(argument) for argument in arguments])
    assert caught.value.code == 2
    message = capsys.readouterr().err.strip()
    assert message.startswith("error: ") and "\n" not in message
    return message


def test_folders_that_are_no_result(tmp_path, capsys):
    assert "no such folder" in fails(capsys, tmp_path / "none")
    (tmp_path / "empty").mkdir()
    assert "not a result" in fails(capsys, tmp_path / "empty")
    (tmp_path / "begun" / "unfinished").mkdir(parents=True)
    assert "not finished" in fails(capsys, tmp_path / "begun")
    (tmp_path / "odd").mkdir()
    (tmp_path / "odd" / "summary.json").write_text('{"sequences": [1]}')
    assert "not written by rdejax infer" in fails(capsys, tmp_path / "odd")
    assert "belong together" in fails(capsys, tmp_path / "empty", "--root", tmp_path)
    assert "--megabytes" in fails(capsys, tmp_path / "empty", "--megabytes", 0.1)


def test_missing_masks_are_named_and_the_old_page_stays(tmp_path, capsys):
    data, out = tmp_path / "data", tmp_path / "out"
    make_dataset(data, out, {"a": 0, "b": 3})
    arguments = (out, "--dataset", "folder", "--root", data)
    (out / "report.html").write_text("old")
    (out / "b" / "00003.png").unlink()
    assert "00003" in fails(capsys, *arguments)
    facts = {"frames": 6}
    summary = {"run": {}, "sequences": {"a": facts, "b": facts}}
    (out / "summary.json").write_text(json.dumps(summary))
    assert re.search(r"b: no mask for frame 00003 \(1 of 6", fails(capsys, *arguments))
    assert "5 masks where 6 should be" in fails(capsys, out)
    for path in (out / "b").iterdir():
        path.unlink()
    (out / "b").rmdir()
    assert "no results for this sequence" in fails(capsys, *arguments)
    assert (out / "report.html").read_text() == "old"
    assert sorted(path.name for path in out.iterdir()) == ["a", "report.html", "summary.json"]


def test_bad_files(clip, capsys):
    infer(clip)
    out = clip / "out"
    (out / "timing.csv").write_text("frames,seconds\nmany,1\n")
    assert "timing.csv" in fails(capsys, out)
    (out / "timing.csv").unlink()
    assert "--root and --dataset are for data sets" in fails(
        capsys, out, "--dataset", "folder", "--root", clip
    )
    (out / "overlay.mp4").unlink()
    (out / "masks" / "00004.png").write_bytes(b"no image")
    assert "00004.png: not a readable mask" in fails(capsys, out)
    (out / "masks" / "00004.png").unlink()
    assert "7 masks where 8 should be" in fails(capsys, out)


def test_broken_results_json(tmp_path):
    (tmp_path / "results.json").write_text('{"global": {}, "sequences": []}')
    with pytest.raises(RdejaxError, match="not written by rdejax.evaluate"):
        read_table(tmp_path / "results.json")
    assert read_table(tmp_path / "none.json") is None


# --- parts ------------------------------------------------------------------------------------


def test_curves_are_means_over_the_objects_that_count():
    first = ObjectScore("s", 1, ("1", "2", "3"), np.array([1, 0.5, 0]), np.array([1, 1, 1.0]))
    later = ObjectScore("s", 2, ("3",), np.array([1.0]), np.array([0.0]))
    curve = mean_curve([later, first])
    assert curve.frames == ("1", "2", "3")
    np.testing.assert_allclose(curve.j, [1, 0.5, 0.5])
    np.testing.assert_allclose(curve.f, [1, 1, 0.5])
    np.testing.assert_allclose(curve.mean, [1, 0.75, 0.5])


def test_curves_leave_gaps_and_stay_inside(monkeypatch):
    (axes,) = drawn(
        monkeypatch,
        _curve_chart,
        "t",
        range(6),
        ("a", "b"),
        {"J": [0, np.nan, 50, 60, np.nan, 200]},
    ).axes
    line, *dots = axes.lines
    np.testing.assert_allclose(line.get_ydata(), [0, np.nan, 50, 60, np.nan, 100])
    # A value between two gaps is a dot.
    assert [(dot.get_xdata()[0], dot.get_ydata()[0]) for dot in dots] == [(0, 0), (5, 100)]
    assert axes.get_ylim()[0] == 0 and 100 < axes.get_ylim()[1] < 110


def drawn(monkeypatch, chart, *arguments):
    """The figure that a chart is made of."""
    figures = []
    monkeypatch.setattr(score_charts, "inline_svg", lambda figure, label: figures.append(figure))
    chart(*arguments, 100.0, "%")
    return figures[0]


def test_bars_are_as_long_as_their_values(monkeypatch):
    (axes,) = drawn(monkeypatch, _bar_chart, "t", ["a", "b"], {"J": [25.0, np.nan]}).axes
    assert [bar.get_width() for bar in axes.patches][0] == 25.0
    assert [text.get_text() for text in axes.texts] == ["25.0%", "–"]
    assert axes.get_xlim()[0] == 0 and axes.get_ylim()[0] > axes.get_ylim()[1]


def test_charts_of_the_page_are_shapes_and_text_alone():
    with chart_style():
        figure, (axes,) = new_figure(1, (4, 2))
        axes.plot([0, 1], [0, 1], color="#0969da")
        axes.set_title("<b>")
        axes.tick_params(length=0)
        svg = inline_svg(figure, 'a "label"')
    assert 'stroke="var(--j)"' in svg and "&lt;b&gt;" in svg and "a &quot;label&quot;" in svg
    assert not re.search(r"style=|id=|href|url\(|://|<(use|style|defs|metadata|clipPath)", svg)


def test_labels_for_painting(tmp_path):
    def read(values, merge=False, mode=None):
        image = Image.fromarray(np.array([values], np.uint8))
        (image.convert(mode) if mode else image).save(tmp_path / "m.png")
        rules = merged(PAINTING) if merge else PAINTING
        return read_mask(tmp_path / "m.png", rules).tolist()[0]

    assert read([0, 255, 255]) == [0, 1, 1]
    assert read([0, 2, 255]) == [0, 2, 0]
    assert read([0, 2, 7], merge=True) == [0, 1, 1]
    assert read([0, 200, 255], mode="RGB") == [0, 1, 1]
