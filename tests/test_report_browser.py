"""The page in a real browser: clips load, tables sort, nothing sticks out."""

import html
import re
import shutil
import subprocess

import numpy as np
import pytest
from helpers_report import HOSTILE, make_dataset
from PIL import Image

from rdejax.report import write_report

BROWSER = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), ""
)

pytestmark = pytest.mark.skipif(not BROWSER, reason="no Chromium is installed")


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    base = tmp_path_factory.mktemp("browser")
    long = "z-sequence-with-quite-a-long-name-" * 3
    shifts = {"b": 5, "a": 0, HOSTILE: 2, long: 7}
    make_dataset(base / "data", base / "out", shifts, count=8, size=(90, 160))
    return write_report(base / "out", base / "page.html", dataset="folder", root=base / "data")


def browse(path, tmp_path, *more):
    command = [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"]
    command += [f"--user-data-dir={tmp_path / 'profile'}", "--virtual-time-budget=10000", *more]
    done = subprocess.run([*command, path.as_uri()], capture_output=True, timeout=240, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def with_script(page, tmp_path, script):
    """The page with one more script, which its policy is opened for."""
    text = page.read_text("utf-8")
    text = re.sub(r"script-src &#39;[^&]+&#39;", "script-src &#39;unsafe-inline&#39;", text)
    path = tmp_path / "scripted.html"
    path.write_text(text.replace("</body>", f"<script>{script}</script></body>"), "utf-8")
    return path


def test_every_clip_loads(page, tmp_path):
    dom = browse(page, tmp_path, "--dump-dom")
    states = re.findall(r'<video [^>]*data-state="(\w+)"', dom)
    assert states == ["ok"] * 4


def test_a_browser_without_the_codec_is_told(page, tmp_path):
    text = re.sub(r"data:video/mp4;base64,[^\"]+", "data:video/mp4;base64,AAAA", page.read_text())
    (tmp_path / "broken.html").write_text(text)
    dom = browse(tmp_path / "broken.html", tmp_path, "--dump-dom")
    assert re.findall(r'<video [^>]*data-state="(\w+)"', dom) == ["failed"] * 4


def test_tables_sort(page, tmp_path):
    script = """
      const names = () => [...document.querySelectorAll("table.sortable tbody")[0].rows]
        .map((row) => row.cells[0].textContent[0]).join("");
      const heads = document.querySelectorAll("table.sortable thead")[0].querySelectorAll("button");
      const seen = [names()];
      for (const column of [0, 0, 1, 1]) { heads[column].click(); seen.push(names()); }
      document.body.dataset.seen = seen.join(" ");
      document.body.dataset.sorted = heads[1].parentNode.getAttribute("aria-sort");
    """
    dom = browse(with_script(page, tmp_path, script), tmp_path, "--dump-dom")
    seen = html.unescape(re.search(r'data-seen="([^"]+)"', dom)[1])
    # First letters: as listed; by name up and down; by J&F, best first, then worst first.
    assert seen.split(" ") == ["<abz", "<abz", "zba<", "a<bz", "zb<a"]
    assert 'data-sorted="ascending"' in dom


def test_foreign_script_does_not_run(page, tmp_path):
    text = page.read_text("utf-8")
    script = "<script>document.body.dataset.foreign = 1</script>"
    (tmp_path / "foreign.html").write_text(text.replace("</body>", f"{script}</body>"), "utf-8")
    assert "data-foreign" not in browse(tmp_path / "foreign.html", tmp_path, "--dump-dom")
    opened = with_script(page, tmp_path, "document.body.dataset.foreign = 1")
    assert "data-foreign" in browse(opened, tmp_path, "--dump-dom")


@pytest.mark.parametrize("width", [1280, 500])
def test_nothing_sticks_out_and_the_picture_is_not_blank(page, tmp_path, width):
    script = """
      document.body.dataset.width = document.documentElement.scrollWidth;
      document.body.dataset.narrow = Math.min(...[...document.querySelectorAll(".scores th")]
        .filter((head) => head.offsetWidth).map((head) => head.offsetWidth));
    """
    path = with_script(page, tmp_path, script)
    size = f"--window-size={width},3000"
    dom = browse(path, tmp_path, size, "--dump-dom")
    assert int(re.search(r'data-width="(\d+)"', dom)[1]) <= width
    assert int(re.search(r'data-narrow="(\d+)"', dom)[1]) >= 50
    browse(page, tmp_path, size, f"--screenshot={tmp_path / 'page.png'}")
    with Image.open(tmp_path / "page.png") as image:
        picture = np.asarray(image.convert("RGB"))
    assert picture.shape == (3000, width, 3)
    # Paint of the objects and both colours of the plots.
    for colour in ((9, 105, 218), (188, 76, 0)):
        assert (np.abs(picture.astype(int) - colour).max(-1) < 8).sum() > 200
