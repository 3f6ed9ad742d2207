"""Deletes runs, uploads and downloads that are old or too large; no runs in training, and no bundled ones."""

import logging
import math
import os
import threading
import time
from contextlib import suppress
from pathlib import Path

from gradio.utils import get_upload_folder
from huggingface_hub import CacheNotFound, scan_cache_dir

from trainer.runs import run_folder
from ui.lab import OWNER, Lab
from ui.limits import Limits

_logger = logging.getLogger(__name__)

_SECONDS_BETWEEN = 600.0
SECONDS_UPLOADED = 24 * 3600  # that a visitor's file is kept
_GRACE_SECONDS = 3600.0  # for which a folder that holds no run yet is kept: its training may have just begun


def keep_clean(lab: Lab) -> None:
    """Clears what a limited Lab keeps, now and every ten minutes for as long as the app runs, in the background."""

    def work():
        while True:
            try:
                clear(lab.all_runs(), lab.limits)
                clear_uploads(Path(get_upload_folder()), lab.limits)
                if os.environ.get("SPACE_ID"):  # elsewhere the Hub's cache is not the app's alone
                    clear_downloads(lab.limits)
            except Exception:
                _logger.exception("Clearing what is old failed; it is tried again in ten minutes.")
            time.sleep(_SECONDS_BETWEEN)

    if math.isfinite(lab.limits.days) or math.isfinite(lab.limits.disk_gb):
        threading.Thread(target=work, daemon=True).start()


def clear(folders: list[Path], limits: Limits) -> None:
    """Deletes the runs that were last written too long ago and, the oldest first, those that are too much together.

    Runs that nobody owns, as those of the API, go before those of visitors.
    """
    now = time.time()
    in_order = sorted((os.path.exists(folder / OWNER), _last_written(folder), folder) for folder in folders)
    sizes = {folder: _size(folder) for folder in folders}
    total = sum(sizes.values())
    for _, written, folder in in_order:
        is_old = now - written > limits.days * 86400 or (
            not run_folder.is_run(folder) and now - written > _GRACE_SECONDS
        )
        if is_old or total > limits.disk_gb * 1e9:
            # ValueError: it is being trained, or the disk refuses; another time, then.
            with suppress(ValueError, OSError):
                run_folder.delete(folder)
            total -= sizes[folder] - _size(folder)  # also where its visitor was faster


def clear_uploads(folder: Path, limits: Limits) -> None:
    """Deletes the files that visitors sent, or were given, a day ago and, the oldest first, those that are too much.

    Gradio knows their age only of those that came since it was started, and nothing of their size.
    """
    files = []
    with suppress(OSError):
        for path in folder.rglob("*"):
            with suppress(OSError):
                if path.is_file():
                    files.append((path.stat().st_mtime, path.stat().st_size, path))
    total = sum(size for _, size, _ in files)
    for written, size, path in sorted(files):
        if time.time() - written > SECONDS_UPLOADED or total > limits.disk_gb * 1e9:
            with suppress(OSError):
                path.unlink()
                total -= size


def clear_downloads(limits: Limits) -> None:
    """Deletes what was fetched from the Hub where it is too much, what was not used for longest first."""
    try:
        kept = scan_cache_dir()
    except CacheNotFound:
        return
    too_much, old = kept.size_on_disk - limits.disk_gb * 1e9, []
    for repo in sorted(kept.repos, key=lambda repo: repo.last_accessed):
        if too_much > 0:
            old += [revision.commit_hash for revision in repo.revisions]
            too_much -= repo.size_on_disk
    if old:
        kept.delete_revisions(*old).execute()


def _last_written(folder: Path) -> float:
    for file in (folder / run_folder.HISTORY_FILE, folder):
        with suppress(OSError):
            return file.stat().st_mtime
    return math.inf


def _size(folder: Path) -> int:
    """The bytes in a folder, as far as they can be counted: what is being written may go meanwhile."""
    total = 0
    with suppress(OSError):
        for file in folder.rglob("*"):
            with suppress(OSError):
                total += file.stat().st_size
    return total
