"""The page in a real browser, on the demo clip: outline, propagate, mend, save."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from io_helpers import read_ids

from rdejax.io.overlay import VideoWriter
from rdejax.io.video import open_frames

ROOT = Path(__file__).resolve().parents[1]
DEMO = ROOT / "examples" / "demo"
BROWSER = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), ""
)
COUNT = 10
# The cockatoo in the first frame, in shares of its width and height.
BIRD = ((0.33, 0.005), (0.78, 0.995))

pytestmark = [
    pytest.mark.skipif(not BROWSER, reason="no Chromium is installed"),
    pytest.mark.slow,
]


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """The first frames of the demo clip."""
    source = open_frames(DEMO / "cockatoo.mp4")
    path = tmp_path_factory.mktemp("clip") / "cockatoo.mp4"
    with VideoWriter(path, source.size, source.fps) as writer:
        for (_, frame), _ in zip(source, range(COUNT), strict=False):
            writer.write(frame)
    return path


@pytest.fixture(scope="module")
def served(clip):
    """The page's address and where it saves."""
    pytest.importorskip("nicegui")
    out = clip.parent / "out"
    command = [sys.executable, "-m", "rdejax.app", str(clip), "--output", str(out)]
    command += ["--size", "96", "--no-browser"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    environment.pop("PYTEST_CURRENT_TEST", None)  # by which NiceGUI would run as under test
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    try:
        line = process.stdout.readline()
        address = re.match(r"http://127\.0\.0\.1:\d+", line)
        assert address, f"{line!r}; exit {process.poll()}"
        yield address[0], out
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(timeout=60)


@pytest.fixture(scope="module")
def page(served):
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1200, "height": 700})
        page.set_default_timeout(240_000)
        page.asked = []
        page.on("request", lambda request: page.asked.append(request.url))
        for _ in range(60):
            try:
                page.goto(served[0])
                break
            except playwright.Error:  # it is not up yet
                time.sleep(1)
        yield page
        browser.close()


def drag(page, *points):
    box = page.wait_for_selector("[data-test=frame] img").bounding_box()
    places = [(box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in points]
    page.mouse.move(*places[0])
    page.mouse.down()
    for place in places[1:]:
        page.mouse.move(*place, steps=5)
    page.mouse.up()


def wait_for(page, name, text):
    script = f"document.querySelector('[data-test={name}]').innerText.includes({text!r})"
    page.wait_for_function(script)


def test_draw_propagate_mend_and_save(page, served):
    _, out = served
    wait_for(page, "where", f"frame 00000 of {COUNT}")
    page.click("[data-test=tools] >> text=Box")
    drag(page, *BIRD)
    wait_for(page, "where", "drawn")
    page.click("[data-test=propagate]")
    wait_for(page, "status", "all frames are done")
    for number in range(COUNT - 1, 3, -1):  # back to frame 4
        wait_for(page, "where", f"frame {number:05d}")
        if number > 4:
            page.click("[data-test=back]")
    page.click("[data-test=new-object]")
    page.click("[data-test=tools] >> text=Brush")
    drag(page, (0.05, 0.6), (0.2, 0.9))
    wait_for(page, "where", "drawn")
    wait_for(page, "status", "propagate from frame 4 on")
    page.click("[data-test=propagate]")
    wait_for(page, "status", "all frames are done")
    page.click("[data-test=save]")
    page.wait_for_selector(f"text=saved {COUNT} frames")

    summary = json.loads((out / "summary.json").read_text())
    assert (summary["frames"], summary["objects"]) == (COUNT, [1, 2])
    assert summary["drawn"] == ["00000", "00004"]
    masks = np.stack([read_ids(path) for path in sorted((out / "masks").glob("*.png"))])
    truth = read_ids(DEMO / "cockatoo.png") > 0
    # GrabCut from one box is no more than a beginning, but it is the bird's.
    found = masks[0] == 1
    assert (found & truth).sum() / (found | truth).sum() > 0.2
    assert all((mask == 1).any() for mask in masks)
    assert not (masks[:4] == 2).any() and (masks[4] == 2).any()
    assert len(list(open_frames(out / "overlay.mp4"))) == COUNT


def test_nothing_is_loaded_from_elsewhere(page, served):
    assert page.asked
    assert all(url.startswith((served[0], "data:", "blob:")) for url in page.asked)


def test_other_names_and_origins_are_refused(page, served):
    import urllib.error
    import urllib.request

    for headers in ({"Host": "evil.example"}, {"Origin": "http://evil.example"}):
        request = urllib.request.Request(served[0] + "/", headers=headers)
        with pytest.raises(urllib.error.HTTPError) as caught:
            urllib.request.urlopen(request, timeout=20)
        assert caught.value.code in (400, 403)


@pytest.mark.parametrize("width", [1200, 700])
def test_nothing_sticks_out(page, width):
    page.set_viewport_size({"width": width, "height": 700})
    assert page.evaluate("document.documentElement.scrollWidth") <= width
