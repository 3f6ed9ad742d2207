"""BorrowedGpu: runs work in short steps on a GPU that is borrowed by the second, as on ZeroGPU."""

import logging
import math
import re
import threading
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from typing import Any, cast

import gradio as gr
import httpx

from trainer.errors import Message, UserError
from trainer.images.image_data import ImageData
from trainer.jobs.pace import Pace, pace_of
from trainer.jobs.slices import (
    Job,
    Measurement,
    Refused,
    Slice,
    Started,
    Whole,
    measurement,
    next_slice,
    timed,
)
from trainer.jobs.work import ImageFile, Race, RunState, Timing, Work, images_in
from trainer.learning.checkpoint import Checkpoint
from trainer.learning.race import limit_time
from trainer.learning.training_set import training_split
from trainer.runs.events import CheckpointReady, EpochEnded, Event, Finished, GpuTime
from trainer.settings.config import TrainConfig

_logger = logging.getLogger(__name__)

# Short, so that other visitors get their turn and a visitor's daily quota is requested only as it is needed.
LONGEST_SECONDS = 60

_TAKEN_BACK = Message("The GPU was taken back in the middle of an epoch.")

_Kind = tuple[str | int | bool, ...]


class GpuUnavailableError(UserError):
    """The GPU was refused, or was taken back during a job.

    `at_most` is the number of seconds that a smaller job may request instead, 0 for none. `pace_is_suspect` says that
    the time computed from the measured pace was too long or too short, so that the pace should be measured again.
    """

    def __init__(self, sentence: str, at_most: float = 0.0, *, pace_is_suspect: bool = False):
        super().__init__(sentence)
        self.at_most, self.pace_is_suspect = at_most, pace_is_suspect


