"""The lists of a visitor's runs and races, with their titles."""

import itertools
import tempfile
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import gradio as gr
from gradio.utils import get_upload_folder

from trainer.errors import UserError
from trainer.runs.comparison import compare, fewest_differences, label
from trainer.runs.reader import read_run
from trainer.runs.run import Run
from trainer.settings.fields import label_of
from trainer.settings.lessons import lesson_of
from ui.i18n.language import current_language
from ui.i18n.words import i18n, translate
from ui.lab import Lab
from ui.parts.messages import Updates
from ui.stored_runs import bundled

MOST_COMPARED = 12  # runs at a time
_MOST_LISTED = 50


@dataclass(frozen=True, kw_only=True)
class RunLists:
    """The lists of a visitor's races, of the networks to classify with, and of the runs to compare."""

    races: gr.Dropdown
    networks: gr.Dropdown
    compared: gr.Dropdown

    def offer(self, lab: Lab, visitor: str, chosen: str | None, *, keep: bool = False) -> Updates:
        """Updates of the lists; `chosen` is the key of the race to choose. With `keep`, no choice changes."""
        language = current_language()
        all_races = lab.runs.races_of(visitor)
        races = dict(itertools.islice(all_races.items(), _MOST_LISTED))
        if chosen in all_races:  # an address may name an older one
            races[chosen] = all_races[chosen]
        runs = {key: [(folder, read(folder)) for folder in folders] for key, folders in races.items()}
        titles = [(_race_title([run for _, run in race], language), key) for key, race in runs.items()]
        single = _distinct(entry for race in runs.values() for entry in _titles(race, language))
        shipped = bundled_networks()
        own = chosen if chosen in races else next(iter(races), None)
        network = races[own][0].name if own else next((key for _, key in shipped), None)
        updates: Updates = {
            self.races: gr.update(choices=titles),
            self.networks: gr.update(choices=single + shipped),
            self.compared: gr.update(choices=single),
        }
        if not keep:
            updates[self.races]["value"] = own
            updates[self.networks]["value"] = network
        return updates


def build() -> RunLists:
    """Creates the lists, empty; each is to be rendered in its own tab."""
    return RunLists(
        races=gr.Dropdown(
            [], label=i18n("Your runs"), info=i18n("Only this browser can see them."), elem_id="runs", render=False
        ),
        networks=gr.Dropdown(
            [],
            label=i18n("Trained network"),
            info=i18n("Or type the name of one on the Hub: owner/name, or owner/name@epoch-0003."),
            allow_custom_value=True,
            elem_id="checkpoint",
            render=False,
        ),
        compared=gr.Dropdown(
            [],
            value=[],
            multiselect=True,
            max_choices=MOST_COMPARED,
            label=i18n("Runs to compare"),
            info=i18n("Your runs, from any race. Or type the name of a published one: owner/name."),
            allow_custom_value=True,
            elem_id="compared",
            render=False,
        ),
    )


def single_runs(lab: Lab, visitor: str | None) -> list[tuple[str, str]]:
    """The titles and keys of the visitor's runs, latest first."""
    races = itertools.islice(lab.runs.races_of(visitor).values(), _MOST_LISTED)
    return _distinct(entry for race in races for entry in _read_titles(race))


def title_of(run: Run, language: str) -> str:
    """What a run is called: its name or, without one, the title of its lesson; "" without either."""
    lesson = lesson_of(run.config)
    return run.name or (translate(lesson.title, language) if lesson else "")


def bundled_networks() -> list[tuple[str, str]]:
    """The titles and names of the networks that come with the app."""
    language = current_language()
    return [(translate("{name}, comes with the app", language, name=name), name) for name in bundled()]


def titled(folders: Sequence[Path]) -> list[tuple[str, str]]:
    """The titles and keys of the runs of a race, which are in `folders`."""
    return _distinct(_read_titles(folders))


