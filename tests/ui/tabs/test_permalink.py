"""Permalinks: reading returns what was written, and an error explains an invalid link."""

import time
from urllib.parse import parse_qsl

import pytest
from cases import ROWS

from trainer.settings.config import TrainConfig
from trainer.settings.lessons import LESSONS, zero_grad_lab
from trainer.settings.presets import FIRST
from ui.tabs.train.setup import permalink


def opened(query):
    return permalink.read(dict(parse_qsl(query)))


@pytest.mark.parametrize(("optimizer", "scheduler"), ROWS)
def test_every_setting_comes_back(optimizer, scheduler):
    """In the page's settings and in a race, with the settings of each optimizer and scheduler."""
    config = TrainConfig(optimizer=optimizer, scheduler=scheduler, lr=0.1 + 0.2, flip=False, shift=0, seed=7)
    query = permalink.write(config, [config, TrainConfig()], 3)
    assert opened(query) == permalink.Link(config=config, race=(config, TrainConfig()), num_seeds=3)


@pytest.mark.parametrize("lesson", LESSONS.values(), ids=LESSONS)
def test_every_lesson_comes_back(lesson):
    """Together with the race against its comparison runs."""
    race = [lesson.config, *lesson.compared]
    assert opened(permalink.write(lesson.config, race)).race == tuple(race)


def test_a_link_of_an_earlier_version():
    """Its `augment` stands for flip and shift."""
    link = opened("optimizer=adam&augment=false&race=augment%3Dtrue")
    assert link.config == TrainConfig(optimizer="adam", flip=False, shift=0)
    assert link.race == (TrainConfig(),)


def test_lists_come_back():
    """Here betas and milestones, exactly."""
    config = TrainConfig(optimizer="adam", betas=(1 / 3, 0.999), scheduler="multistep", milestones=(2, 4, 8))
    assert opened(permalink.write(config)).config == config


def test_a_link_can_name_a_lesson():
    """Its settings are those of the lesson but for those in the link."""
    lesson = LESSONS["softmax-plateau"].config
    assert opened("lesson=softmax-plateau").config == lesson
    assert opened("lesson=softmax-plateau&epochs=3").config == lesson.changed({"epochs": 3})


def test_a_link_contains_only_what_differs_from_the_defaults():
    """The first settings of the page need no query; a race of several settings is short enough for any browser."""
    assert permalink.write(FIRST) == ""
    assert opened(permalink.write(FIRST, [TrainConfig(lr=0.1)])).config == FIRST
    assert opened(permalink.write(TrainConfig())).config == TrainConfig()
    assert opened("") is None
    assert opened("lang=zh&__theme=dark&utm_source=class") is None
    assert permalink.write(TrainConfig(optimizer="adam", lr=0.01)) == "optimizer=adam&lr=0.01"
    assert len(permalink.write(LESSONS["adam-step-per-batch"].config, zero_grad_lab(TrainConfig(), 4), 5)) < 2000


@pytest.mark.parametrize(
    "query",
    [
        "optimizer=none",
        "lr=fast",
        "lr=nan",
        "momentun=0.9",
        "optimizer=adam&momentum=0.9",
        "race=lr%3D1;lr%3D2;lr%3D3;lr%3D4;lr%3D5;lr%3D6;lr%3D7",
        "race=nonsense%3D1",
        "race=lr%3D1&seeds=99999999999999999999",
        "seeds=0",
        "lesson=softmax",
        "lesson=how-forgiving",
        "seeds=0059",
        "seeds=²",
        "epochs=1e400",
        "__class__=1&config=<script>",
        "lr=" + "9" * 9000,
    ],
)
def test_a_wrong_link_is_explained(query):
    """The error is one sentence, without a delay even for a very long link."""
    start = time.monotonic()
    with pytest.raises(ValueError, match=r"^This link does not work.*[.?]$"):
        opened(query)
    assert time.monotonic() - start < 0.5


def test_the_link_of_a_space_is_its_page_on_the_hub(monkeypatch):
    """Elsewhere it is the app's own address."""
    monkeypatch.delenv("SPACE_ID", raising=False)
    assert "location.origin" in permalink.copy_script()
    monkeypatch.setenv("SPACE_ID", "owner/name")
    assert "'https://huggingface.co/spaces/owner/name'" in permalink.copy_script()


def test_the_tab_and_the_run_of_an_address_are_no_settings():
    """A link with them has the settings of one without."""
    assert opened("tab=compare&run=" + "0" * 32) is None
    assert opened("tab=compare&lr=0.01&run=x") == opened("lr=0.01")
