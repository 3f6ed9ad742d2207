"""The page in a real browser, pressed as a newcomer presses it."""

import re
import time

import pytest
from gradio_client import Client
from torchvision.io import write_png

from trainer.images.image_data import load_images
from trainer.learning.loop import train
from trainer.runs.events import EpochEnded
from trainer.runs.reader import read_run
from trainer.settings.config import TrainConfig

EPOCHS_IN_PLOT = "#loss path[aria-roledescription='point'], #loss .mark-symbol path"


@pytest.fixture
def page(app, new_page):
    """A new visitor on the page."""
    visit(new_page, app.url)
    return new_page


def visit(page, url):
    page.goto(url)
    page.wait_for_selector("#note >> text=Training on")
    page.wait_for_selector("#loss svg")


def status_says(page, pattern, timeout=120_000):
    try:
        page.wait_for_function(
            "pattern => new RegExp(pattern).test(document.querySelector('#status')?.innerText)",
            arg=pattern,
            timeout=timeout,
        )
    except Exception as error:
        said = page.locator("#status").inner_text()
        raise AssertionError(f"The status never said {pattern!r}; it says {said!r}") from error


def epochs_in_table(page) -> list[int]:
    return [int(re.match(r"\d+", text)[0]) for text in page.locator("#table td:first-child").all_inner_texts()]


def wait_for_points(page, count):
    """Waits until so many points of the loss curves are drawn: a chart may come a little later than the table."""
    page.wait_for_function(
        "([points, count]) => document.querySelectorAll(points).length >= count", arg=[EPOCHS_IN_PLOT, count]
    )


def test_the_main_job(app, page, images, tmp_path, screenshots):
    """Train untouched, watch, stop, reload, resume, classify a picture, download, delete: nothing is lost."""
    page.click("#train")
    # Something moves at once: the bar, and the loss within the epoch.
    page.wait_for_function("parseFloat(document.querySelector('#status .fill').style.width) > 0", timeout=30_000)
    page.wait_for_function("document.querySelectorAll('#table tbody tr').length >= 3", timeout=180_000)
    wait_for_points(page, 5)  # two curves of epochs 0, 1, 2
    page.screenshot(path=screenshots / "training.png", full_page=True)

    page.click("#stop")
    status_says(page, "^Stopped", timeout=5_000)
    kept = epochs_in_table(page)

    page.reload()
    visit(page, app.url)
    status_says(page, "^Stopped")
    assert epochs_in_table(page) == kept
    wait_for_points(page, 5)

    page.click("#resume")
    page.wait_for_function(
        "before => document.querySelectorAll('#table tbody tr').length > before", arg=len(kept), timeout=120_000
    )
    page.click("#stop")
    status_says(page, "^Stopped", timeout=5_000)
    assert epochs_in_table(page)[-len(kept) :] == kept

    picture = tmp_path / "shape.png"
    write_png(images.test.images[0].contiguous(), str(picture))
    page.click("#go-classify")
    page.set_input_files("#picture input[type=file]", picture)
    page.wait_for_function("/It says|best guess/.test(document.querySelector('#says').innerText)")
    page.wait_for_selector("#seen img")
    assert page.locator("#label").inner_text().split()
    page.screenshot(path=screenshots / "classify.png", full_page=True)

    page.get_by_role("tab", name="Train").click()
    with page.expect_download() as download:
        page.click("#download")
    assert download.value.suggested_filename.endswith(".zip")
    page.on("dialog", lambda dialog: dialog.accept())
    page.click("#delete")
    status_says(page, "^Ready")


def test_what_another_tab_trains_is_followed_until_it_ends(app, page):
    """And no longer than until something is pressed here: what that tells stays."""
    visit(page, f"{app.url}/?num_images=512&epochs=3&scheduler=constant")
    page.click("#train")
    status_says(page, "^Training")
    other = page.context.new_page()
    visit(other, f"{app.url}/?num_images=2048&epochs=100&scheduler=constant")
    status_says(other, "in another tab")
    status_says(other, "^Done epoch 3 of 3")
    other.click("#train")
    status_says(other, "^Training epoch 1")
    page = page.context.new_page()
    visit(page, f"{app.url}/?num_images=512&epochs=3&scheduler=constant")
    status_says(page, "in another tab")
    page.click("#train")
    status_says(page, "Waiting for its turn")
    time.sleep(3)
    assert "Waiting for its turn" in page.locator("#status").inner_text()
    other.click("#stop")
    status_says(other, "^Stopped")


