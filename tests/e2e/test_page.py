"""The Train and Classify tabs in a real browser, used as a new visitor uses them."""

import re
import time

import pytest
from gradio_client import Client
from torchvision.io import write_png

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


def status_says(page, pattern):
    try:
        page.wait_for_function(
            "pattern => new RegExp(pattern).test(document.querySelector('#status')?.innerText)", arg=pattern
        )
    except Exception as error:
        said = page.locator("#status").inner_text()
        raise AssertionError(f"The status never said {pattern!r}; it says {said!r}") from error


def epochs_in_table(page) -> list[int]:
    return [int(re.match(r"\d+", text)[0]) for text in page.locator("#table td:first-child").all_inner_texts()]


def wait_for_points(page, count):
    """Waits until `count` points of the loss curves are drawn; the chart may lag behind the table."""
    page.wait_for_function(
        "([points, count]) => document.querySelectorAll(points).length >= count", arg=[EPOCHS_IN_PLOT, count]
    )


def test_the_main_job(app, page, images, tmp_path, screenshots):
    """Train with a preset, watch, stop, reload, resume, classify a picture, download, delete; no epoch is lost."""
    page.click("#preset-thorough")
    page.wait_for_function("document.querySelector('#setting-epochs input').value === '10'")
    visit(page, f"{app.url}/?num_images=1024&epochs=100&scheduler=constant")
    page.click("#train")
    # The bar moves within the first epoch.
    page.wait_for_function("parseFloat(document.querySelector('#status .fill')?.style.width) > 0")
    page.wait_for_function("document.querySelectorAll('#table tbody tr').length >= 3")
    wait_for_points(page, 5)  # two curves of epochs 0, 1, 2
    page.screenshot(path=screenshots / "training.png", full_page=True)

    page.click("#stop")
    status_says(page, "^Stopped")
    epochs = epochs_in_table(page)

    page.reload()
    visit(page, app.url)
    status_says(page, "^Stopped")
    assert epochs_in_table(page) == epochs
    wait_for_points(page, 5)

    page.click("#resume")
    page.wait_for_function("before => document.querySelectorAll('#table tbody tr').length > before", arg=len(epochs))
    page.click("#stop")
    status_says(page, "^Stopped")
    assert epochs_in_table(page)[-len(epochs) :] == epochs

    picture = tmp_path / "shape.png"
    write_png(images.test.images[0].contiguous(), str(picture))
    page.click("#go-classify")
    page.set_input_files("#picture input[type=file]", picture)
    page.wait_for_function("/It says|best guess/.test(document.querySelector('#says').innerText)")
    page.wait_for_selector("#looks figure:nth-child(3) img")
    assert page.locator("#label").inner_text().split()
    page.screenshot(path=screenshots / "classify.png", full_page=True)

    page.get_by_role("tab", name="Train").click()
    with page.expect_download() as download:
        page.click("#download")
    assert download.value.suggested_filename.endswith(".zip")
    page.on("dialog", lambda dialog: dialog.accept())
    page.click("#delete")
    status_says(page, "^Same network")


def test_every_open_page_follows_the_training(app, page):
    """One that is opened later too, with all epochs; each can stop it, and none ends it by being closed."""
    visit(page, f"{app.url}/?num_images=1024&epochs=100&scheduler=constant")
    page.click("#train")
    page.wait_for_function("document.querySelectorAll('#table tbody tr').length >= 2")
    other = page.context.new_page()
    visit(other, f"{app.url}/?num_images=512&epochs=3&scheduler=constant")
    status_says(other, "^Training epoch .* of 100")
    assert other.locator("#train").is_disabled()
    page.close()
    before = len(epochs_in_table(other))
    other.wait_for_function("before => document.querySelectorAll('#table tbody tr').length > before + 1", arg=before)
    wait_for_points(other, 2 * (before + 2) - 1)
    other.click("#stop")
    status_says(other, "^Stopped")
    other.click("#train:enabled")
    status_says(other, "^Done epoch 3 of 3")


