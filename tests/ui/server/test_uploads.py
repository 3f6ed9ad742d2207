"""Requests are read up to their size limit, uploads leave nothing else on the disk, and unused paths are refused."""

import tempfile
from pathlib import Path

import anyio
import pytest
from fastapi import FastAPI
from gradio.utils import get_upload_folder
from starlette.testclient import TestClient

from trainer.cache import cached
from trainer.errors import UserError
from ui.server import uploads
from ui.server.uploads import uploaded

PATH = "/gradio_api/upload"
BOUNDARY = "multipart/form-data; boundary=x"


@pytest.fixture
def folder(monkeypatch, tmp_path):
    """The folder of uploads; temporary files go into the folder above it."""
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "uploads"))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path / "uploads"


@pytest.fixture
def server(monkeypatch, folder):
    """A server that receives uploads, and has a path for JSON that returns the length of the data."""
    monkeypatch.setattr(uploads, "_LARGEST_REQUEST", 1000)
    monkeypatch.setattr(uploads, "_LARGEST_UPLOAD", 2)
    app = FastAPI(middleware=uploads.middleware(largest_file=2000))

    @app.post("/join")
    def join(body: dict) -> int:
        return len(body["data"])

    return app


@pytest.fixture
def client(server):
    return TestClient(server)


def send(client, content=b"x", name="picture.png", **headers):
    return client.post(PATH, files={"files": (name, content)}, headers=headers)


def files_in(folder):
    """Every file in a folder and in the folder above it."""
    return [path for path in folder.parent.rglob("*") if path.is_file()]


def in_pieces(text):
    """The body as chunks, so that the request has no Content-Length."""
    return (text[at : at + 100].encode() for at in range(0, len(text), 100))


def as_form(content):
    return f'--x\r\nContent-Disposition: form-data; name="files"; filename="a"\r\n\r\n{content}\r\n--x--\r\n'


def test_a_request_is_read_up_to_its_limit(client):
    """With or without a Content-Length; uploads have a limit of their own, which is larger."""
    small, large = ('{"data": "%s"}' % ("x" * count) for count in (900, 2000))
    headers = {"content-type": "application/json"}
    assert client.post("/join", content=small, headers=headers).json() == 900
    assert client.post("/join", content=in_pieces(small), headers=headers).json() == 900
    assert client.post("/join", content=large, headers=headers).status_code == 413
    assert client.post("/join", content=in_pieces(large), headers=headers).status_code == 413
    headers = {"content-type": BOUNDARY}
    for body in (as_form, lambda content: in_pieces(as_form(content))):
        assert client.post(PATH, content=body("x" * 2000), headers=headers).status_code == 200
        assert client.post(PATH, content=body("x" * 2300), headers=headers).status_code == 413


def test_an_upload_of_several_files_may_be_larger_than_each(client):
    """Up to a limit for all of them together."""
    parts = [("files", ("picture.png", str(number) * 1200)) for number in range(4)]
    assert len(client.post(PATH, files=parts[:2]).json()) == 2
    assert client.post(PATH, files=parts).status_code == 413


def test_an_upload_is_stored_by_its_content(client, folder):
    """`uploaded` accepts the path in the response; the same file again has the same path, another one another."""
    first, again, other = (send(client, content).json() for content in (b"one", b"one", b"two"))
    assert first == again != other
    assert uploaded(first[0]).read_bytes() == b"one"
    assert Path(first[0]).name == "upload.png"
    assert len(files_in(folder)) == 2


@pytest.mark.parametrize("name", ["", ".", "..", "../../x", "..\\x", "/", "a/b", "\0", "CON", "x" * 500, "图片.png"])
def test_a_hostile_name_stays_in_its_folder(client, folder, name):
    body = as_form("x").replace('filename="a"', f'filename="{name}"')
    (path,) = client.post(PATH, content=body.encode(), headers={"content-type": BOUNDARY}).json()
    assert uploaded(path).read_bytes() == b"x"
    assert uploaded(path).parents[1] == folder.resolve()


@pytest.mark.parametrize(
    "body", ["", "--x", as_form("x")[:-30], as_form("x").replace("name", "nom"), as_form("x")[:-7] * 11, "\0" * 100]
)
def test_a_malformed_upload_is_refused_or_empty(client, folder, body, monkeypatch):
    """Also one with more files than an upload may have."""
    monkeypatch.setattr("ui.server.uploads._MOST_FILES", 10)
    answer = client.post(PATH, content=body, headers={"content-type": BOUNDARY})
    assert answer.status_code == 400 or answer.json() == []
    assert files_in(folder) == []


