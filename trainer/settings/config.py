"""TrainConfig: all settings of a run, and the checks across several of them. Standard library only.

A setting is declared once, as a field of `TrainConfig` with its range and its help, which says what it does, what to
try and what NaN means; the command line, the page and the API read these declarations.
"""

import difflib
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from trainer.errors import UserError
from trainer.settings.fields import Row, Setting, choice, fraction, number, switch, text_of, whole
from trainer.settings.optimizers import OPTIMIZERS
from trainer.settings.schedulers import SCHEDULERS

MODELS = {
    "quick": "the tutorial's network: three 5×5 convolutions and two linear layers, 145,578 parameters",
    "fast": "seven 3×3 convolutions, each with batch normalisation, and a linear layer: more accurate, slower",
}
ACTIVATIONS = ("none", "relu")
SPLITS = ("train", "test")
PRECISIONS = ("float32", "bfloat16", "float16")
UNITS = ("epoch", "batch")

_MANY = 10**9

# torch's own base_momentum and max_momentum, where the setting is unset.
_MOMENTUM_CYCLES = {"onecycle": (0.85, 0.95), "cyclic": (0.8, 0.9)}


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainConfig:
    """The settings of one run, checked and complete.

    A field left unset (None) takes the default of the chosen optimizer or scheduler; one that the chosen row does not
    have is refused. Raises ValueError with one sentence for anything a user got wrong.
    """

    model: str = choice(
        "quick",
        MODELS,
        "The network that learns: quick is the tutorial's, small enough for a CPU; fast is right more often and has "
        "seven times as much to compute.",
    )
    activation: str = choice(
        "relu",
        ACTIVATIONS,
        "Lets the network bend between its layers. Try relu; none, as in the tutorial, leaves it nearly linear.",
    )
    softmax: bool = switch(
        False,
        "A Softmax layer before the loss, which has one already: the tutorial's mistake. Leave it off, or watch the "
        "loss refuse to fall.",
    )

    optimizer: str = choice("sgd", OPTIMIZERS, "The rule that turns gradients into steps. Start with sgd or adamw.")
    lr: float | None = number(
        None,
        0,
        math.inf,
        "How far each step goes: too little crawls, too much throws the network off. Try ten times as much, and a "
        "tenth; where the loss becomes NaN, which is no number any more, lower lr.",
        open_low=True,
    )
    momentum: float | None = fraction(
        "How much of the last step is carried into the next, as a ball keeps rolling. Try 0.9; nearer to 1 it "
        "overshoots, and where the loss becomes NaN, lower lr too."
    )
    dampening: float | None = number(
        None, 0, 1, "How much of the new gradient momentum leaves out. Leave it at 0; more makes the steps shorter."
    )
    nesterov: bool | None = switch(
        None, "Momentum that looks ahead: the gradient counts once more after the step. Try it with momentum 0.9."
    )
    weight_decay: float | None = number(
        None,
        0,
        math.inf,
        "Pulls every weight towards 0 a little at each step, against learning by heart. Try 0.0005 with SGD, 0.01 "
        "with AdamW; far too much forgets everything, or ends in NaN.",
    )
    betas: tuple[float, float] | None = fraction(
        "How slowly the running mean of the gradient, and of its square, forget. Try 0.9, 0.999; where the loss "
        "jumps, 0.9, 0.99.",
        count=2,
    )
    eps: float | None = number(
        None,
        0,
        math.inf,
        "A small number that keeps a division from being one by 0. Leave it: more makes the steps shorter, 0 can end "
        "in NaN.",
    )
    amsgrad: bool | None = switch(
        None, "Never forget the largest squared gradient seen. Try it where the loss rises again late in the run."
    )
    decoupled_weight_decay: bool | None = switch(
        None, "Take weight decay out of the gradient, as AdamW does. Try it with a weight_decay of 0.01."
    )
    alpha: float | None = fraction(
        "How slowly the mean of the squared gradient forgets. Try 0.99, or 0.9 to adapt faster."
    )
    centered: bool | None = switch(
        None,
        "Divide by the gradient's spread rather than by its size. Try it: steps grow where gradients agree; where "
        "the loss becomes NaN, lower lr.",
    )
    lr_decay: float | None = number(
        None, 0, math.inf, "lr is divided by 1 + steps × this. Try 0, or 0.001: half of lr after a thousand steps."
    )
    initial_accumulator_value: float | None = number(
        None,
        0,
        math.inf,
        "The sum of squared gradients Adagrad starts from. Try 0.1 where it begins too wildly.",
    )
    rho: float | None = fraction("How slowly the running mean of squared gradients forgets. Try 0.9 or 0.95.")
    momentum_decay: float | None = number(
        None, 0, math.inf, "How fast NAdam's momentum warms up. Leave it at 0.004; at 0 it stays at half."
    )

    scheduler: str = choice(
        "onecycle",
        SCHEDULERS,
        "How lr changes while the network learns. Try onecycle or cosine; constant shows what they are good for.",
    )
    scheduler_unit: str | None = choice(
        None,
        UNITS,
        "When scheduler.step() is called. Leave it as the scheduler brings it: per batch instead of per epoch is the "
        "classic mistake, and lr is soon gone.",
    )
    num_warmup_steps: int = whole(
        0,
        0,
        _MANY,
        "Scheduler steps in which lr first climbs from a hundredth; 0: none. Try one epoch's worth where the loss "
        "becomes NaN at the start.",
    )
    step_size: int | None = whole(
        None, 1, _MANY, "Scheduler steps between two falls of lr. Try a third or half of the run."
    )
    gamma: float | None = number(
        None, 0, 1, "What lr is multiplied by at each fall. Try 0.1 for a few falls, 0.9 for many.", open_low=True
    )
    milestones: tuple[int, ...] | None = whole(
        None, 1, _MANY, "The scheduler steps at which lr falls. Try those where the loss stops falling.", count=0
    )
    T_max: int | None = whole(
        None, 1, _MANY, "Scheduler steps from the top to the bottom; unset: the whole run. With fewer, lr rises again."
    )
    eta_min: float | None = number(None, 0, math.inf, "The lr at the bottom. Try 0, or a hundredth of lr.")
    pct_start: float | None = number(
        None,
        0,
        1,
        "The part of the run in which lr rises. Try 0.2 or 0.3; more is gentler where the loss becomes NaN early.",
        open_low=True,
        open_high=True,
    )
    anneal_strategy: str | None = choice(
        None, ("cos", "linear"), "Along a cosine or a straight line. Try cos: it is gentle at both ends."
    )
    cycle_momentum: bool | None = switch(
        None, "Move momentum against lr: low where lr is high. Try it where a high lr makes the loss jump."
    )
    base_momentum: float | None = fraction("The lowest momentum of the cycle, where lr is highest. Try 0.85.")
    max_momentum: float | None = fraction("The highest momentum of the cycle, where lr is lowest. Try 0.95.")
    div_factor: float | None = number(
        None, 1, math.inf, "lr begins at its peak divided by this. Try 10 or 25: more begins more gently."
    )
    final_div_factor: float | None = number(
        None, 1, math.inf, "lr ends at where it began divided by this. Try 10000: the last steps only settle."
    )
    three_phase: bool | None = switch(
        None, "Up, down the same way, then further down. Try it for a longer end at a small lr."
    )
    base_lr: float | None = number(
        None,
        0,
        math.inf,
        "The lr at the bottom of the swing; unset: a quarter of lr. Try a tenth of lr for a wider swing.",
    )
    step_size_up: int | None = whole(
        None, 1, _MANY, "Scheduler steps from the bottom to the top; unset: two epochs. Try two to eight epochs' worth."
    )
    step_size_down: int | None = whole(
        None, 1, _MANY, "Scheduler steps down again; unset: as many as up. Try more, to come down slowly."
    )
    mode: str | None = choice(
        None,
        ("triangular", "triangular2", "exp_range"),
        "Swings of equal height, halved after each, or shrinking by gamma at every step. Try triangular2 to settle.",
    )
    start_factor: float | None = number(
        None, 1e-6, 1, "What lr is multiplied by at the start. Try 1 to fall from there, 0.1 to rise."
    )
    end_factor: float | None = number(
        None, 0, 1, "What lr is multiplied by at the end. Try 0 to settle, 1 to end with all of lr."
    )
    total_iters: int | None = whole(
        None, 1, _MANY, "Scheduler steps from start to end; unset: the whole run. With fewer, lr stays where it ends."
    )
    factor: float | None = number(
        None,
        0,
        1,
        "What lr is multiplied by when the loss stalls. Try 0.1, or 0.5 for gentler falls.",
        open_low=True,
        open_high=True,
    )
    patience: int | None = whole(
        None, 0, _MANY, "Epochs without progress before lr falls. Try 2; 0 gives up at the first."
    )
    threshold: float | None = number(
        None, 0, math.inf, "How much lower a loss must be to count as progress. Try 0.0001, or 0.01 to fall sooner."
    )
    threshold_mode: str | None = choice(
        None, ("rel", "abs"), "Threshold as a share of the loss, or as it is. Try rel: it fits any loss."
    )
    cooldown: int | None = whole(
        None, 0, _MANY, "Epochs to wait after a fall before counting again. Try 0, or 1 for fewer falls in a row."
    )
    min_lr: float | None = number(None, 0, math.inf, "lr never falls below this. Try 0, or a thousandth of lr.")

    epochs: int = whole(
        10, 1, 1000, "How often the network sees every picture. Try 10, and more while the test loss still falls."
    )
    batch_size: int = whole(
        64, 1, 50_000, "Pictures per step. Try 32 to 256: larger batches make fewer, calmer steps and bear a larger lr."
    )
    shuffle: bool = switch(
        True, "A new order of the pictures in every epoch. Leave it on; off, every epoch has the same batches."
    )
    drop_last: bool = switch(
        False,
        "Leave out the last batch where it is smaller than the others. Try it where a small one makes the loss jump.",
    )
    augment: bool = switch(
        True,
        "Mirror and shift the pictures at random, so that no epoch is like another. Try off, and see the network "
        "learn by heart.",
    )
    label_smoothing: float = number(
        0.0,
        0,
        1,
        "How far the target moves from certain to even. Try 0.1 against a network too sure of itself; the train loss "
        "is higher for it.",
        open_high=True,
    )
    zero_grad_every: int = whole(
        1,
        0,
        10_000,
        "1: clear gradients at each batch; k: one step per k batches; 0: never clear (a mistake). Try 4; 0 ends in "
        "NaN, for the steps grow and grow.",
    )
    normalize: bool = switch(
        True,
        "Subtract the pictures' mean and divide by their spread; off: pixels from 0 to 1. Leave it on: learning is "
        "faster.",
    )
    train_split: str = choice(
        "train",
        SPLITS,
        "The pictures to learn from; the tutorial learned from the test split. Use train: what was learned cannot "
        "test the learner.",
    )
    num_images: int = whole(
        0, 0, _MANY, "Only the first so many pictures of the split; 0: all. Try 1000, and see them learned by heart."
    )
    seed: int = whole(
        0,
        0,
        2**31 - 1,
        "Chooses the first weights and the order; the same seed repeats the run. Try another to see how much is luck.",
    )
    precision: str = choice(
        "float32",
        PRECISIONS,
        "How finely numbers are kept. Try bfloat16: where a processor or GPU computes in it, an epoch takes much less "
        "time; float16 needs a GPU.",
    )

    def __post_init__(self):
        for name, setting in SETTINGS.items():
            value = getattr(self, name)
            if value is not None or setting.default is not None:
                object.__setattr__(self, name, setting.check(name, value))
        _fill(self, "optimizer", OPTIMIZERS)
        _fill(self, "scheduler", SCHEDULERS)
        if self.scheduler_unit is None:
            object.__setattr__(self, "scheduler_unit", SCHEDULERS[self.scheduler].unit)
        _check_together(self)

    @classmethod
    def from_settings(cls, settings: Mapping[str, Any]) -> "TrainConfig":
        """The config of a dict such as the API takes: {field: value}. Unknown fields raise ValueError."""
        if not isinstance(settings, Mapping):
            raise UserError('The settings must be an object of names and values, such as {"optimizer": "adam"}.')
        for name in settings:
            if name not in SETTINGS:
                close = difflib.get_close_matches(str(name), SETTINGS, n=1)
                unknown = f"{str(name)[:40]!r}"
                if close:
                    raise UserError("There is no setting {name}. Did you mean {close}?", name=unknown, close=close[0])
                raise UserError("There is no setting {name}.", name=unknown)
        return cls(**settings)

    def settings(self) -> dict[str, Any]:
        """Every setting that has a value, as plain data: `from_settings` makes the same config of it."""
        return {name: value for name, value in asdict(self).items() if value is not None}

    def as_text(self) -> dict[str, str]:
        """What a link or a command line must say to mean this config: what is no default, as `parse` reads it."""
        usual = TrainConfig(optimizer=self.optimizer, scheduler=self.scheduler).settings()
        told = {name: value for name, value in self.settings().items() if value != usual.get(name)}
        first = TrainConfig()
        for part in ("optimizer", "scheduler"):
            if getattr(self, part) != getattr(first, part):
                told[part] = getattr(self, part)
        return {name: text_of(told[name]) for name in SETTINGS if name in told}

    def changed(self, changes: Mapping[str, Any]) -> "TrainConfig":
        """This config with some settings changed; a new optimizer or scheduler brings its own defaults along."""
        kept = self.settings()
        for part, rows in (("optimizer", OPTIMIZERS), ("scheduler", SCHEDULERS)):
            if changes.get(part, kept[part]) != kept[part]:
                for name in rows[kept[part]].defaults:
                    kept.pop(name, None)
                if part == "scheduler":
                    kept.pop("scheduler_unit")
        return TrainConfig.from_settings({**kept, **changes})

    def unscheduled(self) -> "TrainConfig":
        """This config with its lr the same from the first step to the last."""
        return self.changed({"scheduler": "constant", "scheduler_unit": "epoch", "num_warmup_steps": 0})

    @property
    def row_settings(self) -> dict[str, dict[str, Any]]:
        """The settings of the chosen optimizer and scheduler alone: {"optimizer": {…}, "scheduler": {…}}."""
        chosen = {"optimizer": OPTIMIZERS[self.optimizer], "scheduler": SCHEDULERS[self.scheduler]}
        return {part: {name: getattr(self, name) for name in row.defaults} for part, row in chosen.items()}


