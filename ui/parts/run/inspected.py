"""Opens runs to look inside: a visitor's own, a network that comes with the app, a published run."""

from functools import partial
from pathlib import Path
from typing import NoReturn

import torch

from trainer.errors import UserError
from trainer.insight import timeline
from trainer.networks.model import OptimizerLabModel
from trainer.networks.pretrained import BUNDLED
from trainer.runs.reader import read_run, read_settings
from trainer.settings.config import TrainConfig
from ui.jobs.insight import Inspected, Opened
from ui.parts.run.checkpoints import open_published, open_run, open_timeline
from ui.stored_runs import bundled

_CPU = torch.device("cpu")


def of_folder(folder: Path, name: str) -> Inspected:
    """The run in a folder that its reader may see."""

    def open_here() -> Opened:
        config, data = read_settings(folder)
        return Opened(
            config=config,
            timeline=partial(timeline.of_folder, folder),
            last=lambda: (OptimizerLabModel.from_pretrained(folder), read_run(folder).epoch),
            digest=data.get("digest"),
        )

    return Inspected(name=name, open=open_here, folder=folder)


def elsewhere(name: str) -> Inspected:
    """The network of that name that comes with the app, or the published run `repo_id[@revision]`."""
    return Inspected(name=name, open=partial(_open_bundled if name in bundled() else _open_published, name))


def _open_bundled(name: str) -> Opened:
    model = OptimizerLabModel.from_pretrained(BUNDLED / name)

    def refuse() -> NoReturn:
        raise UserError(
            "{name} comes with the app as weights only, without its epochs: choose a run that was trained here, or "
            "random directions for a landscape.",
            name=name,
        )

    return Opened(config=TrainConfig(model=model.config["architecture"]), timeline=refuse, last=lambda: (model, 0))


def _open_published(name: str) -> Opened:
    run = open_run(name)
    return Opened(
        config=run.config,
        timeline=partial(open_timeline, name),
        last=lambda: (open_published(name, _CPU), run.epoch),
    )
