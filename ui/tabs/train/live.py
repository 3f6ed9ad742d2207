"""The live view of an open page: shows how the visitor's jobs stand, and keeps doing so while they change."""

from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from functools import partial
from typing import Any

import gradio as gr

from trainer.runs import run_folder
from trainer.runs.run import Run, is_training
from trainer.settings.lessons import LESSONS
from ui.i18n.language import current_language
from ui.jobs.queue import Job
from ui.jobs.trainings import LrSearch, Training
from ui.lab import Lab
from ui.parts.markup import status_line
from ui.parts.messages import Updates
from ui.parts.run import run_list, watching
from ui.parts.run.job_words import Standing, waiting_words
from ui.parts.run.run_list import RunLists
from ui.parts.run.run_view import RunView, taught_lesson
from ui.parts.shared import AT_ONCE, Displayed
from ui.run_index import is_key
from ui.tabs.train.buttons import Buttons
from ui.tabs.train.setup.lr_finder import Finder


@dataclass(frozen=True, kw_only=True)
class LiveView:
    """The components that a visitor's jobs change; `ended` holds the last training that has ended.

    `chosen` holds the key of the race that the visitor chose, "" without one.
    """

    view: RunView
    lists: RunLists
    buttons: Buttons
    finder: Finder
    ended: gr.State
    chosen: gr.Textbox


def show(lab: Lab, page: LiveView, visitor: str | None, displayed: Displayed) -> Updates:
    """Updates that show the race that the page displays, the visitor's search, and the buttons.

    Without a choice of the visitor's, the page displays the job that trains, else the latest race, unless that is not
    of the lesson that they chose.
    """
    language = current_language()
    visitor = visitor if is_key(visitor) else None
    job = lab.jobs.of(visitor, Training) if visitor else None
    race, runs = _displayed_runs(lab, visitor, displayed, job)
    waiting = LESSONS[displayed.lesson] if race is None and displayed.lesson else None
    search = lab.jobs.of(visitor, LrSearch) if visitor else None
    updates: Updates = {
        page.chosen: displayed.race or "",
        **page.finder.show(lab.jobs, search, language),
        **page.buttons.show(is_training=_is_active(job), can_stop=_is_active(job) or _is_active(search)),
    }
    if job and job.is_active and job.race == race:
        displayed.job = id(job)
        live = Standing.of(lab.jobs, job)
        updates |= page.view.show(runs, lab.shown_images(visitor), language, planned=job.planned, live=live)
        if status := _not_begun(lab, job, runs, language):
            updates[page.view.status] = status
    else:
        updates |= page.view.show(
            runs, lab.shown_images(visitor), language, ended=_ended(lab, race, runs), waiting=waiting
        )
        if job and not job.is_active:
            if job.failure and not waiting and (displayed.job == id(job) or not job.is_end_seen):
                updates[page.view.status] = status_line("Not trained", "", 0, language, job.failure)
            job.is_end_seen = True
            updates[page.ended] = id(job)
    # A new race can be chosen once its first epoch is saved.
    if race is None or race in lab.runs.races_of(visitor):
        listed = (race, _is_active(job), sum(run.epoch for run in runs[:1]))
        if listed != displayed.listed:
            is_new = displayed.listed is None or displayed.listed[0] != race
            updates |= page.lists.offer(lab, visitor or "", race, keep=not is_new)
            displayed.listed = listed
    return updates


async def watch(lab: Lab, page: LiveView, *, visitor: str | None, displayed: Displayed) -> AsyncIterator[Updates]:
    """Yields the updates of `show`, now and about once a second while something changes, while the page listens."""
    # Those that the page was sent before a lost connection may not have arrived.
    displayed.listed = displayed.listed and displayed.listed[:1]
    updates = watching.watch(
        lab.jobs,
        visitor,
        (Training, LrSearch),
        state=lambda: (displayed.race, displayed.lesson, None if lab.images else lab.loading),
        show=partial(show, lab, page, visitor, displayed),
    )
    async with aclosing(updates) as changes:  # type: ignore[type-var]
        async for change in changes:
            yield change


def clear_on_lesson(lesson: gr.Textbox, displayed: gr.State) -> None:
    """Makes the choice of a lesson, or of none, display what belongs to it; `lesson` holds its name or ""."""
    lesson.change(
        choose_lesson,
        inputs_kwargs={"displayed": displayed, "lesson": lesson},
        outputs=None,
        api_name="_clear_for_lesson",
        **AT_ONCE,
    )


def choose_lesson(*, displayed: Displayed, lesson: Any) -> None:
    """Makes a page display what belongs to a lesson, or for any other name the latest race."""
    name = lesson if isinstance(lesson, str) and lesson in LESSONS else ""
    if displayed.lesson != name:  # else the page was opened with it
        displayed.race, displayed.lesson = None, name


def _displayed_runs(
    lab: Lab, visitor: str | None, displayed: Displayed, job: Training | None
) -> tuple[str | None, list[Run]]:
    """The key and the runs of the race that a page displays; None and [] without one."""
    race = displayed.race or (job.race if job and job.is_active else None)
    if job and job.is_active and race == job.race:
        return race, job.runs
    folders = lab.runs.races_of(visitor).get(race) if race else None
    race, runs = (race, run_list.read_all(folders)) if folders else run_list.latest(lab, visitor)
    if displayed.lesson and not folders and taught_lesson(runs) is not LESSONS[displayed.lesson]:
        return None, []
    # Those of the job also have the batches since the last epoch, and the epochs that the disk refused.
    if job and race == job.race and (_state_of(runs) == _state_of(job.runs) or any(run.warning for run in job.runs)):
        return race, job.runs
    return race, runs


def _not_begun(lab: Lab, job: Training, runs: Sequence[Run], language: str) -> str:
    """The status of a job that does not train yet; "" for one that does."""
    if job.state == "waiting":
        return status_line("Not started yet", waiting_words(lab.jobs, job, language), 0, language)
    if lab.images is None:
        return status_line("Starting", "loading the pictures", lab.loading[0], language)
    return "" if is_training(runs) else status_line("Starting", "", 0, language)


def _state_of(runs: Sequence[Run]) -> list[tuple[str, int]]:
    return [(run.status, run.epoch) for run in runs]


def _ended(lab: Lab, race: str | None, runs: list[Run]) -> float | None:
    """The time, in seconds of `time.time`, at which the race ended; None without one or if it still trains."""
    if race is None or is_training(runs):
        return None
    try:
        return (lab.runs.folder / race / run_folder.HISTORY_FILE).stat().st_mtime
    except OSError:
        return None


def _is_active(job: Job | None) -> bool:
    return job is not None and job.is_active
