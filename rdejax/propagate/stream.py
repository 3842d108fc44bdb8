"""Streaming: frames in, masks out, with a state that can be saved in the middle of a video."""

import json
import os
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from rdejax.errors import RdejaxError
from rdejax.models.matching import State, System
from rdejax.propagate.blocks import prepare, propagate, remembered
from rdejax.propagate.geometry import Geometry
from rdejax.propagate.slots import Layout, plan_layout

_LONGEST_BLOCK = 8  # frames decoded as one batch, where memorising is rarer than that


@partial(jax.jit, static_argnames=("geometry", "want_probs"), donate_argnames="state")
def _segment_blocks(
    model: System,
    state: State,
    frames: Array,
    write: Array,
    *,
    geometry: Geometry,
    want_probs: bool,
) -> tuple[State, tuple[Array, Array | None]]:
    """Labels (slot numbers, 0 background) and, if wanted, probabilities of blocks of frames."""
    b, n = frames.shape[:2]
    flat = prepare(model, geometry, frames.reshape(b * n, *frames.shape[2:]))

    def finish(probs: Array) -> tuple[Array, Array | None]:
        probs = geometry.restore(probs)
        return jnp.argmax(probs, axis=1).astype(jnp.uint8), probs if want_probs else None

    return propagate(
        model,
        state,
        flat.reshape(b, n, *flat.shape[1:]),
        write,
        finish,
        partial(remembered, model, geometry),
    )


@partial(jax.jit, static_argnames=("geometry", "groups"))
def _start(
    model: System,
    frame: Array,
    masks: Array,
    valid: Array,
    given: dict[str, Array] | None = None,
    *,
    geometry: Geometry,
    groups: int,
) -> tuple[State, Array]:
    """State after the first mask, and the probabilities that stand for it."""
    features = model.encode(prepare(model, geometry, frame[None]))
    inner = geometry.prepare_masks(masks)
    state = model.start(features, inner, valid, groups=groups, given=given)
    return state, geometry.restore(model.given(inner, valid)[None])[0]


@partial(jax.jit, static_argnames=("geometry", "memorize"), donate_argnames="state")
def _add(
    model: System,
    state: State,
    frame: Array,
    masks: Array,
    new: Array,
    given: dict[str, Array] | None = None,
    *,
    geometry: Geometry,
    memorize: bool,
) -> tuple[State, Array]:
    """State with new objects whose masks are in this frame, and the frame's probabilities."""
    features = model.encode(prepare(model, geometry, frame[None]))
    state, logits = model.segment(state, features)
    inner = geometry.prepare_masks(masks)
    covered = jnp.minimum(inner.sum(0), 1.0)
    probs = jax.nn.softmax(logits[0], axis=0) * (1.0 - covered)
    probs = probs + jnp.concatenate([jnp.zeros_like(covered)[None], inner])
    seen = remembered(model, geometry, probs)
    if memorize:
        old = state.valid.any(axis=1)
        state = model.memorize(state, features, seen, groups=old)
    state = model.add(state, features, seen, new, given)
    return state, geometry.restore(probs[None])[0]


