"""Records the events of runs: updates each Run with them, and saves the run's folder at the end of each epoch."""

from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from safetensors.torch import save

from trainer.errors import Message, UserError
from trainer.learning.checkpoint import Checkpoint, thread_notice
from trainer.networks.files import CONFIG_FILE, WEIGHTS_FILE, read_json
from trainer.runs import layers, run_folder, training_json
from trainer.runs.events import CheckpointReady, EvaluationLogged, Event, Finished, GpuTime, StepLogged
from trainer.runs.exports.model_card import CARD_FILE, model_card
from trainer.runs.run import Run, checked_name
from trainer.runs.run_folder import HISTORY_FILE, TENSORS_FILE

_MOST_UNSAVED = 3  # epochs before the last one whose weights stay in memory while the disk refuses


@dataclass(kw_only=True)
class Recorder:
    """Records the events of one run in `run` and, at the end of each epoch, in `folder`.

    `data` holds the name, source, revision and digest of the images. `resume` is the checkpoint that the run continues
    from, if any. Its settings are saved at once, so that a run that is interrupted before the next epoch ends has them.
    `keeps_all` keeps the weights of all epochs (see `run_folder.thin_epochs`), also when the run is resumed.
    """

    run: Run
    folder: Path
    data: Mapping[str, Any]
    resume: Checkpoint | None = None
    keeps_all: bool = False
    _unsaved: list[CheckpointReady] = field(default_factory=list)
    _threads: int | None = field(default=None, init=False)  # before the resume
    has_started: bool = field(default=False, init=False)

    def __post_init__(self) -> None:
        if self.resume:
            self._threads, self.keeps_all = self.resume.threads, self.keeps_all or self.resume.keeps_all

    def record(self, event: Event) -> bool:
        """Records an event; returns False if it is a checkpoint that could not be saved.

        The run continues if the disk refuses. `run.warning` then gives the reason, and the next event that saves
        tries again, with the weights of the last state and of up to three missed epochs before it.
        """
        is_resumed = not self.has_started and bool(self.run.history)
        self.run.apply(event)
        if isinstance(event, GpuTime):  # precedes the training, which may still refuse the settings of a resume
            return True
        self.has_started = True
        if isinstance(event, CheckpointReady):
            self.run.notice = thread_notice(self._threads, event.state.get("threads"))
            # Runs resume from the last state only; if the disk stays full, all weights would fill the memory.
            earlier = self._unsaved[-_MOST_UNSAVED:]
            self._unsaved = [*(replace(ready, training=b"") for ready in earlier), event]
        if isinstance(event, CheckpointReady | Finished):
            return self._save() or isinstance(event, Finished)
        if is_resumed:
            # A crash before the next epoch ends would otherwise leave the run marked as ended.
            self._save()
        return True

    def _save(self) -> bool:
        """Saves the last state, or only the status if there is no new one; returns whether the disk accepted it."""
        run = self.run
        try:
            if self._unsaved:
                files = _state_files(run, self.data, self._unsaved, keeps_all=self.keeps_all)
                run_folder.commit(self.folder, files)
                self._unsaved.clear()
                if run.best and not self.keeps_all:
                    run_folder.thin_epochs(self.folder, best=run.best.epoch, last=run.epoch)
            elif run.history:
                content = training_json.load(self.folder)
                run_folder.commit(self.folder, _updated_files(content, run, self.resume))
            self.resume = None
        except (OSError, ValueError) as error:  # ValueError: the saved training.json cannot be read now
            run.warning = Message(self._warning(), reason=run_folder.reason(error))
            return False
        run.warning = ""
        return True

    def _warning(self) -> str:
        if self.run.status == "training":
            return (
                "The run could not be saved: {reason}. "
                "It continues, and its latest state is saved as soon as the disk accepts it."
            )
        if run_folder.is_run(self.folder):
            return "The run could not be saved: {reason}. What was saved before is still there."
        return "The run could not be saved: {reason}. Nothing has been saved."


