"""The page and its configuration are made once for each address, and are the same for everyone there."""

import gzip

import gradio as gr
import pytest
from labs import in_event_loop
from starlette.testclient import TestClient

from ui.i18n import language
from ui.server import rendering


@pytest.fixture
def rendered(monkeypatch):
    """The paths that Gradio has rendered, with their root."""
    paths = []
    original = gr.routes.templates.TemplateResponse

    def render(**options):
        paths.append(options["context"]["config"]["root"])
        return original(**options)

    monkeypatch.setattr(gr.routes.templates, "TemplateResponse", render)
    return paths


@pytest.fixture
def client(rendered):
    def create():
        with gr.Blocks() as page:
            gr.Textbox("the text of this page")
        page.theme = gr.themes.Base()  # as launch does
        page.config = page.get_config_file()
        middleware = [*rendering.MIDDLEWARE, *language.MIDDLEWARE]
        return gr.routes.App.create_app(page, app_kwargs={"middleware": middleware})

    app = in_event_loop(create)

    async def without_extensions(scope, receive, send):  # the test client has one that browsers do not have
        await app({**scope, "extensions": {}}, receive, send)

    return TestClient(without_extensions)


def test_a_page_is_rendered_once(client, rendered):
    """Whatever settings its address contains; the response is the one that Gradio would send."""
    first, again = client.get("/"), client.get("/?lang=zh&epochs=3", headers={"accept-language": "zh"})
    assert rendered == ["http://testserver"]
    assert first.text == again.text
    assert "the text of this page" in first.text
    assert first.text.startswith("<!doctype html>")
    assert client.get("/?page=").text == first.text  # rendered anew
    assert len(rendered) == 2


def test_a_page_is_compressed_if_the_browser_accepts_it(client):
    with client.stream("GET", "/", headers={"accept-encoding": "gzip, br"}) as answer:
        zipped = b"".join(answer.iter_raw())
        assert answer.headers["content-encoding"] == "gzip"
    plain = client.get("/", headers={"accept-encoding": "identity"})
    assert "content-encoding" not in plain.headers
    assert gzip.decompress(zipped) == plain.content
    assert len(zipped) < len(plain.content) / 2


def test_each_address_has_a_page_of_its_own(client, rendered):
    """Gradio writes the address into it; made-up addresses do not fill the memory."""
    addresses = [
        {"host": "lab.example"},
        {"host": "inner", "x-forwarded-host": "lab.example", "x-forwarded-proto": "https"},
        *({"host": f"made-up-{number}"} for number in range(20)),
        {"host": "lab.example"},
    ]
    pages = [client.get("/", headers=headers).text for headers in addresses]
    assert rendered[:2] == ["http://lab.example", "https://lab.example"]
    assert len(rendered) == len(addresses)
    assert pages[0] == pages[-1] != pages[1]


def test_the_configuration_is_made_once(client, monkeypatch):
    """It is the one that Gradio would send."""
    first = client.get("/config")
    monkeypatch.setattr(gr.routes.utils, "safe_deepcopy", None)  # which Gradio needs to make it
    again = client.get("/config")
    monkeypatch.undo()
    assert first.json() == again.json() == client.get("/config?all_endpoints=").json()
    assert again.headers["content-type"] == "application/json"
    assert "the text of this page" in again.text


def test_an_error_is_not_kept(client, rendered, monkeypatch):
    with monkeypatch.context() as broken:
        broken.setattr(gr.routes.templates, "TemplateResponse", lambda **_: gr.routes.PlainTextResponse("no", 503))
        assert client.get("/").status_code == 503
    assert client.get("/").status_code == 200
