"""The line of those who wait to train: nobody can hold it up, or be driven out of it."""

import json
import time
import urllib.error
import urllib.request
import uuid
from concurrent.futures import Future, ThreadPoolExecutor

import pytest


class Line:
    """The app of tests/queue_app.py, asked by hand: a session can ask without listening to what becomes of it."""

    def __init__(self, url: str):
        self.url = f"{url}/gradio_api/queue"
        with urllib.request.urlopen(f"{url}/config", timeout=10) as config:
            self.endpoints = {one["api_name"]: one["id"] for one in json.load(config)["dependencies"]}

    def ask(self, endpoint: str, *data: str, session: str) -> None:
        body = {"data": data, "fn_index": self.endpoints[endpoint], "session_hash": session}
        headers = {"Content-Type": "application/json"}
        request = urllib.request.Request(f"{self.url}/join", json.dumps(body).encode(), headers)
        urllib.request.urlopen(request, timeout=10).close()

    def hash_of(self, session: str) -> str:
        """The session's name for Gradio."""
        return f"{session}@{self.test}"

    def stream(self, session: str):
        """What Gradio says to the session, as it comes."""
        query = urllib.parse.urlencode({"session_hash": session})
        return urllib.request.urlopen(f"{self.url}/data?{query}", timeout=30)

    def listen(self, session: str) -> list[dict]:
        """What the session is told in the end of each thing that it has asked for."""
        with urllib.request.urlopen(f"{self.url}/data?session_hash={session}", timeout=30) as stream:
            messages = [json.loads(line.removeprefix(b"data: ")) for line in stream if line.startswith(b"data: ")]
        ends = [message["output"] for message in messages if message["msg"] == "process_completed"]
        return [output.get("data", output) for output in ends]

    def line_up(self, threads, endpoint: str, *sessions: str) -> list[Future]:
        """Each session asks, as itself, and listens; the first one's turn has begun before the next one asks."""
        told = []
        for session in sessions:
            self.ask(endpoint, session, session=session)
            told.append(threads.submit(self.listen, session))
            self.wait_until("begun", lambda begun: begun == [sessions[0]])
        return told

    def now(self, endpoint: str, *data) -> list:
        """What an endpoint that needs no turn answers."""
        session = uuid.uuid4().hex
        self.ask(endpoint, *data, session=session)
        (answer,) = self.listen(session)
        return answer

    def wait_until(self, part: str, is_so) -> None:
        end = time.monotonic() + 20
        while not is_so(self.now("state")[0][part]):
            assert time.monotonic() < end
            time.sleep(0.05)


@pytest.fixture(scope="module")
def app(launched, tmp_path_factory):
    with launched(tmp_path_factory.mktemp("checkpoints"), "tests/queue_app.py") as running:
        yield running


@pytest.fixture
def line(app, request):
    """The app, with the constants of ui/queue.py that a test asks for; in the end all that has begun or waits ends."""
    line = Line(app.url)
    line.now("start_test", getattr(request, "param", {}))
    yield line
    line.now("go_on")
    line.wait_until("waiting", lambda waiting: waiting == [])
    num_begun = len(line.now("state")[0]["begun"])
    line.wait_until("ended", lambda ended: len(ended) == num_begun)


@pytest.fixture
def threads():
    with ThreadPoolExecutor() as pool:
        yield pool


@pytest.mark.parametrize("line", [{"_SECONDS_TO_LISTEN": 2}], indirect=True)
def test_no_turn_is_spent_on_who_does_not_listen(line, threads):
    """Who has asked, and waited for others, without reading what becomes of it, gives their turn to the next."""
    told = {}
    for session in ("first", "second", "nobody", "last"):
        line.ask("api", session, session=session)
        if session != "nobody":
            told[session] = threads.submit(line.listen, session)
        line.wait_until("begun", lambda begun: begun)
    time.sleep(2.5)  # more than is given to listen
    line.now("go_on")
    assert [told[session].result(timeout=20) for session in told] == [[[f"{name} is trained"]] for name in told]
    assert "nobody" not in line.now("state")[0]["begun"]


