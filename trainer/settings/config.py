"""TrainConfig: everything a run is told, and the rows it is checked against. Standard library only.

A setting is declared once, as a field of `TrainConfig` with its range and its help, which says what it does, what to
try and what NaN means; the command line, the page and the API read these declarations. An optimizer or a scheduler is
a row: its name and its own settings with their defaults.
"""

import difflib
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from trainer.errors import Message, UserError

MODELS = {
    "quick": "the tutorial's network: three 5×5 convolutions and two linear layers, 145,578 parameters",
    "fast": "seven 3×3 convolutions, each with batch normalisation, and a linear layer: more accurate, slower",
}
ACTIVATIONS = ("none", "relu")
SPLITS = ("train", "test")
PRECISIONS = ("float32", "bfloat16", "float16")
UNITS = ("epoch", "batch")


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """One optimizer or scheduler: a sentence on it, and the default of each setting that is its own."""

    name: str
    about: str
    defaults: Mapping[str, Any]
    unit: str = "epoch"


# torch's names and defaults, except where a default would not train: `lr` suits the default run, Adam's
# relatives get less than SGD. Left out on purpose: `maximize` (it climbs the loss), the switches that change speed
# and not results (`foreach`, `fused`, `capturable`, `differentiable`), LBFGS (wants a closure), SparseAdam (sparse
# gradients), Muon (matrices only), ASGD (what counts is its average, which nothing here would evaluate) and Rprop (it
# reads lr at its first step alone: no schedule would reach it).
OPTIMIZERS = {
    row.name: row
    for row in (
        Row(
            name="sgd",
            about="Steps straight down the gradient; momentum remembers the way it was going.",
            defaults={"lr": 0.02, "momentum": 0.9, "dampening": 0.0, "weight_decay": 5e-4, "nesterov": False},
        ),
        Row(
            name="adam",
            about="Gives every weight a step size of its own, from the mean and the square of its gradients.",
            defaults={
                "lr": 0.003,
                "betas": (0.9, 0.999),
                "eps": 1e-8,
                "weight_decay": 0.0,
                "amsgrad": False,
                "decoupled_weight_decay": False,
            },
        ),
        Row(
            name="adamw",
            about="Adam with the weight decay taken out of the gradient, where it works as meant.",
            defaults={
                "lr": 0.003,
                "betas": (0.9, 0.999),
                "eps": 1e-8,
                "weight_decay": 0.01,
                "amsgrad": False,
            },
        ),
        Row(
            name="rmsprop",
            about="Divides each step by a running root mean square of the gradient.",
            defaults={
                "lr": 0.001,
                "alpha": 0.99,
                "eps": 1e-8,
                "weight_decay": 0.0,
                "momentum": 0.0,
                "centered": False,
            },
        ),
        Row(
            name="adagrad",
            about="Divides each step by the root of all squared gradients so far: steps only ever shrink.",
            defaults={
                "lr": 0.02,
                "lr_decay": 0.0,
                "weight_decay": 0.0,
                "initial_accumulator_value": 0.0,
                "eps": 1e-10,
            },
        ),
        Row(
            name="adadelta",
            about="Adagrad with a fading memory; it was made to need no learning rate at all.",
            defaults={"lr": 1.0, "rho": 0.9, "eps": 1e-6, "weight_decay": 0.0},
        ),
        Row(
            name="nadam",
            about="Adam with Nesterov's look ahead.",
            defaults={
                "lr": 0.002,
                "betas": (0.9, 0.999),
                "eps": 1e-8,
                "weight_decay": 0.0,
                "momentum_decay": 0.004,
                "decoupled_weight_decay": False,
            },
        ),
        Row(
            name="radam",
            about="Adam that waits with its own step sizes until it has seen enough gradients to trust them.",
            defaults={
                "lr": 0.003,
                "betas": (0.9, 0.999),
                "eps": 1e-8,
                "weight_decay": 0.0,
                "decoupled_weight_decay": False,
            },
        ),
        Row(
            name="adamax",
            about="Adam with the largest recent gradient in place of the mean square.",
            defaults={"lr": 0.003, "betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 0.0},
        ),
    )
}

# A default of None is worked out from the run when it starts: its length, or a part of `lr`, as the field's help says.
SCHEDULERS = {
    row.name: row
    for row in (
        Row(name="constant", about="The same lr from the first step to the last.", defaults={}),
        Row(
            name="step",
            about="Multiplies lr by gamma every step_size steps.",
            defaults={"step_size": 5, "gamma": 0.1},
        ),
        Row(
            name="multistep",
            about="Multiplies lr by gamma at each milestone.",
            defaults={"milestones": (6, 9), "gamma": 0.1},
        ),
        Row(name="exponential", about="Multiplies lr by gamma at every step.", defaults={"gamma": 0.8}),
        Row(
            name="cosine",
            about="Lowers lr along half a cosine wave, slowly at both ends.",
            defaults={"T_max": None, "eta_min": 0.0},
        ),
        Row(
            name="onecycle",
            about="Raises lr to its peak, then lowers it far below where it began, once over the whole run.",
            defaults={
                "pct_start": 0.2,
                "anneal_strategy": "cos",
                "cycle_momentum": False,
                "base_momentum": None,
                "max_momentum": None,
                "div_factor": 10.0,
                "final_div_factor": 1e4,
                "three_phase": False,
            },
            unit="batch",
        ),
        Row(
            name="cyclic",
            about="Swings lr between base_lr and lr, over and over.",
            defaults={
                "base_lr": None,
                "step_size_up": None,
                "step_size_down": None,
                "mode": "triangular",
                "gamma": 1.0,
                "cycle_momentum": False,
                "base_momentum": None,
                "max_momentum": None,
            },
            unit="batch",
        ),
        Row(
            name="linear",
            about="Moves lr in a straight line from lr × start_factor to lr × end_factor.",
            defaults={"start_factor": 1.0, "end_factor": 0.0, "total_iters": None},
        ),
        Row(
            name="plateau",
            about="Lowers lr when the test loss has stopped falling for `patience` epochs.",
            defaults={
                "factor": 0.1,
                "patience": 2,
                "threshold": 1e-4,
                "threshold_mode": "rel",
                "cooldown": 0,
                "min_lr": 0.0,
            },
        ),
    )
}


def _choice(default: str | None, choices, about: str):
    return field(default=default, metadata={"kind": str, "choices": tuple(choices), "about": about})


def _switch(default: bool | None, about: str):
    return field(default=default, metadata={"kind": bool, "about": about})


def _number(default, low, high, about: str, *, open_low=False, open_high=False, kind=float, count=1):
    """A number within [low, high], or `count` of them (0: any count); `open_…` leaves that end of the range out."""
    return field(
        default=default,
        metadata={
            "kind": kind,
            "count": count,
            "low": low,
            "high": high,
            "open_low": open_low,
            "open_high": open_high,
            "about": about,
        },
    )


def _whole(default, low, high, about: str, count=1):
    return _number(default, low, high, about, kind=int, count=count)


def _fraction(about: str, count=1):
    return _number(None, 0, 1, about, open_high=True, count=count)


_MANY = 10**9

# torch's own base_momentum and max_momentum, where the setting is unset.
_MOMENTUM_CYCLES = {"onecycle": (0.85, 0.95), "cyclic": (0.8, 0.9)}


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainConfig:
    """The settings of one run, checked and complete.

    A field left unset (None) takes the default of the chosen optimizer or scheduler; one that the chosen row does not
    have is refused. Raises ValueError with one sentence for anything a user got wrong.
    """

    model: str = _choice(
        "quick",
        MODELS,
        "The network that learns: quick is the tutorial's, small enough for a CPU; fast is right more often and has "
        "seven times as much to compute.",
    )
    activation: str = _choice(
        "relu",
        ACTIVATIONS,
        "Lets the network bend between its layers. Try relu; none, as in the tutorial, leaves it nearly linear.",
    )
    softmax: bool = _switch(
        False,
        "A Softmax layer before the loss, which has one already: the tutorial's mistake. Leave it off, or watch the "
        "loss refuse to fall.",
    )

    optimizer: str = _choice("sgd", OPTIMIZERS, "The rule that turns gradients into steps. Start with sgd or adamw.")
    lr: float | None = _number(
        None,
        0,
        math.inf,
        "How far each step goes: too little crawls, too much throws the network off. Try ten times as much, and a "
        "tenth; where the loss becomes NaN, which is no number any more, lower lr.",
        open_low=True,
    )
    momentum: float | None = _fraction(
        "How much of the last step is carried into the next, as a ball keeps rolling. Try 0.9; nearer to 1 it "
        "overshoots, and where the loss becomes NaN, lower lr too."
    )
    dampening: float | None = _number(
        None, 0, 1, "How much of the new gradient momentum leaves out. Leave it at 0; more makes the steps shorter."
    )
    nesterov: bool | None = _switch(
        None, "Momentum that looks ahead: the gradient counts once more after the step. Try it with momentum 0.9."
    )
    weight_decay: float | None = _number(
        None,
        0,
        math.inf,
        "Pulls every weight towards 0 a little at each step, against learning by heart. Try 0.0005 with SGD, 0.01 "
        "with AdamW; far too much forgets everything, or ends in NaN.",
    )
    betas: tuple[float, float] | None = _fraction(
        "How slowly the running mean of the gradient, and of its square, forget. Try 0.9, 0.999; where the loss "
        "jumps, 0.9, 0.99.",
        count=2,
    )
    eps: float | None = _number(
        None,
        0,
        math.inf,
        "A small number that keeps a division from being one by 0. Leave it: more makes the steps shorter, 0 can end "
        "in NaN.",
    )
    amsgrad: bool | None = _switch(
        None, "Never forget the largest squared gradient seen. Try it where the loss rises again late in the run."
    )
    decoupled_weight_decay: bool | None = _switch(
        None, "Take weight decay out of the gradient, as AdamW does. Try it with a weight_decay of 0.01."
    )
    alpha: float | None = _fraction(
        "How slowly the mean of the squared gradient forgets. Try 0.99, or 0.9 to adapt faster."
    )
    centered: bool | None = _switch(
        None,
        "Divide by the gradient's spread rather than by its size. Try it: steps grow where gradients agree; where "
        "the loss becomes NaN, lower lr.",
    )
    lr_decay: float | None = _number(
        None, 0, math.inf, "lr is divided by 1 + steps × this. Try 0, or 0.001: half of lr after a thousand steps."
    )
    initial_accumulator_value: float | None = _number(
        None,
        0,
        math.inf,
        "The sum of squared gradients Adagrad starts from. Try 0.1 where it begins too wildly.",
    )
    rho: float | None = _fraction("How slowly the running mean of squared gradients forgets. Try 0.9 or 0.95.")
    momentum_decay: float | None = _number(
        None, 0, math.inf, "How fast NAdam's momentum warms up. Leave it at 0.004; at 0 it stays at half."
    )

    scheduler: str = _choice(
        "onecycle",
        SCHEDULERS,
        "How lr changes while the network learns. Try onecycle or cosine; constant shows what they are good for.",
    )
    scheduler_unit: str | None = _choice(
        None,
        UNITS,
        "When scheduler.step() is called. Leave it as the scheduler brings it: per batch instead of per epoch is the "
        "classic mistake, and lr is soon gone.",
    )
    num_warmup_steps: int = _whole(
        0,
        0,
        _MANY,
        "Scheduler steps in which lr first climbs from a hundredth; 0: none. Try one epoch's worth where the loss "
        "becomes NaN at the start.",
    )
    step_size: int | None = _whole(
        None, 1, _MANY, "Scheduler steps between two falls of lr. Try a third or half of the run."
    )
    gamma: float | None = _number(
        None, 0, 1, "What lr is multiplied by at each fall. Try 0.1 for a few falls, 0.9 for many.", open_low=True
    )
    milestones: tuple[int, ...] | None = _whole(
        None, 1, _MANY, "The scheduler steps at which lr falls. Try those where the loss stops falling.", count=0
    )
    T_max: int | None = _whole(
        None, 1, _MANY, "Scheduler steps from the top to the bottom; unset: the whole run. With fewer, lr rises again."
    )
    eta_min: float | None = _number(None, 0, math.inf, "The lr at the bottom. Try 0, or a hundredth of lr.")
    pct_start: float | None = _number(
        None,
        0,
        1,
        "The part of the run in which lr rises. Try 0.2 or 0.3; more is gentler where the loss becomes NaN early.",
        open_low=True,
        open_high=True,
    )
    anneal_strategy: str | None = _choice(
        None, ("cos", "linear"), "Along a cosine or a straight line. Try cos: it is gentle at both ends."
    )
    cycle_momentum: bool | None = _switch(
        None, "Move momentum against lr: low where lr is high. Try it where a high lr makes the loss jump."
    )
    base_momentum: float | None = _fraction("The lowest momentum of the cycle, where lr is highest. Try 0.85.")
    max_momentum: float | None = _fraction("The highest momentum of the cycle, where lr is lowest. Try 0.95.")
    div_factor: float | None = _number(
        None, 1, math.inf, "lr begins at its peak divided by this. Try 10 or 25: more begins more gently."
    )
    final_div_factor: float | None = _number(
        None, 1, math.inf, "lr ends at where it began divided by this. Try 10000: the last steps only settle."
    )
    three_phase: bool | None = _switch(
        None, "Up, down the same way, then further down. Try it for a longer end at a small lr."
    )
    base_lr: float | None = _number(
        None,
        0,
        math.inf,
        "The lr at the bottom of the swing; unset: a quarter of lr. Try a tenth of lr for a wider swing.",
    )
    step_size_up: int | None = _whole(
        None, 1, _MANY, "Scheduler steps from the bottom to the top; unset: two epochs. Try two to eight epochs' worth."
    )
    step_size_down: int | None = _whole(
        None, 1, _MANY, "Scheduler steps down again; unset: as many as up. Try more, to come down slowly."
    )
    mode: str | None = _choice(
        None,
        ("triangular", "triangular2", "exp_range"),
        "Swings of equal height, halved after each, or shrinking by gamma at every step. Try triangular2 to settle.",
    )
    start_factor: float | None = _number(
        None, 1e-6, 1, "What lr is multiplied by at the start. Try 1 to fall from there, 0.1 to rise."
    )
    end_factor: float | None = _number(
        None, 0, 1, "What lr is multiplied by at the end. Try 0 to settle, 1 to end with all of lr."
    )
    total_iters: int | None = _whole(
        None, 1, _MANY, "Scheduler steps from start to end; unset: the whole run. With fewer, lr stays where it ends."
    )
    factor: float | None = _number(
        None,
        0,
        1,
        "What lr is multiplied by when the loss stalls. Try 0.1, or 0.5 for gentler falls.",
        open_low=True,
        open_high=True,
    )
    patience: int | None = _whole(
        None, 0, _MANY, "Epochs without progress before lr falls. Try 2; 0 gives up at the first."
    )
    threshold: float | None = _number(
        None, 0, math.inf, "How much lower a loss must be to count as progress. Try 0.0001, or 0.01 to fall sooner."
    )
    threshold_mode: str | None = _choice(
        None, ("rel", "abs"), "Threshold as a share of the loss, or as it is. Try rel: it fits any loss."
    )
    cooldown: int | None = _whole(
        None, 0, _MANY, "Epochs to wait after a fall before counting again. Try 0, or 1 for fewer falls in a row."
    )
    min_lr: float | None = _number(None, 0, math.inf, "lr never falls below this. Try 0, or a thousandth of lr.")

    epochs: int = _whole(
        10, 1, 1000, "How often the network sees every picture. Try 10, and more while the test loss still falls."
    )
    batch_size: int = _whole(
        64, 1, 50_000, "Pictures per step. Try 32 to 256: larger batches make fewer, calmer steps and bear a larger lr."
    )
    shuffle: bool = _switch(
        True, "A new order of the pictures in every epoch. Leave it on; off, every epoch has the same batches."
    )
    drop_last: bool = _switch(
        False,
        "Leave out the last batch where it is smaller than the others. Try it where a small one makes the loss jump.",
    )
    augment: bool = _switch(
        True,
        "Mirror and shift the pictures at random, so that no epoch is like another. Try off, and see the network "
        "learn by heart.",
    )
    label_smoothing: float = _number(
        0.0,
        0,
        1,
        "How far the target moves from certain to even. Try 0.1 against a network too sure of itself; the train loss "
        "is higher for it.",
        open_high=True,
    )
    zero_grad_every: int = _whole(
        1,
        0,
        10_000,
        "1: clear gradients at each batch; k: one step per k batches; 0: never clear (a mistake). Try 4; 0 ends in "
        "NaN, for the steps grow and grow.",
    )
    normalize: bool = _switch(
        True,
        "Subtract the pictures' mean and divide by their spread; off: pixels from 0 to 1. Leave it on: learning is "
        "faster.",
    )
    train_split: str = _choice(
        "train",
        SPLITS,
        "The pictures to learn from; the tutorial learned from the test split. Use train: what was learned cannot "
        "test the learner.",
    )
    num_images: int = _whole(
        0, 0, _MANY, "Only the first so many pictures of the split; 0: all. Try 1000, and see them learned by heart."
    )
    seed: int = _whole(
        0,
        0,
        2**31 - 1,
        "Chooses the first weights and the order; the same seed repeats the run. Try another to see how much is luck.",
    )
    precision: str = _choice(
        "float32",
        PRECISIONS,
        "How finely numbers are kept. Try bfloat16: where a processor or GPU computes in it, an epoch takes much less "
        "time; float16 needs a GPU.",
    )

    def __post_init__(self):
        for name, declared in SETTINGS.items():
            value = getattr(self, name)
            if value is not None or declared.default is not None:
                object.__setattr__(self, name, _checked(name, declared.metadata, value))
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
        return {name: _text(told[name]) for name in SETTINGS if name in told}

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


SETTINGS = {declared.name: declared for declared in fields(TrainConfig)}
ROW_SETTINGS = {name for rows in (OPTIMIZERS, SCHEDULERS) for row in rows.values() for name in row.defaults}


def parse(name: str, text: str) -> Any:
    """The value that `text` (of a command line or a page) gives setting `name`; ValueError if it is none."""
    kind, count = SETTINGS[name].metadata["kind"], SETTINGS[name].metadata.get("count", 1)
    if kind is str:
        return text
    if kind is bool:
        switches = {"true": True, "false": False}
        if text.lower() not in switches:
            raise UserError("{name} is either true or false, not {value}.", name=name, value=f"{text[:40]!r}")
        return switches[text.lower()]
    parts = text.replace(",", " ").split() if count != 1 else [text]
    try:
        numbers = [kind(part) for part in parts]
    except ValueError:
        raise UserError(
            "{name} must be {range}, not {value}.",
            name=name,
            range=_range(SETTINGS[name].metadata),
            value=f"{text[:40]!r}",
        ) from None
    return numbers[0] if count == 1 else tuple(numbers)


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return ",".join(map(repr, value)) if isinstance(value, tuple) else str(value)


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


def _checked(name: str, declared: Mapping[str, Any], value: Any) -> Any:
    """The value in its own type, or ValueError with the sentence that says what it must be."""
    kind = declared["kind"]
    refusal = UserError("{name} must be {range}, not {value}.", name=name, range=_range(declared), value=_shown(value))
    if kind is bool:
        if not isinstance(value, bool):
            raise refusal
        return value
    if kind is str:
        if not isinstance(value, str) or value not in declared["choices"]:
            raise refusal
        return value
    if declared["count"] == 1:
        return _checked_number(declared, value, refusal)
    if not isinstance(value, (list, tuple)) or not 1 <= len(value) <= 100:
        raise refusal
    if declared["count"] and len(value) != declared["count"]:
        raise refusal
    return tuple(_checked_number(declared, part, refusal) for part in value)


def _checked_number(declared: Mapping[str, Any], value: Any, refusal: ValueError) -> float | int:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise refusal
    try:
        number = declared["kind"](value)
    except (ValueError, OverflowError):  # int(nan), int(inf), float(10**400)
        raise refusal from None
    low, high = declared["low"], declared["high"]
    if number != value or not low <= number <= high or not math.isfinite(number):
        raise refusal
    if (declared["open_low"] and number == low) or (declared["open_high"] and number == high):
        raise refusal
    return number


def _range(declared: Mapping[str, Any]) -> Message:
    if declared["kind"] is bool:
        return Message("true or false")
    if declared["kind"] is str:
        return Message("one of {names}", names=", ".join(declared["choices"]))
    what = Message(_NUMBERS[declared["kind"], declared["count"]])
    low, high = f"{declared['low']:g}", f"{declared['high']:,}"
    if declared["high"] == math.inf:
        template = "{what} above {low}" if declared["open_low"] else "{what}, {low} or more"
    elif declared["open_low"]:
        template = "{what} between {low} and {high}" if declared["open_high"] else "{what} above {low}, up to {high}"
    else:
        template = "{what} from {low} to just below {high}" if declared["open_high"] else "{what} from {low} to {high}"
    return Message(template, what=what, low=low, high=high)


_NUMBERS = {
    (int, 1): "a whole number",
    (int, 2): "two whole numbers",
    (int, 0): "a list of whole numbers",
    (float, 1): "a number",
    (float, 2): "two numbers",
    (float, 0): "a list of numbers",
}


def _shown(value: Any) -> str:
    if isinstance(value, int) and value.bit_length() > 1000:  # Python itself refuses to write out the longest
        return "a number of that size"
    text = repr(value) if isinstance(value, str) else str(value)
    return text if len(text) <= 40 else text[:40] + "…"
