"""Publishes a run on the Hub: one commit and one tag for each epoch, and nothing twice.

See `trainer.hub.repositories` for how tokens are used.
"""

import json
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple, TypeVar

from huggingface_hub import (
    CommitOperationAdd,
    CommitOperationDelete,
    HfApi,
)
from huggingface_hub.errors import HTTPError, RepositoryNotFoundError

from trainer.errors import Message, UserError
from trainer.hub import retry
from trainer.hub.repositories import FILES, check_repo_id, epoch_tag, fetch, page_url, tagged_epoch
from trainer.networks.files import CONFIG_FILE, WEIGHTS_FILE, load_weights, parse_json
from trainer.networks.model import OptimizerLabModel
from trainer.progress import Report, ignore_progress
from trainer.runs import run_folder, training_json
from trainer.runs.events import LayersMeasured
from trainer.runs.exports.model_card import CARD_FILE, CURVE_FILE, draw_curves, model_card
from trainer.runs.exports.tensorboard import EVENT_FILE, event_file
from trainer.runs.layers import LAYERS_FILE, as_file, parse_layers, until
from trainer.runs.reader import read_checkpoint, read_files, read_run
from trainer.runs.run import Run
from trainer.runs.run_folder import HISTORY_FILE, TENSORS_FILE
from trainer.sweeps import results as sweep_results
from trainer.sweeps.folder import sweep_of

MAX_TAGS = 20

T = TypeVar("T")

_MAX_TRIES = 5
_EVENTS_FOLDER = "runs"  # for TensorBoard, with a folder for each run, as is usual on the Hub
_OWN_FILES = {*FILES, _EVENTS_FOLDER, ".gitattributes"}


class _Revision(NamedTuple):
    """An epoch and the files of its commit, by name."""

    epoch: int
    files: Mapping[str, bytes]


@dataclass(frozen=True, kw_only=True)
class _LocalRun:
    """A run's folder, read once and checked."""

    run: Run
    data: Mapping[str, Any]
    content: Mapping[str, Any]  # training.json as it is published
    files: Mapping[str, bytes]
    model: OptimizerLabModel
    layers: Sequence[LayersMeasured]
    is_continued: bool  # with other settings, in which no epoch has ended yet
    weights: Mapping[int, Path]  # the saved files of the epochs before the last
    sweep: str  # what the card says of the sweep that the run belongs to; "" without one

    def revision(self, epoch: int, repo_id: str, *, has_untrained: bool) -> _Revision:
        """Returns the files to publish for an epoch; only those of the last epoch can be resumed."""
        run = replace(self.run, history=self.run.history[: epoch + 1])
        if epoch == self.run.epoch:
            weights, history = self.files[WEIGHTS_FILE], training_json.as_json(self.content)
        else:
            load_weights(self.model, self.weights[epoch])
            weights = self.weights[epoch].read_bytes()
            history = training_json.until(self.content, epoch, weights)
        config = self.files[CONFIG_FILE]
        card = model_card(
            run,
            self.data,
            json.loads(config),
            repo_id=repo_id,
            has_curves=True,
            has_untrained=has_untrained,
            is_continued=self.is_continued or any(row.continued_with for row in self.run.history[epoch + 1 :]),
            sweep=self.sweep,
        )
        files = {
            CARD_FILE: card.encode(),
            CONFIG_FILE: config,
            CURVE_FILE: draw_curves(run),
            HISTORY_FILE: history,
            WEIGHTS_FILE: weights,
            f"{_EVENTS_FOLDER}/{repo_id.partition('/')[2]}/{EVENT_FILE}": event_file(run),
        }
        if epoch == self.run.epoch:
            files[TENSORS_FILE] = self.files[TENSORS_FILE]
        if layers := until(self.layers, epoch):
            files[LAYERS_FILE] = as_file(layers)
        return _Revision(epoch, files)


@dataclass(frozen=True, kw_only=True)
class _RemoteRepo:
    """The state of a repo."""

    head: str | None  # the commit of main
    tags: Mapping[int, str]  # from epochs to commits
    paths: frozenset[str]
    history: bytes | None  # training.json

    @property
    def rows(self) -> list[dict[str, Any]]:
        """The published history: a row for each epoch, from epoch 0."""
        return parse_json(self.history, HISTORY_FILE)["history"] if self.history else []


