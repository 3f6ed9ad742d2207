"""A run on its way to the Hub: an epoch a commit, each with its tag, and nothing twice.

See trainer.hub.repositories for tokens.
"""

import json
import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

from huggingface_hub import (
    CommitOperationAdd,
    CommitOperationDelete,
    HfApi,
)
from huggingface_hub.errors import HTTPError, RepositoryNotFoundError

from trainer.errors import Message, UserError
from trainer.hub import retry
from trainer.hub.repositories import FILES, check_repo_id, epoch_of, fetch, page_of, tag_of
from trainer.networks.files import CONFIG_FILE, WEIGHTS_FILE, load_weights
from trainer.networks.model import OptimizerLabModel
from trainer.progress import Report, ignore_progress
from trainer.runs import checkpoint
from trainer.runs.checkpoint import CARD_FILE, HISTORY_FILE, TENSORS_FILE
from trainer.runs.model_card import CURVE_FILE, draw_curves, model_card
from trainer.runs.run import Run

MOST_TAGS = 20

_TRIES = 5
_OURS = {*FILES, ".gitattributes"}


class _State(NamedTuple):
    """An epoch as it goes to the Hub."""

    epoch: int
    files: Mapping[str, bytes]


@dataclass(frozen=True, kw_only=True)
class _Local:
    """A run's folder, read once and checked."""

    run: Run
    data: Mapping[str, Any]
    content: Mapping[str, Any]  # training.json as it is published
    files: Mapping[str, bytes]
    model: OptimizerLabModel
    goes_on: bool  # with other settings, with which no epoch has ended yet
    weights: Mapping[int, Path]  # of the epochs before the last, as far as they are kept

    def state(self, epoch: int, repo_id: str, *, has_untrained: bool) -> _State:
        run = replace(self.run, history=self.run.history[: epoch + 1])
        if epoch == self.run.epoch:
            weights, history = self.files[WEIGHTS_FILE], checkpoint.as_json(self.content)
        else:
            load_weights(self.model, self.weights[epoch])
            weights = self.weights[epoch].read_bytes()
            history = checkpoint.until(self.content, epoch, weights)
        config = self.files[CONFIG_FILE]
        card = model_card(
            run,
            self.data,
            json.loads(config),
            repo_id=repo_id,
            has_curves=True,
            has_untrained=has_untrained,
            is_continued=self.goes_on or any(row.continued_with for row in self.run.history[epoch + 1 :]),
        )
        files = {
            CARD_FILE: card.encode(),
            CONFIG_FILE: config,
            CURVE_FILE: draw_curves(run),
            HISTORY_FILE: history,
            WEIGHTS_FILE: weights,
        }
        if epoch == self.run.epoch:
            files[TENSORS_FILE] = self.files[TENSORS_FILE]
        return _State(epoch, files)


@dataclass(frozen=True, kw_only=True)
class _Remote:
    """What is in a repo."""

    head: str | None  # the commit that main is at
    tags: Mapping[int, str]  # epochs to commits
    paths: frozenset[str]
    history: bytes | None  # training.json

    @property
    def rows(self) -> list:
        return json.loads(self.history)["history"] if self.history else []


def publish(
    folder: Path, repo_id: str, *, token: str, private: bool = False, progress: Report = ignore_progress
) -> str:
    """Publishes a run's folder and returns the address of its page.

    The untrained network, the best, the last and as many of those between, evenly spaced, as make 20 in all are each
    one commit with its tag, epoch-0000 and so on, and the last is on main. Where the run was published before, only
    what is new is added, even where an earlier attempt was cut off anywhere; tags that then are too many are given up,
    their commits stay. `private` is for a new repo.

    Raises ValueError with one sentence where the run is not sound, where the repo holds anything else, or more of this
    run, and where the Hub does not take it. Whatever is raised, the repo is at one of the states, and publishing again
    goes on from there.
    """
    check_repo_id(repo_id)
    if not token:
        raise UserError("Publishing takes a token of the Hub: log in first.")
    api = HfApi(token=retry.sent(token))
    local = _read_local(folder)
    with retry.explained(repo_id):
        last = _Publisher(api, repo_id, progress).publish(local, private)
    if last:
        # The folder's own card then shows the curves too; a run in training writes another one soon.
        with suppress(ValueError):
            checkpoint.describe(folder, {name: last[name] for name in (CARD_FILE, CURVE_FILE)})
    progress(1.0, "Published")
    return page_of(repo_id)


