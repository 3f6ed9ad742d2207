"""Each private handler checks itself that a run is the visitor's: called directly, without Gradio's list of choices."""

import hashlib
import inspect
import shutil

import anyio
import gradio as gr
import pytest
from labs import in_event_loop

from trainer.runs import run_folder
from ui.page import build_page
from ui.parts.shared import Displayed
from ui.run_index import OWNER
from ui.visitors import new_visitor

ONE_RUN, SEVERAL_RUNS = {"race", "run", "other", "key", "name"}, {"names", "compared"}


@pytest.fixture
def owner():
    return new_visitor()


@pytest.fixture
def folder(lab, owner, small_run):
    """A run of `owner`."""
    copied = shutil.copytree(small_run, lab.runs.folder / run_folder.new_key())
    (copied / OWNER).write_text(hashlib.sha256(owner.encode()).hexdigest())
    return copied


@pytest.fixture
def handlers(lab, monkeypatch):
    """The page's handlers that take a visitor and a run, by name. Those that watch a job soon end."""
    monkeypatch.setattr("ui.parts.run.watching._SECONDS_OF_A_WATCH", 0.1)
    monkeypatch.setattr("ui.parts.run.watching._SECONDS_BETWEEN_UPDATES", 0.1)
    page = in_event_loop(lambda: build_page(lab))
    found = {}
    for one in page.fns.values():
        names = set(one.input_keyword_names or ())
        takes_run = "visitor" in names and names & (ONE_RUN | SEVERAL_RUNS)
        if one.fn is not None and takes_run:
            found[one.api_name] = one
    return found


def call(handler, visitor, key):
    """Returns what a handler answers: the values of its results, or its error; the key is replaced by a word."""
    values = {}
    for name, component in zip(handler.input_keyword_names, handler.inputs, strict=True):
        values[name] = getattr(component, "value", None)
        if name == "displayed":
            values[name] = Displayed()
    values |= dict.fromkeys(ONE_RUN & values.keys(), key) | {name: [key] for name in SEVERAL_RUNS & values.keys()}
    values["visitor"] = visitor

    async def answers():
        results = handler.fn(**values)
        if inspect.isasyncgen(results):
            return [result async for result in results]
        if inspect.isgenerator(results):
            return list(results)
        return [await results if inspect.isawaitable(results) else results]

    try:
        results = anyio.run(answers)
    except gr.Error as error:
        results = error.message
    return repr(results).replace(key, "KEY").replace(key[:4], "KEY")


def state(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file() and path.name != ".lock"}


def test_every_handler_of_a_run_is_tested(handlers):
    """The names of the inputs that stand for runs are as expected."""
    wanted = {"_show", "_delete", "_download", "_offer", "_publish", "_resume", "_go_on", "_compare", "_export"}
    assert wanted <= handlers.keys()
    assert len(handlers) > 25


@pytest.mark.slow
def test_a_strangers_request_is_answered_as_if_there_were_no_run(lab, handlers, folder, owner):
    """The answer to another visitor, or to none, is the one for a key that no run has; nothing changes or begins."""
    before, unknown = state(folder), run_folder.new_key()
    for visitor in (new_visitor(), owner.upper(), None):
        differ = {
            name: (call(handler, visitor, folder.name), call(handler, visitor, unknown))
            for name, handler in handlers.items()
        }
        assert {name: answers for name, answers in differ.items() if answers[0] != answers[1]} == {}, visitor
    assert state(folder) == before
    assert lab.jobs.active() == []


def test_the_owner_is_answered_otherwise(handlers, folder, owner):
    """So the test above can fail."""
    unknown = run_folder.new_key()
    for name in ("_show", "_download", "_offer", "_compare", "_export", "_compared_code", "_inside"):
        assert call(handlers[name], owner, folder.name) != call(handlers[name], owner, unknown), name
