"""Frames in: video files and folders of images, whole and broken."""

import struct
from fractions import Fraction

import numpy as np
import pytest
from io_helpers import moving_frames, write_folder, write_video
from PIL import Image

from rdejax.errors import RdejaxError
from rdejax.io.video import open_frames, read_image


def test_folder_is_read_in_natural_order(tmp_path):
    frames = moving_frames(3)
    write_folder(tmp_path / "v", frames, names=["frame10", "frame2", "frame1"])
    source = open_frames(tmp_path / "v")
    assert source.names == ["frame1", "frame2", "frame10"]
    assert source.size == (36, 52)
    assert source.fps is None
    np.testing.assert_array_equal(np.stack([f for _, f in source]), frames[::-1])
    assert [name for name, _ in source.frames(2)] == ["frame10"]


def test_other_files_and_hidden_ones_are_left_out(tmp_path):
    folder = write_folder(tmp_path / "v", moving_frames(2))
    (folder / "Thumbs.db").write_bytes(b"x")
    (folder / "._00000.png").write_bytes(b"x")
    assert open_frames(folder).names == ["00000", "00001"]


def test_grey_rgba_palette_and_16_bit_frames_become_rgb(tmp_path):
    rgb = moving_frames(1)[0]
    grey = Image.fromarray(rgb).convert("L")
    grey.save(tmp_path / "grey.png")
    np.testing.assert_array_equal(
        read_image(tmp_path / "grey.png"), np.repeat(np.array(grey)[..., None], 3, 2)
    )
    Image.fromarray(np.dstack([rgb, np.full(rgb.shape[:2], 7, np.uint8)])).save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), rgb)
    Image.fromarray(rgb).quantize(16).save(tmp_path / "p.png")
    assert np.abs(read_image(tmp_path / "p.png").astype(int) - rgb).mean() < 12
    deep = (np.array(grey).astype(np.uint16) * 257).astype(np.uint16)
    Image.fromarray(deep).save(tmp_path / "deep.png")
    np.testing.assert_array_equal(read_image(tmp_path / "deep.png")[..., 0], np.array(grey))


def test_exif_orientation_is_applied(tmp_path):
    rgb = moving_frames(1)[0]
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(rgb).save(tmp_path / "turned.png", exif=exif)
    np.testing.assert_array_equal(read_image(tmp_path / "turned.png"), np.rot90(rgb, -1))


def test_frames_of_changing_size_are_refused_by_name(tmp_path):
    folder = write_folder(tmp_path / "v", moving_frames(2))
    Image.fromarray(moving_frames(1, (20, 20))[0]).save(folder / "00002.png")
    with pytest.raises(RdejaxError, match=r"00002\.png.*20x20.*00000\.png.*52x36"):
        list(open_frames(folder))


@pytest.mark.parametrize("suffix", [".png", ".jpg"])
def test_truncated_image_is_refused_by_name(tmp_path, suffix):
    folder = write_folder(tmp_path / "v", moving_frames(2), suffix=suffix)
    path = folder / f"00001{suffix}"
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(RdejaxError, match=rf"00001\{suffix}: unreadable or truncated"):
        list(open_frames(folder))


