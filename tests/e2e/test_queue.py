"""The queue of trainings: a session can neither hold it up nor be driven out of it."""

import json
import time
import urllib.error
import urllib.parse
import urllib.request
import uuid
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

SECONDS = 120  # after which a wait fails: much longer than any takes, even on a busy machine


class QueueClient:
    """Raw requests to the app of tests/queue_app.py: a session can send one without listening to the result."""

    def __init__(self, url: str):
        self.url = f"{url}/gradio_api/queue"
        with urllib.request.urlopen(f"{url}/config", timeout=SECONDS) as config:
            self.endpoints = {one["api_name"]: one["id"] for one in json.load(config)["dependencies"]}

    def send(self, endpoint: str, *data, session: str) -> None:
        """Sends a request and does not wait for its result."""
        body = {"data": data, "fn_index": self.endpoints[endpoint], "session_hash": session}
        headers = {"Content-Type": "application/json"}
        request = urllib.request.Request(f"{self.url}/join", json.dumps(body).encode(), headers)
        urllib.request.urlopen(request, timeout=SECONDS).close()

    def open_stream(self, session: str):
        """Opens the stream of Gradio's messages to a session."""
        query = urllib.parse.urlencode({"session_hash": session})
        return urllib.request.urlopen(f"{self.url}/data?{query}", timeout=SECONDS)

    def listen(self, session: str) -> list:
        """Returns the results of all requests that the session has sent, once all have ended."""
        with self.open_stream(session) as stream:
            messages = [json.loads(line.removeprefix(b"data: ")) for line in stream if line.startswith(b"data: ")]
        ends = [message["output"] for message in messages if message["msg"] == "process_completed"]
        return [output.get("data", output) for output in ends]

    def start_listening(self, threads, session: str) -> Future:
        """Runs `listen` in a thread, and waits until the app knows that the session listens."""
        results = threads.submit(self.listen, session)
        self.wait_until("listeners", lambda listeners: session in listeners)
        return results

    def line_up(self, threads, endpoint: str, *sessions: str) -> list[Future]:
        """Lets each session send a request and listen; the first one's training starts before the second one sends."""
        results = []
        for session in sessions:
            self.send(endpoint, session, session=session)
            results.append(self.start_listening(threads, session))
            self.wait_until("started", lambda started: started == [sessions[0]])
        return results

    def call(self, endpoint: str, *data) -> list:
        """Returns the result of an endpoint that does not queue."""
        session = uuid.uuid4().hex
        self.send(endpoint, *data, session=session)
        (result,) = self.listen(session)
        return result

    def state(self) -> dict:
        return self.call("state")[0]

    def set_constants(self, **constants) -> None:
        """Sets constants of ui/queue.py: a limit of 0 seconds has passed at once, without a wait in the test."""
        self.call("set_constants", constants)

    def wait_until(self, part: str, is_reached) -> None:
        end = time.monotonic() + SECONDS
        while not is_reached(value := self.state()[part]):
            assert time.monotonic() < end, f"{part} is still {value}"
            time.sleep(0.05)


@pytest.fixture(scope="module")
def app(launched, tmp_path_factory):
    with launched(tmp_path_factory.mktemp("checkpoints"), "tests/queue_app.py") as running:
        yield running


@pytest.fixture
def queue(app, request):
    """The app, with the constants of ui/queue.py that the test's parameter sets; everything has ended afterwards."""
    queue = QueueClient(app.url)
    queue.call("start_test", getattr(request, "param", {}))
    yield queue
    queue.call("go_on")
    queue.wait_until("waiting", lambda waiting: waiting == [])
    num_started = len(queue.state()["started"])
    queue.wait_until("ended", lambda ended: len(ended) == num_started)


@pytest.fixture
def threads():
    with ThreadPoolExecutor() as pool:
        yield pool


def test_a_session_that_does_not_listen_loses_its_turn(queue, threads):
    """A request whose session has never read its messages leaves the queue, and the next one is trained."""
    results = {}
    for session in ("first", "second", "absent", "last"):
        queue.send("api", session, session=session)
        if session != "absent":
            results[session] = queue.start_listening(threads, session)
        queue.wait_until("started", lambda started: started)
    queue.set_constants(_SECONDS_TO_LISTEN=0)
    queue.call("go_on")
    assert [results[session].result(SECONDS) for session in results] == [[[f"{name} is trained"]] for name in results]
    assert "absent" not in queue.state()["started"]


