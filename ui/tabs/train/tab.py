"""The Train tab: its layout, the trainings that its buttons start, and its content when the page is opened."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import gradio as gr

from trainer.errors import UserError
from trainer.images.image_data import ImageData
from trainer.jobs.pace import Pace
from trainer.settings.lessons import lesson_of
from trainer.settings.presets import FIRST
from ui.address import current_query
from ui.i18n.language import current_language
from ui.i18n.words import i18n, translate
from ui.lab import Lab
from ui.parts.form.fold import open_on_click
from ui.parts.form.help import show_on_focus
from ui.parts.markup import advice, note
from ui.parts.messages import Updates
from ui.parts.run import run_view
from ui.parts.run.run_view import RunView
from ui.parts.shared import AT_ONCE, Displayed, Inputs, Shared, components
from ui.run_index import is_key
from ui.tabs.train import live, own_runs, publish, training
from ui.tabs.train.buttons import STARTS, Buttons, answered, refusal, refuse_beside, stop_on_click, wait_on_click
from ui.tabs.train.live import LiveView
from ui.tabs.train.own_runs import OwnRuns
from ui.tabs.train.setup import lessons, lr_finder, permalink, pictures, race, settings
from ui.tabs.train.setup.lessons import Lessons
from ui.tabs.train.setup.race import Race
from ui.tabs.train.setup.settings import Settings
from ui.tabs.train.training import side_by_side, with_comparisons
from ui.visitors import new_visitor

_SECONDS_BETWEEN_TICKS = 2.0


@dataclass(frozen=True, kw_only=True)
class TrainTab:
    """The parts of the tab. `clock` ticks while the page is open, `refused` says why Train did not start a job."""

    lessons: Lessons
    race: Race
    settings: Settings
    buttons: Buttons
    view: RunView
    own_runs: OwnRuns
    clock: gr.Timer
    refused: gr.HTML
    live: LiveView


def build(lab: Lab, shared: Shared) -> TrainTab:
    """Adds the tab's content to the page being built, with its events."""
    cards = lessons.build_cards()
    with gr.Row(elem_id="bench"):
        with gr.Column(scale=3, min_width=320, elem_id="settings"):
            with gr.Row(elem_id="buttons"):
                train = gr.Button(
                    i18n("Train"),
                    variant="primary",
                    interactive=False,
                    scale=3,
                    min_width=90,
                    elem_id="train",
                    **STARTS,
                )
                stop = gr.Button(i18n("Stop"), interactive=False, scale=1, min_width=60, elem_id="stop")
                add = gr.Button(i18n("+ Race"), scale=1, min_width=70, elem_id="add-to-race")
            refused = refusal("refused-train")
            picture_choice = pictures.build(shared.images_note)
            lesson_panel = lessons.build(cards)
            panel = settings.build(lab, shared.query)
            race_panel = race.build(add)
            settings.build_code(lab, panel.panel, shared.visitor)
        with gr.Column(scale=6, min_width=320, elem_id="results"):
            view = run_view.build()
            go_classify = gr.Button(i18n("Classify a picture →"), size="sm", elem_id="go-classify")
            own = own_runs.build(shared.lists.races)
            publish.build(lab, shared.visitor, shared.lists.races)
    buttons = Buttons(train=train, resume=own.resume, stop=stop)
    tab = TrainTab(
        lessons=lesson_panel,
        race=race_panel,
        settings=panel,
        buttons=buttons,
        view=view,
        own_runs=own,
        clock=gr.Timer(_SECONDS_BETWEEN_TICKS, active=False),
        refused=refused,
        live=LiveView(
            view=view,
            lists=shared.lists,
            buttons=buttons,
            finder=panel.finder,
            ended=gr.State(None),
            chosen=shared.chosen,
        ),
    )
    go_classify.click(lambda: gr.Tabs(selected="classify"), None, shared.tabs, api_name="_go_classify", **AT_ONCE)
    run_view.act_on_click(view)
    lesson_chosen = lessons.show_on_choice(lesson_panel, panel.panel)
    lessons.mark_cards(lesson_panel, view)
    live.clear_on_lesson(lesson_panel.lesson, shared.displayed)
    preset_chosen = settings.show_preset_on_click(lesson_panel, panel)
    reset = settings.reset_on_click(panel)
    pictures_chosen = pictures.wire(lab, picture_choice, shared, panel.panel)
    raced = race.fill_on_click(race_panel, panel.panel.widgets)
    taken = lr_finder.take_on_click(panel.finder, panel.panel)
    chosen = [*pictures_chosen, *lesson_chosen, *preset_chosen, reset, *raced, taken]
    settings.draw_on_change(lab, panel, race_panel, shared.visitor, chosen)
    _show_on_load(lab, tab, shared)
    own_runs.wire(lab, own, tab.live, shared)
    _start_on_click(lab, tab, shared)
    stop_on_click(lab, stop, shared.visitor)
    wait_on_click(shared.page)
    open_on_click(shared.page)
    show_on_focus(shared.page)
    return tab


