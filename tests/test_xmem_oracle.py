"""XMem against a second implementation of its inference, in NumPy and from the equations alone.

The networks are the system's own, called one by one; similarity, top-k, usage, consolidation, the
long-term memory, both updates of the sensory memory and the schedule are written down here once
more: with lists of elements, and without a scan. Other settings than those of the reference vectors
can so be held against something.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers_systems import STORES, tiny, video

import rdejax
from rdejax.models.protocol import one_frame
from rdejax.propagate.geometry import Geometry

T = 16


@dataclasses.dataclass
class Element:
    """One position of a memorised frame, or a prototype."""

    key: np.ndarray
    shrinkage: float
    selection: np.ndarray
    values: list[np.ndarray]
    use: float = 0.0
    life: float = 1e-7
    born: int = 0


def softmax(x: np.ndarray) -> np.ndarray:
    e = np.exp(x - x.max())
    return e / e.sum()


def similarity(element: Element, query: np.ndarray, selection: np.ndarray) -> float:
    """-s_m sum_c e_qc (k_mc - k_qc)^2 / sqrt(ck)."""
    distance = (selection * (element.key - query) ** 2).sum()
    return -element.shrinkage * distance / np.sqrt(len(query))


class Store:
    """Working and long-term memory of the objects that came in one frame."""

    def __init__(self, rule):
        self.rule = rule
        self.frames: list[list[Element]] = []
        self.long: list[Element] = []
        self.time = 0

    def add(self, key, values) -> None:
        """`values`: [o, h w, cv]."""
        self.time += 1
        self.frames.append(
            [
                Element(
                    key.key[i], float(key.shrinkage[i, 0]), key.selection[i], list(values[:, i])
                )
                for i in range(len(key.key))
            ]
        )
        if self.rule.enable_long_term and len(self.frames) >= self.rule.max_mid_term_frames:
            self.consolidate()

    def consolidate(self) -> None:
        """All frames but the first and the last `min - 1` become prototypes."""
        last = len(self.frames) - (self.rule.min_mid_term_frames - 1)
        candidates = [e for frame in self.frames[1:last] for e in frame]
        self.frames = self.frames[:1] + self.frames[last:]
        order = sorted(candidates, key=lambda e: -e.use / e.life)[: self.rule.num_prototypes]
        new = []
        for chosen in order:
            weights = softmax(
                np.array([similarity(c, chosen.key, chosen.selection) for c in candidates])
            )
            values = [
                sum(w * c.values[o] for w, c in zip(weights, candidates, strict=True))
                for o in range(len(chosen.values))
            ]
            shrinkage = sum(w * c.shrinkage for w, c in zip(weights, candidates, strict=True))
            new.append(
                Element(chosen.key, float(shrinkage), chosen.selection, values, born=self.time)
            )
        room = self.rule.max_long_term_elements - len(new)
        if len(self.long) > room:
            counted = self.rule.enable_long_term_count_usage
            worth = lambda e: e.use / e.life if counted else e.born  # noqa: E731
            self.long = sorted(self.long, key=worth, reverse=True)[:room]
        self.long += new

    def read(self, key) -> np.ndarray:
        """[o, h w, cv]; counts usage."""
        elements = self.long + [e for frame in self.frames for e in frame]
        attention = np.zeros(len(elements))
        out = []
        for query, selection in zip(key.key, key.selection, strict=True):
            scores = np.array([similarity(e, query, selection) for e in elements])
            best = np.argsort(-scores, kind="stable")[: self.rule.top_k]
            weights = softmax(scores[best])
            attention[best] += weights
            out.append(
                [
                    sum(w * elements[i].values[o] for w, i in zip(weights, best, strict=True))
                    for o in range(len(elements[0].values))
                ]
            )
        for element, gain in zip(elements, attention, strict=True):
            distant = any(element is e for e in self.long)
            if not distant or self.rule.enable_long_term_count_usage:
                element.use += gain
                element.life += 1
        return np.swapaxes(np.array(out), 0, 1)


def aggregated(p: np.ndarray) -> np.ndarray:
    """Soft aggregation of [o, H, W] to probabilities [o + 1, H, W]."""
    odds = np.concatenate([np.prod(1 - p, axis=0, keepdims=True), p]).clip(1e-7, 1 - 1e-7)
    odds = odds / (1 - odds)
    return odds / odds.sum(0)


class Oracle:
    """The public code's step, frame by frame."""

    def __init__(self, model):
        self.model = model
        self.stores: list[Store] = []
        self.objects: list[int] = []  # in each store
        self.hidden = None
        self.last_memorised = self.last_deep = None
        self.networks = {
            name: jax.jit(getattr(self, f"_{name}"))
            for name in ("value", "decoded", "decoder_update", "deep_update")
        }

    def _value(self, features, masks, others):
        return self.model.encode_value(features, masks[None], others[None])[0]

    def _decoded(self, features, readout, hidden):
        f = features
        return self.model.decoder.features(readout[None], hidden[None], f.query_value, f.f8, f.f4)

    def _decoder_update(self, seen, hidden):
        return self.model.decoder.hidden_update(*(x[0] for x in seen), hidden)

    def _deep_update(self, value, hidden):
        return self.model.value_encoder.deep_update(value, hidden)

    def call(self, name, *arguments):
        arrays = jax.tree.map(jnp.asarray, arguments)
        return jax.tree.map(np.asarray, self.networks[name](*arrays))

    def step(self, time, features, given) -> np.ndarray:
        """Probabilities of a frame; `given`: masks [o, H, W] of objects that begin, or None."""
        settings = self.model.settings
        key = jax.tree.map(
            lambda x: np.asarray(x, np.float64)[0].reshape(-1, x.shape[-1]), features.key
        )
        synchronised, sensory = settings.deep_update_every < 0, self.model.config.hidden_dim > 0
        memorise = given is not None or time - self.last_memorised >= settings.every
        due = self.last_deep is None or time - self.last_deep >= settings.deep_update_every
        deep = memorise and (synchronised or due)
        h, w = features.f16.shape[1:3]
        probs = None
        if self.stores:
            readout = np.concatenate([store.read(key) for store in self.stores])
            readout = readout.reshape(len(readout), h, w, -1).astype(np.float32)
            seen = self.call("decoded", features, readout, self.hidden)
            logits = np.asarray(self.model.decoder.logits(jnp.asarray(seen[3])))[0]
            probs = aggregated(1 / (1 + np.exp(-logits.astype(np.float64))))
            if sensory and not (synchronised and deep):
                self.hidden = self.call("decoder_update", seen, self.hidden)
        if given is not None:
            old = np.zeros((0, *given.shape[1:])) if probs is None else probs[1:]
            old = np.where(given.sum(0) > 0.5, 0.0, old)
            probs = aggregated(np.concatenate([old, given]))
            self.stores.append(Store(self.model.memory))
            self.objects.append(len(given))
            fresh = np.zeros((len(given), h, w, self.model.config.hidden_dim), np.float32)
            self.hidden = fresh if self.hidden is None else np.concatenate([self.hidden, fresh])
        if memorise:
            masks = probs[1:].astype(np.float32)
            value = self.call("value", features, masks, masks.sum(0, keepdims=True) - masks)
            flat = value.reshape(len(value), h * w, -1).astype(np.float64)
            cuts = np.cumsum(self.objects)[:-1]
            for store, own in zip(self.stores, np.split(flat, cuts), strict=True):
                store.add(key, own)
            self.last_memorised = time
            if deep:
                self.last_deep = time
                if sensory:
                    self.hidden = self.call("deep_update", value, self.hidden)
        return probs