class BorrowedGpu:
    """Runs work on a GPU that is borrowed job by job.

    `on_gpu` runs a job there and yields its events: `slices.run_job` behind `spaces.GPU`. Measured paces are kept for
    later trainings with the same kind of batch.
    """

    def __init__(self, on_gpu: Callable[[Job], Generator[Any, None, None]]):
        self._on_gpu = on_gpu
        self._paces: dict[_Kind, Pace] = {}
        self._suspect: set[_Kind] = set()  # kinds to measure again; a race in another thread may still use their pace

    def run(self, work: Work, stopping: threading.Event) -> Iterator[Any]:
        """Yields the events of the work until it ends or `stopping` is set at one of them.

        Raises UserError or GpuUnavailableError, as `race` and `find_lr` do.
        """
        with closing(cast("Generator[Any, None, None]", self._events(work))) as events:
            for event in events:
                if stopping.is_set():
                    return
                yield event

    def _events(self, work: Work) -> Iterator[Any]:
        images = images_in(work.images)
        if isinstance(work, Timing):  # a timing alone is not worth the visitor's quota
            return (pace for kind, pace in self._paces.items() if kind == _kind(work.config))
        if not isinstance(work, Race):
            return self._whole(work, images)
        events = self._checked_race(work.states, images)
        return limit_time(events, len(work.states), work.limit) if work.limit else events

    def race(
        self, contenders: Sequence[tuple[TrainConfig, Checkpoint | None]], images: ImageData
    ) -> Iterator[tuple[int, Event]]:
        """Returns the events of `trainer.learning.race.race`, with GpuTime events between them.

        Each slice resumes exactly where the last one ended.

        If no more GPU time is available, unfinished runs end as `out_of_time` with the reason as advice. If no epoch
        has been trained by then, raises GpuUnavailableError. Raises UserError at once if the images are not in a
        file, or if a config needs more of them than there are.
        """
        return self._checked_race([RunState.of(*contender) for contender in contenders], images)

    def _checked_race(self, states: Sequence[RunState], images: ImageData) -> Iterator[tuple[int, Event]]:
        ImageFile.of(images)
        for state in states:
            training_split(state.config, images)
        return self._race(dict(enumerate(states)), images)

    def _whole(self, work: Whole, images: ImageData) -> Iterator[Any]:
        """Yields the events of the work, once the pace of its config is known."""
        config, kind = work.config, _kind(work.config)
        training_split(config, images)
        longest = float(LONGEST_SECONDS)
        while not self._is_known(kind):
            job = measurement(config, images, longest)
            try:
                _, pace = self._run(job)
                self._learn(kind, pace)
            except GpuUnavailableError as refusal:
                longest = refusal.at_most
                if not _is_less(measurement(config, images, longest), job, refusal):
                    raise
        try:
            with closing(self._run(timed(work, self._paces[kind], images))) as events:
                for event in events:
                    if not isinstance(event, Started):
                        yield event
        except GpuUnavailableError as refusal:
            if refusal.pace_is_suspect:
                self._suspect.add(kind)
            raise

    def _race(self, states: dict[int, RunState], images: ImageData) -> Iterator[tuple[int, Event]]:
        longest, used = float(LONGEST_SECONDS), 0.0
        while states:
            job = self._next(states, images, longest)
            if isinstance(job, Slice):
                yield min(states), self._time(used, states, images)
            start = math.nan
            rows: dict[int, EpochEnded] = {}
            try:
                with closing(self._run(job)) as events:
                    for reported in events:
                        if isinstance(reported, Started):
                            start = time.monotonic()
                        elif isinstance(job, Measurement):
                            self._learn(_kind(job.config), reported)
                        else:
                            index, event = reported
                            yield index, event
                            if isinstance(event, EpochEnded):
                                rows[index] = event
                            elif isinstance(event, CheckpointReady):
                                self._advance(states, index, rows[index], event, images)
                                yield index, self._time(used + time.monotonic() - start, states, images)
                            elif isinstance(event, Finished):
                                del states[index]
            except GpuUnavailableError as refusal:
                longest = refusal.at_most
                if _is_less(self._next(states, images, longest), job, refusal):
                    continue
                if refusal.pace_is_suspect:
                    self._suspect.update(_kind(state.config) for state in states.values())
                if not any(state.ready for state in states.values()):
                    raise
                yield from self._out_of_time(states, images, refusal)
                return
            used += time.monotonic() - start

    def _next(self, states: dict[int, RunState], images: ImageData, longest: float) -> Measurement | Slice:
        """The next job of a race: a measurement if a contender's pace is unknown, else a slice."""
        for state in states.values():
            if not self._is_known(_kind(state.config)):
                return measurement(state.config, images, longest)
        paces = {index: self._paces[_kind(state.config)] for index, state in states.items()}
        return next_slice(states, paces, images, longest)

    def _advance(
        self, states: dict[int, RunState], index: int, row: EpochEnded, ready: CheckpointReady, images: ImageData
    ) -> None:
        config = states[index].config
        states[index] = RunState(config=config, ended=row, ready=ready)
        if row.epoch > 0:
            self._learn(_kind(config), pace_of(row, config, images))

    def _is_known(self, kind: _Kind) -> bool:
        return kind in self._paces and kind not in self._suspect

    def _learn(self, kind: _Kind, pace: Pace) -> None:
        self._paces[kind] = pace
        self._suspect.discard(kind)

    def _time(self, used: float, states: dict[int, RunState], images: ImageData) -> GpuTime:
        return GpuTime(used_seconds=used, left_seconds=self._left(states, images))

    def _left(self, states: dict[int, RunState], images: ImageData) -> float:
        """The GPU seconds that the remaining epochs take."""
        return sum(
            state.epochs_left * self._paces[_kind(state.config)].epoch_seconds(state.config, images)
            for state in states.values()
        )

    def _out_of_time(
        self, states: dict[int, RunState], images: ImageData, refusal: GpuUnavailableError
    ) -> Iterator[tuple[int, Event]]:
        reason = str(refusal)  # a Message, which the page translates
        advice = Message("{reason} The run is saved up to its last epoch; press Resume to continue.", reason=reason)
        if all(_kind(state.config) in self._paces for state in states.values()):
            left = math.ceil(self._left(states, images))
            advice = Message(
                "{reason} The run is saved up to its last epoch and needs about {number} s more of GPU time; "
                "press Resume to continue.",
                reason=reason,
                number=left,
            )
        for index in states:
            yield index, Finished(reason="out_of_time", advice=advice)

    def _run(self, job: Job) -> Generator[Any, None, None]:
        """Yields the job's events. Raises UserError or GpuUnavailableError, with a sentence, if it cannot run."""
        events = self._on_gpu(job)
        try:
            for event in events:
                if isinstance(event, Refused):
                    events.close()
                    raise UserError(event.sentence)
                yield event
        except GeneratorExit:
            # In a thread: returning the GPU can take long, and the whole app would wait for it.
            threading.Thread(target=events.close, daemon=True).start()
            raise
        except gr.Error as error:
            raise _refusal(job, str(error.message)) from None
        except (OSError, EOFError, TypeError):  # the last one if `spaces` closes the pipe while it writes to it
            _logger.exception("The process on the GPU was killed between two slices.")
            raise GpuUnavailableError(_TAKEN_BACK, pace_is_suspect=True) from None
        except (httpx.HTTPError, RuntimeError):
            _logger.exception("The GPU service does not answer.")
            raise GpuUnavailableError("The GPU is not available right now: its service does not answer.") from None


