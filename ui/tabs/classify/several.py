"""Several pictures at once: a table of the answers that can be sorted, and the same as CSV."""

import csv
import io
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import gradio as gr
from anyio import to_thread

from trainer.errors import UserError
from trainer.networks.predict import Prediction
from trainer.networks.predict import classify as classify_picture
from ui.i18n.language import current_language
from ui.i18n.words import i18n, translate
from ui.lab import Lab
from ui.parts.markup import advice, note, status_line
from ui.parts.messages import Updates, with_page_errors
from ui.parts.pictures import AT_A_TIME, data_url
from ui.parts.run.checkpoints import open_model
from ui.parts.run.run_list import download_path
from ui.parts.shared import AT_ONCE, Shared, components
from ui.server.uploads import name_of, uploaded

MOST_PICTURES = 100

_SECONDS_BETWEEN_UPDATES = 0.4

Row = tuple[str, Prediction | str]
"""A file's name, and the prediction or the sentence on why there is none."""


@dataclass(frozen=True, kw_only=True)
class Several:
    """The components of the panel; `rows` holds the answers, a list of Row."""

    status: gr.HTML
    stop: gr.Button
    table: gr.Dataframe
    csv: gr.Button
    rows: gr.State

    def show(self, rows: Sequence[Row], status: str, language: str) -> Updates:
        """Updates that show the answers so far; the work on them is over."""
        heads = ("", "answer", "probability", "file", "second answer", "its probability")
        values = [_cells(name, answer, language) for name, answer in rows]
        return {
            self.status: status,
            self.stop: gr.update(visible=False),
            self.table: gr.update(
                value={"headers": [translate(head, language) for head in heads], "data": values}, visible=bool(rows)
            ),
            self.csv: gr.update(visible=bool(rows)),
            self.rows: list(rows),
        }


def build(lab: Lab, shared: Shared) -> None:
    """Adds the panel and its events to the page being built."""
    network = shared.lists.networks
    with gr.Accordion(i18n("Several pictures"), open=False, elem_id="several"):
        files = gr.File(
            label=i18n("Up to 100 pictures"),
            file_count="multiple",
            file_types=["image"],
            height=140,
            elem_id="several-files",
        )
        several = Several(
            status=gr.HTML(elem_id="several-status"),
            stop=gr.Button(i18n("Stop"), size="sm", visible=False, elem_id="several-stop"),
            table=gr.Dataframe(
                datatype=["html", "str", "number", "str", "str", "number"],
                wrap=True,
                interactive=False,
                visible=False,
                show_label=False,
                buttons=[],
                elem_id="several-table",
            ),
            csv=gr.Button(i18n("Export as CSV"), size="sm", visible=False, elem_id="several-csv"),
            rows=gr.State([]),
        )
    turn = gr.State([0])
    gr.on(
        [files.change, network.change],
        partial(classify_all, lab, several),
        inputs_kwargs={"files": files, "name": network, "turn": turn},
        outputs=components(several),
        preprocess=False,
        trigger_mode="multiple",
        api_name="_classify_all",
        **AT_ONCE,
    )
    several.stop.click(_stop, inputs_kwargs={"turn": turn}, outputs=None, api_name="_stop_several", **AT_ONCE)
    shared.download_on_click(several.csv, save, {"rows": several.rows}, api_name="_several_csv")


def _stop(turn: list[int]) -> None:
    turn[0] += 1


async def classify_all(lab: Lab, several: Several, *, files: Any, name: Any, turn: list[int]) -> AsyncIterator[Updates]:
    """Yields updates with the progress, then those that show the answers for the uploaded files.

    `turn` counts the calls of a page and the presses of Stop, which end an earlier call with what it has so far.
    """
    turn[0] += 1
    own_turn, language = turn[0], current_language()
    if not files:
        yield several.show([], "", language)
        return
    rows: list[Row] = []
    try:
        if not isinstance(files, list) or len(files) > MOST_PICTURES:
            raise UserError("Choose up to {most} pictures at a time.", most=MOST_PICTURES)
        model = await open_model(lab, name)
        updated_at = 0.0
        for file in files:
            if turn[0] != own_turn:
                yield several.show(rows, note(translate("Stopped", language)), language)
                return
            if time.monotonic() - updated_at > _SECONDS_BETWEEN_UPDATES:
                progress = translate("{count} of {total} pictures", language, count=len(rows), total=len(files))
                status = status_line("Classifying", progress, len(rows) / len(files), language)
                yield {several.status: status, several.stop: gr.update(visible=True)}
                updated_at = time.monotonic()
            try:
                path = uploaded(file)
                found: Prediction | str = await to_thread.run_sync(classify_picture, model, path, limiter=AT_A_TIME)
            except UserError as error:
                found = str(error)
            rows.append((name_of(file), found))
    except UserError as error:
        yield several.show([], advice(translate(str(error), language)), language)
        return
    yield several.show(rows, "", language)


@with_page_errors
def save(*, rows: Sequence[Row]) -> str:
    """The path of a CSV file with the answers."""
    path = download_path("optimizer-lab-pictures.csv")
    path.write_text(to_csv(rows), encoding="utf-8")
    return str(path)


def to_csv(rows: Sequence[Row]) -> str:
    """Returns CSV with a row for each picture: the answer, the probability of each class, or the error."""
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    names = sorted(next((answer.confidences for _, answer in rows if isinstance(answer, Prediction)), ()))
    table.writerow(["file", "label", *names, "error"])
    for name, answer in rows:
        if isinstance(answer, Prediction):
            table.writerow([name, answer.label, *(answer.confidences[each] for each in names), ""])
        else:
            table.writerow([name, "", *("" for _ in names), answer])
    return text.getvalue()


def _cells(name: str, answer: Prediction | str, language: str) -> list[Any]:
    if not isinstance(answer, Prediction):
        return ["", translate(answer, language), None, name, "", None]
    (first, share), *others = answer.confidences.items()
    second, second_share = others[0] if others else ("", 0.0)
    sentence = translate("not sure: {label}", language, label=first) if answer.is_unsure else first
    thumbnail = f"<img class='thumbnail' src='{data_url(answer.seen)}' alt=''>"
    return [thumbnail, sentence, round(share, 4), name, second, round(second_share, 4)]