def test_a_chart_catches_up_when_its_tab_is_opened_again(app, page):
    """What came while one looked at another tab is drawn on the way back."""
    visit(page, f"{app.url}/?num_images=512&epochs=4&scheduler=constant")
    page.click("#train")
    page.wait_for_function("document.querySelectorAll('#table tbody tr').length >= 2")
    page.click("#go-classify")
    page.wait_for_function("/^Done/.test(document.querySelector('#status').textContent.trim())")
    page.get_by_role("tab", name="Train").click()
    wait_for_points(page, 2 * 4 + 1)


# Counts what goes on: observers by the element that they observe, and timers that repeat.
_COUNTED = """
window.goingOn = { observed: new Map(), intervals: new Map() };
for (const name of ["ResizeObserver", "IntersectionObserver", "MutationObserver"]) {
  window[name] = class extends window[name] {
    observe(target, ...options) {
      goingOn.observed.set(this, [...(goingOn.observed.get(this) || []), target]);
      super.observe(target, ...options);
    }
    disconnect() {
      goingOn.observed.delete(this);
      super.disconnect();
    }
  };
}
const { setInterval, clearInterval } = window;
window.setInterval = (callback, delay, ...rest) => {
  const timer = setInterval(callback, delay, ...rest);
  goingOn.intervals.set(timer, delay);
  return timer;
};
window.clearInterval = (timer) => {
  goingOn.intervals.delete(timer);
  clearInterval(timer);
};
window.onCharts = () => [...goingOn.observed.values()].flat().filter(target => target.matches?.(".chart")).length;
window.onBody = () => [...goingOn.observed.values()].flat().filter(target => target === document.body).length;
"""


@pytest.mark.parametrize("hidden", [False, True])
def test_a_removed_chart_observes_nothing(app, new_page, hidden):
    """Gradio tells a component's script nothing; what observes the body would live as long as the page."""
    new_page.add_init_script(_COUNTED)
    visit(new_page, app.url)
    num_charts = new_page.locator(".chart").count()
    assert num_charts >= 2
    assert new_page.evaluate("onCharts()") == 2 * num_charts
    on_body = new_page.evaluate("onBody()")
    if hidden:
        new_page.evaluate("document.querySelectorAll('.chart').forEach(chart => { chart.style.display = 'none'; })")
        new_page.wait_for_timeout(500)
    new_page.evaluate("document.querySelectorAll('.chart').forEach(chart => chart.parentElement.remove())")
    new_page.wait_for_timeout(500)
    assert new_page.evaluate("onCharts()") == 0
    assert new_page.evaluate("onBody()") == on_body - num_charts


def test_a_page_without_vega_does_not_wait_for_it(app, new_page):
    """Its script came empty, as a proxy may send it: no timer repeats, and the rest of the page works."""
    new_page.add_init_script(_COUNTED)
    new_page.route("**/vega-*.js", lambda route: route.fulfill(body="", content_type="text/javascript"))
    new_page.goto(app.url)
    new_page.wait_for_selector("#note >> text=Training on")
    new_page.wait_for_selector("#train:enabled")
    new_page.wait_for_timeout(1000)
    assert new_page.locator(".chart").count() >= 2
    assert new_page.locator(".chart svg").count() == 0
    assert new_page.evaluate("[...goingOn.intervals.values()].filter(delay => delay < 1000)") == []


def test_charts_are_drawn_when_vega_comes_late(app, new_page):
    """It is the largest file of the page."""

    def late(route):
        time.sleep(3)
        route.continue_()

    new_page.route("**/vega-*.js", late)
    visit(new_page, app.url)


def test_a_killed_app_has_the_run_when_it_comes_back(app, page):
    """kill -9 within an epoch: the run is there, interrupted, and ends with the numbers of one that was not."""
    config = TrainConfig(epochs=10, num_images=1000, batch_size=20)
    visit(page, f"{app.url}/?num_images=1000&batch_size=20")
    before = set(app.checkpoints.iterdir())
    page.click("#train")
    page.wait_for_function("document.querySelectorAll('#table tbody tr').length >= 3", timeout=120_000)
    app.restart()
    page = page.context.new_page()  # the old one opens itself again, once it finds its server back
    visit(page, app.url)
    status_says(page, "^Interrupted")
    assert 2 <= max(epochs_in_table(page)) < 10
    page.click("#resume")
    status_says(page, "^Done")
    (folder,) = set(app.checkpoints.iterdir()) - before
    run = read_run(folder)
    assert run.config == config
    whole = [event for event in train(config, load_images("synthetic")) if isinstance(event, EpochEnded)]
    assert [(row.train_loss, row.test_loss) for row in run.history] == [
        (row.train_loss, row.test_loss) for row in whole
    ]