def _refusal(job: Job, message: str) -> GpuUnavailableError:
    """The error for a message of `spaces`, recognized by its words: it has no error codes."""
    if "larger than the maximum allowed" in message:
        return GpuUnavailableError(
            Message(
                "This needs the GPU for {number} s at a time, longer than is allowed. Use fewer pictures, a larger "
                "batch_size or fewer settings side by side.",
                number=job.seconds,
            ),
            job.seconds / 2,
            pace_is_suspect=True,
        )
    if match := re.search(r"\((\d+)s requested vs\. (\d+)s left\)\. Try again in ([\w:, ]+)", message):
        requested, left, wait = int(match[1]), int(match[2]), match[3].strip()
        return GpuUnavailableError(
            Message(
                "Your GPU time for today is used up: {left} s are left, {number} s are needed, more in {wait}.",
                left=left,
                number=requested,
                wait=wait,
            ),
            left * job.seconds / max(requested, 1),  # a second on a larger GPU counts for more than one
        )
    if "limit" in message or "exceeded" in message or "credits" in message:
        return GpuUnavailableError("The GPU time for today is used up. You have more when signed in to Hugging Face.")
    if "No GPU was available" in message:
        return GpuUnavailableError("No GPU is free right now; try again in a moment.")
    if "aborted" in message:
        return GpuUnavailableError(_TAKEN_BACK, pace_is_suspect=True)
    if "Expired" in message:
        return GpuUnavailableError("This page's access to the GPU has expired; press the button again.")
    _logger.error("The job on the GPU failed: %s", message)
    return GpuUnavailableError("The job on the GPU failed; see the app's log for details.")


def _is_less(wanted: Job, refused: Job, refusal: GpuUnavailableError) -> bool:
    """Whether the job `wanted` may be requested after a refusal: it is shorter than the refused one and fits `at_most`.

    Without the first condition, a service that counts seconds differently could refuse the same job for ever.
    """
    return wanted.seconds <= min(refusal.at_most, refused.seconds - 1)


def _kind(config: TrainConfig) -> _Kind:
    """The settings that a pace depends on."""
    is_augmented, is_frozen = config.flip or config.shift > 0, config.pretrained == "frozen"
    return (
        *(config.model, config.optimizer, config.batch_size, config.precision, config.zero_grad_every),
        *(is_augmented, is_frozen),
    )
