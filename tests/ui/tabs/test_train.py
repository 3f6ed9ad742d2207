"""The handlers of the Train tab, without a browser: starting, resuming, deleting and listing runs."""

import asyncio
import json
import threading

import gradio as gr
import pytest
from labs import live_view

from trainer.errors import BROKEN, UserError
from trainer.jobs.pace import Pace
from trainer.learning.checkpoint import SpentScheduleError
from trainer.runs import run_folder
from trainer.runs.reader import read_checkpoint, read_run
from trainer.settings.config import SETTINGS, TrainConfig
from trainer.settings.lessons import LESSONS
from trainer.settings.presets import FIRST
from ui import api
from ui.limits import Limits
from ui.parts.form.fields import value_of
from ui.parts.run import run_list
from ui.parts.shared import Displayed
from ui.tabs import compare
from ui.tabs.train import own_runs, training
from ui.tabs.train.buttons import refusal, refuse_beside
from ui.tabs.train.setup import lr_finder, settings
from ui.tabs.train.setup import race as race_panel
from ui.visitors import new_visitor

NAMES = tuple(SETTINGS)
SMALL = {"batch_size": 8, "epochs": 1, "scheduler": "constant"}
LIVE = live_view()


def page_settings(**changed):
    """The values of the page's widgets by name: the defaults of the chosen rows, except those in `changed`."""
    rows = {"optimizer": "sgd", "scheduler": "constant", **changed}
    config = TrainConfig(optimizer=rows["optimizer"], scheduler=rows["scheduler"])
    return {name: value_of(name, config) for name in NAMES} | rows


def ended(lab):
    """Waits until all jobs have ended."""
    for job in lab.jobs.active():
        assert job.ended.wait(60)


def contenders(*settings):
    return [json.dumps({**TrainConfig.from_settings({**SMALL, **own}).settings()}) for own in settings]


def trained(lab, visitor, *settings):
    """Trains a race to its end; returns the folders of its runs."""
    training.train(lab, visitor=visitor, configs=training.side_by_side, contenders=contenders(*settings), num_seeds=1)
    ended(lab)
    (folders,) = lab.runs.races_of(visitor).values()
    return folders


def resumed(lab, visitor, folders, epochs, uses_settings, **changed):
    """Resumes a race to its end."""
    training.resume(
        lab,
        visitor=visitor,
        race=folders[0].name,
        total_epochs=epochs,
        uses_settings=uses_settings,
        **page_settings(**changed),
    )
    ended(lab)


@pytest.mark.slow
def test_a_resumed_race_takes_only_the_scheduler_of_the_page(lab):
    """Each contender keeps its own optimizer and lr."""
    visitor = new_visitor()
    folders = trained(lab, visitor, {"lr": 0.01}, {"optimizer": "adam"})
    resumed(lab, visitor, folders, 2, True, optimizer="rmsprop", lr=0.5, scheduler="step", step_size=1)
    first, second = (read_checkpoint(folder).config for folder in folders)
    assert (first.optimizer, first.lr, second.optimizer) == ("sgd", 0.01, "adam")
    assert (first.scheduler, second.scheduler, first.epochs) == ("step", "step", 2)
    assert [read_run(folder).epoch for folder in folders] == [2, 2]


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
    with pytest.raises(UserError, match="trained all its epochs"):
        resumed(lab, visitor, folders, 1, False)
    resumed(lab, visitor, folders, 2, False)
    assert read_run(folders[0]).epoch == 2


def test_a_deleted_run_is_removed_from_the_comparison(lab):
    """The other runs stay, including published ones."""
    visitor = new_visitor()
    (first,) = trained(lab, visitor, {"lr": 0.01})
    training.train(lab, visitor=visitor, **page_settings(**SMALL))
    ended(lab)
    other = next(key for key in lab.runs.races_of(visitor) if key != first.name)
    displayed = Displayed(race=first.name)
    updates = own_runs.delete(
        lab, LIVE, visitor=visitor, displayed=displayed, race=first.name, compared=[first.name, other, "owner/name"]
    )
    assert updates[LIVE.lists.compared]["value"] == [other, "owner/name"]
    assert updates[LIVE.lists.races]["value"] == other
    assert displayed.race is None
    assert list(lab.runs.races_of(visitor)) == [other]


