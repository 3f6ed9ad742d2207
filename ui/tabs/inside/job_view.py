"""What the views of the Inside tab share that a job computes: their buttons, their status, and watching the job."""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from functools import partial
from typing import Any, Generic, TypeVar

import gradio as gr

from trainer.errors import UserError
from ui.i18n.language import current_language
from ui.i18n.words import i18n, translate
from ui.jobs.insight import InsightJob, Inspected
from ui.lab import Lab
from ui.parts.markup import advice, note, status_line
from ui.parts.messages import Updates, with_page_errors
from ui.parts.run import inspected, run_list, watching
from ui.parts.run.job_words import Standing, sharing_words, waiting_words
from ui.parts.run.run_list import download_path
from ui.parts.shared import AT_ONCE, Inputs, Shared, components
from ui.run_index import is_key
from ui.stored_runs import bundled
from ui.tabs.inside.choice import Choice, checked
from ui.tabs.train.buttons import STARTS, answered, refusal, refuse_beside
from ui.visitors import checked_visitor

_SECONDS_BETWEEN_TICKS = 2.0

J = TypeVar("J", bound=InsightJob)


@dataclass(frozen=True, kw_only=True)
class Controls:
    """The buttons that start and stop a view's job, why it was refused, its status, and the buttons that save it."""

    start: gr.Button
    stop: gr.Button
    refused: gr.HTML
    status: gr.HTML
    body: gr.Column
    remarks: gr.HTML
    csv: gr.Button
    svg: gr.Button


def build_controls(name: str, label: str) -> tuple[gr.Button, gr.Button, gr.HTML, gr.HTML]:
    """Adds the buttons that start and stop a job, the place for a refusal, and the status."""
    with gr.Row():
        start = gr.Button(i18n(label), variant="primary", size="sm", elem_id=f"{name}-start", **STARTS)
        stop = gr.Button(i18n("Stop"), size="sm", interactive=False, elem_id=f"{name}-stop")
    return start, stop, refusal(f"refused-{name}"), gr.HTML(elem_id=f"{name}-status")


def build_downloads(name: str) -> tuple[gr.Button, gr.Button]:
    """Adds the buttons that save the data and the chart."""
    with gr.Row():
        csv = gr.Button(i18n("Export as CSV"), size="sm", elem_id=f"{name}-csv")
        svg = gr.Button(i18n("Save as SVG"), size="sm", elem_id=f"{name}-svg")
    return csv, svg


@dataclass(frozen=True, kw_only=True)
class JobView(Generic[J]):
    """A view that a job of the class `kind` computes.

    `begin` starts the job for (visitor, runs, **inputs). `has_results` says whether there is something to display,
    `progress` how far a job is, and `display` returns the updates of `outputs` for it. `to_csv` and `draw` return the
    content of the files to save.
    """

    name: str
    kind: type[J]
    hint: str
    controls: Controls
    outputs: Sequence[Any]
    inputs: Inputs
    begin: Callable[..., Any]
    has_results: Callable[[J], bool]
    progress: Callable[[J, str], str]
    display: Callable[[J, str], Updates]
    to_csv: Callable[[J], str]
    draw: Callable[[J, str], str]

    def show(self, lab: Lab, visitor: Any, names: Any) -> Updates:
        """Updates that show the visitor's latest job of this kind, whose runs may be others than the chosen ones."""
        language, controls = current_language(), self.controls
        job = lab.jobs.of(visitor, self.kind) if is_key(visitor) else None
        is_active = job is not None and job.is_active
        updates: Updates = {
            controls.start: gr.update(interactive=not is_active),
            controls.stop: gr.update(value=translate("Stop", language), interactive=is_active),
            controls.status: self._status(lab, job, names, language),
        }
        if job is None or not self.has_results(job):
            return {**updates, controls.body: gr.update(visible=False)}
        remarks = "".join(advice(translate(remark, language)) for remark in job.remarks)
        updates[controls.body] = gr.update(visible=True)
        updates[controls.remarks] = gr.update(value=remarks, visible=bool(remarks))
        return {**updates, **self.display(job, language)}

    def _status(self, lab: Lab, job: J | None, names: Any, language: str) -> str:
        if job is None:
            return note(translate(self.hint, language))
        other = ""
        if names and not _is_of(job, names):
            runs = "; ".join(run.name for run in job.inspected)
            other = advice(translate("This is of {runs}, not of what is chosen now.", language, runs=runs))
        if job.state == "waiting":
            return status_line("Not started yet", waiting_words(lab.jobs, job, language), 0, language) + other
        progress = self.progress(job, language)
        if job.is_active:
            if not self.has_results(job):
                return status_line("Starting", progress or "reading the epochs", job.share, language) + other
            words = [progress, *sharing_words(Standing.of(lab.jobs, job), language)]
            return status_line("Computing", " · ".join(words), job.share, language) + other
        if other:
            return other if self.has_results(job) else note(translate(self.hint, language))
        if job.share == 1:
            return ""
        if job.stopping.is_set():
            return status_line("Stopped", progress, job.share, language, job.stopped_because)
        return status_line("Not computed", "", job.share, language, job.failure)


