"""The sources of image sets: the Hub, torchvision, a folder, and drawn shapes."""

import hashlib
import math
import os
import re
import tempfile
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from http.client import HTTPException
from pathlib import Path
from typing import Any, TypeVar, cast

import torch

from trainer.errors import Message, UserError, as_clause, first_line
from trainer.images import synthetic
from trainer.images.address import DatasetAddress, parse
from trainer.images.image_folder import list_folder, open_folder, open_zip
from trainer.images.readers import (
    CIFAR10_CLASSES,
    CIFAR10_NAME,
    CIFAR10_REPO,
    Pictures,
    find_tables,
    read_dataset,
    read_files,
    read_parquet,
)
from trainer.progress import Report, ignore_progress, run_with_timeout

CIFAR10_REVISION = "0b2714987fa478483af9968de7c934580d0bb9a2"
# `auto` may wait for both before it draws shapes, and the app should be usable within 15 seconds of its start. The Hub
# gets more time, because it takes several requests to two hosts.
HUB_SECONDS = 5.0
TORCHVISION_SECONDS = 3.0
# Long enough for a slow connection; the Hub client's own retries would take minutes.
STALL_SECONDS = 30.0

_HUB = Message("The Hub")
_UNREACHABLE = "{server} could not be reached within {seconds} seconds."
_STALLED = "{server} answered, then was silent for {seconds} seconds."

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Source:
    """An image set and how to read it."""

    address: str
    """The argument of find_source that finds exactly this source."""
    key: str
    """Part of the cache file's name: different for any two sources whose pictures may differ."""
    fetch: Callable[[Report], Pictures]
    """Returns the pictures."""
    revision: str | None = None
    """The commit on the Hub; None for other sources."""
    server: str | None = None
    """The server's name in sentences; None if the source needs no server."""
    reach: Callable[[Report], Any] | None = None
    """Returns as soon as the server answers."""
    reach_seconds: float = 0.0

    def read(self, progress: Report) -> Pictures:
        """Returns the pictures, after contacting the server, if there is one.

        Raises UserError if the server does not answer within reach_seconds or sends nothing for STALL_SECONDS, or if
        the content is not an image set.
        """
        try:
            if self.reach is None:
                return run_with_timeout(self.fetch, progress, math.inf)
            _within(self.reach_seconds, self.reach, progress, _UNREACHABLE, server=self.server)
            return _within(STALL_SECONDS, self.fetch, progress, _STALLED, server=self.server)
        except UserError:
            raise
        except (OSError, RuntimeError, ValueError, HTTPException) as error:
            raise UserError("The images could not be read ({reason}).", reason=first_line(error)) from error


def find_source(address: str) -> Source:
    """Returns the source of an address: hub, torchvision, synthetic, a folder, a zip, or that of a dataset on the Hub.

    Contacts the Hub only for a dataset whose revision is missing or not a full commit hash. Raises UserError if there
    is no such source.
    """
    if address == "hub":
        return _hub(DatasetAddress(CIFAR10_REPO, revision=CIFAR10_REVISION))
    if address == "torchvision":
        return _TORCHVISION
    if address == "synthetic":
        return _SYNTHETIC
    path = Path(os.path.expanduser(address))  # noqa: PTH111 - Path.expanduser raises for a user that does not exist
    if os.path.exists(path):
        return _local(path.resolve())
    if dataset := parse(address):
        if dataset.revision is None and dataset.repo_id == CIFAR10_REPO:
            dataset = replace(dataset, revision=CIFAR10_REVISION)
        if not dataset.is_fixed:
            dataset = replace(dataset, revision=_commit(dataset.repo_id, dataset.revision))
        return _hub(dataset)
    if "/" in address:
        raise UserError("There is no folder {folder}.", folder=f"{address[:200]!r}")
    raise UserError(
        "There is no image source {address}: choose auto, hub, torchvision, synthetic, a folder, a zip, or "
        "a dataset on the Hub as owner/name.",
        address=f"{address[:200]!r}",
    )


def is_name(address: str) -> bool:
    """Returns whether an address names the same images everywhere, unlike a path or a branch."""
    dataset = parse(address)
    return address in ("hub", "torchvision", "synthetic") or bool(dataset and dataset.is_fixed)


