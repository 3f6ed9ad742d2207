"""The learning-rate finder: a range test with the page's settings, its chart, and the button that uses its lr."""

import html
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import gradio as gr

from trainer.errors import UserError
from trainer.learning.lr_finder import Finding, Trial
from ui.charts.live import live_chart
from ui.charts.lr_finder import finder_chart
from ui.i18n.language import current_language
from ui.i18n.words import i18n, translate
from ui.lab import Lab
from ui.parts import fields
from ui.parts.markup import bar
from ui.parts.messages import Updates
from ui.schedule import planned_lrs
from ui.parts.shared import AT_ONCE
from ui.tabs.train.training import wait_for_images

_SHARE_BETWEEN_UPDATES = 0.04  # of the search


@dataclass(frozen=True, kw_only=True)
class Finder:
    """The search button, the status, the chart, the button that uses the suggested lr, and that lr."""

    search: gr.Button
    status: gr.HTML
    chart: gr.HTML
    take: gr.Button
    suggestion: gr.State


def build() -> Finder:
    """Adds the panel to the page being built, among the settings."""
    with gr.Accordion(i18n("Find a learning rate"), open=False, elem_id="finder"):
        gr.Markdown(
            i18n(
                "Raises lr from far too small to far too large on a separate network, and finds where the loss falls "
                "fastest and where it explodes."
            )
        )
        search = gr.Button(i18n("Search"), size="sm", elem_id="find-lr")
        status = gr.HTML(elem_id="found")
        chart = live_chart(empty_chart("en"), height=300, label="Loss over the learning rate", elem_id="finder-chart")
        take = gr.Button("lr", visible=False, variant="primary", size="sm", elem_id="take-lr")
    return Finder(search=search, status=status, chart=chart, take=take, suggestion=gr.State(None))


def take_on_click(finder: Finder, panel: fields.Panel) -> None:
    """Makes the button write the suggested lr into the settings."""
    number, slider = panel.widgets["lr"], panel.powers["lr"]

    def take(suggestion: float | None) -> Updates:
        return {number: suggestion, slider: fields.power_of("lr", suggestion)} if suggestion else gr.skip()

    finder.take.click(take, finder.suggestion, [number, slider], api_name="_take_lr", **AT_ONCE)


def empty_chart(language: str) -> dict[str, Any]:
    """The chart before any search."""
    return finder_chart([], None, None, language)


def find_lr(lab: Lab, finder: Finder, *, visitor: str, requested_at: float, **settings: Any) -> Iterator[Updates]:
    """Searches with the page's settings; yields updates of the progress and the chart, then of the result."""
    language = current_language()
    config = fields.read_config(settings)
    nothing: Updates = {finder.take: gr.update(visible=False), finder.suggestion: None}
    images = yield from wait_for_images(lab, visitor, requested_at, finder.status, nothing)
    lrs = [lr for _, lr in planned_lrs(config, images) if lr > 0]
    planned = (min(lrs), max(lrs)) if lrs else None
    trials: list[Trial] = []
    search = lab.find_lr(config, images)
    yield {
        finder.status: _progress(0.0, language),
        finder.chart: finder_chart([], None, planned, language),
        **nothing,
    }
    drawn = 0.0
    for result in search:
        if isinstance(result, Finding):
            yield {
                finder.status: f"<div class='status'>{html.escape(translate(result.reason, language))}</div>",
                finder.chart: finder_chart(trials, result, planned, language),
                finder.take: _take_button(result, language),
                finder.suggestion: result.suggestion,
            }
            return
        if lab.is_stopped(visitor, requested_at):
            search.close()
            raise UserError("The search was stopped.")
        trials.append(result)
        share = result.step / result.num_steps
        if share - drawn > _SHARE_BETWEEN_UPDATES:
            drawn = share
            yield {
                finder.status: _progress(share, language),
                finder.chart: finder_chart(trials, None, planned, language),
                **nothing,
            }


def _progress(share: float, language: str) -> str:
    doing = translate("Raising lr step by step on a separate network", language)
    return f"<div class='status'>{doing} … {bar(share)}</div>"


def _take_button(finding: Finding, language: str) -> Any:
    if finding.suggestion is None:
        return gr.update(visible=False)
    words = translate("Take lr = {lr}", language, lr=f"{finding.suggestion:g}")
    return gr.update(value=words, visible=True)
