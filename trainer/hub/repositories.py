"""Finds, opens and downloads runs on the Hub.

A token is passed to the Hub's client and nowhere else. Here `token=None` means anonymous; the client would use the
account that is logged in on this machine. Unless stated otherwise, functions that contact the Hub raise UserError if
the repo does not exist, if the token may not read it, or if the Hub cannot be reached.
"""

import json
import math
import re
import unicodedata
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from huggingface_hub import (
    HfApi,
    constants,
    get_hf_file_metadata,
    hf_hub_url,
)
from huggingface_hub.errors import HFValidationError, HTTPError
from huggingface_hub.utils import build_hf_headers, get_session, hf_raise_for_status, validate_repo_id

from trainer.errors import UserError
from trainer.hub import retry
from trainer.images.sources import is_name
from trainer.insight.timeline import Timeline, evenly_spaced
from trainer.networks.download import download
from trainer.networks.files import CONFIG_FILE, LARGEST_CONFIG, WEIGHTS_FILE, largest_file, parse_json
from trainer.networks.model import TAG, OptimizerLabModel
from trainer.progress import Report, ignore_progress
from trainer.runs import run_folder
from trainer.runs.events import LayersMeasured
from trainer.runs.exports.model_card import CARD_FILE, CURVE_FILE, HEADLINES
from trainer.runs.layers import LARGEST_LAYERS, LAYERS_FILE, read_layers
from trainer.runs.reader import largest_tensors_file, read_checkpoint, read_run
from trainer.runs.run import Run
from trainer.runs.run_folder import HISTORY_FILE, LARGEST_HISTORY, TENSORS_FILE

FILES = (CARD_FILE, CONFIG_FILE, WEIGHTS_FILE, HISTORY_FILE, TENSORS_FILE, LAYERS_FILE, CURVE_FILE)

# Each epoch of a timeline is a download, so there are fewer than of a local run.
MAX_TIMELINE_EPOCHS = 40

_MAX_PICTURE_BYTES = 8 << 20
# The names of branches and tags that git accepts (git help check-ref-format), in ASCII only.
_REVISION = re.compile(r"(?!.*(\.\.|\.lock(/|$)|\./|\.$))\w[\w.-]*(/\w[\w.-]*)*", re.ASCII)
_EPOCH_TAG = re.compile(r"epoch-(\d{4,9})")


@dataclass(frozen=True, kw_only=True)
class PublishedCheckpoint:
    """What the model card of a checkpoint on the Hub claims.

    The author of the repo may have written anything: the texts are printable, but must be escaped in HTML.
    """

    repo_id: str
    accuracy: float | None  # 0–1
    data: str  # the name of the data set that the accuracy was measured on
    settings: Mapping[str, str]
    updated: str  # ISO 8601, UTC


def check_repo_id(repo_id: str) -> str:
    """Returns the id of a repo. Raises UserError unless it has the form owner/name."""
    with retry.explain_errors(repo_id):
        if "/" not in repo_id:  # the Hub allows it for a few old repos of its own
            raise HFValidationError
        validate_repo_id(repo_id)
    return repo_id


def split_revision(checkpoint_id: str) -> tuple[str, str | None]:
    """Returns the repo id and the revision, None if there is no @, of `owner/name[@revision]`.

    Raises UserError if either is invalid.
    """
    repo_id, at, revision = checkpoint_id.partition("@")
    if at and (len(revision) > 250 or not _REVISION.fullmatch(revision)):
        raise UserError(
            "{name} is not a revision of a repo on the Hub, such as epoch-0003.", name=f"{revision[:200]!r}"
        )
    return check_repo_id(repo_id), revision or None


def page_url(repo_id: str) -> str:
    """Returns the address of a repo's page."""
    return f"{constants.ENDPOINT}/{repo_id}"


def epoch_tag(epoch: int) -> str:
    """Returns the tag of an epoch's commit."""
    return f"epoch-{epoch:04d}"


def tagged_epoch(tag: str) -> int | None:
    """Returns the epoch that a tag names, or None if it is another kind of tag."""
    match = _EPOCH_TAG.fullmatch(tag)
    return int(match[1]) if match and epoch_tag(int(match[1])) == tag else None


def user_name(token: str) -> str | None:
    """Returns the name of a token's account, or None if the Hub cannot be reached.

    Raises UserError if the Hub does not accept the token.
    """
    api = HfApi(token=retry.checked_token(token))
    try:
        with retry.short_timeouts():
            return retry.call(lambda: str(api.whoami()["name"]))
    except (HTTPError, OSError) as error:
        if retry.status(error) == 401:
            raise UserError("The Hub does not accept the token: log in again.") from None
        return None


