"""COCO and YouTube-VIS: JSON files whose masks are run-length encoded by `pycocotools`."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool

from rdejax.errors import RdejaxError
from rdejax.export.results import Result
from rdejax.io.masks import IdMask

# The library knows objects, but not what they are.
_CATEGORIES = [{"id": 1, "name": "object", "supercategory": "object"}]


def need_pycocotools() -> None:
    """Says how to install `pycocotools` where it is missing.

    Raises:
      RdejaxError: it is.
    """
    try:
        import pycocotools.mask  # noqa: F401
    except ImportError:
        raise RdejaxError(
            "pycocotools is not installed: pip install 'rdejax[export]' (or '.[export]')"
        ) from None


def coco(results: Sequence[Result], objects: Sequence[int] | None = None) -> dict[str, Any]:
    """Instances as COCO has them: an image for each frame, an annotation for each mask.

    Beside COCO's own fields, images have `video_id` and `frame_index`, and annotations `object_id`
    (the id in the masks), `track_id` (one for each object of each video) and, where the run wrote
    scores, `score`.

    Args:
      results: the videos.
      objects: ids to take; None: all.
    """
    videos, images, annotations = [], [], []
    tracks: dict[tuple[int, int], int] = {}
    for video, result in enumerate(results, 1):
        scores = result.scores()
        for index, (name, mask) in enumerate(result.frames()):
            height, width = mask.shape
            image = len(images) + 1
            images.append(
                {
                    "id": image,
                    "file_name": f"{result.name}/{name}.jpg",
                    "width": width,
                    "height": height,
                    "video_id": video,
                    "frame_index": index,
                }
            )
            for number in _present(mask, objects):
                track = tracks.setdefault((video, number), len(tracks) + 1)
                annotation = {
                    "id": len(annotations) + 1,
                    "image_id": image,
                    "category_id": 1,
                    "object_id": number,
                    "track_id": track,
                    "iscrowd": 0,
                    **_encoded(mask == number),
                }
                if (name, number) in scores:
                    annotation["score"] = scores[name, number]
                annotations.append(annotation)
        videos.append({"id": video, "name": result.name})
    return {
        "info": {"description": "written by rdejax"},
        "videos": videos,
        "images": images,
        "annotations": annotations,
        "categories": _CATEGORIES,
    }


def youtube_vis(results: Sequence[Result], objects: Sequence[int] | None = None) -> dict[str, Any]:
    """Tracks as YouTube-VIS has them: one annotation for each object, with a list over the frames.

    Annotations also have `object_id` (the id in the masks) and, where the run wrote scores, their
    mean over the frames as `score`.

    Args:
      results: the videos.
      objects: ids to take; None: all.
    """
    videos, annotations = [], []
    for video, result in enumerate(results, 1):
        tracks: dict[int, list[dict[str, Any] | None]] = {}
        size, count = (0, 0), len(result.masks)
        for index, (_, mask) in enumerate(result.frames()):
            size = mask.shape
            for number in _present(mask, objects):
                track = tracks.setdefault(number, [None] * count)
                track[index] = _encoded(mask == number)
        names = list(result.masks)
        videos.append(
            {
                "id": video,
                "name": result.name,
                "height": size[0],
                "width": size[1],
                "length": count,
                "file_names": [f"{result.name}/{name}.jpg" for name in names],
            }
        )
        scores = result.scores()
        for number, track in sorted(tracks.items()):
            annotation = {
                "id": len(annotations) + 1,
                "video_id": video,
                "category_id": 1,
                "object_id": number,
                "iscrowd": 0,
                "height": size[0],
                "width": size[1],
                "length": count,
                "segmentations": [each and each["segmentation"] for each in track],
                "bboxes": [each and each["bbox"] for each in track],
                "areas": [each and each["area"] for each in track],
            }
            if found := [scores[name, number] for name in names if (name, number) in scores]:
                annotation["score"] = float(np.mean(found))
            annotations.append(annotation)
    return {
        "info": {"description": "written by rdejax"},
        "videos": videos,
        "annotations": annotations,
        "categories": _CATEGORIES,
    }


def _present(mask: IdMask, objects: Sequence[int] | None) -> list[int]:
    found = [number for number in np.unique(mask).tolist() if number]
    return found if objects is None else [number for number in found if number in objects]


def _encoded(mask: Bool[np.ndarray, "h w"]) -> dict[str, Any]:
    """Run lengths, bounding box (left, top, width, height) and area in pixels."""
    from pycocotools import mask as rle

    runs = rle.encode(np.asfortranarray(mask.astype(np.uint8)))
    counts = runs["counts"]
    text = counts.decode("ascii") if isinstance(counts, bytes) else counts
    return {
        "segmentation": {"size": [int(side) for side in runs["size"]], "counts": text},
        "bbox": [float(value) for value in rle.toBbox(runs)],
        "area": int(rle.area(runs)),
    }
