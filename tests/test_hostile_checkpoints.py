"""PyTorch files that ask for more than they hold: refused, in bounded memory and time."""

import struct
import time
import tracemalloc
import zipfile

import numpy as np
import pytest

from rdejax.convert import convert_state_dict, load_state_dict
from rdejax.convert.pickle_values import UNKNOWN, Refused, Unknown, read_pickle
from rdejax.errors import RdejaxError

MEGABYTE = 1 << 20


@pytest.fixture
def bounded():
    """The test takes at most 48 MB and ten seconds of a processor."""
    tracemalloc.start()
    begun = time.process_time()
    yield
    seconds, (_, peak) = time.process_time() - begun, tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 48 * MEGABYTE and seconds < 10, (peak, seconds)


def archive(path, pickled, method=zipfile.ZIP_STORED, **members):
    with zipfile.ZipFile(path, "w", method) as file:
        file.writestr("archive/data.pkl", pickled)
        for key, data in members.items():
            file.writestr(f"archive/data/{key}", data)
    return path


def text(value):
    return b"X" + struct.pack("<I", len(value)) + value.encode()


def number(value):
    return b"J" + struct.pack("<i", value)


def numbers(values):
    return b"(" + b"".join(map(number, values)) + b"t"


def storage(key, numel):
    words = text("storage") + b"ctorch\nFloatStorage\n" + text(key) + text("cpu")
    return b"(" + words + number(numel) + b"tQ"


def tensor(key, numel, size, stride):
    view = storage(key, numel) + number(0) + numbers(size) + numbers(stride)
    return b"ctorch._utils\n_rebuild_tensor_v2\n(" + view + b"\x89)tR"


def dictionary(entries):
    return b"\x80\x02}(" + b"".join(text(k) + v for k, v in entries.items()) + b"u."


