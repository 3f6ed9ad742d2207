"""A file of a repo on the Hub, in the Hub's own cache, checked against the hash that the Hub has for it."""

import re
from pathlib import Path
from typing import NamedTuple

from huggingface_hub import get_hf_file_metadata, hf_hub_download, hf_hub_url
from huggingface_hub.errors import RemoteEntryNotFoundError
from huggingface_hub.utils.sha import git_hash, sha_fileobj

_SHA256, _SHA1 = re.compile("[0-9a-f]{64}"), re.compile("[0-9a-f]{40}")


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

    Large files are checked against their SHA-256, small ones against their hash in git; a damaged one is fetched again
    once. Raises ValueError where the repo lacks the file, where it is larger than `at_most` bytes, which is known
    before it is fetched, and where it arrives damaged; the Hub's own errors (`huggingface_hub.errors`) otherwise.
    """
    asked = {"token": token, "cache_dir": cache_dir, "local_files_only": local_files_only}
    try:
        # Tells commit and size without fetching; the commit is asked for from here on, as a branch may move.
        told = hf_hub_download(repo_id, name, revision=revision, dry_run=True, **asked)
    except RemoteEntryNotFoundError:
        raise ValueError(f"{name} is missing in {repo_id}.") from None
    if told.file_size is not None and told.file_size > at_most:
        raise ValueError(f"{name} is larger than what it should hold.")
    asked["revision"] = told.commit_hash
    path = Path(hf_hub_download(repo_id, name, force_download=force_download, **asked))
    if not _is_sound(repo_id, name, path, told.commit_hash, token):
        if local_files_only:
            raise ValueError(f"{name} of {repo_id} is damaged in the cache.")
        path.unlink()  # or the client would leave it as it is, where it is no link
        path = _fetched_again(repo_id, name, asked)
        if not _is_sound(repo_id, name, path, told.commit_hash, token):
            raise ValueError(f"{name} of {repo_id} arrived damaged, twice: it is not what the Hub says it is.")
    return Downloaded(path, told.commit_hash)


def _fetched_again(repo_id: str, name: str, asked: dict) -> Path:
    try:
        return Path(hf_hub_download(repo_id, name, force_download=True, **asked))
    except ValueError as error:
        # In place of what keeps it from the Hub the client says only that it could not be forced.
        raise error.__cause__ or error from None


def _is_sound(repo_id: str, name: str, path: Path, commit: str, token: str | bool | None) -> bool:
    # The cache names a file's content by the hash that the Hub gave, and links to it where the disk knows links.
    told = path.readlink().name if path.is_symlink() else ""
    if not (_SHA256.fullmatch(told) or _SHA1.fullmatch(told)):
        told = get_hf_file_metadata(hf_hub_url(repo_id, name, revision=commit), token=token).etag or ""
    with path.open("rb") as file:
        if _SHA256.fullmatch(told):
            return sha_fileobj(file).hex() == told
        return git_hash(file.read()) == told
