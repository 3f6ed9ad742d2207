"""Takes the pictures of the README from a running app: python -m scripts.take_pictures http://127.0.0.1:7860.

The app should train on CIFAR-10, and reach a Hub on which something is published. The pictures are those of a new
visitor, who trains one lesson.
"""

import argparse
import io
import shutil
from pathlib import Path

from PIL import Image
from playwright.sync_api import Page, sync_playwright

DOCS = Path(__file__).parents[1] / "docs"
LESSON = "muon-against-adamw"
_SIZE = {"width": 1280, "height": 860}
_QUALITY = 80
_SECONDS, _FRAMES = 6.0, 30  # of the first sight
_MILLISECONDS_AT_END = 2500
_WAIT = 600_000.0  # milliseconds

# Stops all animations at a time in milliseconds, so that a slow machine takes the same pictures.
_SEEK = "time => document.getAnimations().forEach(one => { one.pause(); one.currentTime = time; })"
_TRAINED = "() => /^Done/.test(document.querySelector('#status').innerText)"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m scripts.take_pictures", description=__doc__)
    parser.add_argument("url", help="the address of the app")
    options = parser.parse_args()
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        page = browser.new_page(viewport=_SIZE, locale="en-US")  # type: ignore[arg-type]
        page.set_default_timeout(_WAIT)
        page.goto(f"{options.url}/?__theme=light")
        page.wait_for_selector("#status h2")
        _animate(page, DOCS / "first-sight.webp")
        page.click(f"[data-lesson={LESSON}]")
        page.wait_for_selector("#lesson-panel")
        page.click("#train-lesson")
        page.wait_for_function(_TRAINED)
        page.wait_for_timeout(2000)
        _save(page, "train")
        for tab, ready in (
            ("sweep", "#sweep-chart svg"),
            ("inside", "#layers-chart svg"),
            ("classify", "#samples img"),
            ("compare", "#comparison svg"),
            ("gallery", "#published li"),
        ):
            page.click(f"[role=tab][data-tab-id={tab}]")
            page.wait_for_selector(ready)
            if tab == "classify":
                page.click("#samples button >> nth=0")
            page.wait_for_timeout(5000)
            _save(page, tab)
        browser.close()


def _animate(page: Page, path: Path) -> None:
    """Writes the recorded race as it plays, as an animated WebP."""
    page.wait_for_selector("#train:enabled")
    page.wait_for_timeout(1000)
    page.click("#replay")
    frames = []
    for number in range(_FRAMES):
        page.evaluate(_SEEK, 1000 * _SECONDS * number / _FRAMES)
        frames.append(_picture(page))
    page.evaluate("document.getAnimations().forEach(one => one.finish())")
    frames.append(_picture(page))
    times = [round(1000 * _SECONDS / _FRAMES)] * _FRAMES + [_MILLISECONDS_AT_END]
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=times, loop=0, quality=_QUALITY, method=4)


def _save(page: Page, name: str) -> None:
    _picture(page).save(DOCS / f"{name}.webp", quality=_QUALITY, method=6)


def _picture(page: Page) -> Image.Image:
    return Image.open(io.BytesIO(page.screenshot())).convert("RGB")


if __name__ == "__main__":
    main()
