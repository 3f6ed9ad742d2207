"""The live view of the Sweep tab: which sweep an open page shows, and how it stands."""

import html
import logging
from collections.abc import AsyncIterator
from contextlib import aclosing, suppress
from dataclasses import dataclass, field
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import gradio as gr

from trainer.errors import UserError
from trainer.images.image_data import ImageData
from trainer.networks.pretrained import BUNDLED
from trainer.runs.run import Curve, Run
from trainer.settings.lessons import LESSONS
from trainer.sweeps import folder as sweep_folder
from trainer.sweeps.axes import Cell
from trainer.sweeps.folder import Sweep
from trainer.sweeps.recorded import Recording, read_recording
from trainer.sweeps.runner import fitting
from ui.i18n.language import current_language
from ui.i18n.words import translate
from ui.jobs.sweeps import SweepJob
from ui.lab import Lab
from ui.parts.markup import status_line
from ui.parts.messages import Updates
from ui.parts.run import watching
from ui.parts.run.job_words import Standing, sharing_words, waiting_words
from ui.parts.run.run_view import lesson_text
from ui.run_index import is_key
from ui.tabs.sweep.results import LOSS, ResultView, Shown

RECORDED = "recorded"  # the key of the sweep that comes with the app
_MOST_LISTED = 20

_logger = logging.getLogger(__name__)


