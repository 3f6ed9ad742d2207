"""train() and evaluate(): the generator at the heart."""

import math
import time
from collections.abc import Callable, Generator, Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional

from trainer.errors import Message, UserError
from trainer.images.batches import batches, num_batches
from trainer.images.image_data import ImageData, Split, subset, to_device
from trainer.images.readers import CIFAR10_SIZES
from trainer.learning.checkpoint import Checkpoint
from trainer.learning.device import explain_out_of_memory
from trainer.learning.distributed import ALONE, World, check_batch_size
from trainer.learning.learner import Learner, build_learner, checkpoint_of
from trainer.networks.model import OptimizerLabModel
from trainer.runs.events import EpochEnded, EvaluationLogged, Event, Finished, StepLogged
from trainer.settings.config import TrainConfig
from trainer.settings.optimizers import OPTIMIZERS

# Often enough that a bar moves and a Stop is felt at once, seldom enough that reading the losses costs nothing.
_SECONDS_BETWEEN_YIELDS = 0.4
_EVALUATION_BATCH = 500


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
    """Trains on `data` as `config` says; yields what happens, at least about once a second.

    Epoch 0 is the untrained network. Each epoch ends with EpochEnded and CheckpointReady; the last event is Finished,
    `completed` or `diverged`. Given `resume`, it goes on after that checkpoint's last epoch: on a CPU bit for bit as
    if it had never stopped. `clock` gives the seconds that times are told in: those of its own turns where it takes
    turns with others. No prints, no files, no environment, no global random state.

    Where `world` has several ranks, each runs this same generator over its share of every batch and of the test images,
    and yields the same events, but for their times: gradients, weighted by the images they come from, losses and
    accuracies are those of all ranks, so all take the same steps. Once world.stopping is set on one of them, all end as
    `stopped` after the same batch. Batch normalisation alone knows no more than the share.

    Raises ValueError at once, before the first event is asked for, where the config does not fit the data, the device,
    the world or the checkpoint; LostRankError on the way, where a rank has gone.
    """
    device = torch.device(device)
    check_batch_size(world, config.batch_size)
    split, learner = prepare(config, data, device=device, resume=resume)
    per_epoch = num_batches(len(split.labels), config)
    return _epochs(config, learner, split, to_device(data.test, device), per_epoch, resume, clock, world)


def _epochs(
    config: TrainConfig,
    learner: Learner,
    split: Split,
    test: Split,
    per_epoch: int,
    resume: Checkpoint | None,
    clock: Callable[[], float],
    world: World,
) -> Iterator[Event]:
    carry_gradients = config.zero_grad_every != 1
    first, continued_with = (resume.epoch, resume.continued_with) if resume else (0, None)
    if not resume:
        begun = clock()
        test_loss, test_accuracy = yield from evaluate(learner.model, test, epoch=0, world=world)
        yield EpochEnded(
            epoch=0,
            train_loss=None,
            train_loss_sum=None,
            test_loss=test_loss,
            test_accuracy=test_accuracy,
            lr=None,
            grad_norm=None,
            seconds=clock() - begun,
            images_per_second=None,
        )
        yield checkpoint_of(learner, epoch=0, carry_gradients=carry_gradients)

    for epoch in range(first + 1, config.epochs + 1):
        begun = clock()
        trained = yield from _train_epoch(config, learner, split, epoch, per_epoch, clock, world)
        training_seconds = clock() - begun
        if trained == "stopped":
            yield Finished(reason="stopped")
            return
        if config.scheduler_unit == "epoch" and config.scheduler != "plateau":
            learner.scheduler.step()
        # The last step of an epoch may be the one that broke the network: its own loss was still a number.
        if trained != "diverged":
            test_loss, test_accuracy = yield from evaluate(learner.model, test, epoch=epoch, world=world)
        if trained == "diverged" or not math.isfinite(test_loss):
            yield Finished(reason="diverged", advice=_advice(config, epoch))
            return
        if config.scheduler == "plateau":
            learner.scheduler.step(test_loss)
        train_loss_sum, grad_norm, lr = trained
        num_images = len(split.labels) - (len(split.labels) % config.batch_size if config.drop_last else 0)
        yield EpochEnded(
            epoch=epoch,
            train_loss=train_loss_sum / per_epoch,
            train_loss_sum=train_loss_sum,
            test_loss=test_loss,
            test_accuracy=test_accuracy,
            lr=lr,
            grad_norm=grad_norm,
            seconds=clock() - begun,
            images_per_second=num_images / training_seconds,
            continued_with=continued_with if epoch == first + 1 else None,
        )
        yield checkpoint_of(learner, epoch=epoch, carry_gradients=carry_gradients)
    yield Finished(reason="completed")


