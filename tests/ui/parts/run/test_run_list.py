"""The lists of a visitor's runs."""

import pytest

from tests.labs import make_lab
from trainer.runs import run_folder
from ui.parts.run import run_list
from ui.visitors import new_visitor


@pytest.fixture
def lab(tmp_path, tiny, monkeypatch):
    """A lab whose images have loaded."""
    monkeypatch.setattr("ui.lab.load_images", lambda progress: tiny)
    return make_lab(tmp_path)


def test_an_old_race_is_listed_while_it_is_chosen(lab, monkeypatch):
    """Otherwise the page would show one race and delete another, which the list names."""
    monkeypatch.setattr(run_list, "_MOST_LISTED", 1)
    monkeypatch.setattr(run_folder, "is_run", lambda folder: True)
    visitor, lists = new_visitor(), run_list.build()
    keys = {lab.runs.new_race(visitor, 1)[0].name for _ in range(2)}
    (latest,) = [key for _, key in lists.offer(lab, visitor, None)[lists.races]["choices"]]
    (older,) = keys - {latest}
    races = lists.offer(lab, visitor, older)[lists.races]
    assert races["value"] == older
    assert [key for _, key in races["choices"]] == [latest, older]
