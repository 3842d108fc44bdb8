"""Summary, scores and settings of a run as tables."""

from collections.abc import Iterator, Mapping
from typing import Any

from rdejax.report.markup import Html, element
from rdejax.report.run import Run
from rdejax.report.scores import Row, ScoreTable


def summary_section(run: Run, scores: ScoreTable | None) -> Html:
    """The few numbers one looks for first."""
    items = []
    if scores is not None:
        extra = [name for name in ("G", "J&F-Mean", "J-Mean", "F-Mean") if name in scores.total]
        items += [(name.removesuffix("-Mean"), percent(scores.total[name])) for name in extra]
    if not run.single:
        items.append(("sequences", str(len(run.videos))))
    objects = run.summary.get("objects")
    if objects:
        items.append(("objects", str(len(objects) if isinstance(objects, list) else objects)))
    frames = run.summary.get("frames") or sum(len(video.masks) for video in run.videos)
    items.append(("frames", str(frames)))
    rate = run.summary.get("frames_per_second")
    if rate:
        items.append(("frames per second", f"{rate:.3g}"))
    entries = [element("div", element("dt", name), element("dd", value)) for name, value in items]
    return element(
        "section", element("h2", "Summary"), element("dl", *entries, class_="cards"), id="summary"
    )


def scores_section(scores: ScoreTable | None, unscored: str) -> Html:
    """Scores per sequence, sortable, with the global row; per object below, folded.

    Args:
      scores: or None.
      unscored: why there are none.
    """
    if scores is None:
        return element("section", element("h2", "Scores"), element("p", unscored), id="scores")
    columns = tuple(next(iter(scores.sequences.values()), scores.total))
    parts = [
        element("h2", "Scores"),
        element("p", "Per cent. A heading sorts by its column.", class_="hint"),
        _score_table("Scores by sequence", columns, scores.sequences, scores.total),
    ]
    extra = [name for name in scores.total if name not in columns]
    if extra:
        text = ", ".join(f"{name} {percent(scores.total[name])}" for name in extra)
        parts.append(element("p", f"Over all objects: {text}."))
    if len(scores.objects) > len(scores.sequences):
        table = _score_table("Scores by object", columns, scores.objects, None)
        parts.append(element("details", element("summary", "By object"), table))
    return element("section", *parts, id="scores")


def settings_section(run: Run) -> Html:
    """All that `summary.json` tells of how the result was made."""
    facts = list(flatten(_settings(run)))
    if not facts:
        text = "Unknown: there is no summary.json of infer.py in the folder."
        return element("section", element("h2", "Settings"), element("p", text), id="settings")
    rows = [
        element("tr", element("th", name, scope="row"), element("td", value))
        for name, value in facts
    ]
    table = element("table", element("tbody", *rows), class_="settings")
    return element("section", element("h2", "Settings"), table, id="settings")


def percent(value: float | None) -> str:
    """A fraction in per cent."""
    return "–" if value is None else f"{100 * value:.1f}"


def flatten(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """(name, text) of every value, those of inner mappings as outer.inner."""
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from flatten(value, f"{prefix}{name}.")
        elif isinstance(value, list):
            yield f"{prefix}{name}", ", ".join(map(str, value))
        else:
            yield f"{prefix}{name}", "none" if value is None else str(value)


def _settings(run: Run) -> dict[str, Any]:
    """Names people know, in the order of what they ask first."""
    summary = run.summary
    inner = summary.get("run", {})
    bundled = summary.get("weights")
    checkpoint = inner.get("checkpoint")
    if bundled and checkpoint:
        checkpoint = f"{checkpoint} ({bundled})"
    height, width = summary.get("height"), summary.get("width")
    made = {
        "model": summary.get("model"),
        "parameters": f"{summary['parameters']:,}" if "parameters" in summary else None,
        "checkpoint": checkpoint,
    }
    facts = {
        "data set": inner.get("dataset"),
        "split": summary.get("split"),
        "video": inner.get("source", {}).get("name"),
        "size of the video": f"{width}x{height}" if width and height else None,
        "frames per second of the video": summary.get("fps"),
        "seconds": summary.get("seconds"),
        "seconds of it compiling": summary.get("compile_seconds"),
        "compilations": summary.get("compilations"),
        "rdejax": summary.get("version"),
        "JAX": summary.get("jax"),
        "device": summary.get("device"),
    }
    made, facts = (
        {name: value for name, value in group.items() if value is not None}
        for group in (made, facts)
    )
    # In settings None means something: no limit, or the video's own size.
    return {**made, **summary.get("settings", {}), **facts}


def _score_table(
    title: str, columns: tuple[str, ...], rows: Mapping[str, Row], total: Row | None
) -> Html:
    heads = [
        element("th", element("button", name, type="button"), scope="col")
        for name in ("Sequence" if total is not None else "Object", *columns)
    ]
    parts = [
        element("caption", title),
        element("thead", element("tr", *heads)),
        element("tbody", *(_score_row(name, columns, row) for name, row in rows.items())),
    ]
    if total is not None:
        parts.append(element("tfoot", _score_row("Global", columns, total)))
    table = element("table", *parts, class_="scores sortable")
    # A wide table scrolls in its own box, which the keyboard has to reach.
    return element("div", table, class_="scroll", tabindex=0, role="region", aria_label=title)


def _score_row(name: str, columns: tuple[str, ...], row: Row) -> Html:
    cells = [
        element(
            "td",
            percent(row.get(column)),
            data_value="" if row.get(column) is None else f"{row[column]:.9f}",
        )
        for column in columns
    ]
    return element("tr", element("th", name, scope="row"), *cells)
