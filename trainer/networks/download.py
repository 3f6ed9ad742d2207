"""Downloads of files from repos on the Hub, checked against the Hub's hashes."""

import re
from hashlib import sha1, sha256
from pathlib import Path
from typing import Any, NamedTuple

from huggingface_hub import HfApi, get_hf_file_metadata, hf_hub_download, hf_hub_url, is_offline_mode
from huggingface_hub.errors import HfHubHTTPError, RemoteEntryNotFoundError
from huggingface_hub.hf_api import RepoFile
from huggingface_hub.utils.sha import git_hash

from trainer.errors import UserError

_HASH = re.compile("[0-9a-f]{40}|[0-9a-f]{64}")


class Downloaded(NamedTuple):
    """The path of a checked file in the cache, and the commit that the file belongs to."""

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
    """Returns the file `name` of a repo, downloaded unless it is cached. Other arguments as of `hf_hub_download`.

    The content is checked against its SHA-256 (large files) or its hash in git (small ones), or against its size if the
    server reports neither; a damaged file is downloaded once more. Raises UserError if the repo lacks the file, if it
    is larger than `at_most` bytes, which is checked before the download, or if it is damaged twice; otherwise the Hub's
    own errors (`huggingface_hub.errors`).
    """
    local_files_only = local_files_only or is_offline_mode()
    arguments: dict[str, Any] = {"token": token, "cache_dir": cache_dir, "local_files_only": local_files_only}
    try:
        info = hf_hub_download(repo_id, name, revision=revision, dry_run=True, **arguments)  # the size, no download
    except RemoteEntryNotFoundError:
        raise UserError("{file} is missing in {repo}.", file=name, repo=repo_id) from None
    if info.file_size is not None and info.file_size > at_most:
        raise UserError("{file} is larger than expected.", file=name)
    # With the name of the revision, not its commit: the cache then knows the commit of that name without a network.
    path = Path(hf_hub_download(repo_id, name, revision=revision, force_download=force_download, **arguments))
    commit = path.parents[name.count("/")].name
    arguments["revision"] = commit  # a branch may move
    if not _is_sound(repo_id, name, path, commit, arguments):
        if local_files_only:
            raise UserError("{file} of {repo} is damaged in the cache.", file=name, repo=repo_id)
        _delete(path)  # the client would not replace a file that is not a link
        path = _download_again(repo_id, name, arguments)
        if not _is_sound(repo_id, name, path, commit, arguments):
            _delete(path)
            raise UserError(
                "{file} of {repo} was damaged after two downloads: its hash is not the one on the Hub.",
                file=name,
                repo=repo_id,
            )
    return Downloaded(path, commit)


def _delete(path: Path) -> None:
    for file in (path.resolve(), path):
        file.unlink(missing_ok=True)


def _download_again(repo_id: str, name: str, arguments: dict[str, Any]) -> Path:
    try:
        return Path(hf_hub_download(repo_id, name, force_download=True, **arguments))
    except ValueError as error:
        # The client raises a ValueError without the reason, which is the cause.
        raise error.__cause__ or error from None


def _is_sound(repo_id: str, name: str, path: Path, commit: str, arguments: dict[str, Any]) -> bool:
    # The cache names the content by the Hub's ETag, and links to it on disks that support links.
    etag = path.readlink().name if path.is_symlink() else None
    if arguments["local_files_only"]:
        return etag is None or not _HASH.fullmatch(etag) or etag in _hashes(path)
    if etag is None:
        etag = get_hf_file_metadata(hf_hub_url(repo_id, name, revision=commit), token=arguments["token"]).etag or ""
    hashes = _hashes(path)
    if etag in hashes:
        return True
    # The Hub's ETags are hashes. Another server's may be anything; its tree then has the hash or the size.
    listed = _listed(repo_id, name, commit, arguments["token"])
    known = str(listed.lfs.sha256 if listed.lfs else listed.blob_id) if listed else ""
    if _HASH.fullmatch(known):
        return known in hashes
    return not _HASH.fullmatch(etag) and (listed is None or listed.size == path.stat().st_size)


def _hashes(path: Path) -> set[str]:
    """Returns the hashes that a server may report: SHA-256, git's SHA-1 (of `blob`, size and content) and SHA-1."""
    content = path.read_bytes()
    return {sha256(content).hexdigest(), git_hash(content), sha1(content, usedforsecurity=False).hexdigest()}


def _listed(repo_id: str, name: str, commit: str, token: str | bool | None) -> RepoFile | None:
    """Returns a file's entry in the repo's tree, or None if the server has no tree or the tree no such entry."""
    try:
        tree = HfApi(token=token).list_repo_tree(repo_id, str(Path(name).parent).removeprefix("."), revision=commit)
        return next((entry for entry in tree if entry.path == name and isinstance(entry, RepoFile)), None)
    except HfHubHTTPError as error:
        if error.response.status_code in (404, 405, 501):
            return None
        raise