@pytest.mark.parametrize("queue", [{"_SECONDS_TO_LISTEN": 0.5}], indirect=True)
def test_a_training_without_a_listener_ends(queue):
    """A training ends if its session has never listened, and later if the session has stopped listening.

    A session that comes back gets the reason.
    """
    for number, endpoint in enumerate(("api", "page"), 1):
        queue.send(endpoint, "absent", session=endpoint)
        queue.wait_until("ended", lambda ended, number=number: ended == ["absent"] * number)
    ((status,),) = queue.listen("page")
    assert "its turn has passed" in status["value"]
    assert "its turn has passed" in queue.listen("api")[0]["error"]
    queue.set_constants(_SECONDS_TO_LISTEN=SECONDS, _SECONDS_AWAY=1.5)
    started_at = time.monotonic()
    queue.send("api", "leaves", session="leaves")
    with queue.open_stream("leaves") as stream:
        assert any(b"training" in line for line in stream)
        # The connection stays open, but a large message that is not read blocks it.
        queue.send("echo", "x" * 20_000_000, session="leaves")
        queue.wait_until("ended", lambda ended: "leaves" in ended)
    assert time.monotonic() - started_at > 1.5


def test_a_session_that_waits_for_several_trainings_gets_each(queue, threads):
    """Listening once counts for all requests of the session."""
    for number in range(4):
        queue.send("api", str(number), session="eager")
        queue.wait_until("started", lambda started: started)
    results = queue.start_listening(threads, "eager")
    queue.set_constants(_SECONDS_TO_LISTEN=0)
    queue.call("go_on")
    assert results.result(SECONDS) == [[f"{number} is trained"] for number in range(4)]


@pytest.mark.parametrize("queue", [{"_MOST_WAITING_PER_SESSION": 1}], indirect=True)
def test_one_session_does_not_take_the_whole_queue(queue, threads):
    """A session's requests above its limit are refused at once; its earlier ones and later sessions are trained."""
    (results,) = queue.line_up(threads, "api", "greedy")
    queue.send("api", "more", session="greedy")
    with pytest.raises(urllib.error.HTTPError, match="503"):
        queue.send("api", "too much", session="greedy")
    queue.send("api", "later", session="later")
    later = queue.start_listening(threads, "later")
    queue.call("go_on")
    assert results.result(SECONDS) == [["greedy is trained"], ["more is trained"]]
    assert later.result(SECONDS) == [["later is trained"]]


@pytest.mark.parametrize("queue", [{"_MOST_SESSIONS": 5}], indirect=True)
def test_many_sessions_drive_nobody_out(queue, threads):
    """When more sessions come than are remembered, one that trains and one that waits still get their results."""
    results = queue.line_up(threads, "api", "trains", "waits")
    for _ in range(20):
        assert queue.state()["num_sessions"] <= 5
    queue.call("go_on")
    assert [one.result(SECONDS) for one in results] == [[["trains is trained"]], [["waits is trained"]]]


def test_leaving_the_queue(queue, threads):
    """A session's requests by the page leave and are not trained; its requests by the API and other sessions' stay."""
    _, leaves, stays = queue.line_up(threads, "page", "trains", "leaves", "stays")
    queue.send("api", "of the API", session="leaves")
    queue.send("leave", session="leaves")
    queue.wait_until("waiting", lambda waiting: waiting == ["stays", "leaves"])
    queue.call("go_on")
    results = leaves.result(SECONDS)
    assert [{"value": "left page", "__type__": "update"}] in results
    assert ["of the API is trained"] in results
    assert stays.result(SECONDS) == [["stays is trained"]]
    assert queue.state()["started"] == ["trains", "stays", "of the API"]


def test_a_full_queue_makes_room(queue, threads):
    """It removes sessions that do not listen, even if one that listens is ahead of them."""
    results = queue.line_up(threads, "api", "trains", "waits")
    for session in ("absent", "absent too"):
        queue.send("api", session, session=session)
    queue.set_constants(_SECONDS_TO_LISTEN=0)
    queue.send("api", "comes", session="comes")
    queue.set_constants(_SECONDS_TO_LISTEN=SECONDS)
    results.append(queue.start_listening(threads, "comes"))
    assert queue.state()["waiting"] == ["waits", "comes"]
    queue.call("go_on")
    assert [one.result(SECONDS) for one in results] == [
        [[f"{name} is trained"]] for name in ("trains", "waits", "comes")
    ]


def test_a_full_queue_refuses(queue):
    """Three requests may wait behind the one that is trained."""
    for number in range(4):
        queue.send("api", str(number), session=str(number))
        queue.wait_until("started", lambda started: started)
    with pytest.raises(urllib.error.HTTPError) as refused:
        queue.send("api", "one more", session="one more")
    refused.value.close()
    assert refused.value.code == 503
