"""The app's entry point: chooses where trainings run, builds the page and serves it."""

import os

# Torch's threads busy-wait for each other by default, which makes the small steps of these networks many times slower
# while the same cores serve a page. Torch reads the variable once, when it is imported.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import spaces  # isort: skip - before torch, whose CUDA must not be initialized in this process on a ZeroGPU Space

os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
# Gradio would otherwise summarize the last ten thousand requests at each request, for a summary that is not used.
os.environ.setdefault("GRADIO_ANALYTICS_CACHE_FREQUENCY", "1000000000")
os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")  # the page displays the progress

import logging
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from spaces.config import Config

from trainer.errors import UserError
from trainer.jobs.process import Workers
from trainer.jobs.slices import Job, gpu_seconds, run_job
from trainer.learning.device import allow_tf32, choose_device, choose_devices
from ui import uploads
from ui.cleaning import keep_clean
from ui.i18n import language
from ui.i18n.words import i18n
from ui.jobs.zerogpu import BorrowedGpu
from ui.lab import Lab
from ui.limits import find_limits
from ui.page import STYLE, build_page

_MAX_THREADS = 2000  # of handlers, and events that run at a time: each open page has one that mostly sleeps
_MAX_SESSIONS = 1000  # whose state Gradio keeps, up to 1 MB each; the least recently used is dropped first
_MAX_QUEUED = 10_000  # requests of any kind; the default on ZeroGPU is 1


@spaces.GPU(duration=gpu_seconds)
def run_on_gpu(job: Job) -> Iterator[Any]:
    """Runs a job in a worker process that has borrowed a GPU for the job's duration."""
    device = choose_device()
    allow_tf32(device)
    yield from run_job(job, device)


def build_lab() -> Lab:
    """Returns the lab, which trains in a process for each device or, on ZeroGPU, on a borrowed GPU.

    Raises UserError if an environment variable has an invalid value.
    """
    folder = os.environ.get("OPTIMIZER_LAB_CHECKPOINTS")
    if Config.zero_gpu:
        gpu = BorrowedGpu(run_on_gpu)
        # Classifying a picture takes a millisecond on the CPU and would cost seconds of the visitor's GPU quota.
        device, run = torch.device("cpu"), gpu.run
    else:
        device, run = choose_device(), Workers(choose_devices()).run
        allow_tf32(device)
    return Lab(
        checkpoints=Path(folder or "checkpoints"),
        device=device,
        run=run,
        limits=find_limits(),
        share_machine=not Config.zero_gpu,
        is_public=bool(os.environ.get("SPACE_ID")),
        forgets=bool(os.environ.get("SPACE_ID")) and not folder,
    )


def log_to_stderr() -> None:
    """Logs to stderr: the app's own records from level INFO, those of other libraries from WARNING."""
    # httpx logs each URL at INFO, and some URLs of the Hub contain a signature.
    logging.basicConfig(format="%(levelname)s %(name)s: %(message)s")
    for package in ("trainer", "ui"):
        logging.getLogger(package).setLevel(logging.INFO)


def main() -> None:
    """Builds the page and serves it, on http://127.0.0.1:7860 unless Gradio's environment variables say otherwise."""
    log_to_stderr()
    try:
        lab = build_lab()
    except UserError as error:
        sys.exit(f"error: {error}")
    keep_clean(lab)
    page = build_page(lab)
    # With api_open, requests could bypass the queue, in which Gradio notices that their client has gone.
    page.queue(max_size=_MAX_QUEUED, default_concurrency_limit=8, api_open=False)
    uploads.refuse_addresses()
    largest_file = int(min(lab.limits.upload_mb, 1e6) * 2**20)
    page.launch(
        css=STYLE,
        i18n=i18n,
        app_kwargs={"middleware": [*language.MIDDLEWARE, *uploads.middleware(largest_file)]},
        ssr_mode=False,  # rendered on the server, the page would not know the browser's language
        footer_links=[],
        run_history=False,
        max_threads=_MAX_THREADS,
        max_file_size=largest_file,
        state_session_capacity=_MAX_SESSIONS,
        show_error=False,
    )


if __name__ == "__main__":
    main()
