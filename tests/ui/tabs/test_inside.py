"""The Inside tab's handlers, without a browser: a visitor's runs, a published one, and handcrafted requests."""

import csv
import json
import re
from dataclasses import replace
from pathlib import Path

import anyio
import gradio as gr
import pytest
import torch
from image_sets import noise, png
from labs import bare

from trainer.errors import UserError
from trainer.images.image_data import OWN, facts
from trainer.insight.mistakes import Answering, Answers, to_csv
from trainer.insight.sharpness import RunSharpness, SharpnessMeasured
from trainer.learning.loop import train
from trainer.progress import ignore_progress
from trainer.runs import run_folder
from trainer.runs.layers import LAYERS_FILE
from trainer.runs.recorded import write_race
from trainer.runs.recorder import record
from trainer.runs.run import Run
from trainer.settings.config import TrainConfig
from ui.charts.inside.mistakes import draw, matrix_chart
from ui.jobs.insight import LandscapeJob, SharpnessJob
from ui.parts.run import first_sight
from ui.parts.run.checkpoints import open_kept
from ui.picture_sets import DEFAULT
from ui.tabs.inside import job_view, landscape, layers, sharpness
from ui.tabs.inside.choice import Choice
from ui.tabs.inside.job_view import Controls, JobView, chosen_runs
from ui.tabs.inside.layers import LayersView
from ui.tabs.inside.mistakes import answers as answering
from ui.tabs.inside.mistakes import pictures as shown_pictures
from ui.tabs.inside.mistakes import view as mistakes
from ui.tabs.inside.mistakes.view import MistakesView
from ui.tabs.inside.tab import latest_race, still_chosen
from ui.visitors import new_visitor

VISITOR = new_visitor()
VIEW, MISTAKES, DIFFERENCES = bare(LayersView), bare(MistakesView), gr.Button()
CONFIG = TrainConfig(epochs=1, batch_size=13, scheduler="constant")


def trained_in(lab, data, *configs):
    """Trains a race of VISITOR; returns the keys of its runs."""
    folders = lab.runs.new_race(VISITOR, len(configs))
    for folder, config in zip(folders, configs, strict=True):
        with run_folder.writing(folder):
            list(record(train(config, data), Run(config=config), folder, facts(data)))
    return [folder.name for folder in folders]


def shown(lab, names, *, visitor=VISITOR, view=layers.NAME, layer=None):
    async def call():
        return await layers.show(lab, VIEW, visitor=visitor, names=names, view=view, layer=layer)

    return anyio.run(call)


def test_the_layers_of_a_run_and_of_a_race(lab, tiny):
    """One run has a line for each of its layers; of two, the chosen layer is drawn."""
    first, second = trained_in(lab, tiny, CONFIG, CONFIG.changed({"optimizer": "adam"}))
    updates = shown(lab, [first])
    rows = updates[VIEW.chart]["data"]["layers"]
    assert {row["label"] for row in rows} == {"conv1", "conv2", "conv3", "linear1", "linear2"}
    assert updates[VIEW.body]["visible"]
    assert not updates[VIEW.layer]["visible"]
    assert all(name in updates[VIEW.legend] for name in ("conv1", "linear2"))
    updates = shown(lab, [first, second], layer="conv2")
    assert updates[VIEW.layer]["visible"]
    assert updates[VIEW.layer]["value"] == "conv2"
    assert "adam" in updates[VIEW.legend]
    assert shown(lab, [first, second], layer="no such layer")[VIEW.layer]["value"] == "conv1"


@pytest.mark.quick
def test_a_published_run(lab, hub_with_run):
    """Its layers come with it; without layers.json a sentence says so."""
    rows = shown(lab, ["owner/run"])[VIEW.chart]["data"]["layers"]
    assert len(rows) == 2 * 5
    repo = hub_with_run.repos["owner/run"]
    repo.add({name: content for name, content in repo.files.items() if name != LAYERS_FILE}, "without layers")
    assert "layers.json is missing in owner/run" in shown(lab, ["owner/run"])[VIEW.says]


@pytest.mark.parametrize(
    ("names", "sentence"),
    [
        (None, "Choose a run"),
        ([3], "Choose a run"),
        (["quick"], "as weights only"),
        (["0" * 32], "You have no such run"),
        (["a"] * 13, "up to 12 runs"),
        (["owner/@"], "not"),
    ],
)
def test_what_cannot_be_shown_is_explained(names, sentence, lab):
    """In place of the chart."""
    updates = shown(lab, names)
    assert sentence in updates[VIEW.says]
    assert not updates[VIEW.body]["visible"]