def last_runs(lab: Lab, visitor: str | None) -> list[str]:
    """The keys of the visitor's latest race and, if that is a single run, of the one before."""
    keys: list[str] = []
    for race in itertools.islice(lab.runs.races_of(visitor).values(), 2):
        if len(keys) < 2:
            keys += [folder.name for folder in race]
    return keys[:MOST_COMPARED]


def latest(lab: Lab, visitor: str | None) -> tuple[str | None, list[Run]]:
    """The key and the runs of the visitor's latest race; None and [] without one."""
    return next(((key, read_all(folders)) for key, folders in lab.runs.races_of(visitor).items()), (None, []))


def own_race(lab: Lab, visitor: str, race: str | None) -> list[Path]:
    """The folders of the visitor's `race`. Raises UserError if it is not theirs, or if none is chosen."""
    if not race:
        raise UserError("Train a network first: you have no runs yet.")
    return lab.runs.own_race(visitor, race)


def read(folder: Path) -> Run | None:
    """The run in a folder; None if it cannot be read."""
    try:
        return read_run(folder)
    except UserError:
        return None


def read_all(folders: Sequence[Path]) -> list[Run]:
    """The runs in folders, without those that cannot be read."""
    return [run for folder in folders if (run := read(folder)) is not None]


def download_path(name: str) -> Path:
    """A new path for a file to download, in the folder that Gradio serves files from and clears."""
    uploads = Path(get_upload_folder())
    uploads.mkdir(parents=True, exist_ok=True)
    return Path(tempfile.mkdtemp(dir=uploads)) / name


def _distinct(entries: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    """The titles and keys of runs; those that are alike otherwise have the start of their key in the title."""
    listed = list(entries)
    counts = Counter(title for title, _ in listed)
    return [(f"{title} · {key[:4]}" if counts[title] > 1 else title, key) for title, key in listed]


def _read_titles(folders: Sequence[Path]) -> list[tuple[str, str]]:
    return _titles([(folder, read(folder)) for folder in folders], current_language())


def _race_title(runs: Sequence[Run | None], language: str) -> str:
    readable = [run for run in runs if run is not None]
    if len(runs) == 1 or not readable:
        return _run_title(readable[0], language) if readable else translate("damaged run", language)
    contenders = compare(readable)
    labels = " / ".join(one.label or _row_names(one.runs[0]) for one in contenders)
    settings = labels if len(labels) < 90 else labels[:90] + " …"
    title = next(filter(None, (title_of(run, language) for run in readable)), "")
    return " · ".join(filter(None, (title, translate("race: {settings}", language, settings=settings))))


def _titles(race: Sequence[tuple[Path, Run | None]], language: str) -> list[tuple[str, str]]:
    """The title of each run of a race, which says how it differs from the others, and its key."""
    own_settings = iter(fewest_differences([run.config for _, run in race if run]))
    return [
        (_title(folder, run, label(next(own_settings)) if run else "", language), folder.name) for folder, run in race
    ]


def _title(folder: Path, run: Run | None, difference: str, language: str) -> str:
    if run is None:
        return translate("damaged run {name}", language, name=folder.name[:6])
    return " · ".join(filter(None, (_run_title(run, language), difference)))


def _run_title(run: Run, language: str) -> str:
    pictures = ""
    if run.config.num_images:
        pictures = translate("{count} pictures", language, count=f"{run.config.num_images:,}")
    settings = translate(
        "{optimizer}, {scheduler}, {epoch} of {epochs} epochs: {accuracy}",
        language,
        optimizer=f"{run.config.optimizer} lr {label_of(run.config.lr)}",
        scheduler=run.config.scheduler,
        epoch=run.epoch,
        epochs=run.config.epochs,
        # The last epoch's accuracy, not the best: the checkpoint is the last epoch's.
        accuracy=f"{run.history[-1].test_accuracy:.1%}" if run.history else translate("new", language),
    )
    return " · ".join(filter(None, (title_of(run, language), settings, pictures)))


def _row_names(run: Run) -> str:
    return f"{run.config.optimizer}, {run.config.scheduler}"
