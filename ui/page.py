"""The page: what stands where, and which press does what."""

from functools import partial
from pathlib import Path

import gradio as gr
from gradio.events import Dependency

from trainer.learning.race import MAX_SEEDS, MAX_SETTINGS
from trainer.settings.config import TrainConfig
from trainer.settings.optimizers import OPTIMIZERS
from trainer.settings.schedulers import SCHEDULERS
from ui import api
from ui.charts import run_charts
from ui.charts.lr_finder import finder_chart
from ui.cleaning import SECONDS_UPLOADED
from ui.i18n.language import SWITCH
from ui.i18n.words import i18n, in_browser
from ui.lab import Lab
from ui.opening import follow, load
from ui.parts import fields, permalink, run_list, run_view
from ui.parts.messages import waiting
from ui.parts.notice import remember
from ui.queue import TRAINING
from ui.tabs import bench, classify, compare, gallery, publish, time_machine
from ui.tabs import train as training

STYLE = (Path(__file__).parent / "style.css").read_text()

_HEADER = (
    """<header><h1>Optimizer Lab</h1>
<p>"""
    + i18n("Train a small network on ten kinds of pictures; see what optimizer and learning rate do to it.")
    + "</p></header>"
)

_PRIVATE = {"api_visibility": "private"}
# Events that never wait in line behind a training. They go through the queue all the same: without it a sentence that
# is raised does not reach the visitor.
_AT_ONCE = {**_PRIVATE, "concurrency_limit": None, "show_progress": "hidden"}


