"""A run's epochs in order: what the network of each predicts for a picture, and the filters of its first layer."""

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor, nn

from trainer.errors import UserError
from trainer.images.image_data import ImageData
from trainer.images.picture import fit
from trainer.insight.mistakes import Answers, answer
from trainer.networks.files import load_weights
from trainer.networks.model import OptimizerLabModel
from trainer.networks.predict import Prediction, classify
from trainer.progress import Steps
from trainer.runs import run_folder
from trainer.runs.reader import read_run
from trainer.runs.run import Run

# The most epochs of a local run's timeline: a slider has room for about this many.
MAX_EPOCHS = 200

# An unreachable Hub takes seconds to fail, at each epoch again; a damaged file fails at once.
MAX_SECONDS_ON_GAPS = 20.0


@dataclass(frozen=True, kw_only=True)
class Timeline:
    """A run and the epochs of it that can be opened, ascending.

    `open(epoch)` returns the network as it was after that epoch; the next call may reuse and change it. It raises
    UserError if the weights are missing, damaged or cannot be downloaded.
    """

    run: Run
    epochs: tuple[int, ...]
    open: Callable[[int], OptimizerLabModel]


@dataclass(frozen=True, kw_only=True)
class Moment:
    """The prediction of one epoch's network for the picture, and its first filters, float32 [filters, 3, h, w].

    `class_names` are in the network's own order.
    """

    epoch: int
    class_names: tuple[str, ...]
    prediction: Prediction
    filters: Tensor


@dataclass(frozen=True, kw_only=True)
class Gap:
    """An epoch that cannot be opened, and the reason in one sentence."""

    epoch: int
    reason: str


def of_folder(folder: Path) -> Timeline:
    """Returns the timeline of a run's folder. Raises UserError if it contains no valid run or no saved epochs."""
    run, model = read_run(folder), OptimizerLabModel.from_pretrained(folder)
    paths = {epoch: path for epoch, path in run_folder.saved_epochs(folder).items() if epoch <= run.epoch}
    if not paths:
        raise UserError("This run has no saved epochs to walk through, only its last network.")

    def open_epoch(epoch: int) -> OptimizerLabModel:
        load_weights(model, paths[epoch])
        return model

    return Timeline(run=run, epochs=evenly_spaced(tuple(paths), MAX_EPOCHS), open=open_epoch)


def walk(timeline: Timeline, picture: Tensor) -> Iterator[Moment | Gap]:
    """Yields what each epoch's network predicts for a picture, uint8 RGB [3, height, width], in the epochs' order.

    An epoch that cannot be opened is a Gap. After MAX_SECONDS_ON_GAPS spent on gaps, no further epoch is opened.
    """
    class_names, input_format, pixels, seconds_on_gaps, reason = None, None, picture, 0.0, ""
    for epoch in timeline.epochs:
        if seconds_on_gaps > MAX_SECONDS_ON_GAPS:
            yield Gap(epoch=epoch, reason=reason)
            continue
        started_at = time.monotonic()
        try:
            model = timeline.open(epoch)
            if model.class_names != (class_names or model.class_names):
                raise UserError("Its network has other classes than the epochs before it.")
            if input_format != (model.image_size, model.resize):
                input_format = model.image_size, model.resize
                pixels = fit(picture, *input_format)
            moment = Moment(
                epoch=epoch,
                class_names=model.class_names,
                prediction=classify(model, pixels),
                filters=first_filters(model),
            )
        except UserError as error:
            reason = str(error)
            seconds_on_gaps += time.monotonic() - started_at
            yield Gap(epoch=epoch, reason=reason)
        else:
            class_names = model.class_names
            yield moment


def walk_mistakes(timeline: Timeline, epochs: Iterable[int], data: ImageData) -> Iterator[tuple[int, Answers]]:
    """Yields epochs with the answers of their networks for the test pictures.

    Raises UserError if an epoch cannot be opened, or if its network does not fit the pictures.
    """
    for epoch in epochs:
        steps = Steps(answer(timeline.open(epoch), data))
        for _ in steps:
            pass
        yield epoch, steps.value


def first_filters(model: OptimizerLabModel) -> Tensor:
    """Returns a copy, on the CPU, of the first convolution's weights, float32 [filters, 3, height, width].

    Each filter can be displayed as a small picture: among all patches of the same norm, the filter responds most to the
    patch that is proportional to it.
    """
    first = next(layer for layer in model.modules() if isinstance(layer, nn.Conv2d))
    return first.weight.detach().float().cpu().clone()


def evenly_spaced(epochs: tuple[int, ...], count: int) -> tuple[int, ...]:
    """Returns at most `count` of the epochs, at least 2: evenly spaced, with the first and the last."""
    if len(epochs) <= count:
        return epochs
    return tuple(epochs[index * (len(epochs) - 1) // (count - 1)] for index in range(count))