def test_a_chart_catches_up_when_its_tab_is_opened_again(app, page):
    """Epochs that end while another tab is open are drawn on return."""
    visit(page, f"{app.url}/?num_images=512&epochs=4&scheduler=constant")
    page.click("#train")
    page.wait_for_function("document.querySelectorAll('#table tbody tr').length >= 2")
    page.click("[role=tab][data-tab-id=classify]")
    page.wait_for_function("/^Done/.test(document.querySelector('#status').textContent.trim())")
    page.get_by_role("tab", name="Train").click()
    wait_for_points(page, 2 * 4 + 1)


# Records the active observers with the elements that they observe, and the repeating timers.
_RECORD_OBSERVERS = """
window.active = { observed: new Map(), intervals: new Map() };
for (const name of ["ResizeObserver", "IntersectionObserver", "MutationObserver"]) {
  window[name] = class extends window[name] {
    observe(target, ...options) {
      active.observed.set(this, [...(active.observed.get(this) || []), target]);
      super.observe(target, ...options);
    }
    disconnect() {
      active.observed.delete(this);
      super.disconnect();
    }
  };
}
const { setInterval, clearInterval } = window;
window.setInterval = (callback, delay, ...rest) => {
  const timer = setInterval(callback, delay, ...rest);
  active.intervals.set(timer, delay);
  return timer;
};
window.clearInterval = (timer) => {
  active.intervals.delete(timer);
  clearInterval(timer);
};
window.onCharts = () => [...active.observed.values()].flat().filter(target => target.matches?.(".chart")).length;
window.onBody = () => [...active.observed.values()].flat().filter(target => target === document.body).length;
"""


@pytest.mark.parametrize("hidden", [False, True])
def test_a_removed_chart_observes_nothing(app, new_page, hidden):
    """Gradio does not notify a script that its component is removed; an observer of the body would outlive it."""
    new_page.add_init_script(_RECORD_OBSERVERS)
    visit(new_page, app.url)
    num_charts = new_page.locator(".chart").count()
    assert num_charts >= 2
    assert new_page.evaluate("onCharts()") == 2 * num_charts
    on_body = new_page.evaluate("onBody()")
    if hidden:
        new_page.evaluate("document.querySelectorAll('.chart').forEach(chart => { chart.style.display = 'none'; })")
        new_page.wait_for_timeout(500)
    new_page.evaluate("document.querySelectorAll('.chart').forEach(chart => chart.parentElement.remove())")
    new_page.wait_for_function("onCharts() === 0")
    assert new_page.evaluate("onCharts()") == 0
    assert new_page.evaluate("onBody()") == on_body - num_charts


def test_a_page_without_vega_does_not_wait_for_it(app, new_page):
    """If the script of Vega is empty, as a proxy may send it, no timer repeats and the rest of the page works."""
    new_page.add_init_script(_RECORD_OBSERVERS)
    new_page.route("**/vega-*.js", lambda route: route.fulfill(body="", content_type="text/javascript"))
    new_page.goto(app.url)
    new_page.wait_for_selector("#note >> text=Training on")
    new_page.wait_for_selector("#train:enabled")
    new_page.wait_for_timeout(1000)
    assert new_page.locator(".chart").count() >= 2
    assert new_page.locator(".chart svg").count() == 0
    assert new_page.evaluate("[...active.intervals.values()].filter(delay => delay < 1000)") == []


def test_charts_are_drawn_when_vega_loads_late(app, new_page):
    """Vega is the page's largest file and may arrive last."""

    def late(route):
        time.sleep(3)
        route.continue_()

    new_page.route("**/vega-*.js", late)
    visit(new_page, app.url)


def test_a_training_shares_the_machine(app, page):
    """It begins at once although another one runs, and says with how many others it shares."""
    client = Client(app.url, verbose=False)
    running = client.submit({"epochs": 1000, "num_images": 512, "scheduler": "constant"}, api_name="/train")
    while not running.outputs():
        time.sleep(0.05)
    page.click("#train")
    status_says(page, "^Training epoch .* you share this machine with 1 other")
    assert not running.done()
    running.cancel()
    page.wait_for_function("!/share/.test(document.querySelector('#status').innerText)")
    page.click("#stop")
    status_says(page, "^Stopped")
    client.close()


