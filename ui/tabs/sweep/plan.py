"""The plan of a sweep on the page: what varies, as axes and settings of a sweep and as text for a link."""

from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl, urlencode

from trainer.errors import UserError
from trainer.images.image_data import ImageData
from trainer.learning.race import MAX_SEEDS
from trainer.settings.config import SETTINGS, parse
from trainer.sweeps.axes import Axis, axis, parse_axis
from ui.picture_sets import BATCH_OF_FEW, FEW

MOST_VALUES, MOST_EPOCHS = 15, 20
_LONGEST_LINK = 2000


@dataclass(frozen=True, kw_only=True)
class Range:
    """A setting that varies: `count` values from `low` to `high`, evenly spaced in the logarithm."""

    name: str
    low: float
    high: float
    count: int

    @property
    def text(self) -> str:
        """The values as text for `parse_axis`."""
        return f"{self.low:.6g}..{self.high:.6g}:{self.count}"


# The settings to choose from, each with a range to start from.
RANGES = {
    one.name: one
    for one in (
        Range(name="lr", low=1e-4, high=1.0, count=9),
        Range(name="weight_decay", low=1e-5, high=0.1, count=5),
        Range(name="batch_size", low=16, high=512, count=6),
        Range(name="momentum", low=0.5, high=0.99, count=5),
        Range(name="label_smoothing", low=0.01, high=0.3, count=4),
    )
}


@dataclass(frozen=True, kw_only=True)
class Plan:
    """One or two settings that vary, the optimizers to compare, the number of seeds, and how long each run is."""

    across: Range = RANGES["lr"]
    down: Range | None = None
    optimizers: tuple[str, ...] = ("sgd", "adamw", "muon")
    num_seeds: int = 2
    epochs: int = 2
    num_images: int = 10_000

    def axes(self) -> list[Axis]:
        """Returns the axes of the sweep. Raises UserError if one is not valid."""
        if not self.optimizers:
            raise UserError("Choose at least one optimizer.")
        for name in self.optimizers:
            SETTINGS["optimizer"].check("optimizer", name)
        if self.down and self.down.name == self.across.name:
            raise UserError("Choose two different settings to vary.")
        if not 1 <= self.num_seeds <= MAX_SEEDS:
            raise UserError("A sweep can have from 1 to {most} seeds.", most=MAX_SEEDS)
        return [
            *([axis("optimizer", self.optimizers)] if len(self.optimizers) > 1 else []),
            *(parse_axis(f"{one.name}={one.text}") for one in self.ranges),
            *([axis("seed", range(self.num_seeds))] if self.num_seeds > 1 else []),
        ]

    def settings(self, images: ImageData) -> dict[str, Any]:
        """Returns the settings that all runs on these images share.

        Of fewer images than the plan has, all are used; few take small batches.
        """
        count = len(images.train.labels)
        shared: dict[str, Any] = {
            "epochs": self.epochs,
            "num_images": self.num_images if self.num_images < count else 0,
        }
        if len(self.optimizers) == 1:
            shared["optimizer"] = self.optimizers[0]
        if count < FEW and "batch_size" not in (one.name for one in self.ranges):
            shared["batch_size"] = BATCH_OF_FEW
        return shared

    @property
    def ranges(self) -> list[Range]:
        """The settings that vary."""
        return [self.across, *([self.down] if self.down else [])]


def write(plan: Plan) -> str:
    """Returns the plan as text for a link; "" for the plan that the page begins with."""
    if plan == Plan():
        return ""
    values = {one.name: one.text for one in plan.ranges}
    values["optimizer"] = ",".join(plan.optimizers)
    whole = {"seeds": plan.num_seeds, "epochs": plan.epochs, "num_images": plan.num_images}
    return urlencode({**values, **whole}, safe=",:")


def read(text: str) -> Plan:
    """Returns the plan of a text that `write` returned. Raises UserError for any other text."""
    try:
        if len(text) > _LONGEST_LINK:
            raise UserError("This link does not work: it is too long.")
        plan = _plan(dict(parse_qsl(text, keep_blank_values=True)))
        plan.axes()
        return plan
    except UserError as error:
        raise UserError(
            "This link does not work here, so the page has its default settings: {why}", why=error
        ) from None


def _plan(values: dict[str, str]) -> Plan:
    settings: dict[str, Any] = {}
    if "seeds" in values:
        settings["num_seeds"] = parse("seed", values.pop("seeds"))
    for name in ("epochs", "num_images"):
        if name in values:
            settings[name] = parse(name, values.pop(name))
    if settings.get("epochs", 1) > MOST_EPOCHS:
        raise UserError(
            "This link does not work here: on this page {name} is at most {maximum}.",
            name="epochs",
            maximum=MOST_EPOCHS,
        )
    if "optimizer" in values:
        settings["optimizers"] = tuple(values.pop("optimizer").split(","))
    ranges = [_range(name, text) for name, text in values.items()]
    if not 1 <= len(ranges) <= 2:
        raise UserError("Choose one or two settings to vary.")
    return Plan(across=ranges[0], down=ranges[1] if len(ranges) > 1 else None, **settings)


def _range(name: str, text: str) -> Range:
    if name not in RANGES:
        raise UserError("Choose one of these: {names}.", names=", ".join(RANGES))
    parse_axis(f"{name}={text}")
    low, is_range, rest = text.partition("..")
    if not is_range:
        raise UserError(
            "This page varies {name} over a range, such as {name}={range}.", name=name, range=RANGES[name].text
        )
    high, _, count = rest.partition(":")
    if not count.strip().isdecimal() or int(count) > MOST_VALUES:
        raise UserError("{name} can take up to {most} values.", name=name, most=MOST_VALUES)
    return Range(name=name, low=parse(name, low), high=parse(name, high), count=int(count))