@pytest.mark.parametrize("content", [b"", b"no image at all", b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR"])
def test_unreadable_image_is_refused_by_name(tmp_path, content):
    (tmp_path / "00000.png").write_bytes(content)
    with pytest.raises(RdejaxError, match=r"00000\.png: unreadable"):
        open_frames(tmp_path)


def test_two_frames_of_one_name_are_refused(tmp_path):
    write_folder(tmp_path, moving_frames(2))
    write_folder(tmp_path, moving_frames(1), suffix=".jpg")
    with pytest.raises(RdejaxError, match="same name"):
        open_frames(tmp_path)


def test_missing_empty_and_single_images_are_refused(tmp_path):
    with pytest.raises(RdejaxError, match="no-such.mp4: no such file or folder"):
        open_frames(tmp_path / "no-such.mp4")
    (tmp_path / "empty").mkdir()
    with pytest.raises(RdejaxError, match="no images in this folder"):
        open_frames(tmp_path / "empty")
    image = write_folder(tmp_path / "v", moving_frames(1)) / "00000.png"
    with pytest.raises(RdejaxError, match="single image"):
        open_frames(image)


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.ts"])
def test_video_is_decoded_in_order(tmp_path, name):
    frames = moving_frames(20)
    source = open_frames(write_video(tmp_path / name, frames, fps=Fraction(30000, 1001)))
    decoded = list(source)
    assert [n for n, _ in decoded] == list(source.names) == [f"{i:05d}" for i in range(20)]
    assert source.size == (36, 52)
    assert float(source.fps) == pytest.approx(29.97, abs=0.01)
    got = np.stack([frame for _, frame in decoded]).astype(int)
    # Each frame is nearest to its own original: order and colour order are right.
    distance = np.abs(got[:, None] - frames[None].astype(int)).mean((2, 3, 4))
    np.testing.assert_array_equal(distance.argmin(1), np.arange(20))
    later = list(source.frames(15))
    assert [n for n, _ in later] == [f"{i:05d}" for i in range(15, 20)]
    np.testing.assert_array_equal(later[0][1], decoded[15][1])


@pytest.mark.parametrize("turn", [90, 180, 270])
def test_rotation_of_the_file_is_applied_once(tmp_path, turn):
    path = write_video(tmp_path / "a.mp4", moving_frames(3))
    upright = next(iter(open_frames(path)))[1]
    data = bytearray(path.read_bytes())
    # The display matrix of the track header (ISO 14496-12, 8.3.2), version 0.
    at = data.index(b"tkhd") + 4 + 4 + 20 + 16
    one = 1 << 16
    rows = {90: (0, one, -one, 0), 180: (-one, 0, 0, -one), 270: (0, -one, one, 0)}
    a, b, c, d = rows[turn]
    data[at : at + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path.write_bytes(data)
    source = open_frames(path)
    # Players turn the picture clockwise by `turn`.
    expected = np.rot90(upright, -turn // 90)
    assert source.size == expected.shape[:2]
    np.testing.assert_array_equal(next(iter(source))[1], expected)


def _cut(path, part):
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * part)])
    return path


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("index-last.mp4", {}),
        ("index-first.mp4", {"movflags": "faststart"}),
        ("fragments.mp4", {"movflags": "frag_keyframe+empty_moov"}),
        ("a.mkv", {}),
    ],
)
def test_truncated_video_is_refused_by_name(tmp_path, name, options):
    noise = np.random.default_rng(0).integers(0, 255, (40, 48, 64, 3), np.uint8)
    path = _cut(write_video(tmp_path / name, noise, options=options), 0.6)
    with pytest.raises(RdejaxError, match=rf"{name}: the video is truncated"):
        open_frames(path)


@pytest.mark.parametrize(("start", "length"), [(30, 10), (31, 9), (0, 15), (0, 200)])
def test_trimmed_video_is_not_taken_for_a_truncated_one(tmp_path, start, length):
    noise = np.random.default_rng(0).integers(0, 255, (40, 48, 64, 3), np.uint8)
    path = write_video(tmp_path / "a.mp4", noise)
    whole = [frame for _, frame in open_frames(path)]
    data = bytearray(path.read_bytes())
    # The edit list (ISO 14496-12, 8.6.6): duration in milliseconds, start in 1/12800 s.
    at = data.index(b"elst") + 12
    offset = struct.unpack(">i", data[at + 4 : at + 8])[0]
    data[at : at + 8] = struct.pack(">Ii", length * 40, offset + start * 512)
    path.write_bytes(data)
    source = open_frames(path)
    frames = [frame for _, frame in source]
    assert len(frames) == len(source) == min(length, 40 - start)
    np.testing.assert_array_equal(frames[0], whole[start])


def test_what_can_be_read_of_a_truncated_video_on_request(tmp_path):
    noise = np.random.default_rng(0).integers(0, 255, (40, 48, 64, 3), np.uint8)
    path = write_video(tmp_path / "a.mp4", noise, options={"movflags": "faststart"})
    whole = [frame for _, frame in open_frames(path)]
    part = [frame for _, frame in open_frames(_cut(path, 0.6), allow_damaged=True)]
    assert 10 < len(part) < 40
    np.testing.assert_array_equal(part[5], whole[5])


