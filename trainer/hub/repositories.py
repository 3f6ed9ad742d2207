"""Runs on the Hub, listed and loaded again. A token is only ever passed on to the Hub's client.

`token=None` is nobody: unlike the Hub's client, nothing here falls back to the token of whoever runs the process.
"""

import math
import re
import unicodedata
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
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
from trainer.networks.download import download
from trainer.networks.files import CONFIG_FILE, LARGEST_CONFIG, WEIGHTS_FILE, largest_file
from trainer.networks.model import TAG, OptimizerLabModel
from trainer.progress import Report, ignore_progress
from trainer.runs import checkpoint
from trainer.runs.checkpoint import CARD_FILE, HISTORY_FILE, LARGEST_HISTORY, TENSORS_FILE
from trainer.runs.model_card import CURVE_FILE, HEADLINES
from trainer.runs.run import Run

FILES = (CARD_FILE, CONFIG_FILE, WEIGHTS_FILE, HISTORY_FILE, TENSORS_FILE, CURVE_FILE)

_LARGEST_PICTURE = 8 << 20
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
    with retry.explained(repo_id):
        if "/" not in repo_id:  # as some of the Hub's own have none
            raise HFValidationError
        validate_repo_id(repo_id)
    return repo_id


def split_revision(checkpoint_id: str) -> tuple[str, str | None]:
    """`owner/name@revision` as its two parts; without a revision the second is None. ValueError for anything else."""
    repo_id, at, revision = checkpoint_id.partition("@")
    if at and (len(revision) > 250 or not _REVISION.fullmatch(revision)):
        raise UserError("{name} is no revision of a repo on the Hub, such as epoch-0003.", name=f"{revision[:200]!r}")
    return check_repo_id(repo_id), revision or None


def page_of(repo_id: str) -> str:
    """The address of a repo's page."""
    return f"{constants.ENDPOINT}/{repo_id}"


def tag_of(epoch: int) -> str:
    """The tag of an epoch's commit."""
    return f"epoch-{epoch:04d}"


def epoch_of(tag: str) -> int | None:
    """The epoch of a tag; None where it is no epoch's."""
    match = _EPOCH_TAG.fullmatch(tag)
    return int(match[1]) if match and tag_of(int(match[1])) == tag else None


def user_of(token: str) -> str | None:
    """The name of a token's account; None where the Hub does not tell. ValueError where it refuses the token."""
    api = HfApi(token=retry.sent(token))
    try:
        with retry.hurried():
            return retry.ask(lambda: str(api.whoami()["name"]))
    except (HTTPError, OSError) as error:
        if retry.status(error) == 401:
            raise UserError("The Hub does not accept the token: log in again.") from None
        return None


def commit_of(repo_id: str, revision: str | None = None, *, token: str | None = None) -> str:
    """The commit of a checkpoint's revision, None the newest, for whoever may read it.

    Asks the Hub each time, so that what one visitor's token opened is not handed to the next one out of the cache.
    Raises ValueError with one sentence.
    """
    check_repo_id(repo_id)
    with retry.explained(repo_id):
        url = hf_hub_url(repo_id, CONFIG_FILE, revision=revision)
        told = retry.ask(lambda: get_hf_file_metadata(url, token=retry.sent(token)))
        if told.commit_hash is None:
            raise retry.AnswerError("no commit")
        return told.commit_hash


def open_model(repo_id: str, revision: str | None = None, *, token: str | None = None) -> OptimizerLabModel:
    """The network of a checkpoint on the Hub; its files are fetched once. Raises ValueError with one sentence."""
    commit = commit_of(repo_id, revision, token=token)
    with retry.explained(repo_id):
        return retry.ask(lambda: OptimizerLabModel.from_pretrained(repo_id, revision=commit, token=retry.sent(token)))


def open_run(repo_id: str, revision: str | None = None, *, token: str | None = None) -> Run:
    """The run of a published checkpoint: its settings and curves, as claimed. Raises ValueError with one sentence."""
    commit = commit_of(repo_id, revision, token=token)
    with retry.explained(repo_id):
        path = retry.ask(lambda: fetch(repo_id, HISTORY_FILE, commit, retry.sent(token)))
    return checkpoint.read_run(path.parent)


