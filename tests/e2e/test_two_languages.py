"""The page in two languages, in a real browser."""

import re
from contextlib import ExitStack

import pytest

from tests.e2e.test_page import status_says


@pytest.fixture
def open_page(app, visitor_page):
    """open_page(locale, query, script): the page in a new browser whose language is `locale`."""
    pages = ExitStack()

    def open_page(locale: str, query: str = "", script: str = ""):
        page = pages.enter_context(visitor_page(locale))
        page.add_init_script(script)
        page.goto(f"{app.url}/{query}")
        page.wait_for_selector("#train")
        return page

    with pages:
        yield open_page


def train_button(page) -> str:
    return page.locator("#train").inner_text()


@pytest.mark.parametrize(("locale", "train"), [("zh-HK", "训练"), ("fr-FR", "Train")])
def test_the_page_is_in_the_browsers_language(open_page, locale, train):
    """Chinese for every Chinese locale, and English for all others."""
    assert train_button(open_page(locale)) == train


def test_every_text_of_the_controls_is_chinese(open_page):
    """Labels, helps, buttons, tabs and Markdown hold neither translation markers nor English sentences."""
    page = open_page("en-US", "?lang=zh")
    page.get_by_text("更多设置").click()
    page.wait_for_selector(".prose.paper")
    text = page.locator("#settings").inner_text() + page.locator("#own-runs").first.inner_text()
    assert "__i18n__" not in text
    assert "[object" not in text
    text = text.replace(page.locator(".prose.paper").inner_text(), "")  # a paper's title is in its own language
    assert re.findall(r"[a-z]{2,} [a-z]{2,} [a-z]{2,}", text) == []


def test_a_choice_of_language_is_remembered_and_keeps_the_query(open_page, app):
    """The switch keeps the other parts of the query, and the browser remembers the language."""
    page = open_page("en-US", "?ref=7")
    page.click("#language")
    page.wait_for_url("**/?ref=7&lang=zh")
    page.wait_for_selector("#train >> text=训练")
    page.goto(f"{app.url}/?ref=8")
    page.wait_for_selector("#train >> text=训练")
    assert page.url.endswith("/?ref=8&lang=zh")
    page.click("#language")
    page.wait_for_selector("#train >> text=Train")


def test_a_training_goes_on_when_the_language_is_switched(open_page):
    """Without a question; the page shows its whole curve in the other language."""
    page = open_page("en-US", "?num_images=1024&epochs=100&scheduler=constant")
    page.click("#train:enabled")
    status_says(page, "^Training")
    page.wait_for_function("document.querySelectorAll('#table tbody tr').length >= 2")
    dialogs = []
    page.on("dialog", lambda dialog: (dialogs.append(dialog.message), dialog.accept()))
    page.click("#language")
    page.wait_for_url("**lang=zh")
    status_says(page, "^训练中")
    page.wait_for_function("document.querySelectorAll('#table tbody tr').length >= 3")
    assert dialogs == []
    page.click("#stop")
    status_says(page, "^已停止")


def test_the_language_of_the_query_works_without_local_storage(open_page):
    """A frame within another site's page may have no access to localStorage."""
    no_storage = """Object.defineProperty(window, "localStorage", {
        configurable: true, get() { throw new DOMException("no", "SecurityError") }
    })"""
    assert train_button(open_page("en-US", "?lang=zh", no_storage)) == "训练"
    assert train_button(open_page("zh-CN", "?lang=en", no_storage)) == "Train"
