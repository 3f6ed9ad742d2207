"""The visitor's own runs: choosing, resuming, downloading and deleting them."""

import zipfile
from dataclasses import dataclass
from functools import partial
from typing import Any

import gradio as gr

from trainer.errors import UserError
from trainer.learning.checkpoint import SpentScheduleError
from trainer.runs import recorder, run_folder
from trainer.runs.reader import read_files
from trainer.runs.run import LONGEST_NAME, checked_name
from trainer.settings.config import SETTINGS
from ui.i18n.language import current_language
from ui.i18n.words import i18n, in_browser, translate
from ui.lab import Lab
from ui.parts.markup import advice
from ui.parts.messages import Updates, with_page_errors
from ui.parts.run.run_list import download_path, own_race, read_all
from ui.parts.shared import AT_ONCE, Displayed, Inputs, Shared, components
from ui.tabs.train import training
from ui.tabs.train.buttons import STARTS, answered, refusal, refuse_beside
from ui.tabs.train.live import LiveView
from ui.tabs.train.live import show as show_live


@dataclass(frozen=True, kw_only=True)
class OwnRuns:
    """The list of the visitor's races, the options for resuming the chosen one, and the buttons for it."""

    races: gr.Dropdown
    name: gr.Textbox
    total_epochs: gr.Number
    uses_settings: gr.Checkbox
    resume: gr.Button
    refused: gr.HTML
    go_on: gr.Button
    download: gr.Button
    delete: gr.Button


def build(races: gr.Dropdown) -> OwnRuns:
    """Adds the group to the page being built, below the results."""
    with gr.Group(elem_id="own-runs"):
        races.render()
        name = gr.Textbox(
            label=i18n("Name"),
            info=i18n("What lists, legends and files call this run. Press Enter to save it."),
            max_length=LONGEST_NAME,
            elem_id="run-name",
        )
        with gr.Row():
            total_epochs = gr.Number(
                label=i18n("total epochs"),
                info=i18n("Train up to this many epochs in total."),
                value=SETTINGS["epochs"].default,
                precision=0,
                minimum=1,
                elem_id="more-epochs",
            )
            uses_settings = gr.Checkbox(
                label=i18n("use the current settings"),
                info=i18n(
                    "Continue with the optimizer and scheduler chosen on this page, for example after the run's own "
                    "schedule has ended. In a race, each run keeps its own optimizer and lr."
                ),
                elem_id="anew",
            )
        with gr.Row():
            resume = gr.Button(i18n("Resume"), size="sm", elem_id="resume", **STARTS)
            download = gr.Button(i18n("Download checkpoint"), size="sm", elem_id="download")
            delete = gr.Button(i18n("Delete run"), size="sm", elem_id="delete")
        refused = refusal("refused-resume")
        go_on = gr.Button(
            i18n("Continue with a small constant lr"), variant="primary", size="sm", visible=False, elem_id="go-on"
        )
    return OwnRuns(
        races=races,
        name=name,
        total_epochs=total_epochs,
        uses_settings=uses_settings,
        resume=resume,
        refused=refused,
        go_on=go_on,
        download=download,
        delete=delete,
    )


def wire(lab: Lab, own: OwnRuns, live: LiveView, shared: Shared) -> None:
    """Makes the list show the chosen race, and the buttons download or delete it."""
    visitor, lists = shared.visitor, shared.lists
    own.races.change(bool, own.races, shared.had_runs, api_name="_remember", **AT_ONCE)
    offer_epochs(lab, own, live, shared)
    own.races.change(
        partial(name_of, lab),
        inputs_kwargs={"visitor": visitor, "race": own.races},
        outputs=own.name,
        api_name="_name",
        **AT_ONCE,
    )
    gr.on(
        [own.name.submit, own.name.blur],
        refuse_beside(own.refused, partial(rename, lab, live)),
        inputs_kwargs={"visitor": visitor, "displayed": shared.displayed, "race": own.races, "name": own.name},
        outputs=components(own.refused, live),
        api_name="_rename",
        **AT_ONCE,
    )
    own.races.input(
        partial(show, lab, live),
        inputs_kwargs={"visitor": visitor, "displayed": shared.displayed, "race": own.races},
        outputs=components(live),
        api_name="_show",
        **AT_ONCE,
    )
    question = in_browser("Delete this run and its checkpoints? If it is a race, all its runs are deleted.")
    own.delete.click(
        partial(delete, lab, live),
        inputs_kwargs={
            "race": own.races,
            "visitor": visitor,
            "displayed": shared.displayed,
            "compared": lists.compared,
        },
        outputs=components(live),
        js=f"(race, ...others) => [race && confirm({question}) ? race : null, ...others]",
        api_name="_delete",
        **AT_ONCE,
    )
    shared.download_on_click(
        own.download, partial(download, lab), {"visitor": visitor, "race": own.races}, api_name="_download"
    )