@pytest.mark.parametrize("name", ["a.mkv", "a.mp4"])
def test_damage_in_the_middle_is_noticed(tmp_path, name):
    noise = np.random.default_rng(0).integers(0, 255, (24, 48, 64, 3), np.uint8)
    path = write_video(tmp_path / name, noise)
    data = bytearray(path.read_bytes())
    half = len(data) // 2
    data[half : half + 4000] = bytes(4000)
    path.write_bytes(data)
    with pytest.raises(RdejaxError, match=rf"{name}: the video is truncated or damaged"):
        list(open_frames(path))
    part = list(open_frames(path, allow_damaged=True))
    assert 10 < len(part) <= 24


@pytest.mark.parametrize("content", [b"", b"hello" * 100])
def test_what_is_no_video_is_refused_by_name(tmp_path, content):
    (tmp_path / "junk.mp4").write_bytes(content)
    with pytest.raises(RdejaxError, match=r"junk\.mp4: not a readable video"):
        open_frames(tmp_path / "junk.mp4")


def test_sound_without_pictures_is_refused(tmp_path):
    import av

    path = tmp_path / "sound.wav"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=8000)
        stream.layout = "mono"
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), layout="mono")
        frame.sample_rate = 8000
        container.mux(stream.encode(frame))
    with pytest.raises(RdejaxError, match="no video stream"):
        open_frames(path)


def test_fingerprint_notices_change(tmp_path):
    folder = write_folder(tmp_path / "v", moving_frames(2))
    before = open_frames(folder).fingerprint()
    assert open_frames(folder).fingerprint() == before
    write_folder(folder, moving_frames(2, seed=1))
    assert open_frames(folder).fingerprint() != before


def _packet(path, number):
    """Place and length in the file of a packet of it."""
    import av

    with av.open(str(path)) as container:
        packets = [(packet.pos, packet.size) for packet in container.demux(video=0) if packet.size]
    return packets[number]


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv"])
def test_damage_in_the_first_frame_moves_no_mask_to_the_second(tmp_path, name):
    noise = np.random.default_rng(0).integers(0, 255, (24, 48, 64, 3), np.uint8)
    path = write_video(tmp_path / name, noise)
    data = bytearray(path.read_bytes())
    place, size = _packet(path, 0)
    # The first unit is the encoder's name, the second the picture. Matroska puts a head before it.
    place += 4 if name.endswith("mkv") else 0
    picture = place + 4 + int.from_bytes(data[place : place + 4], "big")
    for begin in (picture + 4, place + size - 590):
        damaged = bytearray(data)
        damaged[begin : begin + 600] = bytes(600)
        path.write_bytes(damaged)
        with pytest.raises(RdejaxError, match=rf"{name}: the video is truncated or damaged"):
            list(open_frames(path))


def test_a_frame_less_than_promised_is_noticed(tmp_path):
    """The last picture is lost without an error: its packet holds an empty unit."""
    noise = np.random.default_rng(0).integers(0, 255, (24, 48, 64, 3), np.uint8)
    path = write_video(tmp_path / "a.mp4", noise, options={"movflags": "faststart"})
    place, size = _packet(path, 23)
    data = bytearray(path.read_bytes())
    data[place : place + size] = (size - 4).to_bytes(4, "big") + b"\x0c" + b"\xff" * (size - 5)
    path.write_bytes(data)
    with pytest.raises(
        RdejaxError, match=r"only \d\d of 24 frames could be decoded.*--allow-damaged"
    ):
        list(open_frames(path))
    assert 20 < len(list(open_frames(path, allow_damaged=True))) < 24


def test_packets_that_show_nothing_are_no_damage(tmp_path):
    """VP8's alternative reference frames are never shown."""
    frames = moving_frames(40, (64, 96))
    path = write_video(tmp_path / "a.webm", frames, codec="libvpx", options={})
    assert len(list(open_frames(path))) == 40


def test_a_transport_stream_may_begin_between_key_frames(tmp_path):
    noise = np.random.default_rng(0).integers(0, 255, (36, 48, 64, 3), np.uint8)
    path = write_video(tmp_path / "a.ts", noise)
    data = path.read_bytes()
    place, _ = _packet(path, 5)
    path.write_bytes(data[place // 188 * 188 :])
    assert 20 <= len(list(open_frames(path))) < 36
