"""The page's trainings without a browser: a race goes on, each of its settings as itself."""

import json
import re
import time

import gradio as gr
import pytest
import torch

from trainer.learning.lr_finder import find_lr
from trainer.learning.race import race
from trainer.runs import run_folder
from trainer.runs.reader import read_checkpoint, read_run
from trainer.settings.config import SETTINGS, TrainConfig
from trainer.settings.lessons import LESSONS
from ui import api
from ui.lab import Lab, new_visitor
from ui.parts import messages, run_list, run_view
from ui.parts.fields import default
from ui.tabs import compare
from ui.tabs.train import own_runs, settings, training

NAMES = tuple(SETTINGS)
SMALL = {"batch_size": 8, "epochs": 1, "scheduler": "constant"}
VIEW, LISTS = run_view.build(), run_list.build()


@pytest.fixture
def lab(tmp_path, tiny, monkeypatch):
    """A lab on a few pictures, there at once."""
    monkeypatch.setattr("ui.lab.load_images", lambda progress: tiny)
    made = Lab(checkpoints=tmp_path, device=torch.device("cpu"), race=race, find_lr=find_lr)
    while made.images is None:
        time.sleep(0.01)
    return made


def page_settings(**changed):
    """The values of the page's widgets by name: the defaults of the rows, but for `changed`."""
    rows = {"optimizer": "sgd", "scheduler": "constant", **changed}
    return {name: default(name, rows["optimizer"], rows["scheduler"]) for name in NAMES} | rows


def explained(handler):
    """A handler as the page has it, which explains errors in the status."""
    return messages.end_in_status(handler, VIEW.status, title="Not trained", broken=training.BROKEN)


def started(lab, visitor, **values):
    """The updates of the page while it trains."""
    return explained(training.train)(lab, VIEW, LISTS, visitor=visitor, requested_at=time.monotonic(), **values)


def trained(lab, visitor, *settings):
    """The folders of a race that has ended."""
    listed = [json.dumps({**TrainConfig.from_settings({**SMALL, **own}).settings()}) for own in settings]
    list(started(lab, visitor, configs=training.side_by_side, contenders=listed, num_seeds=1))
    (folders,) = lab.races_of(visitor).values()
    return folders


def resumed(lab, visitor, folders, epochs, uses_settings, **changed):
    """The last status of a race that was resumed, without its tags."""
    *_, last = explained(training.resume)(
        lab,
        VIEW,
        LISTS,
        visitor=visitor,
        requested_at=time.monotonic(),
        race=folders[0].name,
        total_epochs=epochs,
        uses_settings=uses_settings,
        **page_settings(**changed),
    )
    return re.sub("<[^>]*>", " ", last[VIEW.status])


def test_a_resumed_race_takes_the_schedule_shown_and_keeps_the_rest(lab):
    """Each contender's own optimizer and lr go on; only the schedule is the one chosen."""
    visitor = new_visitor()
    folders = trained(lab, visitor, {"lr": 0.01}, {"optimizer": "adam"})
    assert "Done" in resumed(lab, visitor, folders, 2, True, optimizer="rmsprop", lr=0.5, scheduler="step", step_size=1)
    first, second = (read_checkpoint(folder).config for folder in folders)
    assert (first.optimizer, first.lr, second.optimizer) == ("sgd", 0.01, "adam")
    assert (first.scheduler, second.scheduler, first.epochs) == ("step", "step", 2)


def test_resume_offers_the_epochs_that_are_left_or_ten_more(lab):
    """And says nothing of what is not the visitor's."""
    visitor = new_visitor()
    folders = trained(lab, visitor, {"lr": 0.01}, {"lr": 0.1})
    assert own_runs.resumable_epochs(lab, visitor, folders[0].name) == 11
    content = json.loads((folders[1] / "training.json").read_text())
    content["config"]["epochs"] = 7
    (folders[1] / "training.json").write_text(json.dumps(content))
    assert own_runs.resumable_epochs(lab, visitor, folders[0].name) == 7
    assert own_runs.resumable_epochs(lab, new_visitor(), folders[0].name) == gr.skip()


def test_what_was_typed_or_diverged(lab):
    """A total that is more stays; a run that diverged has no epochs left to offer, nor to go on with."""
    visitor = new_visitor()
    folders = trained(lab, visitor, {"lr": 0.01}, {"lr": 1e6})
    key = folders[0].name
    assert [read_run(folder).status for folder in folders] == ["completed", "diverged"]
    assert own_runs.resumable_epochs(lab, visitor, key, 50) == gr.skip()
    assert own_runs.resumable_epochs(lab, visitor, key, 1) == own_runs.resumable_epochs(lab, visitor, key) == 11
    assert "trained all its epochs" in resumed(lab, visitor, folders, 1, False)
    assert "epoch 2 of 2" in resumed(lab, visitor, folders, 2, False)


def test_a_deleted_run_is_compared_no_more(lab):
    """The others still are, those on the Hub too."""
    visitor = new_visitor()
    (first,) = trained(lab, visitor, {"lr": 0.01})
    list(started(lab, visitor, **page_settings(**SMALL)))
    other = next(key for key in lab.races_of(visitor) if key != first.name)
    updates = own_runs.delete(
        lab, VIEW, LISTS, visitor=visitor, race=first.name, compared=[first.name, other, "owner/name"]
    )
    assert updates[LISTS.compared]["value"] == [other, "owner/name"]