@dataclass
class _Publisher:
    api: HfApi
    repo_id: str
    progress: Report
    fraction: float = 0.0
    doing: str = "Looking at the repo"

    def publish(self, local: _Local, private: bool) -> Mapping[str, bytes]:
        """Returns the files of the last state, none where nothing was new."""
        remote = self._open(private)
        self._check(local, remote)
        rows = remote.rows
        published = {len(rows) - 1, *remote.tags} if rows else set()
        if rows and len(rows) - 1 not in remote.tags:
            self._tag(len(rows) - 1, remote.head)  # an earlier attempt ended between the commit and its tag
        tagged = choose(local.run, published, {*local.weights, local.run.epoch})
        new = [epoch for epoch in tagged if epoch > max(published, default=-1)]
        if not new and remote.history != checkpoint.as_json(local.content):
            new = [local.run.epoch]  # what was said of the last epoch has changed
        head, paths, files = remote.head, remote.paths, {}
        for count, epoch in enumerate(new):
            self.fraction, self.doing = count / len(new), Message("Publishing epoch {epoch}", epoch=epoch)
            files = (state := local.state(epoch, self.repo_id, has_untrained=0 in tagged)).files
            head = self._commit(state, head, stale=paths & {TENSORS_FILE} - files.keys())
            paths = frozenset(files)
            if epoch not in published:
                self._tag(epoch, head)
        # Only now: whatever happens before, the repo has lost nothing.
        self._give_up({*remote.tags, *published} - set(tagged))
        return files

    def _ask(self, call, num_bytes: int = 0):
        return retry.ask(call, self.progress, self.fraction, self.doing, num_bytes=num_bytes)

    def _open(self, private: bool) -> _Remote:
        """The repo, made if there is none."""
        try:
            remote = self._look()
        except RepositoryNotFoundError:
            self._create(private)
            return self._look()
        except HTTPError as error:
            if retry.status(error) != 404:
                raise
            self._create(private)
            return self._look()
        if private and not self._ask(lambda: self.api.model_info(self.repo_id)).private:
            raise UserError(
                "{repo} is public already; publish to a new repo to keep the run private.", repo=self.repo_id
            )
        return remote

    def _create(self, private: bool) -> None:
        try:
            # An answer that was lost shows as a repo that is there already, and empty.
            self._ask(lambda: self.api.create_repo(self.repo_id, private=private))
        except HTTPError as error:
            if retry.status(error) != 409:
                raise

    def _look(self) -> _Remote:
        refs = self._ask(lambda: self.api.list_repo_refs(self.repo_id))
        head = next((branch.target_commit for branch in refs.branches if branch.name == "main"), None)
        tags = {epoch: tag.target_commit for tag in refs.tags if (epoch := epoch_of(tag.name)) is not None}
        paths: frozenset[str] = frozenset()
        if head:
            tree = self._ask(lambda: list(self.api.list_repo_tree(self.repo_id, revision=head)))
            paths = frozenset(entry.path for entry in tree)
        history = self._history(head) if HISTORY_FILE in paths else None
        return _Remote(head=head, tags=tags, paths=paths, history=history)

    def _history(self, commit: str) -> bytes | None:
        """training.json at a commit, which no two states have the same; None where there is none."""
        try:
            return self._ask(lambda: fetch(self.repo_id, HISTORY_FILE, commit, self.api.token)).read_bytes()
        except ValueError:
            return None

    def _check(self, local: _Local, remote: _Remote) -> None:
        """ValueError where the repo holds what is not this run, or more of it than there is to publish."""
        theirs = self._published(remote)
        if theirs is None:
            return
        rows, ours = theirs["history"], local.content["history"]
        if theirs["data"]["digest"] != local.data["digest"] or rows[: len(ours)] != ours[: len(rows)]:
            raise UserError("{repo} holds another run; choose another name.", repo=self.repo_id)
        if len(rows) > len(ours):
            raise UserError(
                "{repo} has {number} epochs of this run already, and this folder fewer.",
                repo=self.repo_id,
                number=len(rows) - 1,
            )

    def _published(self, remote: _Remote) -> dict[str, Any] | None:
        """What training.json says of the run in the repo; None where nobody has put anything there yet.

        Raises ValueError where the repo holds something else.
        """
        foreign = UserError(
            "{repo} holds something else than a run of this app; choose another name.", repo=self.repo_id
        )
        if remote.history is None:
            has_card = CARD_FILE in remote.paths and self._has_words(remote.head)
            if has_card or remote.paths - {".gitattributes", CARD_FILE}:
                raise foreign
            return None
        try:
            content = json.loads(remote.history)
            rows, digest = content["history"], content["data"]["digest"]
            is_a_run = content["format"] == checkpoint.FORMAT and isinstance(rows, list) and isinstance(digest, str)
        except (ValueError, TypeError, KeyError):
            is_a_run = False
        if not is_a_run or not remote.paths <= _OURS:
            raise foreign
        return content

    def _has_words(self, commit: str) -> bool:
        """Whether a repo's README.md is more than the front matter that the Hub's form for a new repo writes."""
        card = self._ask(lambda: fetch(self.repo_id, CARD_FILE, commit, self.api.token)).read_text(errors="replace")
        return bool(re.sub(r"\A---\n.*?\n---\n", "", card.replace("\r\n", "\n"), flags=re.S).strip())

    def _commit(self, state: _State, parent: str | None, *, stale: frozenset[str]) -> str:
        """Makes the state's commit on main, upon `parent` and nothing else, exactly once; returns its hash.

        The Hub refuses it where main has moved on from `parent` (status 412). An error does not say that nothing was
        done: what main is at does, and is looked at before anything is tried again.
        """
        additions = [CommitOperationAdd(path, content) for path, content in sorted(state.files.items())]
        operations = [*additions, *(CommitOperationDelete(path) for path in sorted(stale))]
        # Harmless to repeat, and leaves only the commit itself to be asked for.
        upload = retry.readable(lambda: self.api.preupload_lfs_files(self.repo_id, additions, free_memory=False))
        self._ask(upload, num_bytes=sum(map(len, state.files.values())))
        for attempt in range(_TRIES):
            try:
                return retry.ask_once(
                    retry.readable(
                        lambda: self.api.create_commit(
                            self.repo_id,
                            operations,
                            commit_message=Message("Epoch {epoch}", epoch=state.epoch),
                            parent_commit=parent,
                        )
                    ),
                    self.progress,
                    self.fraction,
                    self.doing,
                ).oid
            except (HTTPError, OSError) as error:
                head = parent if _is_refusal(error) else self._head_after(state.epoch)
                if head != parent:
                    if head is not None and self._history(head) == state.files[HISTORY_FILE]:
                        return head
                    raise UserError(
                        "{repo} was changed by someone else meanwhile; try again.", repo=self.repo_id
                    ) from None
                asked, wait = retry.retry_after(error), retry.FIRST_WAIT_SECONDS * 2**attempt
                may_again = retry.is_transient(error) or retry.status(error) == 409
                if not may_again or attempt == _TRIES - 1 or (asked or 0) > retry.LONGEST_WAIT_SECONDS:
                    raise (error if retry.status(error) else _not_known(state.epoch)) from None
                retry.sleep(wait if asked is None else asked, self.progress, self.fraction, self.doing)
        raise AssertionError("each attempt returns or raises")

    def _head_after(self, epoch: int) -> str | None:
        try:
            refs = self._ask(lambda: self.api.list_repo_refs(self.repo_id))
        except (HTTPError, OSError):
            raise _not_known(epoch) from None
        return next((branch.target_commit for branch in refs.branches if branch.name == "main"), None)

    def _tag(self, epoch: int, commit: str) -> None:
        name = tag_of(epoch)
        try:
            self._ask(lambda: self.api.create_tag(self.repo_id, tag=name, revision=commit))
        except HTTPError as error:
            if retry.status(error) != 409:
                raise
            refs = self._ask(lambda: self.api.list_repo_refs(self.repo_id))
            if all((tag.name, tag.target_commit) != (name, commit) for tag in refs.tags):
                raise UserError("{repo} has a tag {tag} of something else.", repo=self.repo_id, tag=name) from None

    def _give_up(self, epochs: Iterable[int]) -> None:
        # The run is published, with or without them: what stays is given up the next time.
        with suppress(HTTPError, OSError):
            for epoch in sorted(epochs):
                self._untag(tag_of(epoch))

    def _untag(self, name: str) -> None:
        try:
            self._ask(lambda: self.api.delete_tag(self.repo_id, tag=name))
        except HTTPError as error:
            if retry.status(error) != 404:  # which says that it is gone already
                raise