class Stream:
    """A video in progress. Memory use does not depend on its length for constant-cost rules.

    Frames before the first mask come back empty. Every id is taken from the first mask that holds
    it; in later masks only new ids count (the semi-supervised protocol).

    Args:
      model: see `rdejax.load_model`.
      size: shorter side the frames are resized to; default: the model's setting.
      chunk: frames to process per compiled call, where that many are at hand; default: one block
        (`every` frames) on CPUs, eight blocks on accelerators.
      max_objects: object slots to refuse more than; default: as many as the masks hold.
      layout: groups and slots, if known beforehand; it saves compilations when objects come later.
      **given: what the memory rule takes for each object beside its mask, by id: a mapping, or an
        array [objects, ...] in the order of the ids (`MemoryRule.object_inputs`; SWEM's
        `initial_bases`).

    Raises:
      RdejaxError: a `chunk` below 1, or a keyword that neither this class nor the rule has.
    """

    def __init__(
        self,
        model: System,
        *,
        size: int | None = None,
        chunk: int | None = None,
        max_objects: int | None = None,
        layout: Layout | None = None,
        **given: Mapping[int, np.ndarray] | np.ndarray,
    ):
        for name in given:
            if name not in model.memory.object_inputs:
                raise RdejaxError(
                    f"keyword {name!r} is unknown here; with memory {model.settings.memory!r} use "
                    f"{', '.join(('size', 'chunk', 'max_objects', *model.memory.object_inputs))}"
                )
        self.given = given
        self.model = model
        self.every = model.settings.every
        self.size = model.settings.size if size is None else size
        self.block = 1 if model.frame_recurrent else min(self.every, _LONGEST_BLOCK)
        if chunk is None:
            chunk = self.block * (1 if jax.default_backend() == "cpu" else 8)
        if chunk < 1:
            raise RdejaxError(
                f"chunk={chunk}: give the number of frames per compiled call, 1 or more"
            )
        self.blocks = max(1, chunk // self.block)
        self.max_objects = max_objects
        self.layout = layout
        self.geometry: Geometry | None = None
        self.state: State | None = None
        self.time = 0
        self.writes = 0

    @property
    def objects(self) -> list[int]:
        """The user's ids that have appeared, ascending."""
        return sorted(self.layout.ids) if self.layout and self.state is not None else []

    @property
    def settings(self) -> dict[str, Any]:
        """All settings in force."""
        return {**self.model.settings.as_dict(), "size": self.size}

    @property
    def state_bytes(self) -> int:
        """Size of the state in bytes."""
        return sum(leaf.nbytes for leaf in jax.tree.leaves(self.state))

    def step(self, frame: np.ndarray, mask: np.ndarray | None = None) -> np.ndarray:
        """One frame in, its mask out: uint8 [H, W, 3] and, with new objects, uint8 [H, W]."""
        return self.push(frame[None], None if mask is None else {0: mask})[0]

    def push(self, frames: np.ndarray, masks: dict[int, np.ndarray] | None = None) -> np.ndarray:
        """Segments the next frames.

        Args:
          frames: uint8 [n, H, W, 3] RGB.
          masks: id masks uint8 [H, W] by index into `frames`.

        Returns:
          uint8 [n, H, W] id masks, with the user's ids.

        Raises:
          RdejaxError: wrong shapes or types, more objects than `max_objects`.
        """
        return self._push(frames, masks, want_probs=False)[0]

    def push_probs(
        self, frames: np.ndarray, masks: dict[int, np.ndarray] | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """As `push`, with float32 [n, o + 1, H, W]: background, then `objects` in order."""
        labels, probs = self._push(frames, masks, want_probs=True)
        return labels, probs

    def _push(
        self, frames: np.ndarray, masks: dict[int, np.ndarray] | None, want_probs: bool
    ) -> tuple[np.ndarray, Any]:
        frames = self._checked_frames(frames)
        given = {i: self._checked_mask(i, m, len(frames)) for i, m in (masks or {}).items()}
        labels, probs, position = [], [], 0
        cuts = [i for i in sorted(given) if self._new_ids(given[i])]
        for cut in [*cuts, len(frames)]:
            self._advance(frames[position:cut], labels, probs, want_probs)
            if cut < len(frames):
                self._insert(frames[cut], given[cut], labels, probs, want_probs)
            position = cut + 1
        out = np.concatenate(labels) if labels else np.zeros(frames.shape[:3], np.uint8)
        return out, self._in_order(probs, frames.shape) if want_probs else None

    def _checked_frames(self, frames: np.ndarray) -> np.ndarray:
        frames = np.asarray(frames)
        if frames.ndim != 4 or frames.shape[-1] != 3 or frames.dtype != np.uint8:
            raise RdejaxError(
                f"frames are {frames.dtype} {list(frames.shape)}; give uint8 [frames, H, W, 3] RGB"
            )
        if self.geometry is None:
            source = (frames.shape[1], frames.shape[2])
            self.geometry = Geometry.of(source, self.size, self.model.settings.pad)
        if frames.shape[1:3] != self.geometry.source:
            h, w = self.geometry.source
            raise RdejaxError(
                f"frames are {frames.shape[2]}x{frames.shape[1]}, the video so far was {w}x{h}; "
                "resize them, or start another stream"
            )
        return frames

    def _checked_mask(self, index: int, mask: np.ndarray, count: int) -> np.ndarray:
        mask = np.asarray(mask)
        assert self.geometry is not None
        if not 0 <= index < count:
            raise RdejaxError(f"a mask is given for frame {index}, but there are {count} frames")
        if mask.dtype == bool:
            mask = mask.astype(np.uint8)
        if mask.ndim != 2 or not np.issubdtype(mask.dtype, np.integer):
            raise RdejaxError(
                f"the mask of frame {index} is {mask.dtype} {list(mask.shape)}; "
                "give an integer id mask [H, W]"
            )
        if mask.shape != self.geometry.source:
            h, w = self.geometry.source
            raise RdejaxError(
                f"the mask of frame {index} is {mask.shape[1]}x{mask.shape[0]}, the video {w}x{h}; "
                "resize it without interpolation (nearest)"
            )
        if mask.min() < 0 or mask.max() > 255:
            raise RdejaxError(f"the mask of frame {index} has ids outside 0..255; renumber them")
        return mask.astype(np.uint8)

    def _new_ids(self, mask: np.ndarray) -> list[int]:
        known = self.layout.ids if self.layout is not None else {}
        return [int(i) for i in np.unique(mask) if i != 0 and i not in known]

    def _lookup(self) -> np.ndarray:
        """User's id of each label (0, then slots)."""
        assert self.layout is not None
        table = np.zeros(256, np.uint8)
        for number, slot in self.layout.ids.items():
            table[slot + 1] = number
        return table

    def _advance(self, frames: np.ndarray, labels: list, probs: list, want_probs: bool) -> None:
        """Frames without new masks, cut into blocks that end where a frame is memorised."""
        if self.state is None:
            self.time += len(frames)
            if len(frames):
                labels.append(np.zeros(frames.shape[:3], np.uint8))
                if want_probs:
                    probs.append((None, len(frames)))
            return
        position = 0
        while position < len(frames):
            left = len(frames) - position
            lengths, writes = self._plan(left)
            full = [n == self.block for n in lengths]
            count = full.index(False) if False in full else len(full)
            if count >= self.blocks:
                batch, width = self.blocks, self.block
            else:
                batch, width = 1, 1 if lengths[0] == 1 else self.block
            used = sum(lengths[:batch])
            part = frames[position : position + used]
            if batch * width > used:  # a block cut short: padding, read but not memorised
                extra = np.repeat(part[-1:], batch * width - used, axis=0)
                part = np.concatenate([part, extra])
            part = part.reshape(batch, width, *part.shape[1:])
            self._run(part, writes[:batch], used, labels, probs, want_probs)
            position += used

    def _plan(self, left: int) -> tuple[list[int], list[int]]:
        """Lengths of the next blocks (at most a chunk's worth) and the frames they memorise."""
        lengths, writes, time = [], [], self.time
        while left > 0 and len(lengths) < self.blocks:
            to_write = -time % self.every
            length = min(to_write + 1, left, self.block)
            lengths.append(length)
            writes.append(to_write if length == to_write + 1 else -1)
            time, left = time + length, left - length
        return lengths, writes

    def _run(
        self,
        frames: np.ndarray,
        writes: list[int],
        used: int,
        labels: list,
        probs: list,
        want_probs: bool,
    ) -> None:
        assert self.state is not None and self.geometry is not None
        self.writes += sum(w >= 0 for w in writes)
        self._reserve()
        self.state, (label, prob) = _segment_blocks(
            self.model,
            self.state,
            frames,
            np.asarray(writes, np.int32),
            geometry=self.geometry,
            want_probs=want_probs,
        )
        self.time += used
        label = np.asarray(label)
        labels.append(self._lookup()[label.reshape(-1, *label.shape[2:])[:used]])
        if prob is not None:
            flat = np.asarray(prob).reshape(-1, *prob.shape[2:])[:used]
            probs.append((flat, self._order()))

    def _reserve(self) -> None:
        assert self.state is not None
        capacity = self.model.memory.capacity(self.writes)
        if capacity is not None:
            have = self.model.room(self.state)
            if capacity > have:
                self.state = self.model.reserve(self.state, capacity)

    def _insert(
        self, frame: np.ndarray, mask: np.ndarray, labels: list, probs: list, want_probs: bool
    ) -> None:
        """A frame whose mask brings new objects."""
        assert self.geometry is not None
        new_ids = self._new_ids(mask)
        known = 0 if self.layout is None else len(self.layout.ids)
        if self.max_objects is not None and known + len(new_ids) > self.max_objects:
            raise RdejaxError(
                f"{known + len(new_ids)} objects in the masks, but max_objects is "
                f"{self.max_objects}; raise it or leave objects out"
            )
        if self.layout is None:
            self.layout = plan_layout([len(new_ids)])
        self.layout, slots = self.layout.place(new_ids)
        total = self.layout.groups * self.layout.slots
        masks = np.zeros((total, *mask.shape), np.float32)
        valid = np.zeros(total, bool)
        for number, slot in zip(new_ids, slots, strict=True):
            masks[slot] = mask == number
            valid[slot] = True
        if self.state is None:
            self.state, prob = _start(
                self.model,
                frame,
                masks,
                valid,
                self._given_for(new_ids, slots, total),
                geometry=self.geometry,
                groups=self.layout.groups,
            )
        else:
            self._grow_groups()
            memorize = self.time % self.every == 0
            self.writes += memorize
            self._reserve()
            self.state, prob = _add(
                self.model,
                self.state,
                frame,
                masks,
                valid.reshape(self.layout.groups, -1),
                self._given_for(new_ids, slots, total),
                geometry=self.geometry,
                memorize=memorize,
            )
        prob = np.asarray(prob)
        label = self._lookup()[np.argmax(prob, axis=0)]
        given = np.isin(mask, new_ids)
        labels.append(np.where(given, mask, label)[None])
        if want_probs:
            probs.append((prob[None], self._order()))
        self.time += 1

    def _given_for(
        self, ids: list[int], slots: list[int], total: int
    ) -> dict[str, np.ndarray] | None:
        """What was given for these objects, in their slots; zeros in the others."""
        out = {}
        for name, values in self.given.items():
            if not isinstance(values, Mapping):
                if len(values) != len(ids):
                    raise RdejaxError(
                        f"{name} has {len(values)} entries for the {len(ids)} objects of this "
                        "frame; give one for each, or a mapping from id to array"
                    )
                values = dict(zip(sorted(ids), values, strict=True))
            missing = [number for number in ids if number not in values]
            if missing:
                raise RdejaxError(f"{name} has no entry for object {missing[0]}; give one for each")
            rows = [np.asarray(values[number]) for number in ids]
            if len({row.shape for row in rows}) > 1:
                raise RdejaxError(f"{name} has arrays of several shapes; give all the same one")
            out[name] = np.zeros((total, *rows[0].shape), np.float32)
            out[name][slots] = rows
        return out or None

    def _grow_groups(self) -> None:
        """Room for groups that the layout got since the state was made."""
        assert self.state is not None and self.layout is not None
        extra = self.layout.groups - self.state.valid.shape[0]
        if extra > 0:

            def pad(x: Array) -> Array:
                return jnp.concatenate([x, jnp.zeros((extra, *x.shape[1:]), x.dtype)])

            self.state = jax.tree.map(pad, self.state)

    def _order(self) -> list[int]:
        assert self.layout is not None
        return [self.layout.ids[i] for i in sorted(self.layout.ids)]

    def _in_order(self, parts: list, shape: tuple[int, ...]) -> np.ndarray:
        """Probabilities with the user's ids ascending; 0 for objects that were not there yet."""
        ids = self.objects
        out = []
        for part, order in parts:
            if part is None:  # before the first mask: all background
                empty = np.zeros((order, len(ids) + 1, *shape[1:3]), np.float32)
                empty[:, 0] = 1.0
                out.append(empty)
                continue
            assert self.layout is not None
            full = np.zeros((part.shape[0], len(ids) + 1, *part.shape[2:]), np.float32)
            full[:, 0] = part[:, 0]
            for k, number in enumerate(ids):
                slot = self.layout.ids[number]
                if slot in order:
                    full[:, k + 1] = part[:, slot + 1]
            out.append(full)
        return np.concatenate(out) if out else np.zeros((0, len(ids) + 1, *shape[1:3]), np.float32)

    def save(self, path: str | os.PathLike) -> None:
        """Writes the state to a file, from which `restore` continues to the same masks.

        Raises:
          RdejaxError: no mask has been given yet, so there is nothing to save.
          OSError: the file cannot be written.
        """
        if self.state is None or self.layout is None or self.geometry is None:
            raise RdejaxError("nothing to save: no frame with a mask has been pushed yet")
        leaves = jax.tree.leaves(self.state)
        about = {
            "time": self.time,
            "writes": self.writes,
            "source": self.geometry.source,
            "layout": self.layout.as_dict(),
            "model": self.model.name,
            "settings": self.settings,
        }
        path = Path(path)
        temporary = path.with_name(path.name + ".partial")
        try:
            arrays = {str(i): np.ascontiguousarray(leaf) for i, leaf in enumerate(leaves)}
            save_file(arrays, temporary, {"stream": json.dumps(about)})
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)

    def restore(self, path: str | os.PathLike) -> "Stream":
        """Takes up a saved video; returns the stream itself.

        Raises:
          RdejaxError: no such file, not a saved stream, or one of another model or other settings.
        """
        try:
            with safe_open(path, framework="numpy") as file:
                about = json.loads((file.metadata() or {})["stream"])
                leaves = [file.get_tensor(str(i)) for i in range(len(file.keys()))]
        except (SafetensorError, OSError, KeyError, ValueError):
            raise RdejaxError(
                f"{path}: not a saved stream; give a file that save() wrote"
            ) from None
        mine = json.loads(json.dumps({"model": self.model.name, "settings": self.settings}))
        for name, value in mine.items():
            if about[name] != value:
                raise RdejaxError(
                    f"{path}: saved with {name} {about[name]}, this stream has {value}; "
                    "load the model with the same settings"
                )
        self.layout = Layout.from_dict(about["layout"])
        source = (about["source"][0], about["source"][1])
        self.geometry = Geometry.of(source, self.size, self.model.settings.pad)
        self.time, self.writes = about["time"], about["writes"]
        total = self.layout.groups * self.layout.slots
        template = jax.eval_shape(
            partial(_start, geometry=self.geometry, groups=self.layout.groups),
            self.model,
            jnp.zeros((*source, 3), jnp.uint8),
            jnp.zeros((total, *source)),
            jnp.zeros(total, bool),
        )[0]
        self.state = jax.tree.unflatten(jax.tree.structure(template), map(jnp.asarray, leaves))
        return self