def _start_on_click(lab: Lab, tab: TrainTab, shared: Shared) -> None:
    """Makes the buttons start jobs, and show them at once."""
    widgets, own, finder = tab.settings.panel.widgets, tab.own_runs, tab.settings.finder

    def on_click(button: gr.Button, name: str, start: Callable[..., None], place: gr.HTML, inputs: Inputs) -> None:
        def begin(*, visitor: str, displayed: Displayed, **values: Any) -> Updates:
            start(lab, visitor=visitor, **values)
            displayed.race, displayed.lesson = None, ""
            # What it says of the page's link has been done, or no longer matters.
            return {shared.notice: gr.update(visible=False), **live.show(lab, tab.live, visitor, displayed)}

        click = button.click(
            refuse_beside(place, begin),
            inputs_kwargs={"visitor": shared.visitor, "displayed": shared.displayed, **inputs},
            outputs=components(place, shared.notice, tab.live),
            api_name=f"_{name}",
            **AT_ONCE,
        )
        answered(click)

    contenders = {"contenders": tab.race.contenders, "num_seeds": tab.race.num_seeds}
    lesson = {"lesson": tab.lessons.lesson, **widgets}
    on_click(tab.buttons.train, "train", training.train, tab.refused, widgets)
    on_click(tab.race.start, "race", partial(training.train, configs=side_by_side), tab.race.refused, contenders)
    of_lesson = partial(training.train, configs=with_comparisons)
    on_click(tab.lessons.start, "train_lesson", of_lesson, tab.lessons.refused, lesson)
    on_click(finder.search, "find_lr", lr_finder.find_lr, finder.refused, widgets)
    own_runs.resume_on_click(lab, own, tab.live, shared, widgets)


def _show_on_load(lab: Lab, tab: TrainTab, shared: Shared) -> None:
    """Fills the tab when the page is opened, and keeps it up to date from then on."""
    shared.page.load(
        partial(load, lab, tab, shared),
        inputs_kwargs={"visitor": shared.visitor, "displayed": shared.displayed},
        outputs=components(
            shared.visitor,
            shared.notice,
            tab.live,
            tab.clock,
            tab.settings.preview,
            tab.settings.panel,
            tab.lessons,
            (tab.race.panel, tab.race.contenders, tab.race.num_seeds),
        ),
        api_name="_load",
        **AT_ONCE,
    )
    # `once`: while the page watches, ticks are ignored. After a lost connection or a phone's sleep, one watches again.
    tab.clock.tick(
        partial(live.watch, lab, tab.live),
        inputs_kwargs={"visitor": shared.visitor, "displayed": shared.displayed},
        outputs=components(tab.live),
        trigger_mode="once",
        api_name="_watch",
        **AT_ONCE,
    )


def load(lab: Lab, tab: TrainTab, shared: Shared, visitor: str | None, displayed: Displayed) -> Updates:
    """Updates for a page that is opened: the visitor's key, the settings of the link, and the race to display.

    That is the one in the address or, without one of the visitor's own there, their latest.
    """
    visitor = visitor if is_key(visitor) else new_visitor()
    query = current_query()
    run = query.get("run")
    linked = open_link(tab, shared.notice, lab.shown_images(visitor), lab.paces, query)
    displayed.race = run if run in lab.runs.races_of(visitor) else None
    displayed.lesson = linked.get(tab.lessons.lesson, "")
    return {
        shared.visitor: visitor,
        tab.lessons.cards: lessons.cards(current_language(), lab.paces),
        tab.clock: gr.update(active=True),  # only now, as watching needs the visitor's key
        **live.show(lab, tab.live, visitor, displayed),
        **linked,
    }


def open_link(
    tab: TrainTab, notice: gr.HTML, images: ImageData | None, paces: Mapping[str, Pace], query: Mapping[str, str]
) -> Updates:
    """Updates that show the settings and the race of a link, or a notice that explains what is wrong with it."""
    language = current_language()
    preview = tab.settings.preview
    try:
        link = permalink.read(query)
        if link is None:
            config = FIRST.changed(pictures.suited_settings(images)) if images else FIRST
            changed = tab.settings.panel.show(config) if config != FIRST else {}
            return {**preview.show(images, config, paces), **changed}
        tab.settings.panel.check_fits(link.config)
    except UserError as error:
        wrong = gr.update(value=advice(translate(str(error), language)), visible=True)
        return {notice: wrong, **preview.show(images, FIRST, paces)}
    lesson = lesson_of(link.config)
    updates: Updates = {
        **preview.show(images, link.config, paces, link.race, link.num_seeds),
        **tab.settings.panel.show(link.config),
        **tab.lessons.show(lesson),
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
