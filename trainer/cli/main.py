"""python -m trainer …: training and classifying without a page, training also under torchrun.

Exit 2: the user's mistake; 130: interrupted. Of several processes only rank 0 prints and writes.
"""

import argparse
import difflib
import io
import json
import math
import os
import signal
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout
from dataclasses import asdict
from pathlib import Path
from typing import Any, NoReturn

import huggingface_hub
import torch
from tqdm import tqdm

from trainer.errors import UserError
from trainer.hub import publish, repositories, retry
from trainer.images import image_data
from trainer.images.batches import num_batches
from trainer.learning import distributed, lr_finder
from trainer.learning.checkpoint import Checkpoint, continued, resumed
from trainer.learning.device import DEVICES, allow_tf32, choose_device
from trainer.learning.distributed import ALONE, LostRankError, World
from trainer.learning.loop import num_training_images, train
from trainer.learning.schedulers import preview
from trainer.networks.model import OptimizerLabModel
from trainer.networks.predict import classify
from trainer.progress import Report, quiet
from trainer.runs import checkpoint
from trainer.runs.events import EpochEnded, Event, row
from trainer.runs.run import Run
from trainer.settings.config import ROW_SETTINGS, SETTINGS, TrainConfig, parse
from trainer.settings.lessons import LESSONS

# What a resumed run may change; its network, its images and their order are what make it the same run.
_CONTINUATION = {"optimizer", "scheduler", "scheduler_unit", "num_warmup_steps"} | ROW_SETTINGS

