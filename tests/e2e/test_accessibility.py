"""The page for people who use a keyboard or a screen reader: what axe finds on its tabs, and where the focus is."""

from axe_playwright_python.sync_playwright import Axe

from tests.e2e.test_page import status_says, visit

# Gradio's own components, whose markup is not ours: an upload box, and a gallery's thumbnails.
GRADIOS = {"aria-prohibited-attr", "image-redundant-alt", "label-content-name-mismatch"}

# A button that is just being enabled or a theme that is just being changed has colours in between.
_COLOURS_ARE_STILL = "document.getAnimations().every(change => !(change instanceof CSSTransition))"


def violations(page, tab: str) -> list[str]:
    """What axe finds on a tab, as "rule: HTML"."""
    page.click(f"[role=tab][data-tab-id={tab}]")
    page.wait_for_selector(f"[role=tab][data-tab-id={tab}][aria-selected=true]")
    if tab == "sweep":
        page.wait_for_selector("#sweep-start:enabled")
    page.wait_for_function(_COLOURS_ARE_STILL)
    found = Axe().run(page).response["violations"]
    return [
        f"{rule['id']}: {node['html']}"
        for rule in found
        for node in rule["nodes"]
        if not (tab == "classify" and rule["id"] in GRADIOS)
    ]


def test_axe_finds_nothing(app, new_page):
    """On any tab, in both themes; on the first one while it trains, too."""
    page = new_page
    visit(page, f"{app.url}/?num_images=512&epochs=2&scheduler=constant&__theme=light")
    page.wait_for_selector("#status h2")
    tabs = page.evaluate("[...document.querySelectorAll('[role=tab]')].map(tab => tab.dataset.tabId)")
    for _ in ("light", "dark"):
        for tab in tabs:
            assert violations(page, tab) == []
        page.evaluate("document.body.classList.toggle('dark')")
    page.click("[role=tab][data-tab-id=train]")
    page.click("#train:enabled")
    status_says(page, "^Training|^Done")
    page.click("#open-details")
    for _ in ("light", "dark"):
        assert violations(page, "train") == []
        page.evaluate("document.body.classList.toggle('dark')")


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


def test_arrows_move_between_tabs(app, new_page):
    """With the focus, also around the ends; Home and End go there."""
    page = new_page
    visit(page, app.url)
    page.locator("[role=tab][data-tab-id=train]").focus()
    for key, tab in (("ArrowRight", "sweep"), ("ArrowLeft", "train"), ("ArrowLeft", "gallery"), ("Home", "train")):
        page.keyboard.press(key)
        page.wait_for_selector(f"[role=tab][data-tab-id={tab}][aria-selected=true]")
        page.wait_for_function("tab => document.activeElement.dataset.tabId === tab", arg=tab)


# Records each sentence that a screen reader reads.
_LISTEN = """() => {
  window.heard = [];
  const region = document.querySelector(".spoken");
  new MutationObserver(() => heard.push(region.textContent)).observe(region, { childList: true });
}"""


def test_a_training_is_read_aloud_and_keeps_the_focus(app, new_page):
    """Each epoch is read once, and the end with its result. Enter on Train leads to Stop, and the end back to Train."""
    page = new_page
    visit(page, f"{app.url}/?num_images=4096&epochs=3&scheduler=constant")
    page.wait_for_selector(".spoken", state="attached")
    page.evaluate(_LISTEN)
    page.locator("#train:enabled").focus()
    page.keyboard.press("Enter")
    page.wait_for_function("document.activeElement.id === 'stop'")
    status_says(page, "^Done epoch 3 of 3")
    page.wait_for_function("document.activeElement.id === 'train'")
    page.wait_for_function("/Done/.test(heard.at(-1))")
    heard = page.evaluate("heard")
    assert len(heard) == len(set(heard)) <= 6
    assert "Done" in heard[-1]
    assert "of the test pictures right" in heard[-1]