def test_stop_leaves_the_line(app, page, screenshots):
    """Who waits behind another's training is out of it at once, told so, and can press Train again."""
    client = Client(app.url, verbose=False)
    running = client.submit({"epochs": 1000, "num_images": 512, "scheduler": "constant"}, api_name="/train")
    while not running.outputs():
        time.sleep(0.05)
    before = set(app.checkpoints.iterdir())
    page.click("#train")
    status_says(page, "Waiting for its turn")
    page.screenshot(path=screenshots / "waiting-in-line.png")
    page.click("#stop")
    status_says(page, "Not trained\\s+It was stopped before it began", timeout=5000)
    page.wait_for_selector("#train:enabled", timeout=5000)
    assert page.locator("#stop").is_disabled()
    page.screenshot(path=screenshots / "left-the-line.png")
    assert not running.done()
    running.cancel()
    page.click("#train")
    page.wait_for_function("document.querySelectorAll('#table tbody tr').length >= 1", timeout=60_000)
    page.click("#stop")
    status_says(page, "^Stopped")
    assert len(set(app.checkpoints.iterdir()) - before) == 1
    client.close()


def test_leaving_the_page_interrupts_the_run_and_frees_the_turn(app, page):
    """A reload in the middle of an epoch: the run is found, and its visitor can train again at once."""
    page.click("#train")
    page.wait_for_function("document.querySelectorAll('#table tbody tr').length >= 1", timeout=60_000)
    visit(page, app.url)
    status_says(page, "^Interrupted", timeout=15_000)
    page.click("#train")
    status_says(page, "^Training", timeout=15_000)
    page.click("#stop")
    status_says(page, "^Stopped", timeout=5_000)


def test_only_the_chosen_rows_settings_are_seen(page):
    """Adam has betas and no momentum; step has gamma and no pct_start; the defaults are the row's."""
    assert page.locator("#setting-momentum").is_visible()
    choose(page, "optimizer", "adam")
    page.wait_for_selector("#setting-betas", state="visible")
    assert not page.locator("#setting-momentum").is_visible()
    assert page.locator("#setting-lr input").input_value() == "0.003"
    choose(page, "scheduler", "step")
    page.wait_for_selector("#setting-gamma", state="visible")
    assert not page.locator("#setting-pct_start").is_visible()


def test_lr_moves_in_powers_of_ten(page):
    """One notch of the slider is a power of ten, and the slider follows the number."""
    slider = page.locator("#power-lr input[type=range]")
    slider.focus()
    page.keyboard.press("ArrowLeft")
    page.wait_for_function("document.querySelector('#setting-lr input').value === '0.001'")
    page.fill("#setting-lr input", "0.0001")
    page.wait_for_function("document.querySelector('#power-lr input[type=range]').value === '-4'")


def test_a_wrong_setting_is_told_before_anything_starts(page):
    """The sentence is shown, and Train can be pressed again."""
    page.fill("#setting-momentum input", "1.5")
    page.click("#train")
    page.wait_for_selector("text=momentum must be a number from 0 to just below 1")
    assert page.locator("#train").is_enabled()
    status_says(page, "^Ready")


def test_a_broken_picture_is_told_where_the_answer_would_be(page, tmp_path):
    """A text file named .png: a sentence, no toast that goes away, no dead page."""
    text = tmp_path / "text.png"
    text.write_text("hello")
    page.click("#go-classify")
    page.set_input_files("#picture input[type=file]", text)
    page.wait_for_selector("#says .advice")


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [1440, 400])
def test_the_page_fits(app, browser, width, theme, screenshots):
    """Nothing is wider than the screen, and the chart is drawn, on a desk and on a phone, by day and by night."""
    page = browser.new_page(viewport={"width": width, "height": 1000})
    visit(page, f"{app.url}/?__theme={theme}")
    page.wait_for_timeout(500)  # fonts and charts settle; nothing can be waited for that says so
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    page.screenshot(path=screenshots / f"page-{width}-{theme}.png", full_page=True)
    page.close()


def test_the_page_asks_nobody_else_for_anything(app, browser):
    """No request leaves for another host: it works in a class without internet."""
    page = browser.new_page()
    asked = []
    page.on("request", lambda request: asked.append(request.url))
    visit(page, app.url)
    page.close()
    assert [url for url in asked if not url.startswith((app.url, "data:", "blob:"))] == []


def choose(page, name: str, value: str) -> None:
    box = page.locator(f"#setting-{name} input")
    box.click()
    page.get_by_role("option", name=value, exact=True).click()
