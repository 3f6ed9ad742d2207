"""The page for people who use a keyboard or a screen reader: what axe finds on its tabs, and where the focus is."""

import pytest
from axe_playwright_python.sync_playwright import Axe

from tests.e2e.test_page import status_says, visit

# Gradio's own components, whose markup is not ours: an upload box, and a gallery's thumbnails.
GRADIOS = {"aria-prohibited-attr", "image-redundant-alt", "label-content-name-mismatch"}


def violations(page, tab: str) -> list[str]:
    """What axe finds on a tab, as "rule: HTML"."""
    page.click(f"[role=tab][data-tab-id={tab}]")
    page.wait_for_selector(f"[role=tab][data-tab-id={tab}][aria-selected=true]")
    found = Axe().run(page).response["violations"]
    return [
        f"{rule['id']}: {node['html']}"
        for rule in found
        for node in rule["nodes"]
        if not (tab == "classify" and rule["id"] in GRADIOS)
    ]


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_axe_finds_nothing(app, new_page, theme):
    """On any tab, in both themes; on the first one while it trains, too."""
    page = new_page
    visit(page, f"{app.url}/?num_images=512&epochs=2&scheduler=constant&__theme={theme}")
    page.wait_for_selector("#status h2")
    for tab in page.evaluate("[...document.querySelectorAll('[role=tab]')].map(tab => tab.dataset.tabId)"):
        assert violations(page, tab) == []
    page.click("[role=tab][data-tab-id=train]")
    page.click("#train:enabled")
    status_says(page, "^Training|^Done")
    page.click("#open-details")
    assert violations(page, "train") == []


def test_help_is_shown_by_the_keyboard(app, new_page):
    """An icon that has the focus shows its sentence, Escape hides it, and Train is reached before the settings."""
    page = new_page
    visit(page, app.url)
    help = page.locator("#setting-lr .info-text[tabindex]")
    assert help.bounding_box()["width"] < 30
    help.focus()
    assert help.bounding_box()["width"] > 150
    page.keyboard.press("Escape")
    assert help.bounding_box()["width"] < 30
    page.wait_for_selector("#train:enabled")
    page.locator("#train").focus()
    page.keyboard.press("Tab")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.closest('#settings') !== null")