SETTINGS: dict[str, Setting] = {declared.name: declared.metadata["setting"] for declared in fields(TrainConfig)}
ROW_SETTINGS = {name for rows in (OPTIMIZERS, SCHEDULERS) for row in rows.values() for name in row.defaults}


def parse(name: str, text: str) -> Any:
    """Returns the value that `text`, from a command line or a page, gives the setting `name`.

    Raises UserError if it is none. TrainConfig checks its range.
    """
    return SETTINGS[name].parse(name, text)


def _fill(config: TrainConfig, part: str, rows: Mapping[str, Row]) -> None:
    row = rows[getattr(config, part)]
    for name in {name for other in rows.values() for name in other.defaults}:
        if name in row.defaults:
            if getattr(config, name) is None:
                object.__setattr__(config, name, row.defaults[name])
        elif getattr(config, name) is not None:
            own = ", ".join(row.defaults) or "none of its own"
            raise UserError(
                "{name} is not a setting of the {part} {row}; its settings are: {own}.",
                name=name,
                part=part,
                row=row.name,
                own=own,
            )


def _check_together(config: TrainConfig) -> None:
    """What no single field can see: settings that contradict each other or would do nothing."""
    if config.nesterov and (not config.momentum or config.dampening):
        raise UserError("nesterov needs a momentum above 0 and a dampening of 0.")
    if config.dampening and not config.momentum:
        raise UserError("dampening does nothing without momentum; set momentum above 0 or dampening to 0.")
    if config.precision == "float16" and not config.zero_grad_every:
        raise UserError("precision float16 scales the gradients anew at each step: zero_grad_every 0 needs another.")
    if config.decoupled_weight_decay and not config.weight_decay:
        raise UserError("decoupled_weight_decay does nothing while weight_decay is 0.")
    if config.milestones is not None and list(config.milestones) != sorted(set(config.milestones)):
        raise UserError("milestones must rise from each to the next, such as 6, 9.")
    if not config.cycle_momentum and (config.base_momentum is not None or config.max_momentum is not None):
        raise UserError("base_momentum and max_momentum do nothing unless cycle_momentum is true.")
    if config.cycle_momentum and config.momentum is None and config.betas is None:
        raise UserError(
            "cycle_momentum needs an optimizer with momentum or betas; {optimizer} has neither.",
            optimizer=config.optimizer,
        )
    if config.cycle_momentum:
        base, top = _MOMENTUM_CYCLES[config.scheduler]
        base = base if config.base_momentum is None else config.base_momentum
        top = top if config.max_momentum is None else config.max_momentum
        if base > top:
            raise UserError(
                "base_momentum must not be above max_momentum; here they are {base} and {top}.",
                base=f"{base:g}",
                top=f"{top:g}",
            )
    if config.scheduler == "cyclic" and config.mode != "exp_range" and config.gamma != 1:
        raise UserError("gamma does nothing in this mode of the cyclic scheduler; mode exp_range uses it.")
    for name in ("base_lr", "eta_min", "min_lr"):
        if (getattr(config, name) or 0) > config.lr:
            raise UserError("{name} must not be above lr, which is {lr}.", name=name, lr=f"{config.lr:g}")
    if config.scheduler == "plateau" and config.num_warmup_steps:
        raise UserError("The scheduler plateau follows the loss and takes no warm-up; set num_warmup_steps to 0.")
    if config.scheduler == "plateau" and config.scheduler_unit == "batch":
        raise UserError("The scheduler plateau follows the test loss, which is known once an epoch: unit epoch only.")
