"""TrainConfig: all settings of a run, and the checks across several of them. Standard library only.

Each setting is declared once, as a field of `TrainConfig` with its range and its help. The help says what the setting
does, what to try and what to do about NaN. The command line, the page and the API read these declarations.
"""

import difflib
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from trainer.errors import Message, UserError
from trainer.settings.fields import Row, Setting, choice, fraction, number, switch, text_of, whole
from trainer.settings.optimizers import OPTIMIZERS
from trainer.settings.schedulers import SCHEDULERS

MODELS = ("quick", "fast")
ACTIVATIONS = ("none", "relu")
PRETRAINED = ("none", "finetuned", "frozen")
SPLITS = ("train", "test")
PRECISIONS = ("float32", "bfloat16", "float16")
UNITS = ("epoch", "batch")

_MANY = 10**9  # the upper limit of counts that have no natural one

# torch's defaults of base_momentum and max_momentum for each scheduler that cycles momentum.
_MOMENTUM_CYCLES = {"onecycle": (0.85, 0.95), "cyclic": (0.8, 0.9)}


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainConfig:
    """The settings of one run, checked and complete.

    A field left unset (None) takes the default of the chosen optimizer or scheduler. Raises UserError for a value out
    of range, a field that the chosen optimizer or scheduler does not have, and fields that contradict each other.
    """

    model: str = choice(
        "quick",
        MODELS,
        "The network to train. quick is the tutorial's and small enough for a CPU; fast is more accurate and "
        "needs seven times the computation.",
    )
    activation: str = choice(
        "relu",
        ACTIVATIONS,
        "Makes the network non-linear between its layers. Try relu; none, as in the tutorial, leaves it nearly linear.",
    )
    softmax: bool = switch(
        False,
        "Adds a Softmax layer before the loss, which already contains one: the tutorial's mistake. Leave it "
        "off, or turn it on to see the loss hardly fall.",
    )
    pretrained: str = choice(
        "none",
        PRETRAINED,
        "Start from the convolutions of the bundled network, which CIFAR-10 has taught. Try it with few pictures: "
        "finetuned trains them further, frozen only the layers after them, which is faster.",
    )

    optimizer: str = choice(
        "sgd", OPTIMIZERS, "The rule that turns gradients into steps. Compare muon with sgd and adamw."
    )
    lr: float | None = number(
        None,
        0,
        math.inf,
        "Learning rate: the size of each step. Too small is slow, too large makes the training diverge. Try "
        "ten times as much, and a tenth; if the loss becomes NaN (not a number), lower lr.",
        open_low=True,
    )
    momentum: float | None = fraction(
        "How much of the last step is carried into the next, like a rolling ball. Try 0.9. Closer to 1 it "
        "overshoots; if the loss becomes NaN, lower lr too."
    )
    dampening: float | None = number(
        None,
        0,
        1,
        "Share of each new gradient that momentum ignores. Leave it at 0; a larger share makes the steps shorter.",
    )
    nesterov: bool | None = switch(
        None, "Nesterov momentum, which looks ahead along the momentum. Try it with momentum 0.9."
    )
    weight_decay: float | None = number(
        None,
        0,
        math.inf,
        "Pulls every weight a little towards 0 at each step, to discourage memorising. Try 0.0005 with SGD, "
        "0.01 with AdamW; far too much makes the network forget everything, or ends in NaN.",
    )
    betas: tuple[float, float] | None = fraction(
        "How slowly the running means of the gradient and of its square forget. Try 0.9, 0.999; if the loss "
        "jumps, 0.9, 0.99.",
        count=2,
    )
    eps: float | None = number(
        None,
        0,
        math.inf,
        "A small number that prevents a division by 0. Leave it: a larger one makes the steps shorter, 0 can "
        "end in NaN.",
    )
    amsgrad: bool | None = switch(
        None, "Never forget the largest squared gradient so far. Try it if the loss rises again late in the run."
    )
    decoupled_weight_decay: bool | None = switch(
        None, "Apply weight decay separately from the gradient, as AdamW does. Try it with a weight_decay of 0.01."
    )
    alpha: float | None = fraction(
        "How slowly the mean of the squared gradient forgets. Try 0.99, or 0.9 to adapt faster."
    )
    centered: bool | None = switch(
        None,
        "Divide by the gradient's standard deviation instead of its root mean square. Try it: steps grow when "
        "gradients agree; if the loss becomes NaN, lower lr.",
    )
    lr_decay: float | None = number(
        None,
        0,
        math.inf,
        "lr is divided by 1 + steps × lr_decay. Try 0, or 0.001, which halves lr after a thousand steps.",
    )
    initial_accumulator_value: float | None = number(
        None,
        0,
        math.inf,
        "The sum of squared gradients that Adagrad starts with. Try 0.1 if the first steps are too large.",
    )
    rho: float | None = fraction(
        "adadelta: how slowly the running mean of squared gradients forgets; try 0.9 or 0.95. sam: how far away the "
        "worst point is looked for; try 0.05, or 0.1 for flatter minima."
    )
    momentum_decay: float | None = number(
        None, 0, math.inf, "How fast NAdam's momentum warms up. Leave it at 0.004; at 0 it stays at half."
    )

    beta2_decay: float | None = number(
        None,
        -10,
        0,
        "How fast Adafactor's memory of squared gradients grows with the steps. Leave it at -0.8; closer to 0 it "
        "forgets faster.",
    )
    d: float | None = number(
        None, 1, math.inf, "Adafactor's largest step, relative to a typical one. Try 1; larger allows bigger steps."
    )
    beta3: float | None = fraction("How slowly Adan's mean of squared gradients forgets. Try 0.99.")
    mars_gamma: float | None = number(
        None,
        0,
        math.inf,
        "How much of the gradient's change since the last batch MARS adds. Try 0.025; at 0 it is AdamW with clipped "
        "gradients.",
    )
    adamw_lr: float | None = number(
        None,
        0,
        math.inf,
        "Muon's learning rate for biases and the last layer, which AdamW trains. A schedule changes it as it changes "
        "lr. Try 0.003.",
        open_low=True,
    )
    ns_steps: int | None = whole(
        None, 1, 20, "Newton–Schulz iterations, which make Muon's steps equal in all directions. Try 5; 1 is cruder."
    )
    adjust_lr_fn: str | None = choice(
        None,
        ("original", "match_rms_adamw"),
        "How Muon's steps depend on the shape of a layer. Try original; match_rms_adamw suits an lr chosen for AdamW.",
    )
    d_coef: float | None = number(
        None,
        0,
        math.inf,
        "Scales the lr that Prodigy finds. Try 1; 0.5 or 2 if the training is unstable or slow.",
        open_low=True,
    )

    scheduler: str = choice(
        None,
        SCHEDULERS,
        "How lr changes during the run. Try onecycle or cosine, and compare with constant.",
    )
    scheduler_unit: str | None = choice(
        None,
        UNITS,
        "When scheduler.step() is called. Keep the scheduler's default; stepping every batch instead of every "
        "epoch is the classic mistake: lr soon shrinks to nothing.",
    )
    num_warmup_steps: int = whole(
        0,
        0,
        _MANY,
        "Scheduler steps in which lr climbs from 1% to its full value; 0: off. Try one epoch's worth if the "
        "loss becomes NaN at the start.",
    )
    step_size: int | None = whole(
        None, 1, _MANY, "Scheduler steps between two drops of lr. Try a third or half of the run."
    )
    gamma: float | None = number(
        None,
        0,
        1,
        "The factor that lr is multiplied by at each drop. Try 0.1 for a few drops, 0.9 for many.",
        open_low=True,
    )
    milestones: tuple[int, ...] | None = whole(
        None, 1, _MANY, "The scheduler steps at which lr drops. Try those where the loss stops falling.", count=0
    )
    T_max: int | None = whole(
        None,
        1,
        _MANY,
        "Scheduler steps from the highest lr to the lowest; unset: the whole run. With fewer, lr rises again.",
    )
    eta_min: float | None = number(None, 0, math.inf, "The lowest lr. Try 0, or a hundredth of lr.")
    pct_start: float | None = number(
        None,
        0,
        1,
        "Fraction of the run in which lr rises. Try 0.2 or 0.3; more is gentler if the loss becomes NaN early.",
        open_low=True,
        open_high=True,
    )
    anneal_strategy: str | None = choice(
        None, ("cos", "linear"), "Whether lr follows a cosine or a straight line. Try cos: it is gentle at both ends."
    )
    cycle_momentum: bool | None = switch(
        None, "Move momentum opposite to lr: low when lr is high. Try it if a high lr makes the loss jump."
    )
    base_momentum: float | None = fraction("The lowest momentum of the cycle, when lr is highest. Try 0.85.")
    max_momentum: float | None = fraction("The highest momentum of the cycle, when lr is lowest. Try 0.95.")
    div_factor: float | None = number(
        None, 1, math.inf, "The first lr is the peak divided by this. Try 10 or 25: more begins more gently."
    )
    final_div_factor: float | None = number(
        None, 1, math.inf, "The last lr is the first one divided by this. Try 10000: the last steps only fine-tune."
    )
    three_phase: bool | None = switch(
        None, "Up, down the same way, then further down. Try it for a longer end at a small lr."
    )
    base_lr: float | None = number(
        None,
        0,
        math.inf,
        "The lowest lr of the cycle; unset: a quarter of lr. Try a tenth of lr for a wider swing.",
    )
    step_size_up: int | None = whole(
        None,
        1,
        _MANY,
        "Scheduler steps from the lowest lr to the highest; unset: two epochs. Try two to eight epochs' worth.",
    )
    step_size_down: int | None = whole(
        None, 1, _MANY, "Scheduler steps down again; unset: the same as up. Try more, to come down slowly."
    )
    mode: str | None = choice(
        None,
        ("triangular", "triangular2", "exp_range"),
        "Cycles of equal height, halved each time, or shrinking by gamma at every step. Try triangular2 to settle.",
    )
    start_factor: float | None = number(
        None, 1e-6, 1, "The factor that lr is multiplied by at the start. Try 1 to fall from there, 0.1 to rise."
    )
    end_factor: float | None = number(
        None, 0, 1, "The factor that lr is multiplied by at the end. Try 0 to settle, 1 to end at the full lr."
    )
    total_iters: int | None = whole(
        None, 1, _MANY, "Scheduler steps from start to end; unset: the whole run. With fewer, lr then stays the same."
    )
    factor: float | None = number(
        None,
        0,
        1,
        "The factor that lr is multiplied by when the loss stalls. Try 0.1, or 0.5 for gentler drops.",
        open_low=True,
        open_high=True,
    )
    patience: int | None = whole(
        None, 0, _MANY, "Epochs without progress before lr drops. Try 2; with 0 it drops after the first."
    )
    threshold: float | None = number(
        None, 0, math.inf, "How much lower a loss must be to count as progress. Try 0.0001, or 0.01 to lower lr sooner."
    )
    threshold_mode: str | None = choice(
        None, ("rel", "abs"), "Whether threshold is relative to the loss or absolute. Try rel: it suits any loss."
    )
    cooldown: int | None = whole(
        None, 0, _MANY, "Epochs to wait after a drop before counting again. Try 0, or 1 for fewer drops in a row."
    )
    min_lr: float | None = number(None, 0, math.inf, "lr never drops below this. Try 0, or a thousandth of lr.")

    epochs: int = whole(
        10,
        1,
        1000,
        "How many times the network sees every picture. Try 10, and more if the test loss is still falling.",
    )
    batch_size: int = whole(
        64,
        0,
        50_000,
        "Pictures per step. Try 32 to 256: larger batches make fewer and steadier steps, and tolerate a larger lr. 0: "
        "all pictures in one step, for which num_images should be small.",
    )
    shuffle: bool = switch(
        True, "A new order of the pictures in every epoch. Leave it on; without it every epoch has the same batches."
    )
    drop_last: bool = switch(
        False,
        "Leave out the last batch if it is smaller than the others. Try it if a small batch makes the loss jump.",
    )
    flip: bool = switch(
        True,
        "Mirror half of the pictures at random, so that every epoch is different. Turn it off for letters, digits, "
        "arrows, and whatever else a mirror makes wrong.",
    )
    shift: int = whole(
        2,
        0,
        8,
        "The largest random shift of a picture, in pixels, in each direction. Try 2; 0, with flip off, lets the "
        "network memorise the pictures.",
    )
    label_smoothing: float = number(
        0.0,
        0,
        1,
        "How far the target moves from certain to even. Try 0.1 if the network is too sure of itself; the "
        "train loss rises with it.",
        open_high=True,
    )
    zero_grad_every: int = whole(
        1,
        0,
        10_000,
        "1: clear gradients after each batch; k: one step per k batches; 0: never clear (a mistake). Try 4; 0 "
        "ends in NaN, because the steps keep growing.",
    )
    normalize: bool = switch(
        True,
        "Subtract the pictures' mean and divide by their standard deviation; off: pixels from 0 to 1. Leave "
        "it on: learning is faster.",
    )
    train_split: str = choice(
        "train",
        SPLITS,
        "The pictures to learn from; the tutorial learned from the test split. Use train: training pictures "
        "make no fair test.",
    )
    num_images: int = whole(
        0, 0, _MANY, "Use only the first N pictures of the split; 0: all. Try 1000, and see the network memorise them."
    )
    holdout: float = number(
        0.0,
        0,
        0.5,
        "Part of the training pictures to keep aside: never trained on, and evaluated after each epoch. Try 0.1 to "
        "choose settings without looking at the test pictures; 0: none.",
    )
    seed: int = whole(
        0,
        0,
        2**31 - 1,
        "Chooses the first weights and the order of the pictures; the same seed repeats the run. Try another "
        "to see how much is luck.",
    )
    precision: str = choice(
        "float32",
        PRECISIONS,
        "Number precision. Try bfloat16: an epoch takes much less time on a processor or GPU that supports "
        "it; float16 needs a GPU.",
    )

    def __post_init__(self) -> None:
        for name, setting in SETTINGS.items():
            value = getattr(self, name)
            if value is not None or setting.default is not None:
                object.__setattr__(self, name, setting.check(name, value))
        _fill(self, "optimizer", OPTIMIZERS)
        if self.scheduler is None:
            object.__setattr__(self, "scheduler", OPTIMIZERS[self.optimizer].scheduler)
        _fill(self, "scheduler", SCHEDULERS)
        if self.scheduler_unit is None:
            object.__setattr__(self, "scheduler_unit", SCHEDULERS[self.scheduler].unit)
        _check_together(self)

    @classmethod
    def from_settings(cls, settings: Mapping[str, Any]) -> "TrainConfig":
        """Returns the config of a dict {field: value}, such as the API receives.

        Raises UserError for an unknown field and for everything that TrainConfig refuses.
        """
        if not isinstance(settings, Mapping):
            raise UserError('The settings must be an object of names and values, such as {"optimizer": "adam"}.')
        settings = _renamed(settings)
        for name in settings:
            check_name(name)
        return cls(**settings)

    def settings(self) -> dict[str, Any]:
        """Returns the settings that have a value, as plain data from which `from_settings` makes the same config."""
        return {name: value for name, value in asdict(self).items() if value is not None}

    def as_text(self) -> dict[str, str]:
        """Returns the settings that differ from the defaults, as texts that `parse` reads, for a link or a command."""
        defaults = TrainConfig(optimizer=self.optimizer, scheduler=self.scheduler).settings()
        changed = {name: value for name, value in self.settings().items() if value != defaults.get(name)}
        default = TrainConfig()
        for part in ("optimizer", "scheduler"):
            if getattr(self, part) != getattr(default, part):
                changed[part] = getattr(self, part)
        return {name: text_of(changed[name]) for name in SETTINGS if name in changed}

    def changed(self, changes: Mapping[str, Any]) -> "TrainConfig":
        """Returns this config with some settings changed; a new optimizer or scheduler brings its own defaults.

        A new optimizer brings its own scheduler too, if that is another one than the old optimizer's.

        Raises UserError for an unknown setting and for everything that TrainConfig refuses.
        """
        settings, changes = self.settings(), _renamed(changes)
        optimizer = changes.get("optimizer", self.optimizer)
        if optimizer in OPTIMIZERS and OPTIMIZERS[optimizer].scheduler != OPTIMIZERS[self.optimizer].scheduler:
            changes = {"scheduler": OPTIMIZERS[optimizer].scheduler, **changes}
        for part, rows in (("optimizer", OPTIMIZERS), ("scheduler", SCHEDULERS)):
            if changes.get(part, settings[part]) != settings[part]:
                for name in rows[settings[part]].defaults:
                    settings.pop(name, None)
                if part == "scheduler":
                    settings.pop("scheduler_unit")
        return TrainConfig.from_settings({**settings, **changes})

    def unscheduled(self) -> "TrainConfig":
        """Returns this config with the constant scheduler and no warm-up."""
        return self.changed({"scheduler": "constant", "scheduler_unit": "epoch", "num_warmup_steps": 0})

    @property
    def row_settings(self) -> dict[str, dict[str, Any]]:
        """The settings of the chosen optimizer and scheduler: {"optimizer": {…}, "scheduler": {…}}."""
        chosen = {"optimizer": OPTIMIZERS[self.optimizer], "scheduler": SCHEDULERS[self.scheduler]}
        return {part: {name: getattr(self, name) for name in row.defaults} for part, row in chosen.items()}


