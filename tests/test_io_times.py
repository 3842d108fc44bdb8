"""When frames are shown, and what is heard with them, in the overlay of a video."""

import json
from fractions import Fraction

import av
import numpy as np
import pytest
from io_helpers import fake_api, square_mask, write_folder, write_mask_image

from rdejax.infer.__main__ import main
from rdejax.io.video import open_frames

VARYING = [0, 40, 80, 200, 300, 340, 500, 1000, 1100, 1200]  # milliseconds
STEADY = [round(1000 * index / 30) for index in range(10)]
SIZE = (36, 52)


def record(path, times, codec="aac"):
    """A video of frames at these times, with a tone for as long."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=30)
        stream.height, stream.width, stream.pix_fmt = *SIZE, "yuv420p"
        stream.codec_context.time_base = Fraction(1, 1000)
        sound = container.add_stream(codec, rate=48000) if codec else None
        for index, time in enumerate(times):
            picture = np.full((*SIZE, 3), 20 * index, np.uint8)
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts, frame.time_base = time, Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
        if sound is not None:
            wave = (8000 * np.sin(np.arange(48 * times[-1]) / 20)).astype(np.int16)[None]
            tone = av.AudioFrame.from_ndarray(wave, format="s16", layout="mono")
            tone.sample_rate = 48000
            layout = sound.codec_context.layout.name or "mono"
            to = av.AudioResampler(
                format=sound.codec_context.format.name, layout=layout, rate=48000
            )
            for part in to.resample(tone):
                container.mux(sound.encode(part))
            container.mux(sound.encode())
    return path


def seconds_of_sound(path):
    with av.open(str(path)) as container:
        if not container.streams.audio:
            return 0.0
        return sum(frame.samples for frame in container.decode(audio=0)) / 48000


@pytest.fixture
def run(tmp_path, monkeypatch):
    fake_api(monkeypatch)
    mask = write_mask_image(tmp_path / "mask.png", square_mask())

    def run(video, *more):
        out = tmp_path / "out"
        main([str(video), "--mask", str(mask), "--output", str(out), "--overwrite", *more])
        return json.loads((out / "summary.json").read_text()), out / "overlay.mp4"

    return run


def test_a_varying_rate_is_that_of_the_overlay_and_noted(tmp_path, run):
    video = record(tmp_path / "v.mp4", VARYING)
    assert [1000 * time for time in open_frames(video).times] == VARYING
    summary, overlay = run(video)
    assert summary["timestamps"] == [time / 1000 for time in VARYING]
    shown = open_frames(overlay)
    assert len(list(shown)) == len(VARYING)
    assert np.abs(np.array([float(t) for t in shown.times]) - np.array(VARYING) / 1000).max() < 2e-3


@pytest.mark.parametrize("name", ["v.mp4", "v.mkv"])
def test_a_steady_rate_needs_no_times(tmp_path, run, name):
    video = record(tmp_path / name, STEADY)
    assert open_frames(video).times is None
    summary, overlay = run(video)
    assert "timestamps" not in summary and open_frames(overlay).times is None


@pytest.mark.parametrize(("name", "codec"), [("v.mp4", "aac"), ("v.mkv", "libopus")])
def test_sound_is_taken_over(tmp_path, run, name, codec):
    video = record(tmp_path / name, VARYING, codec)
    _, overlay = run(video)
    assert abs(seconds_of_sound(overlay) - 1.2) < 0.06
    # At another rate it would no longer fit the pictures.
    _, overlay = run(video, "--fps", "5")
    assert seconds_of_sound(overlay) == 0 and open_frames(overlay).times is None


def test_videos_without_sound_or_with_one_that_mp4_cannot_hold(tmp_path, run):
    for name, codec in (("none.mp4", None), ("pcm.mkv", "pcm_s16le")):
        _, overlay = run(record(tmp_path / name, STEADY, codec))
        assert seconds_of_sound(overlay) == 0 and len(list(open_frames(overlay))) == 10
    folder = write_folder(tmp_path / "frames", np.zeros((3, *SIZE, 3), np.uint8))
    assert seconds_of_sound(run(folder)[1]) == 0


def test_sound_that_breaks_off_ends_there(tmp_path, run):
    video = record(tmp_path / "v.mkv", VARYING)
    data = video.read_bytes()
    video.write_bytes(data[: int(len(data) * 0.6)])
    _, overlay = run(video, "--allow-damaged")
    assert seconds_of_sound(overlay) < 1.2 and len(list(open_frames(overlay))) > 0
