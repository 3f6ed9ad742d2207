"""The Inside tab in a real browser: the layers of a run, its mistakes and their pictures, and its landscape."""

import csv

import pytest

from tests.e2e.test_page import status_says, visit

QUICK = "?epochs=2&num_images=512&scheduler=constant&optimizer=adam&lr=0.002"


@pytest.fixture(scope="module")
def page(app, visitor_page):
    """The page of a visitor who has trained, with the tab open."""
    with visitor_page() as page:
        visit(page, app.url + "/" + QUICK)
        page.click("#train")
        status_says(page, "^Done")
        page.get_by_role("tab", name="Inside").click()
        yield page


def test_the_layers_are_drawn_and_saved(page, screenshots):
    """Each layer has a line in each view; the CSV has all of them."""
    page.wait_for_function("document.querySelectorAll('#layers-chart svg .mark-line path').length >= 5")
    page.screenshot(path=screenshots / "inside-layers.png", full_page=True)
    for view in page.locator("#layers-chart .views > button").all():
        view.click()
        page.wait_for_function("document.querySelectorAll('#layers-chart svg .mark-line path').length >= 4")
    with page.expect_download() as download:
        page.click("#layers-csv")
    text = download.value.path().read_text(encoding="utf-8")
    assert {line.split(",")[4] for line in text.splitlines()[1:]} == {"conv1", "conv2", "conv3", "linear1", "linear2"}


def test_a_field_of_the_matrix_shows_its_pictures(page, screenshots):
    """As many as its number says, up to those that fit."""
    page.locator("#inside-view").get_by_text("Mistakes").click()
    page.wait_for_function("document.querySelectorAll('#confusion svg .mark-rect path').length == 100")
    numbers = page.locator("#confusion svg .mark-text.role-mark text")
    number = next(each for each in numbers.all() if (each.text_content() or "").strip().isdigit())
    count = int(number.text_content())
    number.scroll_into_view_if_needed()
    place = number.bounding_box()
    # Not number.click(), which fails when the pointer's arrival redraws the chart.
    page.mouse.click(place["x"] + place["width"] / 2, place["y"] + place["height"] / 2)
    page.wait_for_function(f"document.querySelectorAll('#confused-pictures img').length == {min(count, 60)}")
    page.screenshot(path=screenshots / "inside-mistakes.png", full_page=True)


def test_a_chosen_view_keeps_its_mark_under_the_pointer(page):
    """Where the pointer rests after a click."""
    box = page.locator("#inside-view input:checked")

    def color():
        box.evaluate("box => Promise.all(box.getAnimations().map((each) => each.finished))")
        return box.evaluate("box => getComputedStyle(box).backgroundColor")

    page.mouse.move(0, 0)
    before = color()
    box.hover()
    assert color() == before


def test_a_landscape_is_drawn_while_it_is_computed(page, screenshots):
    """Contours and the path appear long before the end; Stop keeps the points so far."""
    page.locator("#inside-view").get_by_text("Landscape").click()
    page.click("#landscape-start")
    page.wait_for_function("document.querySelectorAll('#landscape-chart svg .mark-path path').length > 8")
    page.wait_for_function("/[1-9]\\d+ of 625 points/.test(document.querySelector('#landscape-status').innerText)")
    page.click("#landscape-stop")
    page.wait_for_function("/^Stopped/.test(document.querySelector('#landscape-status').innerText.trim())")
    page.screenshot(path=screenshots / "inside-landscape.png", full_page=True)
    with page.expect_download() as download:
        page.click("#landscape-csv")
    lines = download.value.path().read_text(encoding="utf-8").splitlines()
    assert [row[1] for row in csv.reader(lines[-3:])] == ["0", "1", "2"]
    assert len(lines) > 1 + 10 + 3
