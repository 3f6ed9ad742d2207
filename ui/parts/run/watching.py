"""Watches a visitor's jobs for an open page, as long as the page listens."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Hashable, Sequence

import anyio
import anyio.to_thread

from ui.jobs.listeners import MOST_UNREAD_BY_PAGE, listener
from ui.jobs.queue import Job, Jobs
from ui.parts.messages import Updates
from ui.run_index import is_key

_SECONDS_BETWEEN_LOOKS = 0.3
_SECONDS_BETWEEN_UPDATES = 1.0
# The page's timer then starts the next one. Gradio runs a limited number of events at a time, so none of a page that
# has gone without a word may last.
_SECONDS_OF_A_WATCH = 120.0
_THREADS = anyio.CapacityLimiter(4)  # that draw pages; more would only take turns


async def watch(
    jobs: Jobs,
    visitor: str | None,
    kinds: Sequence[type[Job]],
    *,
    state: Callable[[], Hashable],
    show: Callable[[], Updates],
) -> AsyncIterator[Updates]:
    """Yields the updates of `show`, now and about once a second while `state` or one of the jobs changes.

    The visitor's jobs of these kinds count as watched.
    """
    is_listening = listener(MOST_UNREAD_BY_PAGE)
    seen: Hashable = None
    ends_at = time.monotonic() + _SECONDS_OF_A_WATCH
    while is_key(visitor) and is_listening() and time.monotonic() < ends_at:
        own = [jobs.of(visitor, kind) for kind in kinds]
        for job in own:
            if job:
                job.watched_at = time.monotonic()
        now = (state(), *(_state_of(jobs, job) for job in own))
        if now == seen:
            await asyncio.sleep(_SECONDS_BETWEEN_LOOKS)
            continue
        seen = now
        yield await anyio.to_thread.run_sync(show, limiter=_THREADS)
        await asyncio.sleep(_SECONDS_BETWEEN_UPDATES)


def _state_of(jobs: Jobs, job: Job | None) -> Hashable:
    if job is None:
        return None
    return id(job), job.version, jobs.num_others(job), jobs.is_paused(job), jobs.num_before(job)
