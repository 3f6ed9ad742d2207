"""A file of a repo on the Hub, in the Hub's own cache, checked against the hash that the Hub has for it."""

import re
from hashlib import sha1, sha256
from pathlib import Path
from typing import NamedTuple

from huggingface_hub import HfApi, get_hf_file_metadata, hf_hub_download, hf_hub_url, is_offline_mode
from huggingface_hub.errors import HfHubHTTPError, RemoteEntryNotFoundError
from huggingface_hub.hf_api import RepoFile
from huggingface_hub.utils.sha import git_hash

from trainer.errors import UserError

_HASH = re.compile("[0-9a-f]{40}|[0-9a-f]{64}")


class Downloaded(NamedTuple):
    """A checked file, and the commit it belongs to."""

    path: Path
    commit: str


def download(
    repo_id: str,
    name: str,
    *,
    at_most: int,
    revision: str | None = None,
    token: str | bool | None = None,
    cache_dir: str | Path | None = None,
    force_download: bool = False,
    local_files_only: bool = False,
) -> Downloaded:
    """The file `name` of a repo, fetched where the cache has it not; the other arguments are `hf_hub_download`'s.

    Large files are checked against their SHA-256, small ones against their hash in git, where a server tells neither,
    against their size; a damaged one is fetched again once. Raises ValueError where the repo lacks the file, where it
    is larger than `at_most` bytes, which is known before it is fetched, and where it arrives damaged; the Hub's own
    errors (`huggingface_hub.errors`) otherwise.
    """
    local_files_only = local_files_only or is_offline_mode()
    asked = {"token": token, "cache_dir": cache_dir, "local_files_only": local_files_only}
    try:
        told = hf_hub_download(repo_id, name, revision=revision, dry_run=True, **asked)  # its size, without fetching it
    except RemoteEntryNotFoundError:
        raise UserError("{file} is missing in {repo}.", file=name, repo=repo_id) from None
    if told.file_size is not None and told.file_size > at_most:
        raise UserError("{file} is larger than what it should hold.", file=name)
    # By the name of its revision: only so does the cache remember what that was, for the time without a network.
    path = Path(hf_hub_download(repo_id, name, revision=revision, force_download=force_download, **asked))
    commit = path.parents[name.count("/")].name
    asked["revision"] = commit  # a branch may move
    if not _is_sound(repo_id, name, path, commit, asked):
        if local_files_only:
            raise UserError("{file} of {repo} is damaged in the cache.", file=name, repo=repo_id)
        _drop(path)  # or the client would leave it as it is, where it is no link
        path = _fetched_again(repo_id, name, asked)
        if not _is_sound(repo_id, name, path, commit, asked):
            _drop(path)
            raise UserError(
                "{file} of {repo} arrived damaged, twice: it is not what the Hub says it is.",
                file=name,
                repo=repo_id,
            )
    return Downloaded(path, commit)


def _drop(path: Path) -> None:
    for place in (path.resolve(), path):
        place.unlink(missing_ok=True)


def _fetched_again(repo_id: str, name: str, asked: dict) -> Path:
    try:
        return Path(hf_hub_download(repo_id, name, force_download=True, **asked))
    except ValueError as error:
        # In place of what keeps it from the Hub the client says only that it could not be forced.
        raise error.__cause__ or error from None


def _is_sound(repo_id: str, name: str, path: Path, commit: str, asked: dict) -> bool:
    # The cache names a file's content by the ETag that the Hub gave, and links to it where the disk knows links.
    told = path.readlink().name if path.is_symlink() else None
    if asked["local_files_only"]:
        return told is None or not _HASH.fullmatch(told) or told in _hashes(path)
    if told is None:
        told = get_hf_file_metadata(hf_hub_url(repo_id, name, revision=commit), token=asked["token"]).etag or ""
    hashes = _hashes(path)
    if told in hashes:
        return True
    # The Hub's ETags are hashes. Another server's may be anything; what it knows of the file then stands in its tree.
    listed = _listed(repo_id, name, commit, asked["token"])
    known = str(listed.lfs.sha256 if listed.lfs else listed.blob_id) if listed else ""
    if _HASH.fullmatch(known):
        return known in hashes
    return not _HASH.fullmatch(told) and (listed is None or listed.size == path.stat().st_size)


def _hashes(path: Path) -> set[str]:
    """What a file may be known by: its SHA-256, and its SHA-1 as git has it (`blob`, size, content) or of all of it."""
    content = path.read_bytes()
    return {sha256(content).hexdigest(), git_hash(content), sha1(content, usedforsecurity=False).hexdigest()}


def _listed(repo_id: str, name: str, commit: str, token: str | bool | None) -> RepoFile | None:
    """What a repo's tree says of a file; None where there is no tree, or it does not say it."""
    try:
        tree = HfApi(token=token).list_repo_tree(repo_id, str(Path(name).parent).removeprefix("."), revision=commit)
        return next((entry for entry in tree if entry.path == name and isinstance(entry, RepoFile)), None)
    except HfHubHTTPError as error:
        if error.response.status_code in (404, 405, 501):
            return None
        raise
