"""Result folders as they lie on disk, frame by frame."""

import csv
import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rdejax.errors import RdejaxError
from rdejax.files import read_json
from rdejax.io.datasets import natural_key
from rdejax.io.masks import AS_WRITTEN, IdMask, ids_of, read_mask

SCORES = "scores.csv"


@dataclasses.dataclass(frozen=True)
class Result:
    """The masks of one video.

    Attributes:
      name: of the video, and of what is written of it.
      folder: where its summary lies, if it has one.
      masks: files by frame name, in order; never empty.
      summary: what the run noted of it; may be empty.
    """

    name: str
    folder: Path
    masks: dict[str, Path]
    summary: dict[str, Any]

    def frames(self) -> Iterator[tuple[str, IdMask]]:
        """Frame names and masks, in order, all of one size.

        Raises:
          RdejaxError: an unreadable mask, or one of another size than the first.
        """
        first = None
        for name, path in self.masks.items():
            mask = read_mask(path, AS_WRITTEN)
            first = first or mask.shape
            if mask.shape != first:
                raise RdejaxError(
                    f"{path}: the mask is {mask.shape[1]}x{mask.shape[0]}, the first one "
                    f"{first[1]}x{first[0]}; export results of one video only"
                )
            yield name, mask

    def objects(self) -> list[int]:
        """The ids, ascending: those that the run noted, or else those in the masks."""
        if noted := self.summary.get("objects"):
            return sorted(noted)
        return sorted(set().union(*(ids_of(mask) for _, mask in self.frames())))

    def scores(self) -> dict[tuple[str, int], float]:
        """Score of an object in a frame, where `scores.csv` (frame,object,score) has them.

        Raises:
          RdejaxError: the file holds something else.
        """
        path = self.folder / SCORES
        try:
            with path.open(encoding="utf-8", newline="") as file:
                rows = list(csv.DictReader(file))
            return {(row["frame"], int(row["object"])): float(row["score"]) for row in rows}
        except FileNotFoundError:
            return {}
        except (KeyError, TypeError, ValueError, csv.Error):
            raise RdejaxError(
                f"{path}: not the columns frame, object and score; move it away"
            ) from None


def read_results(path: Path) -> list[Result]:
    """The results in a folder: of one video, of several, or of a data set.

    Raises:
      RdejaxError: no such folder, no masks, or a run that is not finished.
    """
    if not path.is_dir():
        raise RdejaxError(f"{path}: no such folder; give the one that rdejax infer wrote")
    if (path / "unfinished").exists():
        raise RdejaxError(
            f"{path}: the run is not finished; run the same rdejax infer again to continue it"
        )
    summary = read_json(path / "summary.json") or {}
    if (path / "masks").is_dir():
        return [_result(path.resolve().name, path, path / "masks", summary)]
    found = []
    noted = summary.get("sequences", {})
    for folder in sorted((each for each in path.iterdir() if each.is_dir()), key=natural_key):
        if folder.name.startswith("."):
            continue
        if (folder / "masks").is_dir() or (folder / "unfinished").exists():
            found += read_results(folder)
        elif any(folder.glob("*.png")):
            found.append(_result(folder.name, folder, folder, noted.get(folder.name, {})))
    if not found:
        raise RdejaxError(f"{path}: no masks in this folder; give the one that rdejax infer wrote")
    return found


def _result(name: str, folder: Path, masks: Path, summary: dict[str, Any]) -> Result:
    files = sorted(masks.glob("*.png"), key=natural_key)
    if not files:
        raise RdejaxError(f"{masks}: no masks (PNG files) in this folder")
    return Result(name, folder, {file.stem: file for file in files}, summary)