def publish(
    folder: Path, repo_id: str, *, token: str, private: bool = False, progress: Report = ignore_progress
) -> str:
    """Publishes a run's folder and returns the address of the repo's page.

    The untrained network, the best epoch, the last and others evenly spaced between them, at most MAX_TAGS, each become
    one commit with a tag, epoch-0000 and so on; the last is the head of main. If the run was published before, only new
    epochs are added, even if an earlier attempt was interrupted at any point. Tags above MAX_TAGS are then deleted,
    while their commits stay. `private` applies to a new repo.

    Raises UserError if the run is not valid, if the repo contains something else or more epochs of this run, or if the
    Hub refuses or cannot be reached. If that happens half-way, main is at one of these commits, and publishing
    again adds the rest.
    """
    check_repo_id(repo_id)
    if not token:
        raise UserError("Publishing needs a token for the Hub: log in first.")
    api = HfApi(token=retry.checked_token(token))
    local = _read_run(folder)
    with retry.explain_errors(repo_id):
        last = _Publisher(api, repo_id, progress).publish(local, private)
    if last:
        # The folder's own card now has the curves too. A run in training is locked, and writes a new card soon.
        with suppress(ValueError):
            run_folder.add_files(folder, {name: last[name] for name in (CARD_FILE, CURVE_FILE)})
    progress(1.0, "Published")
    return page_url(repo_id)