def build_page(lab: Lab) -> gr.Blocks:
    """The page and the public endpoints over one Lab; launch it with `STYLE` as its css."""
    gr.set_static_paths([run_charts.static_path()])
    with gr.Blocks(title="Optimizer Lab", analytics_enabled=False, delete_cache=(3600, SECONDS_UPLOADED)) as page:
        # The secret is in the page and protects nothing; a fixed one lets a browser remember across restarts.
        visitor = gr.BrowserState(None, storage_key="optimizer-lab-visitor", secret="optimizer-lab")  # noqa: S106
        had_runs = gr.BrowserState(False, storage_key="optimizer-lab-runs", secret="optimizer-lab")  # noqa: S106
        with gr.Row(elem_id="top"):
            gr.HTML(_HEADER, elem_id="header")
            copy = gr.Button(i18n("Copy link"), size="sm", elem_id="copy-link", scale=0, min_width=110)
            language = gr.Button(i18n("中文"), size="sm", elem_id="language", scale=0, min_width=90)
        note = gr.HTML(run_view.images_note(lab.images, lab.loading, lab.failure, "en"), elem_id="note")
        notice = gr.HTML(visible=False, elem_id="notice")
        known = gr.HTML(visible=False, elem_id="known")
        query = gr.Textbox(visible="hidden", elem_id="query")
        with gr.Tabs() as tabs:
            with gr.Tab(i18n("Train"), id="train"), gr.Row(elem_id="bench"):
                with gr.Column(scale=3, min_width=320, elem_id="settings"):
                    lesson, words, fixed = _lessons()
                    race_panel, race, seeds, race_buttons, every = _race()
                    panel, row_chosen, preview, word, finder = _settings(lab)
                    show_code, script = _script("code")
                with gr.Column(scale=6, min_width=320, elem_id="results"):
                    with gr.Row(elem_id="buttons"):
                        train = gr.Button(i18n("Train"), variant="primary", interactive=False, elem_id="train")
                        stop = gr.Button(i18n("Stop"), interactive=False, elem_id="stop")
                        go_classify = gr.Button(i18n("Classify a picture →"), elem_id="go-classify")
                    results = _results()
                    runs, epochs, anew, resume, download, delete = _own_runs()
                    publish.add_panel(lab, visitor, runs)
            with gr.Tab(i18n("Compare"), id="compare") as compare_tab:
                compared, measure, comparison_parts, export, compared_code, compared_script = _comparison()
            with gr.Tab(i18n("Classify a picture"), id="classify"):
                checkpoint, says, samples = _classifier(lab)
            with gr.Tab(i18n("Time machine"), id="time-machine") as time_tab:
                time_machine.build(lab, time_tab, visitor)
            gallery_tab = gr.Tab(i18n("Gallery"), id="gallery")
        file = gr.DownloadButton(visible="hidden", elem_id="file")

        names = tuple(panel.widgets)
        settings = list(panel.widgets.values())
        shown = [*results, runs, checkpoint, compared]
        race_inputs = [race, seeds, lesson]
        add, start, lab_button = race_buttons
        search, found, tried, take = finder
        suggested = gr.State(None)

        drawn = [preview, word, query]
        goes_on = gr.State(False)
        loaded = page.load(
            partial(load, lab, panel),
            [visitor, had_runs],
            [visitor, known, goes_on, note, says, *shown, samples, train, tried, notice, *drawn, lesson, words, fixed,
             race_panel, race, seeds, *panel.components],
            api_name="_load", **_AT_ONCE,
        )  # fmt: skip
        followed = loaded.success(partial(follow, lab), [visitor, goes_on], shown, api_name="_follow", **_AT_ONCE)
        lesson_chosen = lesson.input(
            partial(bench.choose_lesson, panel=panel), lesson, [words, fixed, *panel.components],
            api_name="_lesson", **_AT_ONCE,
        )  # fmt: skip
        draws = partial(bench.draw_preview, lab, names=names)
        # It computes, up to a second: a crowd that draws must leave the others some of the processor.
        drawing = {**_AT_ONCE, "concurrency_id": "draw", "concurrency_limit": 2}
        # Not at every change: a lesson, which sets all widgets at once, would draw as often as there are widgets.
        # Nor when a row is chosen, before its own settings stand there.
        typed = [
            widget.change if name in panel.powers else widget.input
            for name, widget in panel.widgets.items()
            if name not in panel.abouts
        ]
        gr.on(
            [race.change, seeds.change, *typed], draws, [race, seeds, *settings], drawn,
            trigger_mode="always_last", api_name="_draw_preview", **drawing,
        )  # fmt: skip
        for number, chosen in enumerate([*row_chosen, lesson_chosen], 1):
            chosen.then(draws, [race, seeds, *settings], drawn, api_name=f"_draw_preview_{number}", **drawing)
        query.change(None, query, None, js=permalink.SHOW, api_name="_query", **_AT_ONCE)
        copy.click(None, query, None, js=permalink.copy_script(), api_name="_copy", **_AT_ONCE)
        language.click(None, None, None, js=SWITCH, api_name="_language", **_AT_ONCE)

        offers = partial(run_list.epochs_in_all, lab)
        always = gr.State(True)
        buttons = [train, resume, stop]

        def training_button(
            button: gr.Button,
            handler,
            inputs: list,
            outputs: list,
            name: str,
            *,
            checks=always,
            chosen=training.single,
            keeps: bool = True,
        ) -> None:
            """Wires a button that trains: checked at once, then in turn, then the buttons as they were."""
            asked_at = gr.State(0.0)  # its own: another's press must not outdate a Stop that came before it
            asked = button.click(
                partial(training.ask, lab, names=names, chosen=chosen, keeps=keeps),
                [visitor, checks, *race_inputs, *settings],
                [asked_at, *buttons],
                cancels=followed, api_name=f"_ask_{name}", **_AT_ONCE,
            )  # fmt: skip
            # Not by what may refuse: Gradio writes Error over whatever a refused press would have filled.
            told = asked.success(waiting, None, outputs[0], api_name=f"_wait_{name}", **_AT_ONCE)
            trained = told.success(
                handler, [visitor, asked_at, *inputs, *settings], outputs, api_name=f"_{name}",
                concurrency_id=TRAINING, concurrency_limit=1, show_progress="minimal", show_progress_on=outputs[0],
                **_PRIVATE,
            )  # fmt: skip
            # A full queue refuses the training before its handler can say anything.
            trained.success(training.rest, None, buttons, api_name=f"_rest_{name}_ended", **_AT_ONCE)
            if outputs is shown:
                trained.success(offers, [visitor, runs, epochs], epochs, api_name=f"_offer_{name}", **_AT_ONCE)
            trained.failure(
                partial(training.refused, f"_{name}"),
                None,
                [outputs[0], *buttons],
                api_name=f"_rest_{name}_refused",
                **_AT_ONCE,
            )

        for button, chosen, name in (
            (train, training.single, "train"),
            (start, training.side_by_side, "race"),
            (fixed, training.with_fixed, "twin"),
        ):
            handler = partial(training.train, lab, names=names, chosen=chosen)
            training_button(button, handler, race_inputs, shown, name, chosen=chosen)
        resumes = partial(training.resume, lab, names=names)
        training_button(resume, resumes, [runs, epochs, anew], shown, "resume", checks=anew, keeps=False)
        finds = partial(bench.find_lr, lab, names=names)
        training_button(search, finds, [], [found, tried, take, suggested], "find_lr", keeps=False)
        stop.click(partial(training.stop, lab, page), visitor, stop, api_name="_stop", **_AT_ONCE)
        go_classify.click(lambda: gr.Tabs(selected="classify"), None, tabs, api_name="_go_classify", **_AT_ONCE)

        add.click(partial(bench.add_to_race, names=names), [race, *settings], race, api_name="_add_to_race", **_AT_ONCE)
        race.input(bench.relabel_race, race, race, api_name="_relabel_race", **_AT_ONCE)
        lab_button.click(
            partial(bench.fill_zero_grad_lab, names=names), [every, *settings], race,
            api_name="_zero_grad_lab", **_AT_ONCE,
        )  # fmt: skip
        lr = [panel.widgets["lr"], panel.powers["lr"]]
        take.click(bench.taken_lr, suggested, lr, api_name="_take_lr", **_AT_ONCE)
        show_code.click(partial(bench.show_code, lab, names=names), settings, script, api_name="_code", **_AT_ONCE)

        runs.change(remember, runs, had_runs, api_name="_remember", **_AT_ONCE)
        runs.change(offers, [visitor, runs], epochs, api_name="_offer", **_AT_ONCE)
        runs.input(
            partial(run_list.show, lab), [visitor, runs], results, cancels=followed, api_name="_show", **_AT_ONCE
        )
        deletes = in_browser("Delete this run and its checkpoints? A race goes with all its runs.")
        delete.click(
            partial(run_list.delete, lab), [visitor, runs, compared], shown, api_name="_delete", **_AT_ONCE,
            js=f"(visitor, run, compared) => [visitor, run && confirm({deletes}) ? run : null, compared]",
        )  # fmt: skip

        gr.on(
            [compare_tab.select, compared.change, measure.change],
            partial(compare.show, lab),
            [visitor, compared, measure],
            comparison_parts, trigger_mode="always_last", api_name="_compare", **_AT_ONCE,
        )  # fmt: skip
        compared_code.click(
            partial(compare.code, lab), [visitor, compared], compared_script, api_name="_compared_code", **_AT_ONCE
        )
        # A DownloadButton whose file is made on its own click would need a second one.
        for button, handler, chosen, name in (
            (download, run_list.download, runs, "_download"),
            (export, compare.export, compared, "_export"),
        ):
            button.click(partial(handler, lab), [visitor, chosen], file, api_name=name, **_AT_ONCE).success(
                None, None, None, js="() => setTimeout(() => document.querySelector('#file').click(), 100)", **_AT_ONCE
            )

        with gallery_tab:
            gallery.build(lab, gallery_tab, tabs, visitor, checkpoint, compared, shown)
        api.add_endpoints(lab)
    return page


