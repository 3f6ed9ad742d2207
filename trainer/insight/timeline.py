"""A run's epochs in their order: what the network of each thinks of a picture, and the filters it looks through."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor, nn

from trainer.errors import UserError
from trainer.hub import repositories
from trainer.images.picture import fit
from trainer.networks.files import load_weights
from trainer.networks.model import OptimizerLabModel
from trainer.networks.predict import Prediction, classify
from trainer.runs import checkpoint
from trainer.runs.run import Run

# More than a slider has room for. Of a longer run, so many epochs evenly spaced are shown.
MOST_KEPT, MOST_PUBLISHED = 200, 40

# A damaged epoch is known at once; a Hub that is out of reach takes its time to say so, again at each epoch.
PATIENCE_SECONDS = 20.0


@dataclass(frozen=True, kw_only=True)
class Timeline:
    """A run and those of its epochs that can be looked at, ascending.

    `open` gives the network as it was after one of the epochs, until it is called again; it raises ValueError with one
    sentence where the weights are gone, damaged or out of reach.
    """

    run: Run
    epochs: tuple[int, ...]
    open: Callable[[int], OptimizerLabModel]


@dataclass(frozen=True, kw_only=True)
class Moment:
    """What an epoch's network thinks of the picture, and its first layer's weights, float32 [filters, 3, h, w].

    `class_names` are in the network's own order.
    """

    epoch: int
    class_names: tuple[str, ...]
    prediction: Prediction
    filters: Tensor


@dataclass(frozen=True, kw_only=True)
class Gap:
    """An epoch that cannot be looked at, and why: one sentence."""

    epoch: int
    reason: str


def of_folder(folder: Path) -> Timeline:
    """The timeline of a run's folder. Raises ValueError where it holds no sound run, or kept no epochs."""
    run, model = checkpoint.read_run(folder), OptimizerLabModel.from_pretrained(folder)
    paths = {epoch: path for epoch, path in checkpoint.kept_epochs(folder).items() if epoch <= run.epoch}
    if not paths:
        raise UserError("Of this run no epochs were kept to walk through, only its last network.")

    def open_epoch(epoch: int) -> OptimizerLabModel:
        load_weights(model, paths[epoch])
        return model

    return Timeline(run=run, epochs=_evenly(tuple(paths), MOST_KEPT), open=open_epoch)


def of_repo(
    repo_id: str, *, token: str | None = None, open_model: Callable[..., OptimizerLabModel] = repositories.open_model
) -> Timeline:
    """The timeline of a published run, for whoever may read it: its tagged epochs, whose weights are fetched as asked.

    `open_model` takes what `repositories.open_model` takes. Raises ValueError with one sentence where there is no such
    run or the Hub is out of reach.
    """
    revisions = repositories.list_epochs(repo_id, token=token)
    if not revisions:
        raise UserError(
            "{repo} has no epochs to walk through: none of its commits has a tag such as epoch-0003.",
            repo=repo_id,
        )
    return Timeline(
        run=repositories.open_run(repo_id, token=token),
        epochs=_evenly(tuple(revisions), MOST_PUBLISHED),
        open=lambda epoch: open_model(repo_id, revisions[epoch], token=token),
    )


def walk(timeline: Timeline, picture: Tensor) -> Iterator[Moment | Gap]:
    """What each epoch's network thinks of a picture, uint8 RGB [3, height, width], in the epochs' order.

    An epoch that cannot be opened is a Gap and the walk goes on, until PATIENCE_SECONDS were lost to such epochs: then
    all that are left are gaps too.
    """
    class_names, rule, seen, lost, reason = None, None, picture, 0.0, ""
    for epoch in timeline.epochs:
        if lost > PATIENCE_SECONDS:
            yield Gap(epoch=epoch, reason=reason)
            continue
        began = time.monotonic()
        try:
            model = timeline.open(epoch)
            if model.class_names != (class_names or model.class_names):
                raise UserError("Its network knows other classes than the epochs before it.")
            if rule != (model.image_size, model.resize):
                rule = model.image_size, model.resize
                seen = fit(picture, *rule)
            moment = Moment(
                epoch=epoch,
                class_names=model.class_names,
                prediction=classify(model, seen),
                filters=first_filters(model),
            )
        except ValueError as error:
            reason = str(error)
            lost += time.monotonic() - began
            yield Gap(epoch=epoch, reason=reason)
        else:
            class_names = model.class_names
            yield moment


def first_filters(model: OptimizerLabModel) -> Tensor:
    """The weights of the first convolution, float32 [filters, 3, height, width], on the CPU; a copy.

    Each is itself a small picture: of all patches with the same sum of squares, it answers most to the one that is like
    itself.
    """
    first = next(layer for layer in model.modules() if isinstance(layer, nn.Conv2d))
    return first.weight.detach().float().cpu().clone()


def _evenly(epochs: tuple[int, ...], most: int) -> tuple[int, ...]:
    """At most so many of the epochs, evenly spaced, the first and the last among them."""
    if len(epochs) <= most:
        return epochs
    return tuple(epochs[index * (len(epochs) - 1) // (most - 1)] for index in range(most))
