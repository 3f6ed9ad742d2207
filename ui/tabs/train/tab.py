"""The Train tab: its layout, the trainings that its buttons start, and its content when the page is opened."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import gradio as gr
from gradio.context import LocalContext
from gradio.events import Dependency

from trainer.errors import UserError
from trainer.runs.run import is_training
from trainer.settings.config import TrainConfig
from trainer.settings.lessons import lesson_of
from ui.i18n.language import current_language
from ui.i18n.words import i18n, translate
from ui.lab import Lab, new_visitor
from ui.parts import run_list, run_view
from ui.parts.markup import advice, note
from ui.parts.messages import BROKEN, Updates
from ui.parts.run_view import RunView
from ui.parts.shared import AT_ONCE, Shared, components
from ui.run_index import is_key
from ui.tabs.train import lr_finder, own_runs, permalink, publish, race, settings, training
from ui.tabs.train.buttons import Buttons, Training, check, start_on_click, stop_on_click
from ui.tabs.train.own_runs import OwnRuns
from ui.tabs.train.race import Race
from ui.tabs.train.settings import Lessons, Settings


@dataclass(frozen=True, kw_only=True)
class TrainTab:
    """The parts of the tab. `was_training` holds whether a run was training when the page was opened."""

    lessons: Lessons
    race: Race
    settings: Settings
    buttons: Buttons
    view: RunView
    own_runs: OwnRuns
    was_training: gr.State


def build(lab: Lab, shared: Shared) -> TrainTab:
    """Adds the tab's content to the page being built, with its events."""
    with gr.Row(elem_id="bench"):
        with gr.Column(scale=3, min_width=320, elem_id="settings"):
            lesson_list = settings.build_lessons()
            race_panel = race.build()
            panel = settings.build(lab, shared.query)
            settings.build_code(lab, panel.panel)
        with gr.Column(scale=6, min_width=320, elem_id="results"):
            with gr.Row(elem_id="buttons"):
                train = gr.Button(i18n("Train"), variant="primary", interactive=False, elem_id="train")
                stop = gr.Button(i18n("Stop"), interactive=False, elem_id="stop")
                go_classify = gr.Button(i18n("Classify a picture →"), elem_id="go-classify")
            view = run_view.build()
            own = own_runs.build(shared.lists.races)
            publish.build(lab, shared.visitor, shared.lists.races)
    tab = TrainTab(
        lessons=lesson_list,
        race=race_panel,
        settings=panel,
        buttons=Buttons(train=train, resume=own.resume, stop=stop),
        view=view,
        own_runs=own,
        was_training=gr.State(False),
    )
    go_classify.click(lambda: gr.Tabs(selected="classify"), None, shared.tabs, api_name="_go_classify", **AT_ONCE)
    lesson_chosen = settings.show_lesson_on_choice(lesson_list, panel.panel)
    settings.draw_on_change(lab, panel, race_panel, lesson_chosen)
    race.fill_on_click(race_panel, panel.panel.widgets)
    lr_finder.take_on_click(panel.finder, panel.panel)
    followed = _show_on_load(lab, tab, shared)
    own_runs.wire(lab, own, view, shared, followed=followed)
    _train_on_click(lab, tab, shared, followed=followed)
    stop_on_click(lab, shared.page, stop, shared.visitor)
    return tab


