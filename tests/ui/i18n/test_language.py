"""The page's language, as a handler is told it."""

import gradio as gr
import pytest
from gradio.context import LocalContext

from ui.i18n.language import current_language


@pytest.mark.parametrize(
    ("query", "accepted", "language"),
    [
        ("", "", "en"),
        ("", "en-US,en;q=0.9,zh;q=0.8", "en"),
        ("", "zh-HK,zh;q=0.9,en;q=0.8", "zh"),
        ("", "ZH", "zh"),
        ("", "fr-FR", "en"),
        ("lang=zh", "en-US", "zh"),
        ("run=7&lang=en", "zh-CN", "en"),
        ("lang=zh-TW", "en", "zh"),
        ("lang=xx", "zh-CN", "zh"),
        ("lang=", "zh-CN", "zh"),
    ],
)
def test_the_address_counts_first_and_then_the_browser(query, accepted, language):
    """`?lang=` if it names a language of the page, else the language that the browser prefers."""
    scope = {
        "type": "http",
        "method": "POST",
        "path": "/",
        "query_string": query.encode(),
        "headers": [(b"accept-language", accepted.encode())],
    }
    kept = LocalContext.request.set(gr.Request(request=gr.routes.fastapi.Request(scope)))
    try:
        assert current_language() == language
    finally:
        LocalContext.request.reset(kept)


def test_outside_of_any_event_it_is_english():
    """Where the page is built, say, and for the public endpoints' own tests."""
    assert current_language() == "en"
