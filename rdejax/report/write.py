"""From a result folder to its page: gathers, scores, encodes within the size, writes."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from rdejax.errors import RdejaxError
from rdejax.evaluate import Scores, evaluate
from rdejax.evaluate.score_table import ScoreTable
from rdejax.evaluate.scores import Curve
from rdejax.files import atomic, read_json
from rdejax.io.video import FrameSource
from rdejax.report.frames import Cell, make_strip, mask_size
from rdejax.report.mp4 import Mp4, encode_clip, plan_clips
from rdejax.report.page import Contents, render
from rdejax.report.result_set import ResultSet, ResultVideo, read_results
from rdejax.report.score_charts import Chart, score_charts, time_charts
from rdejax.visualize.charts import need_matplotlib

# Sequences at each end of the ranking that get a strip, and how many without scores.
_ENDS = 3
_SAMPLES = 4
_BASE64 = 4 / 3
_PAGE_BYTES = 100_000  # markup and style of a usual page

OnVideos = Callable[[int, int], object]


def write_report(
    results: str | Path,
    output: str | Path | None = None,
    *,
    dataset: str | None = None,
    root: str | Path | None = None,
    split: str = "val",
    video: str | Path | FrameSource | None = None,
    scores: Scores | None = None,
    megabytes: float = 15.0,
    workers: int | None = None,
    on_videos: OnVideos = lambda done, total: None,
) -> Path:
    """Writes one self-contained HTML page about a run.

    With a data set the results are scored (unless `scores` are given), and compared with the truth;
    where it has too few masks for that, or is not given, the page says so and takes the numbers of
    `results.json`, if that is there.

    Args:
      results: folder that `rdejax infer` wrote, or any that `rdejax.evaluate` can score.
      output: the HTML file; `report.html` in the results folder unless given.
      dataset: kind of the data set, as for `rdejax.io.datasets.list_sequences`.
      root: its top folder.
      split: which sequences.
      video: of a single video's result: the video, so that its frames are painted in good quality.
      scores: what `rdejax.evaluate.evaluate` found for these results.
      megabytes: the page stays under this, in units of 10^6 bytes; at least 0.5.
      workers: threads that score; one per core unless given.
      on_videos: told how many clips of how many are encoded.

    Returns:
      The path of the page.

    Raises:
      RdejaxError: a name that does not end in .html; no result, an unfinished one, missing frames,
        or unreadable files.
      OSError: the page cannot be written.
    """
    if megabytes < 0.5:
        raise RdejaxError(f"--megabytes {megabytes:g}: too little for a page; give 0.5 or more")
    if (dataset is None) != (root is None):
        raise RdejaxError("--dataset and --root belong together: give both, or neither")
    path = Path(output) if output is not None else Path(results) / "report.html"
    if path.suffix.lower() not in (".html", ".htm"):
        raise RdejaxError(f"{path}: the page is HTML; end its name in .html")
    found = read_results(results, dataset=dataset, root=root, split=split, video=video)
    table, curves, reason = _score(found, dataset, root, split, scores, workers)
    notes = [*found.notes]
    if table is not None and reason:
        notes.append(f"The numbers are those of results.json: {reason}.")
    if table is not None and not curves and _is_stale(found):
        notes.append("The masks are newer than results.json: evaluate again to get their scores.")
    charts = _charts(found, table, curves, notes)
    drawn = sum(len(chart.svg) for chart in charts)
    most_bytes = max(0, int((1e6 * megabytes - _PAGE_BYTES - drawn) / _BASE64))
    strips = _strips(found, table, curves, most_bytes // 2)
    left = most_bytes - sum(cell.size for cells in strips.values() for cell in cells)
    contents = Contents(
        results=found,
        table=table,
        unscored="" if table else f"There are no scores: {reason}.",
        notes=tuple(notes),
        charts=charts,
        strips=strips,
        clips=_clips(_by_importance(found.videos, table), left, on_videos),
        megabytes=megabytes,
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic(path) as temporary:
        temporary.write_text(render(contents), encoding="utf-8")
    return path


def read_table(path: Path) -> ScoreTable | None:
    """Reads `results.json`; None if there is none.

    Raises:
      RdejaxError: the file is not what `rdejax.evaluate` writes.
    """
    content = read_json(path)
    try:
        return None if content is None else ScoreTable.from_json(content)
    except ValueError:
        raise RdejaxError(
            f"{path}: not written by rdejax.evaluate; evaluate again or move the file away"
        ) from None


def _score(
    results: ResultSet,
    dataset: str | None,
    root: str | Path | None,
    split: str,
    scores: Scores | None,
    workers: int | None,
) -> tuple[ScoreTable | None, Mapping[str, Curve], str]:
    """The scores, along the sequences too, and why they could not be found now."""
    if scores is None:
        written = read_table(results.path / "results.json")
        if results.single:
            return None, {}, "a single video has no true masks to be compared with"
        if dataset is None or root is None:
            reason = "" if written else "the run was not evaluated (no results.json)"
            return written, {}, reason
        # The masks of test splits are not public; that is no mistake of the run.
        closed = any(len(video.truth) < 3 for video in results.videos)
        try:
            scores = evaluate(dataset, root, results.path, split, workers)
        except RdejaxError as error:
            if not closed and dataset != "youtube-vos":
                raise
            return written, {}, f"the masks cannot be compared with the truth ({error})"
    return ScoreTable.of(scores), scores.curves, ""


def _is_stale(results: ResultSet) -> bool:
    """Whether the masks changed after results.json, where the numbers come from, was written."""
    written = (results.path / "results.json").stat().st_mtime
    masks = (path for video in results.videos for path in video.masks.values())
    return max(path.stat().st_mtime for path in masks) > written + 1


def _charts(
    results: ResultSet, table: ScoreTable | None, curves: Mapping[str, Curve], notes: list[str]
) -> list[Chart]:
    """The charts; without matplotlib none, of which a note tells."""
    try:
        need_matplotlib()
    except RdejaxError as error:
        notes.append(f"There are no plots: {error}.")
        return []
    return [*(score_charts(table, curves) if table else []), *time_charts(results)]


def _by_importance(videos: Sequence[ResultVideo], table: ScoreTable | None) -> list[ResultVideo]:
    """The worst, the best, the second worst, ...; as they come where nothing is known."""
    if table is None:
        return list(videos)
    known = {video.name: video for video in videos}
    rest = [name for name in table.ranking if name in known]
    ordered: list[str] = []
    while rest:
        ordered.append(rest.pop(0 if len(ordered) % 2 == 0 else -1))
    return [known[name] for name in dict.fromkeys([*ordered, *known])]


def _strips(
    results: ResultSet, table: ScoreTable | None, curves: Mapping[str, Curve], most_bytes: int
) -> dict[str, list[Cell]]:
    """Strips by sequence, the worst first; as many as fit."""
    known = {video.name: video for video in results.videos}
    ranking = [name for name in table.ranking if name in known] if table else []
    if len(ranking) > 2 * _ENDS:
        names = [*ranking[:_ENDS], *ranking[-_ENDS:]]
    else:
        names = ranking or list(known)[:_SAMPLES]
    strips: dict[str, list[Cell]] = {}
    spent = 0
    for name in dict.fromkeys(
        name for pair in zip(names, names[::-1], strict=True) for name in pair
    ):
        cells = make_strip(known[name], curves.get(name))
        spent += sum(cell.size for cell in cells)
        if spent > most_bytes:
            break
        strips[name] = cells
    return {name: strips[name] for name in names if name in strips}


def _clips(videos: Sequence[ResultVideo], most_bytes: int, on_videos: OnVideos) -> dict[str, Mp4]:
    """Clips by name, as many as fit."""
    plans = plan_clips([(len(video.masks), mask_size(video)) for video in videos], most_bytes)
    clips: dict[str, Mp4] = {}
    spent = 0
    for number, plan in enumerate(plans):
        clip = encode_clip(videos[plan.index], plan)
        # The encoder may miss its rate on a clip; the page's size is a promise.
        if spent + len(clip.content) <= most_bytes:
            clips[videos[plan.index].name] = clip
            spent += len(clip.content)
        on_videos(number + 1, len(plans))
    return clips
