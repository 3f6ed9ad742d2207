"""The Sweep tab: its layout, what its buttons do, and its content when it is opened."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import gradio as gr

from trainer.errors import UserError
from trainer.runs import run_folder
from trainer.settings.config import TrainConfig
from trainer.sweeps import chart
from trainer.sweeps.folder import to_csv
from ui.address import current_query
from ui.i18n.language import current_language
from ui.i18n.words import i18n, in_browser, translate
from ui.jobs.sweeps import SweepJob
from ui.lab import Lab
from ui.parts.markup import advice
from ui.parts.messages import Updates, with_page_errors
from ui.parts.run.run_list import download_path
from ui.parts.shared import AT_ONCE, Inputs, Shared, components, sent_with
from ui.run_index import is_key
from ui.tabs.sweep import live, panel, plan, results
from ui.tabs.sweep.live import RECORDED, Displayed, SweepPage
from ui.tabs.sweep.panel import PlanPanel
from ui.tabs.sweep.results import Shown
from ui.tabs.train.buttons import STARTS, answered, refusal, refuse_beside
from ui.tabs.train.tab import TrainTab
from ui.visitors import checked_visitor

_SECONDS_BETWEEN_TICKS = 2.0
_LONGER = 10  # epochs
# `read_plan` checks all values, and reports a wrong one next to Start; Gradio would show a message elsewhere.
_UNCHECKED: dict[str, Any] = {"preprocess": False, **AT_ONCE}


def build(lab: Lab, tab: gr.Tab, shared: Shared, train: TrainTab) -> None:
    """Adds the tab's content and its events to the page being built; `train` takes the settings of a pressed point."""
    with gr.Row(elem_id="sweep"):
        with gr.Column(scale=3, min_width=320, elem_id="sweep-plan"):
            line = gr.HTML(elem_id="sweep-cost", render=False)
            widgets = panel.build(line, shared.plan)
        with gr.Column(scale=6, min_width=320, elem_id="sweep-results"):
            with gr.Row(elem_id="sweep-buttons"):
                start = gr.Button(i18n("Start"), variant="primary", interactive=False, elem_id="sweep-start", **STARTS)
                stop = gr.Button(i18n("Stop"), interactive=False, elem_id="sweep-stop")
                resume = gr.Button(i18n("Resume"), visible=False, elem_id="sweep-resume", **STARTS)
            refused = refusal("refused-sweep")
            line.render()
            status = gr.HTML(elem_id="sweep-status")
            view = results.build()
            with gr.Group(visible=False, elem_id="own-sweeps") as own_group:
                own = gr.Dropdown(
                    [], label=i18n("Your sweeps"), info=i18n("Only this browser can see them."), elem_id="sweeps"
                )
                delete = gr.Button(i18n("Delete sweep"), size="sm", elem_id="delete-sweep")
    page = SweepPage(
        start=start,
        stop=stop,
        resume=resume,
        status=status,
        results=view,
        own=own,
        delete=delete,
        own_group=own_group,
    )
    displayed = gr.State(Displayed())
    clock = gr.Timer(_SECONDS_BETWEEN_TICKS, active=False)
    visit: Inputs = {"visitor": shared.visitor, "displayed": displayed}
    pricing: dict[str, Any] = {
        "fn": partial(panel.price, lab, widgets),
        "inputs_kwargs": {"visitor": shared.visitor, "turn": gr.State([0]), **widgets.inputs},
        "outputs": [widgets.line, widgets.link],
        **_UNCHECKED,
    }
    _price_on_change(widgets, pricing)
    _open(lab, tab, shared, widgets, page, clock, visit, refused, pricing)
    _start_on_click(lab, page, clock, visit, refused, widgets)
    _show_on_choice(lab, page, visit)
    _save_on_click(lab, page, shared, visit)
    _train_longer_on_click(lab, page, shared, train, visit)
    _show_lesson_on_click(lab, page, clock, shared, train, visit)


def _price_on_change(widgets: PlanPanel, pricing: dict[str, Any]) -> None:
    """Makes the line on the plan's cost and the address follow the widgets."""
    for prefix, one in (("across", widgets.across), ("down", widgets.down)):
        one.name.input(
            one.choose,
            inputs_kwargs={"name": one.name},
            outputs=components(one),
            api_name=f"_sweep_{prefix}",
            **AT_ONCE,
        )
    # On change, as the sliders set the numbers, and a chosen setting sets its range.
    changed = [widget.change for widget in widgets.inputs.values()]
    gr.on(changed, trigger_mode="multiple", api_name="_price", **pricing)


