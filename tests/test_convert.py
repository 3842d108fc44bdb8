"""Conversion of public checkpoints: the reader of PyTorch files, names, and the command line."""

import dataclasses
import os
import pickle
import struct
import subprocess
import sys
import zipfile
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from helpers_reference import NETS, SWEM_NETS, filled_model, filled_state_dict, manifest
from helpers_xmem import XMEM_NETS, xmem_shapes

import rdejax
from rdejax.convert import convert_state_dict, load_imagenet_trunk, load_state_dict
from rdejax.convert.__main__ import main
from rdejax.convert.archs import ARCHS, RESNET_RULES
from rdejax.convert.imagenet import lite0_from_torch
from rdejax.convert.names import targets
from rdejax.errors import RdejaxError
from rdejax.models import create
from rdejax.models.weights import read_weights, shapes_of, weights_of
from rdejax.nn.resnet import ResNetTrunk

FIXTURES = Path(__file__).parent / "data" / "convert"
STATS = ("mean", "std")
SMALL = {"key_depth": 18, "key_channels": 8, "value_channels": 16}


def expected(prefix):
    with np.load(FIXTURES / "expected.npz") as file:
        names = [n for n in file.files if n.startswith(prefix)]
        return {n.removeprefix(prefix): file[n] for n in names}


