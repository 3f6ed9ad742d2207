"""Upper limits for the visitors of a public Space, from the environment; none on one's own machine."""

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields

from trainer.errors import UserError
from trainer.settings.config import TrainConfig


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Upper limits, inf for none. Each is read from OPTIMIZER_LAB_MAX_<name in capitals>."""

    epochs: float = math.inf  # of one run
    batch_size: float = math.inf  # of one run, as all runs share the memory
    seconds: float = math.inf  # of one training or sweep; Resume continues it
    cells: float = math.inf  # runs of one sweep
    runs: float = math.inf  # stored for one visitor; a sweep counts as one
    at_once: float = 40  # networks of the trainings and searches that share the machine: each needs memory
    queue: float = 500  # of them that wait
    upload_mb: float = 64  # of one uploaded file
    pictures: float = 50_000  # of a visitor's own set
    classes: float = 100  # of a visitor's own set
    days: float = math.inf  # that a run is stored after its last change
    disk_gb: float = math.inf  # of all runs together, of all uploads and, on a Space, of all downloads from the Hub

    def check(self, configs: Sequence[TrainConfig]) -> None:
        """Raises UserError if a run has more epochs or larger batches than allowed."""
        if any(config.epochs > self.epochs for config in configs):
            raise UserError(
                "On this Space, a run can have up to {count} epochs; choose fewer.", count=f"{self.epochs:g}"
            )
        # A batch_size of 0 stands for all pictures, and so does a num_images of 0.
        if any((config.batch_size or config.num_images or math.inf) > self.batch_size for config in configs):
            raise UserError(
                "On this Space, a batch can have up to {count} pictures; choose a smaller batch_size.",
                count=f"{self.batch_size:g}",
            )


_ON_A_SPACE = Limits(
    epochs=100,
    batch_size=2048,
    seconds=1200,
    cells=60,
    runs=30,
    queue=100,
    upload_mb=10,
    pictures=5000,
    classes=30,
    days=30,
    disk_gb=20,
)


def find_limits(environ: Mapping[str, str] = os.environ) -> Limits:
    """Reads the limits from the environment. Those not set have the defaults of `Limits` or, on a Space, stricter ones.

    Raises UserError for a value that is not a number above 0.
    """
    defaults = _ON_A_SPACE if environ.get("SPACE_ID") else Limits()
    return Limits(**{part.name: _read(part.name, environ, getattr(defaults, part.name)) for part in fields(Limits)})


def _read(name: str, environ: Mapping[str, str], default: float) -> float:
    variable = f"OPTIMIZER_LAB_MAX_{name.upper()}"
    text = environ.get(variable) or str(default)
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not value > 0:
        raise UserError(
            "{variable} must be a number above 0, or inf for no limit, not {text}.",
            variable=variable,
            text=f"{text[:40]!r}",
        )
    return value
