"""From a result folder to its page: gathers, scores, encodes within the size, writes."""

import datetime
from collections.abc import Callable, Sequence
from pathlib import Path

import rdejax
from rdejax.errors import RdejaxError
from rdejax.evaluate import Scores, evaluate
from rdejax.files import atomic
from rdejax.infer.timing import read_pace
from rdejax.io.video import FrameSource
from rdejax.report.clips import Clip, encode, plan_clips
from rdejax.report.page import Contents, render
from rdejax.report.pictures import mask_size
from rdejax.report.run import Run, Video, read_run
from rdejax.report.scores import ScoreTable, from_json, from_scores
from rdejax.report.strips import Cell, make_strip

# Sequences at each end of the ranking that get a strip, and how many without scores.
_ENDS = 3
_SAMPLES = 4
_BASE64 = 4 / 3
_PAGE_BYTES = 150_000  # markup, style and curves of a usual page

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
      results: folder that `infer.py` wrote, or any that `rdejax.evaluate` can score.
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
      RdejaxError: no result, an unfinished one, missing frames, or unreadable files.
      OSError: the page cannot be written.
    """
    if megabytes < 0.5:
        raise RdejaxError(f"--megabytes {megabytes:g}: too little for a page; give 0.5 or more")
    if (dataset is None) != (root is None):
        raise RdejaxError("--dataset and --root belong together: give both, or neither")
    path = Path(output) if output is not None else Path(results) / "report.html"
    run = read_run(results, dataset=dataset, root=root, split=split, video=video)
    table, reason = _score(run, dataset, root, split, scores, workers)
    stale = _stale(run, table, scores)
    most_bytes = int((1e6 * megabytes - _PAGE_BYTES) / _BASE64)
    strips = _strips(run, table, most_bytes // 2)
    left = most_bytes - sum(cell.size for cells in strips.values() for cell in cells)
    clips = _clips(_by_importance(run.videos, table), left, on_videos)
    if table is not None and reason:
        stale = (f"The numbers are those of results.json: {reason}.", *stale)
    contents = Contents(
        run=run,
        scores=table,
        unscored="" if table else f"There are no scores: {reason}.",
        notes=(*run.notes, *stale),
        strips=strips,
        clips=clips,
        megabytes=megabytes,
        pace=read_pace(run.path / "timing.csv") if run.single else [],
        made=f"{datetime.datetime.now(datetime.UTC):%Y-%m-%d %H:%M} UTC",
        version=rdejax.__version__,
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic(path) as temporary:
        temporary.write_text(render(contents), encoding="utf-8")
    return path


def _score(
    run: Run,
    dataset: str | None,
    root: str | Path | None,
    split: str,
    scores: Scores | None,
    workers: int | None,
) -> tuple[ScoreTable | None, str]:
    """The scores, and why they could not be found now."""
    if scores is not None:
        return from_scores(scores), ""
    written = from_json(run.path / "results.json")
    if run.single:
        return None, "a single video has no true masks to be compared with"
    if dataset is None or root is None:
        return written, "" if written else "the run was not evaluated (no results.json)"
    # The masks of test splits are not public; that is no mistake of the run.
    closed = any(len(video.truth) < 3 for video in run.videos)
    try:
        return from_scores(evaluate(dataset, root, run.path, split, workers)), ""
    except RdejaxError as error:
        if not closed and dataset != "youtube-vos":
            raise
        return written, f"the masks cannot be compared with the truth ({error})"


def _stale(run: Run, table: ScoreTable | None, scores: Scores | None) -> tuple[str, ...]:
    """Whether the masks changed after results.json, where the numbers come from, was written."""
    if table is None or scores is not None or table.curves:
        return ()
    written = (run.path / "results.json").stat().st_mtime
    newest = max(
        (path.stat().st_mtime for video in run.videos for path in video.masks.values()),
    )
    if newest <= written + 1:
        return ()
    return ("The masks are newer than results.json: evaluate again to get their scores.",)


def _by_importance(videos: Sequence[Video], table: ScoreTable | None) -> list[Video]:
    """The worst, the best, the second worst, ...; as they come where nothing is known."""
    if table is None:
        return list(videos)
    known = {video.name: video for video in videos}
    rest = [name for name in table.ranking if name in known]
    ordered: list[str] = []
    while rest:
        ordered.append(rest.pop(0 if len(ordered) % 2 == 0 else -1))
    return [known[name] for name in dict.fromkeys([*ordered, *known])]


def _strips(run: Run, table: ScoreTable | None, most_bytes: int) -> dict[str, list[Cell]]:
    """Strips by sequence, the worst first; as many as fit."""
    known = {video.name: video for video in run.videos}
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
        cells = make_strip(known[name], table.curves.get(name) if table else None)
        spent += sum(cell.size for cell in cells)
        if spent > most_bytes:
            break
        strips[name] = cells
    return {name: strips[name] for name in names if name in strips}


def _clips(videos: Sequence[Video], most_bytes: int, on_videos: OnVideos) -> dict[str, Clip]:
    """Clips by name, as many as fit."""
    plans = plan_clips([(len(video.masks), mask_size(video)) for video in videos], most_bytes)
    clips: dict[str, Clip] = {}
    spent = 0
    for number, plan in enumerate(plans):
        clip = encode(videos[plan.index], plan)
        # The encoder may miss its rate on a clip; the page's size is a promise.
        if spent + len(clip.content) <= most_bytes:
            clips[videos[plan.index].name] = clip
            spent += len(clip.content)
        on_videos(number + 1, len(plans))
    return clips
