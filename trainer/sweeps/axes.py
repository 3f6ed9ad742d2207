"""The axes of a sweep: which settings vary over which values, and the cells that their product makes."""

import itertools
import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from trainer.errors import UserError
from trainer.settings.config import SETTINGS, TrainConfig, check_name, parse
from trainer.settings.fields import text_of

MOST_CELLS, MOST_VALUES = 10_000, 1000
HOLDOUT = 0.1
"""The default holdout of a sweep, by which its settings are chosen."""

_DIGITS = 6  # of the values of a range
_LONGEST_NAME = 80


@dataclass(frozen=True, slots=True)
class Axis:
    """A setting and the values that it takes, at least two different ones."""

    name: str
    values: tuple[Any, ...]

    @property
    def is_numeric(self) -> bool:
        """Whether the values are numbers that can be compared, unlike those of a seed."""
        return self.name != "seed" and all(type(value) in (int, float) for value in self.values)


@dataclass(frozen=True, slots=True)
class Cell:
    """One run of a sweep: the values of the axes by name, and its config."""

    number: int  # counted from 0 over the whole product, with what is refused
    values: Mapping[str, Any] = field(hash=False)
    config: TrainConfig

    @property
    def without_seed(self) -> dict[str, Any]:
        """The values of the axes but for the seed: the same for all runs of a group."""
        return {name: value for name, value in self.values.items() if name != "seed"}

    @property
    def name(self) -> str:
        """The name of the run's folder."""
        words = "-".join(f"{name}-{text_of(value)}" for name, value in self.values.items())
        return f"{self.number:04d}-{re.sub(r'[^A-Za-z0-9.-]+', '-', words)}"[:_LONGEST_NAME].rstrip(".-")


@dataclass(frozen=True, slots=True)
class Grid:
    """The cells of a sweep, and the combinations that the settings refuse, each with the reason."""

    cells: tuple[Cell, ...]
    refused: tuple[tuple[Mapping[str, Any], str], ...]


def parse_axis(text: str) -> Axis:
    """Returns the axis that a text such as "lr=1e-4..1:9" or "optimizer=sgd,adamw" stands for.

    `lo..hi:n` is n values evenly spaced in the logarithm, `a,b,c` a list. The values of a setting that is a list itself
    are separated by semicolons: "betas=0.9,0.999;0.8,0.99". Raises UserError if the text is not an axis.
    """
    name, is_axis, values = text.partition("=")
    name = name.strip().replace("-", "_")
    if not is_axis:
        raise UserError("An axis is written as name=values, such as lr=1e-4..1:9 or optimizer=sgd,adamw.")
    check_name(name)
    declared = SETTINGS[name]
    if (found := re.fullmatch(r"\s*(.+?)\s*\.\.\s*(.+?)\s*(?::\s*(.*?)\s*)?", values)) and declared.kind in (
        int,
        float,
    ):
        return axis(name, _spaced(name, *found.groups()))
    parts = values.split("," if declared.count == 1 else ";")
    if len(parts) > MOST_VALUES:
        raise UserError("{name} can take up to {most} values.", name=name, most=f"{MOST_VALUES:,}")
    return axis(name, [parse(name, part.strip()) for part in parts])


def axis(name: str, values: Sequence[Any]) -> Axis:
    """Returns an axis. Raises UserError if a value is not valid, or if there are not two different ones."""
    check_name(name)
    checked = tuple(SETTINGS[name].check(name, value) for value in values)
    for number, value in enumerate(checked):
        if value in checked[:number]:
            raise UserError("{name} takes the value {value} twice.", name=name, value=text_of(value))
    if len(checked) < 2:
        raise UserError("{name} needs at least two values to vary over.", name=name)
    return Axis(name, checked)


def axis_text(axis: Axis) -> str:
    """Returns the text that `parse_axis` reads as the axis, as a range if its values make one."""
    if axis.is_numeric and len(axis.values) > 2:
        text = f"{axis.name}={axis.values[0]}..{axis.values[-1]}:{len(axis.values)}"
        with suppress(UserError):
            if parse_axis(text) == axis:
                return text
    separator = "," if SETTINGS[axis.name].count == 1 else ";"
    return f"{axis.name}={separator.join(map(text_of, axis.values))}"


def command_line(vary: Iterable[str], settings: Mapping[str, Any]) -> str:
    """Returns the command of a sweep with these axes, as `--vary` takes them, and shared settings; without --data."""
    words = ["python", "-m", "trainer", "sweep"]
    for axis in vary:
        words += ["--vary", axis]
    for name, value in settings.items():
        words += [f"--{name.replace('_', '-')}", text_of(value)]
    return shlex.join(words)


def grid(settings: Mapping[str, Any], axes: Sequence[Axis], *, most: float = MOST_CELLS) -> Grid:
    """Returns the product of the axes over `settings`, those that all runs share.

    The holdout is HOLDOUT unless it is among the settings. Raises UserError if there is no axis, if an axis occurs
    twice, if there are more than `most` cells, or if the settings refuse all of them.
    """
    if not axes:
        raise UserError("Vary at least one setting, such as lr=1e-4..1:9.")
    names = [each.name for each in axes]
    for number, name in enumerate(names):
        if name in names[:number]:
            raise UserError("{name} varies twice; give all its values at once.", name=name)
        if name in settings:
            raise UserError("{name} has a value of its own, and varies too; leave out one of the two.", name=name)
    count = 1
    for each in axes:
        count *= len(each.values)
    if count > (most := min(most, MOST_CELLS)):
        raise UserError(
            "These axes make {count} runs; a sweep has up to {most}.", count=f"{count:,}", most=f"{most:,.0f}"
        )
    cells, refused = [], []
    for number, combination in enumerate(itertools.product(*(each.values for each in axes))):
        values = dict(zip(names, combination, strict=True))
        try:
            config = TrainConfig.from_settings({"holdout": HOLDOUT, **settings, **values})
        except UserError as error:
            refused.append((values, str(error)))
        else:
            cells.append(Cell(number, values, config))
    if not cells:
        raise UserError(refused[0][1])
    return Grid(tuple(cells), tuple(refused))


def _spaced(name: str, low: str, high: str, count: str | None) -> list[Any]:
    """Returns the values of a range, evenly spaced in the logarithm and rounded to six digits."""
    declared = SETTINGS[name]
    if declared.count != 1:
        raise UserError("{name} takes several numbers at once: list its values, separated by semicolons.", name=name)
    first, last = (float(parse(name, text)) for text in (low, high))
    if count is None or not count.isdecimal() or not 2 <= int(count[:6]) <= MOST_VALUES or len(count) > 6:
        raise UserError(
            "A range ends in the number of its values, from 2 to {most}, such as {name}={low}..{high}:9.",
            most=f"{MOST_VALUES:,}",
            name=name,
            low=low,
            high=high,
        )
    if not 0 < first < last:
        raise UserError(
            "A range goes from a number above 0 to a larger one, not from {low} to {high}.", low=low, high=high
        )
    steps = int(count) - 1
    values = [first * (last / first) ** (number / steps) for number in range(steps + 1)]
    if declared.kind is int:
        return list(dict.fromkeys(round(value) for value in values))
    return [float(f"{value:.{_DIGITS}g}") for value in values]