def test_what_trained_when_a_page_was_opened_is_shown_to_its_end(lab):
    """Even where it ends before the page begins to follow it."""
    visitor = new_visitor()
    trained(lab, visitor, {"lr": 0.01})
    (updates,) = training.follow(lab, VIEW, LISTS, visitor, True)
    assert "Done" in updates[VIEW.status]
    assert list(training.follow(lab, VIEW, LISTS, visitor, False)) == [gr.skip()]


def test_a_run_alone_takes_the_optimizer_too(lab):
    """As the page says beside the box."""
    visitor = new_visitor()
    folders = trained(lab, visitor, {"lr": 0.01})
    resumed(lab, visitor, folders, 2, True, optimizer="rmsprop", lr=0.001)
    kept = read_checkpoint(folders[0]).config
    assert (kept.optimizer, kept.lr) == ("rmsprop", 0.001)


def test_a_race_of_schedules_is_not_made_one_setting(lab):
    """With one schedule for all there would be nothing to compare: a sentence, and the race stays as it was."""
    visitor = new_visitor()
    folders = trained(lab, visitor, {}, {"scheduler": "step"})
    assert "would become the same" in resumed(lab, visitor, folders, 2, True, scheduler="cosine")
    assert [read_checkpoint(folder).config.scheduler for folder in folders] == ["constant", "step"]


def test_settings_that_cannot_be_trained_give_no_script(lab):
    """More pictures than there are: the sentence that Train would say, and for the rest a script."""
    with pytest.raises(gr.Error, match="num_images must not be above the 26"):
        settings.write_code(lab, **page_settings(num_images=27))
    assert "torch.optim.Adam(" in settings.write_code(lab, **page_settings(optimizer="adam", batch_size=8))


def test_a_training_that_never_began_leaves_no_folder(lab, tmp_path, monkeypatch):
    """By the page and by the API, refused or cancelled; what the disk has taken, stays."""
    endpoints = {}
    monkeypatch.setattr("ui.api.api", lambda does, *, api_name, **_: endpoints.update({api_name: does}))
    api.add_endpoints(lab)
    by_api = endpoints["train"]
    config = TrainConfig.from_settings(SMALL).settings()

    def by_page():
        return started(lab, new_visitor(), configs=training.side_by_side, contenders=[json.dumps(config)], num_seeds=1)

    def refused(*_):
        raise ValueError("There is no memory for it.")
        yield

    with monkeypatch.context() as patch:
        patch.setattr(lab, "_race", refused)
        with pytest.raises(gr.Error, match="no memory"):
            list(by_api(config))
        assert "no memory" in list(by_page())[-1][VIEW.status]
    assert list(tmp_path.iterdir()) == []
    cancelled = by_page()
    next(cancelled)
    assert len(list(tmp_path.iterdir())) == 1
    cancelled.close()
    assert list(tmp_path.iterdir()) == []
    rows = by_api(config)
    while next(rows)["event"] != "checkpoint":
        pass
    rows.close()
    (folder,) = tmp_path.iterdir()
    assert run_folder.is_run(folder)


def test_a_runs_script_takes_its_settings_alone(lab):
    """Its tensors are not read: of a run in training they may be those of the next epoch."""
    visitor = new_visitor()
    (folder,) = trained(lab, visitor, {})
    (folder / "model.safetensors").write_bytes(b"")
    assert "torch.optim.SGD(" in compare.write_code(lab, visitor, [folder.name])


def test_a_race_goes_on_with_the_tensors_of_those_runs_alone_that_go_on(lab):
    """One that has diverged, or is done, is not read."""
    visitor = new_visitor()
    folders = trained(lab, visitor, {}, {"lr": 1e4})
    (folders[1] / "training.safetensors").write_bytes(b"")
    resumed(lab, visitor, folders, 2, False)
    assert [read_run(folder).epoch for folder in folders] == [2, 0]


def test_the_runs_of_a_race_are_told_apart_wherever_they_are_listed(lab):
    """By what sets each apart, and by the accuracy of the network that one gets: its last epoch's."""
    visitor = new_visitor()
    folders = trained(lab, visitor, {"lr": 0.01}, {"lr": 0.1})
    listed = run_list.single_runs(lab, visitor)
    assert [key for _, key in listed] == [folder.name for folder in folders]
    for (title, _), folder, apart in zip(listed, folders, ("lr 0.01", "lr 0.1"), strict=True):
        last = read_run(folder).history[-1].test_accuracy
        assert f"1 of 1 epochs: {last:.1%} · {apart} · {folder.name[:4]}" in title


def test_a_fixed_lesson_has_no_fixed_version():
    """It says what to do, where two settings would be the same."""
    name = "softmax-plateau"
    mistaken = LESSONS[name].config.settings()
    assert len(training.with_fixed(lesson=name, **mistaken)) == 2
    with pytest.raises(ValueError, match="choose the lesson again"):
        training.with_fixed(lesson=name, **{**mistaken, "softmax": False})
