"""A GPU that is lent by the second, as ZeroGPU does: trainings in slices, and what is said when no more is lent."""

import logging
import math
import re
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from typing import Any

import gradio as gr
import httpx

from trainer.errors import Message, UserError
from trainer.images.image_data import ImageData
from trainer.jobs.pace import Pace, pace_of
from trainer.jobs.slices import (
    ImageFile,
    Job,
    Measurement,
    Refused,
    RunState,
    Slice,
    Started,
    measurement,
    next_slice,
    search,
)
from trainer.learning.checkpoint import Checkpoint
from trainer.learning.lr_finder import Finding, Trial
from trainer.learning.training_set import training_split
from trainer.runs.events import CheckpointReady, EpochEnded, Event, Finished, GpuTime
from trainer.settings.config import TrainConfig

_logger = logging.getLogger(__name__)

# Short enough that others get their turn, and that a visitor's daily minutes are asked for as they are needed.
LONGEST_SECONDS = 60


class GpuUnavailableError(ValueError):
    """The GPU was not lent, or was taken back. `at_most`: the seconds that may be lent instead, 0 for none.

    `paced`: what was asked for was what the pace says, and it did not do: the pace may be wrong.
    """

    def __init__(self, sentence: str, at_most: float = 0.0, *, paced: bool = False):
        super().__init__(sentence)
        self.at_most, self.paced = at_most, paced


class BorrowedGpu:
    """Race and learning-rate finder, as a Lab takes them, on a GPU that is borrowed job by job.

    `on_gpu` runs a job there and yields what it has to say: `slices.run_job` behind `spaces.GPU`. The paces
    that were measured are kept for whoever trains the same kind of batch next.
    """

    def __init__(self, on_gpu: Callable[[Job], Iterator[Any]]):
        self._on_gpu = on_gpu
        self._paces: dict[tuple, Pace] = {}

    def race(
        self, contenders: Sequence[tuple[TrainConfig, Checkpoint | None]], images: ImageData
    ) -> Iterator[tuple[int, Event]]:
        """What `trainer.learning.race.race` yields, with GpuTime in between; resumed exactly from slice to slice.

        If no more GPU time is available, unfinished runs end as `out_of_time` with the reason as advice. If no epoch
        has been trained by then, raises GpuUnavailableError. Raises UserError at once if the images do not fit.
        """
        ImageFile.of(images)
        for config, _ in contenders:
            training_split(config, images)
        states = {place: RunState.of(*contender) for place, contender in enumerate(contenders)}
        return self._race(states, images)

    def find_lr(self, config: TrainConfig, images: ImageData) -> Iterator[Trial | Finding]:
        """What `trainer.learning.lr_finder.find_lr` yields; GpuUnavailableError where no GPU time is lent."""
        training_split(config, images)
        return self._find_lr(config, images)

    def _find_lr(self, config: TrainConfig, images: ImageData) -> Iterator[Trial | Finding]:
        kind = _kind(config)
        longest = float(LONGEST_SECONDS)
        while kind not in self._paces:
            job = measurement(config, images, longest)
            try:
                _, self._paces[kind] = self._done(job)
            except GpuUnavailableError as refusal:
                longest = refusal.at_most
                if not _is_less(measurement(config, images, longest), job, refusal):
                    raise
        try:
            with closing(self._done(search(config, self._paces[kind], images))) as facts:
                for fact in facts:
                    if not isinstance(fact, Started):
                        yield fact
        except GpuUnavailableError as refusal:
            if refusal.paced:
                self._paces.pop(kind, None)
            raise

    def _race(self, states: dict[int, RunState], images: ImageData) -> Iterator[tuple[int, Event]]:
        longest, used = float(LONGEST_SECONDS), 0.0
        while states:
            job = self._next(states, images, longest)
            if isinstance(job, Slice):
                yield min(states), self._time(used, states, images)
            begun, ended = math.nan, {}
            try:
                with closing(self._done(job)) as facts:
                    for fact in facts:
                        if isinstance(fact, Started):
                            begun = time.monotonic()
                        elif isinstance(fact, Pace):
                            self._paces[_kind(job.config)] = fact
                        else:
                            place, event = fact
                            yield place, event
                            if isinstance(event, EpochEnded):
                                ended[place] = event
                            elif isinstance(event, CheckpointReady):
                                self._advance(states, place, ended[place], event, images)
                                yield place, self._time(used + time.monotonic() - begun, states, images)
                            elif isinstance(event, Finished):
                                del states[place]
            except GpuUnavailableError as refusal:
                longest = refusal.at_most
                if _is_less(self._next(states, images, longest), job, refusal):
                    continue
                if refusal.paced:
                    for state in states.values():
                        self._paces.pop(_kind(state.config), None)
                if not any(state.ready for state in states.values()):
                    raise
                yield from self._out_of_time(states, images, refusal)
                return
            used += time.monotonic() - begun

    def _next(self, states: dict[int, RunState], images: ImageData, longest: float) -> Measurement | Slice:
        """The next job of a race: a measurement where a contender's pace is not known yet."""
        for state in states.values():
            if _kind(state.config) not in self._paces:
                return measurement(state.config, images, longest)
        paces = {place: self._paces[_kind(state.config)] for place, state in states.items()}
        return next_slice(states, paces, images, longest)

    def _advance(
        self, states: dict[int, RunState], place: int, row: EpochEnded, ready: CheckpointReady, images: ImageData
    ) -> None:
        config = states[place].config
        states[place] = RunState(config=config, ended=row, ready=ready)
        if row.epoch > 0:
            self._paces[_kind(config)] = pace_of(row, config, images)

    def _time(self, used: float, states: dict[int, RunState], images: ImageData) -> GpuTime:
        return GpuTime(used_seconds=used, left_seconds=self._left(states, images))

    def _left(self, states: dict[int, RunState], images: ImageData) -> float:
        """Seconds that the epochs take that are left."""
        return sum(
            state.epochs_left * self._paces[_kind(state.config)].epoch_seconds(state.config, images)
            for state in states.values()
        )

    def _out_of_time(
        self, states: dict[int, RunState], images: ImageData, refusal: GpuUnavailableError
    ) -> Iterator[tuple[int, Event]]:
        advice = Message("{reason} The run waits at its last epoch; press Resume to go on.", reason=refusal)
        if all(_kind(state.config) in self._paces for state in states.values()):
            left = math.ceil(self._left(states, images))
            advice = Message(
                "{reason} The run waits at its last epoch, about {number} s of GPU time from its end; press Resume.",
                reason=refusal,
                number=left,
            )
        for place in states:
            yield place, Finished(reason="out_of_time", advice=advice)

    def _done(self, job: Job) -> Iterator[Any]:
        """What the job has to say; ValueError and GpuUnavailableError with a sentence where it cannot be done."""
        facts = self._on_gpu(job)
        try:
            for fact in facts:
                if isinstance(fact, Refused):
                    facts.close()
                    raise UserError(fact.sentence)
                yield fact
        except GeneratorExit:
            # All of the app stands still until this is done, and giving the GPU back can take as long as it will.
            threading.Thread(target=facts.close, daemon=True).start()
            raise
        except gr.Error as error:
            raise _not_lent(job, str(error.message)) from None
        except (httpx.HTTPError, RuntimeError):
            _logger.exception("What lends the GPU does not answer.")
            raise GpuUnavailableError(
                Message("The GPU cannot be had at the moment: what lends it does not answer.")
            ) from None


