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
    Begun,
    ImageFile,
    Measurement,
    Piece,
    Refused,
    Slice,
    Standing,
    measurement,
    next_slice,
    search,
)
from trainer.learning.checkpoint import Checkpoint
from trainer.learning.loop import training_split
from trainer.learning.lr_finder import Finding, Trial
from trainer.runs.events import CheckpointReady, EpochEnded, Event, Finished, GpuTime
from trainer.settings.config import TrainConfig

_logger = logging.getLogger(__name__)

# Short enough that others get their turn, and that a visitor's daily minutes are asked for as they are needed.
LONGEST_SECONDS = 60


class NotLentError(ValueError):
    """The GPU was not lent, or was taken back. `at_most`: the seconds that may be lent instead, 0 for none.

    `paced`: what was asked for was what the pace says, and it did not do: the pace may be wrong.
    """

    def __init__(self, sentence: str, at_most: float = 0.0, *, paced: bool = False):
        super().__init__(sentence)
        self.at_most, self.paced = at_most, paced


class LentGpu:
    """Race and learning-rate finder, as a Lab takes them, on a GPU that is lent piece by piece.

    `on_gpu` does a piece of work there and yields what it has to say: `slices.do` behind `spaces.GPU`. The paces
    that were measured are kept for whoever trains the same kind of batch next.
    """

    def __init__(self, on_gpu: Callable[[Piece], Iterator[Any]]):
        self._on_gpu = on_gpu
        self._paces: dict[tuple, Pace] = {}

    def race(
        self, contenders: Sequence[tuple[TrainConfig, Checkpoint | None]], images: ImageData
    ) -> Iterator[tuple[int, Event]]:
        """What `trainer.learning.race.race` yields, with GpuTime in between; resumed exactly from slice to slice.

        Where no more GPU time is lent, whoever is not done ends as `out_of_time`, with the reason as advice; where not
        even a first epoch was trained, that is a NotLentError. Raises ValueError at once where the images do not do.
        """
        ImageFile.of(images)
        for config, _ in contenders:
            training_split(config, images)
        standings = {place: Standing.of(*contender) for place, contender in enumerate(contenders)}
        return self._race(standings, images)

    def find_lr(self, config: TrainConfig, images: ImageData) -> Iterator[Trial | Finding]:
        """What `trainer.learning.lr_finder.find_lr` yields; NotLentError where no GPU time is lent."""
        training_split(config, images)
        return self._find_lr(config, images)

    def _find_lr(self, config: TrainConfig, images: ImageData) -> Iterator[Trial | Finding]:
        kind = _kind(config)
        longest = float(LONGEST_SECONDS)
        while kind not in self._paces:
            piece = measurement(config, images, longest)
            try:
                _, self._paces[kind] = self._done(piece)
            except NotLentError as refusal:
                longest = refusal.at_most
                if not _is_less(measurement(config, images, longest), piece, refusal):
                    raise
        try:
            with closing(self._done(search(config, self._paces[kind], images))) as facts:
                for fact in facts:
                    if not isinstance(fact, Begun):
                        yield fact
        except NotLentError as refusal:
            if refusal.paced:
                self._paces.pop(kind, None)
            raise

    def _race(self, standings: dict[int, Standing], images: ImageData) -> Iterator[tuple[int, Event]]:
        longest, used = float(LONGEST_SECONDS), 0.0
        while standings:
            piece = self._next(standings, images, longest)
            if isinstance(piece, Slice):
                yield min(standings), self._time(used, standings, images)
            begun, ended = math.nan, {}
            try:
                with closing(self._done(piece)) as facts:
                    for fact in facts:
                        if isinstance(fact, Begun):
                            begun = time.monotonic()
                        elif isinstance(fact, Pace):
                            self._paces[_kind(piece.config)] = fact
                        else:
                            place, event = fact
                            yield place, event
                            if isinstance(event, EpochEnded):
                                ended[place] = event
                            elif isinstance(event, CheckpointReady):
                                self._advance(standings, place, ended[place], event, images)
                                yield place, self._time(used + time.monotonic() - begun, standings, images)
                            elif isinstance(event, Finished):
                                del standings[place]
            except NotLentError as refusal:
                longest = refusal.at_most
                if _is_less(self._next(standings, images, longest), piece, refusal):
                    continue
                if refusal.paced:
                    for standing in standings.values():
                        self._paces.pop(_kind(standing.config), None)
                if not any(standing.ready for standing in standings.values()):
                    raise
                yield from self._out_of_time(standings, images, refusal)
                return
            used += time.monotonic() - begun

    def _next(self, standings: dict[int, Standing], images: ImageData, longest: float) -> Measurement | Slice:
        """The next piece of a race: a measurement where a contender's pace is not known yet."""
        for standing in standings.values():
            if _kind(standing.config) not in self._paces:
                return measurement(standing.config, images, longest)
        paces = {place: self._paces[_kind(standing.config)] for place, standing in standings.items()}
        return next_slice(standings, paces, images, longest)

    def _advance(
        self, standings: dict[int, Standing], place: int, row: EpochEnded, ready: CheckpointReady, images: ImageData
    ) -> None:
        config = standings[place].config
        standings[place] = Standing(config=config, ended=row, ready=ready)
        if row.epoch > 0:
            self._paces[_kind(config)] = pace_of(row, config, images)

    def _time(self, used: float, standings: dict[int, Standing], images: ImageData) -> GpuTime:
        return GpuTime(used_seconds=used, left_seconds=self._left(standings, images))

    def _left(self, standings: dict[int, Standing], images: ImageData) -> float:
        """Seconds that the epochs take that are left."""
        return sum(
            standing.epochs_left * self._paces[_kind(standing.config)].epoch_seconds(standing.config, images)
            for standing in standings.values()
        )

    def _out_of_time(
        self, standings: dict[int, Standing], images: ImageData, refusal: NotLentError
    ) -> Iterator[tuple[int, Event]]:
        advice = Message("{reason} The run waits at its last epoch; press Resume to go on.", reason=refusal)
        if all(_kind(standing.config) in self._paces for standing in standings.values()):
            left = math.ceil(self._left(standings, images))
            advice = Message(
                "{reason} The run waits at its last epoch, about {number} s of GPU time from its end; press Resume.",
                reason=refusal,
                number=left,
            )
        for place in standings:
            yield place, Finished(reason="out_of_time", advice=advice)

    def _done(self, piece: Piece) -> Iterator[Any]:
        """What the piece has to say; ValueError and NotLentError with a sentence where it cannot be done."""
        facts = self._on_gpu(piece)
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
            raise _not_lent(piece, str(error.message)) from None
        except (httpx.HTTPError, RuntimeError):
            _logger.exception("What lends the GPU does not answer.")
            raise NotLentError(Message("The GPU cannot be had at the moment: what lends it does not answer.")) from None


