"""The page's language, as a handler is told it, and the script that chooses it, which must come before Gradio's."""

import gradio as gr
import pytest
from gradio.context import LocalContext
from starlette.testclient import TestClient

from ui.i18n.language import MIDDLEWARE, current_language

PAGE = b"<!doctype html><html><head><title>x</title></head></html>"


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


def answered(path: str, pieces: list[bytes]) -> tuple[dict, bytes]:
    """What the middleware makes of an answer that comes in pieces: its headers and its body."""

    async def app(scope, receive, send):
        headers = [(b"content-length", str(len(b"".join(pieces))).encode()), (b"x-other", b"kept")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        for at, piece in enumerate(pieces):
            await send({"type": "http.response.body", "body": piece, "more_body": at + 1 < len(pieces)})

    answer = TestClient(MIDDLEWARE[0].cls(app)).get(path)
    return dict(answer.headers), answer.content


@pytest.mark.parametrize("pieces", [[PAGE], [PAGE[:20], PAGE[20:]]])
def test_the_script_stands_first_in_the_page(pieces):
    """Before anything of Gradio's, with a length that counts it in."""
    headers, body = answered("/", pieces)
    assert body.startswith(b"<!doctype html><html><head><script>// Runs before Gradio")
    assert body.endswith(b"</script><title>x</title></head></html>")
    assert headers == {"content-length": str(len(body)), "x-other": "kept"}


def test_everything_else_passes_untouched():
    """A file that holds <head> too, and a stream, piece by piece."""
    headers, body = answered("/file", [PAGE, PAGE])
    assert body == PAGE * 2
    assert headers["content-length"] == str(len(body))