def _not_lent(job: Job, message: str) -> GpuUnavailableError:
    """What spaces says in its own words, in ours; it has no other way to say it."""
    if "larger than the maximum allowed" in message:
        return GpuUnavailableError(
            Message(
                "This needs the GPU for {number} s at a time, longer than it is lent: fewer pictures, a "
                "larger batch_size or fewer settings side by side take less.",
                number=job.seconds,
            ),
            job.seconds / 2,
            paced=True,
        )
    if match := re.search(r"\((\d+)s requested vs\. (\d+)s left\)\. Try again in ([\w:, ]+)", message):
        asked, left, wait = int(match[1]), int(match[2]), match[3].strip()
        return GpuUnavailableError(
            Message(
                "Your GPU time for today is used up: {left} s are left, {number} s are needed, more in {wait}.",
                left=left,
                number=asked,
                wait=wait,
            ),
            left * job.seconds / max(asked, 1),  # a second on a larger GPU counts for more than one
        )
    if "limit" in message or "exceeded" in message or "credits" in message:
        return GpuUnavailableError("The GPU time for today is used up; signed in to Hugging Face you have more.")
    if "No GPU was available" in message:
        return GpuUnavailableError("No GPU is free at the moment.")
    if "aborted" in message:
        return GpuUnavailableError("The GPU was taken back in the middle of an epoch.", paced=True)
    if "Expired" in message:
        return GpuUnavailableError("This page's pass to the GPU has run out; press the button again.")
    _logger.error("The work on the GPU broke off: %s", message)
    return GpuUnavailableError("The work on the GPU broke off; the app's log says more.")


def _is_less(wanted: Job, refused: Job, refusal: GpuUnavailableError) -> bool:
    """Whether a job may be requested after a refusal: only ever for less, and for no more than may be lent.

    What counts the seconds differently would refuse the same again for ever.
    """
    return wanted.seconds <= min(refusal.at_most, refused.seconds - 1)


def _kind(config: TrainConfig) -> tuple:
    """What the pace depends on."""
    return (config.model, config.optimizer, config.batch_size, config.augment, config.precision, config.zero_grad_every)