def _not_lent(piece: Piece, message: str) -> NotLentError:
    """What spaces says in its own words, in ours; it has no other way to say it."""
    if "larger than the maximum allowed" in message:
        return NotLentError(
            Message(
                "This needs the GPU for {number} s at a time, longer than it is lent: fewer pictures, a "
                "larger batch_size or fewer settings side by side take less.",
                number=piece.seconds,
            ),
            piece.seconds / 2,
            paced=True,
        )
    if match := re.search(r"\((\d+)s requested vs\. (\d+)s left\)\. Try again in ([\w:, ]+)", message):
        asked, left, wait = int(match[1]), int(match[2]), match[3].strip()
        return NotLentError(
            Message(
                "Your GPU time for today is used up: {left} s are left, {number} s are needed, more in {wait}.",
                left=left,
                number=asked,
                wait=wait,
            ),
            left * piece.seconds / max(asked, 1),  # a second on a larger GPU counts for more than one
        )
    if "limit" in message or "exceeded" in message or "credits" in message:
        return NotLentError("The GPU time for today is used up; signed in to Hugging Face you have more.")
    if "No GPU was available" in message:
        return NotLentError("No GPU is free at the moment.")
    if "aborted" in message:
        return NotLentError("The GPU was taken back in the middle of an epoch.", paced=True)
    if "Expired" in message:
        return NotLentError("This page's pass to the GPU has run out; press the button again.")
    _logger.error("The work on the GPU broke off: %s", message)
    return NotLentError("The work on the GPU broke off; the app's log says more.")


def _is_less(wanted: Piece, refused: Piece, refusal: NotLentError) -> bool:
    """Whether a piece may be asked for after a refusal: only ever for less, and for no more than may be lent.

    What counts the seconds differently would refuse the same again for ever.
    """
    return wanted.seconds <= min(refusal.at_most, refused.seconds - 1)


def _kind(config: TrainConfig) -> tuple:
    """What the pace depends on."""
    return (config.model, config.optimizer, config.batch_size, config.augment, config.precision, config.zero_grad_every)
