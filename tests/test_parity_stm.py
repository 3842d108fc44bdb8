"""STM against the published PyTorch code: every stage, and a short video, with the same weights.

Measured on a CPU, float32: beside each tolerance, which is 5 to 10 times as large. The published
script aggregates over eleven channels whatever the number of objects, so that the absent ones
(p = 0, logit -16.12) take up to 5e-7 of a pixel's probability; here absent objects take nothing.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from helpers_reference import stages
from helpers_stm import stm_manifest, stm_model, stm_stages, stm_state_dict

import rdejax
from rdejax.memory.affinity import similarity, softmax_weights
from rdejax.models.protocol import given_probs, one_frame
from rdejax.models.stm import without_border
from rdejax.nn.aggregate import aggregate_logits
from rdejax.nn.layers import Frozen, max_pool3x3s2
from rdejax.propagate.geometry import Geometry

# Largest absolute error allowed by stage; measured ones beside.
TOLERANCE = {
    "norm_padded1": 3e-6,  # 4.8e-7
    "mem_c1_0": 5e-6,  # 7.5e-7
    "mem_r2_0": 5e-5,  # 8.6e-6
    "mem_r3_0": 1e-4,  # 1.7e-5
    "mem_r4_0": 2e-4,  # 3.0e-5
    "mem_key0": 3e-4,  # 4.3e-5
    "mem_value0": 5e-4,  # 7.4e-5
    "mem_key1": 1e-3,  # 1.1e-4
    "mem_value1": 1e-3,  # 1.4e-4
    "q_c1_1": 5e-6,  # 8.3e-7
    "q_r2_1": 2e-5,  # 3.2e-6
    "q_r3_1": 2e-5,  # 3.6e-6
    "q_r4_1": 5e-5,  # 9.1e-6
    "q_key1": 1e-4,  # 1.4e-5
    "q_value1": 2e-4,  # 3.6e-5
    "affinity1": 5e-5,  # 7.2e-6
    "readout1": 3e-4,  # 5.3e-5
    "dec_m4_1": 5e-4,  # 6.4e-5
    "dec_m3_1": 3e-4,  # 5.7e-5
    "dec_m2_1": 5e-4,  # 7.1e-5
    "dec_p2_1": 3e-4,  # 4.0e-5
    "ps1": 5e-5,  # 7.8e-6
    "logit1": 3e-4,  # 5.7e-5
    "prob1": 1e-4,  # 1.9e-5
    "affinity2": 2e-5,  # 3.5e-6
    "readout2": 5e-4,  # 6.7e-5
    "logit2": 3e-4,  # 4.4e-5
    "prob2": 1e-4,  # 1.1e-5
}
GEOMETRY = Geometry.of((100, 148), None)
VALID = jnp.ones(2, bool)


@functools.cache
def model() -> Any:
    return stm_model()


def _affinity(query, keys):
    """[o, memory, query] of keys [o, t, h, w, ck]."""
    flat = query.reshape(-1, query.shape[-1])

    def one(key):
        key = key.reshape(-1, key.shape[-1])
        return softmax_weights(similarity("dot", flat, key), jnp.ones(len(key), jnp.int32)).T

    return jax.vmap(one)(keys)


def _memory_stages(model, features, masks):
    encoder, trunk = model.value_encoder, model.value_encoder.trunk
    c1 = encoder.stem(features.image[0], masks, masks[::-1])
    f4, f8, f16 = trunk.stages(max_pool3x3s2(c1))
    return dict(mem_c1_0=c1, mem_r2_0=f4, mem_r3_0=f8, mem_r4_0=f16)


def _decoder_stages(model, readout, features):
    x = model.decoder_input(readout, features.query_value)
    m16, m8, m4 = model.decoder.features(x, features.f8, features.f4)
    p2 = model.decoder.coarse(m4)
    ps = jax.nn.sigmoid(model.decoder(x, features.f8, features.f4))
    return dict(dec_m4_1=m16[0], dec_m3_1=m8[0], dec_m2_1=m4[0], dec_p2_1=p2[0], ps1=ps[0])


def _three_frames(model, frames, labels):
    """All stages in our layouts, from the methods that segment a video."""
    images = GEOMETRY.prepare(frames, model.mean, model.std)
    masks = GEOMETRY.prepare_masks(jnp.stack([labels == 1, labels == 2]).astype(jnp.float32))
    first, second, third = (one_frame(model.encode(images, GEOMETRY.inside()), t) for t in range(3))
    trunk = model.key_encoder
    out = dict(
        norm_padded1=second.image[0],
        q_c1_1=jax.nn.relu(trunk.bn1(trunk.conv1(second.image))),
        q_r2_1=second.f4,
        q_r3_1=second.f8,
        q_r4_1=second.f16,
        q_key1=second.key,
        q_value1=second.query_value,
        **_memory_stages(model, first, masks),
    )
    state = model.reserve(model.start(first, given_probs(masks, VALID), VALID), 2)
    out["mem_key0"], out["mem_value0"] = state.memory.key[0, :, 0], state.memory.value[0, :, 0, 0]
    out["affinity1"] = _affinity(second.key, state.memory.key[0, :, :1])
    out["readout1"] = model.read(state, second)[1][0]
    out |= _decoder_stages(model, out["readout1"][None], second)
    state, logits = model.segment(state, second)
    out["logit1"] = logits[0]
    probs = without_border(jax.nn.softmax(logits[0], axis=0), GEOMETRY.inside())
    state = model.memorize(state, second, probs)
    out["mem_key1"], out["mem_value1"] = state.memory.key[0, :, 1], state.memory.value[0, :, 0, 1]
    out["affinity2"] = _affinity(third.key, state.memory.key[0, :, :2])
    out["readout2"] = model.read(state, third)[1][0]
    out["logit2"] = model.segment(state, third)[1][0]
    return out


def _with_absent(logits):
    """Logits [o+1, H, W] and those of the script's absent objects behind them: eleven in all."""
    absent = aggregate_logits(jnp.zeros((11 - len(logits), *logits.shape[1:])))[1:]
    return np.concatenate([logits, absent])