def rename(folder: Path, name: str) -> None:
    """Gives the run in a folder another name, also on its card; "" removes the name.

    Raises UserError if the name is invalid, if the run is in training, or if its folder cannot be read or written.
    """
    name = checked_name(name)
    with run_folder.writing(folder):
        content = {**training_json.load(folder), "name": name}
        card = model_card(
            training_json.to_run(content),
            training_json.to_data(content),
            read_json(folder / CONFIG_FILE, at_most=run_folder.LARGEST_HISTORY),
        )
        try:
            run_folder.commit(folder, {HISTORY_FILE: training_json.as_json(content), CARD_FILE: card.encode()})
        except OSError as error:
            raise UserError("The folder cannot be written: {reason}.", reason=run_folder.reason(error)) from None


def record(
    events: Iterable[Event],
    run: Run,
    folder: Path,
    data: Mapping[str, Any],
    *,
    resume: Checkpoint | None = None,
    keeps_all: bool = False,
    stop: Callable[[], bool] = lambda: False,
) -> Iterator[Event]:
    """Records the events of one run, as `record_race` does, and yields them. See Recorder for the arguments."""
    recorders = [Recorder(run=run, folder=folder, data=data, resume=resume, keeps_all=keeps_all)]
    for _, event in record_race(((0, event) for event in events), recorders, stop=stop):
        yield event


def record_race(
    events: Generator[tuple[int, Event], None, None],
    recorders: Sequence[Recorder],
    *,
    stop: Callable[[], bool] = lambda: False,
) -> Iterator[tuple[int, Event]]:
    """Records the events of `race` and yields them, each with the index of its run.

    A CheckpointReady is yielded only after it is saved. When `stop()` returns True, unfinished runs end as `stopped` at
    the next event within an epoch, but not before the first run's epoch 0 has ended, so that there is a saved state.
    """
    for index, event in events:
        has_epochs = any(recorder.run.history for recorder in recorders)
        if isinstance(event, StepLogged | EvaluationLogged | GpuTime) and has_epochs and stop():
            events.close()
            yield from _stop(recorders)
            return
        if recorders[index].record(event):
            yield index, event


def _stop(recorders: Sequence[Recorder]) -> Iterator[tuple[int, Event]]:
    finished = Finished(reason="stopped")
    for index, recorder in enumerate(recorders):
        if recorder.run.status == "training":
            recorder.record(finished)
            yield index, finished


def _state_files(
    run: Run, data: Mapping[str, Any], unsaved: Sequence[CheckpointReady], *, keeps_all: bool
) -> dict[str, bytes]:
    """Returns the files of the last state in `unsaved`, and the weights of all epochs in it."""
    last = unsaved[-1]
    tensors = {WEIGHTS_FILE: last.model, TENSORS_FILE: last.training}
    content = training_json.from_run(run, data, state=last.state, files=tensors, keeps_all=keeps_all)
    return {
        **{run_folder.epoch_file(ready.epoch): ready.model for ready in unsaved},
        CONFIG_FILE: training_json.as_json(last.model_config),
        **tensors,
        HISTORY_FILE: training_json.as_json(content),
        **_layer_files(run),
        CARD_FILE: model_card(run, data, last.model_config).encode(),
    }


def _updated_files(content: Mapping[str, Any], run: Run, resume: Checkpoint | None) -> dict[str, bytes]:
    """Returns the files that change if no epoch has ended since the last save, whose training.json is `content`."""
    content = {**content, **training_json.status_entries(run)}
    files = {}
    if run.status == "diverged":  # within an epoch that gets no checkpoint
        content["curve"] = training_json.curve_entry(run.curve)
        files = _layer_files(run)
    if resume is None:
        return {**files, HISTORY_FILE: training_json.as_json(content)}
    tensors = {TENSORS_FILE: save(dict(resume.tensors))}
    content["config"], content["state"] = resume.config.settings(), dict(resume.state)
    content["files"] = {**content["files"], **training_json.digests(tensors)}
    return {**tensors, **files, HISTORY_FILE: training_json.as_json(content)}


def _layer_files(run: Run) -> dict[str, bytes]:
    """Returns layers.json, if any layers were measured."""
    return {layers.LAYERS_FILE: layers.as_file(run.layers)} if run.layers else {}