def _commit(repo_id: str, revision: str | None) -> str:
    """Returns the commit of a dataset's revision, by default the newest. Raises UserError if the Hub has none."""
    try:
        contact = partial(_contact_hub, repo_id, revision)
        return _within(HUB_SECONDS, contact, ignore_progress, _UNREACHABLE, server=_HUB)
    except UserError as error:
        # It may be a mistyped folder.
        raise UserError("There is no folder {folder} here, and {why}.", folder=repo_id, why=as_clause(error)) from error


def _within(seconds: float, work: Callable[[Report], T], progress: Report, complaint: str, *, server: str | None) -> T:
    try:
        return run_with_timeout(work, progress, seconds)
    except TimeoutError:
        raise UserError(complaint, server=server, seconds=f"{seconds:g}") from None


def _hub(dataset: DatasetAddress) -> Source:
    is_default = dataset == DatasetAddress(CIFAR10_REPO, revision=CIFAR10_REVISION)
    parts = [dataset.repo_id, dataset.config, dataset.label and f"by-{dataset.label}"]
    return Source(
        address="hub" if is_default else str(dataset),
        key=f"hub-{_slug('--'.join(filter(None, parts)))}-{dataset.revision}",
        fetch=partial(read_dataset, dataset, Message("The dataset {repo}", repo=dataset.repo_id)),
        revision=dataset.revision,
        server=_HUB,
        reach=partial(_contact_hub, dataset.repo_id, dataset.revision),
        reach_seconds=HUB_SECONDS,
    )


def _contact_hub(repo_id: str, revision: str | None, report: Report) -> str:
    """Returns the commit of a revision (None: the newest) after downloading the first byte of a data file.

    The byte tests the connection to the host that the Hub redirects file requests to, which a firewall may block.
    """
    from huggingface_hub import HfApi, errors, get_session, hf_hub_url
    from huggingface_hub.utils import build_hf_headers, hf_raise_for_status

    report(0.0, "Contacting the Hub")
    # For a single request; the caller limits all of them to HUB_SECONDS and reports the timeout.
    timeout = 2 * HUB_SECONDS
    try:
        info = HfApi().dataset_info(repo_id, revision=revision, timeout=timeout)
        tables = [file.rfilename for file in info.siblings or [] if file.rfilename.endswith(".parquet")]
        for table in tables[:1]:
            url = hf_hub_url(repo_id, table, repo_type="dataset", revision=info.sha)
            headers = {**build_hf_headers(), "Range": "bytes=0-0"}
            with get_session().stream("GET", url, headers=headers, timeout=timeout, follow_redirects=True) as answer:
                hf_raise_for_status(answer)
    except errors.OfflineModeIsEnabled as error:
        raise UserError("The Hub was not contacted, because HF_HUB_OFFLINE is set.") from error
    except errors.GatedRepoError as error:
        raise UserError(
            "The dataset {repo} is gated: accept its conditions on its page on the Hub.",
            repo=repo_id,
        ) from error
    except errors.RepositoryNotFoundError as error:
        raise UserError("The Hub has no dataset {repo}, or it is private.", repo=repo_id) from error
    except errors.RevisionNotFoundError as error:
        raise UserError(
            "The Hub's dataset {repo} has no revision {revision}.", repo=repo_id, revision=revision
        ) from error
    except errors.HfHubHTTPError as error:
        raise UserError(
            "{server} answered with HTTP status {status}.", server=_HUB, status=error.response.status_code
        ) from error
    except Exception as error:
        raise UserError("{server} could not be reached ({reason}).", server=_HUB, reason=first_line(error)) from error
    return cast(str, info.sha)  # every answer of the Hub has it


def _contact_torchvision(report: Report) -> None:
    from torchvision.datasets import CIFAR10

    report(0.0, "Contacting torchvision's server")
    with _open(CIFAR10.url, method="HEAD"):
        pass


def _fetch_torchvision(report: Report) -> Pictures:
    from torchvision.datasets import CIFAR10
    from torchvision.datasets.utils import check_integrity

    with tempfile.TemporaryDirectory(prefix="optimizer-lab-") as root:
        # torchvision's own download has no timeout and prints; it uses an existing archive if the MD5 is right.
        archive = Path(root, CIFAR10.filename)
        _download(CIFAR10.url, archive, report)
        report(0.9, "Unpacking CIFAR-10")
        if not check_integrity(archive, CIFAR10.tgz_md5):
            raise UserError("{server} sent something other than CIFAR-10.", server=_TORCHVISION.server)
        # The archive contains pickles: torchvision checks the MD5 of each before it loads it.
        train, test = (CIFAR10(root, train=is_train, download=True) for is_train in (True, False))
        train, test = ((torch.from_numpy(s.data).contiguous(), torch.tensor(s.targets)) for s in (train, test))
        return Pictures(CIFAR10_NAME, CIFAR10_CLASSES, train, test)


