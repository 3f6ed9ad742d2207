"""The handlers of the Train tab, without a browser: training, resuming, deleting and listing runs."""

import json
import re
import time

import gradio as gr
import pytest
import torch

from trainer.errors import UserError
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
from ui.tabs.train import race as race_panel

NAMES = tuple(SETTINGS)
SMALL = {"batch_size": 8, "epochs": 1, "scheduler": "constant"}
VIEW, LISTS = run_view.build(), run_list.build()


@pytest.fixture
def lab(tmp_path, tiny, monkeypatch):
    """A lab whose images, a few small pictures, have loaded."""
    monkeypatch.setattr("ui.lab.load_images", lambda progress: tiny)
    made = Lab(checkpoints=tmp_path, device=torch.device("cpu"), race=race, find_lr=find_lr)
    while made.images is None:
        time.sleep(0.01)
    return made


def page_settings(**changed):
    """The values of the page's widgets by name: the defaults of the chosen rows, except those in `changed`."""
    rows = {"optimizer": "sgd", "scheduler": "constant", **changed}
    return {name: default(name, rows["optimizer"], rows["scheduler"]) for name in NAMES} | rows


def with_status(handler):
    """A handler wrapped as on the page, where the status explains errors."""
    return messages.end_in_status(handler, VIEW.status, title="Not trained", broken=training.BROKEN)


def started(lab, visitor, **values):
    """Iterates over the updates of the page while it trains."""
    return with_status(training.train)(lab, VIEW, LISTS, visitor=visitor, requested_at=time.monotonic(), **values)


def trained(lab, visitor, *settings):
    """Trains a race to its end; returns the folders of its runs."""
    listed = [json.dumps({**TrainConfig.from_settings({**SMALL, **own}).settings()}) for own in settings]
    list(started(lab, visitor, configs=training.side_by_side, contenders=listed, num_seeds=1))
    (folders,) = lab.races_of(visitor).values()
    return folders