TWICE = b"2\x86"  # a tuple of the top of the stack and itself
HOSTILE = {
    "memo index": b"\x80\x02Nr\xff\xff\xff\x7f.",
    "nest as a key": b"\x80\x02})" + TWICE * 3000 + b"Ns.",
    "nest as a storage's key": b"\x80\x02(" + text("storage") + b"N)" + TWICE * 200 + b"NNtQ.",
    "nest as a name": b"\x80\x02)" + TWICE * 200 + b"Nc\n\nR.",
    "copies of a list": b"\x80\x02]q\x00("
    + b"N" * 100_000
    + b"ectorch\nSize\nq\x01"
    + b"h\x01h\x00\x85R" * 100_000
    + b".",
    "long text": b"\x80\x04\x8d\xff\xff\xff\xff\xff\xff\xff\x0fx.",
    "long number": b"\x80\x02\x8b\xff\xff\xff\x7f1.",
    "digits": b"L" + b"9" * 1_000_000 + b"L\n.",
    "cut mark": b"\x80\x02((((((u.",
    "persistent id of nothing": b"\x80\x02Q.",
    "itself": b"\x80\x02}q\x00" + text("model") + b"h\x00s.",
    "buffer": b"\x80\x05\x97.",
    "extension": b"\x80\x02\x82\x01.",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_pickles_that_ask_for_much(name, tmp_path, bounded):
    path = archive(tmp_path / "x.pth", HOSTILE[name])
    with pytest.raises(RdejaxError, match=r"x\.pth: ") as caught:
        load_state_dict(path)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 500


def test_compressed_members_are_refused(tmp_path, bounded):
    pickled = dictionary({"w": tensor("0", 1, (1,), (1,))})
    zeros = bytes(200 * MEGABYTE // 8)
    path = archive(tmp_path / "x.pth", pickled, zipfile.ZIP_DEFLATED, **{"0": zeros})
    with pytest.raises(RdejaxError, match="is compressed, as torch.save does not do"):
        load_state_dict(path)


def test_members_that_overlap_are_refused(tmp_path, bounded):
    """Two entries of the directory that tell of the same bytes."""
    path = archive(tmp_path / "x.pth", dictionary({}), **{"0": bytes(MEGABYTE), "1": b""})
    data = bytearray(path.read_bytes())
    first = data.index(b"archive/data/0", MEGABYTE) - 46
    second = data.index(b"archive/data/1", MEGABYTE) - 46
    data[second + 16 : second + 46] = data[first + 16 : first + 46]
    path.write_bytes(bytes(data))
    with pytest.raises(RdejaxError, match=r"x\.pth: "):
        load_state_dict(path)


def test_a_storage_counts_once(tmp_path, bounded):
    size = MEGABYTE // 4
    whole = tensor("0", size, (size,), (1,))
    path = tmp_path / "x.pth"
    data = {"0": np.ones(size, np.float32).tobytes()}
    # Tied weights are fine.
    archive(path, dictionary({"a": whole, "b": whole}), **data)
    assert [a.nbytes for a in load_state_dict(path).values()] == [MEGABYTE] * 2
    archive(path, dictionary({f"w{i}": whole for i in range(400)}), **data)
    with pytest.raises(RdejaxError, match="tensors of 419430400 bytes in a file of"):
        load_state_dict(path)


def test_a_storage_is_read_once(tmp_path, bounded):
    """However many tensors take a number of it each, and of which storage the one before was."""
    size = MEGABYTE // 4
    entries = {f"w{i}": tensor(str(i % 2), size, (1,), (1,)) for i in range(1500)}
    data = {key: np.full(size, float(key), np.float32).tobytes() for key in "01"}
    arrays = load_state_dict(archive(tmp_path / "x.pth", dictionary(entries), **data))
    assert list(arrays) == list(entries) and arrays["w3"] == 1 and arrays["w2"] == 0


@pytest.mark.parametrize(
    ("size", "stride"),
    [
        ((1 << 30, 1 << 30), (0, 0)),
        ((3,), (1 << 30,)),
        ((1,) * 100, (0,) * 100),
        ((-1,), (1,)),
        ((2,), (1, 1)),
    ],
)
def test_impossible_shapes(size, stride, tmp_path, bounded):
    pickled = dictionary({"w": tensor("0", 4, size, stride)})
    path = archive(tmp_path / "x.pth", pickled, **{"0": bytes(16)})
    with pytest.raises(RdejaxError, match="parameter w is a tensor"):
        load_state_dict(path)


def test_names_of_wrappers_and_modules_end(tmp_path, bounded):
    one = tensor("0", 1, (1,), (1,))
    deep = dictionary({"w": one})[2:-1]
    for _ in range(2000):
        deep = b"}" + text("model") + deep + b"s"
    path = archive(tmp_path / "x.pth", b"\x80\x02" + deep + b".", **{"0": bytes(4)})
    with pytest.raises(RdejaxError, match="holds no state dict"):
        load_state_dict(path)
    archive(path, dictionary({"module." * 100_000 + "w": one}), **{"0": bytes(4)})
    (name,) = load_state_dict(path)
    assert name.endswith("module.w")


def test_a_number_in_a_name_makes_no_layers():
    names = [f"mem_compress.key_encoder.se_block.{n}.x" for n in (10**9, "9" * 5000)]
    with pytest.raises(RdejaxError, match="parameters do not fit"):
        convert_state_dict(dict.fromkeys(names, np.zeros(1, np.float32)))


def test_keys_are_plain_and_calls_inert():
    got, end = read_pickle(
        b"\x80\x02}(K\x01K\x02)K\x03ccollections\nOrderedDict\n)RK\x04u.rest",
        build=lambda name, arguments: UNKNOWN,
        persistent=lambda pid: UNKNOWN,
    )
    assert end == len(b"\x80\x02}(K\x01K\x02)K\x03ccollections\nOrderedDict\n)RK\x04u.")
    assert list(got.values()) == [2, 3, 4] and got[1] == 2
    assert [type(key) for key in list(got)[1:]] == [Unknown, Unknown]
    asked = []
    read_pickle(
        b"\x80\x02cos\nsystem\n" + text("ls") + b"\x85R.",
        build=lambda name, arguments: asked.append((name.module, name.name, arguments)),
        persistent=lambda pid: None,
    )
    assert asked == [("os", "system", ("ls",))]
    with pytest.raises(EOFError):
        read_pickle(b"\x80\x02}", build=lambda *_: None, persistent=lambda _: None)
    with pytest.raises(Refused):
        read_pickle(b"\x80\x02}\xffabc", build=lambda *_: None, persistent=lambda _: None)
