"""The page: its sections put together, with style and script inside."""

import base64
import dataclasses
import hashlib
from collections.abc import Sequence
from importlib import resources

from rdejax.report.clips import Clip
from rdejax.report.gallery import clips_section, strips_section
from rdejax.report.markup import Html, element
from rdejax.report.plots import Series, bars, lines
from rdejax.report.run import Run
from rdejax.report.scores import ScoreTable
from rdejax.report.strips import Cell
from rdejax.report.tables import scores_section, settings_section, summary_section

# Sequences at each end of the ranking whose curves are drawn.
_CURVES = 2


@dataclasses.dataclass(frozen=True)
class Contents:
    """Everything a page shows.

    Attributes:
      run: the result folder.
      scores: or None.
      unscored: why there are none; empty if there are.
      notes: one sentence each.
      strips: by sequence, the worst first.
      clips: by video.
      megabytes: the limit of the page's size.
      pace: (frames done, seconds since the start) along a single video; may be empty.
      made: when the page was made.
      version: of this library.
    """

    run: Run
    scores: ScoreTable | None
    unscored: str
    notes: tuple[str, ...]
    strips: dict[str, list[Cell]]
    clips: dict[str, Clip]
    megabytes: float
    pace: Sequence[tuple[int, float]]
    made: str
    version: str


def render(contents: Contents) -> str:
    """The whole page as text."""
    style, script = (_asset(name) for name in ("page.css", "page.js"))
    run = contents.run
    title = run.videos[0].name if run.single else run.path.resolve().name
    # Belt and braces: even if some text escaped escaping, nothing would be loaded or run.
    policy = (
        "default-src 'none'; img-src data:; media-src data:; "
        f"style-src '{_digest(style)}'; script-src '{_digest(script)}'"
    )
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", http_equiv="Content-Security-Policy", content=policy),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="color-scheme", content="light dark"),
        element("title", f"{title} – rdejax report"),
        element("style", style),
    )
    sections = [
        summary_section(run, contents.scores),
        notes_section([*contents.notes, *(contents.scores.notes if contents.scores else ())]),
        scores_section(contents.scores, contents.unscored),
        plots_section(contents),
        strips_section(contents.strips, contents.scores),
        clips_section(run, contents.clips, contents.scores, contents.megabytes),
        settings_section(run),
    ]
    body = element(
        "body",
        element("header", element("h1", title), element("p", _subtitle(contents))),
        element("main", *(section for section in sections if section)),
        element("footer", f"Made by rdejax {contents.version}, {contents.made}."),
        element("script", script),
    )
    return f"<!DOCTYPE html>\n{element('html', head, body, lang='en')}\n"


def notes_section(notes: Sequence[str]) -> Html:
    """Sentences worth reading before the numbers; empty without any."""
    if not notes:
        return Html()
    listed = element("ul", *(element("li", note) for note in dict.fromkeys(notes)))
    return element("section", element("h2", "Notes"), listed, id="notes", class_="notes")


def plots_section(contents: Contents) -> Html:
    """Scores per sequence, along the best and worst sequences, and time; what there is of them."""
    plots = [*_score_plots(contents.scores), *_time_plots(contents)]
    if not plots:
        return Html()
    return element(
        "section", element("h2", "Plots"), element("div", *plots, class_="plots"), id="plots"
    )


def _score_plots(scores: ScoreTable | None) -> list[Html]:
    if scores is None:
        return []
    plots = []
    names = scores.ranking
    if "J-Mean" in scores.columns and "F-Mean" in scores.columns and names:
        series = [
            Series(letter, letter.lower(), [_percent(scores.sequences[n][column]) for n in names])
            for letter, column in (("J", "J-Mean"), ("F", "F-Mean"))
        ]
        plots.append(bars("J and F by sequence, worst first", names, series, 100.0, ""))
    ends = names if len(names) <= 2 * _CURVES else [*names[:_CURVES], *names[-_CURVES:]]
    for name in ends:
        curve = scores.curves.get(name)
        if curve is None or not curve.frames:
            continue
        series = [
            Series("J", "j", (100 * curve.j).tolist()),
            Series("F", "f", (100 * curve.f).tolist()),
        ]
        ticks = (f"frame {curve.frames[0]}", curve.frames[-1])
        place = range(len(curve.frames))
        plots.append(lines(f"{name} along time", place, ticks, series, 100.0, "%"))
    return plots


def _time_plots(contents: Contents) -> list[Html]:
    run = contents.run
    if run.single:
        return _pace_plot(contents.pace)
    known = [
        (video.name, milliseconds(video.facts)) for video in run.videos if video.facts.get("frames")
    ]
    times = [(name, value) for name, value in known if value is not None]
    if not times:
        return []
    values = [value for _, value in times]
    series = [Series("compilation left out", "time", values)]
    return [bars("Time per frame", [name for name, _ in times], series, max(*values, 1e-9), " ms")]


def _pace_plot(pace: Sequence[tuple[int, float]]) -> list[Html]:
    """Milliseconds per frame of each chunk."""
    steps = [
        (now[0], 1000 * (now[1] - before[1]) / (now[0] - before[0]))
        for before, now in zip(pace, pace[1:], strict=False)
        if now[0] > before[0]
    ]
    if len(steps) < 2:
        return []
    times = [time for _, time in steps]
    # Chunks that had to compile take many times as long and would hide all others.
    usual = sorted(times)[len(times) // 2]
    top = min(max(times), 3 * usual) or 1.0
    higher = sum(time > top for time in times)
    title = "Time per frame along the video"
    if higher:
        title += f", {higher} of {len(times)} chunks (compilation) beyond the top"
    ends = (f"frame {pace[0][0]}", str(pace[-1][0]))
    series = [Series("each chunk", "time", times)]
    return [lines(title, [done for done, _ in steps], ends, series, top, "ms")]


def milliseconds(facts) -> float | None:
    """Time per frame without compilation, from what a run noted."""
    try:
        return 1000 * (facts["seconds"] - facts["compile_seconds"]) / facts["frames"]
    except (KeyError, TypeError, ZeroDivisionError):
        return None


def _subtitle(contents: Contents) -> str:
    run = contents.run
    model = run.summary.get("model")
    what = "One video" if run.single else f"{len(run.videos)} sequences"
    return f"{what}{f', segmented by {model}' if model else ''}."


def _percent(value: float | None) -> float | None:
    return None if value is None else 100 * value


def _asset(name: str) -> Html:
    """A file beside this one; neither may hold a closing tag of its element."""
    return Html((resources.files("rdejax.report") / name).read_text("utf-8"))


def _digest(content: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()}"
