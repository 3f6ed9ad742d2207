"""The part of a script that defines the optimizer and its learning-rate schedule."""

import inspect
import sys
from collections.abc import Iterable, Mapping
from typing import Any

from trainer.learning import optimizers, schedulers
from trainer.runs.exports.script.formatting import call, keywords, literal
from trainer.runs.exports.script.network import learning_parameters
from trainer.settings.config import TrainConfig


def define_optimizer(config: TrainConfig) -> list[str]:
    """Returns the lines of this project's own optimizer, for a script to be whole; none if it is from a package."""
    module = sys.modules[optimizers.optimizer_class(config.optimizer).__module__]
    if not module.__name__.startswith(optimizers.__name__):
        return []
    source = inspect.getsource(module)
    # mypy's comments are not for a beginner.
    lines = [line.partition("  # type: ignore")[0] for line in source[source.index("\nclass ") + 1 :].splitlines()]
    return [*lines, "", ""]


def make_optimizer(config: TrainConfig) -> list[str]:
    """Returns lines that define the optimizer and, for float16, the gradient scaler."""
    kind = optimizers.optimizer_class(config.optimizer)
    # A warm-up ends at the optimizer's lr, and cyclic starts from its lowest one.
    lr = _lowest_lr(config) if config.scheduler == "cyclic" else config.lr
    settings = {"lr": literal(lr), **_not_default(kind, optimizers.arguments(config), without=("lr",))}
    scaler = ['scaler = torch.amp.GradScaler("cuda")'] if config.precision == "float16" else []
    name = f"torch.optim.{kind.__name__}" if kind.__module__.startswith("torch.") else kind.__name__
    return [*call(f"optimizer = {name}", [learning_parameters(config), *keywords(settings)]), *scaler]


def make_scheduler(config: TrainConfig) -> list[str]:
    """Returns lines that define the schedule with its warm-up; none if the lr is constant."""
    if not has_schedule(config):
        return []
    kind, settings = schedulers.CLASSES[config.scheduler].__name__, _main_schedule(config)
    steps = config.num_warmup_steps
    if not steps:
        return _make("scheduler", kind, settings)
    climb = {"start_factor": literal(schedulers.WARMUP_START), "total_iters": literal(steps)}
    if config.scheduler == "constant":
        return _make("scheduler", "LinearLR", climb)
    return [
        *_make("warmup", "LinearLR", climb),
        *_make("main", kind, settings),
        *_make("scheduler", "SequentialLR", {"schedulers": "[warmup, main]", "milestones": f"[{steps}]"}),
    ]


def has_schedule(config: TrainConfig) -> bool:
    """Returns whether the lr changes during the run."""
    return config.scheduler != "constant" or config.num_warmup_steps > 0


def title(config: TrainConfig) -> str:
    """Returns the classes of the optimizer and the schedule: "SGD with OneCycleLR"."""
    optimizer = optimizers.optimizer_class(config.optimizer).__name__
    return f"{optimizer} with {schedulers.CLASSES[config.scheduler].__name__}" if has_schedule(config) else optimizer


def _make(name: str, kind: str, settings: Mapping[str, str]) -> list[str]:
    return call(f"{name} = torch.optim.lr_scheduler.{kind}", ["optimizer", *keywords(settings)])


def _main_schedule(config: TrainConfig) -> dict[str, str]:
    """Returns the schedule's settings without the warm-up, as source."""
    settings, computed = config.row_settings["scheduler"], {}
    match config.scheduler:
        case "onecycle":
            computed = {"max_lr": literal(config.lr), "total_steps": _num_steps(config)}
        case "cosine" if config.T_max is None:
            computed = {"T_max": _num_steps(config)}
        case "linear" if config.total_iters is None:
            computed = {"total_iters": _num_steps(config)}
        case "cyclic":
            computed = {"base_lr": literal(_lowest_lr(config)), "max_lr": literal(config.lr)}
            if config.step_size_up is None:
                computed["step_size_up"] = _two_epochs(config)
            if config.mode == "triangular2":
                # torch's own scale function overflows after a thousand cycles.
                computed |= {"mode": literal("triangular2"), "scale_fn": "lambda cycle: 0.5 ** (cycle - 1)"}
    return {**computed, **_not_default(schedulers.CLASSES[config.scheduler], settings, without=computed)}


def _lowest_lr(config: TrainConfig) -> float:
    assert config.lr is not None  # every optimizer has one
    return config.lr / 4 if config.base_lr is None else config.base_lr


def _num_steps(config: TrainConfig) -> str:
    """Returns the number of calls of scheduler.step() after the warm-up."""
    if config.scheduler_unit == "epoch":
        return str(config.epochs - config.num_warmup_steps)
    batches = "len(loader)" if config.epochs == 1 else f"{config.epochs} * len(loader)"
    steps = f"{batches} // {config.zero_grad_every}" if config.zero_grad_every > 1 else batches
    return f"{steps} - {config.num_warmup_steps}" if config.num_warmup_steps else steps


def _two_epochs(config: TrainConfig) -> str:
    if config.scheduler_unit == "epoch":
        return "2"
    every = config.zero_grad_every
    return f"max(1, round(2 * len(loader) / {every}))" if every > 1 else "2 * len(loader)"


def _not_default(kind: type, settings: Mapping[str, Any], without: Iterable[str]) -> dict[str, str]:
    """Returns, as source, the settings that differ from torch's defaults for this class."""
    # A subclass such as SAM passes on the arguments of its base.
    defaults = {
        name: parameter.default for base in reversed(kind.__mro__) for name, parameter in _parameters(base).items()
    }
    return {
        name: literal(value)
        for name, value in settings.items()
        if name not in without and value is not None and value != defaults[name]
    }


def _parameters(kind: type) -> Mapping[str, inspect.Parameter]:
    return inspect.signature(vars(kind)["__init__"]).parameters if "__init__" in vars(kind) else {}
