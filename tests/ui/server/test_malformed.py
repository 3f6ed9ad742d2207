"""Requests that no page sends get a sentence, leave little in the log, and do not end other visitors' streams."""

import functools
import itertools
import json
import logging

import anyio
import gradio as gr
import pytest
from fastapi import FastAPI
from gradio.state_holder import SessionState
from labs import in_event_loop
from starlette.requests import Request
from starlette.testclient import TestClient

from ui.i18n.words import translate
from ui.page import build_page
from ui.server import malformed, uploads

LONG = "x" * 100_000
PRESSED = [None, "lesson", ["lesson"], 3, {}, {"lesson": 3}, {"index": 0.0}, {"index": [0]}]
VALUES = [LONG, {"path": LONG}, 1e308]


@pytest.fixture
def page(lab):
    return in_event_loop(lambda: build_page(lab))


def send(page, function, data, pressed=None):
    """Calls a function of the page with raw inputs, and what was pressed, as the queue does."""
    event = gr.EventData(None, pressed)
    return anyio.run(functools.partial(page.process_api, function, data, state=SessionState(page), event_data=event))


@pytest.mark.slow
def test_every_event_answers_malformed_inputs_in_a_sentence(page, caplog):
    """Too few inputs, and values of other types; the sentence is not empty, nor does it contain the whole value."""
    errors = []
    for function in page.fns.values():
        if function.fn is None or not function.inputs:
            continue
        for data in ([], *([value] * len(function.inputs) for value in VALUES)):
            try:
                send(page, function, data)
            except gr.Error as error:
                errors.append((function.api_name, error))
    assert len(errors) > len(page.fns)
    for name, error in errors:
        assert 0 < len(error.message.strip()) < 1000, name
        assert not error.print_exception, name
    assert max(len(line) for record in caplog.records for line in record.getMessage().splitlines()) < 1000


@pytest.mark.slow
def test_an_event_without_what_was_pressed_is_answered(page, caplog):
    """An event that no browser sends: it names no lesson, field, picture or repo, or not as text or number."""
    functions, sentences = [one for one in page.fns.values() if one.collects_event_data], []
    assert len(functions) > 8
    for function, pressed in itertools.product(functions, PRESSED):
        try:
            send(page, function, [getattr(one, "value", None) for one in function.inputs], pressed)
        except gr.Error as error:
            sentences.append(error.message)
    assert sentences
    assert all(sentences)
    assert [record for record in caplog.records if "failed" in record.message or "Traceback" in record.message] == []


def test_an_error_of_gradio_has_words_and_little_log(page, caplog):
    """It is logged in one line, with the start of the value."""
    choice = next(one for one in page.fns.values() if one.api_name == "_classify")
    with pytest.raises(gr.Error, match="could not read this request"):
        send(page, choice, [])
    caplog.clear()
    show = next(one for one in page.fns.values() if one.api_name == "_show")
    with caplog.at_level(logging.WARNING), pytest.raises(gr.Error, match="not in the list of choices"):
        send(page, show, [LONG] * len(show.inputs))
    assert [len(record.getMessage()) < 300 for record in caplog.records] == [True]


@pytest.mark.parametrize("language", ["en", "zh"])
def test_an_event_that_does_not_exist_is_refused_in_a_sentence(caplog, language):
    """By Gradio's own server, whose route fails: status 500 without the middleware."""
    blocks = in_event_loop(gr.Blocks)
    app = in_event_loop(lambda: gr.routes.App.create_app(blocks, app_kwargs={"middleware": malformed.MIDDLEWARE}))
    for body in ({"fn_index": 9999}, {"fn_index": -1}):
        answer = TestClient(app, headers={"accept-language": language}).post(
            "/gradio_api/queue/join", json={"data": [], "session_hash": "someone", **body}
        )
        assert answer.status_code == 400
        assert answer.json() == {
            "detail": translate("The app could not read this request; reload the page and try again.", language)
        }
    assert "A request failed: KeyError" in caplog.text
    assert "Traceback" not in caplog.text


def test_a_stream_that_fails_ends(caplog):
    """Gradio begins to answer a session that has no events, and then raises an error."""
    blocks = in_event_loop(gr.Blocks)
    app = in_event_loop(lambda: gr.routes.App.create_app(blocks, app_kwargs={"middleware": malformed.MIDDLEWARE}))
    answer = TestClient(app).get("/gradio_api/queue/data?session_hash=nobody")
    assert answer.status_code == 200
    assert [record.message.split(":")[0] for record in caplog.records] == ["A request failed"]


def test_a_call_that_says_it_is_a_batch(page):
    """Gradio passes its request in a list."""
    request = gr.Request(Request({"type": "http", "query_string": b"", "headers": [(b"accept-language", b"zh")]}))
    function = next(one for one in page.fns.values() if one.api_name == "_classify")
    with pytest.raises(gr.Error, match="应用"):
        anyio.run(functools.partial(page.process_api, function, [], state=SessionState(page), request=[request]))


@pytest.mark.parametrize(("number", "sentence"), [(500, "500 太大：这里最多 100。"), (0, "0 太小：这里最少 1。")])
def test_a_number_out_of_range_is_explained_in_the_language_of_the_page(number, sentence):
    """Gradio's own sentence, for any field, is English and says what it compared."""
    with pytest.raises(gr.Error) as raised:
        gr.Number(minimum=1, maximum=100, precision=0).preprocess(number)
    assert malformed._in_words(raised.value.message, "zh") == sentence


@pytest.fixture
def client():
    """A server with one path that returns the body's text, behind the same limits as the app."""
    app = FastAPI(middleware=[*uploads.middleware(1000), *malformed.MIDDLEWARE])

    @app.post("/join")
    def join(body: dict) -> str:
        return body["text"]

    return TestClient(app)


@pytest.mark.parametrize("text", ["\U0001f600", "é", "图", "\\ud800", "\x00", ""])
def test_text_arrives_as_it_was_sent(client, text):
    """Pairs of surrogates are a character, and an escaped backslash begins none."""
    for body in (json.dumps({"text": text}), json.dumps({"text": text}, ensure_ascii=False)):
        sent = client.post("/join", content=body.encode(), headers={"content-type": "application/json"})
        assert sent.json() == text


@pytest.mark.parametrize("body", [r'{"text": "\ud800"}', r'{"text": "\udc00\ud83d"}', r'{"\uDFFF": 1, "text": ""}'])
def test_half_a_character_is_refused(client, body):
    """Gradio could not write it into its stream, and would end the sender's other events too."""
    answer = client.post("/join", content=body, headers={"content-type": "application/json"})
    assert answer.status_code == 400
    assert answer.json() == {"detail": "This request contains text that is not Unicode."}


def test_a_request_that_is_too_large_or_no_json_is_refused(client, monkeypatch):
    headers = {"content-type": "application/json"}
    assert client.post("/join", content=rb'{"text": "\ud800', headers=headers).status_code == 422
    monkeypatch.setattr(uploads, "_LARGEST_REQUEST", 1000)
    assert client.post("/join", content=b" " * 2000, headers=headers).status_code == 413
