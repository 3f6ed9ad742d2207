"""Jobs: the work that visitors have requested, which belongs to the app and not to a page.

A job goes on when its page is closed, reloaded or asleep. Pages only watch it (see `ui.tabs.train.live`).
"""

import contextvars
import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar, TypeVar, cast

from trainer.errors import BROKEN, Message, UserError

_logger = logging.getLogger(__name__)

STOPPED = Message("It was stopped before it started.")
LEFT = Message("It was not started because nobody was watching any more.")
UNWATCHED = Message("It was stopped because nobody was watching and others wanted the machine.")

MOST_OWN = 4  # jobs of one owner at a time
_MOST_ENDED = 300  # that are remembered, so that a page can say how they ended
_SECONDS_UNWATCHED = 60.0  # until a job that has not begun is given up
_SECONDS_RUNNING_UNWATCHED = 600.0  # until a running job is stopped if others want the machine
_SECONDS_BETWEEN_LOOKS = 5.0
_SECONDS_UNTIL_PAUSED = 8.0  # without a turn; in a full class, turns are some six seconds apart


@dataclass(kw_only=True, eq=False)
class Job:
    """Work for one visitor.

    `owner` identifies who requested it: a visitor's key, or the session of an API client.
    """

    kind: ClassVar[str] = "job"

    owner: str
    is_alone: bool = False  # whether the owner may have no other job of its kind
    state: str = "waiting"  # then "running", then "ended"
    failure: str = ""  # why it did not do its work, as a sentence
    seconds: float = 0.0  # of the machine's time that it has had
    served_at: float = field(default_factory=time.monotonic)  # when it had its last turn
    version: int = 0  # grows with every change that a page may display
    watched_at: float = field(default_factory=time.monotonic)  # when a page last displayed it
    stopped_because: str = ""  # the sentence for a stop that the visitor did not request
    stopping: threading.Event = field(default_factory=threading.Event)
    ended: threading.Event = field(default_factory=threading.Event)
    is_end_seen: bool = False  # by any page

    def work(self) -> None:
        """Does the work, in a thread of its own, until it is done or `stopping` is set.

        Raises UserError if it cannot be done.
        """
        raise NotImplementedError

    def give_up(self) -> None:
        """Called instead of `work` if the job ends before it has begun."""

    @property
    def seconds_left(self) -> float | None:
        """The seconds of the machine's time that it still needs; None if that is not known."""
        return None

    @property
    def size(self) -> int:
        """The number of networks that it keeps in memory."""
        return 1

    @property
    def is_active(self) -> bool:
        """Whether it waits or runs."""
        return self.state != "ended"

    def was_served(self, seconds: float) -> None:
        """Records a turn, after which the job has had `seconds` of the machine's time."""
        self.seconds, self.served_at = seconds, time.monotonic()

    def changed(self) -> None:
        """Makes the pages that watch the job display it again."""
        self.version += 1

    def stop(self, because: str = "") -> None:
        """Ends the job soon. `because` is the sentence for a stop that the visitor did not request."""
        self.stopped_because = self.stopped_because or because
        self.stopping.set()


J = TypeVar("J", bound=Job)


