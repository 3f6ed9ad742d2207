"""train() and evaluate(): training as a generator of events."""

import functools
import hashlib
import itertools
import json
import math
import operator
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from trainer.errors import Message, UserError
from trainer.images.batches import batches, images_per_batch
from trainer.images.image_data import ImageData, Split, select, to_device
from trainer.learning.checkpoint import Checkpoint, checkpoint_of, restore
from trainer.learning.device import explain_out_of_memory
from trainer.learning.distributed import ALONE, World, check_batch_size
from trainer.learning.layers import LayerProbe, is_measured, layers_of
from trainer.learning.learner import Learner, build_learner, finish_training, start_training, train_batch
from trainer.learning.training_set import (
    batches_per_epoch,
    holdout_split,
    images_per_epoch,
    num_training_images,
    training_split,
)
from trainer.networks.model import OptimizerLabModel
from trainer.runs.events import (
    CheckpointReady,
    EpochEnded,
    EvaluationLogged,
    Event,
    Finished,
    LayersMeasured,
    StepLogged,
)
from trainer.runs.run import FEWEST_TESTED, num_tested
from trainer.settings.config import TrainConfig
from trainer.settings.optimizers import OPTIMIZERS

# Short enough for a smooth progress bar and a prompt Stop, long enough that reading the losses costs nothing.
SECONDS_BETWEEN_YIELDS = 0.4
_EVALUATION_BATCH = 500


@dataclass(frozen=True, slots=True)
class Evaluated:
    """The results on some images: the sum of their losses, and how many each class has and are recognised, int64."""

    loss_sum: float
    seen: Tensor
    recognised: Tensor

    def __add__(self, other: "Evaluated") -> "Evaluated":
        return Evaluated(self.loss_sum + other.loss_sum, self.seen + other.seen, self.recognised + other.recognised)

    @property
    def loss(self) -> float:
        """The mean loss per image."""
        return self.loss_sum / int(self.seen.sum())

    @property
    def accuracy(self) -> float:
        """The share of the images that are recognised, 0–1."""
        return int(self.recognised.sum()) / int(self.seen.sum())

    def class_accuracy(self, class_names: Sequence[str]) -> dict[str, float | None]:
        """Returns the accuracy within each class, 0–1; None without an image of it."""
        counts = zip(class_names, self.seen.tolist(), self.recognised.tolist(), strict=True)
        return {name: recognised / seen if seen else None for name, seen, recognised in counts}


# The results of untrained networks, and the seconds that the evaluation took, by `_Training._key`. Many runs start
# from the same one, in a race or in a class that keeps the seed, and evaluating it takes a third of a short run's time
# on a CPU.
_untrained: dict[bytes, tuple[Evaluated, float]] = {}
_MOST_UNTRAINED = 200


@explain_out_of_memory()
def train(
    config: TrainConfig,
    data: ImageData,
    *,
    device: str | torch.device = "cpu",
    world: World = ALONE,
    resume: Checkpoint | None = None,
    clock: Callable[[], float] = time.perf_counter,
) -> Iterator[Event]:
    """Trains on `data` with the settings of `config`; yields events, at least about once a second.

    Epoch 0 is the untrained network. Each epoch ends with EpochEnded and CheckpointReady; the last event is Finished,
    with the reason `completed` or `diverged`. An epoch in which the loss diverges has neither. All epochs but the last
    are evaluated on a part of the test images, their `test_share`, if all would take most of the time. With `resume`,
    training continues after the checkpoint's last epoch; on a CPU the result equals an uninterrupted run bit for bit.
    `clock` returns seconds, and measures the times in the events; a race passes one that counts only this run's turns.
    Nothing is printed or written, and neither the environment nor any global random state is used.

    If `world` has several ranks, each runs this generator on its share of every batch and of the test images, and
    yields the same events except for their times. Gradients, losses and accuracies are means over the images of all
    ranks, so that all take the same steps; only batch normalisation uses the statistics of the rank's own share. Once
    `world.stopping` is set on one rank, all end after the same batch, with the reason `stopped`.

    Raises UserError on the call, before the first event, if the config does not fit the data, the device, the world or
    the checkpoint. While running, raises UserError if memory runs out, and LostRankError if another rank has ended.
    """
    device = torch.device(device)
    check_batch_size(world, images_per_batch(num_training_images(config, data), config))
    split, learner = prepare(config, data, device=device, resume=resume)
    training = _Training(
        config=config,
        learner=learner,
        split=split,
        tests=_tests(to_device(data.test, device), images_per_epoch(config, data)),
        holdout=to_device(holdout_split(config, data), device) if config.holdout else None,
        digest=data.digest,
        device=device,
        batches_per_epoch=batches_per_epoch(config, data),
        images_per_epoch=images_per_epoch(config, data),
        world=world,
        clock=clock,
    )
    return training.events(resume)


