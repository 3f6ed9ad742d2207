"""The head of the page: our scripts must come before Gradio's."""

import pytest
from starlette.testclient import TestClient

from ui.head import MIDDLEWARE

PAGE = b"<!doctype html><html><head><title>x</title></head></html>"


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
