"""The visitor's own runs: choosing, resuming, downloading and deleting them."""

import zipfile
from dataclasses import dataclass
from functools import partial
from typing import Any

import gradio as gr
from gradio.events import Dependency

from trainer.errors import UserError
from trainer.runs import run_folder
from trainer.runs.reader import read_files
from trainer.settings.config import SETTINGS
from ui.i18n.language import current_language
from ui.i18n.words import i18n, in_browser
from ui.lab import Lab
from ui.parts.messages import Updates, with_page_errors
from ui.parts.run_list import RunLists, download_path, latest, own_race, read_all
from ui.parts.run_view import RunView
from ui.parts.shared import AT_ONCE, Inputs, Shared, components


@dataclass(frozen=True, kw_only=True)
class OwnRuns:
    """The list of the visitor's races, the options for resuming the chosen one, and the buttons for it."""

    races: gr.Dropdown
    total_epochs: gr.Number
    uses_settings: gr.Checkbox
    resume: gr.Button
    download: gr.Button
    delete: gr.Button


def build(races: gr.Dropdown) -> OwnRuns:
    """Adds the group to the page being built, below the results."""
    with gr.Group(elem_id="own-runs"):
        races.render()
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
            return OwnRuns(
                races=races,
                total_epochs=total_epochs,
                uses_settings=uses_settings,
                resume=gr.Button(i18n("Resume"), size="sm", elem_id="resume"),
                download=gr.Button(i18n("Download checkpoint"), size="sm", elem_id="download"),
                delete=gr.Button(i18n("Delete run"), size="sm", elem_id="delete"),
            )


def wire(lab: Lab, own: OwnRuns, view: RunView, shared: Shared, *, followed: Dependency) -> None:
    """Makes the list show the chosen race, and the buttons download or delete it."""
    visitor, lists = shared.visitor, shared.lists
    own.races.change(bool, own.races, shared.had_runs, api_name="_remember", **AT_ONCE)
    offer_epochs(lab, own, own.races.change, shared, api_name="_offer")
    own.races.input(
        partial(show, lab, view),
        inputs_kwargs={"visitor": visitor, "race": own.races},
        outputs=components(view),
        cancels=followed,
        api_name="_show",
        **AT_ONCE,
    )
    question = in_browser("Delete this run and its checkpoints? If it is a race, all its runs are deleted.")
    own.delete.click(
        partial(delete, lab, view, lists),
        inputs_kwargs={"race": own.races, "visitor": visitor, "compared": lists.compared},
        outputs=components(view, lists),
        js=f"(race, ...others) => [race && confirm({question}) ? race : null, ...others]",
        api_name="_delete",
        **AT_ONCE,
    )
    shared.download_on_click(
        own.download, partial(download, lab), {"visitor": visitor, "race": own.races}, api_name="_download"
    )


def offer_epochs(lab: Lab, own: OwnRuns, event: Any, shared: Shared, *, api_name: str, keeps: bool = False) -> None:
    """Makes an event fill in the total epochs for resuming the chosen race; with `keeps`, a larger number stays."""
    inputs: Inputs = {"visitor": shared.visitor, "race": own.races, **({"typed": own.total_epochs} if keeps else {})}
    event(
        partial(resumable_epochs, lab),
        inputs_kwargs=inputs,
        outputs=own.total_epochs,
        api_name=api_name,
        **AT_ONCE,
    )


def resumable_epochs(lab: Lab, visitor: str, race: str | None, typed: float | None = None) -> Any:
    """The total epochs to offer for resuming a race: its own or, if they are finished, ten more.

    A larger total that the visitor has `typed` stays.
    """
    try:
        runs = read_all(lab.own_race(visitor, race))
    except (UserError, OSError):
        runs = []
    if not runs or (typed or 0) > max(run.epoch for run in runs):
        return gr.skip()
    most = max(run.config.epochs for run in runs)
    is_open = any(run.epoch < run.config.epochs for run in runs if run.status != "diverged")
    return most if is_open else most + 10


@with_page_errors
def show(lab: Lab, view: RunView, visitor: str, race: str | None) -> Updates:
    """Updates that show the visitor's `race`."""
    runs = read_all(lab.own_race(visitor, race)) if race else []
    return view.show(runs, lab.images, current_language())


@with_page_errors
def delete(
    lab: Lab, view: RunView, lists: RunLists, *, visitor: str, race: str | None, compared: list[str] | None
) -> Updates:
    """Deletes all runs of the visitor's `race`; returns updates that show the latest remaining race.

    The deleted runs are also removed from the `compared` ones.
    """
    deleted = lab.own_race(visitor, race) if race else []
    for folder in deleted:
        run_folder.delete(folder)
    remaining, runs = latest(lab, visitor)
    updates = {**view.show(runs, lab.images, current_language()), **lists.offer(lab, visitor, remaining)}
    names = [folder.name for folder in deleted]
    updates[lists.compared]["value"] = (
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