_ROWS_OF_TRIALS = 24


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one line, without the usage of sixty options above it."""

    def __init__(self, **kwargs):
        super().__init__(allow_abbrev=False, **kwargs)

    @property
    def flags(self) -> list[str]:
        """The options of this very command: those of another would be no help."""
        return list(self._option_string_actions)

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}\n")


def main(arguments: list[str] | None = None) -> int:
    """Runs one command line; returns the exit status."""
    world = ALONE
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a name that a terminal cannot show must not end anything
            stream.reconfigure(errors="backslashreplace")
    try:
        with distributed.join() as world, _one_voice(world):
            return _run(sys.argv[1:] if arguments is None else arguments, world)
    except KeyboardInterrupt:
        if world.claim():
            print("interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader of our output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except LostRankError as error:
        if world.claim():
            print(f"error: {error}", file=sys.stderr)
        return 1


@contextmanager
def _one_voice(world: World) -> Iterator[None]:
    """Keeps all ranks but the first silent; what none of us foresaw still ends in a traceback."""
    if world.rank == 0:
        yield
        return
    with Path(os.devnull).open("w") as nowhere, redirect_stdout(nowhere), redirect_stderr(nowhere):
        yield


def _run(arguments: list[str], world: World) -> int:
    try:
        if any(others != arguments for others in world.gather(arguments)):
            raise UserError("All processes must be started with the same command line.")
        options, unknown = _parser().parse_known_args(arguments)
        if unknown:
            name = unknown[0].partition("=")[0]
            close = difflib.get_close_matches(name, options.parser.flags, n=1)
            options.parser.error(f"there is no option {name}" + (f"; did you mean {close[0]}?" if close else ""))
        if options.command in (_train, _resume):
            return options.command(options, world)
        if world.size > 1:
            raise UserError("Only train and resume take several processes; start this command without torchrun.")
        return options.command(options)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="python -m trainer", description="Train on CIFAR-10, keep checkpoints, classify pictures.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND", parser_class=_Parser)

    def command(name: str, does: Callable, about: str) -> argparse.ArgumentParser:
        added = commands.add_parser(name, help=about, description=about)
        added.set_defaults(command=does, parser=added)
        return added

    starting = command("train", _train, "train a network and keep its checkpoints")
    starting.add_argument(
        "--lesson", choices=LESSONS, metavar="NAME", help="begin with a lesson's settings; see lessons"
    )
    _add_settings(starting, SETTINGS)
    _add_data(starting)
    starting.add_argument("--checkpoints", type=Path, metavar="DIR", help="where runs are kept (default: checkpoints)")
    starting.add_argument("--run", metavar="NAME", help="the run's name (default: from the settings and the time)")

    going_on = command("resume", _resume, "go on with a run, exactly where its last epoch ended")
    going_on.add_argument("run", type=Path, metavar="RUN", help="the run's folder")
    going_on.add_argument("--epochs", metavar="N", help="the new total (default: what was asked for at first)")
    _add_settings(going_on, sorted(_CONTINUATION))
    _add_data(going_on)

    looking = command("classify", _classify, "say what a trained network sees in pictures")
    looking.add_argument("checkpoint", metavar="CHECKPOINT", help="a folder, or repo_id[@revision] on the Hub")
    looking.add_argument("images", nargs="+", metavar="IMAGE")
    looking.add_argument("--top", type=int, default=5, metavar="N", help="how many classes to show (default: 5)")

    finding = command("find-lr", _find_lr, "try the learning rates, lowest first, and suggest one")
    _add_settings(finding, SETTINGS)
    _add_data(finding)

    publishing = command("publish", _publish, "publish a run on the Hub, as far as it is not there yet")
    publishing.add_argument("run", type=Path, metavar="RUN", help="the run's folder")
    publishing.add_argument("repo_id", metavar="REPO_ID", help="owner/name, a new repo or the one of this run")
    publishing.add_argument("--private", action="store_true", help="make the new repo one that only you can read")

    fetching = command("load", _load, "load a published checkpoint, to classify with or to resume")
    fetching.add_argument("checkpoint", metavar="REPO_ID[@REVISION]")
    fetching.add_argument(
        "folder", type=Path, nargs="?", metavar="DIR", help="default: checkpoints/ and the repo's name"
    )

    drawing = command("preview-lr", _preview_lr, "print the lr of each step a run would take")
    _add_settings(drawing, SETTINGS)
    drawing.add_argument("--data", metavar="SOURCE", help="count this data's pictures (default: CIFAR-10's numbers)")

    telling = command("lessons", _lessons, "list the lessons: experiments, some of them instructive mistakes")

    for added in (starting, going_on, looking, finding, drawing, telling):
        added.add_argument("--json", action="store_true", help="one JSON object a line")
    for added in (starting, going_on, looking, finding):
        added.add_argument("--device", choices=DEVICES, help="default: the fastest there is")
    return parser


def _add_settings(parser: argparse.ArgumentParser, names: Iterable[str]) -> None:
    for name in names:
        declared = SETTINGS[name]
        choices = "|".join(declared.choices) or {bool: "true|false"}.get(declared.kind, "N")
        count = {"nargs": "?", "const": "true"} if declared.kind is bool else {}
        if declared.count != 1:
            count = {"nargs": "+"}
        about = declared.help.replace("%", "%%")
        parser.add_argument(_flag(name), dest=f"setting_{name}", metavar=choices, help=about, **count)


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def _add_data(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--data",
        metavar="SOURCE",
        help="auto, hub, torchvision, synthetic, a repo_id, or a folder (default: $OPTIMIZER_LAB_DATA, or auto)",
    )


def _settings(options: argparse.Namespace) -> dict[str, Any]:
    given = {name.removeprefix("setting_"): text for name, text in vars(options).items() if text is not None}
    return {
        name: parse(name, " ".join(text) if isinstance(text, list) else text)
        for name, text in given.items()
        if f"setting_{name}" in vars(options)
    }


def _train(options: argparse.Namespace, world: World) -> int:
    lesson = LESSONS.get(options.lesson)
    config = lesson.config.changed(_settings(options)) if lesson else TrainConfig.from_settings(_settings(options))
    checkpoints = options.checkpoints or _checkpoints()
    name = options.run or f"{config.optimizer}-{config.scheduler}-{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}"
    folder = checkpoints / checkpoint.check_name(name)
    device = _device(options, world)
    _refuse_another_run(folder, world)
    images = _load_images(options.data, world)
    with world.agreed():
        events = train(config, images, device=device, world=world)
    with _writing(folder, world):
        _refuse_another_run(folder, world)  # begun by another command meanwhile
        run = Run(config=config)
        return _follow(options, _recorded(events, run, folder, images, world), run, folder, images, world)


def _checkpoints() -> Path:
    return Path(os.environ.get("OPTIMIZER_LAB_CHECKPOINTS") or "checkpoints")


def _refuse_another_run(folder: Path, world: World) -> None:
    with world.agreed():
        if world.rank == 0 and checkpoint.is_run(folder):
            raise UserError(
                "There is a run in {folder} already; go on with it by `resume`, or choose another --run.",
                folder=folder,
            )


def _device(options: argparse.Namespace, world: World) -> torch.device:
    with world.agreed():
        device = distributed.own_device(world, choose_device(options.device))
    allow_tf32(device)
    return device


@contextmanager
def _writing(folder: Path, world: World) -> Iterator[None]:
    """Holds the run's folder on rank 0, the only one that needs it."""
    with ExitStack() as held:
        with world.agreed():
            if world.rank == 0:
                held.enter_context(checkpoint.writing(folder))
        yield


