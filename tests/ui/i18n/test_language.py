"""The page's language in a handler, and the script that chooses it, which must come before Gradio's."""

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
def test_the_address_comes_before_the_browsers_language(query, accepted, language):
    """`?lang=` if the page has that language, else the one that the browser prefers."""
    scope = {
        "type": "http",
        "method": "POST",
        "path": "/",
        "query_string": query.encode(),
        "headers": [(b"accept-language", accepted.encode())],
    }
    token = LocalContext.request.set(gr.Request(request=gr.routes.fastapi.Request(scope)))
    try:
        assert current_language() == language
    finally:
        LocalContext.request.reset(token)


def test_outside_of_an_event_it_is_english():
    """For example while the page is built."""
    assert current_language() == "en"


def response_to(path: str, pieces: list[bytes]) -> tuple[dict[str, str], bytes]:
    """The headers and the body of a response that the app sends in pieces through the middleware."""

    async def app(scope, receive, send):
        headers = [(b"content-length", str(len(b"".join(pieces))).encode()), (b"x-other", b"kept")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        for index, piece in enumerate(pieces):
            await send({"type": "http.response.body", "body": piece, "more_body": index + 1 < len(pieces)})

    response = TestClient(MIDDLEWARE[0].cls(app)).get(path)
    return dict(response.headers), response.content


@pytest.mark.parametrize("pieces", [[PAGE], [PAGE[:20], PAGE[20:]]])
def test_the_script_comes_first_in_the_page(pieces):
    """The script is before all of Gradio's, and the Content-Length includes it."""
    headers, body = response_to("/", pieces)
    assert body.startswith(b"<!doctype html><html><head><script>// Runs before Gradio")
    assert body.endswith(b"</script><title>x</title></head></html>")
    assert headers == {"content-length": str(len(body)), "x-other": "kept"}


def test_other_responses_are_unchanged():
    """Even if they contain <head>, and if they are sent in pieces."""
    headers, body = response_to("/file", [PAGE, PAGE])
    assert body == PAGE * 2
    assert headers["content-length"] == str(len(body))
