"""Publishing a visitor's run on the Hub, under the visitor's own name."""

import html
import math
import os
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import gradio as gr

from trainer.errors import UserError
from trainer.hub import publish as hub_publish
from trainer.hub import repositories
from trainer.progress import Report, Steps, run_in_thread
from ui.i18n.language import current_language
from ui.i18n.words import i18n, translate
from ui.lab import Lab
from ui.login import current_login, has_login, is_local_browser, own_token
from ui.parts.markup import advice, duration, note, status_line
from ui.parts.messages import Updates, end_in_status, not_started, waiting
from ui.parts.run import run_list
from ui.parts.shared import AT_ONCE, PRIVATE, Inputs, components

_TITLE = "Not published"
_BROKEN = "Something in the app went wrong. The run itself is safe; publish it again to add what is missing."
# Publications share the Hub's rate limit for this app's address, and use the processor that also trains.
_MOST_AT_ONCE = 4
_SECONDS_BETWEEN_UPDATES = 0.5
_SUGGESTED = re.compile(r"([^/]*)/(optimizer-lab-[a-z]+-[0-9a-f]{4})?")

# Like Gradio's LoginButton, but it returns to the full address. The message lets the page around a Space scroll.
_GO = """() => {
  window.parent?.postMessage({ type: "SET_SCROLLING", enabled: true }, "*");
  location.assign("/ROUTE?_target_url=" + encodeURIComponent(location.pathname + location.search));
}"""

_slots = threading.BoundedSemaphore(_MOST_AT_ONCE)


@dataclass(frozen=True, kw_only=True)
class Panel:
    """The panel: a note on the login, the buttons to sign in and out, the run, its repo, and how to publish it."""

    login: gr.HTML
    sign_in: gr.Button
    sign_out: gr.Button
    run: gr.Dropdown
    repo_id: gr.Textbox
    private: gr.Checkbox
    publish: gr.Button
    status: gr.HTML


def build(lab: Lab, visitor: gr.BrowserState, races: gr.Dropdown) -> None:
    """Adds the panel to the page being built; it publishes a run of the race chosen in `races`."""
    with gr.Accordion(i18n("Publish to the Hub"), open=False, elem_id="publishing") as accordion:
        panel = _components()
    inputs: Inputs = {"visitor": visitor, "race": races, "name": panel.repo_id}
    accordion.expand(
        partial(offer, lab, panel),
        inputs_kwargs=dict(inputs),
        outputs=components(panel.login, panel.run, panel.repo_id, panel.publish, panel.sign_in, panel.sign_out),
        api_name="_offer_to_publish",
        **AT_ONCE,
    )
    for button, route in ((panel.sign_in, "login/huggingface"), (panel.sign_out, "logout")):
        button.click(None, None, None, js=_GO.replace("ROUTE", route), api_name=f"_{button.elem_id}", **AT_ONCE)
    races.change(
        partial(follow_race, lab, panel),
        inputs_kwargs=dict(inputs),
        outputs=components(panel.run, panel.repo_id),
        api_name="_follow_race",
        **AT_ONCE,
    )
    panel.run.input(
        partial(suggest, lab),
        inputs_kwargs={"visitor": visitor, "race": races, "run": panel.run, "name": panel.repo_id},
        outputs=panel.repo_id,
        api_name="_follow_run",
        **AT_ONCE,
    )
    _publish_on_click(lab, panel, visitor, races)