def _download(url: str, path: Path, report: Report) -> None:
    with _open(url) as answer, path.open("wb") as file:
        size = int(answer.headers.get("Content-Length") or 0)
        # read1 returns what has arrived, so that a slow connection reports progress as often as a fast one.
        while chunk := answer.read1(2**18):
            file.write(chunk)
            done = file.tell()
            report(
                0.9 * min(1.0, done / size) if size else 0.0,
                Message("Downloading CIFAR-10: {size} MB", size=f"{done / 1e6:.0f}"),
            )


@contextmanager
def _open(url: str, method: str = "GET") -> Iterator[Any]:
    request = urllib.request.Request(url, method=method, headers={"User-Agent": "optimizer-lab"})  # noqa: S310
    try:
        with urllib.request.urlopen(request, timeout=STALL_SECONDS) as answer:  # noqa: S310
            yield answer
    except urllib.error.HTTPError as error:
        error.close()
        raise UserError(
            "{server} answered with HTTP status {status}.", server=_TORCHVISION.server, status=error.code
        ) from error
    except OSError as error:
        reason = getattr(error, "reason", error)
        raise UserError(
            "{server} could not be reached ({reason}).", server=_TORCHVISION.server, reason=first_line(reason)
        ) from error


_TORCHVISION = Source(
    address="torchvision",
    key="torchvision-cifar10",
    fetch=_fetch_torchvision,
    server=Message("The server that torchvision gets CIFAR-10 from"),
    reach=_contact_torchvision,
    reach_seconds=TORCHVISION_SECONDS,
)


def _fetch_synthetic(report: Report) -> Pictures:
    report(0.0, "Drawing shapes")
    images, labels = synthetic.draw_shapes()
    num = synthetic.NUM_TRAIN
    return Pictures("synthetic", synthetic.CLASS_NAMES, (images[:num], labels[:num]), (images[num:], labels[num:]))


_SYNTHETIC = Source(address="synthetic", key=f"synthetic-{synthetic.VERSION}", fetch=_fetch_synthetic)


def _local(path: Path) -> Source:
    try:
        str(path).encode()
    except UnicodeEncodeError:
        raise UserError("The folder's path is not UTF-8, so a run could not record it.") from None
    is_zip = path.is_file() and path.suffix.lower() == ".zip"
    what = Message("The zip {file}", file=path.name) if is_zip else Message("The folder {folder}", folder=path.name)
    if not is_zip and not path.is_dir():
        raise UserError("{name} is a file: choose a folder or a zip.", name=path.name)
    try:
        tables = [] if is_zip else find_tables(path)
        if tables:
            files = [*tables, *path.glob("README.md")]
            fetch = partial(read_parquet, path, path.name, what)
        else:
            files = [path] if is_zip else list(list_folder(path).values())
            fetch = partial(_read_zip if is_zip else _read_folder, path, what)
        fingerprint = _fingerprint(path, files)
    except OSError as error:
        raise UserError("{what} cannot be read ({reason}).", what=what, reason=error.strerror) from error
    return Source(address=str(path), key=f"folder-{_slug(path.name)}-{fingerprint}", fetch=fetch)


def _read_folder(folder: Path, what: str, report: Report) -> Pictures:
    return read_files(open_folder(folder), folder.name, what, report)


def _read_zip(path: Path, what: str, report: Report) -> Pictures:
    with open_zip(path, what) as files:
        return read_files(files, path.stem, what, report)


def _fingerprint(folder: Path, files: list[Path]) -> str:
    """Returns a hash that differs between folders and changes if a file is added, removed, renamed or written to."""
    listing = [str(folder)]
    for file in sorted(files):
        stat = file.stat()
        listing.append(f"{os.path.relpath(file, folder)}\0{stat.st_size}\0{stat.st_mtime_ns}")
    # File names may be other than UTF-8.
    return hashlib.sha256("\0".join(listing).encode(errors="surrogateescape")).hexdigest()[:16]


def _slug(name: str) -> str:
    """Returns a name with all unusual characters replaced, for use in a file name."""
    return re.sub(r"[^A-Za-z0-9._-]+", "--", name)[:80]