def find_commit(repo_id: str, revision: str | None = None, *, token: str | None = None) -> str:
    """Returns the commit hash of a checkpoint's revision, by default the newest.

    Contacts the Hub each time to check that this token may read the repo: the cache may hold files that were downloaded
    with another visitor's token.
    """
    check_repo_id(repo_id)
    with retry.explain_errors(repo_id):
        url = hf_hub_url(repo_id, CONFIG_FILE, revision=revision)
        metadata = retry.call(lambda: get_hf_file_metadata(url, token=retry.checked_token(token)))
        if metadata.commit_hash is None:
            raise retry.AnswerError("no commit")
        return metadata.commit_hash


def open_model(repo_id: str, revision: str | None = None, *, token: str | None = None) -> OptimizerLabModel:
    """Returns the network of a checkpoint on the Hub, from the cache if it was downloaded before."""
    commit = find_commit(repo_id, revision, token=token)
    with retry.explain_errors(repo_id):
        return retry.call(
            lambda: OptimizerLabModel.from_pretrained(repo_id, revision=commit, token=retry.checked_token(token))
        )


def open_run(repo_id: str, revision: str | None = None, *, token: str | None = None) -> Run:
    """Returns the settings and curves of a published checkpoint, as its author claims."""
    commit = find_commit(repo_id, revision, token=token)
    with retry.explain_errors(repo_id):
        path = retry.call(lambda: fetch(repo_id, HISTORY_FILE, commit, retry.checked_token(token)))
    return read_run(path.parent)


def open_layers(repo_id: str, revision: str | None = None, *, token: str | None = None) -> list[LayersMeasured]:
    """Returns what was measured in the layers of a published run. Raises UserError also if it has no layers.json."""
    commit = find_commit(repo_id, revision, token=token)
    with retry.explain_errors(repo_id):
        path = retry.call(lambda: fetch(repo_id, LAYERS_FILE, commit, retry.checked_token(token)))
    return read_layers(path.parent)


def open_timeline(
    repo_id: str, *, token: str | None = None, open_model: Callable[..., OptimizerLabModel] = open_model
) -> Timeline:
    """Returns the timeline of a published run: its tagged epochs, whose weights are downloaded when they are opened.

    `open_model` is called as `open_model(repo_id, revision, token=token)`. Raises UserError if there is no such run, or
    the Hub cannot be reached.
    """
    revisions = list_epochs(repo_id, token=token)
    if not revisions:
        raise UserError(
            "{repo} has no epochs to walk through: none of its commits has a tag such as epoch-0003.",
            repo=repo_id,
        )
    return Timeline(
        run=open_run(repo_id, token=token),
        epochs=evenly_spaced(tuple(revisions), MAX_TIMELINE_EPOCHS),
        open=lambda epoch: open_model(repo_id, revisions[epoch], token=token),
    )


def list_epochs(repo_id: str, *, token: str | None = None) -> dict[int, str]:
    """Returns the tag of each tagged epoch of a published run, by epoch, ascending."""
    check_repo_id(repo_id)
    api = HfApi(token=retry.checked_token(token))
    with retry.explain_errors(repo_id):
        refs = retry.call(lambda: api.list_repo_refs(repo_id))
    return dict(sorted((epoch, tag.name) for tag in refs.tags if (epoch := tagged_epoch(tag.name)) is not None))


def load(
    repo_id: str,
    folder: Path,
    *,
    revision: str | None = None,
    token: str | None = None,
    progress: Report = ignore_progress,
) -> bool:
    """Downloads a checkpoint into a new folder and returns whether the run can be resumed from there.

    All files are checked and come from one commit. Raises UserError if the repo contains no valid checkpoint of this
    app, if it or the Hub cannot be reached, or if the folder already contains such files. The folder is then unchanged.
    """
    check_repo_id(repo_id)
    run_folder.check_free(folder, FILES)
    with run_folder.writing(folder):  # a folder that cannot be written is refused before the download
        pass
    progress(0.0, f"Asking for {repo_id}")
    commit = find_commit(repo_id, revision, token=token)
    api = HfApi(token=retry.checked_token(token))
    with retry.explain_errors(repo_id):
        tree = retry.call(
            lambda: list(api.list_repo_tree(repo_id, revision=commit)), progress, 0.0, f"Asking for {repo_id}"
        )
        # Check configuration and weights first: they limit the size of the other files.
        model = retry.call(
            lambda: OptimizerLabModel.from_pretrained(repo_id, revision=commit, token=retry.checked_token(token)),
            progress,
            0.1,
            f"Fetching {WEIGHTS_FILE}",
        )
        limits, available = _size_limits(model), {entry.path for entry in tree}
        names = [name for name in limits if name in available]
        paths = {}
        for count, name in enumerate(names):
            paths[name] = retry.call(
                partial(fetch, repo_id, name, commit, retry.checked_token(token), model),
                progress,
                0.4 + 0.5 * count / len(names),
                f"Fetching {name}",
                num_bytes=limits[name],
            )
    can_resume = _check_files(paths)
    files = {name: path.read_bytes() for name, path in paths.items()}
    if HISTORY_FILE in files:
        files[HISTORY_FILE] = _without_path(files[HISTORY_FILE])
        files[run_folder.epoch_file(read_run(paths[HISTORY_FILE].parent).epoch)] = files[WEIGHTS_FILE]
    run_folder.create(folder, files)
    progress(1.0, "Loaded")
    return can_resume


