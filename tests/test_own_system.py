"""A system of one's own with a recurrent state, against the contract only.

It has what XMem needs: a hidden state of each object that every frame updates, the one before a
frame kept for `memorize`, a memory rule that counts usage when it is read, a schedule that begins
anew with each first mask, and a PRNG key in training.
"""

import dataclasses
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax import lax

import rdejax
from rdejax.data.batch import Clip
from rdejax.data.config import ClipConfig
from rdejax.memory import registry as rules
from rdejax.memory.protocol import Masks, MemoryRule
from rdejax.models import registry as systems
from rdejax.models.grouped import SharedKeys
from rdejax.models.protocol import (
    State,
    System,
    add_groups,
    aggregated,
    frame_by_frame,
    merge_groups,
)
from rdejax.models.settings import Settings
from rdejax.nn.layers import Conv
from rdejax.propagate.slots import Layout
from rdejax.propagate.stream import Stream
from rdejax.train.config import ScaleConfig, TrainConfig
from rdejax.train.objectives.unroll import UnrollObjective
from rdejax.train.step import init_state, make_step

T, WIDTH = 12, 8


@flax.struct.dataclass
class Counted:
    key: Any
    value: Any
    usage: Any
    count: Any


class UsageMemory(MemoryRule):
    """Three frames; the least used of the later ones makes room."""

    recurrent = True

    def __init__(self, *, key_channels, value_channels, rngs, temperature: float = 1.0):
        self.temperature = temperature

    def init(self, key, value, masks):
        key, value = (jnp.repeat(x, 3, axis) for x, axis in ((key[None], 0), (value[:, None], 1)))
        return Counted(key, value, jnp.zeros(3), jnp.ones((), jnp.int32))

    def read(self, state, query):
        t, (n, h, w, c) = state.key.shape[0], query.shape
        assert n == 1
        scores = query.reshape(h * w, c) @ state.key.reshape(t * h * w, c).T / self.temperature
        present = jnp.repeat(jnp.arange(t) < state.count, h * w)
        shares = jax.nn.softmax(jnp.where(present, scores, -1e9), axis=-1)
        value = state.value.reshape(state.value.shape[0], t * h * w, -1)
        readout = jnp.einsum("qm,omv->oqv", shares, value).reshape(1, -1, h, w, value.shape[-1])
        usage = state.usage + shares.sum(0).reshape(t, -1).sum(1)
        return readout, state.replace(usage=usage)

    def write(self, state, key, value, masks):
        slot = jnp.where(state.count < 3, state.count, 1 + jnp.argmin(state.usage[1:]))
        return Counted(
            lax.dynamic_update_index_in_dim(state.key, key, slot, 0),
            lax.dynamic_update_index_in_dim(state.value, value, slot, 1),
            state.usage.at[slot].set(0.0),
            state.count + 1,
        )


@flax.struct.dataclass
class Seen:
    image: Any
    f16: Any


@flax.struct.dataclass
class RecurrentState(State):
    memory: Any
    hidden: Any
    before: Any
    draws: Any


@dataclasses.dataclass(frozen=True)
class Sizes:
    key_channels: int = WIDTH
    value_channels: int = WIDTH