def _components() -> Panel:
    login = gr.HTML(elem_id="publishing-says")
    sign_in = gr.Button(
        i18n("Sign in with Hugging Face"), variant="huggingface", size="sm", visible=has_login(), elem_id="sign-in"
    )
    sign_out = gr.Button(i18n("Sign out"), size="sm", visible=False, elem_id="sign-out")
    if has_login():
        # Adds Gradio's login. Its own button would lose the settings in the page's address and stay English.
        gr.LoginButton(visible=False)
    return Panel(
        login=login,
        sign_in=sign_in,
        sign_out=sign_out,
        run=gr.Dropdown([], label=i18n("Run to publish"), visible=False, elem_id="publish-run"),
        repo_id=gr.Textbox(
            label=i18n("Repo"),
            info=i18n("owner/name: a new repo, or the one to which this run was published before."),
            max_lines=1,
            elem_id="repo-id",
        ),
        private=gr.Checkbox(label=i18n("Private"), info=i18n("Only you can see it."), elem_id="private"),
        publish=gr.Button(i18n("Publish"), size="sm", interactive=False, elem_id="publish"),
        status=gr.HTML(elem_id="publish-status"),
    )


def _publish_on_click(lab: Lab, panel: Panel, visitor: gr.BrowserState, races: gr.Dropdown) -> None:
    button, status = panel.publish, panel.status
    on = gr.update(interactive=True)
    requested = button.click(
        lambda: {status: waiting(), button: gr.update(interactive=False)},
        None,
        [status, button],
        api_name="_ask_publish",
        **AT_ONCE,
    )
    published = requested.success(
        end_in_status(partial(publish, lab, status), status, title=_TITLE, broken=_BROKEN),
        inputs_kwargs={
            "visitor": visitor,
            "race": races,
            "run": panel.run,
            "repo_id": panel.repo_id,
            "is_private": panel.private,
        },
        outputs=status,
        api_name="_publish",
        concurrency_id="publish",
        concurrency_limit=_MOST_AT_ONCE,
        show_progress="hidden",
        **PRIVATE,
    )
    published.success(lambda: on, None, button, api_name="_rest_publish", **AT_ONCE)
    # A full queue refuses the request before `publish` runs.
    published.failure(
        lambda: {status: not_started(_TITLE), button: on},
        None,
        [status, button],
        api_name="_refuse_publish",
        **AT_ONCE,
    )


def token_to_publish() -> str:
    """The token of the visitor whose event is being handled. Raises UserError, which says what to do, without one."""
    if token := own_token():
        return token
    if os.environ.get("SPACE_ID"):
        if has_login():
            raise UserError("Sign in with Hugging Face first: a run is published under your own name.")
        raise UserError("This Space has no login, so you cannot publish from it: download the checkpoint instead.")
    if is_local_browser():
        raise UserError("To publish, run hf auth login or set HF_TOKEN, then open this panel again.")
    raise UserError("Only a browser on the computer that runs the app can publish: download the checkpoint instead.")


def suggest(
    lab: Lab, *, visitor: str, race: str | None, name: str, run: str | None = None, owner: str | None = None
) -> Any:
    """The update of the repo's name: a suggestion, the same each time for the same run. A name that was typed stays."""
    known = _SUGGESTED.fullmatch(name or "/")
    if known is None:
        return gr.skip()
    owner = owner or known[1]
    try:
        folder = _folder(lab, visitor, race, run)
    except UserError:
        return f"{owner}/" if owner else gr.skip()
    read = run_list.read(folder)
    return f"{owner}/optimizer-lab-{read.config.optimizer}-{folder.name[:4]}" if read else gr.skip()


def follow_race(lab: Lab, panel: Panel, visitor: str, race: str | None, name: str) -> Updates:
    """Updates for a newly chosen race: its runs, and a repo for the first one."""
    return {
        panel.run: _offer_runs(lab, visitor, race),
        panel.repo_id: suggest(lab, visitor=visitor, race=race, name=name),
    }