@dataclass
class _Publisher:
    api: HfApi
    repo_id: str
    progress: Report
    fraction: float = 0.0
    doing: str = "Looking at the repo"

    def publish(self, local: _LocalRun, private: bool) -> Mapping[str, bytes]:
        """Publishes the new epochs; returns the files of the last commit, {} if nothing was new."""
        remote = self._open(private)
        self._check(local, remote)
        rows = remote.rows
        published = {len(rows) - 1, *remote.tags} if rows else set()
        if rows and remote.head and len(rows) - 1 not in remote.tags:
            self._tag(len(rows) - 1, remote.head)  # an earlier attempt ended between commit and tag
        tagged = choose_epochs(local.run, published, {*local.weights, local.run.epoch})
        new = [epoch for epoch in tagged if epoch > max(published, default=-1)]
        if not new and remote.history != training_json.as_json(local.content):
            new = [local.run.epoch]  # the last epoch has a new state, such as "stopped"
        head, paths = remote.head, remote.paths
        files: Mapping[str, bytes] = {}
        for count, epoch in enumerate(new):
            if epoch != local.run.epoch and not os.path.exists(local.weights[epoch]):
                continue  # the run is in training and has deleted them meanwhile
            self.fraction, self.doing = count / len(new), Message("Publishing epoch {epoch}", epoch=epoch)
            revision = local.revision(epoch, self.repo_id, has_untrained=0 in tagged)
            files = revision.files
            head = self._commit(revision, head, stale=paths & {TENSORS_FILE} - files.keys())
            paths = frozenset(files)
            if epoch not in published:
                self._tag(epoch, head)
        # Last, so that the repo loses nothing if an earlier step fails.
        self._delete_tags({*remote.tags, *published} - set(tagged))
        return files

    def _call(self, function: Callable[[], T], num_bytes: int = 0) -> T:
        return retry.call(function, self.progress, self.fraction, self.doing, num_bytes=num_bytes)

    def _open(self, private: bool) -> _RemoteRepo:
        """Returns the state of the repo, which is created if it does not exist."""
        try:
            remote = self._read_repo()
        except RepositoryNotFoundError:
            self._create(private)
            return self._read_repo()
        except HTTPError as error:
            if retry.status(error) != 404:
                raise
            self._create(private)
            return self._read_repo()
        if private and not self._call(lambda: self.api.model_info(self.repo_id)).private:
            raise UserError(
                "{repo} is public already; publish to a new repo to keep the run private.", repo=self.repo_id
            )
        return remote

    def _create(self, private: bool) -> None:
        try:
            # If the answer to the first try was lost, the next one finds the repo there already.
            self._call(lambda: self.api.create_repo(self.repo_id, private=private))
        except HTTPError as error:
            if retry.status(error) != 409:
                raise

    def _read_repo(self) -> _RemoteRepo:
        refs = self._call(lambda: self.api.list_repo_refs(self.repo_id))
        head = next((branch.target_commit for branch in refs.branches if branch.name == "main"), None)
        tags = {epoch: tag.target_commit for tag in refs.tags if (epoch := tagged_epoch(tag.name)) is not None}
        paths: frozenset[str] = frozenset()
        if head:
            tree = self._call(lambda: list(self.api.list_repo_tree(self.repo_id, revision=head)))
            paths = frozenset(entry.path for entry in tree)
        history = self._history(head) if head and HISTORY_FILE in paths else None
        return _RemoteRepo(head=head, tags=tags, paths=paths, history=history)

    def _history(self, commit: str) -> bytes | None:
        """Returns training.json at a commit, which differs between any two epochs, or None if it is missing."""
        try:
            return self._call(lambda: fetch(self.repo_id, HISTORY_FILE, commit, self.api.token)).read_bytes()
        except UserError:
            return None

    def _check(self, local: _LocalRun, remote: _RemoteRepo) -> None:
        """Raises UserError if the repo contains anything but this run, or more epochs of it than the folder."""
        published = self._published(remote)
        if published is None:
            return
        rows, local_rows = (_lasting(content["history"]) for content in (published, local.content))
        is_same_data = published["data"]["digest"] == local.data["digest"]
        if not is_same_data or rows[: len(local_rows)] != local_rows[: len(rows)]:
            raise UserError("{repo} contains another run; choose another name.", repo=self.repo_id)
        if len(rows) > len(local_rows):
            raise UserError(
                "{repo} already has {number} epochs of this run, more than this folder.",
                repo=self.repo_id,
                number=len(rows) - 1,
            )

    def _published(self, remote: _RemoteRepo) -> dict[str, Any] | None:
        """Returns the repo's training.json, or None if the repo is still empty.

        Raises UserError if the repo contains anything but a run of this app.
        """
        foreign = UserError(
            "{repo} contains something other than a run of this app; choose another name.", repo=self.repo_id
        )
        if remote.history is None:
            has_card = CARD_FILE in remote.paths and remote.head is not None and self._has_text(remote.head)
            if has_card or remote.paths - {".gitattributes", CARD_FILE}:
                raise foreign
            return None
        try:
            content = parse_json(remote.history, HISTORY_FILE)
            rows, digest = content["history"], content["data"]["digest"]
            is_run = content["format"] == training_json.FORMAT and isinstance(rows, list) and isinstance(digest, str)
        except (ValueError, TypeError, KeyError):
            is_run = False
        if not is_run or not remote.paths <= _OWN_FILES:
            raise foreign
        return content

    def _has_text(self, commit: str) -> bool:
        """Returns whether README.md has text after the front matter; the Hub's form for a new repo writes none."""
        card = self._call(lambda: fetch(self.repo_id, CARD_FILE, commit, self.api.token)).read_text("utf-8", "replace")
        return bool(re.sub(r"\A---\n.*?\n---\n", "", card.replace("\r\n", "\n"), flags=re.S).strip())

    def _commit(self, revision: _Revision, parent: str | None, *, stale: frozenset[str]) -> str:
        """Commits a revision to main exactly once, as the child of `parent`, and returns the commit's hash.

        The Hub refuses if main is no longer at `parent` (status 412). An error does not mean that the commit was not
        made, so the head of main is read before another try. `stale` are the files to delete.
        """
        additions = [CommitOperationAdd(path, content) for path, content in sorted(revision.files.items())]
        operations: list[CommitOperationAdd | CommitOperationDelete]
        operations = [*additions, *(CommitOperationDelete(path) for path in sorted(stale))]
        # Upload first, which may be retried; only the commit itself must not be made twice.
        upload = retry.with_answer_errors(
            lambda: self.api.preupload_lfs_files(self.repo_id, additions, free_memory=False)
        )
        self._call(upload, num_bytes=sum(map(len, revision.files.values())))
        for attempt in range(_MAX_TRIES):
            try:
                return retry.call_once(
                    retry.with_answer_errors(
                        lambda: self.api.create_commit(
                            self.repo_id,
                            operations,
                            commit_message=Message("Epoch {epoch}", epoch=revision.epoch),
                            parent_commit=parent,
                        )
                    ),
                    self.progress,
                    self.fraction,
                    self.doing,
                ).oid
            except (HTTPError, OSError) as error:
                head = parent if _is_refusal(error) else self._head_after(revision.epoch)
                if head != parent:
                    if head is not None and self._history(head) == revision.files[HISTORY_FILE]:
                        return head
                    raise UserError(
                        "{repo} was changed by someone else meanwhile; try again.", repo=self.repo_id
                    ) from None
                requested = retry.retry_after(error)
                may_retry = retry.is_transient(error) or retry.status(error) == 409
                if not may_retry or attempt == _MAX_TRIES - 1 or (requested or 0) > retry.MAX_WAIT_SECONDS:
                    raise (error if retry.status(error) else _unknown_outcome(revision.epoch)) from None
                seconds = retry.FIRST_WAIT_SECONDS * 2**attempt if requested is None else requested
                retry.wait(seconds, self.progress, self.fraction, self.doing)
        raise AssertionError("each try returns or raises")

    def _head_after(self, epoch: int) -> str | None:
        try:
            refs = self._call(lambda: self.api.list_repo_refs(self.repo_id))
        except (HTTPError, OSError):
            raise _unknown_outcome(epoch) from None
        return next((branch.target_commit for branch in refs.branches if branch.name == "main"), None)

    def _tag(self, epoch: int, commit: str) -> None:
        name = epoch_tag(epoch)
        try:
            self._call(lambda: self.api.create_tag(self.repo_id, tag=name, revision=commit))
        except HTTPError as error:
            if retry.status(error) != 409:
                raise
            refs = self._call(lambda: self.api.list_repo_refs(self.repo_id))
            if all((tag.name, tag.target_commit) != (name, commit) for tag in refs.tags):
                raise UserError("{repo} has a tag {tag} on another commit.", repo=self.repo_id, tag=name) from None

    def _delete_tags(self, epochs: Iterable[int]) -> None:
        # The run is published even if this fails. The next publishing deletes the tags that are left.
        with suppress(HTTPError, OSError):
            for epoch in sorted(epochs):
                self._delete_tag(epoch_tag(epoch))

    def _delete_tag(self, name: str) -> None:
        try:
            self._call(lambda: self.api.delete_tag(self.repo_id, tag=name))
        except HTTPError as error:
            if retry.status(error) != 404:  # already deleted
                raise