def _resume(options: argparse.Namespace, world: World) -> int:
    changes = _settings(options)
    epochs = None if options.epochs is None else parse("epochs", options.epochs)
    device = _device(options, world)
    with world.agreed():
        if world.rank == 0 and not checkpoint.is_run(options.run):
            raise UserError("There is no run in {run}.", run=options.run)
    with _writing(options.run, world):
        kept = None
        with world.agreed():
            if world.rank == 0:
                kept = checkpoint.read(options.run)
                kept = continued(kept, epochs=epochs, changes=changes)
        kept = world.gather(kept)[0]
        images = _same_images(kept, options.data, world)
        with world.agreed():
            events = train(kept.config, images, device=device, world=world, resume=kept)
        run = resumed(kept)
        recorded = _recorded(events, run, options.run, images, world, kept)
        return _follow(options, recorded, run, options.run, images, world)


def _same_images(kept: Checkpoint, given: str | None, world: World) -> image_data.ImageData:
    """The images a run was trained on; ValueError where `given`, or what is found, are others."""
    source = kept.data.get("source")
    if given or (Path(str(source)).is_absolute() and not os.path.exists(Path(source))):
        source = given
    images = _load_images(source, world)
    if images.digest != kept.data.get("digest"):
        raise UserError(
            "This run was trained on other pictures ({get}) than these ({name}); name the right ones with --data.",
            get=kept.data.get("name"),
            name=images.name,
        )
    return images


def _follow(
    options: argparse.Namespace,
    events: Iterable[Event],
    run: Run,
    folder: Path,
    images: image_data.ImageData,
    world: World,
) -> int:
    """Trains and shows it, by `_recorded` events: rows of JSON, or a bar on stderr and a table on stdout."""

    def interrupt(*_):
        world.stopping.set()
        if world.size == 1:  # the second Ctrl-C does not wait for the next event
            signal.signal(signal.SIGINT, signal.default_int_handler)

    # torchrun passes on what it is sent, and sends SIGTERM where another rank has failed.
    signals = [signal.SIGINT] if world.size == 1 else [signal.SIGINT, signal.SIGTERM]
    previous = {number: signal.signal(number, interrupt) for number in signals}
    bar = tqdm(total=run.config.epochs, disable=True if options.json else None, leave=False, bar_format=_BAR)
    warning = ""
    try:
        print(images.note, file=sys.stderr)
        if not options.json:
            print(f"The run is kept in {folder}\n\n{_HEADER}", flush=True)
        for event in events:
            if run.warning not in ("", warning):
                print(run.warning, file=sys.stderr)
            warning = run.warning
            if options.json:
                if (shown := row(event, str(folder) if checkpoint.is_run(folder) else None)) is not None:
                    print(json.dumps(shown, allow_nan=False), flush=True)
                continue
            bar.n = run.epochs_passed
            if run.last_step is not None:
                bar.set_postfix_str(f"epoch {run.last_step.epoch}, loss {run.last_step.loss:.3f}", refresh=False)
            bar.refresh()
            if isinstance(event, EpochEnded):
                bar.clear()
                print(_table_row(event), flush=True)
    finally:
        bar.close()
        for number, handler in previous.items():
            signal.signal(number, handler)
    if not options.json:
        print(f"\n{_last_words(run, folder)}")
    if world.stopping.is_set() or run.status == "stopped":
        return 130
    return 1 if run.warning else 0