class Recurrent(System):
    name = "recurrent"
    Config = Sizes
    trunk = "backbone"

    def __init__(self, config, settings, *, rngs):
        self.config, self.settings = config, settings
        self.backbone = Conv(3, WIDTH, 3, rngs=rngs)
        self.value = Conv(2 * WIDTH + 1, WIDTH, 3, rngs=rngs)
        self.update = Conv(2 * WIDTH, WIDTH, 3, rngs=rngs)
        self.head = Conv(3 * WIDTH, 1, 3, rngs=rngs)
        self.memory = UsageMemory(
            key_channels=WIDTH,
            value_channels=WIDTH,
            rngs=rngs,
            **dict(settings.memory_settings),
        )

    def encode(self, frames, inside=None, beside=None):
        n, height, width, _ = frames.shape
        small = frames.reshape(n, height // 16, 16, width // 16, 16, 3).mean((2, 4))
        return Seen(frames, self.backbone(small))

    def _entry(self, features, probs, hidden):
        (g, s, h, w, _), o = hidden.shape, probs.shape[0] - 1
        mask = probs[1:].reshape(o, h, 16, w, 16).mean((2, 4))[..., None]
        f16 = jnp.broadcast_to(features.f16, (o, h, w, WIDTH))
        value = self.value(jnp.concatenate([f16, mask, hidden.reshape(o, h, w, -1)], -1))
        value = value.reshape(hidden.shape)
        masks = jax.tree.map(lambda x: x.reshape(g, s, *x.shape[1:]), Masks(probs[1:], probs[1:]))
        return value, masks, jnp.tanh(hidden + value)

    def start(self, features, probs, valid=None, *, groups=1, given=None, key=None):
        valid = jnp.ones(probs.shape[0] - 1, bool) if valid is None else valid
        valid = valid.reshape(groups, -1)
        hidden = jnp.zeros((*valid.shape, *features.f16.shape[1:]), features.f16.dtype)
        value, masks, hidden = self._entry(features, probs, hidden)
        memory = SharedKeys.init(self.memory, features.f16[0], value, masks)
        draws = None if key is None else jax.random.split(key, groups)
        return RecurrentState(valid, memory, hidden, hidden, draws)

    def add(self, state, features, probs, new, given=None):
        return add_groups(state, self.start(features, probs, new, groups=len(new)), new)

    def segment(self, state, features, real=None):
        return frame_by_frame(self._frame, state, features, real)

    def _frame(self, state, features):
        readout, memory = SharedKeys.read(self.memory, state.memory, features.f16)
        readout, draws = readout[:, :, 0], state.draws
        if draws is not None:
            draws = jax.vmap(lambda k: jax.random.fold_in(k, 1))(draws)
            readout *= jax.random.bernoulli(draws[0], 0.9, readout.shape)
        both = jnp.concatenate([readout, state.hidden], -1)
        (g, s, h, w, c), valid = both.shape, state.valid.reshape(-1)
        both = both.reshape(g * s, h, w, c)
        f16 = jnp.broadcast_to(features.f16, (g * s, h, w, WIDTH))
        logits = self.head(jnp.concatenate([both, f16], -1))[..., 0]
        logits = jnp.repeat(jnp.repeat(logits, 16, 1), 16, 2) + features.image.mean(-1)
        logits = aggregated(jnp.where(valid[:, None, None], jax.nn.sigmoid(logits), 0.0), valid)
        hidden = jnp.tanh(self.update(both)).reshape(state.hidden.shape)
        state = state.replace(memory=memory, hidden=hidden, before=state.hidden, draws=draws)
        return state, logits[None]

    def memorize(self, state: Any, features, probs, groups=None):
        value, masks, hidden = self._entry(features, probs, state.before)
        memory = SharedKeys.write(self.memory, state.memory, features.f16[0], value, masks)
        new = state.replace(memory=memory, hidden=hidden)
        return new if groups is None else merge_groups(groups, new, state)

    def memorizes(self, time, given):
        return bool(given) and (time - given[-1]) % self.settings.every == 0


def model(**settings: Any) -> Recurrent:
    rule = tuple(sorted(settings.items()))
    return Recurrent(
        Sizes(), Settings(every=3, memory="usage", memory_settings=rule), rngs=nnx.Rngs(0)
    )


@pytest.fixture(scope="module")
def video():
    frames = np.random.default_rng(0).integers(0, 255, (T, 32, 48, 3), np.uint8)
    one, two = np.zeros((2, 32, 48), np.uint8)
    one[4:20, 4:20], two[8:30, 24:44] = 1, 2
    return frames, {2: one, 7: two}


@pytest.fixture(scope="module")
def whole(video):
    return rdejax.segment_video(model(), *video, return_probs=True)


@pytest.mark.parametrize("chunk", [1, 5])
def test_chunks_equal_the_whole(video, whole, chunk) -> None:
    frames, masks = video
    stream, parts = rdejax.stream(model(), chunk=chunk), []
    for at in range(0, T, chunk):
        given = {t - at: mask for t, mask in masks.items() if at <= t < at + chunk}
        part = stream.push_probs(frames[at : at + chunk], given)[1]
        parts.append(np.pad(part, ((0, 0), (0, 3 - part.shape[1]), (0, 0), (0, 0))))
    np.testing.assert_allclose(np.concatenate(parts), whole, atol=2e-5)


def test_padded_slots_and_groups_change_nothing(video, whole) -> None:
    stream = Stream(model(), layout=Layout(groups=3, slots=2))
    np.testing.assert_allclose(stream.push_probs(*video)[1], whole, atol=2e-5)


@pytest.mark.parametrize("at", [3, 9])
def test_saved_and_restored_it_continues(video, tmp_path, at) -> None:
    frames, masks = video
    later = {t - at: mask for t, mask in masks.items() if t >= at}
    unbroken = rdejax.stream(model())
    unbroken.push(frames[:at], {t: mask for t, mask in masks.items() if t < at})
    unbroken.save(tmp_path / "state")
    resumed = rdejax.stream(model()).restore(tmp_path / "state")
    want = unbroken.push_probs(frames[at:], later)[1]
    np.testing.assert_array_equal(resumed.push_probs(frames[at:], later)[1], want)


def test_its_rule_can_be_swept_over(video, monkeypatch) -> None:
    frames, masks = video
    monkeypatch.setitem(rules._RULES._classes, "usage", UsageMemory)
    monkeypatch.setitem(systems._SYSTEMS._classes, "recurrent", Recurrent)
    together = rdejax.sweep_settings(model(), frames, masks[7], temperature=(0.1, 5.0))
    for temperature, mine in zip((0.1, 5.0), together, strict=True):
        alone = rdejax.segment_video(model(temperature=temperature), frames, masks[7])
        np.testing.assert_array_equal(mine, alone)


def test_it_trains_with_draws_of_its_own(video) -> None:
    frames, masks = video
    first = np.stack([masks[2] > 0, masks[7] > 0]).astype(np.uint8)
    labels = np.broadcast_to(first[0] + 2 * first[1], (4, 32, 48))
    clip = Clip(frames[:4], labels, first, np.ones(2, bool))
    batch = jax.tree.map(lambda x: np.stack([x, x]), clip)
    unroll = jax.jit(lambda clip, key: UnrollObjective()(model(), clip, key).logits)
    one, same, other = (unroll(clip, jax.random.key(seed)) for seed in (0, 0, 1))
    assert (one == same).all() and (one != other).any()

    def metrics(**scale: Any) -> dict[str, Any]:
        config = TrainConfig(
            batch=2,
            clip=ClipConfig(frames=4, size=32, objects=2),
            objective="unroll",
            scale=ScaleConfig(**scale),
        )
        return make_step(model(), config)(init_state(model(), config)[1], batch)[1]

    plain = metrics()
    assert plain["grad_norm"] > 0
    for scale in ({"remat": True}, {"accumulate": 2}):
        for name, value in metrics(**scale).items():
            np.testing.assert_allclose(value, plain[name], rtol=1e-4, err_msg=name)