def _open(
    lab: Lab,
    tab: gr.Tab,
    shared: Shared,
    widgets: PlanPanel,
    page: SweepPage,
    clock: gr.Timer,
    visit: Inputs,
    refused: gr.HTML,
    pricing: dict[str, Any],
) -> None:
    """Makes the page show the plan of its address, and the tab the visitor's sweep from when it is opened."""

    def open_page(visitor: str | None) -> Updates:
        updates: Updates = {}
        job = lab.jobs.of(visitor, SweepJob) if is_key(visitor) else None
        if job and job.is_active:  # it counts as watched while the page is open, whatever its tab
            updates[clock] = gr.update(active=True)
        if text := current_query().get("plan"):
            try:
                updates |= widgets.show(plan.read(text))
            except UserError as error:
                words = advice(translate(str(error), current_language()))
                updates[refused] = gr.update(value=words, visible=True)
        return updates or gr.skip()

    shared.page.load(
        open_page,
        inputs_kwargs={"visitor": shared.visitor},
        outputs=components(clock, widgets, refused),
        api_name="_open_sweep",
        **AT_ONCE,
    )

    def open_tab(visitor: str | None, displayed: Displayed) -> Updates:
        displayed.sent.clear()
        return {clock: gr.update(active=True), **live.show(lab, page, visitor, displayed)}

    opened = tab.select(
        open_tab, inputs_kwargs=dict(visit), outputs=components(clock, page), api_name="_sweep", **AT_ONCE
    )
    opened.then(api_name="_price_opened", **pricing)
    # `once`: while the page watches, ticks are ignored.
    clock.tick(
        partial(live.watch, lab, page),
        inputs_kwargs=dict(visit),
        outputs=components(page),
        trigger_mode="once",
        api_name="_watch_sweep",
        **AT_ONCE,
    )


def _start_on_click(
    lab: Lab, page: SweepPage, clock: gr.Timer, visit: Inputs, refused: gr.HTML, widgets: PlanPanel
) -> None:
    """Makes the buttons start, resume, stop and delete sweeps."""

    def start(*, visitor: str, displayed: Displayed, **values: Any) -> Updates:
        chosen = panel.read_plan(**values)
        images = lab.chosen_images(checked_visitor(visitor)) or lab.ready_images()
        lab.sweep(visitor, chosen.settings(images), chosen.axes())
        displayed.sweep, displayed.picked = None, None
        return {clock: gr.update(active=True), **live.show(lab, page, visitor, displayed)}

    def resume(*, visitor: str, displayed: Displayed, key: str | None) -> Updates:
        lab.resume_sweep(checked_visitor(visitor), key)
        displayed.sweep = key
        return {clock: gr.update(active=True), **live.show(lab, page, visitor, displayed)}

    def delete(*, visitor: str, displayed: Displayed, key: str | None) -> Updates:
        if key is None:  # the visitor has not confirmed
            return {}
        run_folder.delete(lab.runs.own_sweep(visitor, key))
        displayed.sweep, displayed.picked = None, None
        return live.show(lab, page, visitor, displayed)

    outputs = components(clock, page, refused)
    started = page.start.click(
        refuse_beside(refused, start),
        inputs_kwargs={**visit, **widgets.inputs},
        outputs=outputs,
        api_name="_start_sweep",
        **_UNCHECKED,
    )
    resumed = page.resume.click(
        refuse_beside(refused, resume),
        inputs_kwargs={**visit, "key": page.own},
        outputs=outputs,
        api_name="_resume_sweep",
        **AT_ONCE,
    )
    answered(started)
    answered(resumed)
    question = in_browser("Delete this sweep with all its runs?")
    page.delete.click(
        refuse_beside(refused, delete),
        inputs_kwargs={**visit, "key": page.own},
        outputs=outputs,
        js=f"(visitor, displayed, key) => [visitor, displayed, key && confirm({question}) ? key : null]",
        api_name="_delete_sweep",
        **AT_ONCE,
    )

    @with_page_errors
    def stop(visitor: str) -> Any:
        lab.jobs.stop(checked_visitor(visitor), SweepJob)
        return gr.update(value=translate("Stopping …", current_language()), interactive=False)

    page.stop.click(stop, visit["visitor"], page.stop, api_name="_stop_sweep", **AT_ONCE)


