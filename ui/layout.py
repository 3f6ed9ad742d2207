"""The page: what stands where, and which press does what."""

from functools import partial
from pathlib import Path

import gradio as gr

from trainer.config import OPTIMIZERS, SCHEDULERS
from ui import api, fields, handlers, plots
from ui.lab import Lab
from ui.language import SWITCH
from ui.words import i18n

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
    gr.set_static_paths([plots.static_path()])
    with gr.Blocks(title="Optimizer Lab", analytics_enabled=False, delete_cache=(3600, 24 * 3600)) as page:
        # The secret is in the page and protects nothing; a fixed one lets a browser remember across restarts.
        visitor = gr.BrowserState(None, storage_key="optimizer-lab-visitor", secret="optimizer-lab")  # noqa: S106
        gr.HTML(_HEADER, elem_id="header")
        gr.Button(i18n("中文"), size="sm", elem_id="language").click(None, None, None, js=SWITCH, **_PRIVATE)
        note = gr.HTML(handlers.images_note(lab), elem_id="note")
        with gr.Tabs() as tabs:
            with gr.Tab(i18n("Train"), id="train"), gr.Row(elem_id="bench"):
                with gr.Column(scale=3, min_width=320, elem_id="settings"):
                    widgets, preview, word = _settings(lab)
                with gr.Column(scale=6, min_width=320, elem_id="results"):
                    with gr.Row(elem_id="buttons"):
                        train = gr.Button(i18n("Train"), variant="primary", elem_id="train")
                        stop = gr.Button(i18n("Stop"), interactive=False, elem_id="stop")
                        go_classify = gr.Button(i18n("Classify a picture →"), elem_id="go-classify")
                    results = _results(lab)
                    runs, epochs, anew, resume, download, file, delete = _own_runs()
            with gr.Tab(i18n("Classify a picture"), id="classify"):
                checkpoint, gallery = _classifier(lab)

        names = tuple(widgets)
        choices = [runs, checkpoint]
        settings = list(widgets.values())
        shown = [*results, *choices]

        page.load(
            partial(handlers.load, lab), visitor, [visitor, note, *shown, gallery],
            show_progress="hidden", api_name="_load", concurrency_limit=None, **_PRIVATE,
        )  # fmt: skip
        gr.on(
            [page.load, *(widget.change for widget in settings)],
            partial(handlers.draw_preview, lab, names=names),
            settings,
            [preview, word],
            trigger_mode="always_last",
            api_name="_draw_preview",
            **_AT_ONCE,
        )

        asked_at = gr.State(0.0)
        always = gr.State(True)

        def training(button: gr.Button, handler, inputs: list, checks: gr.components.Component, name: str) -> None:
            """Wires a button that trains: checked at once, then in turn, then the buttons as they were."""
            asked = button.click(
                partial(handlers.ask, lab, names=names), [visitor, checks, *settings], [asked_at, train, resume, stop],
                api_name=f"_ask_{name}", **_AT_ONCE,
            )  # fmt: skip
            trained = asked.success(
                partial(handler, lab, names=names), [visitor, asked_at, *inputs, *settings], shown, api_name=f"_{name}",
                concurrency_id="train", concurrency_limit=1, show_progress="minimal", show_progress_on=results[0],
                **_PRIVATE,
            )  # fmt: skip
            # A full queue refuses the training before its handler can say anything.
            for ended, outcome in ((trained.success, "ended"), (trained.failure, "refused")):
                ended(handlers.rest, None, [train, resume, stop], api_name=f"_rest_{name}_{outcome}", **_AT_ONCE)

        training(train, handlers.train, [], always, "train")
        training(resume, handlers.resume, [runs, epochs, anew], anew, "resume")
        stop.click(partial(handlers.stop, lab), visitor, stop, api_name="_stop", **_AT_ONCE)
        go_classify.click(lambda: gr.Tabs(selected="classify"), None, tabs, api_name="_go_classify", **_AT_ONCE)

        runs.input(partial(handlers.show, lab), [visitor, runs], results, api_name="_show", **_AT_ONCE)
        delete.click(
            partial(handlers.delete, lab), [visitor, runs], shown, api_name="_delete", **_AT_ONCE,
            js="(visitor, run) => [visitor, run && confirm('Delete this run and its checkpoints?') ? run : null]",
        )  # fmt: skip
        # A DownloadButton whose file is made on its own click would need a second one.
        download.click(
            partial(handlers.download, lab), [visitor, runs], file, api_name="_download", **_AT_ONCE
        ).success(
            None, None, None, js="() => setTimeout(() => document.querySelector('#file').click(), 100)", **_AT_ONCE
        )

        api.add_endpoints(lab)
    return page


