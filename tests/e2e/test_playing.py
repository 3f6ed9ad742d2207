"""Lessons, races, the lr finder, permalinks and the comparison in a real browser, used as a student uses them."""

import csv

import pytest

from tests.e2e.test_page import choose, status_says, visit

LINK = "?optimizer=adam&lr=0.001&scheduler=step&gamma=0.5&epochs=2&num_images=512&seeds=2"
SHORT = "%26num_images%3D512%26epochs%3D2%26scheduler%3Dconstant"
RACE = f"&race=lr%3D0.01{SHORT}%3Blr%3D0.1{SHORT}"


@pytest.fixture
def page(new_page):
    """The empty page of a new visitor."""
    return new_page


def open_link(page, url):
    visit(page, url)
    page.wait_for_function("document.querySelector('#setting-lr input').value === '0.001'")


def test_a_link_restores_settings_and_race_without_running(app, page):
    """It sets the optimizer, the schedule, their settings, the race and its seeds; the URL follows the controls."""
    open_link(page, app.url + "/" + LINK + RACE)
    assert page.locator("#setting-optimizer input").input_value() == "adam"
    page.get_by_text("More settings").click()
    assert page.locator("#setting-gamma input").input_value() == "0.5"
    assert not page.locator("#setting-momentum").is_visible()
    status_says(page, "^Same network")
    page.wait_for_selector("#notice >> text=This link contains a race")
    page.wait_for_selector("#race >> text=lr 0.1")
    assert page.locator("#seeds input[type=number]").input_value() == "2"
    choose(page, "scheduler", "cosine")
    page.wait_for_function("/scheduler=cosine/.test(location.search) && /seeds=2/.test(location.search)")
    page.reload()
    page.wait_for_function("document.querySelector('#setting-scheduler input')?.value === 'cosine'")


def test_a_wrong_link_is_explained_and_the_page_is_usable(app, page):
    """The page explains it in a sentence and has the default settings."""
    visit(page, f"{app.url}/?race=%3Cscript%3Ealert(1)%3C/script%3E%3D1")
    page.wait_for_selector("#notice >> text=This link does not work here")
    assert page.locator("#setting-lr input").input_value() == "0.02"
    assert page.locator("#train").is_enabled()


def test_settings_of_a_link_that_cannot_be_trained_are_explained(app, page):
    """The settings are filled in, for the visitor to correct, and the page is usable."""
    visit(page, f"{app.url}/?num_images=40000")
    page.wait_for_selector("#preview-word >> text=num_images must not be above")
    page.wait_for_selector("#train:not([disabled])")


def test_a_race_is_trained_saved_resumed_and_compared(app, page, tmp_path, screenshots):
    """Two settings with two seeds each: the winner, the table, a reload, more epochs, the comparison, CSV and code."""
    open_link(page, app.url + "/" + LINK + RACE)
    page.wait_for_selector("#notice >> text=This link contains a race")
    page.wait_for_selector("#race >> text=lr 0.1")
    page.click("#start-race")
    status_says(page, "^Done")
    assert page.locator("#notice").is_hidden()
    assert "percentage points" in page.locator("#status").inner_text()
    rows = page.locator("#table tbody tr")
    assert rows.count() == 2
    assert "2 × 2" in rows.first.inner_text()
    assert page.locator("#legend").inner_text().split("\n")[0].startswith("lr 0.01")
    page.screenshot(path=screenshots / "race.png", full_page=True)

    page.reload()
    page.wait_for_selector("#loss svg")
    status_says(page, "^Done")
    assert rows.count() == 2
    page.wait_for_function("document.querySelector('#more-epochs input').value === '12'")
    page.fill("#more-epochs input", "3")
    page.click("#resume")
    status_says(page, "^Training")
    status_says(page, "^Done")
    assert "3 × 2" in rows.first.inner_text()

    page.get_by_role("tab", name="Compare").click()
    page.wait_for_selector("#compared-legend >> text=percentage points")
    assert page.locator("#compared-table tbody tr").count() == 2
    page.wait_for_selector("#comparison svg path")
    page.screenshot(path=screenshots / "compare.png", full_page=True)
    with page.expect_download() as download:
        page.click("#export")
    download.value.save_as(tmp_path / "runs.csv")
    table = list(csv.DictReader((tmp_path / "runs.csv").read_text().splitlines()))
    assert [int(row["epoch"]) for row in table] == [0, 1, 2, 3] * 4
    page.get_by_text("As PyTorch code").last.click()
    page.click("#show-compared-code")
    page.wait_for_selector("#compared-code >> text=pip install")


def test_a_lesson_is_trained_together_with_its_fix(app, page, screenshots):
    """One press trains both; the page explains the result next to the curves, in English and in Chinese."""
    visit(page, app.url)
    page.click("[data-lesson=zero-grad-every-4]")
    page.wait_for_selector("#lesson-words >> text=Accumulation on purpose")
    page.click("#previous-lesson")
    page.wait_for_selector("#lesson-words >> text=zero_grad is never called")
    page.wait_for_function("document.querySelector('#setting-lr input').value === '0.01'")
    page.click("#train-lesson")
    status_says(page, "^Done")
    page.wait_for_selector("#happened >> text=What happens on CIFAR-10:")
    page.wait_for_selector(".card.ended[data-lesson=zero-grad-never]")
    assert page.locator("#table tbody tr").count() == 2
    page.wait_for_function("/zero_grad_every=0/.test(location.search)")
    page.screenshot(path=screenshots / "lesson.png", full_page=True)
    page.click("#language")
    page.wait_for_selector("#happened >> text=在 CIFAR-10 上会这样")
    page.wait_for_selector(".card.ended[data-lesson=zero-grad-never][aria-current=true]")
    page.wait_for_function("/zero_grad_every=0/.test(location.search) && /lang=zh/.test(location.search)")
    page.screenshot(path=screenshots / "lesson-zh.png", full_page=True)


def test_the_zero_grad_lab_fills_the_race(app, page):
    """Gradients cleared at each batch, every four and never, and a run with batches four times as large."""
    visit(page, app.url)
    page.get_by_text("Race: settings side by side").click()
    page.click("#zero-grad-lab")
    for name in ("batch_size 128 · zero_grad_every 4", "batch_size 128 · zero_grad_every 0", "batch_size 512"):
        page.wait_for_selector(f"#race >> text={name}")


def test_a_suggested_lr_is_taken_with_one_press(app, page, screenshots):
    """The page draws the search, explains the suggestion, and puts its lr into the settings."""
    visit(page, app.url)
    page.get_by_text("Find a learning rate").click()
    page.click("#find-lr")
    page.wait_for_selector("#take-lr")
    assert len(page.locator("#found").inner_text()) > 40
    page.screenshot(path=screenshots / "finder.png", full_page=True)
    lr = page.locator("#take-lr").inner_text().rpartition(" ")[2]
    page.click("#take-lr")
    page.wait_for_function("lr => document.querySelector('#setting-lr input').value === lr", arg=lr)