def test_the_tab_follows_the_latest_race_until_the_visitor_chooses(lab, tiny):
    """Of the chosen runs, deleted ones are left out; published and bundled ones stay."""
    (first,) = offered = trained_in(lab, tiny, CONFIG)
    assert latest_race(lab, VISITOR) == offered
    assert still_chosen(lab, VISITOR, [], []) == still_chosen(lab, VISITOR, offered, offered) == []
    second = trained_in(lab, tiny, CONFIG, replace(CONFIG, lr=0.5))
    assert latest_race(lab, VISITOR) == second
    assert still_chosen(lab, VISITOR, [first, "owner/name", "quick"], offered) == [first, "owner/name", "quick"]
    run_folder.delete(lab.runs.own_run(VISITOR, first))
    assert still_chosen(lab, VISITOR, [first, "owner/name", "quick"], offered) == ["owner/name", "quick"]


def test_without_a_run_the_recorded_race_is_shown(lab, tiny, tmp_path, monkeypatch):
    """With a sentence that says so, and the chosen layer of each of its runs."""
    runs = [Run(config=config) for config in (CONFIG, CONFIG.changed({"optimizer": "adam"}))]
    for run in runs:
        for event in train(run.config, tiny):
            run.apply(event)
    write_race(tmp_path / "race.json", runs, facts(tiny), "a command")
    monkeypatch.setattr(first_sight, "_FILE", tmp_path / "race.json")
    first_sight.contenders.cache_clear()
    try:
        updates = shown(lab, [], layer="conv3")
    finally:
        first_sight.contenders.cache_clear()
    assert "recorded race" in updates[VIEW.says]
    assert updates[VIEW.layer]["value"] == "conv3"
    labels = {row["label"] for row in updates[VIEW.chart]["data"]["layers"]}
    assert sorted(label.split()[0] for label in labels) == ["adam", "sgd"]


def test_without_a_run_the_mistakes_are_those_of_a_bundled_network(lab, images, monkeypatch):
    """If it knows the classes of the pictures."""
    assert "train a network first" in walked(lab, [])[-1][MISTAKES.says]
    names = open_kept(lab, "quick").class_names
    monkeypatch.setattr(lab, "images", replace(images, class_names=names))
    answers = Answers(class_names=names, labels=torch.arange(10), probabilities=torch.eye(10))
    monkeypatch.setattr(mistakes.MistakesJob, "compute", lambda job, images: _end_with(job, answers))
    updates = walked(lab, [])[-1]
    assert "quick, comes with the app" in updates[MISTAKES.says]
    assert updates[MISTAKES.body]["visible"]


def _end_with(job, answers):
    job.answers, job.share = answers, 1


def test_another_visitors_run_and_another_view(lab, tiny):
    """The first does not exist for a visitor; the second is not filled."""
    names = trained_in(lab, tiny, CONFIG)
    assert "You have no such run" in shown(lab, names, visitor=new_visitor())[VIEW.says]
    assert shown(lab, names, view="other") == gr.skip()


def walked(lab, names, **choice):
    """The updates of the mistakes' view, the last ones last."""
    chosen = {"visitor": VISITOR, "view": mistakes.NAME, "run": None, "other": None, "turn": [0], **choice}

    async def collect():
        return [updates async for updates in mistakes.show(lab, MISTAKES, DIFFERENCES, names=names, **chosen)]

    return anyio.run(collect)


def test_the_mistakes_of_a_run_and_its_pictures(lab, pictures):
    """The matrix counts all test pictures; a field lists its own, with their probabilities."""
    (key,) = trained_in(lab, pictures, CONFIG)
    updates = walked(lab, [key])[-1]
    fields = updates[MISTAKES.matrix]["data"]["fields"]
    assert sum(field["count"] for field in fields) == len(pictures.test.labels) == 20
    assert not updates[MISTAKES.run]["visible"]
    assert not updates[DIFFERENCES]["visible"]
    largest = max(fields, key=lambda field: field["count"])
    shown = anyio.run(shown_pictures.show_field, lab, MISTAKES.pictures, VISITOR, [key], key, largest["press"])
    gallery = shown[MISTAKES.pictures.gallery]["value"]
    assert len(gallery) == largest["count"]
    sure = [float(re.findall(r"([\d.]+)%", caption)[0]) for _, caption in gallery]
    assert sure == sorted(sure, reverse=True)
    for pressed in (None, "", "1", "0 9", "-1 0", "a b"):
        with pytest.raises(UserError, match="no such field"):
            anyio.run(shown_pictures.show_field, lab, MISTAKES.pictures, VISITOR, [key], key, pressed)


