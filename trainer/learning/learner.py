"""Learner: the network with its optimizer, scheduler and gradient scaler, and how it learns from one batch."""

import math
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.amp.grad_scaler import GradScaler
from torch.nn import functional

from trainer.errors import UserError
from trainer.images.image_data import ImageData, Split
from trainer.learning.device import explain_out_of_memory
from trainer.learning.distributed import ALONE, World
from trainer.learning.layers import LayerProbe
from trainer.learning.optimizers import build_optimizer, is_schedule_free
from trainer.learning.optimizers.sam import SharpnessAware
from trainer.learning.schedulers import build_scheduler
from trainer.learning.training_set import training_statistics
from trainer.networks.architectures import memory_format
from trainer.networks.model import OptimizerLabModel
from trainer.networks.pretrained import bundled_network, copy_convolutions
from trainer.settings.config import TrainConfig

# fork_rng saves and restores the process's global generator, so two runs must not be inside it at the same time.
_INITIALIZING = threading.Lock()

_MOST_MEASURED, _MEASURED_TOGETHER = 5000, 500  # images for the statistics of averaged weights, and in a batch


@dataclass(frozen=True, kw_only=True, slots=True)
class Learner:
    """A network with its torch optimizer, scheduler and gradient scaler (which scales for float16 only)."""

    model: OptimizerLabModel
    optimizer: torch.optim.Optimizer
    scheduler: torch.optim.lr_scheduler.LRScheduler
    scaler: GradScaler
    schedule_from: int  # the epoch after which the schedule starts: 0, unless a continuation changed settings later


def build_learner(
    config: TrainConfig,
    data: ImageData,
    split: Split,
    *,
    batches_per_epoch: int,
    device: torch.device,
    schedule_from: int = 0,
) -> Learner:
    """Returns a learner for `split` before its first batch, on the device.

    Raises UserError if the run is too short for its schedule.
    """
    model = build_model(config, data, split)
    model.to(device, memory_format=memory_format(device))  # type: ignore[call-overload]
    optimizer = build_optimizer(config, [weight for weight in model.parameters() if weight.requires_grad])
    return Learner(
        model=model,
        optimizer=optimizer,
        scheduler=build_scheduler(config, optimizer, batches_per_epoch=batches_per_epoch, after_epoch=schedule_from),
        scaler=GradScaler(device.type, enabled=config.precision == "float16"),
        schedule_from=schedule_from,
    )


def build_model(config: TrainConfig, data: ImageData, split: Split) -> OptimizerLabModel:
    """Returns the network of a run before its training, on the CPU; config.seed alone determines its random weights.

    One that is `pretrained` has the convolutions of the bundled network, and its mean and deviation of the pixels.
    Raises UserError if no such network is bundled.
    """
    mean, std = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
    if config.normalize and config.pretrained == "none":
        mean, std = training_statistics(config, data)
    with _INITIALIZING, torch.random.fork_rng(devices=[]):
        trained = None if config.pretrained == "none" else bundled_network(config.model)
        if trained:
            mean, std = trained.config["mean"], trained.config["std"]
        torch.default_generator.manual_seed(config.seed)
        model = OptimizerLabModel(
            architecture=config.model,
            activation=config.activation,
            softmax=config.softmax,
            class_names=list(data.class_names),
            image_size=split.images.shape[-1],
            mean=list(mean),
            std=[max(value, 1e-3) for value in std],  # images of a single colour have a deviation of 0
            # A network that has not learned from mirror images may confuse what they make of a picture.
            mirror=config.model == "fast" and config.flip,
        )
    if trained:
        copy_convolutions(model.network, trained.network, frozen=config.pretrained == "frozen")
    return model


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
    probe: LayerProbe | None = None,
) -> tuple[Tensor, Tensor]:
    """Trains on one batch; returns its mean loss before the update and the norm of all gradients together.

    `images` is uint8 [b, 3, size, size] and `labels` int64 [b]. `step` is the number of the batch, counted from 1 over
    the whole run; with `zero_grad_every` and `scheduler_unit` it decides whether gradients are cleared and optimizer
    and scheduler stepped. The model must be in training mode. Both results are scalar tensors on the device, so that
    the host need not wait for them. Raises UserError if the device has too little memory.

    If `world` has several ranks, `images` is this rank's share, which may be empty, of a batch of `num_images`; loss,
    norm and update are those of the whole batch. `probe` measures the layers.
    """

    def backward() -> Tensor:
        if config.zero_grad_every == 1:
            learner.optimizer.zero_grad()
        # The mean over the ranks of their weighted mean losses is the mean loss of the whole batch.
        weight = world.size * len(labels) / (num_images or len(labels))
        loss = _backward(config, learner, images, labels, weight) if weight else torch.zeros((), device=labels.device)
        if world.size > 1:
            _combine(learner.model, loss, weight, world)
        return loss

    with probe.watching_relus() if probe else nullcontext():
        loss = backward()
    norm = _gradient_norm(learner)
    if probe:
        probe.before_update(_scale(learner, norm.device))
    if step % max(1, config.zero_grad_every) == 0:
        with _explain_overflow(learner.optimizer):
            if isinstance(learner.optimizer, SharpnessAware):
                with frozen_statistics(learner.model):
                    learner.optimizer.step(backward)
            else:
                learner.scaler.step(learner.optimizer)
        learner.scaler.update()
        if config.zero_grad_every > 1:
            learner.optimizer.zero_grad()
        if config.scheduler_unit == "batch":
            learner.scheduler.step()
    if probe:
        probe.after_update()
    return loss, norm


