"""The animation of `rdejax app` in the README: a real session on the demo clip, in a browser.

    python benchmarks/app_animation.py [--output docs/pictures/app.webp]

Needs a Chromium, and `pip install '.[app,test]'`.
"""

import argparse
import io
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
DEMO = ROOT / "examples" / "demo"
SIZE = (1080, 560)  # of the window
WIDTH = 640  # of the pictures


def outline(path: Path) -> list[tuple[float, float]]:
    """Corners of a mask's outline, in shares of its width and height."""
    mask = (np.asarray(Image.open(path)) > 0).astype(np.uint8)
    contours, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    corners = cv2.approxPolyDP(max(contours, key=cv2.contourArea), mask.shape[0] / 60, True)
    return [(x / mask.shape[1], y / mask.shape[0]) for x, y in corners[:, 0].tolist()]


class Film:
    """Screenshots with the times they are shown for."""

    def __init__(self, page):
        self.page, self.frames, self.times = page, [], []

    def shoot(self, milliseconds: int) -> None:
        picture = Image.open(io.BytesIO(self.page.screenshot())).convert("RGB")
        height = round(WIDTH * picture.height / picture.width)
        self.frames.append(picture.resize((WIDTH, height), Image.Resampling.LANCZOS))
        self.times.append(milliseconds)

    def save(self, path: Path) -> None:
        first, *others = self.frames
        first.save(
            path,
            save_all=True,
            append_images=others,
            duration=self.times,
            loop=0,
            quality=55,
            method=6,
        )


def play(page, film: Film, count: int) -> None:
    """Outline, propagate, mend, propagate, save."""
    image = page.wait_for_selector("[data-test=frame] img")
    time.sleep(1)
    box = image.bounding_box()

    def at(x, y):
        return box["x"] + x * box["width"], box["y"] + y * box["height"]

    def says(text):
        return text in page.inner_text("[data-test=status]")

    def watch():
        page.click("[data-test=propagate]")
        deadline, seen = time.monotonic() + 600, ""
        while not says("all frames") and time.monotonic() < deadline:
            now = page.inner_text("[data-test=where]")
            if now != seen and not says("compiling"):
                film.shoot(220)
            seen = now
            time.sleep(0.2)
        film.shoot(900)

    film.shoot(800)
    page.click("[data-test=tools] >> text=Polygon")
    corners = outline(DEMO / "cockatoo.png")
    for number, corner in enumerate([*corners, corners[0]]):
        x, y = (min(max(share, 0.004), 0.996) for share in corner)
        page.mouse.click(*at(x, y))
        time.sleep(0.15)
        if number % 3 == 2:
            film.shoot(160)
    time.sleep(0.8)
    film.shoot(1000)
    watch()
    slider = page.query_selector("[data-test=slider]").bounding_box()
    middle = slider["x"] + slider["width"] * 0.5
    page.mouse.click(middle, slider["y"] + slider["height"] / 2)
    page.click("[data-test=tools] >> text=Eraser")
    time.sleep(1)
    film.shoot(700)
    for path in (
        ((0.765, 0.66), (0.785, 1.0)),
        ((0.8, 1.0), (0.8, 0.66)),
        ((0.83, 0.66), (0.84, 1.0)),
    ):
        page.mouse.move(*at(*path[0]))
        page.mouse.down()
        for share in (0.3, 0.6, 1.0):
            x, y = (a + share * (b - a) for a, b in zip(*path, strict=True))
            page.mouse.move(*at(x, min(y, 0.995)), steps=4)
            time.sleep(0.2)
            film.shoot(140)
        page.mouse.up()
        time.sleep(0.8)
    film.shoot(900)
    watch()
    page.click("[data-test=save]")
    page.wait_for_selector(f"text=saved {count} frames", timeout=120_000)
    time.sleep(0.4)
    film.shoot(1800)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--output", type=Path, default=ROOT / "docs" / "pictures" / "app.webp")
    parser.add_argument("--size", default="240")
    args = parser.parse_args()
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        sys.exit("no Chromium is installed")
    from playwright.sync_api import sync_playwright

    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "rdejax.app", str(DEMO / "cockatoo.mp4"), "--no-browser"]
        command += ["--size", args.size, "--output", "cockatoo-masks"]
        app = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=folder)
        assert app.stdout is not None
        try:
            found = re.match(r"http://\S+", app.stdout.readline())
            assert found is not None
            with sync_playwright() as driver:
                window = driver.chromium.launch(executable_path=browser, args=["--no-sandbox"])
                page = window.new_page(viewport={"width": SIZE[0], "height": SIZE[1]})
                page.set_default_timeout(300_000)
                for _ in range(60):
                    try:
                        page.goto(found[0])
                        break
                    except Exception:  # it is not up yet
                        time.sleep(1)
                film = Film(page)
                play(page, film, 60)
                window.close()
            film.save(args.output)
        finally:
            app.terminate()
            app.wait(timeout=60)
    print(f"{args.output}: {len(film.frames)} pictures, {args.output.stat().st_size / 1e3:.0f} kB")


if __name__ == "__main__":
    main()