def _lessons() -> tuple[gr.Dropdown, gr.HTML, gr.Button]:
    """The choice of a lesson, what to look for in it, and the button that trains it next to its fixed version."""
    with gr.Group(elem_id="lessons"):
        lesson = gr.Dropdown(
            bench.LESSON_CHOICES,
            value="",
            label=i18n("Lesson"),
            info=i18n("The experiments of a beginner's notebook, some of them instructive mistakes."),
            elem_id="lesson",
        )
        words = gr.HTML(visible=False, elem_id="lesson-words")
        fixed = gr.Button(i18n("Run it beside its mended twin"), visible=False, size="sm", elem_id="twin")
    return lesson, words, fixed


def _settings(
    lab: Lab,
) -> tuple[fields.Panel, list[Dependency], gr.HTML, gr.HTML, tuple[gr.components.Component, ...]]:
    """Every setting, with only the chosen optimizer's and scheduler's own ones in sight, and what helps to choose.

    With them, what happens when one is chosen.
    """
    panel = fields.Panel({}, {}, {})

    def add(names) -> None:
        for name in names:
            panel.widgets[name] = fields.build(name)

    def add_row(part: str, first: str, rows) -> None:
        about = gr.Markdown(i18n(rows[first].about), elem_classes=["about"])
        for name in fields.row_settings(part):
            visible = name in rows[first].defaults
            panel.widgets[name] = fields.build(name, visible=visible)
            if name in fields.LOWEST_POWER:
                panel.powers[name] = fields.build_power(name, panel.widgets[name], visible=visible)
        panel.abouts[part] = about

    with gr.Group():
        add(["epochs"])
    with gr.Group():
        add(["optimizer"])
        add_row("optimizer", "sgd", OPTIMIZERS)
    with gr.Accordion(i18n("Find a learning rate"), open=False, elem_id="finder"):
        finder = _finder()
    with gr.Group():
        add(["scheduler"])
        chart, words, _ = bench.draw(lab, TrainConfig())
        preview = run_charts.live_chart(chart, height=130, label="The learning rate as planned", elem_id="preview")
        word = gr.HTML(words, elem_id="preview-word")
        add_row("scheduler", "onecycle", SCHEDULERS)
        add(["scheduler_unit", "num_warmup_steps"])
    with gr.Accordion(i18n("Network"), open=False):
        add(fields.NETWORK)
    with gr.Accordion(i18n("Pictures and batches"), open=False):
        add(fields.DATA)
    with gr.Accordion(i18n("Loss and gradients"), open=False):
        add(fields.LOSS)
    row_chosen = [fields.follow_row(part, panel.widgets, panel.powers, about) for part, about in panel.abouts.items()]
    return panel, row_chosen, preview, word, finder


