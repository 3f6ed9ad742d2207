"""The learning-rate finder: a range test with the page's settings, its chart, and the button that uses its lr."""

import html
from dataclasses import dataclass
from typing import Any

import gradio as gr
from gradio.events import Dependency

from trainer.learning.lr_finder import Finding
from ui.charts.live import live_chart
from ui.charts.lr_finder import finder_chart
from ui.i18n.words import i18n, translate
from ui.jobs.queue import Jobs
from ui.jobs.trainings import LrSearch
from ui.lab import Lab
from ui.parts.form import fields
from ui.parts.markup import status_line
from ui.parts.messages import Updates
from ui.parts.run.job_words import Standing, sharing_words, waiting_words
from ui.parts.shared import AT_ONCE
from ui.tabs.train.buttons import STARTS, refusal
from ui.visitors import checked_visitor


@dataclass(frozen=True, kw_only=True)
class Finder:
    """The search button, the status, the chart, the button that uses the suggested lr, and that lr."""

    search: gr.Button
    status: gr.HTML
    chart: gr.HTML
    take: gr.Button
    suggestion: gr.State
    refused: gr.HTML

    def show(self, jobs: Jobs, search: LrSearch | None, language: str) -> Updates:
        """Updates that show how the visitor's latest search stands; none without one."""
        if search is None:
            return {}
        finding = search.finding
        if finding:
            status = f"<div class='status'>{html.escape(translate(finding.reason, language))}</div>"
        elif not search.is_active:
            status = status_line("Search not started" if not search.trials else "", "", 0, language, search.failure)
        elif search.state == "waiting":
            status = status_line("Not started yet", waiting_words(jobs, search, language), 0, language)
        else:
            status = _progress(search, jobs, language)
        return {
            self.status: status,
            self.chart: finder_chart(search.trials, finding, search.planned, language),
            self.take: _take_button(finding, language),
            self.suggestion: finding.suggestion if finding else None,
        }


def build() -> Finder:
    """Adds the panel to the page being built, among the settings."""
    with gr.Accordion(i18n("Find a learning rate"), open=False, elem_id="finder"):
        gr.Markdown(
            i18n(
                "Raises lr from far too small to far too large on a separate network, and finds where the loss falls "
                "fastest and where it explodes."
            )
        )
        search = gr.Button(i18n("Search"), size="sm", elem_id="find-lr", **STARTS)
        refused = refusal("refused-find-lr")
        status = gr.HTML(elem_id="found")
        chart = live_chart(empty_chart("en"), height=300, label="Loss over the learning rate", elem_id="finder-chart")
        take = gr.Button("lr", visible=False, variant="primary", size="sm", elem_id="take-lr")
    return Finder(search=search, status=status, chart=chart, take=take, suggestion=gr.State(None), refused=refused)


def take_on_click(finder: Finder, panel: fields.Panel) -> Dependency:
    """Makes the button write the suggested lr into the settings; returns the event."""
    number, slider = panel.widgets["lr"], panel.powers["lr"]

    def take(suggestion: float | None) -> Updates:
        return {number: suggestion, slider: fields.POWERS["lr"].position(suggestion)} if suggestion else gr.skip()

    return finder.take.click(take, finder.suggestion, [number, slider], api_name="_take_lr", **AT_ONCE)


def empty_chart(language: str) -> dict[str, Any]:
    """The chart before any search."""
    return finder_chart([], None, None, language)


def find_lr(lab: Lab, *, visitor: str, **settings: Any) -> None:
    """Starts a job that searches with the page's settings. Raises UserError if it cannot."""
    lab.search(checked_visitor(visitor), fields.read_config(settings))


def _progress(search: LrSearch, jobs: Jobs, language: str) -> str:
    last = search.trials[-1] if search.trials else None
    words = [translate("raising lr step by step on a separate network", language)]
    words += sharing_words(Standing.of(jobs, search), language)
    return status_line("Searching", " · ".join(words), last.step / last.num_steps if last else 0, language)


def _take_button(finding: Finding | None, language: str) -> Any:
    if finding is None or finding.suggestion is None:
        return gr.update(visible=False)
    words = translate("Use lr = {lr}", language, lr=f"{finding.suggestion:g}")
    return gr.update(value=words, visible=True)
