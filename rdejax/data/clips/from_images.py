"""One training clip from static images: layers that move on their own, with exact labels."""

from collections.abc import Callable

import cv2
import numpy as np
from jaxtyping import UInt8

from rdejax.data.batch import Clip
from rdejax.data.clips.appearance import Appearance
from rdejax.data.clips.perturb import perturb_objects
from rdejax.data.clips.sprites import Background, Sprite, instances
from rdejax.data.config import ClipConfig
from rdejax.errors import RdejaxError

Sample = tuple[np.ndarray, np.ndarray]
Draw = Callable[[np.random.Generator], Sample]
_TRIES = 12  # clips made before one without a visible object is an error
_DRAWS = 50  # images looked at for one that has an object
_IN_FRONT = 0.35  # head start of labelled sprites over distractors in a draw from [0, 1)
_CUT_OFF = 0.2  # share of its outline at the image's border from which an object counts as cut off


def is_cut_off(mask: UInt8[np.ndarray, "h w"]) -> bool:
    """Whether an object (0 or 1, not empty) ends at the image's border."""
    x, y, w, h = cv2.boundingRect(mask)
    edges = (mask[0], mask[-1], mask[:, 0], mask[:, -1])
    return sum(int(np.count_nonzero(e)) for e in edges) > _CUT_OFF * 2 * (w + h)


def cut_object(rng: np.random.Generator, draw: Draw) -> Sample:
    """A random image and the mask (uint8 0, 1) of one of its objects, preferably a whole one."""
    spare = None
    for _ in range(_DRAWS):
        image, ids = draw(rng)
        found = instances(ids, 0.004)
        if not found:
            continue
        mask = (ids == rng.choice(found)).astype(np.uint8)
        # Straight edges inside of a frame give pasted objects away, and real ones have none.
        if spare is not None or not is_cut_off(mask):
            return image, mask
        spare = image, mask
    if spare is None:
        raise RdejaxError(
            f"{_DRAWS} training images in a row hold no object of 0.4 % of the image or more; "
            "give images whose masks show larger objects"
        )
    return spare


def _layers(
    rng: np.random.Generator, draw: Draw, config: ClipConfig
) -> tuple[Background, list[Sprite]]:
    """A background, perhaps with labelled objects of its own, and sprites from back to front."""
    wanted = 1 + sum(rng.random() < config.second_object for _ in range(config.objects - 1))
    labelled: list[Sample] = []
    image, ids = draw(rng)
    own: list[int] = []
    if rng.random() >= config.paste:
        found = instances(ids, config.min_area)
        own = [int(v) for v in rng.permutation(found)[:wanted]]
        labelled += [(image, (ids == value).astype(np.uint8)) for value in own]
    background = Background(rng, image, [mask for _, mask in labelled], config)
    sprites: list[Sprite] = []
    for label in range(len(own) + 1, wanted + 1):
        twin = config.twin and labelled and rng.random() < config.twin
        labelled.append(labelled[-1] if twin else cut_object(rng, draw))
        sprites.append(Sprite(rng, *labelled[-1], label, config))
    for _ in range(config.distractors):
        if rng.random() < config.distractor:
            alike = rng.random() < config.lookalike
            cut = labelled[rng.integers(len(labelled))] if alike else cut_object(rng, draw)
            sprites.append(Sprite(rng, *cut, 0, config))
    # Who is in front is chance, but what is to be followed is rarely hidden from the start.
    depth = [rng.random() + _IN_FRONT * (sprite.label > 0) for sprite in sprites]
    return background, [sprites[i] for i in np.argsort(depth)]


def _render(
    rng: np.random.Generator, background: Background, sprites: list[Sprite], config: ClipConfig
) -> tuple[np.ndarray, np.ndarray]:
    t, s = config.frames, config.size
    frames, labels = np.zeros((t, s, s, 3), np.uint8), np.zeros((t, s, s), np.uint8)
    look = Appearance(rng, config)
    for i in range(t):
        for layer in (background, *sprites):
            if i:
                layer.step(i)
            layer.draw(frames[i], labels[i])
        frames[i] = look(frames[i])
    if rng.random() < 0.5:
        frames, labels = frames[::-1].copy(), labels[::-1].copy()
    return frames, labels


def drop_hidden(
    labels: UInt8[np.ndarray, "t s s"], objects: int, least: float
) -> tuple[UInt8[np.ndarray, "t s s"], np.ndarray]:
    """Keeps the objects that the first frame shows well, and numbers them 1, 2, ... in their order.

    Args:
      labels: ids, 0..objects.
      objects: slots.
      least: pixels that an object must show in the first frame.

    Returns:
      The labels, where other objects are background, and valid bool [objects].
    """
    area = np.bincount(labels[0].ravel(), minlength=objects + 1)
    seen = [o for o in range(1, objects + 1) if area[o] >= least]
    new = np.zeros(256, np.uint8)
    new[seen] = np.arange(1, len(seen) + 1)
    return cv2.LUT(labels, new).reshape(labels.shape), np.arange(objects) < len(seen)


def make_clip(rng: np.random.Generator, draw: Draw, config: ClipConfig) -> Clip:
    """A clip in which objects, distractors and camera move independently.

    Either an image moves as a whole, its own objects labelled, or objects cut from other images are
    pasted over it. Whatever is in front hides the labels of what is behind. Everything moves
    smoothly, and half of the clips run backwards, so that objects appear and come near as often as
    they vanish.

    Args:
      rng: random generator; together with the images it determines the clip.
      draw: gives a random image uint8 [H, W, 3] and id mask uint8 [H, W].
      config: see `ClipConfig`.

    Returns:
      A clip of s x s pixels. The first slot is always filled.

    Raises:
      RdejaxError: no image with an object to label was found.
    """
    least = max(1.0, config.min_area * config.size**2)
    for _ in range(_TRIES):
        frames, labels = _render(rng, *_layers(rng, draw, config), config)
        labels, valid = drop_hidden(labels, config.objects, least)
        if valid[0]:
            break
    else:
        raise RdejaxError(
            f"{_TRIES} clips in a row show no object of {100 * config.min_area:g} % of their first "
            "frame; lower clip.min_area or raise clip.smallest"
        )
    perturbed = perturb_objects(rng, labels[0], config.objects, config.perturb)
    return Clip(frames, labels, perturbed, valid)
