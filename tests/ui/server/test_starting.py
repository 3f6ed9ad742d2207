"""The words of the terminal while the app starts."""

import time

from ui.server import starting


def test_the_terminal_is_never_silent_for_long(capsys, monkeypatch):
    """There is a line at once, and others until the app has started."""
    monkeypatch.setattr(starting, "_SECONDS_BETWEEN_WORDS", 0.05)
    starting.say_starting()
    assert capsys.readouterr().err == "Optimizer Lab is starting …\n"
    said, deadline = "", time.monotonic() + 10
    while said.count("\n") < 3 and time.monotonic() < deadline:
        time.sleep(0.02)
        said += capsys.readouterr().err
    starting.end_starting()
    assert said == "Optimizer Lab is starting …\n" * said.count("\n")
    assert said.count("\n") >= 3
    capsys.readouterr()
    time.sleep(0.2)
    assert capsys.readouterr().err == ""