def _train_on_click(lab: Lab, tab: TrainTab, shared: Shared, *, followed: Dependency) -> None:
    """Makes the buttons start trainings.

    A training cancels `followed`, the event that follows another page's training.
    """
    view, lists, widgets = tab.view, shared.lists, tab.settings.panel.widgets

    def start(button: gr.Button, name: str, **options: Any) -> Dependency:
        job = Training(name=name, **{"status": view.status, "broken": training.BROKEN, **options})
        return start_on_click(button, job, tab.buttons, visitor=shared.visitor, cancels=followed)

    def start_runs(button: gr.Button, name: str, **options: Any) -> None:
        trained = start(button, name, outputs=components(view, lists), **options)
        own_runs.offer_epochs(lab, tab.own_runs, trained.success, shared, api_name=f"_offer_{name}", keeps=True)

    contenders = {"contenders": tab.race.contenders, "num_seeds": tab.race.num_seeds}
    for button, name, configs, inputs in (
        (tab.buttons.train, "train", training.single, widgets),
        (tab.race.start, "race", training.side_by_side, contenders),
        (tab.lessons.start, "twin", training.with_fixed, {"lesson": tab.lessons.lesson, **widgets}),
    ):
        start_runs(
            button,
            name,
            check=partial(check, lab, configs=configs),
            check_inputs=inputs,
            handler=partial(training.train, lab, view, lists, configs=configs),
            inputs=inputs,
        )
    own = tab.own_runs
    resumed = {"race": own.races, "total_epochs": own.total_epochs, "uses_settings": own.uses_settings, **widgets}
    start_runs(
        own.resume,
        "resume",
        check=partial(check, lab, configs=training.single, keeps_runs=False),
        check_inputs={"uses_settings": own.uses_settings, **widgets},
        handler=partial(training.resume, lab, view, lists),
        inputs=resumed,
    )
    finder = tab.settings.finder
    start(
        finder.search,
        "find_lr",
        check=partial(check, lab, configs=training.single, keeps_runs=False),
        check_inputs=widgets,
        handler=partial(lr_finder.find_lr, lab, finder),
        inputs=widgets,
        outputs=components(finder.status, finder.chart, finder.take, finder.suggestion),
        status=finder.status,
        broken=BROKEN,
    )


def _show_on_load(lab: Lab, tab: TrainTab, shared: Shared) -> Dependency:
    """Fills the tab when the page is opened; returns the event that follows another page's training."""
    loaded = shared.page.load(
        partial(load, lab, tab, shared),
        inputs_kwargs={"visitor": shared.visitor},
        outputs=components(
            shared.visitor,
            shared.lists,
            shared.notice,
            tab.was_training,
            tab.buttons.train,
            tab.view,
            tab.settings.finder.chart,
            tab.settings.preview,
            tab.settings.panel,
            tab.lessons,
            (tab.race.panel, tab.race.contenders, tab.race.num_seeds),
        ),
        api_name="_load",
        **AT_ONCE,
    )
    return loaded.success(
        partial(training.follow, lab, tab.view, shared.lists),
        inputs_kwargs={"visitor": shared.visitor, "was_training": tab.was_training},
        outputs=components(tab.view, shared.lists),
        api_name="_follow",
        **AT_ONCE,
    )


def load(lab: Lab, tab: TrainTab, shared: Shared, visitor: str | None) -> Updates:
    """Updates for a page that is opened: the visitor's key, their latest race, and the settings of the link."""
    visitor = visitor if is_key(visitor) else new_visitor()
    language = current_language()
    request = LocalContext.request.get(None)
    latest, runs = run_list.latest(lab, visitor)
    return {
        shared.visitor: visitor,
        tab.was_training: is_training(runs),
        **tab.view.show(runs, lab.images, language),
        **shared.lists.offer(lab, visitor, latest),
        tab.buttons.train: gr.update(interactive=True),  # only now, as it needs the visitor's key
        tab.settings.finder.chart: lr_finder.empty_chart(language),
        **open_link(lab, tab, shared.notice, dict(request.query_params) if request else {}),
    }


def open_link(lab: Lab, tab: TrainTab, notice: gr.HTML, query: Mapping[str, str]) -> Updates:
    """Updates that show the settings and the race of a link, or a notice that explains what is wrong with it."""
    language = current_language()
    preview = tab.settings.preview
    try:
        link = permalink.read(query)
        if link is None:
            return preview.show(lab, TrainConfig())
        tab.settings.panel.check_fits(link.config)
    except UserError as error:
        wrong = gr.update(value=advice(translate(str(error), language)), visible=True)
        return {notice: wrong, **preview.show(lab, TrainConfig())}
    try:
        drawn = preview.show(lab, link.config, link.race, link.num_seeds)
    except UserError as error:  # valid settings that do not fit these pictures or this number of epochs
        drawn = preview.explain(error)
    lesson = lesson_of(link.config)
    updates: Updates = {
        **drawn,
        **tab.settings.panel.show(link.config),
        **tab.lessons.show(lesson),
        tab.lessons.lesson: lesson.name if lesson else "",
        tab.race.num_seeds: link.num_seeds,
    }
    if link.race:
        sentence = translate("This link contains a race: press Start the race to train it.", language)
        updates |= {
            notice: gr.update(value=note(sentence), visible=True),
            tab.race.panel: gr.update(open=True),
            tab.race.contenders: race.list_contenders([replace(config, seed=0) for config in link.race]),
        }
    return updates