def evaluate(
    model: OptimizerLabModel, split: Split, *, epoch: int = 0, world: World = ALONE
) -> Generator[EvaluationLogged, None, tuple[float, float]]:
    """Yields signs of life and returns (mean loss per image, accuracy 0–1) of the model on a split.

    Each rank of `world` sees its share of the images; what is returned is of all.
    """
    num_images, images, labels = len(split.labels), world.share(split.images), world.share(split.labels)
    count, last_yield = len(labels), time.perf_counter()
    loss = torch.zeros((), device=labels.device)
    correct = torch.zeros((), device=labels.device, dtype=torch.int64)
    model.eval()
    for start in range(0, count, _EVALUATION_BATCH):
        with explain_out_of_memory(), torch.inference_mode():
            wanted = labels[start : start + _EVALUATION_BATCH]
            outputs = model(images[start : start + _EVALUATION_BATCH])
            loss += functional.cross_entropy(outputs, wanted, reduction="sum")
            correct += (outputs.argmax(1) == wanted).sum()
        if time.perf_counter() - last_yield > _SECONDS_BETWEEN_YIELDS:
            yield EvaluationLogged(epoch=epoch, fraction=min(1.0, (start + _EVALUATION_BATCH) / count))
            last_yield = time.perf_counter()
    losses, corrects = zip(*world.gather((loss.item(), correct.item())), strict=True)
    return sum(losses) / num_images, sum(corrects) / num_images


@explain_out_of_memory()
def prepare(
    config: TrainConfig, data: ImageData, *, device: torch.device, resume: Checkpoint | None
) -> tuple[Split, Learner]:
    """The images to train on, on the device, and the learner at its beginning, or as `resume` left it.

    Raises ValueError where the config does not fit the data, the device or the checkpoint.
    """
    split = training_split(config, data)
    if config.precision == "float16" and device.type != "cuda":
        raise UserError("precision float16 needs a CUDA GPU; use float32 or bfloat16 here.")
    per_epoch = num_batches(len(split.labels), config)
    learner = build_learner(config, data, split, num_batches=per_epoch, device=device, resume=resume)
    return to_device(split, device), learner


def training_split(config: TrainConfig, data: ImageData) -> Split:
    """The images the config trains on; ValueError where it asks for more than there are."""
    num_training_images(config, data)
    return subset(_chosen_split(config, data), config.num_images)


def num_training_images(config: TrainConfig, data: ImageData | None) -> int:
    """How many images the config trains on, of CIFAR-10 until there are any; ValueError where it asks for more."""
    there = CIFAR10_SIZES[config.train_split] if data is None else len(_chosen_split(config, data).labels)
    if config.num_images > there:
        raise UserError("num_images must not be above the {count} pictures of the split.", count=f"{there:,}")
    chosen = config.num_images or there
    if config.batch_size > chosen:
        raise UserError(
            "batch_size must not be above the {count} pictures there are to learn from.",
            count=f"{chosen:,}",
        )
    return chosen


def _chosen_split(config: TrainConfig, data: ImageData) -> Split:
    return {"train": data.train, "test": data.test}[config.train_split]


@explain_out_of_memory()
def train_batch(
    config: TrainConfig,
    learner: Learner,
    images: Tensor,
    labels: Tensor,
    step: int,
    *,
    world: World = ALONE,
    num_images: int | None = None,
) -> tuple[Tensor, Tensor]:
    """Learns from one batch, of which `step` counts from 1 over the whole run; the model is in training mode.

    Returns its mean loss, as it went in, and the norm of the gradient, as scalars that stay on the device. Gradients
    are cleared, and optimizer and scheduler stepped, where zero_grad_every and scheduler_unit say so.

    Where `world` has several ranks, the images are this one's share, which may be empty, of a batch of `num_images`;
    loss, norm and step are the whole batch's.
    """
    optimizer, scaler, every = learner.optimizer, learner.scaler, max(1, config.zero_grad_every)
    if config.zero_grad_every == 1:
        optimizer.zero_grad()
    weight = 1.0 if world.size == 1 else world.size * len(labels) / num_images
    if weight:
        with torch.autocast(images.device.type, getattr(torch, config.precision), config.precision != "float32"):
            loss = functional.cross_entropy(learner.model(images), labels, label_smoothing=config.label_smoothing)
        scaler.scale(loss / (every / weight)).backward()
        loss = loss.detach()
    else:
        loss = torch.zeros((), device=labels.device)
    if world.size > 1:
        _combine(learner.model, loss, weight, world)
    norm = nn.utils.get_total_norm([p.grad for p in learner.model.parameters()])
    if scaler.is_enabled():
        norm = norm / scaler.scale(torch.ones((), device=norm.device))
    if step % every == 0:
        scaler.step(optimizer)
        scaler.update()
        if config.zero_grad_every > 1:
            optimizer.zero_grad()
        if config.scheduler_unit == "batch":
            learner.scheduler.step()
    return loss, norm