def test_an_aborted_upload_leaves_nothing_on_the_disk(server, folder, monkeypatch):
    """Nor does one that is too large; the parts of both exceed what is kept in memory."""
    monkeypatch.setattr("starlette.formparsers.MultiPartParser.spool_max_size", 100)
    scope = {"type": "http", "method": "POST", "path": PATH, "headers": [(b"content-type", BOUNDARY.encode())]}
    scope |= {"query_string": b"", "root_path": "", "http_version": "1.1", "scheme": "http"}
    part = {"type": "http.request", "body": as_form("x" * 1500)[:1200].encode(), "more_body": True}

    async def statuses(*messages):
        """The statuses of the responses to an upload of these messages."""
        sent = []

        async def receive(left=iter(messages)):  # noqa: B008 - one iterator for all calls
            assert len(files_in(folder)) <= 1
            return next(left)

        async def send(message):
            sent.append(message)

        await server(scope, receive, send)
        return [message["status"] for message in sent if "status" in message]

    assert anyio.run(statuses, part, {"type": "http.disconnect"}) == []
    assert files_in(folder) == []
    assert anyio.run(statuses, part, part, part, part) == [413]
    assert files_in(folder) == []


def test_a_full_disk_is_explained(client, folder, monkeypatch):
    """The part that was written is removed."""

    def copy(source, target):
        target.write(source.read(1))
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(uploads.shutil, "copyfileobj", copy)
    answer = send(client)
    assert (answer.status_code, "disk is full" in answer.text) == (507, True)
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize(
    ("headers", "is_accepted"),
    [
        ({}, True),  # gradio_client
        ({"sec-fetch-site": "same-origin", "origin": "https://behind-a-proxy"}, True),
        ({"sec-fetch-site": "cross-site"}, False),
        ({"sec-fetch-site": "same-site", "origin": "http://localhost:8000"}, False),
        ({"origin": "http://testserver"}, True),
        ({"origin": "https://lab.example", "x-forwarded-host": "lab.example, inner"}, True),
        ({"origin": "http://testserver.evil.example"}, False),
        ({"origin": "null"}, False),
    ],
)
def test_another_site_cannot_upload(client, folder, headers, is_accepted):
    """Any page can send a form to an app on its reader's computer; a browser says where a request comes from."""
    assert send(client, **headers).status_code == (200 if is_accepted else 403)
    assert len(files_in(folder)) == is_accepted


@pytest.mark.parametrize("path", ["/etc/hostname", "{folder}/../other", "{folder}", "", None, 3, ["x"], "a\0b"])
def test_other_paths_are_no_uploads(folder, path):
    (folder.parent / "other").write_bytes(b"x")
    with pytest.raises(UserError, match="Send a picture file"):
        uploaded({"path": path.format(folder=folder) if isinstance(path, str) else path})


@pytest.mark.parametrize("address", ["=https://example.com/x", "=HTTP://x.com", "=http:/x.com/x", "/https://x.com"])
def test_no_address_is_fetched(client, address):
    """Gradio's file route would fetch an address for any client."""
    assert client.get(f"/gradio_api/file{address}").status_code == 403
    assert client.get("/gradio_api/file=/tmp/x").status_code == 404


@pytest.mark.parametrize("path", ["process_recording", "component_server", "deep_link"])
def test_paths_that_the_page_does_not_use_are_refused(client, path):
    """Gradio would keep recordings and the components of sessions on the disk, and state for every made-up session."""
    assert client.post(f"/gradio_api/{path}", content=b"x").status_code == 403
    assert client.get(f"/gradio_api/{path}?session_hash=x").status_code == 403


def test_uploads_are_stored_where_they_can_be_written(folder, monkeypatch, tmp_path):
    """By default in the app's cache; a folder that was chosen is not replaced by another."""
    uploads.prepare_folder()
    assert get_upload_folder() == str(folder)
    monkeypatch.delenv("GRADIO_TEMP_DIR")
    uploads.prepare_folder()
    assert get_upload_folder() == str(cached("uploads"))
    (tmp_path / "file").write_text("x")
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "file"))
    with pytest.raises(UserError, match="Uploads cannot be stored in"):
        uploads.prepare_folder()