def test_the_mistakes_of_a_run_on_own_pictures(lab, tmp_path):
    """They are counted over the visitor's own test pictures; the run's key does not show these to other visitors."""
    for number, name in enumerate(("cat", "dog")):
        files = [tmp_path / f"{number}-{index}.png" for index in range(20)]
        for file, picture in zip(files, noise(20, seed=number), strict=True):
            file.write_bytes(png(picture))
        lab.sets.add(lab.owner(VISITOR), name, files)
    own = lab.sets.choose(lab.owner(VISITOR), OWN, ignore_progress)
    (key,) = trained_in(lab, own, CONFIG.changed({"batch_size": 8}))
    lab.sets.choose(lab.owner(VISITOR), DEFAULT, ignore_progress)
    fields = walked(lab, [key])[-1][MISTAKES.matrix]["data"]["fields"]
    assert sum(field["count"] for field in fields) == len(own.test.labels) == 4
    assert MISTAKES.matrix not in walked(lab, [key], visitor=new_visitor())[-1]


def test_where_two_runs_disagree(lab, pictures, monkeypatch):
    """The gallery has the pictures to which they give different answers, as many as the sentence says.

    Of runs on different pictures there are none.
    """
    one, two = trained_in(lab, pictures, CONFIG, CONFIG.changed({"seed": 3}))
    updates = walked(lab, [one, two])[-1]
    assert updates[DIFFERENCES]["visible"]
    assert (updates[MISTAKES.run]["value"], updates[MISTAKES.other]["value"]) == (one, two)

    async def differ():
        chosen = {"visitor": VISITOR, "names": [one, two], "run": one, "other": two}
        answers = [await answering.answers_of(lab, VISITOR, name) for name in (one, two)]
        return answers, await shown_pictures.show_differences(lab, MISTAKES.pictures, **chosen)

    answers, shown = anyio.run(differ)
    differing = (answers[0].predicted != answers[1].predicted).sum()
    assert f"disagree on {differing} pictures" in shown[MISTAKES.pictures.says]
    assert len(shown[MISTAKES.pictures.gallery]["value"]) == differing
    monkeypatch.setattr(shown_pictures, "images_of", lambda lab, visitor, name: replace(pictures, digest=name))
    with pytest.raises(gr.Error, match="trained on different pictures"):
        anyio.run(differ)


def test_other_pictures_than_the_runs(lab, tiny):
    """A network for pictures of another size is explained in place of the matrix; so is a run of other pictures."""
    (key,) = trained_in(lab, tiny, CONFIG)
    updates = walked(lab, [key])[-1]
    assert "takes pictures of 8 pixels" in updates[MISTAKES.says]
    assert not updates[MISTAKES.body]["visible"]


def test_stop_ends_the_job(lab, pictures, monkeypatch):
    """The page shows its progress until then, and that it was stopped."""
    (key,) = trained_in(lab, pictures, CONFIG)

    def until_stopped(work, stopping):
        yield Answering(fraction=0.5)
        stopping.wait()

    monkeypatch.setattr(lab, "_run", until_stopped)

    async def collect():
        chosen = {"visitor": VISITOR, "view": mistakes.NAME, "run": None, "other": None, "turn": [0]}
        found = []
        async for updates in mistakes.show(lab, MISTAKES, DIFFERENCES, names=[key], **chosen):
            found.append(updates)
            if "50%" in updates[MISTAKES.says]:
                mistakes._stop(lab, VISITOR)
        return found

    updates = anyio.run(collect)
    assert updates[0][MISTAKES.stop]["visible"]
    assert "Stopped" in updates[-1][MISTAKES.says]
    assert not updates[-1][MISTAKES.stop]["visible"]


def landscape_view():
    """The view of the landscape, without its chart."""
    return JobView(
        name=landscape.NAME,
        kind=LandscapeJob,
        hint="Press Draw.",
        controls=bare(Controls),
        outputs=[],
        inputs={},
        begin=landscape.start_job,
        has_results=lambda job: job.found is not None,
        progress=lambda job, language: "",
        display=lambda job, language: {},
        to_csv=str,
        draw=lambda job, language: "",
    )


def landscape_of(lab, names):
    """The ended job of a small landscape of runs of VISITOR."""
    runs = chosen_runs(lab, VISITOR, names)
    job = landscape.start_job(lab, VISITOR, runs, is_random=False, num_points=3, num_images=20)
    assert job.ended.wait(60)
    return job