def test_a_run_is_deleted_while_another_trains_its_first_epoch(lab, monkeypatch):
    """The lists lose it at once, though the new run is not listed yet."""
    visitor = new_visitor()
    (first,) = trained(lab, visitor, {"lr": 0.01})
    go_on = threading.Event()
    run = lab.run

    def wait(work, stopping):
        assert go_on.wait(60)
        yield from run(work, stopping)

    monkeypatch.setattr(lab, "run", wait)
    training.train(lab, visitor=visitor, **page_settings(**SMALL))
    updates = own_runs.delete(
        lab, LIVE, visitor=visitor, displayed=Displayed(race=first.name), race=first.name, compared=[first.name]
    )
    go_on.set()
    ended(lab)
    assert updates[LIVE.lists.compared]["value"] == updates[LIVE.lists.races]["choices"] == []


def test_a_chosen_run_is_displayed(lab):
    """Until another one is chosen; a stranger's is refused."""
    visitor, displayed = new_visitor(), Displayed()
    (folder,) = trained(lab, visitor, {"lr": 0.01})
    training.train(lab, visitor=visitor, **page_settings(**SMALL, lr=0.5))
    ended(lab)
    updates = own_runs.show(lab, LIVE, visitor=visitor, displayed=displayed, race=folder.name)
    assert displayed.race == folder.name
    assert "epoch 1 of 1" in updates[LIVE.view.status]
    with pytest.raises(gr.Error, match="no such run"):
        own_runs.show(lab, LIVE, visitor=new_visitor(), displayed=displayed, race=folder.name)


def test_a_refusal_stands_beside_its_button():
    """In words; any error but a UserError is logged and gets a general sentence. Success empties the place."""
    place = refusal("refused")

    def refusing(error=None):
        if error:
            raise error
        return {LIVE.buttons.train: "started"}

    handler = refuse_beside(place, refusing)
    assert "num_images is too large" in handler(error=UserError("num_images is too large."))[place]["value"]
    broken = handler(error=KeyError("secret"))[place]["value"]
    assert str(BROKEN) in broken
    assert "secret" not in broken
    assert handler() == {place: gr.update(visible=False), LIVE.buttons.train: "started"}


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
    with pytest.raises(UserError, match="would become the same"):
        resumed(lab, visitor, folders, 2, True, scheduler="cosine")
    assert [read_checkpoint(folder).config.scheduler for folder in folders] == ["constant", "step"]


def test_the_size_of_a_training_is_known_before_it():
    """The weights of its network, its batches, and its duration, of CIFAR-10 as long as no pictures are loaded."""
    changed = FIRST.changed({"epochs": 2, "num_images": 1280, "batch_size": 128})
    paces = {changed.optimizer: Pace(batch_seconds=0.5, test_seconds=0.0)}
    assert "145,578 parameters · 20 batches · about 20 s<" in settings._draw(None, changed, paces, "en")[1]


def test_settings_that_cannot_be_trained_give_no_script(lab):
    """The error for too many pictures is that of Train; valid settings give a script."""
    with pytest.raises(gr.Error, match="num_images must not be above the 40"):
        settings.write_code(lab, visitor=None, **page_settings(num_images=41))
    assert "torch.optim.Adam(" in settings.write_code(
        lab, visitor=None, **page_settings(optimizer="adam", batch_size=8)
    )


def test_a_run_whose_schedule_is_spent_continues_with_a_small_constant_lr(lab):
    """A tenth of its own; resumed as it is, it is refused with an error of its own kind."""
    visitor = new_visitor()
    (folder,) = trained(lab, visitor, {"scheduler": "cosine", "lr": 0.1})
    with pytest.raises(SpentScheduleError):
        resumed(lab, visitor, [folder], 2, False)
    training.resume(lab, visitor=visitor, race=folder.name, total_epochs=2, has_constant_lr=True)
    ended(lab)
    kept = read_checkpoint(folder).config
    assert (kept.scheduler, kept.lr, kept.epochs) == ("constant", pytest.approx(0.01), 2)