def _is_refusal(error: Exception) -> bool:
    """Returns whether it is certain that the Hub made no commit. After a timeout or a conflict it is not."""
    code = retry.status(error)
    return code is not None and 400 <= code < 500 and code not in (408, 409, 412)


def _unknown_outcome(epoch: int) -> UserError:
    return UserError(
        "The Hub stopped answering: it is not known whether epoch {epoch} has arrived. Publish again later to add "
        "what is missing.",
        epoch=epoch,
    )


def choose_epochs(run: Run, published: set[int], saved: set[int]) -> list[int]:
    """Returns the epochs to tag, ascending and at most MAX_TAGS.

    They come from the `published` epochs and from the `saved` ones after them. The first, the best and the last are
    always included if available; the rest are spaced as evenly as possible.
    """
    last_published = max(published, default=-1)
    available = published | {epoch for epoch in saved if last_published < epoch <= run.epoch}
    if len(available) <= MAX_TAGS:
        return sorted(available)
    assert run.best is not None  # epoch 0 at least
    chosen = available & {0, run.best.epoch, run.epoch}
    count = MAX_TAGS - len(chosen)
    for index in range(1, count + 1):
        target = run.epoch * index / (count + 1)
        chosen.add(min(available - chosen, key=lambda epoch: abs(epoch - target)))
    return sorted(chosen)


def _read_run(folder: Path) -> _LocalRun:
    """Reads and checks a run's folder. Raises UserError if it is not valid."""
    if not run_folder.is_run(folder):
        raise UserError("There is no run in {folder}.", folder=folder)
    files = read_files(folder)
    with TemporaryDirectory() as name:
        copy = Path(name)
        for path in (CONFIG_FILE, WEIGHTS_FILE, HISTORY_FILE, TENSORS_FILE):
            if path in files:
                (copy / path).write_bytes(files[path])
        saved, run = read_checkpoint(copy), read_run(copy)
        model = OptimizerLabModel.from_pretrained(copy)
    data = dict(saved.data)
    if Path(data.get("source") or "").is_absolute():
        data["source"] = None  # a path on this disk is private
    content = {**parse_json(files[HISTORY_FILE], HISTORY_FILE), "data": data}
    weights = {epoch: path for epoch, path in run_folder.saved_epochs(folder).items() if epoch < run.epoch}
    return _LocalRun(
        run=run,
        data=data,
        content=content,
        files=files,
        model=model,
        layers=parse_layers(files[LAYERS_FILE]) if LAYERS_FILE in files else [],
        is_continued=bool(saved.continued_with),
        weights=weights,
        sweep=sweep_results.card_text(sweep) if (sweep := sweep_of(folder)) else "",
    )


def _lasting(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Returns the rows of a run without what only its last epoch has, and loses when the run is resumed."""
    return [{name: value for name, value in row.items() if name != "class_accuracy"} for row in rows]