def test_a_landscape_of_other_runs_says_so(lab, pictures):
    """When the visitor chooses other runs, also while it is computed; the same ones in another order are no change."""
    first, second = trained_in(lab, pictures, *(replace(CONFIG, epochs=2, lr=lr) for lr in (0.01, 0.02)))
    view = landscape_view()
    job = landscape_of(lab, [first, second])

    def status(*names):
        return view.show(lab, VISITOR, list(names))[view.controls.status]

    assert status(second, first) == ""
    one, two = (run.name for run in job.inspected)
    other = f"This is of {one}; {two}, not of what is chosen now."
    assert other in status(first)
    job.state = "running"
    assert "Computing" in status(first)
    assert other in status(first)
    assert other not in status(first, second)
    job.state, job.found = "ended", None
    assert "Press Draw." in status(first)


def test_a_watch_follows_the_choice(lab, pictures):
    """It began with the runs chosen before: when others are chosen, its next update is for these."""
    names = trained_in(lab, pictures, *(replace(CONFIG, epochs=2, lr=lr) for lr in (0.01, 0.02)))
    view = landscape_view()
    landscape_of(lab, names)

    async def statuses():
        latest, found = [], []
        updates = job_view._watch(view, lab, visitor=VISITOR, names=names, latest=latest)
        async for update in updates:
            found.append(update[view.controls.status])
            if len(found) == 2:
                break
            latest[:] = names[:1]
        await updates.aclose()
        return found

    before, after = anyio.run(statuses)
    assert before == ""
    assert "not of what is chosen now" in after


@pytest.mark.parametrize(("optimizers", "has_line"), [(("adam",), False), (("adam", "sgd"), True)])
def test_the_line_of_sharpness_is_explained_where_there_is_one(optimizers, has_line):
    """Only gradient descent's limit is known."""
    job = SharpnessJob(owner="", inspected=[], num_images=500, machine=None)
    for optimizer in optimizers:
        run = RunSharpness(name=optimizer, config=TrainConfig(optimizer=optimizer))
        run.rows.append(SharpnessMeasured)
        job.runs.append(run)
    words = " ".join(sharpness._sentences(job, "en"))
    assert "At what sharpness adam becomes unstable is not known here." in words
    assert ("dashed line" in words, "small batches" in words) == (has_line, has_line)


def test_answers_are_computed_once(lab, pictures, monkeypatch):
    """As long as the network is the same."""
    (key,) = trained_in(lab, pictures, CONFIG)
    first = walked(lab, [key])[-1]
    monkeypatch.setattr(lab, "_run", lambda work, stopping: pytest.fail("it was computed again"))
    assert walked(lab, [key])[-1][MISTAKES.matrix] == first[MISTAKES.matrix]


def test_the_mistakes_are_saved(lab, pictures):
    """As CSV, whose counts are those of the matrix, and as SVG."""
    (key,) = trained_in(lab, pictures, CONFIG)
    chosen = {"visitor": VISITOR, "names": [key], "run": None}

    async def save(suffix, content):
        return await mistakes.save(lab, suffix, content, **chosen)

    text = Path(anyio.run(save, "csv", lambda answers, _: to_csv(answers))).read_text(encoding="utf-8")
    head, *rows = csv.reader(text.splitlines())
    assert head[:4] == ["class", "pictures", "recall", "precision"]
    assert sum(int(count) for row in rows for count in row[4:]) == len(pictures.test.labels)
    svg = Path(anyio.run(save, "svg", draw)).read_text(encoding="utf-8")
    assert all(f">{name}<" in svg for name in pictures.class_names)


def test_a_picture_leads_to_the_time_machine(lab, pictures):
    """With its run and its index among the test pictures; a network without epochs leads nowhere."""
    (key,) = trained_in(lab, pictures, CONFIG)
    visitor, runs, view, picture = gr.BrowserState(), gr.Dropdown(), gr.Radio(), gr.State()
    choice = Choice(opened=None, chosen=None, visitor=visitor, runs=runs, view=view, picture=picture)
    updates = shown_pictures.travel_with(lab, choice, [key], None, [7, 5], 1)
    assert updates[choice.view] == "time-machine"
    requested = updates[choice.picture]
    assert (requested.run, requested.index) == (key, 5)
    for names, place in (([key], 2), ([key], -1), ([key], None), ([key], 1.0), (["quick"], 1)):
        assert shown_pictures.travel_with(lab, choice, names, None, [7, 5], place) == gr.skip()


@pytest.mark.parametrize("count", [2, 100])
def test_a_matrix_of_few_and_of_many_classes_is_drawn(count):
    """With numbers only where they have room."""
    labels = torch.arange(4 * count) % count
    outputs = torch.randn(len(labels), count, generator=torch.Generator().manual_seed(0))
    names = tuple(f"class {index}" for index in range(count))
    answers = Answers(class_names=names, labels=labels, probabilities=outputs.softmax(1))
    assert draw(answers, "en").count("<text") > 2
    assert ("text" in json.dumps(matrix_chart(answers, "en")["specs"])) == (count == 2)
