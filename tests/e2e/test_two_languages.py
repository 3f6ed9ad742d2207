"""The page in two languages, in a real browser."""

import re

import pytest

from tests.e2e.test_page import status_says


@pytest.fixture
def opened(app, browser):
    """Opens the page in a new browser that speaks a language: opened("zh-CN", "?run=7")."""
    contexts = []

    def visit(locale: str, query: str = "", script: str = ""):
        context = browser.new_context(locale=locale)
        contexts.append(context)
        page = context.new_page()
        page.add_init_script(script)
        page.goto(f"{app.url}/{query}")
        page.wait_for_selector("#train")
        return page

    yield visit
    for context in contexts:
        context.close()


def says_train(page) -> str:
    return page.locator("#train").inner_text()


@pytest.mark.parametrize(
    ("locale", "train"),
    [("en-US", "Train"), ("zh-CN", "训练"), ("zh-HK", "训练"), ("fr-FR", "Train")],
)
def test_the_browsers_language_is_spoken(opened, locale, train):
    """Every Chinese gets Chinese, everyone else English."""
    assert says_train(opened(locale)) == train


def test_all_that_stands_beside_the_controls_is_chinese(opened):
    """Labels, helps, buttons, tabs, Markdown: no marker is left, nor a sentence in English."""
    page = opened("en-US", "?lang=zh")
    text = page.locator("#settings").inner_text() + page.locator("#own-runs").first.inner_text()
    assert "__i18n__" not in text
    assert "[object" not in text
    assert re.findall(r"[a-z]{2,} [a-z]{2,} [a-z]{2,}", text) == []


def test_a_choice_of_language_is_kept_with_the_rest_of_the_address(opened, app):
    """The switch keeps the address' other parts, and this browser remembers it."""
    page = opened("en-US", "?run=7")
    page.click("#language")
    page.wait_for_url("**/?run=7&lang=zh")
    page.wait_for_selector("#train >> text=训练")
    page.goto(f"{app.url}/?run=8")
    page.wait_for_selector("#train >> text=训练")
    assert page.url.endswith("/?run=8&lang=zh")
    page.click("#language")
    page.wait_for_selector("#train >> text=Train")


def test_the_switch_asks_before_it_ends_a_training(opened):
    """Declined, it goes on; accepted, it is there in the other language, and can be resumed."""
    page = opened("en-US", "?epochs=100&scheduler=constant")
    page.click("#train:enabled")
    status_says(page, "^Training")
    asked = []
    page.once("dialog", lambda dialog: (asked.append(dialog.message), dialog.dismiss()))
    page.click("#language")
    assert "Resume goes on" in asked[0]
    assert page.locator("#stop").is_enabled()
    page.once("dialog", lambda dialog: dialog.accept())
    page.click("#language")
    page.wait_for_url("**lang=zh")
    status_says(page, "^中断了")


def test_the_address_is_enough_where_nothing_is_kept(opened):
    """A frame in another site's page may not touch localStorage at all; the page works without."""
    refuses = """Object.defineProperty(window, "localStorage", {
        configurable: true, get() { throw new DOMException("no", "SecurityError") }
    })"""
    assert says_train(opened("en-US", "?lang=zh", refuses)) == "训练"
    assert says_train(opened("zh-CN", "?lang=en", refuses)) == "Train"