def resumed(lab, visitor, folders, epochs, uses_settings, **changed):
    """Resumes a race; returns its last status as text without tags."""
    *_, last = with_status(training.resume)(
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


@pytest.mark.slow
def test_a_resumed_race_takes_only_the_scheduler_of_the_page(lab):
    """Each contender keeps its own optimizer and lr."""
    visitor = new_visitor()
    folders = trained(lab, visitor, {"lr": 0.01}, {"optimizer": "adam"})
    assert "Done" in resumed(lab, visitor, folders, 2, True, optimizer="rmsprop", lr=0.5, scheduler="step", step_size=1)
    first, second = (read_checkpoint(folder).config for folder in folders)
    assert (first.optimizer, first.lr, second.optimizer) == ("sgd", 0.01, "adam")
    assert (first.scheduler, second.scheduler, first.epochs) == ("step", "step", 2)


def test_resume_offers_the_epochs_that_are_left_or_ten_more(lab):
    """Nothing is offered for another visitor's race."""
    visitor = new_visitor()
    folders = trained(lab, visitor, {"lr": 0.01}, {"lr": 0.1})
    assert own_runs.resumable_epochs(lab, visitor, folders[0].name) == 11
    content = json.loads((folders[1] / "training.json").read_text())
    content["config"]["epochs"] = 7
    (folders[1] / "training.json").write_text(json.dumps(content))
    assert own_runs.resumable_epochs(lab, visitor, folders[0].name) == 7
    assert own_runs.resumable_epochs(lab, new_visitor(), folders[0].name) == gr.skip()


def test_a_larger_typed_total_stays_and_a_diverged_run_is_not_resumed(lab):
    """A smaller total is replaced by the offer, which ignores the epochs that a diverged run did not train."""
    visitor = new_visitor()
    folders = trained(lab, visitor, {"lr": 0.01}, {"lr": 1e6})
    key = folders[0].name
    assert [read_run(folder).status for folder in folders] == ["completed", "diverged"]
    assert own_runs.resumable_epochs(lab, visitor, key, 50) == gr.skip()
    assert own_runs.resumable_epochs(lab, visitor, key, 1) == own_runs.resumable_epochs(lab, visitor, key) == 11
    assert "trained all its epochs" in resumed(lab, visitor, folders, 1, False)
    assert "epoch 2 of 2" in resumed(lab, visitor, folders, 2, False)


def test_a_deleted_run_is_removed_from_the_comparison(lab):
    """The other runs stay, including published ones."""
    visitor = new_visitor()
    (first,) = trained(lab, visitor, {"lr": 0.01})
    list(started(lab, visitor, **page_settings(**SMALL)))
    other = next(key for key in lab.races_of(visitor) if key != first.name)
    updates = own_runs.delete(
        lab, VIEW, LISTS, visitor=visitor, race=first.name, compared=[first.name, other, "owner/name"]
    )
    assert updates[LISTS.compared]["value"] == [other, "owner/name"]


def test_a_page_shows_the_end_of_a_run_that_was_training_when_it_was_opened(lab):
    """Even if the run has ended before the page begins to follow it."""
    visitor = new_visitor()
    trained(lab, visitor, {"lr": 0.01})
    (updates,) = training.follow(lab, VIEW, LISTS, visitor, True)
    assert "Done" in updates[VIEW.status]
    assert list(training.follow(lab, VIEW, LISTS, visitor, False)) == [gr.skip()]


def test_a_resumed_single_run_takes_the_optimizer_of_the_page_too(lab):
    """As the help of the checkbox says."""
    visitor = new_visitor()
    folders = trained(lab, visitor, {"lr": 0.01})
    resumed(lab, visitor, folders, 2, True, optimizer="rmsprop", lr=0.001)
    kept = read_checkpoint(folders[0]).config
    assert (kept.optimizer, kept.lr) == ("rmsprop", 0.001)


def test_a_race_of_schedules_cannot_be_resumed_with_one_schedule(lab):
    """Its settings would become the same: an error explains it, and the race stays as it was."""
    visitor = new_visitor()
    folders = trained(lab, visitor, {}, {"scheduler": "step"})
    assert "would become the same" in resumed(lab, visitor, folders, 2, True, scheduler="cosine")
    assert [read_checkpoint(folder).config.scheduler for folder in folders] == ["constant", "step"]


def test_settings_that_cannot_be_trained_give_no_script(lab):
    """The error for too many pictures is that of Train; valid settings give a script."""
    with pytest.raises(gr.Error, match="num_images must not be above the 26"):
        settings.write_code(lab, **page_settings(num_images=27))
    assert "torch.optim.Adam(" in settings.write_code(lab, **page_settings(optimizer="adam", batch_size=8))


def test_a_training_that_never_started_leaves_no_folder(lab, tmp_path, monkeypatch):
    """On the page and in the API, refused or cancelled; a run with a saved checkpoint stays."""
    endpoints = {}
    monkeypatch.setattr("ui.api.api", lambda handler, *, api_name, **_: endpoints.update({api_name: handler}))
    api.add_endpoints(lab)
    by_api = endpoints["train"]
    config = TrainConfig.from_settings(SMALL).settings()

    def by_page():
        return started(lab, new_visitor(), configs=training.side_by_side, contenders=[json.dumps(config)], num_seeds=1)

    def refused(*_):
        raise UserError("There is no memory for it.")
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


def test_the_script_of_a_run_needs_only_its_settings(lab):
    """The tensors are not read: those of a run in training may belong to the next epoch already."""
    visitor = new_visitor()
    (folder,) = trained(lab, visitor, {})
    (folder / "model.safetensors").write_bytes(b"")
    assert "torch.optim.SGD(" in compare.write_code(lab, visitor, [folder.name])


def test_resuming_a_race_reads_only_the_checkpoints_of_unfinished_runs(lab):
    """The checkpoint of a run that has diverged may be damaged."""
    visitor = new_visitor()
    folders = trained(lab, visitor, {}, {"lr": 1e4})
    (folders[1] / "training.safetensors").write_bytes(b"")
    resumed(lab, visitor, folders, 2, False)
    assert [read_run(folder).epoch for folder in folders] == [2, 0]


def test_the_titles_of_a_races_runs_differ(lab):
    """Each has the setting that distinguishes the run, and the accuracy of its checkpoint, the last epoch's."""
    visitor = new_visitor()
    folders = trained(lab, visitor, {"lr": 0.01}, {"lr": 0.1})
    listed = run_list.single_runs(lab, visitor)
    assert [key for _, key in listed] == [folder.name for folder in folders]
    for (title, _), folder, apart in zip(listed, folders, ("lr 0.01", "lr 0.1"), strict=True):
        last = read_run(folder).history[-1].test_accuracy
        assert f"1 of 1 epochs: {last:.1%} · {apart} · {folder.name[:4]}" in title


def test_settings_without_the_lessons_mistake_have_no_fixed_version():
    """Both settings would be the same; the error says what to do."""
    name = "softmax-plateau"
    mistaken = LESSONS[name].config.settings()
    assert len(training.with_fixed(lesson=name, **mistaken)) == 2
    with pytest.raises(ValueError, match="choose the lesson again"):
        training.with_fixed(lesson=name, **{**mistaken, "softmax": False})


@pytest.mark.parametrize("contenders", [3, [3], [None], ["["], ["[" * 100_000], ["1" * 5000], ["{}", "x"]])
def test_a_damaged_list_of_contenders_is_explained(contenders):
    """Whatever a handcrafted request contains instead of settings as JSON."""
    with pytest.raises(UserError, match="The race's list is damaged"):
        race_panel.read_contenders(contenders)
