"""The app's entry point: chooses where trainings run, builds the page and serves it."""

import os
import sys

# These import nothing that takes long.
from trainer.environment import check_numbers, name_user
from trainer.errors import UserError, first_line
from ui.server.proxies import reach_itself
from ui.server.starting import NUMBERS, check_arguments, end_starting, refuse, say_starting

try:
    check_numbers(NUMBERS)
    name_user()
    reach_itself()
except UserError as error:
    refuse(error)

if __name__ == "__main__":
    check_arguments(sys.argv[1:])
    say_starting()

# Torch's threads busy-wait for each other by default, which makes the small steps of these networks many times slower
# while the same cores serve a page. Torch reads the variable once, when it is imported.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import spaces  # isort: skip - before torch, whose CUDA must not be initialized in this process on a ZeroGPU Space

os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
# Gradio would otherwise summarize the last ten thousand requests at each request, for a summary that is not used.
os.environ.setdefault("GRADIO_ANALYTICS_CACHE_FREQUENCY", "1000000000")
os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")  # the page displays the progress

import logging
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import torch
from spaces.config import Config

from trainer.jobs.cluster import LOCAL, check_place, connect
from trainer.jobs.process import Workers
from trainer.jobs.slices import Job, gpu_seconds, run_job
from trainer.jobs.work import Work
from trainer.learning.device import allow_tf32, choose_device, choose_devices
from ui.charts.live import static_path
from ui.cleaning import keep_clean
from ui.i18n import language
from ui.i18n.words import i18n
from ui.jobs.zerogpu import BorrowedGpu
from ui.lab import Lab
from ui.limits import find_limits
from ui.look.theme import STYLE, build_theme
from ui.page import build_page
from ui.server import malformed, rendering, sessions, uploads
from ui.stored_runs import find_folder

_MAX_THREADS = 2000  # of handlers, and events that run at a time: each open page has one that mostly sleeps
_MAX_SESSIONS = 1000  # whose state Gradio keeps, about 0.1 MB each; the least recently used is dropped first
_MAX_QUEUED = 10_000  # requests of any kind; the default on ZeroGPU is 1


@spaces.GPU(duration=gpu_seconds)
def run_on_gpu(job: Job) -> Iterator[Any]:
    """Runs a job in a worker process that has borrowed a GPU for the job's duration."""
    device = choose_device()
    allow_tf32(device)
    yield from run_job(job, device)


def build_lab() -> Lab:
    """Returns the lab, which trains in a process for each device or, on ZeroGPU, on a borrowed GPU.

    Raises UserError if an environment variable has an invalid value, OSError if no folder can be written.
    """
    limits, folder, share_machine, parallel = find_limits(), find_folder(), False, 1
    place = check_place(os.environ.get("OPTIMIZER_LAB_WORKERS") or LOCAL)
    # Classifying a picture takes a millisecond on the CPU; on ZeroGPU it would cost seconds of the visitor's GPU quota.
    device = torch.device("cpu")
    run: Callable[[Work, threading.Event], Iterator[Any]]
    if place != LOCAL:
        cluster = connect(place)
        limits = replace(limits, at_once=min(limits.at_once, cluster.size))
        run, parallel = cluster.run, max(1, cluster.size // 2)  # the other half is left for trainings
    elif Config.zero_gpu:
        run = BorrowedGpu(run_on_gpu).run
    else:
        devices = choose_devices()
        device, run, parallel, share_machine = choose_device(), Workers(devices).run, len(devices), True
        allow_tf32(device)
    return Lab(
        checkpoints=folder,
        device=device,
        run=run,
        parallel=parallel,
        limits=limits,
        share_machine=share_machine,
        is_public=bool(os.environ.get("SPACE_ID")),
        forgets=bool(os.environ.get("SPACE_ID")) and not os.environ.get("OPTIMIZER_LAB_CHECKPOINTS"),
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
        uploads.prepare_folder()
        static_path()
        lab = build_lab()
    except (UserError, OSError) as error:
        refuse(error)
    keep_clean(lab)
    page = build_page(lab)
    # With api_open, requests could bypass the queue, in which Gradio notices that their client has gone.
    page.queue(max_size=_MAX_QUEUED, default_concurrency_limit=8, api_open=False)
    uploads.refuse_addresses()
    sessions.keep_small()
    end_starting()
    largest_file = int(min(lab.limits.upload_mb, 1e6) * 2**20)
    # The first receives each request first.
    middleware = [*rendering.MIDDLEWARE, *language.MIDDLEWARE, *uploads.middleware(largest_file), *malformed.MIDDLEWARE]
    try:
        page.launch(
            css=STYLE,
            theme=build_theme(),
            i18n=i18n,
            app_kwargs={"middleware": middleware},
            _frontend=False,  # Gradio would end the app if its page took over three seconds to open
            ssr_mode=False,  # rendered on the server, the page would not know the browser's language
            footer_links=[],
            run_history=False,
            max_threads=_MAX_THREADS,
            max_file_size=largest_file,
            state_session_capacity=_MAX_SESSIONS,
            show_error=False,
        )
    except (OSError, UnicodeError, OverflowError) as error:  # there is no such address, or its ports are taken
        refuse(first_line(error))


if __name__ == "__main__":
    main()
