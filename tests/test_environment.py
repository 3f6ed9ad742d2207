"""Variables that libraries read as whole numbers: any other text is one sentence, in place of a traceback."""

import getpass
import os
import subprocess
import sys
from pathlib import Path

import pytest

from trainer.environment import check_numbers, name_user
from trainer.errors import UserError
from ui.server.starting import NUMBERS

REPOSITORY = Path(__file__).parents[1]


@pytest.mark.parametrize("text", ["abc", "", "-1", "1.5", "65536", "9" * 5000, "٣", " 1", "1_0", "\n", "1\n"])
def test_what_is_no_such_number_is_refused(text, monkeypatch):
    """The sentence quotes its beginning."""
    monkeypatch.setenv("GRADIO_SERVER_PORT", text)
    with pytest.raises(UserError, match="GRADIO_SERVER_PORT must be a whole number from 0 to 65535, not ") as raised:
        check_numbers({"GRADIO_SERVER_PORT": 65535})
    assert len(str(raised.value)) < 120


def test_numbers_are_accepted(monkeypatch):
    """Also a variable that is not set."""
    for text in ("0", "7860", "65535"):
        monkeypatch.setenv("GRADIO_SERVER_PORT", text)
        check_numbers({"GRADIO_SERVER_PORT": 65535, "GRADIO_NUM_PORTS": 1})
    monkeypatch.setenv("GRADIO_ANALYTICS_CACHE_FREQUENCY", "1000000000")  # as the app itself sets it
    check_numbers(NUMBERS)


@pytest.mark.parametrize(
    ("program", "variable", "sentence"),
    [
        (["app.py", "--data", "x"], "OPTIMIZER_LAB_ANY", "app.py takes no arguments"),
        (["app.py"], "GRADIO_SERVER_PORT", "GRADIO_SERVER_PORT must be a whole number from 0 to 65535, not 'a:b'"),
        (["app.py"], "WEB_CONCURRENCY", "WEB_CONCURRENCY must be a whole number from 0 to 1000, not 'a:b'"),
        (["app.py"], "ALL_PROXY", "The proxy in HTTP_PROXY, HTTPS_PROXY or ALL_PROXY cannot be used"),
        (["-m", "trainer", "lessons"], "HF_HUB_DOWNLOAD_TIMEOUT", "HF_HUB_DOWNLOAD_TIMEOUT must be a whole number"),
    ],
)
def test_the_programs_end_before_they_load_anything(program, variable, sentence):
    environment = {**os.environ, variable: "a:b"}
    ended = subprocess.run([sys.executable, *program], cwd=REPOSITORY, env=environment, capture_output=True, text=True)
    assert ended.returncode == 2
    assert ended.stderr.startswith(f"error: {sentence}")
    assert ended.stderr.count("\n") == 1


def test_a_user_that_the_system_does_not_know_has_a_name_and_a_home(monkeypatch):
    """As in a container that runs as a number; torch asks for the name of the user when an optimizer is built."""
    pwd = pytest.importorskip("pwd", reason="Windows has none")

    def unknown(number):
        raise KeyError(f"getpwuid(): uid not found: {number}")

    monkeypatch.setattr(pwd, "getpwuid", unknown)
    for name in ("LOGNAME", "USER", "LNAME", "USERNAME", "HOME"):
        monkeypatch.setenv(name, "")  # restored at the end, also if `name_user` sets it
        monkeypatch.delenv(name)
    with pytest.raises((KeyError, OSError)):
        getpass.getuser()
    name_user()
    assert getpass.getuser() == "user"
    assert Path.home() == Path("/")


def test_a_known_user_keeps_name_and_home(monkeypatch):
    monkeypatch.setenv("USER", "someone")
    monkeypatch.setenv("HOME", "/some/where")
    name_user()
    assert (os.environ["USER"], os.environ["HOME"]) == ("someone", "/some/where")