class Jobs:
    """The jobs of all visitors: some run at a time and share the machine, the others wait in order.

    Together, running jobs have at most `most_running` networks, unless a single one has more.

    `share_machine` is False if each job has a machine of its own: a GPU borrowed from ZeroGPU, or a worker of a
    cluster. Then at most `most_running` jobs run.
    `is_public` says that a running job which nobody has watched for ten minutes is stopped if others want the machine.
    """

    def __init__(
        self, *, most_running: float, most_waiting: float, is_public: bool, share_machine: bool = True
    ) -> None:
        self._share_machine = share_machine
        self._most_running, self._most_waiting, self._is_public = most_running, most_waiting, is_public
        self._lock = threading.Lock()
        self._running: list[Job] = []
        self._waiting: list[tuple[Job, contextvars.Context]] = []
        self._ended: OrderedDict[tuple[str, str], Job] = OrderedDict()  # the last one of each owner and kind
        threading.Thread(target=self._look_after, daemon=True).start()

    def start(self, job: Job) -> None:
        """Begins a job, or lets it wait if as many run as may.

        The job keeps the context of the caller, which contains the visitor's request: a borrowed GPU is charged to it.
        Raises UserError if too many jobs wait, if the owner has too many, or if the job must be the owner's only one of
        its kind and is not.
        """
        with self._lock:
            own = [other for other in self._active() if other.owner == job.owner]
            if job.is_alone and any(other.kind == job.kind for other in own):
                raise UserError("You have one running already: stop it first.")
            if len(own) >= MOST_OWN:
                raise UserError(
                    "{count} of your trainings are running or waiting already; stop one first.", count=MOST_OWN
                )
            if self._has_room(job):
                self._begin(job, contextvars.copy_context())
            elif len(self._waiting) < self._most_waiting:
                self._waiting.append((job, contextvars.copy_context()))
            else:
                raise UserError("Too many people are training here at the moment; try again in a few minutes.")

    def active(self) -> list[Job]:
        """The jobs that run or wait, in the order in which they began or will."""
        with self._lock:
            return self._active()

    def of(self, owner: str, kind: type[J]) -> J | None:
        """The owner's latest job of a kind: an active one, else the last one that ended; None if there is none."""
        with self._lock:
            own = [job for job in self._active() if job.owner == owner and job.kind == kind.kind]
            return cast("J | None", own[-1] if own else self._ended.get((owner, kind.kind)))

    def stop(self, owner: str, *kinds: type[Job]) -> None:
        """Stops the jobs of an owner, all or those of some kinds; those that wait end at once."""
        for job in self.active():
            if job.owner == owner and isinstance(job, kinds or Job):
                self.end(job)

    def end(self, job: Job, because: str = "") -> None:
        """Stops a job; if it waits, it ends at once."""
        job.stop(because)
        with self._lock:
            waits = any(job is other for other, _ in self._waiting)
            self._waiting = [(other, context) for other, context in self._waiting if other is not job]
        if waits:
            job.failure = because or STOPPED
            job.give_up()
            self._end(job)

    def num_others(self, job: Job) -> int:
        """The number of other visitors' jobs that run beside a job; 0 if each has a machine of its own."""
        with self._lock:
            return 0 if not self._share_machine else sum(other.owner != job.owner for other in self._running)

    def is_paused(self, job: Job) -> bool:
        """Whether a running job has had no time for a while, because others had less before."""
        is_waiting = time.monotonic() - job.served_at > _SECONDS_UNTIL_PAUSED
        return job.state == "running" and is_waiting and self.num_others(job) > 0

    def num_before(self, job: Job) -> int:
        """The number of jobs that will begin before a waiting one."""
        with self._lock:
            return next((place for place, (other, _) in enumerate(self._waiting) if other is job), 0)

    def seconds_left(self, job: Job) -> float | None:
        """The seconds until a running job ends, if no other one begins; None if that is not known.

        The machine goes to the job that has had the least time. Until this one ends, every other one therefore gets as
        much time as this one will have had in the end, unless it needs less or has had more already.
        """
        own = job.seconds_left
        if own is None:
            return None
        total, left = job.seconds + own, own
        others = self.active() if self._share_machine else []
        for other in [other for other in others if other is not job and other.state == "running"]:
            needs = other.seconds_left
            catches_up = max(0.0, total - other.seconds)
            left += catches_up if needs is None else min(needs, catches_up)
        return left

    def _has_room(self, job: Job) -> bool:
        if not self._share_machine:
            return len(self._running) < self._most_running
        return not self._running or sum(other.size for other in self._running) + job.size <= self._most_running

    def _active(self) -> list[Job]:
        return [*self._running, *(job for job, _ in self._waiting)]

    def _begin(self, job: Job, context: contextvars.Context) -> None:
        self._running.append(job)
        job.state = "running"
        job.changed()
        try:
            threading.Thread(target=context.run, args=(self._run, job), daemon=True).start()
        except RuntimeError:  # no thread can be started
            self._running.remove(job)
            raise UserError("The machine has no room for another training at the moment.") from None

    def _run(self, job: Job) -> None:
        try:
            job.work()
        except Exception as error:
            job.failure = sentence_of(error)
        finally:
            self._end(job)

    def _end(self, job: Job) -> None:
        with self._lock:
            if job in self._running:
                self._running.remove(job)
            job.state = "ended"
            job.changed()
            self._ended.pop((job.owner, job.kind), None)
            self._ended[job.owner, job.kind] = job
            while len(self._ended) > _MOST_ENDED:
                self._ended.popitem(last=False)
            failed = []
            while self._waiting and self._has_room(self._waiting[0][0]):
                next_job, context = self._waiting.pop(0)
                try:
                    self._begin(next_job, context)
                except UserError as error:
                    next_job.failure = str(error)
                    failed.append(next_job)
        job.ended.set()
        for other in failed:
            other.give_up()
            self._end(other)

    def _look_after(self) -> None:
        while True:
            time.sleep(_SECONDS_BETWEEN_LOOKS)
            try:
                self.end_unwatched(time.monotonic())
            except Exception:
                _logger.exception("Looking after the jobs failed; trying again.")

    def end_unwatched(self, now: float) -> None:
        """Ends the jobs that nobody watches, of those that others wait for or that have not begun."""
        active = self.active()
        for job in active:
            seconds = now - job.watched_at
            if job.state == "waiting" and seconds > _SECONDS_UNWATCHED:
                self.end(job, LEFT)
            elif self._is_public and seconds > _SECONDS_RUNNING_UNWATCHED and _is_in_the_way(job, active):
                self.end(job, UNWATCHED)


def _is_in_the_way(job: Job, active: Sequence[Job]) -> bool:
    """Whether somebody else wants the machine."""
    return any(other.owner != job.owner and not other.stopping.is_set() for other in active)


def sentence_of(error: BaseException) -> str:
    """Returns the sentence of a UserError; logs any other error and returns a general sentence."""
    if isinstance(error, UserError):
        return str(error)
    _logger.error("A job failed.", exc_info=error)
    return BROKEN
