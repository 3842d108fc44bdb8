"""The pictures of the page: contact strips and clips."""

from collections.abc import Mapping

from rdejax.report.clips import Clip
from rdejax.report.markup import Html, data_uri, element
from rdejax.report.run import Run
from rdejax.report.scores import ScoreTable
from rdejax.report.strips import Cell
from rdejax.report.tables import percent


def strips_section(strips: Mapping[str, list[Cell]], scores: ScoreTable | None) -> Html:
    """Strips of the worst sequences, then of the best; without scores, of some."""
    if not strips:
        return Html()
    ranking = scores.ranking if scores else []
    names = list(strips)
    ranked = len(names) > 1 and set(names) <= set(ranking)
    parts = [element("h2", "Best and worst sequences" if ranked else "Frames")]
    if any(cell.truth for cells in strips.values() for cell in cells):
        text = "Above the truth, below the result."
        if any(cell.worst for cells in strips.values() for cell in cells):
            text += " The frame with the lowest J&F of each sequence is among them, framed."
        parts.append(element("p", text, class_="hint"))
    half = (len(names) + 1) // 2
    for place, name in enumerate(names):
        if ranked and place in (0, half):
            parts.append(element("h3", "Worst" if place == 0 else "Best"))
        parts.append(_strip(name, strips[name], scores))
    return element("section", *parts, id="strips")


def clips_section(
    run: Run, clips: Mapping[str, Clip], scores: ScoreTable | None, megabytes: float
) -> Html:
    """The clips that fit, and a sentence about those that did not."""
    parts = [element("h2", "Clips" if len(run.videos) > 1 else "Clip")]
    if len(clips) < len(run.videos):
        which = "the worst and the best sequences first, " if scores else ""
        parts.append(
            element(
                "p",
                f"{len(clips)} of {len(run.videos)} clips are here, {which}because the page is "
                f"kept under {megabytes:g} MB and quick to make.",
                class_="hint",
            )
        )
    cut = False
    cards = []
    for video in run.videos:
        clip = clips.get(video.name)
        if clip is None:
            continue
        cut |= clip.frames < len(video.masks)
        cards.append(_clip(video.name, clip, len(video.masks), video.fps, scores))
    if cut:
        text = "Long clips are cut; their captions tell how much is shown."
        parts.append(element("p", text, class_="hint"))
    return element(
        "section",
        *parts,
        element("div", *cards, class_="clips" if len(cards) > 1 else "clips one"),
        id="clips",
    )


def _strip(name: str, cells: list[Cell], scores: ScoreTable | None) -> Html:
    return element(
        "figure",
        element("figcaption", element("strong", name), _jf(name, scores)),
        element("ol", *(_cell(name, cell) for cell in cells), class_="strip"),
    )


def _cell(name: str, cell: Cell) -> Html:
    pictures = [("result", cell.result)]
    if cell.truth is not None:
        pictures.insert(0, ("truth", cell.truth))
    images = [
        element(
            "img",
            src=data_uri("image/jpeg", content),
            alt=f"{kind} in frame {cell.frame} of {name}",
            loading="lazy",
        )
        for kind, content in pictures
    ]
    captions = [element("span", cell.frame)]
    if cell.j is not None and cell.f is not None:
        captions.append(element("span", f"J {percent(cell.j)}, F {percent(cell.f)}"))
    return element("li", *images, *captions, class_="worst" if cell.worst else None)


def _clip(name: str, clip: Clip, frames: int, fps: float, scores: ScoreTable | None) -> Html:
    shown = f"{clip.frames} of {frames}" if clip.frames < frames else f"{frames}"
    height, width = clip.size
    return element(
        "figure",
        element(
            "video",
            controls=True,
            loop=True,
            muted=True,
            playsinline=True,
            preload="auto",
            width=width,
            height=height,
            aria_label=f"{name}, with the resulting masks painted on",
            src=data_uri("video/mp4", clip.content),
        ),
        element("p", "This browser does not play this clip (H.264).", class_="unplayable"),
        element(
            "figcaption",
            element("strong", name),
            _jf(name, scores),
            f", {shown} frames, {fps:g} per second",
        ),
    )


def _jf(name: str, scores: ScoreTable | None) -> str:
    """The number sequences are ranked by, where there is one."""
    if scores is None or name not in scores.sequences:
        return ""
    column = scores.columns[0]
    value = scores.sequences[name].get(column)
    return "" if value is None else f", {column.removesuffix('-Mean')} {percent(value)}"
