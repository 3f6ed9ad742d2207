"""Runs on the Hub: published, found, and loaded again. A token is only ever passed on to the Hub's client.

`token=None` is nobody: unlike the Hub's client, nothing here falls back to the token of whoever runs the process.
"""

import json
import math
import re
import unicodedata
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
    constants,
    get_hf_file_metadata,
    hf_hub_url,
)
from huggingface_hub.errors import HTTPError, RepositoryNotFoundError
from huggingface_hub.utils import build_hf_headers, get_session, hf_raise_for_status

from trainer import checkpoint, client
from trainer.card import HEADLINES, model_card
from trainer.checkpoint import CARD_FILE, HISTORY_FILE, LARGEST_HISTORY, TENSORS_FILE
from trainer.curve import CURVE_FILE, draw
from trainer.download import download
from trainer.model import CONFIG_FILE, LARGEST_CONFIG, TAG, WEIGHTS_FILE, OptimizerLabModel, largest_file, load_weights
from trainer.run import Run
from trainer.watch import Report, silent

MOST_TAGS = 20

_TRIES = 5
_LARGEST_PICTURE = 8 << 20
_OURS = {CARD_FILE, CONFIG_FILE, WEIGHTS_FILE, HISTORY_FILE, TENSORS_FILE, CURVE_FILE, ".gitattributes"}
_REPO_ID = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9_][\w.-]{0,95}", re.ASCII)
# What git takes for a branch or tag (git help check-ref-format), of ASCII alone.
_REVISION = re.compile(r"(?!.*(\.\.|\.lock(/|$)|\./|\.$))\w[\w.-]*(/\w[\w.-]*)*", re.ASCII)
_EPOCH_TAG = re.compile(r"epoch-(\d{4,9})")


@dataclass(frozen=True, kw_only=True)
class Listed:
    """A checkpoint as its card tells it: claims of a stranger, of printable characters but not safe as markup."""

    repo_id: str
    accuracy: float | None  # 0–1, as claimed
    data: str  # what the accuracy is said to be of
    settings: Mapping[str, str]
    updated: str  # ISO 8601, UTC


def check_repo_id(repo_id: str) -> str:
    """The id of a repo, or ValueError where it is not of the form owner/name."""
    if not _REPO_ID.fullmatch(repo_id) or repo_id.endswith((".git", ".", "-")) or ".." in repo_id or "--" in repo_id:
        raise ValueError(f"{repo_id[:200]!r} is no name of a repo on the Hub, which looks like owner/name.")
    return repo_id


def split_revision(checkpoint_id: str) -> tuple[str, str | None]:
    """`owner/name@revision` as its two parts; without a revision the second is None. ValueError for anything else."""
    repo_id, at, revision = checkpoint_id.partition("@")
    if at and (len(revision) > 250 or not _REVISION.fullmatch(revision)):
        raise ValueError(f"{revision[:200]!r} is no revision of a repo on the Hub, such as epoch-0003.")
    return check_repo_id(repo_id), revision or None


def page_of(repo_id: str) -> str:
    """The address of a repo's page."""
    return f"{constants.ENDPOINT}/{repo_id}"


def user_of(token: str) -> str | None:
    """The name of a token's account; None where the Hub does not tell. ValueError where it refuses the token."""
    api = HfApi(token=client.sent(token))
    try:
        with client.hurried():
            return client.ask(lambda: str(api.whoami()["name"]))
    except (HTTPError, OSError) as error:
        if client.status(error) == 401:
            raise ValueError("The Hub does not accept the token: log in again.") from None
        return None


