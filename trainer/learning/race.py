"""A race: several trainings that take turns on one device, so that all advance together."""

import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace

import torch

from trainer.errors import Message, UserError
from trainer.images.image_data import ImageData, to_device
from trainer.learning.checkpoint import Checkpoint
from trainer.learning.device import explain_out_of_memory
from trainer.learning.loop import train
from trainer.runs.events import CheckpointReady, EpochEnded, Event, Finished, StepLogged
from trainer.settings.config import TrainConfig

MAX_SETTINGS, MAX_SEEDS = 6, 5

Contender = tuple[TrainConfig, Checkpoint | None]


def over_seeds(configs: Sequence[TrainConfig], num_seeds: int) -> list[TrainConfig]:
    """Returns the configs of a race: each of `configs` with `num_seeds` seeds, counted up from the first config's seed.

    The same seed gives the same initial weights and the same batches in the same order. Raises UserError if there are
    no configs, too many configs or seeds, or two equal configs.
    """
    if not configs:
        raise UserError("Add settings to the race first.")
    if len(configs) > MAX_SETTINGS:
        raise UserError("A race can have up to {most} settings.", most=MAX_SETTINGS)
    if not 1 <= num_seeds <= MAX_SEEDS:
        raise UserError("A race can have from 1 to {most} seeds per setting.", most=MAX_SEEDS)
    first = configs[0].seed
    if len({replace(config, seed=first) for config in configs}) < len(configs):
        raise UserError("Two of the settings are the same.")
    return [config.changed({"seed": first + number}) for config in configs for number in range(num_seeds)]


@explain_out_of_memory()
def race(
    contenders: Sequence[Contender],
    data: ImageData,
    *,
    device: str | torch.device = "cpu",
    pause: Callable[[int], bool] = lambda index: False,
) -> Iterator[tuple[int, Event]]:
    """Trains all contenders, each a config and the checkpoint to resume from, if any; yields (index, event).

    The contender that has passed the fewest epochs always takes the next turn. When one completes or diverges, the
    others continue. With a single contender, the events are those of `train`. The times in a contender's events count
    its own turns only.

    `pause` is called with a contender's index at the end of each of its epochs except 0 and the last. If it returns
    True, the contender ends without a Finished, and can be resumed from that epoch's checkpoint.

    Raises UserError on the call if a config does not fit the data, the device or its checkpoint.
    """
    if data.train.images.device != torch.device(device):
        data = replace(data, train=to_device(data.train, device), test=to_device(data.test, device))
    trainings = [_Training(contender, data, device) for contender in contenders]
    return _take_turns(dict(enumerate(trainings)), pause)


@dataclass(frozen=True, kw_only=True, slots=True)
class TimeLimit:
    """The `seconds` that a race may take, and the advice for a run that did not end in time.

    `advice` is for a run that has completed an epoch, `too_slow` for one that has not: resumed with the same limit, it
    would not complete one either.
    """

    seconds: float
    advice: Message
    too_slow: Message


def limit_time(
    events: Iterator[tuple[int, Event]], num_contenders: int, limit: TimeLimit
) -> Generator[tuple[int, Event], None, None]:
    """Yields the events of a race, and at the limit a Finished `out_of_time` for each unfinished run.

    Only the time that the race takes for its events counts, not the time that the caller takes between them. The limit
    is checked at each event.
    """
    seconds, training, advanced = 0.0, set(range(num_contenders)), set()
    with closing(events):  # type: ignore[type-var]
        event: Event | None = None
        # The checkpoint of an epoch follows its end at once, and belongs to it.
        while seconds <= limit.seconds or isinstance(event, EpochEnded):
            started = time.monotonic()
            try:
                index, event = next(events)
            except StopIteration:
                return
            seconds += time.monotonic() - started
            yield index, event
            if isinstance(event, CheckpointReady) and event.epoch > 0:
                advanced.add(index)
            elif isinstance(event, Finished):
                training.discard(index)
    for index in sorted(training):
        yield index, Finished(reason="out_of_time", advice=limit.advice if index in advanced else limit.too_slow)


def _take_turns(trainings: dict[int, "_Training"], pause: Callable[[int], bool]) -> Iterator[tuple[int, Event]]:
    while trainings:
        index = min(trainings, key=lambda index: trainings[index].epochs_passed)
        training = trainings[index]
        event = training.next_event()
        if isinstance(event, Finished):
            del trainings[index]
        yield index, event
        if isinstance(event, CheckpointReady) and 0 < event.epoch < training.epochs and pause(index):
            training.close()
            del trainings[index]


class _Training:
    """A contender in training: its events, and the seconds and epochs that have passed in its own turns."""

    def __init__(self, contender: Contender, data: ImageData, device: str | torch.device) -> None:
        config, checkpoint = contender
        self.epochs = config.epochs
        self.epochs_passed = float(checkpoint.epoch if checkpoint else 0)
        self._earlier_seconds = 0.0
        self._turn_started: float | None = None
        self._events = train(config, data, device=device, resume=checkpoint, clock=self._seconds)

    def next_event(self) -> Event:
        """Takes a turn, up to the next event."""
        self._turn_started = time.perf_counter()
        event = next(self._events)
        self._earlier_seconds, self._turn_started = self._seconds(), None
        if isinstance(event, StepLogged):
            self.epochs_passed = event.step / event.num_steps * self.epochs
        return event

    def close(self) -> None:
        """Ends the training."""
        self._events.close()  # type: ignore[attr-defined]

    def _seconds(self) -> float:
        turn = 0.0 if self._turn_started is None else time.perf_counter() - self._turn_started
        return self._earlier_seconds + turn