def test_a_visitor_is_checked_before_a_job_starts(lab, tmp_path):
    """In a handcrafted request, whatever it starts."""
    for visitor in (None, "", [], "x" * 32, 3):
        for start in (
            lambda visitor: training.train(lab, visitor=visitor, **page_settings(**SMALL)),
            lambda visitor: training.resume(lab, visitor=visitor, race="0" * 32, total_epochs=2),
            lambda visitor: lr_finder.find_lr(lab, visitor=visitor, **page_settings(**SMALL)),
        ):
            with pytest.raises(UserError, match="reload"):
                start(visitor)
    assert lab.jobs.active() == []
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def endpoints(lab, monkeypatch):
    """The handlers of the public endpoints by name."""
    added = {}
    monkeypatch.setattr("ui.api.api", lambda handler, *, api_name, **_: added.update({api_name: handler}))
    api.add_endpoints(lab)
    return added


def test_a_training_of_the_api_that_never_started_leaves_no_folder(lab, endpoints, tmp_path):
    """The client gets the sentence."""

    def refused(work, stopping):
        raise UserError("There is no memory for it.")
        yield

    lab._run = refused

    async def train():
        return [row async for row in endpoints["train"](TrainConfig.from_settings(SMALL).settings())]

    with pytest.raises(gr.Error, match="no memory"):
        asyncio.run(train())
    lab.limits = Limits(epochs=0.5)
    with pytest.raises(gr.Error, match="epochs"):
        asyncio.run(train())
    assert list(tmp_path.iterdir()) == []


def test_a_client_of_the_api_that_leaves_stops_its_run(lab, endpoints, tmp_path):
    """It keeps its saved checkpoint; no one owns it."""

    async def leave():
        rows = endpoints["train"](TrainConfig.from_settings({**SMALL, "epochs": 1000}).settings())
        async for row in rows:
            if row["event"] == "checkpoint":
                break
        await rows.aclose()

    asyncio.run(leave())
    ended(lab)
    (folder,) = tmp_path.iterdir()
    assert run_folder.is_run(folder)
    assert not (folder / ".owner").exists()
    assert read_run(folder).status == "stopped"


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
        assert title.endswith(f"1 of 1 epochs: {last:.1%} · {apart}")


def test_a_race_gets_the_name_that_its_visitor_gives_it(lab):
    """It begins the titles of its runs and is in all their files; strangers and invalid names are refused."""
    visitor, displayed = new_visitor(), Displayed()
    folders = trained(lab, visitor, {"lr": 0.01}, {"lr": 0.1})
    race = {"visitor": visitor, "displayed": displayed, "race": folders[0].name}
    updates = own_runs.rename(lab, LIVE, **race, name="  two <i>rates</i> ")
    assert {read_run(folder).name for folder in folders} == {"two <i>rates</i>"}
    assert own_runs.name_of(lab, visitor, folders[0].name) == "two <i>rates</i>"
    assert updates[LIVE.lists.races]["choices"][0][0].startswith("two <i>rates</i> · race: lr 0.01 / lr 0.1")
    assert all(title.startswith("two <i>rates</i> · sgd") for title, _ in run_list.single_runs(lab, visitor))
    assert own_runs.rename(lab, LIVE, **race, name="two <i>rates</i>") == {}
    assert own_runs.name_of(lab, new_visitor(), folders[0].name) == ""
    for wrong in ({"visitor": new_visitor()}, {"name": "x" * 5000}, {"name": ["a"]}, {"race": "0" * 32}):
        with pytest.raises(UserError):
            own_runs.rename(lab, LIVE, **{**race, "name": "other", **wrong})
    assert {read_run(folder).name for folder in folders} == {"two <i>rates</i>"}


def test_settings_without_the_lessons_mistake_have_no_fixed_version():
    """Both settings would be the same; the error says what to do."""
    name = "softmax-plateau"
    mistaken = LESSONS[name].config.settings()
    assert len(training.with_comparisons(lesson=name, **mistaken)) == 2
    with pytest.raises(ValueError, match="choose the lesson again"):
        training.with_comparisons(lesson=name, **{**mistaken, "softmax": False})


@pytest.mark.parametrize("contenders", [3, [3], [None], ["["], ["[" * 100_000], ["1" * 5000], ["{}", "x"]])
def test_a_damaged_list_of_contenders_is_explained(contenders):
    """Whatever a handcrafted request contains instead of settings as JSON."""
    with pytest.raises(UserError, match="The race's list is damaged"):
        race_panel.read_contenders(contenders)
