"""Measures the first page in a browser with an empty cache and with a full one, next to the page of a bare Gradio app.

The apps have answered before. Ours is usable once it names its pictures and has drawn its chart, the bare one, which is
empty, once Gradio has added its footer.
"""

import tempfile
import time
from collections import Counter
from pathlib import Path
from urllib.parse import urlsplit

from playwright.sync_api import Browser, BrowserContext, Response, sync_playwright

from benchmarks.app import chromium, running_app, visit
from benchmarks.report import in_turns, machine, options, report, run

_MILLISECONDS_MORE = 3000.0  # for what the page still fetches once it is usable; its stream of updates never ends


def main() -> None:
    parser = options(__doc__, data="synthetic")
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=chromium(), args=["--no-sandbox"])
        with (
            running_app(args.data, Path(folder)) as app,
            running_app(args.data, Path(folder), program="benchmarks/bare.py") as bare,
        ):
            facts = _facts(browser, app.url)
            pages = {
                "the app": lambda _: _cold_and_warm(browser, app.url, is_app=True),
                "bare Gradio": lambda _: _cold_and_warm(browser, bare.url, is_app=False),
            }
            seconds = in_turns(pages, args.rounds, args.seed)
        browser.close()
    rows = {
        f"{name}, {cache} cache, seconds": [pair[index] for pair in pairs]
        for name, pairs in seconds.items()
        for index, cache in enumerate(("empty", "full"))
    }
    report("first_page", rows, on=machine(), to=args.json, **facts)


def _cold_and_warm(browser: Browser, url: str, *, is_app: bool) -> tuple[float, float]:
    """Returns the seconds until a page is usable for a new visitor, and for the same one again."""
    context = browser.new_context(locale="en-US", reduced_motion="reduce")
    context.set_default_timeout(120_000)
    seconds = _opened(context, url, is_app=is_app), _opened(context, url, is_app=is_app)
    context.close()
    return seconds


def _opened(context: BrowserContext, url: str, *, is_app: bool) -> float:
    page = context.new_page()
    start = time.perf_counter()
    if is_app:
        visit(page, url)
    else:
        page.goto(url)
        page.wait_for_selector("footer")
    seconds = time.perf_counter() - start
    page.close()
    return seconds


def _facts(browser: Browser, url: str) -> dict[str, str | int]:
    """Returns how large the app's own scripts and fonts are, uncompressed, and which other hosts its page asks."""
    sizes: Counter[str] = Counter()
    hosts = set()

    def count(response: Response) -> None:
        address = urlsplit(response.url)
        if address.scheme in ("http", "https"):
            hosts.add(address.netloc)
        if "/file=" in address.path:
            sizes[address.path.rpartition(".")[2]] += len(response.body())

    page = browser.new_page()
    page.on("response", count)
    visit(page, url)
    page.wait_for_timeout(_MILLISECONDS_MORE)
    page.close()
    own = {f"own files, .{kind}, bytes": size for kind, size in sorted(sizes.items())}
    return {**own, "other hosts": ", ".join(sorted(hosts - {urlsplit(url).netloc})) or "none"}


if __name__ == "__main__":
    run(main)
