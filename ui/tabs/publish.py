"""Publishing a visitor's run on the Hub, under the visitor's own name."""

import html
import math
import os
import re
import threading
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import gradio as gr

from trainer.errors import UserError
from trainer.hub import publish, repositories
from trainer.progress import Report, run_in_thread
from ui.i18n.language import current_language
from ui.i18n.words import i18n, translate
from ui.lab import Lab
from ui.login import current_login, has_login, is_beside, own_token
from ui.parts.messages import shown, turned_away, waiting
from ui.parts.run_list import read, titled
from ui.parts.run_view import advice, duration, note, status_line

_TITLE = "Not published"
# Publications share the Hub's patience with this app's address, and the processor with whoever trains.
_MOST_AT_ONCE = 4
_SECONDS_BETWEEN_UPDATES = 0.5
_SUGGESTED = re.compile(r"([^/]*)/(optimizer-lab-[a-z]+-[0-9a-f]{4})?")

# As Gradio's own LoginButton goes there, but with the whole address to come back to; the message lets the page around a
# Space scroll.
_GO = """() => {
  window.parent?.postMessage({ type: "SET_SCROLLING", enabled: true }, "*");
  location.assign("/ROUTE?_target_url=" + encodeURIComponent(location.pathname + location.search));
}"""

_PRIVATE = {"api_visibility": "private", "show_progress": "hidden"}
_AT_ONCE = {**_PRIVATE, "concurrency_limit": None}

_slots = threading.BoundedSemaphore(_MOST_AT_ONCE)


def add_panel(lab: Lab, visitor: gr.BrowserState, races: gr.Dropdown) -> None:
    """Adds the panel to the page being built: it publishes a run of the race that is chosen in `races`."""
    with gr.Accordion(i18n("Publish to the Hub"), open=False, elem_id="publishing") as panel:
        says = gr.HTML(elem_id="publishing-says")
        sign_in = gr.Button(
            i18n("Sign in with Hugging Face"), variant="huggingface", size="sm", visible=has_login(), elem_id="sign-in"
        )
        sign_out = gr.Button(i18n("Sign out"), size="sm", visible=False, elem_id="sign-out")
        if has_login():
            # Brings Gradio's login along. Its own press would lose the settings in the page's address, and its text
            # stay English.
            gr.LoginButton(visible=False)
        run = gr.Dropdown([], label=i18n("Run to publish"), visible=False, elem_id="publish-run")
        repo_id = gr.Textbox(
            label=i18n("Repo"),
            info=i18n("owner/name: a new one, or the one where this run was published before."),
            max_lines=1,
            elem_id="repo-id",
        )
        private = gr.Checkbox(label=i18n("Private"), info=i18n("Only you can see it."), elem_id="private")
        button = gr.Button(i18n("Publish"), size="sm", interactive=False, elem_id="publish")
        status = gr.HTML(elem_id="publish-status")

    def follow(visitor: str, race: str | None, name: str):
        return [_runs_of(lab, visitor, race), suggest(lab, visitor, race, None, name)]

    def follow_run(visitor: str, race: str | None, key: str | None, name: str):
        return suggest(lab, visitor, race, key, name)

    panel.expand(
        partial(_offer, lab), [visitor, races, repo_id], [says, run, repo_id, button, sign_in, sign_out],
        api_name="_offer_to_publish", **_AT_ONCE,
    )  # fmt: skip
    for press, route in ((sign_in, "login/huggingface"), (sign_out, "logout")):
        press.click(None, None, None, js=_GO.replace("ROUTE", route), api_name=f"_{press.elem_id}", **_AT_ONCE)
    races.change(follow, [visitor, races, repo_id], [run, repo_id], api_name="_follow_race", **_AT_ONCE)
    run.input(follow_run, [visitor, races, run, repo_id], repo_id, api_name="_follow_run", **_AT_ONCE)
    asked = button.click(_wait, None, [status, button], api_name="_ask_publish", **_AT_ONCE)
    published = asked.success(
        partial(_publish, lab), [visitor, races, run, repo_id, private], status, api_name="_publish",
        concurrency_id="publish", concurrency_limit=_MOST_AT_ONCE, **_PRIVATE,
    )  # fmt: skip
    published.success(_rest, None, button, api_name="_rest_publish", **_AT_ONCE)
    # A full queue refuses it before it can say anything.
    published.failure(_refused, None, [status, button], api_name="_refuse_publish", **_AT_ONCE)


def token_to_publish() -> str:
    """The token of the visitor whose event is being handled; ValueError with what to do where there is none."""
    if token := own_token():
        return token
    if os.environ.get("SPACE_ID"):
        if has_login():
            raise UserError("Sign in with Hugging Face first: a run is published under your own name.")
        raise UserError(
            "This Space has no login, so that nothing can be published from it: download the checkpoint instead."
        )
    if is_beside():
        raise UserError("Publishing takes a token of the Hub: run hf auth login, or set HF_TOKEN, and open this again.")
    raise UserError(
        "Here only the person at the computer that runs the app can publish: download the checkpoint instead."
    )