def _without_path(history: bytes) -> bytes:
    """Returns a training.json whose source of the images is a name or None: a stranger's path must not be opened."""
    content = parse_json(history, HISTORY_FILE)
    source = content["data"].get("source")
    if source is None or is_name(source):
        return history
    content["data"]["source"] = None
    return json.dumps(content, indent=1).encode()


def _check_files(paths: Mapping[str, Path]) -> bool:
    """Returns whether the downloaded run can be resumed. Raises UserError if its files are not valid."""
    if HISTORY_FILE not in paths:
        return False
    snapshot = paths[HISTORY_FILE].parent
    read_layers(snapshot)
    if TENSORS_FILE not in paths:
        read_run(snapshot)
        return False
    read_checkpoint(snapshot)
    return True


def _size_limits(model: OptimizerLabModel) -> dict[str, int]:
    """Returns the most bytes that each file of a run with this network may have, by the file's name."""
    return {
        CONFIG_FILE: LARGEST_CONFIG,
        WEIGHTS_FILE: largest_file(model),
        HISTORY_FILE: LARGEST_HISTORY,
        TENSORS_FILE: largest_tensors_file(model),
        LAYERS_FILE: LARGEST_LAYERS,
        CARD_FILE: LARGEST_CONFIG,
        CURVE_FILE: _MAX_PICTURE_BYTES,
    }


def fetch(
    repo_id: str, name: str, commit: str, token: str | bool | None, model: OptimizerLabModel | None = None
) -> Path:
    """Downloads a file of a repo at a commit and returns its path in the cache.

    Raises UserError if the file is larger than a run with the network `model` needs or, without `model`, than
    LARGEST_HISTORY; otherwise the errors of the Hub's client.
    """
    at_most = _size_limits(model)[name] if model else LARGEST_HISTORY
    return download(repo_id, name, at_most=at_most, revision=commit, token=token).path


def list_published(*, token: str | None = None, best: bool = False, limit: int = 100) -> list[PublishedCheckpoint]:
    """Returns the `limit` newest checkpoints on the Hub that have this app's tag.

    The newest comes first or, with `best`, the one that claims the highest accuracy. Raises UserError if the Hub cannot
    be reached.
    """
    with retry.explain_errors("list of checkpoints"):
        models = retry.call(lambda: _models(token, limit))
    rows = [row for model in models if (row := _published_checkpoint(model)) is not None]
    rows.sort(key=lambda row: row.updated, reverse=True)
    return sorted(rows, key=lambda row: -1.0 if row.accuracy is None else row.accuracy, reverse=True) if best else rows


def _models(token: str | None, limit: int) -> list[Any]:
    # HfApi.list_models would fail for all models because of one malformed card, and paginate would retry by itself for
    # half a minute if the Hub cannot be reached.
    url: str | None = f"{constants.ENDPOINT}/api/models"
    query: dict[str, Any] | None = {
        "filter": TAG,
        "sort": "lastModified",
        "limit": limit,
        "full": True,
        "cardData": True,
    }
    headers = build_hf_headers(token=retry.checked_token(token))
    models: list[Any] = []
    page = None
    while url and len(models) < limit and page != []:
        answer = get_session().get(url, params=query, headers=headers, timeout=retry.TIMEOUT_SECONDS)
        hf_raise_for_status(answer)
        page = answer.json()
        models += page
        url, query = answer.links.get("next", {}).get("url"), None  # the link contains the query
    return models[:limit]


def _published_checkpoint(model: Any) -> PublishedCheckpoint | None:
    """Returns the valid parts of an entry in the Hub's list; None if not even its id is valid."""
    if not isinstance(model, dict) or not isinstance(repo_id := model.get("id") or model.get("modelId"), str):
        return None
    try:
        check_repo_id(repo_id)
    except UserError:
        return None
    card = model.get("cardData")
    card = card if isinstance(card, dict) else {}
    claims = card.get("optimizer_lab")
    claims = claims if isinstance(claims, dict) else {}
    accuracy, data = _result(card.get("model-index") or model.get("model-index"))
    return PublishedCheckpoint(
        repo_id=repo_id,
        accuracy=accuracy,
        data=data,
        settings={
            name: _printable(claims[name]) for name in HEADLINES if isinstance(claims.get(name), str | int | float)
        },
        updated=_printable(model.get("lastModified") or model.get("createdAt") or ""),
    )


def _result(index: Any) -> tuple[float | None, str]:
    """Returns the first accuracy, 0–1, in a model-index, and its data set; (None, "") if there is none.

    The format: https://github.com/huggingface/hub-docs, modelcard.md.
    """
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
