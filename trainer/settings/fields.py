"""Setting, the declaration of one setting: its type, range and help, and the checks of values and texts.

Standard library only.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from trainer.errors import Message, UserError

_NUMBERS = {
    (int, 1): "a whole number",
    (int, 2): "two whole numbers",
    (int, 0): "a list of whole numbers",
    (float, 1): "a number",
    (float, 2): "two numbers",
    (float, 0): "a list of numbers",
}
_MOST_NUMBERS = 100
_LARGEST = 3.4028234663852886e38  # that float32 can hold
_LONGEST_QUOTE = 40


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """One optimizer or scheduler: a sentence about it, and the defaults of the settings that it has.

    `paper` and `link` are an optimizer's source. One that is schedule-free tests an average of its weights instead of
    lowering lr; one that is sharpness-aware computes the gradients of each batch twice. `unit` is a scheduler's default
    of `scheduler_unit`.
    """

    name: str
    about: str
    defaults: Mapping[str, Any]
    paper: str = ""
    link: str = ""
    is_schedule_free: bool = False
    is_sharpness_aware: bool = False
    unit: str = "epoch"

    @property
    def scheduler(self) -> str:
        """The scheduler that an optimizer is used with by default."""
        return "constant" if self.is_schedule_free else "onecycle"


@dataclass(frozen=True, kw_only=True, slots=True)
class Setting:
    """The declaration of a setting.

    A value is a bool, one of `choices`, or `count` numbers from `low` to `high`; a `count` of 0 allows 1 to 100 of
    them. `open_low` and `open_high` exclude the ends of the range. A `default` of None means that the chosen optimizer
    or scheduler has the default.
    """

    kind: type[bool] | type[str] | type[int] | type[float]
    default: Any
    help: str
    choices: tuple[str, ...] = ()
    count: int = 1
    low: float = -math.inf
    high: float = math.inf
    open_low: bool = False
    open_high: bool = False

    def range(self) -> Message:
        """Returns in words what a value must be, such as "a number above 0"."""
        if self.kind is bool:
            return Message("true or false")
        if self.kind is str:
            return Message("one of {names}", names=", ".join(self.choices))
        if self.high == math.inf:
            template = "{what} above {low}" if self.open_low else "{what}, {low} or more"
        elif self.open_low:
            template = "{what} between {low} and {high}" if self.open_high else "{what} above {low}, up to {high}"
        else:
            template = "{what} from {low} to just below {high}" if self.open_high else "{what} from {low} to {high}"
        what = Message(_NUMBERS[self.kind, self.count])
        return Message(template, what=what, low=f"{self.low:g}", high=f"{self.high:,}")

    def check(self, name: str, value: Any) -> Any:
        """Returns `value` in the setting's own type.

        Raises UserError with `name` if its type or range is wrong, or if float32 cannot hold a number.
        """
        try:
            checked = self._converted(value)
        except (ValueError, OverflowError):
            raise self._refusal(name, _quote(value)) from None
        if self.kind is float and max(map(abs, checked if isinstance(checked, tuple) else (checked,))) > _LARGEST:
            raise UserError(
                "{name} is too large: 32-bit numbers end at {largest}.", name=name, largest=f"{_LARGEST:.1e}"
            )
        return checked

    def parse(self, name: str, text: str) -> Any:
        """Returns the value that `text` stands for, of the setting's type; checks neither range nor choices.

        Raises UserError with `name` if the text does not have that type.
        """
        if self.kind is str:
            return text
        if self.kind is bool:
            switches = {"true": True, "false": False}
            if text.lower() not in switches:
                raise UserError("{name} is either true or false, not {value}.", name=name, value=_quote(text))
            return switches[text.lower()]
        parts = text.replace(",", " ").split() if self.count != 1 else [text]
        try:
            numbers = tuple(map(self.kind, parts))
        except ValueError:
            raise self._refusal(name, _quote(text)) from None
        return numbers[0] if self.count == 1 else numbers

    def _refusal(self, name: str, value: str) -> UserError:
        return UserError("{name} must be {range}, not {value}.", name=name, range=self.range(), value=value)

    def _converted(self, value: Any) -> Any:
        """Returns what `check` returns. Raises ValueError or OverflowError for an invalid value."""
        if self.kind is bool or self.kind is str:
            if not isinstance(value, self.kind) or (self.choices and value not in self.choices):
                raise ValueError
            return value
        if self.count == 1:
            return self._number(value)
        if not isinstance(value, (list, tuple)) or not 1 <= len(value) <= _MOST_NUMBERS:
            raise ValueError
        if self.count and len(value) != self.count:
            raise ValueError
        return tuple(map(self._number, value))

    def _number(self, value: Any) -> float:
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise ValueError
        number = self.kind(value)  # raises for int(nan), int(inf) and float(10**400)
        if number != value or not self.low <= number <= self.high or not math.isfinite(number):
            raise ValueError
        if (self.open_low and number == self.low) or (self.open_high and number == self.high):
            raise ValueError
        return number


def choice(default: str | None, choices: Iterable[str], help: str) -> Any:
    """Declares a field of TrainConfig whose value is one of `choices`."""
    return _field(Setting(kind=str, default=default, help=help, choices=tuple(choices)))


def switch(default: bool | None, help: str) -> Any:
    """Declares a field of TrainConfig that is true or false."""
    return _field(Setting(kind=bool, default=default, help=help))


def number(
    default: float | None,
    low: float,
    high: float,
    help: str,
    *,
    open_low: bool = False,
    open_high: bool = False,
    count: int = 1,
    kind: type[int] | type[float] = float,
) -> Any:
    """Declares a field of TrainConfig that takes one or more numbers in a range; see Setting for the arguments."""
    return _field(
        Setting(
            kind=kind,
            default=default,
            help=help,
            count=count,
            low=low,
            high=high,
            open_low=open_low,
            open_high=open_high,
        )
    )


def whole(default: int | None, low: int, high: int, help: str, *, count: int = 1) -> Any:
    """Declares a field of TrainConfig that takes one or more whole numbers from `low` to `high`."""
    return number(default, low, high, help, kind=int, count=count)


def fraction(help: str, *, count: int = 1) -> Any:
    """Declares a field of TrainConfig that takes one or more numbers from 0 to just below 1; its default is None."""
    return number(None, 0, 1, help, open_high=True, count=count)


def text_of(value: Any) -> str:
    """Returns the text that `Setting.parse` reads as `value`."""
    if isinstance(value, bool):
        return str(value).lower()
    return ",".join(map(repr, value)) if isinstance(value, tuple) else str(value)


def label_of(value: Any) -> str:
    """Returns a value for people to read: 1 for 1.0, and no digit less than it has."""
    if isinstance(value, tuple):
        return ", ".join(map(label_of, value))
    return f"{value:g}" if isinstance(value, float) and float(f"{value:g}") == value else text_of(value)


def _field(setting: Setting) -> Any:
    return field(default=setting.default, metadata={"setting": setting})


def _quote(value: Any) -> str:
    """Returns the value for an error message, shortened to _LONGEST_QUOTE characters."""
    try:
        text = repr(value) if isinstance(value, str) else str(value)
    except ValueError:  # Python refuses to write out an integer of more than 4,300 digits
        return "a number of that size"
    return text if len(text) <= _LONGEST_QUOTE else text[:_LONGEST_QUOTE] + "…"