def _recorded(
    events: Iterable[Event],
    run: Run,
    folder: Path,
    images: image_data.ImageData,
    world: World,
    resume: Checkpoint | None = None,
) -> Iterator[Event]:
    """The events, once they are in the run and, by rank 0, in its folder; several ranks stop by themselves.

    What one of several ranks cannot do, such as find room in its memory, the others wait for: it ends them all.
    """
    try:
        if world.rank == 0:
            stop = world.stopping.is_set if world.size == 1 else lambda: False
            yield from checkpoint.record(events, run, folder, image_data.facts(images), resume=resume, stop=stop)
            return
        for event in events:
            run.apply(event)
            yield event
    except ValueError as error:
        if world.size == 1:
            raise
        raise LostRankError(str(error)) from error


_BAR = "{percentage:3.0f}% |{bar}| {elapsed}, {remaining} left{postfix}"
_HEADER = "epoch  train loss  test loss  test accuracy        lr  seconds  images/s"


def _table_row(ended: EpochEnded) -> str:
    trained = ended.train_loss is not None
    return (
        f"{ended.epoch:5d}  {format(ended.train_loss, '10.4f') if trained else ' ' * 10}  {ended.test_loss:9.4f}  "
        f"{ended.test_accuracy:13.2%}  {format(ended.lr, '8.3g') if trained else ' ' * 8}  {ended.seconds:7.1f}  "
        f"{format(ended.images_per_second, '8,.0f') if trained else ''}"
    ).rstrip()


def _last_words(run: Run, folder: Path) -> str:
    if run.warning:
        return run.warning
    go_on = f"Go on with: python -m trainer resume {folder}"
    if run.status == "diverged":
        return f"The run diverged. {run.advice} Its last good epoch, {run.epoch}, is kept."
    if run.status == "stopped":
        return f"Stopped after epoch {run.epoch} of {run.config.epochs}. {go_on}"
    best = run.best
    return (
        f"Done: {run.history[-1].test_accuracy:.2%} of the test pictures right, best {best.test_accuracy:.2%} "
        f"in epoch {best.epoch}. Try it: python -m trainer classify {folder} PICTURE"
    )


def _load_images(source: str | None, world: World = ALONE) -> image_data.ImageData:
    """The images of a source, the same on every rank: the first of each machine fetches what the others find there."""
    images = None
    for turn in (0, 1):
        with world.agreed(), _bar() as show:
            if images is None and (turn or world.local_rank == 0):
                images = image_data.load_images(source, progress=show)
        source = world.gather(images and images.source)[world.rank - world.local_rank]
    if len(set(world.gather(images.digest))) > 1:
        raise UserError("The machines have found different pictures; name the same for all with --data.")
    return images


@contextmanager
def _bar() -> Iterator[Report]:
    """A progress bar on stderr, where that is a terminal."""
    with tqdm(total=1.0, disable=None, leave=False, bar_format="{desc} {percentage:3.0f}% |{bar}|") as bar:

        def show(fraction: float, doing: str) -> None:
            bar.n = fraction
            bar.set_description_str(doing)

        yield show


def _classify(options: argparse.Namespace) -> int:
    if options.top < 1:
        raise UserError("--top must be 1 or more.")
    model = _open(options.checkpoint)
    device = choose_device(options.device)
    allow_tf32(device)
    model.to(device)
    failed = False
    for image in options.images:
        try:
            seen = classify(model, image)
        except ValueError as error:
            failed = True
            print(f"error: {image}: {error}", file=sys.stderr)
            continue
        if options.json:
            shown = {"image": image, "label": seen.label, "confidences": seen.confidences}
            print(json.dumps(shown, allow_nan=False), flush=True)
        else:
            print(image)
            for name, probability in list(seen.confidences.items())[: options.top]:
                print(f"  {probability:7.2%}  {name}")
    return 2 if failed else 0


