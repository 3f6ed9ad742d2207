"""Several trainings side by side, on one device, none ahead of the others."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import replace

import torch

from trainer.errors import UserError
from trainer.images.image_data import ImageData, to_device
from trainer.learning.checkpoint import Checkpoint
from trainer.learning.device import explain_out_of_memory
from trainer.learning.loop import train
from trainer.runs.events import CheckpointReady, Event, Finished, StepLogged
from trainer.settings.config import TrainConfig

MAX_SETTINGS, MAX_SEEDS = 6, 5


def over_seeds(configs: Sequence[TrainConfig], num_seeds: int) -> list[TrainConfig]:
    """Each config with the same seeds, as many as asked for, from the first config's on: the contenders of a race.

    The same seed gives the same initial weights and the same batches in the same order. Raises ValueError where there
    is nothing to race, too much of it, or the same twice.
    """
    if not configs:
        raise UserError("Add settings to the race first.")
    if len(configs) > MAX_SETTINGS:
        raise UserError("A race takes up to {most} settings.", most=MAX_SETTINGS)
    if not 1 <= num_seeds <= MAX_SEEDS:
        raise UserError("A race takes from 1 to {most} seeds.", most=MAX_SEEDS)
    first = configs[0].seed
    if len({replace(config, seed=first) for config in configs}) < len(configs):
        raise UserError("Two of the settings are the same.")
    return [config.changed({"seed": first + number}) for config in configs for number in range(num_seeds)]


@explain_out_of_memory()
def race(
    contenders: Sequence[tuple[TrainConfig, Checkpoint | None]],
    data: ImageData,
    *,
    device: str | torch.device = "cpu",
    pause: Callable[[int], bool] = lambda place: False,
) -> Iterator[tuple[int, Event]]:
    """Trains every contender, a config with the checkpoint it goes on from, if any; yields (its place, what happens).

    It is always the turn of whoever has passed the fewest epochs, so that all advance together; a contender that is
    done, or diverged, leaves the others to go on. A race of one is what `train` does. Each contender's times count its
    own turns alone. `pause` is asked with its place at the end of each trained epoch but its last: where it says so the
    contender leaves, without a Finished, to go on from that epoch's checkpoint another time. Raises ValueError at once
    where a config does not fit the data, the device or its checkpoint.
    """
    data = replace(data, train=to_device(data.train, device), test=to_device(data.test, device))
    clocks = [_Clock() for _ in contenders]
    trainings = [
        train(config, data, device=device, resume=kept, clock=clock.read)
        for (config, kept), clock in zip(contenders, clocks, strict=True)
    ]
    return _take_turns(contenders, trainings, clocks, pause)


def limit_time(
    events: Iterator[tuple[int, Event]], num_contenders: int, *, seconds: float, advice: str, too_slow: str
) -> Iterator[tuple[int, Event]]:
    """The events of a race until it has taken so many seconds: whoever is not done then ends as `out_of_time`.

    That is told with `advice`, but to whom the time was too short for a single epoch, with `too_slow`: going on would
    be no better.
    """
    begun, training, advanced = time.monotonic(), set(range(num_contenders)), set()
    with closing(events):
        for place, event in events:
            yield place, event
            if isinstance(event, CheckpointReady) and event.epoch > 0:
                advanced.add(place)
            if isinstance(event, Finished):
                training.discard(place)
            elif time.monotonic() - begun > seconds:
                break
        else:
            return
    for place in sorted(training):
        yield place, Finished(reason="out_of_time", advice=advice if place in advanced else too_slow)


def _take_turns(
    contenders: Sequence[tuple[TrainConfig, Checkpoint | None]],
    trainings: Sequence[Iterator[Event]],
    clocks: Sequence["_Clock"],
    pause: Callable[[int], bool],
) -> Iterator[tuple[int, Event]]:
    passed = {place: float(kept.epoch if kept else 0) for place, (_, kept) in enumerate(contenders)}
    while passed:
        place = min(passed, key=passed.get)
        clocks[place].start()
        event = next(trainings[place])
        clocks[place].stop()
        if isinstance(event, StepLogged):
            passed[place] = event.step / event.num_steps * contenders[place][0].epochs
        elif isinstance(event, Finished):
            del passed[place]
        yield place, event
        if isinstance(event, CheckpointReady) and 0 < event.epoch < contenders[place][0].epochs and pause(place):
            trainings[place].close()
            del passed[place]


class _Clock:
    """Seconds in which a contender had its turn."""

    def __init__(self):
        self.before, self.since = 0.0, None

    def start(self) -> None:
        self.since = time.perf_counter()

    def stop(self) -> None:
        self.before, self.since = self.read(), None

    def read(self) -> float:
        return self.before + (0.0 if self.since is None else time.perf_counter() - self.since)
