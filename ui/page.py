"""The page: its header and notices, its tabs, and the components that they share."""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gradio as gr

from ui import address, api
from ui.charts import live
from ui.cleaning import SECONDS_UPLOADED
from ui.i18n.language import SWITCH, current_language
from ui.i18n.words import i18n, translate
from ui.lab import Lab
from ui.parts import run_list, run_view
from ui.parts.markup import advice, duration, note
from ui.parts.messages import Updates
from ui.parts.shared import AT_ONCE, Displayed, Shared
from ui.tabs import classify, compare, gallery, time_machine
from ui.tabs.train import permalink
from ui.tabs.train import tab as train

STYLE = (Path(__file__).parent / "style.css").read_text(encoding="utf-8")

_HEADER = (
    """<header><h1>Optimizer Lab</h1>
<p>"""
    + i18n("Train a small network on ten kinds of pictures and see what the optimizer and the learning rate do.")
    + "</p></header>"
)


def build_page(lab: Lab) -> gr.Blocks:
    """Builds the page and the public endpoints for a Lab; launch it with `STYLE` as its css."""
    gr.set_static_paths([live.static_path()])
    with gr.Blocks(title="Optimizer Lab", analytics_enabled=False, delete_cache=(3600, SECONDS_UPLOADED)) as page:
        shared = _build_top(lab, page)
        with shared.tabs:
            with gr.Tab(i18n("Train"), id="train"):
                view = train.build(lab, shared).view
            with gr.Tab(i18n("Compare"), id="compare") as compare_tab:
                compare.build(lab, compare_tab, shared)
            with gr.Tab(i18n("Classify a picture"), id="classify"):
                classify.build(lab, shared)
            with gr.Tab(i18n("Time machine"), id="time-machine") as time_tab:
                time_machine.build(lab, time_tab, shared)
            with gr.Tab(i18n("Gallery"), id="gallery") as gallery_tab:
                gallery.build(lab, gallery_tab, shared, view)
        _keep_address(shared)
        shared.file.render()
        api.add_endpoints(lab)
    return page


def _build_top(lab: Lab, page: gr.Blocks) -> Shared:
    """Adds the part of the page above the tabs; returns the components that the tabs share."""
    # The page contains the secret, which protects nothing; a fixed one keeps the browser's state across restarts.
    visitor = gr.BrowserState(None, storage_key="optimizer-lab-visitor", secret="optimizer-lab")  # noqa: S106
    had_runs = gr.BrowserState(False, storage_key="optimizer-lab-runs", secret="optimizer-lab")  # noqa: S106
    with gr.Row(elem_id="top"):
        gr.HTML(_HEADER, elem_id="header")
        copy = gr.Button(i18n("Copy link"), size="sm", elem_id="copy-link", scale=0, min_width=110)
        language = gr.Button(i18n("中文"), size="sm", elem_id="language", scale=0, min_width=90)
    images_note = gr.HTML(run_view.images_note(lab.images, lab.loading, lab.failure, "en"), elem_id="note")
    link_notice = gr.HTML(visible=False, elem_id="notice")
    visitor_notice = gr.HTML(visible=False, elem_id="known")
    query = gr.Textbox(visible="hidden", elem_id="query")

    def load(visitor: str | None, had_runs: Any) -> Iterator[Updates]:
        language = current_language()
        sentences = notice(lab, visitor, had_runs is True, address.current_query().get("run"))
        updates: Updates = {visitor_notice: gr.update(value=sentences, visible=bool(sentences))}
        for images in lab.until_loaded():
            yield {**updates, images_note: run_view.images_note(images, lab.loading, lab.failure, language)}
            updates = {}

    page.load(
        load,
        inputs_kwargs={"visitor": visitor, "had_runs": had_runs},
        outputs=[visitor_notice, images_note],
        api_name="_load_notices",
        **AT_ONCE,
    )
    copy.click(None, query, None, js=permalink.copy_script(), api_name="_copy", **AT_ONCE)
    language.click(None, None, None, js=SWITCH, api_name="_language", **AT_ONCE)
    return Shared(
        page=page,
        tabs=gr.Tabs(),
        visitor=visitor,
        had_runs=had_runs,
        displayed=gr.State(Displayed()),
        notice=link_notice,
        query=query,
        chosen=gr.Textbox(visible="hidden", elem_id="chosen"),
        file=gr.DownloadButton(visible="hidden", elem_id="file", render=False),
        lists=run_list.build(),
    )


def _keep_address(shared: Shared) -> None:
    """Makes the page's address and its settings, its selected tab and its chosen run follow each other."""
    tabs = {str(tab.id): tab for tab in shared.tabs.children if isinstance(tab, gr.Tab)}
    ids, query, chosen = list(tabs), shared.query, shared.chosen
    back = gr.Button(visible="hidden", elem_id="back")
    shared.page.load(
        None, None, [shared.tabs, chosen], js=address.open_page(ids, "back"), api_name="_open_address", **AT_ONCE
    )
    back.click(None, [query, chosen], shared.tabs, js=address.go_back(ids), api_name="_go_back", **AT_ONCE)
    query.change(None, query, None, js=address.SHOW_SETTINGS, api_name="_query", **AT_ONCE)
    chosen.change(None, chosen, None, js=address.SHOW_RUN, api_name="_chosen", **AT_ONCE)
    for name, tab in tabs.items():
        tab.select(None, None, None, js=address.show_tab(ids, name), api_name=f"_tab_{name}", **AT_ONCE)


def notice(lab: Lab, visitor: str | None, had_runs: bool, run: str | None = None) -> str:
    """The notices for a visitor, as HTML: lost runs and a Space's limits; empty without any, as on one's own machine.

    `had_runs`: whether the visitor's browser remembers any runs. `run`: the one in the page's address.
    """
    language = current_language()
    notices = []
    if had_runs and not lab.runs_of(visitor):
        lost = translate(
            "Your earlier runs are gone: this app's disk was cleared, or the runs were removed as too old. "
            "You can load what you published from the Hub.",
            language,
        )
        notices.append(advice(lost))
    elif run and run not in lab.races_of(visitor):
        notices.append(advice(translate("You have no such run; it may have been deleted.", language)))
    if lab.forgets:
        forgets = "This Space loses its runs when it restarts: publish or download what you want to keep."
        notices.append(advice(translate(forgets, language)))
    if limits := _limits(lab, language):
        notices.append(note(translate("On this Space: {rules}.", language, rules=", ".join(limits))))
    return "".join(notices)


def _limits(lab: Lab, language: str) -> list[str]:
    limits = lab.limits
    templates = (
        ("up to {number} epochs per run", limits.epochs, "{:g}".format),
        ("{number} of training at a time", limits.seconds, lambda seconds: duration(seconds, language)),
        ("{number} runs per visitor", limits.runs, "{:g}".format),
        ("kept for {number} days", limits.days, "{:g}".format),
    )
    return [
        translate(template, language, number=text(limit)) for template, limit, text in templates if math.isfinite(limit)
    ]