CASES = {
    "as published": {},
    "deep updates out of step": {"deep_update_every": 3},
    "a deep update with every memorised frame, on top": {"deep_update_every": 0},
    "few frames stay": {"min_mid_term_frames": 1, "max_mid_term_frames": 3},
    "many frames stay": {"min_mid_term_frames": 3, "max_mid_term_frames": 5},
    "a small long-term memory": {"num_prototypes": 4, "max_long_term_elements": 4},
    "an uneven long-term memory": {"num_prototypes": 3, "max_long_term_elements": 7},
    "all elements are prototypes": {"num_prototypes": 12, "max_long_term_elements": 30},
    # Whole consolidations are forgotten: which of one are has no order then.
    "usage of prototypes is not counted": {
        "enable_long_term_count_usage": False,
        "num_prototypes": 4,
        "max_long_term_elements": 8,
    },
    "no long-term memory": {"enable_long_term": False},
    "a small top-k": {"top_k": 3},
    "no top-k to speak of": {"top_k": 10_000},
    "no sensory memory": {"hidden_dim": 0},
    "every frame": {"every": 1, "deep_update_every": 2},
    "a late object": {"late": 5},
    "a late object, no long-term memory": {"late": 4, "enable_long_term": False},
    "a late object, deep updates out of step": {"late": 7, "deep_update_every": 4},
    "a late object, no sensory memory": {"late": 6, "hidden_dim": 0},
}


# Each compiles programs of its own, so that a few run every time.
OFTEN = (
    "an uneven long-term memory",
    "no sensory memory",
    "a late object, deep updates out of step",
)


@pytest.mark.parametrize(
    "case",
    [case if case in OFTEN else pytest.param(case, marks=pytest.mark.slow) for case in CASES],
)
def test_second_implementation(case) -> None:
    settings = {**STORES, **CASES[case]}
    late, hidden = settings.pop("late", 0), settings.pop("hidden_dim", 6)
    model = tiny("xmem-lite", config={"hidden_dim": hidden}, **settings)
    frames, mask = video(T)
    begin = {0: (4, 9)} if not late else {0: (4,), late: (9,)}
    given = {t: np.stack([mask == i for i in ids]).astype(np.float64) for t, ids in begin.items()}
    got = rdejax.segment_video(
        model,
        frames,
        {t: np.where(np.isin(mask, ids), mask, 0).astype(np.uint8) for t, ids in begin.items()},
        return_probs=True,
    )
    images = Geometry.of(frames.shape[1:3], None).prepare(frames, model.mean, model.std)
    features = jax.jit(model.encode)(images)
    oracle = Oracle(model)
    for t in range(T):
        want = oracle.step(t, one_frame(features, t), given.get(t))
        np.testing.assert_allclose(got[t, : len(want)], want, atol=1e-4, err_msg=f"frame {t}")
    held = [len(s.long) for s in oracle.stores]
    assert not model.memory.enable_long_term or max(held) > 0
    assert got[1:].argmax(1).std() > 0 and got.max() > 0.9