def start_training(learner: Learner) -> None:
    """Brings model and optimizer into training mode, for `train_batch`; batch normalisation only if it is trained."""
    learner.model.train()
    for layer in _norms(learner.model):
        layer.train(layer.weight.requires_grad)
    if is_schedule_free(learner.optimizer):
        learner.optimizer.train()  # type: ignore[attr-defined]


def finish_training(learner: Learner, images: Tensor) -> None:
    """Gives the model the weights to evaluate, if they are others than those that were trained.

    Those of a schedule-free optimizer are an average, for which batch normalisation has no statistics yet: they are
    measured on up to _MOST_MEASURED of the training images, uint8 [n, 3, size, size]. Raises UserError if the device
    has too little memory.
    """
    if not is_schedule_free(learner.optimizer):
        return
    learner.optimizer.eval()  # type: ignore[attr-defined]
    norms = [layer for layer in _norms(learner.model) if layer.training]
    if not norms:
        return
    chosen = images[:: math.ceil(len(images) / _MOST_MEASURED)]
    momenta = [layer.momentum for layer in norms]
    for layer in norms:
        layer.reset_running_stats()
        layer.momentum = None  # the mean over all batches
    with explain_out_of_memory(), torch.no_grad():
        for batch in chosen.tensor_split(math.ceil(len(chosen) / _MEASURED_TOGETHER)):
            learner.model(batch)
    for layer, momentum in zip(norms, momenta, strict=True):
        layer.momentum = momentum


@contextmanager
def frozen_statistics(model: nn.Module) -> Iterator[None]:
    """Leaves the running statistics of batch normalisation as they are."""
    norms = _norms(model)
    for layer in norms:
        layer.track_running_stats = False
    try:
        yield
    finally:
        for layer in norms:
            layer.track_running_stats = True


@contextmanager
def _explain_overflow(optimizer: torch.optim.Optimizer) -> Iterator[None]:
    """Turns torch's error for a factor that float32 cannot hold, such as a huge lr, into a UserError."""
    try:
        yield
    except RuntimeError as error:
        if "without overflow" not in str(error):
            raise
        raise UserError(
            "The weights cannot hold a step with an lr of {lr}: choose a smaller lr.",
            lr=f"{optimizer.param_groups[0]['lr']:g}",
        ) from error


def _norms(model: nn.Module) -> list[nn.BatchNorm2d]:
    return [layer for layer in model.modules() if isinstance(layer, nn.BatchNorm2d)]


def _backward(config: TrainConfig, learner: Learner, images: Tensor, labels: Tensor, weight: float) -> Tensor:
    """Adds the gradients of the images' weighted mean loss; returns that loss, unweighted."""
    with torch.autocast(images.device.type, getattr(torch, config.precision), config.precision != "float32"):
        loss = functional.cross_entropy(learner.model(images), labels, label_smoothing=config.label_smoothing)
    # Divided by zero_grad_every, the gradients of that many batches add up to their mean.
    learner.scaler.scale(loss / (max(1, config.zero_grad_every) / weight)).backward()
    return loss.detach()


def _combine(model: OptimizerLabModel, loss: Tensor, weight: float, world: World) -> None:
    """Turns gradients, loss and running statistics of a rank's share into those of the whole batch, in place.

    torch's DistributedDataParallel would not be faster, because the gradients of a network this small are sent in one
    piece, and it needs at least one image on every rank.
    """
    gradients = []
    for parameter in model.parameters():
        if not parameter.requires_grad:
            continue
        if parameter.grad is None:  # this rank has had no image yet
            parameter.grad = torch.zeros_like(parameter)
        gradients.append(parameter.grad)
    buffers = [buffer for layer in _norms(model) if layer.training for buffer in layer.buffers()]
    statistics = [buffer for buffer in buffers if buffer.is_floating_point()]
    for tensor in (loss, *statistics):
        tensor.mul_(weight)
    # Gradients of earlier batches are equal on all ranks: averaging does not change them.
    world.average([*gradients, loss, *statistics])


def _gradient_norm(learner: Learner) -> Tensor:
    """Returns the norm of all gradients together, without the scaler's factor."""
    norm = nn.utils.get_total_norm([p.grad for p in learner.model.parameters() if p.grad is not None])
    return norm / _scale(learner, norm.device)


def _scale(learner: Learner, device: torch.device) -> Tensor | float:
    """Returns the factor by which the scaler has multiplied the gradients."""
    return learner.scaler.scale(torch.ones((), device=device)) if learner.scaler.is_enabled() else 1.0