def list_epochs(repo_id: str, *, token: str | None = None) -> dict[int, str]:
    """The tagged epochs of a published run and their revisions, ascending. Raises ValueError with one sentence."""
    check_repo_id(repo_id)
    api = HfApi(token=retry.sent(token))
    with retry.explained(repo_id):
        refs = retry.ask(lambda: api.list_repo_refs(repo_id))
    return dict(sorted((epoch, tag.name) for tag in refs.tags if (epoch := epoch_of(tag.name)) is not None))


def load(
    repo_id: str,
    folder: Path,
    *,
    revision: str | None = None,
    token: str | None = None,
    progress: Report = ignore_progress,
) -> bool:
    """Loads a checkpoint into a new folder, checked, all of one commit; whether the run can be resumed from there.

    Raises ValueError with one sentence where the repo holds no sound checkpoint of this app, where it or the Hub is out
    of reach, and where the folder is taken; the folder is then as it was.
    """
    check_repo_id(repo_id)
    checkpoint.check_free(folder, FILES)
    progress(0.0, f"Asking for {repo_id}")
    commit = commit_of(repo_id, revision, token=token)
    api = HfApi(token=retry.sent(token))
    with retry.explained(repo_id):
        tree = retry.ask(
            lambda: list(api.list_repo_tree(repo_id, revision=commit)), progress, 0.0, f"Asking for {repo_id}"
        )
        # Fetches and checks configuration and weights before anything else is fetched.
        model = retry.ask(
            lambda: OptimizerLabModel.from_pretrained(repo_id, revision=commit, token=retry.sent(token)),
            progress,
            0.1,
            f"Fetching {WEIGHTS_FILE}",
        )
        names = [name for name in _at_most(model) if name in {entry.path for entry in tree}]
        paths = {}
        for count, name in enumerate(names):
            paths[name] = retry.ask(
                lambda name=name: fetch(repo_id, name, commit, retry.sent(token), model),
                progress,
                0.4 + 0.5 * count / len(names),
                f"Fetching {name}",
                num_bytes=_at_most(model)[name],
            )
    can_resume = _check_run(paths)
    files = {name: path.read_bytes() for name, path in paths.items()}
    if HISTORY_FILE in files:
        epoch = checkpoint.read_run(paths[HISTORY_FILE].parent).epoch
        files[f"epochs/{tag_of(epoch)}.safetensors"] = files[WEIGHTS_FILE]
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


def fetch(
    repo_id: str, name: str, commit: str, token: str | bool | None, model: OptimizerLabModel | None = None
) -> Path:
    """A file of a repo at a commit, no larger than it may be beside that model; the Hub's own errors."""
    at_most = _at_most(model)[name] if model else LARGEST_HISTORY
    return download(repo_id, name, at_most=at_most, revision=commit, token=token).path


def list_published(*, token: str | None = None, best: bool = False, limit: int = 100) -> list[Listed]:
    """The checkpoints on the Hub with this app's tag, of the `limit` newest ones: newest first, or best claim first.

    Raises ValueError with one sentence where the Hub is out of reach.
    """
    with retry.explained("list of checkpoints"):
        models = retry.ask(lambda: _models(token, limit))
    rows = [row for model in models if (row := _listed(model)) is not None]
    rows.sort(key=lambda row: row.updated, reverse=True)
    return sorted(rows, key=lambda row: -1.0 if row.accuracy is None else row.accuracy, reverse=True) if best else rows


def _models(token: str | None, limit: int) -> list[Any]:
    # Not HfApi.list_models: one card with an entry that its classes do not expect would end the whole list. Nor
    # paginate, which asks a Hub out of reach again by itself, for half a minute, whoever waits.
    url: str | None = f"{constants.ENDPOINT}/api/models"
    asked = {"filter": TAG, "sort": "lastModified", "limit": limit, "full": True, "cardData": True}
    headers, models, page = build_hf_headers(token=retry.sent(token)), [], None
    while url and len(models) < limit and page != []:
        answer = get_session().get(url, params=asked, headers=headers, timeout=retry.PATIENCE_SECONDS)
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
