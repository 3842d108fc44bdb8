"""One training clip from a video: frames some way apart, warped and coloured alike."""

import cv2
import numpy as np
from jaxtyping import UInt8

from rdejax.data.batch import Clip
from rdejax.data.clips.augment import (
    compose_colours,
    draw_affine,
    draw_colour,
    draw_crop,
    draw_frame_colour,
    draw_frame_warp,
    reduce_shortest,
    source_maps,
    warp_image,
    warp_labels,
)
from rdejax.data.clips.curriculum import draw_frames, max_gap
from rdejax.data.clips.paste import Donors, Origin, paste_tracks
from rdejax.data.clips.perturb import perturb_objects
from rdejax.data.config import ClipConfig, VideoConfig
from rdejax.data.sources.videos import VideoSource, too_short
from rdejax.errors import RdejaxError

_SEQUENCES = 10  # sequences tried before none with a usable object is an error


class NoObjectError(RdejaxError):
    """Nothing that could be followed was found, though every file could be read."""


def choose_objects(
    rng: np.random.Generator,
    labels: UInt8[np.ndarray, "h w"],
    objects: int,
    least: float,
    most: float,
) -> UInt8[np.ndarray, " n"]:
    """Ids of up to `objects` of those that cover `least` to `most` pixels, in random order."""
    area = np.bincount(labels.ravel(), minlength=256)
    area[0] = 0
    found = np.flatnonzero((area >= max(1.0, least)) & (area <= most))
    return rng.permutation(found)[:objects].astype(np.uint8)


def make_video_clip(
    rng: np.random.Generator,
    source: VideoSource,
    clip: ClipConfig,
    video: VideoConfig,
    progress: float = 0.0,
    donors: Donors | None = None,
) -> Clip:
    """A clip cut from a random video of a source (STM's, STCN's and RDE-VOS's main training).

    Of the objects that the first frame shows, after cropping, random ones fill the slots, as many
    as there are; the others are background. Later frames may show none of them.

    Args:
      rng: random generator; together with the source and `progress` it determines the clip.
      source: the videos.
      clip: frames, size, objects and perturb.
      video: the rest.
      progress: step / steps, for the curriculum.
      donors: where `video.paste` takes objects from; None: from `source`.

    Returns:
      A clip of s x s pixels. The first slot is always filled.

    Raises:
      RdejaxError: a frame that cannot be used.
      NoObjectError: no object of a size in [min_area, max_area] was found.
    """
    index = 0
    for _ in range(_SEQUENCES):
        index = int(rng.integers(len(source)))
        for _ in range(video.tries):
            made = _try(rng, source, index, clip, video, progress, donors)
            if made is not None:
                return made
    raise NoObjectError(
        f"{_SEQUENCES} sequences in a row, the last {source.name(index)}, show no object of "
        f"{100 * video.min_area:g} to {100 * video.max_area:g} % of a clip's first frame; lower "
        "video.min_area, raise video.max_area or leave such sequences out"
    )


def _try(
    rng: np.random.Generator,
    source: VideoSource,
    index: int,
    clip: ClipConfig,
    video: VideoConfig,
    progress: float,
    donors: Donors | None,
) -> Clip | None:
    """A clip of one sequence; None if its first frame shows no object of the right size."""
    gap = max_gap(progress, video.gaps, video.phases, source.spacing)
    length = source.length(index)
    if length < 2:
        raise too_short(source.name(index), length)
    chosen = [int(f) for f in draw_frames(rng, length, clip.frames, gap, video.reverse)]
    read = {chosen[0]: reduce_shortest(*source.read(index, chosen[0]), video.shortest)}
    ids = read[chosen[0]][1]
    sequence = _draw_sequence_warp(rng, ids, clip.size, video)
    if sequence is None:
        return None
    warps = [draw_frame_warp(rng, clip.size, video) for _ in chosen]
    maps = [source_maps(clip.size, sequence, *warp) for warp in warps]
    # Only the first frame is decoded before it is known that it will do.
    area = clip.size**2
    first = warp_labels(ids, *maps[0])
    objects = choose_objects(rng, first, clip.objects, video.min_area * area, video.max_area * area)
    if not len(objects):
        return None
    for frame in chosen:
        if frame not in read:
            read[frame] = reduce_shortest(*source.read(index, frame), video.shortest)
            _same_size(read[frame][1], ids, source.name(index), frame)
    frames = np.stack([warp_image(read[f][0], *m) for f, m in zip(chosen, maps, strict=True)])
    labels = np.stack([warp_labels(read[f][1], *m) for f, m in zip(chosen, maps, strict=True)])
    paste = video.paste
    if paste.share and rng.random() < paste.share:
        sizes = np.sqrt(np.bincount(first.ravel(), minlength=256))
        hosts = [Origin(source, index, int(o), float(sizes[o])) for o in objects]
        widest = max_gap(progress, video.gaps, video.phases)
        paste_tracks(rng, frames, labels, hosts, donors or Donors([source]), clip, paste, widest)
        objects = choose_objects(
            rng, labels[0], clip.objects, video.min_area * area, video.max_area * area
        )
        if not len(objects):
            return None
    return _finish(rng, frames, labels, objects, clip, video)


def _draw_sequence_warp(
    rng: np.random.Generator, ids: np.ndarray, size: int, video: VideoConfig
) -> np.ndarray | None:
    """Affine map and crop about a random pixel of a random object; None if there is no object."""
    height, width = ids.shape
    present = np.flatnonzero(np.bincount(ids.ravel(), minlength=256)[1:]) + 1
    if not len(present):
        return None
    pixels = np.flatnonzero(ids == rng.choice(present))
    y, x = divmod(int(pixels[rng.integers(len(pixels))]), width)
    canvas = draw_affine(rng, width, height, video)
    focus = np.linalg.inv(canvas) @ np.array([x, y, 1.0])
    return canvas @ draw_crop(rng, width, height, (focus[0], focus[1]), size, video.crop)


def _same_size(ids: np.ndarray, first: np.ndarray, name: str, frame: int) -> None:
    if ids.shape != first.shape:
        raise RdejaxError(
            f"{name}: annotated frame {frame} is {ids.shape[1]}x{ids.shape[0]}, another "
            f"{first.shape[1]}x{first.shape[0]}; make the frames of a sequence the same size"
        )


def _finish(
    rng: np.random.Generator,
    frames: np.ndarray,
    labels: np.ndarray,
    objects: np.ndarray,
    clip: ClipConfig,
    video: VideoConfig,
) -> Clip:
    """Colours, labels in slot order, imperfect first masks."""
    if not video.on_device:
        common = draw_colour(rng, video)
        for frame in frames:
            frame[:] = cv2.transform(frame, compose_colours(common, draw_frame_colour(rng, video)))
    slots = np.zeros(256, np.uint8)
    slots[objects] = np.arange(1, len(objects) + 1)
    labels = slots[labels]
    perturbed = perturb_objects(rng, labels[0], clip.objects, clip.perturb)
    return Clip(frames, labels, perturbed, np.arange(clip.objects) < len(objects))