def resume_on_click(lab: Lab, own: OwnRuns, live: LiveView, shared: Shared, widgets: Inputs) -> None:
    """Makes Resume start a job and, if the run's schedule has ended, offer to continue with a constant lr."""

    def begin(*, visitor: str, displayed: Displayed, race: str | None, **values: Any) -> Updates:
        try:
            training.resume(lab, visitor=visitor, race=race, **values)
        except UserError as error:
            words = advice(translate(str(error), current_language()))
            has_remedy = isinstance(error, SpentScheduleError)
            return {own.refused: gr.update(value=words, visible=True), own.go_on: gr.update(visible=has_remedy)}
        displayed.race = race
        return {own.go_on: gr.update(visible=False), **show_live(lab, live, visitor, displayed)}

    epochs: Inputs = {"race": own.races, "total_epochs": own.total_epochs}
    page: Inputs = {"visitor": shared.visitor, "displayed": shared.displayed}
    outputs = components(own.refused, own.go_on, live)
    resume = own.resume.click(
        refuse_beside(own.refused, begin),
        inputs_kwargs={**page, **epochs, "uses_settings": own.uses_settings, **widgets},
        outputs=outputs,
        api_name="_resume",
        **AT_ONCE,
    )
    go_on = own.go_on.click(
        refuse_beside(own.refused, partial(begin, has_constant_lr=True)),
        inputs_kwargs={**page, **epochs},
        outputs=outputs,
        api_name="_go_on",
        **AT_ONCE,
    )
    answered(resume)
    answered(go_on)


def offer_epochs(lab: Lab, own: OwnRuns, live: LiveView, shared: Shared) -> None:
    """Fills in the total epochs for resuming when another race is chosen, and when a training has ended."""
    inputs: Inputs = {"visitor": shared.visitor, "race": own.races}
    for event, name, more in (
        (own.races.change, "_offer", {}),
        (live.ended.change, "_offer_more", {"typed": own.total_epochs}),
    ):
        event(
            partial(resumable_epochs, lab),
            inputs_kwargs={**inputs, **more},
            outputs=own.total_epochs,
            api_name=name,
            **AT_ONCE,
        )


def resumable_epochs(lab: Lab, visitor: str, race: str | None, typed: float | None = None) -> Any:
    """The total epochs to offer for resuming a race: its own or, if they are finished, ten more.

    A larger total that the visitor has `typed` stays.
    """
    try:
        runs = read_all(lab.runs.own_race(visitor, race))
    except (UserError, OSError):
        runs = []
    if not runs or (typed or 0) > max(run.epoch for run in runs):
        return gr.skip()
    most = max(run.config.epochs for run in runs)
    is_open = any(run.epoch < run.config.epochs for run in runs if run.status != "diverged")
    return most if is_open else most + 10


def name_of(lab: Lab, visitor: str, race: str | None) -> str:
    """The name of the visitor's `race`; "" without one."""
    try:
        return next((run.name for run in read_all(lab.runs.own_race(visitor, race))), "")
    except UserError:
        return ""


def rename(lab: Lab, live: LiveView, *, visitor: str, displayed: Displayed, race: str | None, name: Any) -> Updates:
    """Gives the runs of the visitor's `race` a name; returns updates that show it.

    Raises UserError if it is in training, or if the name is invalid.
    """
    if not race or checked_name(name) == name_of(lab, visitor, race):
        return {}
    folders = lab.runs.own_race(visitor, race)
    if lab.is_in_training(folders):
        raise UserError("A run can be renamed when its training has ended.")
    for folder in folders:
        recorder.rename(folder, name)
    displayed.listed = displayed.listed and displayed.listed[:1]  # so that the lists are filled again
    return show_live(lab, live, visitor, displayed)


@with_page_errors
def show(lab: Lab, live: LiveView, *, visitor: str, displayed: Displayed, race: str | None) -> Updates:
    """Updates that show the visitor's `race`, which the page displays from now on."""
    if race:
        lab.runs.own_race(visitor, race)
    displayed.race = race
    return show_live(lab, live, visitor, displayed)


@with_page_errors
def delete(
    lab: Lab, live: LiveView, *, visitor: str, displayed: Displayed, race: str | None, compared: list[str] | None
) -> Updates:
    """Deletes all runs of the visitor's `race`; returns updates that show the latest remaining race.

    The deleted runs are also removed from the `compared` ones.
    """
    deleted = lab.runs.own_race(visitor, race) if race else []
    for folder in deleted:
        run_folder.delete(folder)
    displayed.race, displayed.listed = None, None
    # `show_live` leaves out the lists while a race trains its first epoch.
    updates = {**live.lists.offer(lab, visitor, None), **show_live(lab, live, visitor, displayed)}
    names = [folder.name for folder in deleted]
    updates[live.lists.compared]["value"] = (
        [name for name in compared if name not in names] if isinstance(compared, list) else []
    )
    return updates


@with_page_errors
def download(lab: Lab, visitor: str, race: str | None) -> str:
    """Writes a zip with the files of the visitor's `race` and returns its path; several runs have a folder each."""
    folders = own_race(lab, visitor, race)
    path = download_path("optimizer-lab-checkpoint.zip")
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for number, folder in enumerate(folders, 1):
            prefix = f"run-{number}/" if len(folders) > 1 else ""
            for name, content in read_files(folder).items():
                archive.writestr(prefix + name, content)
    return str(path)