def _combine(model: OptimizerLabModel, loss: Tensor, weight: float, world: World) -> None:
    """Makes gradients, loss and running means, which are of one rank's images, those of the whole batch.

    torch's DistributedDataParallel does no more for a network this small, whose gradients travel in one piece, and
    wants an image for every rank.
    """
    parameters = dict(model.named_parameters())
    for parameter in parameters.values():
        if parameter.grad is None:  # no image in the first batch of all
            parameter.grad = torch.zeros_like(parameter)
    own = [tensor for name, tensor in model.state_dict().items() if name not in parameters]
    own = [loss, *(tensor for tensor in own if tensor.is_floating_point())]
    for tensor in own:
        tensor.mul_(weight)
    # A gradient that earlier batches have left is the same on all ranks: it is its own mean.
    world.average([*(parameter.grad for parameter in parameters.values()), *own])


def _train_epoch(
    config: TrainConfig,
    learner: Learner,
    split: Split,
    epoch: int,
    per_epoch: int,
    clock: Callable[[], float],
    world: World,
) -> Generator[StepLogged, None, tuple[float, float, float] | str]:
    """Yields every batch of an epoch; returns (sum of losses, mean gradient norm, last lr), or what ended it.

    A norm that is no finite number is left out: in float16 some are, where the scale of the gradients was too large
    and no step was taken.
    """
    begun = last_yield = clock()
    before = (epoch - 1) * per_epoch
    unread: list[tuple[int, float, Tensor, Tensor]] = []
    loss_sum, norms = 0.0, []
    # After how many batches several ranks look at their losses: all after the same, for that may end the run.
    interval = proposed = 1
    learner.model.train()
    for index, (images, labels) in enumerate(batches(split, config, epoch, rank=world.rank, world_size=world.size)):
        lr = learner.optimizer.param_groups[0]["lr"]
        num_images = min(config.batch_size, len(split.labels) - index * config.batch_size)
        step = before + index + 1
        loss, norm = train_batch(config, learner, images, labels, step, world=world, num_images=num_images)
        unread.append((step, lr, loss, norm))

        is_due = clock() - last_yield > _SECONDS_BETWEEN_YIELDS if world.size == 1 else len(unread) >= interval
        if is_due or step == epoch * per_epoch:
            told = world.gather((proposed, world.stopping.is_set()))
            # The only point at which the host waits for the device, but for float16's scaler, which does at each step.
            read = torch.stack([value for _, _, *values in unread for value in values]).view(-1, 2).tolist()
            for (number, its_lr, _, _), (its_loss, its_norm) in zip(unread, read, strict=True):
                loss_sum += its_loss
                norms.append(its_norm)
                yield StepLogged(
                    epoch=epoch,
                    step=number,
                    num_steps=config.epochs * per_epoch,
                    loss=its_loss,
                    lr=its_lr,
                    grad_norm=its_norm,
                    epoch_seconds=clock() - begun,
                )
                if not math.isfinite(its_loss):
                    return "diverged"
            if world.size > 1 and any(is_stopping for _, is_stopping in told):
                return "stopped"
            interval = told[0][0]
            proposed = max(1, round(len(unread) * _SECONDS_BETWEEN_YIELDS / max(clock() - last_yield, 1e-3)))
            unread.clear()
            last_yield = clock()
    finite = [norm for norm in norms if math.isfinite(norm)]
    return loss_sum, sum(finite) / len(finite) if finite else math.inf, lr


def _advice(config: TrainConfig, epoch: int) -> str:
    if config.zero_grad_every == 0:
        cure = Message("The gradients are never cleared and grow at every step; set zero_grad_every to 1.")
    else:
        lower = min(config.lr / 10, OPTIMIZERS[config.optimizer].defaults["lr"])
        cure = Message("What usually helps: an lr of {lr}, or a warm-up of a few steps.", lr=f"{lower:g}")
    return Message("In epoch {epoch} the loss became infinite or not a number. {cure}", epoch=epoch, cure=cure)