def connect(job_view: JobView[J], lab: Lab, shared: Shared, choice: Choice) -> None:
    """Adds the events of a view to the page being built."""
    controls = job_view.controls
    clock = gr.Timer(_SECONDS_BETWEEN_TICKS, active=False)
    latest = gr.State([])  # the names of the runs chosen now; a watch began with those chosen before
    shown = components(controls, job_view.outputs)

    @with_page_errors
    def open_view(*, visitor: Any, names: Any, view: Any, latest: list[Any]) -> Updates:
        _keep(names, latest)
        if view != job_view.name:
            job = lab.jobs.of(visitor, job_view.kind) if is_key(visitor) else None
            return {clock: gr.update(active=job is not None and job.is_active)}  # it counts as watched
        return {clock: gr.update(active=True), **job_view.show(lab, visitor, names)}

    choice.on_change(open_view, {"latest": latest}, [clock, *shown], api_name=f"_{job_view.name}")
    # `once`: while the page watches, ticks are ignored.
    clock.tick(
        partial(_watch, job_view, lab),
        inputs_kwargs={"visitor": choice.visitor, "names": choice.runs, "latest": latest},
        outputs=shown,
        trigger_mode="once",
        api_name=f"_watch_{job_view.name}",
        **AT_ONCE,
    )

    def start(*, visitor: Any, names: Any, **inputs: Any) -> Updates:
        job_view.begin(checked_visitor(visitor), chosen_runs(lab, visitor, names), **inputs)
        return {clock: gr.update(active=True), **job_view.show(lab, visitor, names)}

    started = controls.start.click(
        refuse_beside(controls.refused, start),
        inputs_kwargs={"visitor": choice.visitor, "names": choice.runs, **job_view.inputs},
        outputs=[clock, *shown],
        api_name=f"_start_{job_view.name}",
        **AT_ONCE,
    )
    answered(started)

    @with_page_errors
    def stop(visitor: str) -> Any:
        lab.jobs.stop(checked_visitor(visitor), job_view.kind)
        return gr.update(value=translate("Stopping …", current_language()), interactive=False)

    controls.stop.click(stop, choice.visitor, controls.stop, api_name=f"_stop_{job_view.name}", **AT_ONCE)

    @with_page_errors
    def save(suffix: str, content: Callable[[J], str], *, visitor: Any) -> str:
        job = lab.jobs.of(checked_visitor(visitor), job_view.kind)
        if job is None or not job_view.has_results(job):
            raise UserError("There is nothing to save yet.")
        path = download_path(f"optimizer-lab-{job_view.name}.{suffix}")
        path.write_text(content(job), encoding="utf-8")
        return str(path)

    def draw(job: J) -> str:
        return job_view.draw(job, current_language())

    for button, suffix, content in ((controls.csv, "csv", job_view.to_csv), (controls.svg, "svg", draw)):
        shared.download_on_click(
            button,
            partial(save, suffix, content),
            {"visitor": choice.visitor},
            api_name=f"_{job_view.name}_{suffix}",
        )


def _is_of(job: InsightJob, names: Any) -> bool:
    """Whether exactly the runs of these names were inspected."""
    return isinstance(names, list) and sorted(run.key for run in job.inspected) == sorted(map(str, names))


def _keep(names: Any, latest: list[Any]) -> None:
    latest[:] = names if isinstance(names, list) else []


async def _watch(
    view: JobView[J], lab: Lab, *, visitor: str | None, names: Any, latest: list[Any]
) -> AsyncIterator[Updates]:
    """Yields the updates of the view, now and about once a second while its job changes, while the page listens.

    `latest` has the names of the chosen runs, which may change meanwhile.
    """
    _keep(names, latest)
    if not is_key(visitor):  # the page gets one in a moment
        yield gr.skip()  # Gradio would empty the components if there were no updates at all
        return

    def show() -> Updates:
        return view.show(lab, visitor, list(latest))

    updates = watching.watch(lab.jobs, visitor, (view.kind,), state=lambda: repr(latest), show=show)
    async with aclosing(updates) as changes:  # type: ignore[type-var]
        async for change in changes:
            yield change


def chosen_runs(lab: Lab, visitor: str, names: Any) -> list[Inspected]:
    """The chosen runs. Raises UserError if one is not the visitor's, and is neither published nor bundled."""
    titles = {key: title for title, key in run_list.single_runs(lab, visitor)}
    return [
        inspected.elsewhere(name)
        if name in bundled() or "/" in name
        else inspected.of_folder(lab.runs.own_run(visitor, name), titles.get(name, name))
        for name in checked(names)
    ]
