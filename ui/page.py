"""The page: its header and notices, its tabs, and the components that they share."""

import math
from collections.abc import Iterator
from typing import Any

import gradio as gr

from ui import address, api
from ui.charts import live
from ui.cleaning import SECONDS_UPLOADED
from ui.i18n.language import SWITCH, current_language
from ui.i18n.words import i18n, in_browser, translate
from ui.lab import Lab
from ui.look.theme import FONT
from ui.parts import keyboard
from ui.parts.markup import advice, duration, english, note
from ui.parts.messages import Updates
from ui.parts.run import run_list, run_view
from ui.parts.shared import AT_ONCE, Displayed, Shared
from ui.server.malformed import Page
from ui.tabs import compare, gallery
from ui.tabs.classify import tab as classify
from ui.tabs.inside import tab as inside
from ui.tabs.sweep import tab as sweep
from ui.tabs.train import tab as train
from ui.tabs.train.setup import permalink

_LOST_CONNECTION = """() => new MutationObserver(() => {
  for (const toast of document.querySelectorAll("[data-testid=toast-text]"))
    if (toast.textContent.startsWith("Connection to the server was lost")) toast.textContent = SENTENCE;
}).observe(document.querySelector(".toast-wrap"), { childList: true, subtree: true })"""

_HEADER = (
    """<header><h1>Optimizer Lab</h1>
<p>"""
    + i18n("Train a small network on ten kinds of pictures and see what the optimizer and the learning rate do.")
    + "</p></header>"
)


def build_page(lab: Lab) -> gr.Blocks:
    """Builds the page and the public endpoints for a Lab; launch it with the theme and style of `ui.look`."""
    gr.set_static_paths([live.static_path(), FONT])
    with Page(title="Optimizer Lab", analytics_enabled=False, delete_cache=(3600, SECONDS_UPLOADED)) as page:
        shared = _build_top(lab, page)
        with shared.tabs:
            with gr.Tab(i18n("Train"), id="train"):
                train_tab = train.build(lab, shared)
            with gr.Tab(i18n("Sweep"), id="sweep") as sweep_tab:
                sweep.build(lab, sweep_tab, shared, train_tab)
            with gr.Tab(i18n("Inside"), id="inside") as inside_tab:
                view = inside.build(lab, inside_tab, shared)
            with gr.Tab(i18n("Classify"), id="classify") as classify_tab:
                classify.build(lab, classify_tab, shared)
            with gr.Tab(i18n("Compare"), id="compare") as compare_tab:
                compare.build(lab, compare_tab, shared)
            with gr.Tab(i18n("Gallery"), id="gallery") as gallery_tab:
                gallery.build(lab, gallery_tab, shared, train_tab.view)
        _keep_address(shared, view)
        _explain_lost_connection(page)
        keyboard.wire(page)
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
    images_note = gr.HTML(english(run_view.images_note(lab.images, lab.loading, lab.failure, "en")), elem_id="note")
    link_notice = gr.HTML(visible=False, elem_id="notice")
    visitor_notice = gr.HTML(visible=False, elem_id="known")
    query, plan = (gr.Textbox(visible="hidden", elem_id=name) for name in ("query", "plan"))

    def load(visitor: str | None, had_runs: Any) -> Iterator[Updates]:
        language = current_language()
        sentences = notice(lab, visitor, had_runs is True, address.current_query().get("run"))
        updates: Updates = {visitor_notice: gr.update(value=sentences, visible=bool(sentences))}
        for _ in lab.until_loaded():
            images = lab.shown_images(visitor)
            yield {**updates, images_note: run_view.images_note(images, lab.loading, lab.failure, language)}
            updates = {}

    page.load(
        load,
        inputs_kwargs={"visitor": visitor, "had_runs": had_runs},
        outputs=[visitor_notice, images_note],
        api_name="_load_notices",
        **AT_ONCE,
    )
    copy.click(None, [query, plan], None, js=permalink.copy_script(), api_name="_copy", **AT_ONCE)
    language.click(None, None, None, js=SWITCH, api_name="_language", **AT_ONCE)
    return Shared(
        page=page,
        tabs=gr.Tabs(),
        visitor=visitor,
        had_runs=had_runs,
        displayed=gr.State(Displayed()),
        notice=link_notice,
        images_note=images_note,
        query=query,
        plan=plan,
        chosen=gr.Textbox(visible="hidden", elem_id="chosen"),
        file=gr.DownloadButton(visible="hidden", elem_id="file", render=False),
        lists=run_list.build(),
    )


def _keep_address(shared: Shared, view: gr.Radio) -> None:
    """Makes the page's address and its settings, its selected tab and its chosen run follow each other.

    `view` chooses among the views of the Inside tab.
    """
    tabs = {str(tab.id): tab for tab in shared.tabs.children if isinstance(tab, gr.Tab)}
    ids, query, plan, chosen = list(tabs), shared.query, shared.plan, shared.chosen
    views = [str(name) for _, name in view.choices]
    back = gr.Button(visible="hidden", elem_id="back")
    opening = address.open_page(ids, views, "back")
    shared.page.load(None, None, [shared.tabs, chosen, view], js=opening, api_name="_open_address", **AT_ONCE)
    unchanged = [query, chosen, plan, view]
    back.click(None, unchanged, shared.tabs, js=address.go_back(ids, views), api_name="_go_back", **AT_ONCE)
    query.change(None, query, None, js=address.SHOW_SETTINGS, api_name="_query", **AT_ONCE)
    chosen.change(None, chosen, None, js=address.SHOW_RUN, api_name="_chosen", **AT_ONCE)
    plan.change(None, plan, None, js=address.SHOW_PLAN, api_name="_plan", **AT_ONCE)
    view.change(None, view, None, js=address.show_view(views), api_name="_view", **AT_ONCE)
    for name, tab in tabs.items():
        tab.select(None, None, None, js=address.show_tab(ids, name), api_name=f"_tab_{name}", **AT_ONCE)


def _explain_lost_connection(page: gr.Blocks) -> None:
    """Makes the page say in its language that the app does not answer.

    Gradio notices it, and loads the page again once the app answers, but its own sentence is always English.
    """
    sentence = in_browser("The app does not answer. This page goes on by itself once it does.")
    page.load(
        None, None, None, js=_LOST_CONNECTION.replace("SENTENCE", sentence), api_name="_lost_connection", **AT_ONCE
    )


def notice(lab: Lab, visitor: str | None, had_runs: bool, run: str | None = None) -> str:
    """The notices for a visitor, as HTML: lost runs and a Space's limits; empty without any, as on one's own machine.

    `had_runs`: whether the visitor's browser remembers any runs. `run`: the one in the page's address.
    """
    language = current_language()
    notices = []
    if had_runs and not lab.runs.of(visitor):
        lost = translate(
            "Your earlier runs are gone: this app's disk was cleared, or the runs were removed as too old. "
            "You can load what you published from the Hub.",
            language,
        )
        notices.append(advice(lost))
    elif run and run not in lab.runs.races_of(visitor):
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
        ("{number} runs per sweep", limits.cells, "{:g}".format),
        ("kept for {number} days", limits.days, "{:g}".format),
    )
    return [
        translate(template, language, number=text(limit)) for template, limit, text in templates if math.isfinite(limit)
    ]