def _open(place: str) -> OptimizerLabModel:
    """The network in a folder or on the Hub, from where a copy that was kept is as good where there is no network."""
    if os.path.isdir(Path(place)):
        return OptimizerLabModel.from_pretrained(place)
    if place.partition("@")[0].count("/") != 1 or place.startswith((".", "/")) or os.path.isdir(Path(place).parent):
        raise UserError("There is no checkpoint in {place}.", place=place)
    repo_id, revision = repositories.split_revision(place)
    token = retry.sent(huggingface_hub.get_token())
    with _bar() as show, quiet(huggingface_hub), retry.explained(repo_id):
        return retry.ask(
            lambda: OptimizerLabModel.from_pretrained(repo_id, revision=revision, token=token),
            show,
            0.0,
            f"Fetching {repo_id}",
        )


def _publish(options: argparse.Namespace) -> int:
    token = huggingface_hub.get_token()
    if token is None:
        raise UserError("Publishing takes a token of the Hub: log in with `hf auth login`, or set HF_TOKEN.")
    with _bar() as show, quiet(huggingface_hub):
        link = publish.publish(options.run, options.repo_id, token=token, private=options.private, progress=show)
    print(link)
    return 0


def _load(options: argparse.Namespace) -> int:
    repo_id, revision = repositories.split_revision(options.checkpoint)
    folder = options.folder or _checkpoints() / repo_id.partition("/")[2]
    with _bar() as show, quiet(huggingface_hub):
        token = huggingface_hub.get_token()
        can_resume = repositories.load(repo_id, folder, revision=revision, token=token, progress=show)
    go_on = f"python -m trainer {'resume' if can_resume else 'classify'} {folder}"
    print(f"{repo_id} is in {folder}. Go on with: {go_on}{'' if can_resume else ' PICTURE'}")
    return 0


def _lessons(options: argparse.Namespace) -> int:
    for lesson in LESSONS.values():
        if options.json:
            print(json.dumps(asdict(lesson), allow_nan=False))
        else:
            print(f"{lesson.name}: {lesson.title}\n  {lesson.before}\n  {lesson.after}\n")
    return 0


def _find_lr(options: argparse.Namespace) -> int:
    config = TrainConfig.from_settings(_settings(options))
    device = choose_device(options.device)
    allow_tf32(device)
    images = _load_images(options.data)
    facts = lr_finder.find_lr(config, images, device=device)
    print(images.note, file=sys.stderr)
    trials: list[lr_finder.Trial] = []
    with tqdm(total=1.0, disable=True if options.json else None, leave=False, bar_format=_BAR) as bar:
        for fact in facts:
            if options.json:
                print(json.dumps(lr_finder.row(fact), allow_nan=False), flush=True)
            if isinstance(fact, lr_finder.Trial):
                trials.append(fact)
                bar.n = fact.step / fact.num_steps
                bar.set_postfix_str(f"lr {fact.lr:.2g}, loss {fact.smoothed:.3f}")
    if not options.json:
        print("       lr      loss  smoothed")
        for trial in trials[:: math.ceil(len(trials) / _ROWS_OF_TRIALS)]:
            print(f"{trial.lr:9.2g}  {trial.loss:8.4g}  {trial.smoothed:8.4g}")
        suggestion = "none" if fact.suggestion is None else f"{fact.suggestion:g}"
        print(f"\nSuggested lr: {suggestion}. {fact.reason}")
    return 0


def _preview_lr(options: argparse.Namespace) -> int:
    config = TrainConfig.from_settings(_settings(options))
    images = _load_images(options.data) if options.data else None
    per_epoch = num_batches(num_training_images(config, images), config)
    if images:
        print(images.note, file=sys.stderr)
    if config.scheduler == "plateau":
        print("plateau lowers lr by the loss, which only training tells; this is where it begins.", file=sys.stderr)
    for step, lr in preview(config, num_batches=per_epoch):
        print(json.dumps({"step": step, "lr": lr}) if options.json else f"{step}\t{lr:g}")
    return 0
