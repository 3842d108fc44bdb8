"""One call for every data set that can be scored."""

from pathlib import Path

from rdejax.errors import RdejaxError
from rdejax.evaluate import davis, youtube_vos
from rdejax.evaluate.scores import Scores

DATASETS = (*davis.DATASETS, "youtube-vos")
FRAMES_THAT_COUNT = {
    **dict.fromkeys(davis.DATASETS, "first and last frame of a sequence left out"),
    "youtube-vos": "annotated frames after the one in which an object is given",
}


def evaluate(
    dataset: str,
    root: str | Path,
    results: str | Path,
    split: str = "val",
    workers: int | None = None,
    *,
    seen: str | Path | None = None,
) -> Scores:
    """Scores `results/<sequence>/<frame>.png` against a data set's masks.

    Args:
      dataset: one of `DATASETS`: see `davis.evaluate` and `youtube_vos.evaluate`.
      root: top folder of the data set; see `rdejax.io.datasets`.
      results: folder with one folder of PNG id masks per sequence.
      split: name of the list of sequences; for YouTube-VOS of the folder.
      workers: threads; by default one per usable core.
      seen: file with the seen categories of YouTube-VOS.

    Raises:
      RdejaxError: an unknown data set; missing sequences or frames; masks of another size, with
        unknown ids or unreadable.
    """
    if dataset not in DATASETS:
        raise RdejaxError(f"cannot score data set {dataset!r}: choose one of {', '.join(DATASETS)}")
    if dataset == "youtube-vos":
        return youtube_vos.evaluate(root, results, split, workers, seen)
    if seen is not None:
        raise RdejaxError(f"--seen belongs to youtube-vos: leave it out for {dataset}")
    return davis.evaluate(dataset, root, results, split, workers)
