"""The options that several commands share: their flags, and the values that the flags stand for."""

import argparse
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import torch

from trainer.cli.progress import progress_bar
from trainer.errors import UserError, for_terminal
from trainer.images.image_data import ImageData, load_images
from trainer.learning.device import DEVICES, choose_device, set_up_process
from trainer.learning.distributed import ALONE, World, own_device
from trainer.runs import run_folder
from trainer.runs.reader import read_settings
from trainer.settings.config import AUGMENT, SETTINGS, TrainConfig, parse

if TYPE_CHECKING:
    Commands = argparse._SubParsersAction["Parser"]

_SETTING = "setting_"  # begins the name of each setting among the parsed options


class Parser(argparse.ArgumentParser):
    """An ArgumentParser that reports an error in one line, without printing the usage first."""

    def __init__(self, **kwargs: Any):
        super().__init__(allow_abbrev=False, **kwargs)

    @property
    def flags(self) -> list[str]:
        """The flags of this command."""
        return list(self._option_string_actions)

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {for_terminal(message)}\n")


def add_command(
    commands: "Commands", name: str, command: Callable[..., int], about: str, *, is_distributed: bool = False
) -> Parser:
    """Adds a command to the parser and returns its own parser, for the flags.

    `command(options)` returns the exit status. A distributed one runs on every rank, as `command(options, world)`.
    """
    parser = commands.add_parser(name, help=about, description=about)
    parser.set_defaults(command=command, parser=parser, is_distributed=is_distributed)
    return parser


def add_settings(parser: Parser, names: Iterable[str] = SETTINGS) -> None:
    """Adds a flag for each of the named settings, read by `settings_of`."""
    for name in names:
        declared = SETTINGS[name]
        choices = "|".join(declared.choices) or ("true|false" if declared.kind is bool else "N")
        count: dict[str, Any] = {"nargs": "?", "const": "true"} if declared.kind is bool else {}
        if declared.count != 1:
            count = {"nargs": "+"}
        flag = "--" + name.replace("_", "-")
        parser.add_argument(flag, dest=_SETTING + name, metavar=choices, help=declared.help.replace("%", "%%"), **count)
        if name == "flip":  # commands of earlier versions
            parser.add_argument(
                f"--{AUGMENT}", dest=_SETTING + AUGMENT, nargs="?", const="true", help=argparse.SUPPRESS
            )


def settings_of(options: argparse.Namespace) -> dict[str, Any]:
    """Returns the settings that were given as flags. Raises UserError if a value is not valid."""
    given = {
        name.removeprefix(_SETTING): text
        for name, text in vars(options).items()
        if name.startswith(_SETTING) and text is not None
    }
    return {name: parse(name, " ".join(text) if isinstance(text, list) else text) for name, text in given.items()}


def add_data(parser: Parser) -> None:
    """Adds --data, read by `images_of`."""
    parser.add_argument(
        "--data",
        metavar="SOURCE",
        help="auto, hub, torchvision, synthetic, a folder, a zip, or owner/name[:config][@revision][?label=column] of "
        "the Hub (default: $OPTIMIZER_LAB_DATA, or auto)",
    )


def images_of(source: str | None, world: World = ALONE) -> ImageData:
    """Returns the images of a source, the same on every rank, with a progress bar while they load.

    Rank 0 of each machine loads them first and fills the cache that the other ranks of the machine read. Raises
    UserError on all ranks if one of them fails.
    """
    images: ImageData | None = None
    for turn in (0, 1):
        with world.share_errors(), progress_bar() as report:
            if images is None and (turn or world.local_rank == 0):
                images = load_images(source, progress=report)
        source = world.gather(images.source if images else None)[world.rank - world.local_rank]
    assert images is not None, "loaded in the second turn at the latest"
    if len(set(world.gather(images.digest))) > 1:
        raise UserError("The machines found different pictures; give --data the same source on all of them.")
    return images


def same_images(recorded: Mapping[str, Any], source: str | None, world: World = ALONE) -> ImageData:
    """Returns the images that a run or a sweep was trained on: from `source`, or else from where they were then.

    `recorded` is what training.json or sweep.json says of them. If that was a folder that no longer exists, the default
    source is tried. Raises UserError if the images differ.
    """
    place = recorded.get("source")
    is_gone = Path(str(place)).is_absolute() and not os.path.exists(str(place))
    images = images_of(source if source or is_gone else place, world)
    if images.digest != recorded.get("digest"):
        raise UserError(
            "This was trained on other pictures ({expected}) than these ({found}); name those with --data.",
            expected=recorded.get("name"),
            found=images.name,
        )
    return images


def images_of_runs(folders: Sequence[Path], source: str | None) -> tuple[TrainConfig, ImageData]:
    """Returns the settings of the first run, and the images that all of the runs were trained on.

    Raises UserError if one of the folders has no valid run, or was trained on other pictures.
    """
    settings = [read_settings(folder) for folder in folders]
    config, recorded = settings[0]
    if any(other["digest"] != recorded["digest"] for _, other in settings):
        raise UserError("These runs were trained on different pictures.")
    return config, same_images(recorded, source)


def to_count(flag: str, text: str, *, most: int = 10**6) -> int:
    """Returns the number that a flag was given. Raises UserError unless it is from 1 to `most`."""
    if not (text.isascii() and text.isdecimal() and len(text) <= len(str(most)) and 1 <= int(text) <= most):
        raise UserError("{flag} takes a number from 1 to {most}.", flag=flag, most=f"{most:,}")
    return int(text)


def check_output(path: Path | None) -> None:
    """Raises UserError if the file that a flag names cannot be written: before the work of which it is the result."""
    if path is None:
        return
    is_new = not os.path.lexists(path)
    try:
        # Without blocking: opening a pipe that has no reader would wait for one for ever.
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | getattr(os, "O_NONBLOCK", 0), 0o666))
        if is_new:
            path.unlink()
    except OSError as error:
        raise _not_written(path, error) from None


def save_text(path: Path, text: str) -> None:
    """Writes the file that a flag names. Raises UserError if it cannot be written."""
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise _not_written(path, error) from None


def _not_written(path: Path, error: OSError) -> UserError:
    return UserError("{file} cannot be written: {reason}.", file=path, reason=run_folder.reason(error))


def add_device(parser: Parser) -> None:
    """Adds --device, read by `device_of`."""
    parser.add_argument("--device", choices=DEVICES, help="default: the fastest available")


def device_of(options: argparse.Namespace, world: World = ALONE) -> torch.device:
    """Returns the device to compute on, this rank's own if there are several, and sets this process up for it."""
    with world.share_errors():
        device = own_device(world, choose_device(options.device))
    set_up_process(device)
    return device


def add_json(parser: Parser) -> None:
    """Adds --json."""
    parser.add_argument("--json", action="store_true", help="one JSON object a line")


def checkpoints_folder() -> Path:
    """Returns the folder that holds the runs, unless a flag names another one."""
    return Path(os.environ.get("OPTIMIZER_LAB_CHECKPOINTS") or "checkpoints")
