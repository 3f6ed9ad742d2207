"""The Space's front door: finds the GPU, or has it lent; builds the page, launches."""

import os

# Torch's threads spin while they wait for each other; beside a page to serve, that makes the small steps of these
# networks many times slower. Read once, when torch is loaded.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import spaces  # isort: skip - before torch, which a ZeroGPU Space must not wake in this process

os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
# Or else each request would sum up the ten thousand before it, for a summary that nobody reads.
os.environ.setdefault("GRADIO_ANALYTICS_CACHE_FREQUENCY", "1000000000")
os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")  # the page shows them

import logging
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
from spaces.config import Config

from trainer.jobs.slices import Job, gpu_seconds, run_job
from trainer.learning.device import allow_tf32, choose_device
from trainer.learning.lr_finder import find_lr
from trainer.learning.race import race
from ui import uploads
from ui.cleaning import keep_clean
from ui.i18n import language
from ui.i18n.words import i18n
from ui.lab import Lab
from ui.limits import find_limits
from ui.page import STYLE, build_page
from ui.parts.markup import interrupted
from ui.queue import limit_queue
from ui.zerogpu import BorrowedGpu

_MOST_AT_ONCE = 400  # handlers; most of them wait: for pictures, for the Hub, for the next second
_MOST_SESSIONS = 1000  # whose state Gradio keeps, at up to 1 MB each; the one that was used least recently goes first
_MOST_WAITING = 10_000  # requests of any kind; ZeroGPU's own default is one


@spaces.GPU(duration=gpu_seconds)
def run_on_gpu(job: Job) -> Iterator[Any]:
    """Runs a job in a worker process that has borrowed a GPU for the job's duration."""
    device = choose_device()
    allow_tf32(device)
    yield from run_job(job, device)


def build_lab() -> Lab:
    """Trains in this process on the fastest device there is or, on ZeroGPU, in slices in a worker that has the GPU."""
    folder = os.environ.get("OPTIMIZER_LAB_CHECKPOINTS")
    if Config.zero_gpu:
        gpu = BorrowedGpu(run_on_gpu)
        # A picture is a millisecond's work: not worth seconds of a visitor's quota.
        device, trains, searches = torch.device("cpu"), gpu.race, gpu.find_lr
    else:
        device = choose_device()
        allow_tf32(device)
        trains, searches = partial(race, device=device), partial(find_lr, device=device)
    return Lab(
        checkpoints=Path(folder or "checkpoints"),
        device=device,
        race=trains,
        find_lr=searches,
        limits=find_limits(),
        forgets=bool(os.environ.get("SPACE_ID")) and not folder,
    )


def log_to_stderr() -> None:
    """Writes what the app logs to stderr, from level INFO; of other libraries only warnings and errors."""
    # httpx logs each address at INFO, and some of the Hub's carry a signature.
    logging.basicConfig(format="%(levelname)s %(name)s: %(message)s")
    for package in ("trainer", "ui"):
        logging.getLogger(package).setLevel(logging.INFO)


def main() -> None:
    """Builds the page and serves it, on http://127.0.0.1:7860 unless Gradio's environment variables say otherwise."""
    log_to_stderr()
    try:
        lab = build_lab()
    except ValueError as error:
        sys.exit(f"error: {error}")
    keep_clean(lab)
    page = build_page(lab)
    # Not api_open: what was sent past the queue would train beside others, and count in no line.
    page.queue(max_size=_MOST_WAITING, default_concurrency_limit=8, api_open=False)
    limit_queue(page, lab.limits.queue, status_of_absent=interrupted)
    uploads.refuse_addresses()
    largest_file = int(min(lab.limits.upload_mb, 1e6) * 2**20)
    page.launch(
        css=STYLE,
        i18n=i18n,
        app_kwargs={"middleware": [*language.MIDDLEWARE, *uploads.middleware(largest_file)]},
        ssr_mode=False,  # the server would draw the page before the browser has told its language
        footer_links=[],
        run_history=False,
        max_threads=_MOST_AT_ONCE,
        max_file_size=largest_file,
        state_session_capacity=_MOST_SESSIONS,
        show_error=False,
    )


if __name__ == "__main__":
    main()