@pytest.mark.parametrize("line", [{"_SECONDS_TO_LISTEN": 0.5, "_SECONDS_AWAY": 1.5}], indirect=True)
def test_what_nobody_listens_to_ends(line):
    """A training that nobody has ever listened to gives its turn back; one whose listener has left may go on longer.

    Who comes back is told.
    """
    for number, endpoint in enumerate(("api", "page"), 1):
        line.ask(endpoint, "nobody", session=endpoint)
        line.wait_until("ended", lambda ended, number=number: ended == ["nobody"] * number)
    ((told,),) = line.listen("page")
    assert "its turn has passed" in told["value"]
    assert "its turn has passed" in line.listen("api")[0]["error"]
    begun = time.monotonic()
    line.ask("api", "leaves", session="leaves")
    with urllib.request.urlopen(f"{line.url}/data?session_hash=leaves", timeout=30) as stream:
        while b"training" not in stream.readline():
            pass
        # The connection stays, and nobody reads.
        line.ask("echo", "x" * 20_000_000, session="leaves")
        line.wait_until("ended", lambda ended: "leaves" in ended)
    assert time.monotonic() - begun > 1.5


@pytest.mark.parametrize("line", [{"_SECONDS_TO_LISTEN": 2}], indirect=True)
def test_who_waits_for_several_things_is_heard(line, threads):
    """A session that has asked for many trainings, and listens, gets each of them."""
    for number in range(4):
        line.ask("api", str(number), session="eager")
        line.wait_until("begun", lambda begun: begun)
    told = threads.submit(line.listen, "eager")
    time.sleep(2.5)  # more than is given to listen
    line.now("go_on")
    assert told.result(timeout=20) == [[f"{number} is trained"] for number in range(4)]


@pytest.mark.parametrize("line", [{"_MOST_OF_A_SESSION": 1}], indirect=True)
def test_one_session_does_not_take_the_whole_line(line, threads):
    """Beyond its share it is refused, at once; what it asked before it gets, and so does whoever comes later."""
    (told,) = line.line_up(threads, "api", "greedy")
    line.ask("api", "more", session="greedy")
    with pytest.raises(urllib.error.HTTPError, match="503"):
        line.ask("api", "too much", session="greedy")
    line.ask("api", "later", session="later")
    later = threads.submit(line.listen, "later")
    line.now("go_on")
    assert told.result(timeout=20) == [["greedy is trained"], ["more is trained"]]
    assert later.result(timeout=20) == [["later is trained"]]


@pytest.mark.parametrize("line", [{"_MOST_SESSIONS": 5}], indirect=True)
def test_a_crowd_of_sessions_drives_nobody_out(line, threads):
    """More sessions than are remembered come and go: one that trains and one that waits are told how they ended."""
    told = line.line_up(threads, "api", "trains", "waits")
    for _ in range(20):
        assert line.now("state")[0]["sessions"] <= 5
    line.now("go_on")
    assert [one.result(timeout=20) for one in told] == [[["trains is trained"]], [["waits is trained"]]]


def test_who_leaves_the_line_is_told(line, threads):
    """Of a session's requests those of the page leave, and nothing of them is trained; those of others stay."""
    _, leaves, stays = line.line_up(threads, "page", "trains", "leaves", "stays")
    line.ask("api", "of the API", session="leaves")
    line.ask("leave", session="leaves")
    line.wait_until("waiting", lambda waiting: waiting == ["stays", "leaves"])
    line.now("go_on")
    answers = leaves.result(timeout=20)
    assert [{"value": "left page", "__type__": "update"}] in answers
    assert ["of the API is trained"] in answers
    assert stays.result(timeout=20) == [["stays is trained"]]
    assert line.now("state")[0]["begun"] == ["trains", "stays", "of the API"]


@pytest.mark.parametrize("line", [{"_SECONDS_TO_LISTEN": 2}], indirect=True)
def test_a_full_line_makes_room(line, threads):
    """By letting go of those who do not listen, though somebody who does stands before them."""
    told = line.line_up(threads, "api", "trains", "waits")
    for session in ("nobody", "nobody else"):
        line.ask("api", session, session=session)
    time.sleep(2.5)  # more than is given to listen
    line.ask("api", "comes", session="comes")
    told.append(threads.submit(line.listen, "comes"))
    assert line.now("state")[0]["waiting"] == ["waits", "comes"]
    line.now("go_on")
    assert [one.result(timeout=20) for one in told] == [[[f"{who} is trained"]] for who in ("trains", "waits", "comes")]


def test_a_full_line_refuses(line):
    """Three may wait behind the one that is trained."""
    for number in range(4):
        line.ask("api", str(number), session=str(number))
        line.wait_until("begun", lambda begun: begun)
    with pytest.raises(urllib.error.HTTPError) as refused:
        line.ask("api", "one more", session="one more")
    refused.value.close()
    assert refused.value.code == 503