def _show_on_choice(lab: Lab, page: SweepPage, visit: Inputs) -> None:
    """Makes the views, the target, the list of sweeps and the points of the chart choose what is shown."""

    def on(event: Callable[..., Any], change: Callable[..., None], name: str, inputs: Inputs) -> None:
        @with_page_errors
        def choose(*, visitor: str, displayed: Displayed, **chosen: Any) -> Updates:
            change(displayed, visitor, **chosen)
            return live.show(lab, page, visitor, displayed)

        event(
            choose,
            inputs_kwargs={**visit, **inputs},
            outputs=components(page),
            trigger_mode="always_last",
            api_name=name,
            **AT_ONCE,
        )

    def choose_view(displayed: Displayed, visitor: str, view: str | None) -> None:
        displayed.view = view or results.LOSS

    def choose_target(displayed: Displayed, visitor: str, target: float) -> None:
        displayed.target = target / 100

    def choose_sweep(displayed: Displayed, visitor: str, key: str | None) -> None:
        if key and key != RECORDED:
            lab.runs.own_sweep(visitor, key)
        displayed.sweep, displayed.picked = key, None

    def pick(displayed: Displayed, visitor: str, picked: str | None) -> None:
        displayed.picked = picked

    view = page.results
    on(view.view.input, choose_view, "_sweep_view", {"view": view.view})
    on(view.target.input, choose_target, "_sweep_target", {"target": view.target})
    on(page.own.input, choose_sweep, "_show_sweep", {"key": page.own})
    on(view.picked.input, pick, "_pick", {"picked": view.picked})

    @with_page_errors
    def press(visitor: str, displayed: Displayed, event: gr.EventData) -> Updates:
        pressed = sent_with(event, "press")
        displayed.picked = pressed if isinstance(pressed, str) else None
        return live.show(lab, page, visitor, displayed)

    view.chart.select(press, inputs_kwargs=dict(visit), outputs=components(page), api_name="_press", **AT_ONCE)


def _save_on_click(lab: Lab, page: SweepPage, shared: Shared, visit: Inputs) -> None:
    """Makes the buttons download the sweep that the page shows as CSV and as SVG."""

    @with_page_errors
    def save(name: str, draw: Callable[[Shown], str], visitor: str, displayed: Displayed) -> str:
        shown = live.shown_sweep(lab, visitor if is_key(visitor) else None, displayed)
        if shown is None or not shown.ended:
            raise UserError("There is nothing to save yet: no run has ended.")
        path = download_path(name)
        path.write_text(draw(shown), encoding="utf-8")
        return str(path)

    for button, name, draw in (
        (page.results.csv, "optimizer-lab-sweep.csv", lambda shown: to_csv(shown.axes, shown.ended)),
        (page.results.svg, "optimizer-lab-sweep.svg", lambda shown: chart.draw(shown.ended, shown.axes)),
    ):
        suffix = Path(name).suffix[1:]
        shared.download_on_click(button, partial(save, name, draw), visit, api_name=f"_sweep_{suffix}")


def _train_longer_on_click(lab: Lab, page: SweepPage, shared: Shared, train: TrainTab, visit: Inputs) -> None:
    """Makes the button fill the Train tab with the settings of the runs that are shown, and select that tab."""

    @with_page_errors
    def train_longer(visitor: str, displayed: Displayed) -> Updates:
        shown = live.shown_sweep(lab, visitor if is_key(visitor) else None, displayed)
        cell = next(iter(shown.members(displayed.picked)), None) if shown else None
        if cell is None:
            raise UserError("There is nothing to train yet: no run has ended an epoch.")
        config: TrainConfig = cell.config.changed({"epochs": max(_LONGER, cell.config.epochs), "seed": 0})
        train.settings.panel.check_fits(config)
        return {
            shared.tabs: gr.Tabs(selected="train"),
            **train.settings.panel.show(config),
            **train.settings.preview.show(lab.shown_images(visitor), config, lab.paces),
            **train.lessons.show(None),
        }

    page.results.longer.click(
        train_longer,
        inputs_kwargs=dict(visit),
        outputs=components(shared.tabs, train.settings.panel, train.settings.preview, train.lessons),
        api_name="_train_longer",
        **AT_ONCE,
    )


def _show_lesson_on_click(
    lab: Lab, page: SweepPage, clock: gr.Timer, shared: Shared, train: TrainTab, visit: Inputs
) -> None:
    """Makes the button of a lesson that is a sweep show the recorded sweep, and select this tab."""

    def show_recorded(visitor: str | None, displayed: Displayed) -> Updates:
        displayed.sweep, displayed.picked = RECORDED, None
        displayed.sent.clear()
        return {
            shared.tabs: gr.Tabs(selected="sweep"),
            clock: gr.update(active=True),
            **live.show(lab, page, visitor, displayed),
        }

    train.lessons.sweep.click(
        show_recorded,
        inputs_kwargs=dict(visit),
        outputs=components(shared.tabs, clock, page),
        api_name="_show_lesson_sweep",
        **AT_ONCE,
    )
