"""Whether a client still reads: a contract with Gradio's queue, of which ui/jobs/listeners.py reads two dicts."""

import json
import time
import urllib.request

import pytest
from gradio_client import Client


@pytest.fixture(scope="module")
def app(launched, tmp_path_factory):
    with launched(tmp_path_factory.mktemp("none"), "tests/listener_app.py") as running:
        yield running


@pytest.fixture(scope="module")
def answers(app):
    """answers(name): whether the client `name` listened, at each look so far."""
    client = Client(app.url, verbose=False)
    return lambda name: client.predict(name, api_name="/answers")


def join(app, name, num_messages=0):
    """Calls the handler in a session of its own, without reading the results."""
    body = {"data": [name, num_messages], "fn_index": 0, "session_hash": name}
    headers = {"Content-Type": "application/json"}
    request = urllib.request.Request(f"{app.url}/gradio_api/queue/join", json.dumps(body).encode(), headers)
    urllib.request.urlopen(request, timeout=60).close()


def wait_for(condition):
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.1)


def test_a_client_that_reads_listens_until_it_goes(app, answers):
    join(app, "reader")
    stream = urllib.request.urlopen(f"{app.url}/gradio_api/queue/data?session_hash=reader", timeout=60)
    wait_for(lambda: len(answers("reader")) > 10)
    assert all(answers("reader"))
    stream.close()
    wait_for(lambda: not answers("reader")[-1])


def test_a_client_with_too_many_messages_to_read_does_not_listen(app, answers):
    join(app, "silent", num_messages=10)
    wait_for(lambda: answers("silent"))
    assert not answers("silent")[0]
