"""The page: what `page.html` shows, put together, with style and script inside."""

import base64
import dataclasses
import datetime
import hashlib
import math
from collections.abc import Iterator, Mapping
from importlib import resources
from typing import Any

import jinja2
from markupsafe import Markup

import rdejax
from rdejax.evaluate.score_table import ScoreTable, percent
from rdejax.report.frames import Cell
from rdejax.report.mp4 import Mp4
from rdejax.report.result_set import ResultSet
from rdejax.report.score_charts import Chart
from rdejax.visualize.charts import printable


@dataclasses.dataclass(frozen=True)
class Contents:
    """Everything a page shows.

    Attributes:
      results: the result folder.
      table: the scores, or None.
      unscored: why there are none; empty if there are.
      notes: one sentence each.
      charts: in order.
      strips: by sequence, the worst first.
      clips: by video.
      megabytes: the limit of the page's size.
    """

    results: ResultSet
    table: ScoreTable | None
    unscored: str
    notes: tuple[str, ...]
    charts: list[Chart]
    strips: dict[str, list[Cell]]
    clips: dict[str, Mp4]
    megabytes: float


def render(contents: Contents) -> str:
    """The whole page as text."""
    style, script = (_asset(name) for name in ("page.css", "page.js"))
    results, clips = contents.results, contents.clips
    table = contents.table or ScoreTable({}, {}, {})
    columns = list(next(iter(table.sequences.values()), table.total))
    cells = [cell for strip in contents.strips.values() for cell in strip]
    model = results.summary.get("model")
    what = "One video" if results.single else f"{len(results.videos)} sequences"
    # File names are anyone's: text is escaped, and what still passed for markup would load nothing.
    page = jinja2.Environment(
        loader=jinja2.FunctionLoader(_asset),
        autoescape=True,
        finalize=lambda value: printable(value) if type(value) is str else value,
        undefined=jinja2.StrictUndefined,
    )
    page.filters |= {
        "percent": lambda value: percent(value, undefined="–"),
        "exact": lambda value: "" if math.isnan(value) else f"{value:.9f}",
        "data_uri": lambda content, kind: f"data:{kind};base64,{_base64(content)}",
    }
    return page.get_template("page.html").render(
        {field.name: getattr(contents, field.name) for field in dataclasses.fields(contents)},
        table=table,
        columns=columns,
        nan=math.nan,
        extra={name: value for name, value in table.total.items() if name not in columns},
        title=results.videos[0].name if results.single else results.path.resolve().name,
        subtitle=f"{what}{f', segmented by {model}' if model else ''}.",
        summary=list(_summary(results, table)),
        notes=list(dict.fromkeys([*contents.notes, *table.notes])),
        ranked=len(contents.strips) > 1 and set(contents.strips) <= set(table.sequences),
        strips_hint=_strips_hint(cells),
        videos=results.videos,
        cut=any(clips[v.name].frames < len(v.masks) for v in results.videos if v.name in clips),
        settings=list(_flatten(_settings(results.summary))),
        policy=(
            "default-src 'none'; img-src data:; media-src data:; "
            f"style-src '{_digest(style)}'; script-src '{_digest(script)}'"
        ),
        style=Markup(style),
        script=Markup(script),
        made=f"{datetime.datetime.now(datetime.UTC):%Y-%m-%d %H:%M} UTC",
        version=rdejax.__version__,
    )


def _summary(results: ResultSet, table: ScoreTable) -> Iterator[tuple[str, str]]:
    """The few numbers one looks for first."""
    for name in ("G", "J&F-Mean", "J-Mean", "F-Mean"):
        if name in table.total:
            yield name.removesuffix("-Mean"), percent(table.total[name], undefined="–")
    summary = results.summary
    if not results.single:
        yield "sequences", str(len(results.videos))
    if objects := summary.get("objects"):
        yield "objects", str(len(objects) if isinstance(objects, list) else objects)
    yield "frames", str(summary.get("frames") or sum(len(v.masks) for v in results.videos))
    if rate := summary.get("frames_per_second"):
        yield "frames per second", f"{rate:.3g}"


def _strips_hint(cells: list[Cell]) -> str:
    if not any(cell.truth for cell in cells):
        return ""
    text = "Above the truth, below the result."
    if any(cell.worst for cell in cells):
        text += " The frame with the lowest J&F of each sequence is among them, framed."
    return text


def _settings(summary: Mapping[str, Any]) -> dict[str, Any]:
    """All that `summary.json` tells of how the result was made, what people ask first first."""
    run = summary.get("run", {})
    checkpoint, bundled = run.get("checkpoint"), summary.get("weights")
    size = [summary.get(side) for side in ("width", "height")]
    made = {
        "model": summary.get("model"),
        "parameters": f"{summary['parameters']:,}" if "parameters" in summary else None,
        "checkpoint": f"{checkpoint} ({bundled})" if bundled and checkpoint else checkpoint,
    }
    facts = {
        "data set": run.get("dataset"),
        "split": summary.get("split"),
        "video": run.get("source", {}).get("name"),
        "size of the video": "x".join(map(str, size)) if all(size) else None,
        "frames per second of the video": summary.get("fps"),
        "seconds": summary.get("seconds"),
        "seconds of it compiling": summary.get("compile_seconds"),
        "compilations": summary.get("compilations"),
        "rdejax": summary.get("version"),
        "JAX": summary.get("jax"),
        "device": summary.get("device"),
    }
    made, facts = ({k: v for k, v in part.items() if v is not None} for part in (made, facts))
    # In settings None means something: no limit, or the video's own size.
    return {**made, **summary.get("settings", {}), **facts}


def _flatten(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """(name, text) of every value, those of inner mappings as outer.inner."""
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _flatten(value, f"{prefix}{name}.")
        elif isinstance(value, list):
            yield f"{prefix}{name}", ", ".join(map(str, value))
        else:
            yield f"{prefix}{name}", "none" if value is None else str(value)


def _asset(name: str) -> str:
    """A file beside this one."""
    return (resources.files("rdejax.report") / name).read_text("utf-8")


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode("ascii")


def _digest(content: str) -> str:
    return f"sha256-{_base64(hashlib.sha256(content.encode()).digest())}"