def _is_refusal(error: Exception) -> bool:
    """Whether an answer says that nothing was done; one that says no more than that it is late or odd does not."""
    code = retry.status(error)
    return code is not None and 400 <= code < 500 and code not in (408, 409, 412)


def _not_known(epoch: int) -> UserError:
    return UserError(
        "The Hub fell silent: whether epoch {epoch} has arrived is not known. Publish again later, "
        "and what is missing is added.",
        epoch=epoch,
    )


def choose(run: Run, published: set[int], kept: set[int]) -> list[int]:
    """The epochs that are to have a tag, ascending: of the `published` ones, and those `kept` that came after them.

    The first, the best and the last are always among them, as far as they are there; the rest are as evenly spaced as
    they can be, and all together no more than MOST_TAGS.
    """
    done = max(published, default=-1)
    there = {epoch for epoch in published | kept if epoch in published or done < epoch <= run.epoch}
    if len(there) <= MOST_TAGS:
        return sorted(there)
    chosen = there & {0, run.best.epoch, run.epoch}
    room = MOST_TAGS - len(chosen)
    for place in range(1, room + 1):
        wanted = run.epoch * place / (room + 1)
        chosen.add(min(there - chosen, key=lambda epoch: abs(epoch - wanted)))
    return sorted(chosen)


def _read_local(folder: Path) -> _Local:
    if not checkpoint.is_run(folder):
        raise UserError("There is no run in {folder}.", folder=folder)
    files = checkpoint.pack(folder)
    with TemporaryDirectory() as name:
        copy = Path(name)
        for path in (CONFIG_FILE, WEIGHTS_FILE, HISTORY_FILE, TENSORS_FILE):
            if path in files:
                (copy / path).write_bytes(files[path])
        kept, run = checkpoint.read(copy), checkpoint.read_run(copy)
        model = OptimizerLabModel.from_pretrained(copy)
    data = dict(kept.data)
    if Path(data.get("source") or "").is_absolute():
        data["source"] = None  # where things lie on this disk is nobody's business
    content = {**json.loads(files[HISTORY_FILE]), "data": data}
    weights = {epoch: path for epoch, path in checkpoint.kept_epochs(folder).items() if epoch < run.epoch}
    return _Local(
        run=run,
        data=data,
        content=content,
        files=files,
        model=model,
        goes_on=bool(kept.continued_with),
        weights=weights,
    )