def _tests(test: Split, images_per_epoch: int) -> tuple[Split, Split | None]:
    """Returns the test images for every epoch, and the others, None if there are none, for the last one."""
    count = num_tested(len(test.labels), images_per_epoch)
    if count == len(test.labels):
        return test, None
    which = _evenly(test, count)
    return select(test, which), select(test, ~which)


def _evenly(split: Split, count: int) -> Tensor:
    """Returns which images of a split are `count` evenly spaced ones, bool [n]; all if it has fewer."""
    number = torch.arange(len(split.labels) + 1, device=split.labels.device) * min(count, len(split.labels))
    return (number // len(split.labels)).diff() > 0


@explain_out_of_memory()
def prepare(
    config: TrainConfig, data: ImageData, *, device: torch.device, resume: Checkpoint | None
) -> tuple[Split, Learner]:
    """Returns the images to train on, on the device, and the learner: a new one, or in the state of `resume`.

    Raises UserError if the config does not fit the data, the device or the checkpoint.
    """
    split = training_split(config, data)
    if config.precision == "float16" and device.type != "cuda":
        raise UserError("precision float16 needs a CUDA GPU; use float32 or bfloat16 here.")
    learner = build_learner(
        config,
        data,
        split,
        batches_per_epoch=batches_per_epoch(config, data),
        device=device,
        schedule_from=resume.schedule_from if resume else 0,
    )
    if resume:
        restore(learner, resume, batches_per_epoch=batches_per_epoch(config, data))
    return to_device(split, device), learner


def evaluate(
    model: OptimizerLabModel,
    split: Split,
    *,
    epoch: int = 0,
    world: World = ALONE,
    progress: tuple[float, float] = (0.0, 1.0),
) -> Generator[EvaluationLogged, None, Evaluated]:
    """Yields the progress of an evaluation; returns the results of the model on a split.

    The model stays in evaluation mode. Each rank of `world` evaluates its share of the images; the results are those of
    the whole split on every rank. The progress goes from the first to the second number of `progress`. Raises UserError
    if the device has too little memory.
    """
    images, labels = world.share(split.images), world.share(split.labels)
    count, last_yield = len(labels), time.perf_counter()
    loss = torch.zeros((), device=labels.device)
    is_right = torch.zeros_like(labels, dtype=torch.bool)
    model.eval()
    for start in range(0, count, _EVALUATION_BATCH):
        with explain_out_of_memory(), torch.inference_mode():
            wanted = labels[start : start + _EVALUATION_BATCH]
            outputs = model(images[start : start + _EVALUATION_BATCH])
            loss += functional.cross_entropy(outputs, wanted, reduction="sum")
            is_right[start : start + _EVALUATION_BATCH] = outputs.argmax(1) == wanted
        if time.perf_counter() - last_yield > SECONDS_BETWEEN_YIELDS:
            fraction = min(1.0, (start + _EVALUATION_BATCH) / count)
            yield EvaluationLogged(epoch=epoch, fraction=progress[0] + fraction * (progress[1] - progress[0]))
            last_yield = time.perf_counter()
    counts = [torch.bincount(each.cpu(), minlength=len(model.class_names)) for each in (labels, labels[is_right])]
    return functools.reduce(operator.add, world.gather(Evaluated(loss.item(), *counts)))


class _Step(NamedTuple):
    """A batch after its update; loss and norm are still on the device."""

    number: int  # of the batch, counted from 1 over the whole run
    lr: float
    loss: Tensor
    grad_norm: Tensor
    layers: Tensor | None  # see LayerProbe.figures; None if they were not measured


class _Trained(NamedTuple):
    """The results of an epoch's batches: the sum of their losses, the mean norm and the last lr."""

    loss_sum: float
    grad_norm: float
    lr: float


@dataclass(frozen=True, kw_only=True, slots=True)
class _Training:
    """A run, as one rank sees it."""

    config: TrainConfig
    learner: Learner
    split: Split  # the images to train on
    tests: tuple[Split, Split | None]  # the images to evaluate after each epoch, and the others, after the last
    holdout: Split | None  # the training images that are kept aside, to evaluate after each epoch
    digest: str  # of the image set
    device: torch.device
    batches_per_epoch: int
    images_per_epoch: int
    world: World
    clock: Callable[[], float]

    def events(self, resume: Checkpoint | None) -> Iterator[Event]:
        """Yields all events of the run."""
        if resume is None:
            yield from self._evaluate_untrained()
        first, continued_with = (resume.epoch + 1, resume.continued_with) if resume else (1, None)
        for epoch in range(first, self.config.epochs + 1):
            finished = yield from self._run_epoch(epoch, continued_with if epoch == first else None)
            if finished:
                yield finished
                return
        yield Finished(reason="completed")

    def _evaluate_untrained(self) -> Iterator[Event]:
        started = self.clock()
        checkpoint = self._checkpoint(0)
        few = select(self.tests[0], _evenly(self.tests[0], FEWEST_TESTED))
        progress = _progress(few, self.holdout)
        key = self._key(checkpoint)
        if self.world.size > 1 or key not in _untrained:
            while len(_untrained) >= _MOST_UNTRAINED:
                _untrained.pop(next(iter(_untrained)), None)
            results = yield from self._evaluate(few, 0, progress[0])
            _untrained[key] = results, self.clock() - started
        tested, seconds = _untrained[key]
        held_out = yield from self._evaluate_holdout(0, progress[1])
        yield EpochEnded(
            epoch=0,
            train_loss=None,
            train_loss_sum=None,
            test_loss=tested.loss,
            test_accuracy=tested.accuracy,
            lr=None,
            grad_norm=None,
            seconds=seconds,
            images_per_second=None,
            test_share=self._share * len(few.labels) / len(self.tests[0].labels),
            holdout_loss=held_out.loss if held_out else None,
            holdout_accuracy=held_out.accuracy if held_out else None,
        )
        yield checkpoint

    def _evaluate(self, split: Split, epoch: int, progress: tuple[float, float]) -> Generator[Event, None, Evaluated]:
        """Returns the results on a split."""
        return (yield from evaluate(self.learner.model, split, epoch=epoch, world=self.world, progress=progress))

    def _evaluate_holdout(self, epoch: int, progress: tuple[float, float]) -> Generator[Event, None, Evaluated | None]:
        """Returns the results on the images that are kept aside; None without any."""
        if self.holdout is None:
            return None
        return (yield from self._evaluate(self.holdout, epoch, progress))

    @property
    def _share(self) -> float:
        """The part of the test images that is evaluated after each epoch."""
        part, rest = (len(split.labels) if split else 0 for split in self.tests)
        return part / (part + rest)

    def _key(self, untrained: CheckpointReady) -> bytes:
        """A key that is equal only for the same untrained network on the same test images and device."""
        parts = (
            json.dumps(untrained.model_config, sort_keys=True),
            self.digest,
            len(self.tests[0].labels),
            self.device,
        )
        return hashlib.sha256(repr(parts).encode() + untrained.model).digest()

    def _run_epoch(self, epoch: int, continued_with: dict[str, Any] | None) -> Generator[Event, None, Finished | None]:
        """Yields the events of an epoch; returns a Finished if the run ended in it."""
        config, scheduler = self.config, self.learner.scheduler
        started = self.clock()
        trained = yield from self._train_epoch(epoch)
        if isinstance(trained, Finished):
            return trained
        finish_training(self.learner, self.split.images)
        training_seconds = self.clock() - started
        if config.scheduler_unit == "epoch" and config.scheduler != "plateau":
            scheduler.step()
        part, rest = self.tests if epoch == config.epochs else (self.tests[0], None)
        progress = _progress(part, rest, self.holdout)
        tested = yield from self._evaluate(part, epoch, progress[0])
        # The epoch's last step can break the network, and its loss was computed before that.
        if not math.isfinite(tested.loss):
            return _diverged(config, epoch)
        if config.scheduler == "plateau":
            scheduler.step(tested.loss)  # type: ignore[arg-type]
        if rest:
            tested += yield from self._evaluate(rest, epoch, progress[1])
        held_out = yield from self._evaluate_holdout(epoch, progress[2])
        yield EpochEnded(
            epoch=epoch,
            train_loss=trained.loss_sum / self.batches_per_epoch,
            train_loss_sum=trained.loss_sum,
            test_loss=tested.loss,
            test_accuracy=tested.accuracy,
            lr=trained.lr,
            grad_norm=trained.grad_norm,
            seconds=self.clock() - started,
            images_per_second=self.images_per_epoch / training_seconds,
            continued_with=continued_with,
            test_share=1.0 if rest else self._share,
            class_accuracy=tested.class_accuracy(self.learner.model.class_names) if epoch == config.epochs else None,
            holdout_loss=held_out.loss if held_out else None,
            holdout_accuracy=held_out.accuracy if held_out else None,
        )
        yield self._checkpoint(epoch)
        return None

    def _train_epoch(self, epoch: int) -> Generator[StepLogged | LayersMeasured, None, _Trained | Finished]:
        """Trains on the batches of an epoch and yields each; returns their results, or a Finished if the run ended."""
        started = self.clock()
        cadence = _Cadence(self.world, self.clock)
        unread: list[_Step] = []
        loss_sum, grad_norms = 0.0, []
        start_training(self.learner)
        for step in self._steps(epoch):
            unread.append(step)
            if step.number < epoch * self.batches_per_epoch and not cadence.is_due(len(unread)):
                continue
            is_stopping = cadence.agree()
            for logged, (loss, grad_norm) in zip(unread, _read(unread), strict=True):
                loss_sum += loss
                grad_norms.append(grad_norm)
                yield StepLogged(
                    epoch=epoch,
                    step=logged.number,
                    num_steps=self._num_steps,
                    loss=loss,
                    lr=logged.lr,
                    grad_norm=grad_norm,
                    epoch_seconds=self.clock() - started,
                )
                if logged.layers is not None:
                    yield self._measured(epoch, logged.number, logged.layers)
                if not math.isfinite(loss):
                    return _diverged(self.config, epoch)
            if is_stopping:
                return Finished(reason="stopped")
            cadence.restart(len(unread))
            unread.clear()
        return _Trained(loss_sum, _mean_of_finite(grad_norms), step.lr)

    def _steps(self, epoch: int) -> Iterator[_Step]:
        """Trains on each batch of an epoch, and yields it before its loss is known."""
        config, learner, world = self.config, self.learner, self.world
        num_images, before = len(self.split.labels), (epoch - 1) * self.batches_per_epoch
        size = images_per_batch(num_images, config)
        shares = batches(self.split, config, epoch, rank=world.rank, world_size=world.size)
        for index, (images, labels) in enumerate(shares):
            number, lr = before + index + 1, learner.optimizer.param_groups[0]["lr"]
            in_batch = min(size, num_images - index * size)
            is_probed = is_measured(number, self._num_steps, config.zero_grad_every)
            probe = LayerProbe(learner.model.network) if is_probed else None
            loss, norm = train_batch(
                config, learner, images, labels, number, world=world, num_images=in_batch, probe=probe
            )
            yield _Step(number, lr, loss, norm, probe.figures(world) if probe else None)

    @property
    def _num_steps(self) -> int:
        """The number of batches of the whole run."""
        return self.config.epochs * self.batches_per_epoch

    def _measured(self, epoch: int, step: int, figures: Tensor) -> LayersMeasured:
        columns = [tuple(value if math.isfinite(value) else None for value in column) for column in figures.tolist()]
        return LayersMeasured(
            epoch=epoch,
            step=step,
            epochs_passed=step / self.batches_per_epoch,
            layers=tuple(layer.name for layer in layers_of(self.learner.model.network)),
            weight_norm=columns[0],
            grad_norm=columns[1],
            update_ratio=columns[2],
            inactive=columns[3],
        )

    def _checkpoint(self, epoch: int) -> CheckpointReady:
        # Only gradients that are cleared before every batch need not be saved.
        return checkpoint_of(self.learner, epoch=epoch, with_gradients=self.config.zero_grad_every != 1)


def _progress(*splits: Split | None) -> list[tuple[float, float]]:
    """Returns where each split's evaluation begins and ends within that of all of them, 0–1."""
    ends = list(itertools.accumulate(len(split.labels) if split else 0 for split in splits))
    return [(start / ends[-1], end / ends[-1]) for start, end in itertools.pairwise([0, *ends])]


class _Cadence:
    """Decides after which batches the losses are read: about every SECONDS_BETWEEN_YIELDS.

    All ranks read after the same batches, because a loss that they read can end the run. Rank 0 chooses the number of
    batches between two readings from the time that its last batches took.
    """

    def __init__(self, world: World, clock: Callable[[], float]) -> None:
        self._world, self._clock = world, clock
        self._last_reading = clock()
        self._interval = self._proposed_interval = 1  # batches

    def is_due(self, num_unread: int) -> bool:
        """Whether to read the losses of the last `num_unread` batches now."""
        if self._world.size == 1:
            return self._clock() - self._last_reading > SECONDS_BETWEEN_YIELDS
        return num_unread >= self._interval

    def agree(self) -> bool:
        """Sets the interval of every rank to that of rank 0; returns whether any of several ranks is to stop."""
        proposals = self._world.gather((self._proposed_interval, self._world.stopping.is_set()))
        self._interval = proposals[0][0]
        return self._world.size > 1 and any(is_stopping for _, is_stopping in proposals)

    def restart(self, num_read: int) -> None:
        """Starts the next interval, after `num_read` losses were read."""
        seconds = max(self._clock() - self._last_reading, 1e-3)
        self._proposed_interval = max(1, round(num_read * SECONDS_BETWEEN_YIELDS / seconds))
        self._last_reading = self._clock()


def _read(steps: Sequence[_Step]) -> list[list[float]]:
    """Returns [loss, gradient norm] of each step.

    The host waits for the device only here, except with float16, whose gradient scaler waits at each step.
    """
    return torch.stack([value for step in steps for value in (step.loss, step.grad_norm)]).view(-1, 2).tolist()


def _mean_of_finite(norms: Sequence[float]) -> float:
    """Returns the mean of the finite norms, or infinity if there are none.

    In float16 a norm is infinite if the gradients were scaled too much; the optimizer then takes no step.
    """
    finite = [norm for norm in norms if math.isfinite(norm)]
    return sum(finite) / len(finite) if finite else math.inf


def _diverged(config: TrainConfig, epoch: int) -> Finished:
    return Finished(reason="diverged", advice=_advice(config, epoch))


def _advice(config: TrainConfig, epoch: int) -> Message:
    if config.zero_grad_every == 0:
        cure = Message("The gradients are never cleared and grow at every step; set zero_grad_every to 1.")
    else:
        assert config.lr is not None  # every optimizer has one
        lower = min(config.lr / 10, OPTIMIZERS[config.optimizer].defaults["lr"])
        cure = Message("What usually helps: an lr of {lr}, or a warm-up of a few steps.", lr=f"{lower:g}")
    return Message("In epoch {epoch} the loss became infinite or not a number. {cure}", epoch=epoch, cure=cure)