def suggest(lab: Lab, visitor: str, race: str | None, key: str | None, name: str, owner: str | None = None) -> Any:
    """The repo for a run: the same each time, another for each run. A name that the visitor has chosen stays."""
    known = _SUGGESTED.fullmatch(name or "/")
    if known is None:
        return gr.skip()
    owner = owner or known[1]
    try:
        folder = _folder(lab, visitor, race, key)
    except ValueError:
        return f"{owner}/" if owner else gr.skip()
    run = read(folder)
    return f"{owner}/optimizer-lab-{run.config.optimizer}-{folder.name[:4]}" if run else gr.skip()


def _offer(lab: Lab, visitor: str, race: str | None, name: str) -> Iterator[list[Any]]:
    """The panel is opened: whether this visitor can publish, as whom, and where to."""
    language = current_language()
    runs = _runs_of(lab, visitor, race)
    login = current_login()
    is_in = login is not None
    press = [gr.update(visible=has_login() and not is_in), gr.update(visible=has_login() and is_in)]
    try:
        token = token_to_publish()
        user = login.name if login else None
        if user is None:
            asking = note(translate("Asking the Hub whose token this is …", language))
            yield [asking, runs, gr.skip(), gr.update(interactive=False), *press]
            user = repositories.user_of(token)
    except ValueError as error:
        yield [advice(translate(str(error), language)), runs, gr.skip(), gr.update(interactive=False), *press]
        return
    sentence = "At most 20 epochs of the run, each one commit with its tag. Publishing again adds only what is new."
    told = note(translate(sentence, language))
    if user is not None:
        told = note(translate("Signed in as {user}.", language, user=user)) + told
    if is_in:
        told += note(translate("This app reaches the repos that it made for you, and no others of yours.", language))
    yield [told, runs, suggest(lab, visitor, race, None, name, user), gr.update(interactive=True), *press]


@shown(1, _TITLE, "Something in the app went wrong. The run itself is safe; publish it again to add what is missing.")
def _publish(
    lab: Lab,
    visitor: str,
    race: str | None,
    key: str | None,
    name: str,
    is_private: bool,
) -> Iterator[str]:
    """Publish is pressed: how far it is, and at the end the link, or why it is not published."""
    language = current_language()
    folder = _folder(lab, visitor, race, key)
    token = token_to_publish()

    def work(report: Report) -> str:
        return publish.publish(folder, (name or "").strip(), token=token, private=bool(is_private), progress=report)

    link = yield from _followed(work, language)
    yield _done(link, language)


def _followed(work: Callable[[Report], str], language: str) -> Generator[str, None, str]:
    """Does the work in a thread of its own, shows how far it is, and returns what it returns.

    No more than _MOST_AT_ONCE are done at a time, counting those that were left: where the visitor leaves the page, the
    work ends at its next report, between one state of the repo and the next.
    """
    while not _slots.acquire(timeout=_SECONDS_BETWEEN_UPDATES):
        yield waiting()

    def work_in_slot(report: Report) -> str:
        try:
            return work(report)
        finally:
            _slots.release()

    begun = reached = time.monotonic()
    fraction = 0.0
    with closing(run_in_thread(work_in_slot, math.inf)) as reports:
        while True:
            try:
                told = next(reports)
            except StopIteration as done:
                return done.value
            if told is None:
                continue
            if told[0] > fraction:
                fraction, reached = told[0], time.monotonic()
            pace = (reached - begun) / fraction if fraction else None
            left = pace and max(0.0, pace * (1 - fraction) - (time.monotonic() - reached))
            yield _going(fraction, told[1], left, language)


def _folder(lab: Lab, visitor: str, race: str | None, key: str | None) -> Path:
    if not race:
        raise UserError("Train something first: then there is a run to publish.")
    folders = lab.own_race(visitor, race)
    return next((folder for folder in folders if folder.name == key), folders[0])


def _runs_of(lab: Lab, visitor: str, race: str | None) -> Any:
    """The list of a race's runs, in sight where there are several."""
    try:
        folders = lab.own_race(visitor, race)
    except ValueError:
        return gr.update(choices=[], value=None, visible=False)
    return gr.update(choices=titled(folders), value=folders[0].name, visible=len(folders) > 1)


def _wait() -> list[Any]:
    return [waiting(), gr.update(interactive=False)]


def _rest() -> Any:
    return gr.update(interactive=True)


def _refused() -> list[Any]:
    return [turned_away(_TITLE), _rest()]


def _going(fraction: float, doing: str, left: float | None, language: str) -> str:
    words = [translate(doing, language)]
    if left is not None:
        words.append(translate("about {duration} left", language, duration=duration(left, language)))
    return status_line("Publishing", " · ".join(words), fraction, language)


def _done(link: str, language: str) -> str:
    address = html.escape(link)
    return (
        f"<div class='status'><b>{html.escape(translate('Published', language))}</b> "
        f"<a href='{address}' target='_blank' rel='noopener'>{address}</a></div>"
    )
