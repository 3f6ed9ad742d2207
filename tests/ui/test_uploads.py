"""What a visitor sends is read as far as it may be, and no further."""

import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

from ui import uploads


@pytest.fixture
def client(monkeypatch):
    """A server with a place for JSON and one for uploads, which tell how much came."""
    monkeypatch.setattr(uploads, "_LARGEST_REQUEST", 1000)
    monkeypatch.setattr(uploads, "_AROUND_A_FILE", 100)
    app = FastAPI(middleware=uploads.middleware(largest_file=2000))

    @app.post("/join")
    def join(body: dict) -> int:
        return len(body["data"])

    @app.post("/gradio_api/upload")
    def take(body: dict) -> int:
        return len(body["data"])

    return TestClient(app)


def in_pieces(text):
    """Without a length that is told beforehand."""
    return (text[at : at + 100].encode() for at in range(0, len(text), 100))


def test_a_request_is_read_up_to_its_limit(client):
    """Whether its length is told or not; a file may be larger, up to its own."""
    small, large, largest = ('{"data": "%s"}' % ("x" * count) for count in (900, 2000, 2100))
    headers = {"content-type": "application/json"}
    assert client.post("/join", content=small, headers=headers).json() == 900
    assert client.post("/join", content=in_pieces(small), headers=headers).json() == 900
    assert client.post("/join", content=large, headers=headers).status_code == 413
    assert client.post("/join", content=in_pieces(large), headers=headers).status_code == 413
    assert client.post("/gradio_api/upload", content=large, headers=headers).json() == 2000
    assert client.post("/gradio_api/upload", content=in_pieces(largest), headers=headers).status_code == 413


@pytest.mark.parametrize("address", ["=https://example.com/x", "=HTTP://x.com", "=http:/x.com/x", "/https://x.com"])
def test_no_address_is_opened(client, address):
    """As Gradio's way to files would for anybody."""
    assert client.get(f"/gradio_api/file{address}").status_code == 403
    assert client.get("/gradio_api/file=/tmp/x").status_code == 404


@pytest.mark.parametrize("path", ["/gradio_api/process_recording", "/gradio_api/component_server"])
def test_what_no_page_asks_for_is_refused(client, path):
    """Gradio would keep a recording on the disk for ever, and a state for each session that is made up."""
    assert client.post(path, content=b"x").status_code == 403