def offer(lab: Lab, panel: Panel, visitor: str, race: str | None, name: str) -> Iterator[Updates]:
    """Yields updates for the opened panel: whether this visitor can publish, under which name, and in which repo."""
    language = current_language()
    login = current_login()
    updates: Updates = {
        panel.run: _offer_runs(lab, visitor, race),
        panel.publish: gr.update(interactive=False),
        panel.sign_in: gr.update(visible=has_login() and login is None),
        panel.sign_out: gr.update(visible=has_login() and login is not None),
    }
    try:
        token = token_to_publish()
        user = login.name if login else None
        if user is None:
            question = translate("Looking up the token's owner on the Hub …", language)
            yield {**updates, panel.login: note(question)}
            user = repositories.user_name(token)
    except UserError as error:
        yield {**updates, panel.login: advice(translate(str(error), language))}
        return
    sentences = []
    if user is not None:
        sentences.append(translate("Signed in as {user}.", language, user=user))
    sentences.append(
        translate(
            "Publishes up to 20 epochs of the run, each as a commit with a tag. Publishing again adds what is new.",
            language,
        )
    )
    sentences.append(translate("The pictures that it was trained on are not published.", language))
    if login is not None:
        sentences.append(translate("This app can access only the repos that it has created for you.", language))
    yield {
        **updates,
        panel.login: "".join(map(note, sentences)),
        panel.repo_id: suggest(lab, visitor=visitor, race=race, name=name, owner=user),
        panel.publish: gr.update(interactive=True),
    }


def publish(
    lab: Lab, status: gr.HTML, *, visitor: str, race: str | None, run: str | None, repo_id: str, is_private: bool
) -> Iterator[Updates]:
    """Publishes a run of the visitor's `race`; yields the progress and, at the end, the link."""
    language = current_language()
    folder = _folder(lab, visitor, race, run)
    token = token_to_publish()

    def work(report: Report) -> str:
        return hub_publish.publish(
            folder, (repo_id or "").strip(), token=token, private=bool(is_private), progress=report
        )

    for progress in _progress(work, language):
        yield {status: progress}


def _progress(work: Callable[[Report], str], language: str) -> Iterator[str]:
    """Calls `work`, which returns a link, in its own thread; yields the status, as HTML.

    At most _MOST_AT_ONCE run at a time, including those whose page was closed: these end at their next report, which
    leaves the repo in a consistent state.
    """
    while not _slots.acquire(timeout=_SECONDS_BETWEEN_UPDATES):
        yield waiting()

    def work_in_slot(report: Report) -> str:
        try:
            return work(report)
        finally:
            _slots.release()

    start = reached = time.monotonic()
    fraction = 0.0
    with closing(run_in_thread(work_in_slot, math.inf)) as thread:
        reports = Steps(thread)
        for report in reports:
            if report is None:
                continue
            if report[0] > fraction:
                fraction, reached = report[0], time.monotonic()
            pace = (reached - start) / fraction if fraction else None
            left = pace and max(0.0, pace * (1 - fraction) - (time.monotonic() - reached))
            yield _publishing(fraction, report[1], left, language)
    yield _published(reports.value, language)


def _folder(lab: Lab, visitor: str, race: str | None, run: str | None) -> Path:
    folders = run_list.own_race(lab, visitor, race)
    return next((folder for folder in folders if folder.name == run), folders[0])


def _offer_runs(lab: Lab, visitor: str, race: str | None) -> Any:
    """The update of the list of a race's runs, visible if there are several."""
    try:
        folders = lab.runs.own_race(visitor, race)
    except UserError:
        return gr.update(choices=[], value=None, visible=False)
    return gr.update(choices=run_list.titled(folders), value=folders[0].name, visible=len(folders) > 1)


def _publishing(fraction: float, doing: str, left: float | None, language: str) -> str:
    words = [translate(doing, language)]
    if left is not None:
        words.append(translate("about {duration} left", language, duration=duration(left, language)))
    return status_line("Publishing", " · ".join(words), fraction, language)


def _published(link: str, language: str) -> str:
    address = html.escape(link)
    return (
        f"<div class='status'><b>{html.escape(translate('Published', language))}</b> "
        f"<a href='{address}' target='_blank' rel='noopener'>{address}</a></div>"
    )