def _finder() -> tuple[gr.components.Component, ...]:
    gr.Markdown(
        i18n(
            "Raises lr from far too small to far too large on a network of its own, and looks where the loss falls "
            "fastest and where it explodes."
        )
    )
    search = gr.Button(i18n("Search"), size="sm", elem_id="find-lr")
    found = gr.HTML(elem_id="found")
    empty = finder_chart([], None, None, "en")
    chart = run_charts.live_chart(empty, height=300, label="Loss over the learning rate", elem_id="finder-chart")
    take = gr.Button("lr", visible=False, variant="primary", size="sm", elem_id="take-lr")
    return search, found, chart, take


def _race() -> tuple[gr.Accordion, gr.Dropdown, gr.Slider, tuple[gr.Button, ...], gr.Number]:
    """The race: its list of settings, over how many seeds, and what fills and starts it."""
    with gr.Accordion(i18n("Race: settings side by side"), open=False, elem_id="race-panel") as panel:
        race = gr.Dropdown(
            [],
            value=[],
            multiselect=True,
            max_choices=MAX_SETTINGS,
            label=i18n("Settings in the race"),
            info=i18n("All start from the same weights and see the same batches. Up to six; × takes one out."),
            elem_id="race",
        )
        add = gr.Button(i18n("Add the settings shown"), size="sm", elem_id="add-to-race")
        seeds = gr.Slider(
            1,
            MAX_SEEDS,
            value=1,
            step=1,
            label=i18n("seeds each"),
            info=i18n("More than one shows how much is chance: mean ± standard deviation."),
            elem_id="seeds",
        )
        start = gr.Button(i18n("Start the race"), variant="primary", elem_id="start-race")
        every = gr.Number(
            4,
            precision=0,
            minimum=2,
            label=i18n("zero_grad lab: clear every … batches"),
            info=i18n(
                "Fills the race with the settings shown: gradients cleared at each batch, every so many, never, and "
                "one batch as large as so many."
            ),
            elem_id="every",
        )
        lab_button = gr.Button(i18n("Fill in the zero_grad lab"), size="sm", elem_id="zero-grad-lab")
    return panel, race, seeds, (add, start, lab_button), every


def _script(name: str) -> tuple[gr.Button, gr.Code]:
    """A setting as a script of plain PyTorch."""
    with gr.Accordion(i18n("As PyTorch code"), open=False, elem_id=f"{name}-panel"):
        button = gr.Button(i18n("Write the script"), size="sm", elem_id=f"show-{name}")
        script = gr.Code(language="python", show_label=False, elem_id=name, max_lines=40)
    return button, script


