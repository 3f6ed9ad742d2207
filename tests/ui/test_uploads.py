"""Requests are read up to their size limit, and paths that the page does not use are refused."""

import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

from ui import uploads


@pytest.fixture
def client(monkeypatch):
    """A server with one path for JSON and one for uploads, which both return the length of the data."""
    monkeypatch.setattr(uploads, "_LARGEST_REQUEST", 1000)
    monkeypatch.setattr(uploads, "_UPLOAD_OVERHEAD", 100)
    app = FastAPI(middleware=uploads.middleware(largest_file=2000))

    @app.post("/join")
    def join(body: dict) -> int:
        return len(body["data"])

    @app.post("/gradio_api/upload")
    def take(body: dict) -> int:
        return len(body["data"])

    return TestClient(app)


def in_pieces(text):
    """The body as chunks, so that the request has no Content-Length."""
    return (text[at : at + 100].encode() for at in range(0, len(text), 100))


def test_a_request_is_read_up_to_its_limit(client):
    """With or without a Content-Length; uploads have a limit of their own, which is larger."""
    small, large, largest = ('{"data": "%s"}' % ("x" * count) for count in (900, 2000, 2100))
    headers = {"content-type": "application/json"}
    assert client.post("/join", content=small, headers=headers).json() == 900
    assert client.post("/join", content=in_pieces(small), headers=headers).json() == 900
    assert client.post("/join", content=large, headers=headers).status_code == 413
    assert client.post("/join", content=in_pieces(large), headers=headers).status_code == 413
    assert client.post("/gradio_api/upload", content=large, headers=headers).json() == 2000
    assert client.post("/gradio_api/upload", content=in_pieces(largest), headers=headers).status_code == 413


@pytest.mark.parametrize("address", ["=https://example.com/x", "=HTTP://x.com", "=http:/x.com/x", "/https://x.com"])
def test_no_address_is_fetched(client, address):
    """Gradio's file route would fetch an address for any client."""
    assert client.get(f"/gradio_api/file{address}").status_code == 403
    assert client.get("/gradio_api/file=/tmp/x").status_code == 404


@pytest.mark.parametrize("path", ["/gradio_api/process_recording", "/gradio_api/component_server"])
def test_paths_that_the_page_does_not_use_are_refused(client, path):
    """Gradio would keep recordings on the disk for ever, and state for every made-up session."""
    assert client.post(path, content=b"x").status_code == 403