SETTINGS: dict[str, Setting] = {field.name: field.metadata["setting"] for field in fields(TrainConfig)}
# The settings that only some optimizers or schedulers have.
ROW_SETTINGS = {name for rows in (OPTIMIZERS, SCHEDULERS) for row in rows.values() for name in row.defaults}

AUGMENT = "augment"
"""The former name of `flip` and `shift` together, in files and links of earlier versions."""


def _renamed(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the settings with `flip` and `shift` in place of AUGMENT, unless they are there as well."""
    new = dict(settings)
    if AUGMENT in new:
        value = SETTINGS["flip"].check(AUGMENT, new.pop(AUGMENT))
        new = {"flip": value, "shift": SETTINGS["shift"].default if value else 0, **new}
    return new


def check_name(name: Any) -> None:
    """Raises UserError if there is no setting of this name."""
    if name in SETTINGS:
        return
    close = difflib.get_close_matches(str(name)[:40], SETTINGS, n=1)
    unknown = f"{str(name)[:40]!r}"
    if close:
        raise UserError("There is no setting {name}. Did you mean {close}?", name=unknown, close=close[0])
    raise UserError("There is no setting {name}.", name=unknown)


def parse(name: str, text: str) -> Any:
    """Returns the value that `text`, from a command line or a page, stands for as the setting `name`.

    Raises UserError if the text does not have the setting's type. TrainConfig checks the range. `name` is in SETTINGS,
    or AUGMENT.
    """
    return SETTINGS["flip" if name == AUGMENT else name].parse(name, text)


def _fill(config: TrainConfig, part: str, rows: Mapping[str, Row]) -> None:
    """Sets unset fields to the chosen row's defaults. Raises UserError if a field is set that only other rows have."""
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
    """Raises UserError for settings that contradict each other or would do nothing."""
    if config.pretrained != "none" and (config.activation != "relu" or not config.normalize):
        raise UserError("pretrained needs the activation relu and normalize, with which the bundled networks learned.")
    if config.nesterov and (not config.momentum or config.dampening):
        raise UserError("nesterov needs a momentum above 0 and a dampening of 0.")
    if config.dampening and not config.momentum:
        raise UserError("dampening does nothing without momentum; set momentum above 0 or dampening to 0.")
    if config.precision == "float16" and not config.zero_grad_every:
        raise UserError(
            "precision float16 rescales the gradients at each step, which zero_grad_every 0 does not allow: "
            "choose another precision."
        )
    if OPTIMIZERS[config.optimizer].is_schedule_free:
        _check_schedule_free(config)
    if config.optimizer == "prodigy" and not config.eps:
        raise UserError("prodigy needs an eps above 0.")
    if OPTIMIZERS[config.optimizer].is_sharpness_aware:
        _check_sharpness_aware(config)
    if config.decoupled_weight_decay and not config.weight_decay:
        raise UserError("decoupled_weight_decay does nothing while weight_decay is 0.")
    if config.milestones is not None and list(config.milestones) != sorted(set(config.milestones)):
        raise UserError("milestones must increase, such as 6, 9.")
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
        raise UserError("gamma does nothing in this mode of the cyclic scheduler; only mode exp_range uses it.")
    assert config.lr is not None  # each optimizer has a default
    for name in ("base_lr", "eta_min", "min_lr"):
        if (getattr(config, name) or 0) > config.lr:
            raise UserError("{name} must not be above lr, which is {lr}.", name=name, lr=f"{config.lr:g}")
    if config.scheduler == "plateau" and config.num_warmup_steps:
        raise UserError("The scheduler plateau follows the loss and has no warm-up; set num_warmup_steps to 0.")
    if config.scheduler == "plateau" and config.scheduler_unit == "batch":
        raise UserError(
            "The scheduler plateau follows the test loss, which is measured once per epoch: scheduler_unit must "
            "be epoch."
        )


def _check_schedule_free(config: TrainConfig) -> None:
    if config.scheduler != "constant":
        raise UserError(
            "{optimizer} takes no schedule: it averages its weights instead of lowering lr, and the average counts on "
            "steps of equal size. Choose the scheduler constant; a warm-up is possible.",
            optimizer=config.optimizer,
        )
    if config.momentum == 0 or (config.betas and config.betas[0] == 0):
        name = "momentum" if config.betas is None else "first of the betas"
        raise UserError("{optimizer} needs a {name} above 0.", optimizer=config.optimizer, name=Message(name))


def _check_sharpness_aware(config: TrainConfig) -> None:
    if config.zero_grad_every != 1:
        raise UserError(
            "{optimizer} computes the gradients of each batch twice, and cannot add up those of several batches: set "
            "zero_grad_every to 1.",
            optimizer=config.optimizer,
        )
    if config.precision == "float16":
        raise UserError(
            "{optimizer} does not work with precision float16, which rescales the gradients at each step: choose "
            "another precision.",
            optimizer=config.optimizer,
        )