# --- publishing


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
    weights: Mapping[int, Path]  # of the epochs before the last, as far as they are kept

    def state(self, epoch: int, repo_id: str) -> _State:
        run = replace(self.run, history=self.run.history[: epoch + 1])
        if epoch == self.run.epoch:
            weights, history = self.files[WEIGHTS_FILE], checkpoint.as_json(self.content)
        else:
            load_weights(self.model, self.weights[epoch])
            weights = self.weights[epoch].read_bytes()
            history = checkpoint.until(self.content, epoch, weights)
        config = self.files[CONFIG_FILE]
        files = {
            CARD_FILE: model_card(run, self.data, json.loads(config), repo_id=repo_id, has_picture=True).encode(),
            CONFIG_FILE: config,
            CURVE_FILE: draw(run),
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


def publish(folder: Path, repo_id: str, *, token: str, private: bool = False, progress: Report = silent) -> str:
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
        raise ValueError("Publishing takes a token of the Hub: log in first.")
    api = HfApi(token=client.sent(token))
    local = _read_local(folder)
    with client.explained(repo_id):
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
            self.fraction, self.doing = count / len(new), f"Publishing epoch {epoch}"
            files = (state := local.state(epoch, self.repo_id)).files
            head = self._commit(state, head, stale=paths & {TENSORS_FILE} - files.keys())
            paths = frozenset(files)
            if epoch not in published:
                self._tag(epoch, head)
        # Only now: whatever happens before, the repo has lost nothing.
        self._give_up({*remote.tags, *published} - set(tagged))
        return files

    def _ask(self, call, num_bytes: int = 0):
        return client.ask(call, self.progress, self.fraction, self.doing, num_bytes=num_bytes)

    def _open(self, private: bool) -> _Remote:
        """The repo, made if there is none."""
        try:
            remote = self._look()
        except RepositoryNotFoundError:
            self._create(private)
            return self._look()
        except HTTPError as error:
            if client.status(error) != 404:
                raise
            self._create(private)
            return self._look()
        if private and not self._ask(lambda: self.api.model_info(self.repo_id)).private:
            raise ValueError(f"{self.repo_id} is public already; publish to a new repo to keep the run private.")
        return remote

    def _create(self, private: bool) -> None:
        try:
            # An answer that was lost shows as a repo that is there already, and empty.
            self._ask(lambda: self.api.create_repo(self.repo_id, private=private))
        except HTTPError as error:
            if client.status(error) != 409:
                raise

    def _look(self) -> _Remote:
        refs = self._ask(lambda: self.api.list_repo_refs(self.repo_id))
        head = next((branch.target_commit for branch in refs.branches if branch.name == "main"), None)
        tags = {epoch: tag.target_commit for tag in refs.tags if (epoch := _epoch_of(tag.name)) is not None}
        paths: frozenset[str] = frozenset()
        if head:
            tree = self._ask(lambda: list(self.api.list_repo_tree(self.repo_id, revision=head)))
            paths = frozenset(entry.path for entry in tree)
        history = self._history(head) if HISTORY_FILE in paths else None
        return _Remote(head=head, tags=tags, paths=paths, history=history)

    def _history(self, commit: str) -> bytes | None:
        """training.json at a commit, which no two states have the same; None where there is none."""
        try:
            return self._ask(lambda: _download(self.repo_id, HISTORY_FILE, commit, self.api.token)).read_bytes()
        except ValueError:
            return None

    def _check(self, local: _Local, remote: _Remote) -> None:
        """ValueError where the repo holds what is not this run, or more of it than there is to publish."""
        theirs = self._published(remote)
        if theirs is None:
            return
        rows, ours = theirs["history"], local.content["history"]
        if theirs["data"]["digest"] != local.data["digest"] or rows[: len(ours)] != ours[: len(rows)]:
            raise ValueError(f"{self.repo_id} holds another run; choose another name.")
        if len(rows) > len(ours):
            raise ValueError(f"{self.repo_id} has {len(rows) - 1} epochs of this run already, and this folder fewer.")

    def _published(self, remote: _Remote) -> dict[str, Any] | None:
        """What training.json says of the run in the repo; None where nobody has put anything there yet.

        Raises ValueError where the repo holds something else.
        """
        foreign = ValueError(f"{self.repo_id} holds something else than a run of this app; choose another name.")
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
        card = self._ask(lambda: _download(self.repo_id, CARD_FILE, commit, self.api.token)).read_text(errors="replace")
        return bool(re.sub(r"\A---\n.*?\n---\n", "", card.replace("\r\n", "\n"), flags=re.S).strip())

    def _commit(self, state: _State, parent: str | None, *, stale: frozenset[str]) -> str:
        """Makes the state's commit on main, upon `parent` and nothing else, exactly once; returns its hash.

        The Hub refuses it where main has moved on from `parent` (status 412). An error does not say that nothing was
        done: what main is at does, and is looked at before anything is tried again.
        """
        additions = [CommitOperationAdd(path, content) for path, content in sorted(state.files.items())]
        operations = [*additions, *(CommitOperationDelete(path) for path in sorted(stale))]
        # Harmless to repeat, and leaves only the commit itself to be asked for.
        upload = client.readable(lambda: self.api.preupload_lfs_files(self.repo_id, additions, free_memory=False))
        self._ask(upload, num_bytes=sum(map(len, state.files.values())))
        for attempt in range(_TRIES):
            try:
                return client.ask_once(
                    client.readable(
                        lambda: self.api.create_commit(
                            self.repo_id, operations, commit_message=f"Epoch {state.epoch}", parent_commit=parent
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
                    raise ValueError(f"{self.repo_id} was changed by someone else meanwhile; try again.") from None
                asked, wait = client.retry_after(error), client.FIRST_WAIT_SECONDS * 2**attempt
                may_again = client.is_transient(error) or client.status(error) == 409
                if not may_again or attempt == _TRIES - 1 or (asked or 0) > client.LONGEST_WAIT_SECONDS:
                    raise (error if client.status(error) else _not_known(state.epoch)) from None
                client.sleep(wait if asked is None else asked, self.progress, self.fraction, self.doing)
        raise AssertionError("each attempt returns or raises")

    def _head_after(self, epoch: int) -> str | None:
        try:
            refs = self._ask(lambda: self.api.list_repo_refs(self.repo_id))
        except (HTTPError, OSError):
            raise _not_known(epoch) from None
        return next((branch.target_commit for branch in refs.branches if branch.name == "main"), None)

    def _tag(self, epoch: int, commit: str) -> None:
        name = _tag_of(epoch)
        try:
            self._ask(lambda: self.api.create_tag(self.repo_id, tag=name, revision=commit))
        except HTTPError as error:
            if client.status(error) != 409:
                raise
            refs = self._ask(lambda: self.api.list_repo_refs(self.repo_id))
            if all((tag.name, tag.target_commit) != (name, commit) for tag in refs.tags):
                raise ValueError(f"{self.repo_id} has a tag {name} of something else.") from None

    def _give_up(self, epochs: Iterable[int]) -> None:
        # The run is published, with or without them: what stays is given up the next time.
        with suppress(HTTPError, OSError):
            for epoch in sorted(epochs):
                self._untag(_tag_of(epoch))

    def _untag(self, name: str) -> None:
        try:
            self._ask(lambda: self.api.delete_tag(self.repo_id, tag=name))
        except HTTPError as error:
            if client.status(error) != 404:  # which says that it is gone already
                raise


def _is_refusal(error: Exception) -> bool:
    """Whether an answer says that nothing was done; one that says no more than that it is late or odd does not."""
    code = client.status(error)
    return code is not None and 400 <= code < 500 and code not in (408, 409, 412)


def _not_known(epoch: int) -> ValueError:
    return ValueError(
        f"The Hub fell silent: whether epoch {epoch} has arrived is not known. "
        "Publish again later, and what is missing is added."
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
        raise ValueError(f"There is no run in {folder}.")
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
    return _Local(run=run, data=data, content=content, files=files, model=model, weights=weights)


# --- loading


def commit_of(repo_id: str, revision: str | None = None, *, token: str | None = None) -> str:
    """The commit of a checkpoint's revision, None the newest, for whoever may read it.

    Asks the Hub each time, so that what one visitor's token opened is not handed to the next one out of the cache.
    Raises ValueError with one sentence.
    """
    check_repo_id(repo_id)
    with client.explained(repo_id):
        url = hf_hub_url(repo_id, CONFIG_FILE, revision=revision)
        told = client.ask(lambda: get_hf_file_metadata(url, token=client.sent(token)))
        if told.commit_hash is None:
            raise client.AnswerError("no commit")
        return told.commit_hash


def open_model(repo_id: str, revision: str | None = None, *, token: str | None = None) -> OptimizerLabModel:
    """The network of a checkpoint on the Hub; its files are fetched once. Raises ValueError with one sentence."""
    commit = commit_of(repo_id, revision, token=token)
    with client.explained(repo_id):
        return client.ask(lambda: OptimizerLabModel.from_pretrained(repo_id, revision=commit, token=client.sent(token)))


def open_run(repo_id: str, revision: str | None = None, *, token: str | None = None) -> Run:
    """The run of a published checkpoint: its settings and curves, as claimed. Raises ValueError with one sentence."""
    commit = commit_of(repo_id, revision, token=token)
    with client.explained(repo_id):
        path = client.ask(lambda: _download(repo_id, HISTORY_FILE, commit, client.sent(token)))
    return checkpoint.read_run(path.parent)


def list_epochs(repo_id: str, *, token: str | None = None) -> dict[int, str]:
    """The tagged epochs of a published run and their revisions, ascending. Raises ValueError with one sentence."""
    check_repo_id(repo_id)
    api = HfApi(token=client.sent(token))
    with client.explained(repo_id):
        refs = client.ask(lambda: api.list_repo_refs(repo_id))
    return dict(sorted((epoch, tag.name) for tag in refs.tags if (epoch := _epoch_of(tag.name)) is not None))


def load(
    repo_id: str,
    folder: Path,
    *,
    revision: str | None = None,
    token: str | None = None,
    progress: Report = silent,
) -> bool:
    """Loads a checkpoint into a new folder, checked, all of one commit; whether the run can be resumed from there.

    Raises ValueError with one sentence where the repo holds no sound checkpoint of this app, where it or the Hub is out
    of reach, and where the folder is taken; the folder is then as it was.
    """
    check_repo_id(repo_id)
    if checkpoint.is_run(folder) or (folder / WEIGHTS_FILE).exists():
        raise ValueError(f"There is a checkpoint in {folder} already; choose another folder.")
    progress(0.0, f"Asking for {repo_id}")
    commit = commit_of(repo_id, revision, token=token)
    api = HfApi(token=client.sent(token))
    with client.explained(repo_id):
        tree = client.ask(
            lambda: list(api.list_repo_tree(repo_id, revision=commit)), progress, 0.0, f"Asking for {repo_id}"
        )
        # Fetches and checks configuration and weights before anything else is fetched.
        model = client.ask(
            lambda: OptimizerLabModel.from_pretrained(repo_id, revision=commit, token=client.sent(token)),
            progress,
            0.1,
            f"Fetching {WEIGHTS_FILE}",
        )
        names = [name for name in _at_most(model) if name in {entry.path for entry in tree}]
        paths = {}
        for count, name in enumerate(names):
            paths[name] = client.ask(
                lambda name=name: _download(repo_id, name, commit, client.sent(token), model),
                progress,
                0.4 + 0.5 * count / len(names),
                f"Fetching {name}",
                num_bytes=_at_most(model)[name],
            )
    can_resume = _check_run(paths)
    files = {name: path.read_bytes() for name, path in paths.items()}
    if HISTORY_FILE in files:
        epoch = checkpoint.read_run(paths[HISTORY_FILE].parent).epoch
        files[f"epochs/{_tag_of(epoch)}.safetensors"] = files[WEIGHTS_FILE]
    checkpoint.place(folder, files)
    progress(1.0, "Loaded")
    return can_resume


def _check_run(paths: Mapping[str, Path]) -> bool:
    if HISTORY_FILE not in paths:
        return False
    snapshot = paths[HISTORY_FILE].parent
    if TENSORS_FILE not in paths:
        checkpoint.read_run(snapshot)
        return False
    checkpoint.read(snapshot)
    return True


def _at_most(model: OptimizerLabModel) -> dict[str, int]:
    """The files of a run and how many bytes each may have."""
    return {
        CONFIG_FILE: LARGEST_CONFIG,
        WEIGHTS_FILE: largest_file(model),
        HISTORY_FILE: LARGEST_HISTORY,
        TENSORS_FILE: 4 * largest_file(model),
        CARD_FILE: LARGEST_CONFIG,
        CURVE_FILE: _LARGEST_PICTURE,
    }


def _download(
    repo_id: str, name: str, commit: str, token: str | bool | None, model: OptimizerLabModel | None = None
) -> Path:
    at_most = _at_most(model)[name] if model else LARGEST_HISTORY
    return download(repo_id, name, at_most=at_most, revision=commit, token=token).path


# --- the gallery


def list_published(*, token: str | None = None, best: bool = False, limit: int = 100) -> list[Listed]:
    """The checkpoints on the Hub with this app's tag, of the `limit` newest ones: newest first, or best claim first.

    Raises ValueError with one sentence where the Hub is out of reach.
    """
    with client.explained("list of checkpoints"):
        models = client.ask(lambda: _models(token, limit))
    rows = [row for model in models if (row := _listed(model)) is not None]
    rows.sort(key=lambda row: row.updated, reverse=True)
    return sorted(rows, key=lambda row: -1.0 if row.accuracy is None else row.accuracy, reverse=True) if best else rows


def _models(token: str | None, limit: int) -> list[Any]:
    # Not HfApi.list_models: one card with an entry that its classes do not expect would end the whole list. Nor
    # paginate, which asks a Hub out of reach again by itself, for half a minute, whoever waits.
    url: str | None = f"{constants.ENDPOINT}/api/models"
    asked = {"filter": TAG, "sort": "lastModified", "limit": limit, "full": True, "cardData": True}
    headers, models, page = build_hf_headers(token=client.sent(token)), [], None
    while url and len(models) < limit and page != []:
        answer = get_session().get(url, params=asked, headers=headers, timeout=client.PATIENCE_SECONDS)
        hf_raise_for_status(answer)
        page = answer.json()
        models += page
        url, asked = answer.links.get("next", {}).get("url"), None  # which holds what was asked
    return models[:limit]


def _listed(model: Any) -> Listed | None:
    """A row of what a stranger's repo claims, made of what is sound in it; None where not even its id is."""
    if not isinstance(model, dict) or not isinstance(repo_id := model.get("id") or model.get("modelId"), str):
        return None
    try:
        check_repo_id(repo_id)
    except ValueError:
        return None
    card = model.get("cardData")
    card = card if isinstance(card, dict) else {}
    claims = card.get("optimizer_lab")
    claims = claims if isinstance(claims, dict) else {}
    accuracy, data = _result(card.get("model-index") or model.get("model-index"))
    return Listed(
        repo_id=repo_id,
        accuracy=accuracy,
        data=data,
        settings={
            name: _printable(claims[name]) for name in HEADLINES if isinstance(claims.get(name), str | int | float)
        },
        updated=_printable(model.get("lastModified") or model.get("createdAt") or ""),
    )


def _result(index: Any) -> tuple[float | None, str]:
    """The first accuracy in a model-index (https://github.com/huggingface/hub-docs, modelcard.md), and its data."""
    with suppress(LookupError, TypeError, AttributeError):
        for result in index[0]["results"]:
            for metric in result["metrics"]:
                value = metric["value"]
                if metric["type"] == "accuracy" and type(value) in (int, float) and 0 <= value <= 1:
                    return float(value), _printable(result["dataset"].get("name", ""))
    return None, ""


def _printable(value: Any) -> str:
    if isinstance(value, float) and not math.isfinite(value):
        return ""
    text = " ".join(str(value)[:100].split())
    return "".join(letter for letter in text if unicodedata.category(letter)[0] != "C")


def _tag_of(epoch: int) -> str:
    return f"epoch-{epoch:04d}"


def _epoch_of(tag: str) -> int | None:
    match = _EPOCH_TAG.fullmatch(tag)
    return int(match[1]) if match and _tag_of(int(match[1])) == tag else None
