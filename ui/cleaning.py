"""Deletes runs, sweeps, uploads and downloads that are old or too large; none in training, and no bundled ones."""

import logging
import math
import os
import threading
import time
from contextlib import suppress
from pathlib import Path

from gradio.utils import get_upload_folder
from huggingface_hub import CacheNotFound, scan_cache_dir

from trainer.errors import UserError
from trainer.runs import run_folder
from trainer.sweeps.folder import is_sweep
from ui.lab import Lab
from ui.limits import Limits
from ui.run_index import OWNER

_logger = logging.getLogger(__name__)

_SECONDS_BETWEEN = 600.0
SECONDS_UPLOADED = 24 * 3600  # that an uploaded file is kept
_GRACE_SECONDS = 3600.0  # that a folder without a run is kept: its training may have just begun


def keep_clean(lab: Lab) -> None:
    """Deletes old uploads, and enforces the Lab's limits, in a background thread: now and every ten minutes."""
    has_limits = math.isfinite(lab.limits.days) or math.isfinite(lab.limits.disk_gb)

    def work() -> None:
        while True:
            try:
                clear_uploads(Path(get_upload_folder()), lab.limits)
                if has_limits:
                    lab.sets.clear()
                    clear([folder for folder in lab.runs.all() if not lab.is_in_training([folder])], lab.limits)
                if has_limits and os.environ.get("SPACE_ID"):  # elsewhere other programs share the Hub's cache
                    clear_downloads(lab.limits)
            except Exception:
                _logger.exception("Deleting old files failed; trying again in ten minutes.")
            time.sleep(_SECONDS_BETWEEN)

    threading.Thread(target=work, daemon=True).start()


def clear(folders: list[Path], limits: Limits) -> None:
    """Deletes runs and sweeps older than the limit, then the oldest ones until the rest fits in the disk limit.

    Those without an owner, which come from the API, go first.
    """
    now = time.time()
    in_order = sorted((os.path.exists(folder / OWNER), _last_written(folder), folder) for folder in folders)
    sizes = {folder: _size(folder) for folder in folders}
    total = sum(sizes.values())
    for _, written, folder in in_order:
        is_old = now - written > limits.days * 86400 or (
            not (run_folder.is_run(folder) or is_sweep(folder)) and now - written > _GRACE_SECONDS
        )
        if is_old or total > limits.disk_gb * 1e9:
            # UserError: the run is being trained, or the disk refuses. The next round tries again.
            with suppress(UserError, OSError):
                run_folder.delete(folder)
            total -= sizes[folder] - _size(folder)  # its visitor may have deleted it first


def clear_uploads(folder: Path, limits: Limits) -> None:
    """Deletes uploads and downloads older than a day, then the oldest ones until the rest fits in the disk limit.

    Each upload has a folder, which goes a day after its file.

    Gradio's own `delete_cache` knows only the files since its start, and not their size.
    """
    files, folders = [], []
    with suppress(OSError):
        for path in folder.rglob("*"):
            with suppress(OSError):
                if path.is_file():
                    files.append((path.stat().st_mtime, path.stat().st_size, path))
                elif path.is_dir():
                    folders.append(path)
    total = sum(size for _, size, _ in files)
    for written, size, path in sorted(files):
        if time.time() - written > SECONDS_UPLOADED or total > limits.disk_gb * 1e9:
            with suppress(OSError):
                path.unlink()
                total -= size
    for path in folders:
        with suppress(OSError):  # it is not empty
            if time.time() - path.stat().st_mtime > SECONDS_UPLOADED:
                path.rmdir()


def clear_downloads(limits: Limits) -> None:
    """Deletes repos from the Hub's cache, the least recently used first, until the rest fits in the disk limit."""
    try:
        cache = scan_cache_dir()
    except CacheNotFound:
        return
    excess = cache.size_on_disk - limits.disk_gb * 1e9
    old: list[str] = []
    for repo in sorted(cache.repos, key=lambda repo: repo.last_accessed):
        if excess > 0:
            old += [revision.commit_hash for revision in repo.revisions]
            excess -= repo.size_on_disk
    if old:
        cache.delete_revisions(*old).execute()


def _last_written(folder: Path) -> float:
    for file in (folder / run_folder.HISTORY_FILE, folder):
        with suppress(OSError):
            return file.stat().st_mtime
    return math.inf


def _size(folder: Path) -> int:
    """The bytes in a folder, without files that disappear or cannot be read."""
    total = 0
    with suppress(OSError):
        for file in folder.rglob("*"):
            with suppress(OSError):
                total += file.stat().st_size
    return total
