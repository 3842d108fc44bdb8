"""What a check of training data found: facts, problems and remarks."""

import collections
import dataclasses
from typing import Any

from rich.console import Console
from rich.markup import escape


@dataclasses.dataclass(frozen=True)
class Finding:
    """Something found in a file.

    Attributes:
      problem: what, in a word or two; findings are counted by it.
      file: where.
      text: the sentence about it.
    """

    problem: str
    file: str
    text: str


@dataclasses.dataclass
class Findings:
    """What was found in one source, or in a part of one.

    Attributes:
      spec: the source.
      kind: its kind, and how it lies on disk.
      counts: numbers of sequences, images and masks.
      sizes: number of images of each width and height.
      objects: number of sequences or static images by their number of objects.
      modes: number of masks by Pillow's name of their pixel format.
      problems: what keeps data from being used, or loses some of it.
      remarks: what is worth knowing and may be meant.
    """

    spec: str = ""
    kind: str = ""
    counts: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
    sizes: collections.Counter[tuple[int, int]] = dataclasses.field(
        default_factory=collections.Counter
    )
    objects: collections.Counter[int] = dataclasses.field(default_factory=collections.Counter)
    modes: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
    problems: list[Finding] = dataclasses.field(default_factory=list)
    remarks: list[Finding] = dataclasses.field(default_factory=list)

    def add(self, other: "Findings") -> None:
        """Takes another part's findings in."""
        for name in ("counts", "sizes", "objects", "modes"):
            getattr(self, name).update(getattr(other, name))
        self.problems += other.problems
        self.remarks += other.remarks

    def problem(self, problem: str, file: object, text: str) -> None:
        """Notes a problem."""
        self.problems.append(Finding(problem, str(file), text))

    def remark(self, problem: str, file: object, text: str) -> None:
        """Notes a remark."""
        self.remarks.append(Finding(problem, str(file), text))

    def as_dict(self) -> dict[str, Any]:
        """Everything, as JSON holds it."""
        return {
            "spec": self.spec,
            "kind": self.kind,
            "usable": not self.problems,
            **{f"number_of_{name.replace(' ', '_')}": n for name, n in sorted(self.counts.items())},
            "sizes": {f"{w}x{h}": n for (w, h), n in self.sizes.most_common()},
            "objects": {str(objects): n for objects, n in sorted(self.objects.items())},
            "mask_modes": dict(self.modes.most_common()),
            "problems": [dataclasses.asdict(finding) for finding in self.problems],
            "remarks": [dataclasses.asdict(finding) for finding in self.remarks],
        }


def show(findings: Findings, limit: int, console: Console) -> None:
    """Prints them; of each kind of finding `limit` with their sentences."""
    console.print(f"[bold]{escape(findings.spec)}[/bold]: {escape(findings.kind)}", soft_wrap=True)
    for title, text in (
        ("holds", ", ".join(f"{n} {name}" for name, n in findings.counts.items())),
        ("sizes", _sizes(findings)),
        ("objects", ", ".join(f"{o} in {n}" for o, n in sorted(findings.objects.items()))),
        ("masks", ", ".join(f"{n} of mode {mode}" for mode, n in findings.modes.most_common())),
    ):
        if text:
            console.print(f"  {title:8s}{escape(text)}", soft_wrap=True)
    _show_groups(findings.remarks, "yellow", limit, console)
    _show_groups(findings.problems, "red", limit, console)
    if not findings.problems:
        console.print("  [green]no problem found[/green]")


def _sizes(findings: Findings) -> str:
    if len(findings.sizes) <= 3:
        return ", ".join(f"{w}x{h}" for (w, h), _ in findings.sizes.most_common())
    (width, height), often = findings.sizes.most_common(1)[0]
    small = min(findings.sizes, key=lambda size: size[0] * size[1])
    large = max(findings.sizes, key=lambda size: size[0] * size[1])
    return (
        f"{len(findings.sizes)} sizes from {small[0]}x{small[1]} to {large[0]}x{large[1]}, "
        f"most often {width}x{height} ({often} times)"
    )


def _show_groups(findings: list[Finding], colour: str, limit: int, console: Console) -> None:
    groups: dict[str, list[Finding]] = {}
    for finding in findings:
        groups.setdefault(finding.problem, []).append(finding)
    for problem, group in groups.items():
        console.print(f"  [{colour}]{escape(problem)}[/{colour}]: {len(group)}")
        for finding in group[:limit]:
            console.print(f"    {escape(finding.text)}", soft_wrap=True)
        if len(group) > limit:
            console.print(f"    and {len(group) - limit} more")