@dataclass
class Displayed:
    """What one open page displays; a gr.State keeps it, and the handlers of the page change it.

    `sweep` is the key of the sweep that the visitor chose, None to follow the latest; `target` is the accuracy that
    they chose, None for a proposed one; `job` identifies the last job that the page displayed, and `sent` holds the
    values that it was sent.
    """

    sweep: str | None = None
    view: str = LOSS
    target: float | None = None
    picked: str | None = None
    job: int | None = None
    sent: dict[int, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class SweepPage:
    """The components that a visitor's sweeps change."""

    start: gr.Button
    stop: gr.Button
    resume: gr.Button
    status: gr.HTML
    results: ResultView
    own: gr.Dropdown
    delete: gr.Button
    own_group: gr.Group


@dataclass(frozen=True, kw_only=True)
class _Stored:
    """A sweep on the disk: the runs without their curves, and the number of runs that it has in the end."""

    sweep: Sweep
    runs: dict[Cell, Run]
    total: int


@lru_cache(maxsize=1)
def recording() -> Recording | None:
    """The sweep that comes with the app; None without one."""
    path = BUNDLED / "sweep.json"
    try:
        return read_recording(path) if path.exists() else None
    except UserError:
        _logger.exception("The recorded sweep cannot be read.")
        return None


class _Found(NamedTuple):
    """A sweep by key: what there is to show of it, the number of its runs in the end, and why it cannot be read."""

    key: str
    shown: Shown | None
    total: int = 0
    problem: str = ""

    @property
    def is_over(self) -> bool:
        """Whether all its runs have ended."""
        return self.shown is None or self.key == RECORDED or len(self.shown.ended) >= self.total


def shown_sweep(lab: Lab, visitor: str | None, displayed: Displayed) -> Shown | None:
    """The sweep that a page displays; the recorded one if the visitor has none."""
    return _find(lab, visitor, displayed).shown


def show(lab: Lab, page: SweepPage, visitor: str | None, displayed: Displayed) -> Updates:
    """Updates that show the sweep that the page displays and the buttons, without what the page has already."""
    language = current_language()
    visitor = visitor if is_key(visitor) else None
    job = lab.jobs.of(visitor, SweepJob) if visitor else None
    found = _find(lab, visitor, displayed)
    is_active = job is not None and job.is_active
    updates: Updates = {
        page.start: gr.update(interactive=bool(visitor) and not is_active),
        page.stop: gr.update(value=translate("Stop", language), interactive=is_active),
        page.resume: gr.update(visible=not is_active and not found.is_over),
        page.status: _status(lab, job, found, displayed, language),
        **page.results.show(found.shown, displayed.view, displayed.target, displayed.picked, language),
        **_list(lab, page, visitor, found.key, language),
    }
    if job:
        displayed.job = id(job)
        job.is_end_seen = job.is_end_seen or not job.is_active
    news = {component: value for component, value in updates.items() if displayed.sent.get(component._id) != value}
    displayed.sent |= {component._id: value for component, value in news.items()}
    return news


async def watch(lab: Lab, page: SweepPage, *, visitor: str | None, displayed: Displayed) -> AsyncIterator[Updates]:
    """Yields the updates of `show`, now and about once a second while something changes, while the page listens."""
    if not is_key(visitor):  # the page gets one in a moment
        yield gr.skip()  # Gradio would empty the components if there were no updates at all
        return
    displayed.sent.clear()  # what was sent before a lost connection may not have arrived
    updates = watching.watch(
        lab.jobs,
        visitor,
        (SweepJob,),
        state=lambda: (displayed.sweep, displayed.view, displayed.target, displayed.picked),
        show=partial(show, lab, page, visitor, displayed),
    )
    async with aclosing(updates) as changes:  # type: ignore[type-var]
        async for change in changes:
            yield change


def _find(lab: Lab, visitor: str | None, displayed: Displayed) -> _Found:
    """The sweep that a page displays."""
    job = lab.jobs.of(visitor, SweepJob) if visitor else None
    latest = next((folder.name for folder in lab.runs.sweeps_of(visitor)), RECORDED)
    key = displayed.sweep or (job.key if job and job.is_active else latest)
    if job and key == job.key and (job.is_active or job.runs):
        runs = {cell: run for cell, run in job.runs.items() if run.history}
        return _Found(key, Shown(axes=job.sweep.axes, runs=runs, folder=job.sweep.folder), len(job.cells))
    if key != RECORDED:
        with suppress(UserError, OSError):
            folder = lab.runs.own_sweep(visitor, key)
            try:
                stored = _read(folder, folder.stat().st_mtime_ns, lab.images)
            except UserError as error:
                return _Found(key, None, problem=str(error))
            return _Found(key, Shown(axes=stored.sweep.axes, runs=stored.runs, folder=folder), stored.total)
    recorded = recording()
    return _Found(RECORDED, Shown(axes=recorded.axes, runs=recorded.runs) if recorded else None)


@lru_cache(maxsize=16)
def _read(folder: Path, modified: int, images: ImageData | None) -> _Stored:
    """Reads a sweep, once for each time that its results have changed."""
    sweep = sweep_folder.read(folder)
    cells = sweep.grid.cells
    if images and images.digest == sweep.data.get("digest"):
        with suppress(UserError):
            cells = fitting(sweep.grid, images).cells
    runs = sweep_folder.runs_of(sweep)
    for run in runs.values():
        run.curve = Curve()
    return _Stored(sweep=sweep, runs=runs, total=len(cells))


def _status(lab: Lab, job: SweepJob | None, found: _Found, displayed: Displayed, language: str) -> str:
    if job and job.is_active and job.key == found.key:
        return _live_status(lab, job, language)
    is_news = job is not None and (displayed.job == id(job) or not job.is_end_seen)
    if job and job.failure and job.key != found.key and displayed.sweep is None and is_news:
        return status_line("Not trained", "", 0, language, job.failure)
    if found.problem:
        return status_line("Damaged", "", 0, language, found.problem)
    if found.shown is None or found.key == RECORDED:
        return _introduction(language)
    problems = _problems(found.shown)
    ended = len(found.shown.ended)
    counted = translate("{count} of {total} runs", language, count=ended, total=found.total)
    if found.is_over:
        return status_line("Done", counted, 1, language, *problems)
    because = job.stopped_because or job.failure if job and job.key == found.key else ""
    refused = (run.advice for run in found.shown.runs.values() if run.status == "interrupted")
    words = f"{counted} · {translate('Resume trains the others', language)}"
    return status_line("Stopped", words, ended / found.total, language, because or next(refused, ""), *problems)


def _problems(shown: Shown) -> list[str]:
    """What the user should know of runs that were resumed, or that the disk refused."""
    return sorted({sentence for run in shown.runs.values() for sentence in (run.notice, run.warning) if sentence})


def _live_status(lab: Lab, job: SweepJob, language: str) -> str:
    if job.state == "waiting":
        return status_line("Not started yet", waiting_words(lab.jobs, job, language), 0, language)
    counted = translate("{count} of {total} runs", language, count=len(job.ended_runs), total=len(job.cells))
    words = [counted, *sharing_words(Standing.of(lab.jobs, job), language)]
    return status_line("Training", " · ".join(words), job.share, language)


def _introduction(language: str) -> str:
    """What the recorded sweep is, with its command, as HTML."""
    recorded = recording()
    if recorded is None:
        return status_line("Ready.", "Press Start: the chart fills in while the runs are trained.", 0, language)
    sentence = translate(
        "A recorded sweep of {count} runs on {data}: press Start to train your own.",
        language,
        count=len(recorded.runs),
        data=recorded.data["name"],
    )
    command = f"<code class='command'>{html.escape(recorded.command)}</code>"
    forgiving = LESSONS["how-forgiving"]
    lesson = lesson_text(forgiving, language, "", translate(forgiving.before, language))
    return f"<div class='status'>{html.escape(sentence)}<br>{command}</div>{lesson}"


def _list(lab: Lab, page: SweepPage, visitor: str | None, key: str, language: str) -> Updates:
    """Updates of the list of the visitor's sweeps, which is hidden without any."""
    folders = lab.runs.sweeps_of(visitor)[:_MOST_LISTED]
    choices = [(_title(folder), folder.name) for folder in folders]
    if recording():
        choices.append((translate("The recorded sweep", language), RECORDED))
    return {
        page.own_group: gr.update(visible=bool(folders)),
        page.own: gr.update(choices=choices, value=key if key in [name for _, name in choices] else None),
        page.delete: gr.update(interactive=key != RECORDED),
    }


def _title(folder: Path) -> str:
    """What varies in a sweep, and the start of its key, which distinguishes sweeps that are otherwise alike."""
    with suppress(UserError, OSError):
        axes = sweep_folder.read(folder).axes
        varied = " × ".join(f"{len(axis.values)} {axis.name}" for axis in axes)
        return f"{varied} · {folder.name[:4]}"
    return folder.name[:4]