def _settings(lab: Lab) -> tuple[fields.Widgets, gr.HTML, gr.HTML]:
    """The left side: every setting, with only the chosen optimizer's and scheduler's own ones in sight."""
    widgets: fields.Widgets = {}
    powers: fields.Widgets = {}
    abouts: dict[str, gr.Markdown] = {}

    def add(names) -> None:
        for name in names:
            widgets[name] = fields.build(name)

    def add_row(part: str, first: str, rows) -> None:
        about = gr.Markdown(i18n(rows[first].about), elem_classes=["about"])
        for name in fields.row_settings(part):
            visible = name in rows[first].defaults
            widgets[name] = fields.build(name, visible=visible)
            if name in fields.LOWEST_POWER:
                powers[name] = fields.build_power(name, widgets[name], visible=visible)
        abouts[part] = about

    with gr.Group():
        add(["epochs"])
    with gr.Group():
        widgets["optimizer"] = fields.build("optimizer")
        add_row("optimizer", "sgd", OPTIMIZERS)
    with gr.Group():
        widgets["scheduler"] = fields.build("scheduler")
        chart, words = handlers.draw_preview(lab, names=())
        preview = plots.live_chart(chart, height=130, label="The learning rate as planned", elem_id="preview")
        word = gr.HTML(words, elem_id="preview-word")
        add_row("scheduler", "onecycle", SCHEDULERS)
        add(["scheduler_unit", "num_warmup_steps"])
    with gr.Accordion(i18n("Network"), open=False):
        add(fields.NETWORK)
    with gr.Accordion(i18n("Pictures and batches"), open=False):
        add(fields.DATA)
    with gr.Accordion(i18n("Loss and gradients"), open=False):
        add(fields.LOSS)
    for part, about in abouts.items():
        fields.follow_row(part, widgets, powers, about)
    return widgets, preview, word


def _results(lab: Lab) -> list[gr.components.Component]:
    """The right side: status, the three charts and the table of epochs."""
    status, loss, accuracy, lr, table = handlers.results(None, None)
    return [
        gr.HTML(status, elem_id="status"),
        plots.live_chart(loss, height=300, label="Loss per epoch", elem_id="loss"),
        *_side_by_side(accuracy, lr),
        gr.HTML(table, elem_id="table"),
    ]


def _side_by_side(accuracy, lr) -> list[gr.components.Component]:
    with gr.Row():
        with gr.Column(min_width=280):
            left = plots.live_chart(accuracy, height=190, label="Test accuracy per epoch", elem_id="accuracy")
        with gr.Column(min_width=280):
            right = plots.live_chart(lr, height=190, label="Learning rate", elem_id="lr")
    return [left, right]


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
                    "Go on with the optimizer and scheduler chosen here: needed once the run's own schedule is spent."
                ),
                elem_id="anew",
            )
        with gr.Row():
            resume = gr.Button(i18n("Resume"), size="sm", elem_id="resume")
            download = gr.Button(i18n("Download checkpoint"), size="sm", elem_id="download")
            delete = gr.Button(i18n("Delete run"), size="sm", elem_id="delete")
        file = gr.DownloadButton(visible="hidden", elem_id="file")
    return runs, epochs, anew, resume, download, file, delete


def _classifier(lab: Lab) -> tuple[gr.Dropdown, gr.Gallery]:
    with gr.Row():
        with gr.Column(min_width=300):
            checkpoint = gr.Dropdown([], label=i18n("Trained network"), elem_id="checkpoint")
            picture = gr.Image(
                label=i18n("Your picture"),
                sources=["upload", "webcam", "clipboard"],
                type="filepath",
                format="png",
                image_mode=None,
                height=300,
                buttons=[],
                elem_id="picture",
            )
        with gr.Column(min_width=300):
            says = gr.HTML(handlers.INVITATION, elem_id="says")
            label = gr.Label(num_top_classes=5, label=i18n("What the network thinks"), elem_id="label")
            seen = gr.Image(
                label=i18n("What the network really sees"),
                format="png",
                interactive=False,
                height=260,
                buttons=[],
                elem_id="seen",
            )

    gr.HTML("<div class='note'>Or one of the test pictures, which it never learned from:</div>")
    gallery = gr.Gallery(
        show_label=False,
        columns=10,
        height=150,
        object_fit="contain",
        allow_preview=False,
        buttons=[],
        format="png",
        elem_id="samples",
    )

    def press(event: gr.SelectData):
        return handlers.sample(lab, event.index)

    gallery.select(press, None, picture, api_name="_sample", **_AT_ONCE)
    gr.on(
        # The file itself, untouched: gr.Image would open a stranger's picture with Pillow.
        [picture.change, checkpoint.input],
        partial(handlers.classify, lab),
        [picture, checkpoint],
        [says, label, seen],
        preprocess=False,
        api_name="_classify",
        concurrency_limit=4,
        **_PRIVATE,
    )
    return checkpoint, gallery