def test_only_the_settings_of_the_chosen_row_are_visible(page):
    """Adam has betas and no momentum, step has gamma and no pct_start, and the defaults change with the row."""
    page.get_by_text("More settings").click()
    page.wait_for_selector("#setting-momentum")
    choose(page, "optimizer", "adam")
    page.wait_for_selector("#setting-betas", state="visible")
    assert not page.locator("#setting-momentum").is_visible()
    assert page.locator("#setting-lr input").input_value() == "0.003"
    choose(page, "scheduler", "step")
    page.wait_for_selector("#setting-gamma", state="visible")
    assert not page.locator("#setting-pct_start").is_visible()
    # An optimizer that takes no schedule brings the constant one, and its paper is linked.
    choose(page, "optimizer", "adamw_schedulefree")
    page.wait_for_selector("#setting-gamma", state="hidden")
    page.wait_for_function("document.querySelector('#setting-scheduler input').value === 'constant'")
    assert page.locator(".about a").get_attribute("href") == "https://arxiv.org/abs/2405.15682"


def test_folded_settings_that_differ_are_named_and_reset(page):
    """The optimizer, lr, the schedule and the epochs are in sight: they are not named, and stay."""
    page.fill("#setting-lr input", "0.03")
    assert page.locator("#differs").count() == 0
    page.get_by_text("More settings").click()
    page.fill("#setting-momentum input", "0.5")
    page.wait_for_selector("#differs >> text=momentum 0.5")
    page.click("#reset")
    page.wait_for_selector("#differs", state="detached")
    assert page.locator("#setting-momentum input").input_value() == "0.95"
    assert page.locator("#setting-lr input").input_value() == "0.03"


def test_train_it_yourself_replaces_the_recorded_race(app, page):
    """The untouched page trains at once, and its curve takes the place of the recorded ones."""
    visit(page, f"{app.url}/?num_images=512&epochs=1&scheduler=constant")
    assert page.locator("#legend .key").all_inner_texts() == ["Muon", "AdamW", "SGD"]
    page.click("#first-train")
    status_says(page, "^Done epoch 1 of 1")
    assert page.locator("#legend .key").all_inner_texts() == ["train", "test"]
    assert page.locator("#first").count() == 0


def test_lr_moves_in_powers_of_ten(page):
    """One step of the slider is a factor of ten, and the slider follows the number."""
    slider = page.locator("#power-lr input[type=range]")
    slider.focus()
    page.keyboard.press("ArrowLeft")
    page.wait_for_function("document.querySelector('#setting-lr input').value === '0.001'")
    page.fill("#setting-lr input", "0.0001")
    page.wait_for_function("document.querySelector('#power-lr input[type=range]').value === '-4'")


def test_a_wrong_setting_is_explained_before_anything_starts(page):
    """The page shows the sentence, and Train can be pressed again."""
    page.get_by_text("More settings").click()
    page.fill("#setting-momentum input", "1.5")
    page.click("#train")
    page.wait_for_selector("#refused-train >> text=momentum must be a number from 0 to just below 1")
    assert page.locator("#train").is_enabled()
    status_says(page, "^Same network")


def test_a_broken_picture_is_explained_in_place_of_the_answer(page, tmp_path):
    """A text file named .png gives a sentence that stays, not a toast."""
    text = tmp_path / "text.png"
    text.write_text("hello")
    page.click("[role=tab][data-tab-id=classify]")
    page.set_input_files("#picture input[type=file]", text)
    page.wait_for_selector("#says .advice")


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_the_page_fits(app, new_page, theme, screenshots):
    """On a desktop and a phone the chart is drawn and nothing is wider than the screen; no other host is needed."""
    urls = []
    new_page.on("request", lambda request: urls.append(request.url))
    visit(new_page, f"{app.url}/?__theme={theme}")
    for width in (1440, 400):
        new_page.set_viewport_size({"width": width, "height": 1000})
        new_page.wait_for_timeout(500)  # fonts and charts settle, and no event tells when
        assert new_page.evaluate("document.documentElement.scrollWidth") <= width
        new_page.screenshot(path=screenshots / f"page-{width}-{theme}.png", full_page=True)
    assert urls
    assert [url for url in urls if not url.startswith((app.url, "data:", "blob:"))] == []


def choose(page, name: str, value: str) -> None:
    box = page.locator(f"#setting-{name} input")
    box.click()
    page.get_by_role("option", name=value, exact=True).click()