def write_pth(path, arrays):
    """Writes float32 arrays as torch.save does, by hand: PyTorch must not be needed here."""
    text = lambda s: b"X" + struct.pack("<I", len(s)) + s.encode()  # noqa: E731
    number = lambda n: b"J" + struct.pack("<i", n)  # noqa: E731
    pickled = b"\x80\x02ccollections\nOrderedDict\n)R("
    with zipfile.ZipFile(path, "w") as archive:
        for i, (name, array) in enumerate(arrays.items()):
            strides = [s // array.itemsize for s in array.strides]
            pickled += text(name) + b"ctorch._utils\n_rebuild_tensor_v2\n(("
            pickled += text("storage") + b"ctorch\nFloatStorage\n" + text(str(i)) + text("cpu")
            pickled += number(array.size) + b"tQ" + number(0)
            pickled += b"(" + b"".join(map(number, array.shape)) + b"t"
            pickled += b"(" + b"".join(map(number, strides)) + b"t"
            pickled += b"\x89ccollections\nOrderedDict\n)RtR"
            archive.writestr(f"archive/data/{i}", array.tobytes())
        archive.writestr("archive/data.pkl", pickled + b"u.")
        archive.writestr("archive/byteorder", "little")
    return path


def small_state_dict(arch="rde", seed=0, **settings):
    """A random state dict of a small network, in PyTorch's names and layouts."""
    model = nnx.eval_shape(lambda: create(arch, config=SMALL, **settings))
    rng = np.random.default_rng(seed)
    entries = targets(shapes_of(model), ARCHS[arch].rules)
    return {
        name: rng.standard_normal(target.shape, np.float32) * 0.05 + name.endswith("var")
        for name, target in entries.items()
    }


def empty_state_dict(net):
    """Zeros of the published shapes, taking no memory."""
    shapes = manifest()["state_dicts"][net]
    return {name: np.broadcast_to(np.float32(0), shape) for name, shape in shapes.items()}


# ------------------------------------------------------------------------ PyTorch files


@pytest.mark.parametrize("kind", ["zip", "legacy"])
@pytest.mark.parametrize("content", ["types", "training"])
def test_reads_what_torch_wrote(content, kind):
    """All number types and views; a state dict inside a training checkpoint, without "module."."""
    got, want = load_state_dict(FIXTURES / f"{content}_{kind}.pth"), expected(f"{content}/")
    assert list(got) == list(want)
    for name, array in want.items():
        assert got[name].dtype == array.dtype and got[name].shape == array.shape, name
        np.testing.assert_array_equal(got[name], array, err_msg=name)


@pytest.mark.parametrize("kind", ["zip", "legacy"])
def test_runs_no_code(kind, tmp_path, monkeypatch):
    """A pickle that calls os.mkdir is read as far as its tensors; the call is not made."""
    monkeypatch.chdir(tmp_path)
    np.testing.assert_array_equal(load_state_dict(FIXTURES / f"attack_{kind}.pth")["w"], [1, 1])
    with pytest.raises(RdejaxError, match="x in the state dict is no plain tensor"):
        load_state_dict(FIXTURES / "attack_inside.pth")
    assert list(tmp_path.iterdir()) == []


def test_the_attack_would_have_worked(tmp_path, monkeypatch):
    """So that the test above means something."""
    monkeypatch.chdir(tmp_path)
    with zipfile.ZipFile(FIXTURES / "attack_zip.pth") as archive:
        name = next(n for n in archive.namelist() if n.endswith("data.pkl"))

        class Careless(pickle.Unpickler):
            def persistent_load(self, pid):
                return None

            def find_class(self, module, name):
                return str if module.startswith("torch") else super().find_class(module, name)

        with archive.open(name) as file, pytest.raises(TypeError):
            Careless(file).load()
        pickled = archive.read(name)
    # Without the tensor, which needs PyTorch, the rest is the attack.
    start = pickled.index(b"cposix\nmkdir")
    pickle.loads(b"\x80\x02" + pickled[start : pickled.index(b"R", start) + 1] + b".")
    assert (tmp_path / "code_was_run").is_dir()


@pytest.mark.parametrize(
    "pickled",
    [
        b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n}X\x05\x00\x00\x00_callN\x73b.",
        b"\x80\x02ccollections\nOrderedDict\n}X\x04\x00\x00\x00itemN\x73b.",
        b"\x80\x02cbuiltins\neval\nX\x03\x00\x00\x001+1\x85R.",
        b"\x80\x02cos\nsystem\n}X\x12\x00\x00\x00__init_subclass__\x00N\x73b.",
        b"\x80\x02(iposix\nsystem\n.",
        b"\x80\x04\x8c\x02os\x8c\x06system\x93\x8c\x04true\x85\x92.",
        b"\x80\x02]" + b"]" * 3000 + b".",
        b"\x80\x02U",
        b"",
        b"garbage",
    ],
    ids=[
        "changes a builder",
        "changes OrderedDict",
        "calls eval",
        "changes a class",
        "old instance opcode",
        "protocol 4 call",
        "deep nesting",
        "cut opcode",
        "empty",
        "no pickle",
    ],
)
def test_hostile_pickles_give_one_sentence(pickled, tmp_path):
    path = tmp_path / "x.pth"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", pickled)
    with pytest.raises(RdejaxError, match="x.pth") as caught:
        load_state_dict(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", ["zip", "legacy"])
@pytest.mark.parametrize("part", [0.0, 0.002, 0.01, 0.2, 0.5, 0.9, 0.99, 0.9999])
def test_truncated_files(kind, part, tmp_path):
    whole = (FIXTURES / f"types_{kind}.pth").read_bytes()
    path = tmp_path / "cut.pth"
    path.write_bytes(whole[: int(part * len(whole))])
    with pytest.raises(RdejaxError, match=r"cut\.pth: .*(too early|damaged|another kind)"):
        load_state_dict(path)


def test_damaged_tensor_data(tmp_path):
    data = bytearray((FIXTURES / "types_zip.pth").read_bytes())
    with zipfile.ZipFile(FIXTURES / "types_zip.pth") as archive:
        place = archive.getinfo(next(n for n in archive.namelist() if n.endswith("data/0")))
    # Local header: 30 bytes, name, extra field; the first number follows.
    sizes = struct.unpack("<HH", data[place.header_offset + 26 : place.header_offset + 30])
    data[place.header_offset + 30 + sum(sizes) + 5] ^= 0xFF
    (tmp_path / "bad.pth").write_bytes(data)
    with pytest.raises(RdejaxError, match="damaged zip archive"):
        load_state_dict(tmp_path / "bad.pth")


def test_tensor_past_its_storage(tmp_path):
    path = write_pth(tmp_path / "x.pth", {"w": np.ones(4, np.float32)})
    with zipfile.ZipFile(path) as archive:
        pickled = archive.read("archive/data.pkl")
    # The first "(J" after the storage's tuple is the shape: 4 becomes 5.
    size = b"(J" + struct.pack("<i", 4)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", pickled.replace(size, b"(J" + struct.pack("<i", 5)))
        archive.writestr("archive/data/0", bytes(16))
    with pytest.raises(RdejaxError, match="parameter w is a tensor that reaches past its storage"):
        load_state_dict(path)


@pytest.mark.parametrize(
    "name,message",
    [
        ("nan.pth", "parameter bad holds NaN"),
        ("module.pth", "holds no state dict"),
        ("complex.pth", "parameter w is a storage of unknown type"),
        ("make_fixtures.py", "not a PyTorch checkpoint"),
        ("expected.npz", "without data.pkl"),
        ("none.pth", "no such file"),
    ],
)
def test_files_of_no_use(name, message):
    with pytest.raises(RdejaxError, match=message) as caught:
        load_state_dict(FIXTURES / name)
    assert name in str(caught.value)


# ------------------------------------------------------------------------ names


@pytest.mark.parametrize("net", (*NETS, *SWEM_NETS))
def test_published_networks(net):
    """The names tell the architecture, and every number arrives once, only moved."""
    model = filled_model(net)
    swem = "swem" if net in SWEM_NETS else None
    assert model.name == (swem or ("rde" if net in ("rde", "rde_repeat2") else "stcn"))
    if model.name == "rde":
        assert dict(model.settings.memory_settings)["repeat"] == (2 if net == "rde_repeat2" else 0)
    unused = ("batches_tracked", "encoder.mean", "encoder.std")
    given = [a for n, a in filled_state_dict(net).items() if not n.endswith(unused)]
    got = list(weights_of(model).values())
    assert sum(a.size for a in got) == sum(a.size for a in given)
    sums = [sorted(float(np.abs(a).sum(dtype=np.float64)) for a in x) for x in (given, got)]
    np.testing.assert_allclose(sums[0], sums[1], rtol=1e-6)


def test_compressor_without_aspp():
    state_dict = small_state_dict(aspp=False, repeat=1)
    assert not any(".conv1.aspp" in name for name in state_dict)
    memory = convert_state_dict(state_dict).memory
    assert memory.compress_key.aspp is None and len(memory.compress_key.se_blocks) == 1


def test_single_object_weights_are_widened_with_zeros():
    state_dict = small_state_dict("stcn")
    name = "value_encoder.conv1.weight"
    state_dict[name] = state_dict[name][:, :4]
    kept = convert_state_dict(state_dict, keep_single_object=True).value_encoder
    assert kept.trunk.conv1.kernel.shape == (7, 7, 4, 64)
    wide = convert_state_dict(state_dict).value_encoder
    assert wide.trunk.conv1.kernel.shape == (7, 7, 5, 64) and not wide.single_object
    image, f16 = jnp.ones((1, 32, 32, 3)), jnp.ones((1, 2, 2, 256))
    mask = jnp.zeros((1, 1, 32, 32)).at[..., 8:20, 8:20].set(1)
    run = nnx.jit(lambda m: m(image, f16, mask, 1 - mask))
    np.testing.assert_allclose(run(wide), run(kept), rtol=1e-4, atol=1e-5)


def test_all_misfits_are_named_together():
    state_dict = empty_state_dict("rde")
    del state_dict["key_comp.bias"], state_dict["mem_compress.compress_key.weight"]
    state_dict["extra.weight"] = np.zeros(3)
    state_dict["decoder.pred.weight"] = np.zeros((2, 256, 3, 3))
    with pytest.raises(RdejaxError) as caught:
        convert_state_dict(state_dict, source="c.pth")
    text = str(caught.value)
    for part in (
        "c.pth: 4 parameters",
        "missing key_comp.bias",
        "missing mem_compress.compress_key.weight",
        "unexpected extra.weight",
        "decoder.pred.weight has shape (2, 256, 3, 3), expected (1, 256, 3, 3)",
    ):
        assert part in text


def test_checkpoint_of_another_architecture():
    with pytest.raises(RdejaxError, match="unexpected mem_compress"):
        convert_state_dict(empty_state_dict("rde"), arch="stcn")
    with pytest.raises(RdejaxError, match="missing mem_compress"):
        convert_state_dict(empty_state_dict("stcn"), arch="rde")
    with pytest.raises(RdejaxError, match="not a network that is known"):
        convert_state_dict({"fc.weight": np.zeros((2, 2))})


def stm_state_dict():
    """Of a small STM, as the public one: with its normalisation, from a data-parallel wrapper."""
    mean = {f"Encoder_{e}.{n}": np.ones((1, 3, 1, 1), np.float32) for e in "MQ" for n in STATS}
    return {f"module.{name}": a for name, a in {**small_state_dict("stm"), **mean}.items()}


def test_stm(tmp_path):
    """Sizes are read off the arrays; names are written out, so that a wrong rule is seen."""
    state_dict = stm_state_dict()
    path = write_pth(tmp_path / "stm.pth", state_dict)
    model = rdejax.load_model(str(path), keep_every=2)
    assert model.name == "stm" and dataclasses.asdict(model.config) == {
        **SMALL,
        "decoder_width": 256,
    }
    assert model.settings.every == 1 and dict(model.settings.memory_settings)["keep_every"] == 2
    # An interval of memorising beside it would leave the previous frame out of the bank.
    with pytest.raises(RdejaxError, match="every=5: .* give keep_every=5"):
        rdejax.load_model(str(path), every=5)
    weights = weights_of(model)
    for ours, theirs in {
        "key_encoder/conv1/kernel": "Encoder_Q.conv1.weight",
        "key_encoder/layer3/0/downsample/conv/kernel": "Encoder_Q.res4.0.downsample.0.weight",
        "value_encoder/trunk/conv1/kernel": "Encoder_M.conv1.weight",
        "value_encoder/trunk/layer1/1/conv2/kernel": "Encoder_M.res2.1.conv2.weight",
        "value_encoder/conv_mask/kernel": "Encoder_M.conv1_m.weight",
        "value_encoder/conv_others/kernel": "Encoder_M.conv1_o.weight",
        "value_encoder/key/kernel": "KV_M_r4.Key.weight",
        "value_encoder/value/kernel": "KV_M_r4.Value.weight",
        "key_proj/kernel": "KV_Q_r4.Key.weight",
        "key_comp/kernel": "KV_Q_r4.Value.weight",
        "decoder/compress/kernel": "Decoder.convFM.weight",
        "decoder/block/conv2/kernel": "Decoder.ResMM.conv2.weight",
        "decoder/refine_16_8/skip_conv/kernel": "Decoder.RF3.convFS.weight",
        "decoder/refine_16_8/skip_block/conv1/kernel": "Decoder.RF3.ResFS.conv1.weight",
        "decoder/refine_8_4/out/conv1/kernel": "Decoder.RF2.ResMM.conv1.weight",
        "decoder/pred/kernel": "Decoder.pred2.weight",
    }.items():
        want = state_dict[f"module.{theirs}"].transpose(2, 3, 1, 0)
        np.testing.assert_array_equal(weights[ours], want, err_msg=ours)
    with pytest.raises(RdejaxError, match="missing key_encoder.conv1.weight"):
        convert_state_dict(small_state_dict("stm"), arch="stcn")


@pytest.mark.parametrize("net", XMEM_NETS)
def test_xmem(net):
    """Full size, told by its names; a single-object network gets its channel of the others."""
    rng = np.random.default_rng(0)
    # Only entries that are looked at hold numbers; the others take no memory.
    state_dict = {n: np.broadcast_to(np.float32(0), s) for n, s in xmem_shapes(net).items()}
    pairs = {
        "key_encoder/layer1/0/downsample/conv/kernel": "key_encoder.res2.0.downsample.0.weight",
        "key_proj/kernel": "key_proj.key_proj.weight",
        "anisotropy/shrinkage/kernel": "key_proj.d_proj.weight",
        "anisotropy/selection/kernel": "key_proj.e_proj.weight",
        "value_encoder/trunk/conv1/kernel": "value_encoder.conv1.weight",
        "value_encoder/block1/conv1/kernel": "value_encoder.fuser.block1.conv1.weight",
        "value_encoder/deep_update/transform/kernel": (
            "value_encoder.hidden_reinforce.transform.weight"
        ),
        "decoder/fuser/block1/downsample/kernel": "decoder.fuser.block1.downsample.weight",
        "decoder/fuser/attention/spatial/kernel": (
            "decoder.fuser.attention.SpatialGate.spatial.conv.weight"
        ),
        "decoder/hidden_update/g4_conv/kernel": "decoder.hidden_update.g4_conv.weight",
        "decoder/hidden_update/gate/transform/kernel": "decoder.hidden_update.transform.weight",
        "decoder/up_16_8/out_conv/downsample/kernel": "decoder.up_16_8.out_conv.downsample.weight",
    }
    pairs = {ours: theirs for ours, theirs in pairs.items() if theirs in state_dict}
    assert len(pairs) == (9 if net == "xmem_no_sensory" else 12)
    for theirs in pairs.values():
        state_dict[theirs] = rng.standard_normal(state_dict[theirs].shape, np.float32)
    model = convert_state_dict(state_dict, top_k=20, deep_update_every=3)
    assert model.name == "xmem" and not model.config.single_object
    assert model.config.hidden_dim == (0 if net == "xmem_no_sensory" else 64)
    assert (model.config.key_channels, model.config.value_channels) == (64, 512)
    assert model.settings.deep_update_every == 3 and model.memory.top_k == 20
    weights = weights_of(model)
    for ours, theirs in pairs.items():
        want = state_dict[theirs].transpose(2, 3, 1, 0)
        if net == "xmem_single_object" and theirs == "value_encoder.conv1.weight":
            want = np.pad(want, ((0, 0), (0, 0), (0, 1), (0, 0)))
        np.testing.assert_array_equal(weights[ours], want, err_msg=ours)


def test_xmem_that_lacks_a_part_is_refused():
    shapes = xmem_shapes("xmem")
    state_dict = {n: np.broadcast_to(np.float32(0), s) for n, s in shapes.items()}
    del state_dict["key_proj.e_proj.weight"]
    with pytest.raises(RdejaxError, match="missing key_proj.e_proj.weight"):
        convert_state_dict(state_dict)
    with pytest.raises(RdejaxError, match="unexpected key_proj.d_proj"):
        convert_state_dict(state_dict, arch="stcn")


def test_unknown_architectures_are_refused():
    with pytest.raises(RdejaxError, match="--arch vos is not known; choose one of rde, stcn"):
        convert_state_dict({"key_encoder.res2.0.x": np.zeros(1)}, arch="vos")


def test_not_finite_weights_are_named():
    state_dict = small_state_dict("stcn")
    state_dict["decoder.pred.bias"] = np.array([np.inf], np.float32)
    with pytest.raises(RdejaxError, match="decoder.pred.bias holds NaN or infinity"):
        convert_state_dict(state_dict)


# ------------------------------------------------------------------------ ImageNet


def torchvision_resnet(depth, seed=0):
    trunk = nnx.eval_shape(lambda: ResNetTrunk(depth, rngs=nnx.Rngs(0)))
    rng = np.random.default_rng(seed)
    shapes = {n: t.shape for n, t in targets(shapes_of(trunk), RESNET_RULES).items()}
    shapes |= {"layer4.0.conv1.weight": (8, 8, 1, 1), "fc.weight": (10, 8), "fc.bias": (10,)}
    out = {name: rng.standard_normal(shape, np.float32) for name, shape in shapes.items()}
    return {**out, "bn1.num_batches_tracked": np.array(5)}


def test_resnet_trunk_names_are_torchvision_s():
    """Names are written out here, so that a wrong rule is seen."""
    names = set(torchvision_resnet(50))
    for name in (
        "conv1.weight",
        "bn1.running_var",
        "layer1.0.downsample.0.weight",
        "layer1.0.downsample.1.running_mean",
        "layer3.5.conv3.weight",
        "layer3.5.bn3.bias",
    ):
        assert name in names
    assert "layer1.1.downsample.0.weight" not in names and "layer1.0.conv1.bias" not in names


def test_resnet_into_value_encoder_trunk():
    """Extra input channels start orthogonal, biases zero; what is given is copied."""
    weights = torchvision_resnet(18)
    trunk = ResNetTrunk(18, 5, conv_bias=True, rngs=nnx.Rngs(1))
    load_imagenet_trunk(weights, trunk)
    got = weights_of(trunk)
    kernel = got["conv1/kernel"]
    np.testing.assert_array_equal(kernel[:, :, :3], weights["conv1.weight"].transpose(2, 3, 1, 0))
    extra = kernel[:, :, 3:].reshape(-1, 64)
    np.testing.assert_allclose(extra.T @ extra, np.eye(64), atol=1e-5)
    assert not got["layer2/0/conv1/bias"].any()
    np.testing.assert_array_equal(got["layer3/1/bn2/var"], weights["layer3.1.bn2.running_var"])


def test_resnet_of_another_depth():
    trunk = nnx.eval_shape(lambda: ResNetTrunk(18, rngs=nnx.Rngs(0)))
    with pytest.raises(RdejaxError, match="unexpected layer1.0.conv3.weight"):
        load_imagenet_trunk(torchvision_resnet(50), trunk)


def lite0_state_dict():
    """Shapes of the package's state dict, some of what follows stride 16 included."""
    rng = np.random.default_rng(0)
    stages = ((1, 16, 3, 1), (2, 24, 3, 6), (2, 40, 5, 6), (3, 80, 3, 6), (3, 112, 5, 6))
    shapes, cin, index = {"_conv_stem.weight": (32, 3, 3, 3)}, 32, 0

    def norm(name, c):
        for leaf in ("weight", "bias", "running_mean", "running_var"):
            shapes[f"{name}.{leaf}"] = (c,)

    norm("_bn0", 32)
    for count, cout, kernel, expand in (*stages, (1, 192, 5, 6)):
        for _ in range(count):
            name, inner = f"_blocks.{index}", cin * expand
            if expand > 1:
                shapes[f"{name}._expand_conv.weight"] = (inner, cin, 1, 1)
                norm(f"{name}._bn0", inner)
            shapes[f"{name}._depthwise_conv.weight"] = (inner, 1, kernel, kernel)
            norm(f"{name}._bn1", inner)
            shapes[f"{name}._project_conv.weight"] = (cout, inner, 1, 1)
            norm(f"{name}._bn2", cout)
            cin, index = cout, index + 1
    shapes |= {"_conv_head.weight": (1280, 192, 1, 1), "_fc.bias": (1000,)}
    return {name: rng.standard_normal(shape, np.float32) for name, shape in shapes.items()}


def test_efficientnet_trunk():
    weights = lite0_state_dict()
    got = lite0_from_torch(weights)
    expand = weights["_blocks.3._expand_conv.weight"][:, :, 0, 0]
    np.testing.assert_array_equal(got["blocks/3/expand/kernel"], expand.T)
    depthwise = weights["_blocks.10._depthwise_conv.weight"]
    np.testing.assert_array_equal(got["blocks/10/depthwise/kernel"][1, 2, 0], depthwise[:, 0, 1, 2])
    np.testing.assert_array_equal(got["blocks/0/bn2/mean"], weights["_blocks.0._bn2.running_mean"])
    del weights["_blocks.7._bn1.bias"]
    with pytest.raises(RdejaxError, match="1 parameters do not fit: missing _blocks.7._bn1.bias"):
        lite0_from_torch(weights)


# ------------------------------------------------------------------------ command line


def same(a, b):
    return a.keys() == b.keys() and all(np.array_equal(a[name], b[name]) for name in a)


def test_command_line_makes_a_loadable_file(tmp_path, capsys):
    state_dict = small_state_dict()
    path = write_pth(tmp_path / "small.pth", state_dict)
    main([str(path), "--output", str(tmp_path / "out" / "small.safetensors")])
    assert "architecture  rde" in capsys.readouterr().out
    main([str(path), "--output", str(tmp_path / "folder"), "--arch", "rde"])
    want = weights_of(convert_state_dict(state_dict))
    assert same(read_weights(tmp_path / "out" / "small.safetensors")[0], want)
    model = rdejax.load_model(str(tmp_path / "folder"), every=4)
    assert model.settings.every == 4 and same(weights_of(model), want)
    left = {p.name for p in tmp_path.rglob("*") if p.is_file()}
    assert left == {"small.pth", "small.safetensors", "weights.safetensors"}


def test_load_model_takes_the_checkpoint_itself(tmp_path):
    state_dict = small_state_dict()
    path = write_pth(tmp_path / "small.pth", state_dict)
    want = weights_of(convert_state_dict(state_dict))
    assert same(weights_of(rdejax.load_model(str(path))), want)
    # Another memory: the compressor's weights are left out.
    body = {name: array for name, array in want.items() if not name.startswith("memory/")}
    assert same(weights_of(rdejax.load_model(str(path), memory="bank")), body)
    assert same(weights_of(rdejax.load_model(str(path), strategy="F+L")), body)


def test_half_precision_file(tmp_path):
    path = write_pth(tmp_path / "small.pth", small_state_dict("stcn"))
    main([str(path), "--output", str(tmp_path / "a.safetensors"), "--half"])
    main([str(path), "--output", str(tmp_path / "b.safetensors")])
    a, b = (read_weights(tmp_path / f"{n}.safetensors")[0] for n in "ab")
    assert all(a[name].dtype == np.float16 and b[name].dtype == np.float32 for name in b)
    assert all(np.allclose(a[name], b[name], rtol=1e-3, atol=1e-6) for name in b)


@pytest.mark.parametrize(
    "arguments,message",
    [
        (["types_zip.pth", "--output", "{}/o"], "not a network that is known"),
        (["nan.pth", "--output", "{}/o"], "parameter bad holds NaN"),
        (["types_zip.pth", "--output", "{}/o", "--arch", "vos"], "--arch vos is not known"),
        (["types_zip.pth", "--output", "{}/o.pth"], "name the output .safetensors"),
        (["none.pth", "--output", "{}/o"], "no such file"),
    ],
)
def test_command_line_errors(arguments, message, tmp_path, capsys):
    with pytest.raises(SystemExit) as exit_:
        main([str(FIXTURES / arguments[0]), *(a.format(tmp_path) for a in arguments[1:])])
    error = capsys.readouterr().err
    assert exit_.value.code == 2
    assert error.startswith("error: ") and message in error and error.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_as_a_program_without_torch(tmp_path):
    """No traceback, exit 2; PyTorch is not imported even where it is installed."""
    (tmp_path / "torch").mkdir()
    (tmp_path / "torch" / "__init__.py").write_text("raise SystemExit('PyTorch was imported')")
    root = Path(rdejax.__file__).parents[1]
    done = subprocess.run(
        [sys.executable, "-m", "rdejax.convert", str(FIXTURES / "types_legacy.pth")]
        + ["--output", str(tmp_path / "o")],
        env={**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{root}"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith("error: ") and "not a network that is known" in done.stderr