def _softmax(logits):
    return np.asarray(jax.nn.softmax(jnp.asarray(logits), axis=0))


@functools.cache
def _arrays():
    """In the reference's layouts and sub-samplings."""
    frames, labels = jnp.asarray(stages()["frames"][:3]), jnp.asarray(stages()["mask"])
    out = jax.jit(functools.partial(_three_frames, model()))(frames, labels)
    out = {name: np.asarray(x) for name, x in out.items()}

    def channels(name, step, space=1):
        return np.moveaxis(out[name], -1, -3)[..., ::step, ::space, ::space]

    steps = {"mem_r4_0": 64, "mem_r3_0": 64, "mem_r2_0": 128, "mem_key0": 4, "mem_value0": 16}
    steps |= {"mem_key1": 4, "mem_value1": 16, "readout1": 8, "readout2": 8, "dec_p2_1": 1}
    steps |= {"dec_m4_1": 16, "dec_m3_1": 32, "dec_m2_1": 128}
    query = {"q_r4_1": 32, "q_r3_1": 64, "q_r2_1": 64, "q_key1": 2, "q_value1": 8}
    top, _, left, _ = GEOMETRY.padding
    logits = {t: out[f"logit{t}"][:, top : top + 100, left : left + 148] for t in (1, 2)}
    return {
        **{name: channels(name, step) for name, step in steps.items()},
        **{name: channels(name, step)[0] for name, step in query.items()},
        "norm_padded1": channels("norm_padded1", 1, 4)[None],
        "mem_c1_0": channels("mem_c1_0", 32, 2),
        "q_c1_1": channels("q_c1_1", 32, 2)[0],
        "affinity1": out["affinity1"],
        "affinity2": out["affinity2"][..., ::2],
        "ps1": out["ps1"][:, ::4, ::4],
        "logit1": _with_absent(logits[1])[:4, ::4, ::4],
        "logit2": _with_absent(logits[2])[:4, ::4, ::4],
        "prob1": _softmax(_with_absent(logits[1]))[:4, ::4, ::4],
        "prob2": _softmax(logits[2])[:, ::2, ::2],
    }


@pytest.mark.parametrize("name", sorted(TOLERANCE))
def test_stage(name) -> None:
    """One array of the reference."""
    got, want = _arrays()[name], stm_stages()[name]
    assert got.shape == want.shape
    print(f"{name}: {np.abs(got - want).max():.1e} of {np.abs(want).max():.1f}")
    np.testing.assert_allclose(got, want, rtol=0, atol=TOLERANCE[name])


def test_every_stage_is_compared() -> None:
    assert set(_arrays()) == set(TOLERANCE) == set(stm_stages())


def test_video_matches_the_published_code() -> None:
    """Three frames; the memory of the last is the first and the previous one."""
    frames, mask = stages()["frames"][:3], stages()["mask"]
    probs = rdejax.segment_video(model(), frames, mask, return_probs=True)
    np.testing.assert_array_equal(probs[0].argmax(0), mask)
    for t, step in ((1, 4), (2, 2)):
        difference = np.abs(probs[t, :, ::step, ::step] - stm_stages()[f"prob{t}"][:3])
        print(f"frame {t}: max {difference.max():.1e} mean {difference.mean():.1e}")
        assert difference.max() < TOLERANCE[f"prob{t}"]


def test_weights_are_the_reference_s() -> None:
    """Else a wrong gain could pass for a rounding error."""
    total = sum(a.sum(dtype=np.float64) for a in stm_state_dict().values())
    absolute = sum(np.abs(a).sum(dtype=np.float64) for a in stm_state_dict().values())
    checksum = stm_manifest()["weights_checksum"]
    assert len(stm_state_dict()) == checksum["entries"]
    np.testing.assert_allclose([total, absolute], [checksum["sum"], checksum["abs_sum"]], rtol=1e-9)


def test_parameter_count() -> None:
    """As many numbers as the published network trains, batch norm's affine part included."""
    count = sum(v.size for v in jax.tree.leaves(nnx.state(model(), nnx.Param)))
    for path, v in nnx.to_flat_state(nnx.state(model(), Frozen)):
        count += np.prod(v.shape) if path[-1] in ("scale", "bias") else 0
    assert count == stm_manifest()["num_parameters"] == 38_925_570
