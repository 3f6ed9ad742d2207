"""The page's address holds the selected tab and the chosen run, so that Back, a reload and a bookmark keep them."""

import re

from tests.e2e.test_page import choose, status_says, visit
from ui.visitors import new_visitor

QUICK = "num_images=512&epochs=1&scheduler=constant"


def address_is(page, pattern):
    """Waits until the query of the address matches the whole pattern."""
    page.wait_for_function("pattern => new RegExp(`^${pattern}$`).test(location.search)", arg=pattern)


def tab_is(page, name):
    page.wait_for_selector(f"[role=tab][data-tab-id={name}][aria-selected=true]")


def select(page, name, *, is_written=True):
    page.click(f"[role=tab][data-tab-id={name}]")
    tab_is(page, name)
    if is_written:
        address_is(page, "(?!.*tab=).*" if name == "train" else f".*tab={name}")


def train(page):
    """Trains the page's settings to the end."""
    page.click("#train:enabled")
    status_says(page, "^Done")
    page.wait_for_selector("#train:enabled")


def run_is(page, lr):
    page.wait_for_function("lr => document.querySelector('#runs input')?.value.includes(`lr ${lr}`)", arg=lr)


def choose_run(page, index):
    """Chooses one of the visitor's runs, and returns its key as the address holds it."""
    page.click("#runs input")
    page.get_by_role("option").nth(index).click()
    address_is(page, ".*[?&]run=[0-9a-f]{32}.*")
    return re.search(r"run=([0-9a-f]{32})", page.url)[1]


def test_back_and_forward_select_tabs(app, new_page):
    """Each tab is a step of the history; the first is not in the address, and the settings are the page's own."""
    page = new_page
    visit(page, f"{app.url}/?epochs=3&__theme=light")
    page.evaluate("window.isSamePage = true")
    page.fill("#setting-epochs input", "4")
    address_is(page, re.escape("?epochs=4&__theme=light"))
    select(page, "compare")
    address_is(page, re.escape("?epochs=4&__theme=light&tab=compare"))
    select(page, "train")
    address_is(page, re.escape("?epochs=4&__theme=light"))
    choose(page, "optimizer", "adam")
    address_is(page, ".*optimizer=adam.*")
    page.click("[role=tab][data-tab-id=classify]")
    tab_is(page, "classify")
    address_is(page, ".*tab=classify")
    page.go_back()
    tab_is(page, "train")
    page.go_back()
    tab_is(page, "compare")
    address_is(page, ".*optimizer=adam.*tab=compare")
    page.go_forward()
    page.go_forward()
    tab_is(page, "classify")
    page.evaluate("history.back(); setTimeout(() => history.back(), 50)")
    tab_is(page, "compare")
    address_is(page, ".*optimizer=adam.*tab=compare")
    assert page.evaluate("window.isSamePage")


def test_an_address_opens_its_tab(app, new_page):
    """Also after a reload, with Back after it; an unknown tab is the first one, on the way back too."""
    page = new_page
    visit(page, f"{app.url}/?tab=nonsense")
    tab_is(page, "train")
    page.goto(f"{app.url}/?tab=compare&epochs=3")
    tab_is(page, "compare")
    page.wait_for_function("document.querySelector('#setting-epochs input')?.value === '3'")
    select(page, "gallery")
    page.reload()
    tab_is(page, "gallery")
    address_is(page, ".*epochs=3.*tab=gallery|.*tab=gallery.*epochs=3")
    page.go_back()
    tab_is(page, "compare")
    page.goto(f"{app.url}/?tab=nonsense")
    tab_is(page, "train")
    select(page, "compare")
    page.go_back()
    tab_is(page, "train")


def test_a_link_keeps_the_settings_that_are_folded(app, new_page):
    """Also where lr and the schedule are those that the page opens with, while others have sliders that move."""
    visit(new_page, f"{app.url}/?epochs=3&num_images=2000&batch_size=32")
    new_page.wait_for_timeout(2000)  # a preview that was drawn too early would replace the address by now
    address_is(new_page, r"\?epochs=3&batch_size=32&num_images=2000")


def test_a_page_without_a_history_works(app, new_page):
    """A frame of another site may not write to the history."""
    new_page.add_init_script("history.pushState = history.replaceState = () => { throw new DOMException('no'); }")
    visit(new_page, f"{app.url}/?lang=en")
    choose(new_page, "optimizer", "adam")
    select(new_page, "compare", is_written=False)
    select(new_page, "train", is_written=False)


def test_an_address_shows_its_run(app, new_page, visitor_page):
    """The owner's page shows it until a training starts; to a stranger it is like a run that does not exist."""
    page = new_page
    visit(page, f"{app.url}/?{QUICK}&lr=0.01")
    train(page)
    page.fill("#setting-lr input", "0.02")
    train(page)
    assert "run=" not in page.url
    key = choose_run(page, 1)
    status_says(page, "^Done")
    run_is(page, "0.01")

    page.reload()
    run_is(page, "0.01")
    select(page, "compare")
    page.click("#language")
    page.wait_for_selector("#train >> text=训练", state="attached")
    tab_is(page, "compare")
    run_is(page, "0.01")
    address_is(page, f"(?=.*lang=zh)(?=.*run={key})(?=.*tab=compare).*")
    assert page.locator("#known").is_hidden()

    visit(page, f"{app.url}/?{QUICK}&run={key}&lang=en")
    run_is(page, "0.01")
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.click("#copy-link")
    page.wait_for_selector("#copy-link >> text=Copied")
    assert "run=" not in page.evaluate("navigator.clipboard.readText()")

    texts = []
    for address in (key, new_visitor()):
        with visitor_page() as stranger:
            visit(stranger, f"{app.url}/?run={address}")
            stranger.wait_for_selector("#known >> text=You have no such run")
            address_is(stranger, "")
            texts.append(stranger.locator("#known").inner_text())
            assert stranger.locator("#runs input").input_value() == ""
    assert texts[0] == texts[1]

    page.once("dialog", lambda dialog: dialog.accept())
    page.click("#delete")
    address_is(page, "(?!.*run=).*")
    visit(page, f"{app.url}/?{QUICK}&run={key}")
    page.wait_for_selector("#known >> text=You have no such run")
    run_is(page, "0.02")
    address_is(page, "(?!.*run=).*")

    choose_run(page, 0)
    page.click("#train:enabled")
    address_is(page, "(?!.*run=).*")
