"""What a run starts from: another stage's weights, ImageNet's trunks, and choices that fail."""

import dataclasses

import numpy as np
import pytest

from rdejax.errors import RdejaxError
from rdejax.models import create
from rdejax.models.registry import outline
from rdejax.models.weights import shapes_of, weights_of
from rdejax.train import initial_weights as start
from rdejax.train.config import TrainConfig
from rdejax.train.system import create_system


def random_weights(model) -> dict[str, np.ndarray]:
    """Weights for a model that has shapes only, which takes no compilation."""
    rng = np.random.default_rng(0)
    return {name: rng.random(s).astype(np.float32) for name, s in shapes_of(model).items()}


SMALL = {"key_depth": 18, "key_channels": 8, "value_channels": 16}


def test_single_object_weights_get_the_missing_input_channel() -> None:
    told: list[str] = []
    single = random_weights(outline("rde", config={**SMALL, "single_object": True}))
    model = outline("rde", config=SMALL)
    start.fill(model, single, source="stage0", seed=3, tell=told.append)
    got, name = weights_of(model), "value_encoder/trunk/conv1/kernel"
    np.testing.assert_array_equal(got[name][:, :, :4], single[name])
    extra = got[name][:, :, 4].reshape(49, 64)
    np.testing.assert_allclose(extra @ extra.T, np.eye(49), atol=1e-5)
    for other in single.keys() - {name}:
        np.testing.assert_array_equal(got[other], single[other], err_msg=other)
    assert len(told) == 1 and "orthogonal" in told[0]
    again = start.widen(single[name], got[name].shape, 3)
    np.testing.assert_array_equal(again, got[name])
    assert not np.array_equal(again, start.widen(single[name], got[name].shape, 4))


@pytest.mark.slow
def test_only_a_whole_compressor_may_be_missing() -> None:
    told: list[str] = []
    whole = random_weights(outline("rde", config=SMALL))
    bare = {k: v for k, v in whole.items() if not k.startswith("memory/")}
    model = create("rde", config=SMALL)
    before = weights_of(model)
    start.fill(model, bare, source="w", seed=0, tell=told.append)
    after = weights_of(model)
    for name in whole:
        expected = bare.get(name, before[name])
        np.testing.assert_array_equal(after[name], expected, err_msg=name)
    assert "memory/compress_key" in told[0] and "random" in told[0]
    start.fill(outline("stcn", config=SMALL), whole, source="w", seed=0, tell=told.append)
    assert "not used" in told[1]
    part = {k: v for k, v in whole.items() if "compress_key" not in k}
    with pytest.raises(RdejaxError, match="missing memory/compress_key"):
        start.fill(model, part, source="w", seed=0)
    bare.pop("decoder/pred/bias")
    with pytest.raises(RdejaxError, match="missing decoder/pred/bias"):
        start.fill(model, bare, source="w", seed=0)


def trunk_of(model, trunk: str):
    return model.key_encoder if trunk == "key" else model.value_encoder.trunk


def resnet_state_dict(model, trunk: str) -> dict[str, np.ndarray]:
    """A torchvision-like state dict with other numbers, for an RGB trunk."""
    from rdejax.convert.archs import RESNET_RULES
    from rdejax.convert.names import targets

    module = trunk_of(model, trunk)
    rng = np.random.default_rng(0)
    shapes = {
        name: target.shape for name, target in targets(shapes_of(module), RESNET_RULES).items()
    }
    shapes["conv1.weight"] = (64, 3, 7, 7)
    return {
        name: rng.random(shape).astype(np.float32)
        for name, shape in shapes.items()
        if not (name.endswith(".bias") and ("conv" in name or "downsample.0" in name))
    }


def test_trunks_are_told_apart_by_depth(monkeypatch) -> None:
    told: list[str] = []
    model = outline("rde", config={**SMALL, "key_depth": 50})
    files = {
        "r50.pth": resnet_state_dict(model, "key"),
        "r18.pth": resnet_state_dict(model, "value"),
    }
    monkeypatch.setattr(start, "load_state_dict", files.__getitem__)
    start._load_trunks(model, "r18.pth,r50.pth", 0, told.append)
    for trunk, file in (("key", "r50.pth"), ("value", "r18.pth")):
        kernel = files[file]["conv1.weight"].transpose(2, 3, 1, 0)
        got = weights_of(trunk_of(model, trunk))["conv1/kernel"]
        np.testing.assert_array_equal(got[:, :, :3], kernel)
    assert not told
    start._load_trunks(model, "r50.pth", 0, told.append)
    assert "value encoder (ResNet-18)" in told[0]
    with pytest.raises(RdejaxError, match=r"r18\.pth: weights of a ResNet-18, but rde-lite lacks"):
        start._load_trunks(outline("rde-lite"), "r18.pth", 0, told.append)
    with pytest.raises(RdejaxError, match="package.*torchvision"):
        start._load_trunks(model, "package", 0, told.append)


def test_choices_a_system_does_not_have_are_named() -> None:
    with pytest.raises(RdejaxError, match="single_object: the value encoder of rde-lite"):
        create_system(TrainConfig(single_object=True))
    with pytest.raises(RdejaxError, match="trains a memory beside a bank, but memory 'bank'"):
        create_system(TrainConfig(memory="bank"))


def test_settings_of_the_memory_rule() -> None:
    config = TrainConfig(
        system="rde-lite",
        memory="swem",
        memory_settings=("bases=8", "top_l=4", "tau=0.2"),
        objective="unroll",
    )
    memory = create_system(config).memory
    assert (memory.bases, memory.top_l, memory.tau) == (8, 4, 0.2)
    with pytest.raises(RdejaxError, match="memory_settings 'bases': give NAME=VALUE"):
        create_system(dataclasses.replace(config, memory_settings=("bases",)))
    with pytest.raises(RdejaxError, match="setting 'decay' is unknown"):
        create_system(dataclasses.replace(config, memory_settings=("decay=1",)))


@pytest.mark.slow
def test_partial_weights_start_what_they_lack_at_random() -> None:
    """The body of another system by the name of its bundled weights; the rest is named."""
    told = []
    config = TrainConfig(
        system="swem-lite",
        init="rde-lite",
        init_partial=True,
        objective="unroll",
    )
    model = start.build_model(config, told.append)
    given, mine = start.initial_weights("rde-lite"), weights_of(model)
    np.testing.assert_array_equal(mine["key_proj/kernel"], given["key_proj/kernel"])
    assert (
        mine["decoder/compress/conv1/kernel"].shape != given["decoder/compress/conv1/kernel"].shape
    )
    assert np.abs(mine["fusion/gate/kernel"]).max() > 0
    assert any("fusion/gate (2 weights)" in text and "start at random" in text for text in told)
    assert any("memory/compress_key" in text and "not used" in text for text in told)
    with pytest.raises(RdejaxError, match="weights do not fit"):
        start.build_model(dataclasses.replace(config, init_partial=False), told.append)
    with pytest.raises(RdejaxError, match="none of its weights fits"):
        start.completed(model, {"x": np.zeros(1)}, source="file")