def _results() -> list[gr.components.Component]:
    """The right side: status, legend, the loss, a lesson's words, three smaller charts and the table."""
    status, legend, loss, lesson, accuracy, lr, norm, table = run_view.results([], None, "en")
    parts = [gr.HTML(status, elem_id="status"), gr.HTML(legend, elem_id="legend")]
    parts.append(run_charts.live_chart(loss, height=300, label="Loss per epoch", elem_id="loss"))
    # Under the chart, which stays where it is when what happened is told.
    parts.append(gr.HTML(lesson, elem_id="happened"))
    with gr.Row():
        for value, label, name in (
            (accuracy, "Test accuracy per epoch", "accuracy"),
            (lr, "Learning rate", "lr"),
            (norm, "Gradient norm", "grad-norm"),
        ):
            with gr.Column(min_width=240):
                parts.append(run_charts.live_chart(value, height=190, label=label, elem_id=name))
    return [*parts, gr.HTML(table, elem_id="table")]


def _comparison() -> tuple:
    compared = gr.Dropdown(
        [],
        value=[],
        multiselect=True,
        max_choices=compare.MOST_RUNS,
        label=i18n("Runs to compare"),
        info=i18n("Any of yours, from any race, and published ones: type owner/name."),
        allow_custom_value=True,
        elem_id="compared",
    )
    measure = gr.Radio(
        [(i18n(measure.title.capitalize()), name) for name, measure in run_charts.MEASURES.items()],
        value="test_accuracy",
        label=i18n("Curve"),
        elem_id="measure",
    )
    legend, chart, table = compare.draw({}, "test_accuracy", "en")
    parts = [
        gr.HTML(legend, elem_id="compared-legend"),
        run_charts.live_chart(chart, height=compare.HEIGHT, label="The runs side by side", elem_id="comparison"),
        gr.HTML(table, elem_id="compared-table"),
    ]
    export = gr.Button(i18n("Export as CSV"), size="sm", elem_id="export")
    code, script = _script("compared-code")
    return compared, measure, parts, export, code, script


def _own_runs() -> tuple[gr.components.Component, ...]:
    with gr.Group(elem_id="own-runs"):
        runs = gr.Dropdown([], label=i18n("Your runs"), info=i18n("Kept for this browser alone."), elem_id="runs")
        with gr.Row():
            epochs = gr.Number(
                label=i18n("epochs in all"),
                info=i18n("Resume trains until so many."),
                value=10,
                precision=0,
                minimum=1,
                elem_id="more-epochs",
            )
            anew = gr.Checkbox(
                label=i18n("with the settings shown"),
                info=i18n(
                    "Go on with the optimizer and scheduler chosen here: needed once the run's own schedule is spent. "
                    "In a race each keeps its own optimizer and lr."
                ),
                elem_id="anew",
            )
        with gr.Row():
            resume = gr.Button(i18n("Resume"), size="sm", elem_id="resume")
            download = gr.Button(i18n("Download checkpoint"), size="sm", elem_id="download")
            delete = gr.Button(i18n("Delete run"), size="sm", elem_id="delete")
    return runs, epochs, anew, resume, download, delete


def _classifier(lab: Lab) -> tuple[gr.Dropdown, gr.HTML, gr.Gallery]:
    with gr.Row():
        with gr.Column(min_width=300):
            checkpoint = gr.Dropdown(
                [],
                label=i18n("Trained network"),
                info=i18n("Or type one on the Hub: owner/name, or owner/name@epoch-0003."),
                allow_custom_value=True,
                elem_id="checkpoint",
            )
            picture = classify.picture_input(height=300, elem_id="picture")
        with gr.Column(min_width=300):
            says = gr.HTML(classify.invitation("en"), elem_id="says")
            label = gr.Label(num_top_classes=5, label=i18n("What the network thinks"), elem_id="label")
            seen = gr.Image(
                label=i18n("What the network really sees"),
                format="png",
                interactive=False,
                height=260,
                buttons=[],
                elem_id="seen",
            )

    or_a_sample = i18n("Or one of the test pictures, which a run learns from only where its train_split is test:")
    gr.HTML("<div class='note'>" + or_a_sample + "</div>")
    samples = classify.samples_gallery(lab, picture, columns=10, elem_id="samples", api_name="_sample")
    gr.on(
        [picture.change, checkpoint.change],
        partial(classify.classify, lab),
        [picture, checkpoint],
        [says, label, seen],
        preprocess=False,
        api_name="_classify",
        concurrency_limit=None,
        **_PRIVATE,
    )
    return checkpoint, says, samples
