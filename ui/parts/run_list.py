"""A visitor's runs, alone or side by side as races: to choose from, look at, download and delete."""

import itertools
import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gradio as gr
from gradio.utils import get_upload_folder

from trainer.errors import UserError
from trainer.runs import checkpoint
from trainer.runs.comparison import compare, differences, label
from trainer.runs.run import Run
from ui.i18n.language import current_language
from ui.i18n.words import translate
from ui.lab import Lab, bundled
from ui.parts.messages import said
from ui.parts.run_view import results

# How many components `choices` fills.
NUM_CHOICES = 3

_MOST_LISTED = 50


def choices(lab: Lab, visitor: str, chosen: str | None, *, keep: bool = False) -> list[Any]:
    """The lists of what can be chosen: the visitor's races, all networks to classify with, and runs to compare.

    `chosen` is the race that is chosen then; with `keep`, whatever was chosen before stays.
    """
    language = current_language()
    races = dict(itertools.islice(lab.races_of(visitor).items(), _MOST_LISTED))
    runs = {key: [(folder, read(folder)) for folder in folders] for key, folders in races.items()}
    titles = [(_race_title([run for _, run in race], language), key) for key, race in runs.items()]
    single = [entry for race in runs.values() for entry in _titles(race, language)]
    shipped = [(translate("{name}, comes with the app", language, name=name), name) for name in bundled()]
    own = chosen if chosen in races else next(iter(races), None)
    first = races[own][0].name if own else next((key for _, key in shipped), None)
    return [
        gr.update(choices=titles, **({} if keep else {"value": own})),
        gr.update(choices=single + shipped, **({} if keep else {"value": first})),
        gr.update(choices=single),
    ]


def single_runs(lab: Lab, visitor: str | None) -> list[tuple[str, str]]:
    """The visitor's runs to choose one from, the latest first: titles and keys."""
    return [entry for race in itertools.islice(lab.races_of(visitor).values(), _MOST_LISTED) for entry in titled(race)]


def titled(folders: Sequence[Path]) -> list[tuple[str, str]]:
    """The runs of a race, in their folders, as a list offers them: titles and keys."""
    return _titles([(folder, read(folder)) for folder in folders], current_language())


def latest(lab: Lab, visitor: str) -> tuple[str | None, list[Run]]:
    """The key and the runs of the visitor's latest race; None and none where there is none."""
    return next(((key, read_all(folders)) for key, folders in lab.races_of(visitor).items()), (None, []))


def read(folder: Path) -> Run | None:
    """The run in a folder; None where it cannot be read."""
    try:
        return checkpoint.read_run(folder)
    except ValueError:
        return None


def read_all(folders: Sequence[Path]) -> list[Run]:
    """The runs in folders, without those that cannot be read."""
    return [run for folder in folders if (run := read(folder)) is not None]


@said
def show(lab: Lab, visitor: str, key: str | None) -> list[Any]:
    """A race is chosen from the visitor's: its curves."""
    runs = read_all(lab.own_race(visitor, key)) if key else []
    return results(runs, lab.images, current_language())


def epochs_in_all(lab: Lab, visitor: str, key: str | None, typed: float | None = None) -> Any:
    """Up to how many epochs Resume would train a race: as many as were asked for or, where it has them, ten more.

    What was `typed` stays, where it is more than the race has.
    """
    try:
        runs = read_all(lab.own_race(visitor, key))
    except (ValueError, OSError):
        runs = []
    if not runs or (typed or 0) > max(run.epoch for run in runs):
        return gr.skip()
    most = max(run.config.epochs for run in runs)
    is_open = any(run.epoch < run.config.epochs for run in runs if run.status != "diverged")
    return most if is_open else most + 10


@said
def delete(lab: Lab, visitor: str, key: str | None, compared: list[str] | None) -> list[Any]:
    """Deletes the visitor's race, all of its runs, also from those that are compared; shows the latest that is left."""
    gone = lab.own_race(visitor, key) if key else []
    for folder in gone:
        checkpoint.delete(folder)
    left, runs = latest(lab, visitor)
    *others, comparable = choices(lab, visitor, left)
    names = [folder.name for folder in gone]
    still = [name for name in compared if name not in names] if isinstance(compared, list) else []
    return [*results(runs, lab.images, current_language()), *others, {**comparable, "value": still}]


@said
def download(lab: Lab, visitor: str, key: str | None) -> str:
    """The path of a zip of the visitor's run, as it could be put on the Hub; of a race, a folder for each run."""
    if not key:
        raise UserError("Train something first: then there is a checkpoint to download.")
    folders = lab.own_race(visitor, key)
    path = file_to_give("optimizer-lab-checkpoint.zip")
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for number, folder in enumerate(folders, 1):
            prefix = f"run-{number}/" if len(folders) > 1 else ""
            for name, content in checkpoint.pack(folder).items():
                archive.writestr(prefix + name, content)
    return str(path)


def file_to_give(name: str) -> Path:
    """A new place for a file in Gradio's own folder, from which alone it gives files out, and which it clears."""
    uploads = Path(get_upload_folder())
    uploads.mkdir(parents=True, exist_ok=True)
    return Path(tempfile.mkdtemp(dir=uploads)) / name


def _race_title(runs: Sequence[Run | None], language: str) -> str:
    sound = [run for run in runs if run is not None]
    if len(runs) == 1 or not sound:
        return _run_title(sound[0], language) if sound else translate("damaged run", language)
    contenders = compare(sound)
    labels = " / ".join(one.label or _row_names(one.runs[0]) for one in contenders)
    return translate("race: {settings}", language, settings=labels if len(labels) < 90 else labels[:90] + " …")


def _titles(race: Sequence[tuple[Path, Run | None]], language: str) -> list[tuple[str, str]]:
    """Each run of a race by what it is, what sets it apart in the race, and how far it is; with its key."""
    apart = iter(differences([run.config for _, run in race if run]))
    return [(_title(folder, run, label(next(apart)) if run else "", language), folder.name) for folder, run in race]


def _title(folder: Path, run: Run | None, apart: str, language: str) -> str:
    if run is None:
        return translate("damaged run {name}", language, name=folder.name[:6])
    # Two runs may be alike in all but their key, and a list's entries must be told apart.
    return " · ".join(filter(None, (_run_title(run, language), apart, folder.name[:4])))


def _run_title(run: Run, language: str) -> str:
    return translate(
        "{optimizer}, {scheduler}, {epoch} of {epochs} epochs: {accuracy}",
        language,
        optimizer=f"{run.config.optimizer} lr {run.config.lr:g}",
        scheduler=run.config.scheduler,
        epoch=run.epoch,
        epochs=run.config.epochs,
        # That of the network which one gets: the last epoch's, not the best.
        accuracy=f"{run.history[-1].test_accuracy:.1%}" if run.history else translate("new", language),
    )


def _row_names(run: Run) -> str:
    return f"{run.config.optimizer}, {run.config.scheduler}"
