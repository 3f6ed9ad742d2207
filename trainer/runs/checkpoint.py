"""A run's folder on disk, written so that no crash can break it.

All files of a new state are written to `.staging`, which is then renamed to `.committed`: that instant is the commit.
Moving the files to their places can be cut short at any point and is finished by whoever opens the run next.
"""

import errno
import hashlib
import itertools
import json
import math
import os
import re
import secrets
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from safetensors.torch import save

from trainer.errors import Message, UserError
from trainer.learning.checkpoint import Checkpoint
from trainer.networks.files import CONFIG_FILE, WEIGHTS_FILE, read_json, read_tensors
from trainer.networks.model import OptimizerLabModel
from trainer.runs.events import (
    CheckpointReady,
    EpochEnded,
    EvaluationLogged,
    Event,
    Finished,
    GpuTime,
    StepLogged,
    json_fields,
)
from trainer.runs.model_card import model_card
from trainer.runs.run import STATUSES, Curve, Point, Run
from trainer.settings.config import SETTINGS, TrainConfig

CARD_FILE, HISTORY_FILE, TENSORS_FILE = "README.md", "training.json", "training.safetensors"
FORMAT = 1
LARGEST_HISTORY = 4 << 20  # bytes, for a thousand epochs are a tenth of it

_TRIES = 50
_SECONDS_TO_LOOK = 1.0  # that somebody may hold a run who only looks whether it is in training
_LONGEST_ADVICE = 1000
_MOST_UNSAVED = 3  # epochs before the last one, whose weights wait for a disk that refuses
_STAGING, _COMMITTED, _LOCK = ".staging", ".committed", ".lock"
_FAILURES = (errno.EIO, errno.ENOSPC, errno.EDQUOT)  # of a disk; other errors mean that a folder cannot be synced there


def check_name(name: str) -> str:
    """The name of a run's folder, or ValueError: letters, digits, `.`, `_` and `-`, at most 96, no dot in front."""
    if not re.fullmatch(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,95}", name):
        raise UserError("A run's name may have letters, digits, '.', '_' and '-', up to 96, and no dot in front.")
    return name


def new_key() -> str:
    """A name that nobody can guess: 128 random bits as 32 hexadecimal digits."""
    return secrets.token_hex(16)


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Holds the run as its one writer; makes the folder if it is new, mends it if its last writer died.

    A new folder in which nothing was kept is removed at the end. Raises ValueError when another tab or command is
    writing it, or when the disk refuses.
    """
    is_new = not os.path.exists(folder)
    try:
        with _locked(folder):
            yield
    finally:
        if is_new:
            discard_unused(folder)


def discard_unused(folder: Path) -> None:
    """Removes the folder of a run that ended before anything was kept; any other stays as it is.

    The folder must be the run's alone: files whose names begin with a dot are taken for those of its writer.
    """
    with suppress(OSError):
        if all(path.name[0] == "." and path.name != _COMMITTED for path in folder.iterdir()):
            shutil.rmtree(folder)


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # Not thread-local: a page's generator is taken up by one thread after another.
        lock = FileLock(folder / _LOCK, timeout=_SECONDS_TO_LOOK, thread_local=False)
        lock.acquire()
    except Timeout:
        raise UserError("This run is in training in another tab or command; stop it there first.") from None
    except OSError as error:
        raise UserError("The run's folder cannot be written: {reason}.", reason=_reason(error)) from None
    try:
        try:
            _settle(folder)
        except OSError as error:
            raise UserError("The run's folder cannot be written: {reason}.", reason=_reason(error)) from None
        yield
    finally:
        lock.release()


@dataclass(kw_only=True)
class Keeper:
    """A run and the folder it is kept in: takes the run's events, and writes each state they complete.

    `resume` is what the run goes on from, if anything: its settings, and all that belongs to them, are written as one
    state before the first epoch ends, so that whoever is interrupted there need not choose them again.
    """

    run: Run
    folder: Path
    data: Mapping[str, Any]
    resume: Checkpoint | None = None
    _unsaved: list[CheckpointReady] = field(default_factory=list)
    _is_begun: bool = False

    def keep(self, event: Event) -> bool:
        """Folds the event into the run; False where it is a checkpoint that the disk has not taken.

        A disk that refuses does not end the run: `run.warning` says so, and the last state is written as soon as the
        disk takes it, with the weights of up to three missed epochs before it.
        """
        is_resumed = not self._is_begun and bool(self.run.history)
        self.run.apply(event)
        if isinstance(event, GpuTime):  # comes before the GPU itself, which may yet refuse the settings
            return True
        self._is_begun = True
        if isinstance(event, CheckpointReady):
            # No run resumes from an earlier state, and on a disk that stays full all weights would fill the memory.
            earlier = self._unsaved[-_MOST_UNSAVED:]
            self._unsaved = [*(replace(ready, training=b"") for ready in earlier), event]
        if isinstance(event, CheckpointReady | Finished):
            return self._save() or isinstance(event, Finished)
        if is_resumed:
            # Or else a process that dies before the next epoch ends would leave a run that reads as done.
            self._save()
        return True

    def _save(self) -> bool:
        run = self.run
        try:
            if self._unsaved:
                _commit(self.folder, _files(run, self.data, self._unsaved))
                self._unsaved.clear()
            elif run.history:
                _commit(self.folder, _without_epoch(_read_history(self.folder), run, self.resume))
            self.resume = None
        except (OSError, ValueError) as error:  # ValueError: what was there cannot be read just now
            run.warning = Message(self._what_is_left(), reason=_reason(error))
            return False
        run.warning = ""
        return True

    def _what_is_left(self) -> str:
        if self.run.status == "training":
            return (
                "The run could not be saved: {reason}. "
                "It goes on, and its latest state is saved as soon as the disk takes it."
            )
        if is_run(self.folder):
            return "The run could not be saved: {reason}. What was saved before is still there."
        return "The run could not be saved: {reason}. Nothing of it has been saved."


def record(
    events: Iterable[Event],
    run: Run,
    folder: Path,
    data: Mapping[str, Any],
    *,
    resume: Checkpoint | None = None,
    stop: Callable[[], bool] = lambda: False,
) -> Iterator[Event]:
    """What `record_race` does, for the events of one run, which may go on from `resume`."""
    keepers = [Keeper(run=run, folder=folder, data=data, resume=resume)]
    for _, event in record_race(((0, event) for event in events), keepers, stop=stop):
        yield event


def record_race(
    events: Iterable[tuple[int, Event]], keepers: Sequence[Keeper], *, stop: Callable[[], bool] = lambda: False
) -> Iterator[tuple[int, Event]]:
    """Passes on the events of `race` while its runs and their folders are kept up to date.

    A CheckpointReady is passed on only once it is safely on disk. When `stop()` turns true every unfinished run ends as
    `stopped` at the next sign of life: epochs that have ended are kept, and so is the first untrained network.
    """
    for index, event in events:
        is_begun = any(keeper.run.history for keeper in keepers)
        if isinstance(event, StepLogged | EvaluationLogged | GpuTime) and is_begun and stop():
            events.close()
            yield from _stopped(keepers)
            return
        if keepers[index].keep(event):
            yield index, event


def _stopped(keepers: Sequence[Keeper]) -> Iterator[tuple[int, Event]]:
    finished = Finished(reason="stopped")
    for index, keeper in enumerate(keepers):
        if keeper.run.status == "training":
            keeper.keep(finished)
            yield index, finished


def read(folder: Path) -> Checkpoint:
    """The state in a run's folder, to resume from. The folder is not trusted; ValueError says what is wrong with it."""
    content = _read_history(folder)
    run = _run(content)
    if not run.history:
        raise UserError("{file} is damaged: it has no epochs.", file=HISTORY_FILE)
    if _entry(content, "files", dict).keys() == {WEIGHTS_FILE}:
        raise UserError("This is an epoch in the middle of a published run; only its last one can be resumed.")
    weights = OptimizerLabModel.from_pretrained(folder).state_dict()
    # No optimizer here keeps more than three tensors a weight, to which a carried gradient may come.
    size = 4 * sum(tensor.numel() for tensor in weights.values())
    tensors = read_tensors(folder / TENSORS_FILE, at_most=4 * size)
    state, digests = _entry(content, "state", dict), _entry(content, "files", dict)
    if state.get("schedule_from") not in range(run.epoch + 1):
        raise UserError("{file} is damaged: its schedule has no beginning.", file=HISTORY_FILE)
    if not _is_sound("continued_with", state.get("continued_with")):
        raise UserError("{file} is damaged: it went on with settings that there are not.", file=HISTORY_FILE)
    for name in (WEIGHTS_FILE, TENSORS_FILE):
        if hashlib.sha256((folder / name).read_bytes()).hexdigest() != digests.get(name):
            raise UserError(
                "{file} is not the one that belongs to this run's {history}.", file=name, history=HISTORY_FILE
            )
    return Checkpoint(
        config=run.config,
        data=_data(content),
        history=tuple(run.history),
        weights=weights,
        tensors=tensors,
        state=state,
        curve=_within(run.curve, run.epoch),
    )


def read_run(folder: Path) -> Run:
    """The run as its folder tells it: curves and status; `interrupted` where it was left without a last word."""
    run = _run(_read_history(folder))
    if run.status == "training" and not _is_written(folder):
        run.status = "interrupted"
    return run


def read_facts(folder: Path) -> tuple[TrainConfig, Mapping[str, Any]]:
    """The settings of a run and the facts of its images: reads no tensors, and works while the run is being written."""
    content = _read_history(folder)
    return _run(content).config, _data(content)


def is_run(folder: Path) -> bool:
    """Whether a folder has at least the untrained network of a run; one that died before that can be begun again."""
    # In this order: a writer moves the file from the first place to the second, and may do so between the two looks.
    return os.path.exists(folder / _COMMITTED / HISTORY_FILE) or os.path.exists(folder / HISTORY_FILE)


def check_free(folder: Path, names: Iterable[str]) -> None:
    """ValueError where a folder has a run, or a file of one of these names."""
    if is_run(folder) or os.path.exists(folder / WEIGHTS_FILE):
        raise UserError("There is a checkpoint in {folder} already; choose another folder.", folder=folder)
    for name in names:
        if os.path.exists(folder / name):
            raise UserError(
                "There is a file {name} in {folder} already; choose another folder.", name=name, folder=folder
            )


def kept_epochs(folder: Path) -> dict[int, Path]:
    """The epochs whose weights a run's folder has kept, ascending, and the file of each."""
    paths = {path.stem.removeprefix("epoch-"): path for path in (folder / "epochs").glob("epoch-*.safetensors")}
    epochs = {int(digits): path for digits, path in paths.items() if re.fullmatch("[0-9]{4,9}", digits)}
    return dict(sorted(epochs.items()))


def pack(folder: Path) -> dict[str, bytes]:
    """The run's files as they go to the Hub, by name, all of one state, also while the run is being trained.

    Raises ValueError where they do not belong together.
    """
    for _ in range(_TRIES):
        try:
            files = {
                path.name: path.read_bytes() for path in folder.iterdir() if path.is_file() and path.name[0] != "."
            }
            digests = _entry(json.loads(files[HISTORY_FILE]), "files", dict)
        except (FileNotFoundError, KeyError):
            digests = None
        if digests and all(hashlib.sha256(files.get(name, b"")).hexdigest() == digests[name] for name in digests):
            return files
        time.sleep(0.02)  # between one file's move to its place and the next
    raise UserError("The run's files do not belong together: some are missing or damaged.")


def place(folder: Path, files: Mapping[str, bytes]) -> None:
    """Makes a run's folder of checked files, all or none; ValueError where there is a run, or such a file, already."""
    with writing(folder):
        check_free(folder, files)
        _put(folder, files)


def describe(folder: Path, files: Mapping[str, bytes]) -> None:
    """Puts card and picture into a run's folder; ValueError while it is being trained, or where the disk refuses."""
    with writing(folder):
        _put(folder, files)


def until(content: Mapping[str, Any], epoch: int, weights: bytes) -> bytes:
    """training.json of an earlier epoch, made from a later one's content: to look at, not to resume from."""
    return as_json(
        {
            **content,
            "status": "interrupted",
            **_advice_entry(""),
            "history": content["history"][: epoch + 1],
            "curve": _curve_entry(_within(_curve(content), epoch)),
            "state": {},
            "files": {WEIGHTS_FILE: hashlib.sha256(weights).hexdigest()},
        }
    )


def delete(folder: Path) -> None:
    """Removes a run for good; ValueError while it is being trained."""
    with writing(folder):
        for path in folder.iterdir():
            if path.name != _LOCK:
                shutil.rmtree(path) if path.is_dir() else path.unlink()
    shutil.rmtree(folder, ignore_errors=True)


def _without_epoch(content: Mapping[str, Any], run: Run, resume: Checkpoint | None) -> dict[str, bytes]:
    """What is to be written of a run in which no further epoch has ended, beside the `content` of training.json."""
    content = {**content, "status": run.status, **_advice_entry(run.advice)}
    if run.status == "diverged":  # within an epoch that no checkpoint will follow
        content["curve"] = _curve_entry(run.curve)
    if resume is None:
        return {HISTORY_FILE: as_json(content)}
    training = save(dict(resume.tensors))
    content["config"], content["state"] = resume.config.settings(), dict(resume.state)
    content["files"] = {**content["files"], TENSORS_FILE: hashlib.sha256(training).hexdigest()}
    return {TENSORS_FILE: training, HISTORY_FILE: as_json(content)}


def _files(run: Run, data: Mapping[str, Any], unsaved: list[CheckpointReady]) -> dict[str, bytes]:
    last = unsaved[-1]
    content = {
        "format": FORMAT,
        "config": run.config.settings(),
        "data": dict(data),
        "status": run.status,
        **_advice_entry(run.advice),
        "history": [json_fields(row) for row in run.history],
        "curve": _curve_entry(run.curve),
        "state": last.state,
        "files": {
            WEIGHTS_FILE: hashlib.sha256(last.model).hexdigest(),
            TENSORS_FILE: hashlib.sha256(last.training).hexdigest(),
        },
    }
    return {
        **{f"epochs/epoch-{ready.epoch:04d}.safetensors": ready.model for ready in unsaved},
        CONFIG_FILE: as_json(last.model_config),
        WEIGHTS_FILE: last.model,
        TENSORS_FILE: last.training,
        HISTORY_FILE: as_json(content),
        CARD_FILE: model_card(run, data, last.model_config).encode(),
    }


def _put(folder: Path, files: Mapping[str, bytes]) -> None:
    try:
        _commit(folder, files)
    except OSError as error:
        raise UserError("The folder cannot be written: {reason}.", reason=_reason(error)) from None


def _commit(folder: Path, files: Mapping[str, bytes]) -> None:
    _settle(folder)
    if not os.path.exists(folder / HISTORY_FILE):
        _sync_folder(folder.parent)  # the folder may be new itself
    staging = folder / _STAGING
    shutil.rmtree(staging, ignore_errors=True)
    try:
        for name, content in files.items():
            path = staging / name
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
        for directory in sorted({staging, *((staging / name).parent for name in files)}, reverse=True):
            _sync_folder(directory)
        staging.rename(folder / _COMMITTED)
    except OSError:
        shutil.rmtree(staging, ignore_errors=True)
        raise
    _sync_folder(folder)
    _settle(folder)


def _settle(folder: Path) -> None:
    committed = folder / _COMMITTED
    if not committed.is_dir():
        return
    changed = {folder}
    for path in sorted(committed.rglob("*")):
        if path.is_file():
            place = folder / path.relative_to(committed)
            place.parent.mkdir(exist_ok=True)
            path.replace(place)
            changed.add(place.parent)
    for directory in sorted(changed, reverse=True):
        _sync_folder(directory)
    shutil.rmtree(committed)


def _sync_folder(folder: Path) -> None:
    """Writes a folder's list of files to the disk, which syncing the files does not; where the system can do so."""
    if os.name == "nt":  # cannot open a folder
        return
    try:
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        if error.errno in _FAILURES:
            raise


def _is_written(folder: Path) -> bool:
    if not (folder / _LOCK).exists():
        return False
    lock = FileLock(folder / _LOCK, timeout=0)
    try:
        lock.acquire()
    except (Timeout, OSError):
        return True
    lock.release()
    return False


def _read_history(folder: Path) -> dict[str, Any]:
    if not folder.is_dir():
        raise UserError("There is no such run.")
    try:
        content = read_json(folder / _COMMITTED / HISTORY_FILE, at_most=LARGEST_HISTORY)
    except ValueError:
        # Not there, or moved to its place since the reading began.
        if os.path.exists(folder / _COMMITTED / HISTORY_FILE):
            raise
        content = read_json(folder / HISTORY_FILE, at_most=LARGEST_HISTORY)
    if content.get("format") != FORMAT:
        raise UserError("{file} was written by another version of this app, or by something else.", file=HISTORY_FILE)
    return content


def _run(content: Mapping[str, Any]) -> Run:
    rows = _entry(content, "history", list)
    try:
        history = [EpochEnded(**{part.name: row.get(part.name) for part in fields(EpochEnded)}) for row in rows]
    except AttributeError:
        raise UserError("{file} is damaged: an epoch is no object.", file=HISTORY_FILE) from None
    config = TrainConfig.from_settings(_entry(content, "config", dict))
    for number, row in enumerate(history):
        if (
            type(row.epoch) is not int
            or row.epoch != number
            or number > config.epochs
            or not all(_is_sound(name, value) for name, value in asdict(row).items())
        ):
            raise UserError(
                "{file} is damaged: its epochs are not in order, or have entries of another kind.",
                file=HISTORY_FILE,
            )
    status = content.get("status")
    if status not in STATUSES:
        raise UserError("{file} is damaged: its status is not one this app knows.", file=HISTORY_FILE)
    return Run(
        config=config,
        history=history,
        status=status,
        advice=_advice(content),
        curve=_curve(content),
    )


def _data(content: Mapping[str, Any]) -> dict[str, Any]:
    data = _entry(content, "data", dict)
    if not all(isinstance(data.get(name), str) for name in ("name", "digest")) or not all(
        value is None or isinstance(value, str) for value in data.values()
    ):
        raise UserError("{file} is damaged: its data is not told in words.", file=HISTORY_FILE)
    return data


def _advice_entry(advice: str) -> dict[str, Any]:
    """The advice as text and, for pages in other languages, as the message that it is."""
    return {"advice": advice, "advice_message": advice.to_json() if isinstance(advice, Message) else None}


def _advice(content: Mapping[str, Any]) -> str:
    text = str(content.get("advice", ""))[:_LONGEST_ADVICE]
    try:
        message = Message.from_json(content.get("advice_message"))
    except ValueError:
        return text
    return message if message == text else text


def _within(curve: Curve, epoch: int) -> Curve:
    """The curve up to an epoch's end, to go on from there: after a batch that broke the network, too."""
    points = [point for point in curve.points if point.epochs <= epoch]
    if math.isfinite(curve.total):
        return replace(curve, points=points)
    smoothed = [point.smoothed for point in points if math.isfinite(point.smoothed)]
    return replace(curve, points=points, total=smoothed[-1] if smoothed else 0.0, weight=1.0 if smoothed else 0.0)


def _curve_entry(curve: Curve) -> dict[str, Any]:
    """The curve for JSON, its points to the digits that a plot can show."""
    points = [[float(f"{value:.6g}") if math.isfinite(value) else None for value in point] for point in curve.points]
    return {**json_fields(replace(curve, points=[])), "points": points}


def _curve(content: Mapping[str, Any]) -> Curve:
    entry = _entry({"curve": _curve_entry(Curve()), **content}, "curve", dict)
    points, stride, total, weight = (entry.get(name) for name in ("points", "stride", "total", "weight"))
    rows = points if isinstance(points, list) and len(points) < 10_000 else [None]
    if (
        not all(isinstance(row, list) and len(row) == len(Point._fields) for row in rows)
        or not all(value is None or _is_number(value) for value in [*itertools.chain(*rows), total])
        or type(stride) is not int
        or not 1 <= stride < 2**31
        or not _is_number(weight)
        or not 0 <= weight <= 1
    ):
        raise UserError("{file} is damaged: its curve has entries of another kind.", file=HISTORY_FILE)
    *rows, (total,) = ([math.nan if value is None else value for value in row] for row in [*rows, [total]])
    return Curve(points=[Point(*row) for row in rows], stride=stride, total=total, weight=weight)


def _is_sound(name: str, value: Any) -> bool:
    if name == "continued_with":
        return value is None or (isinstance(value, dict) and value.keys() <= SETTINGS.keys())
    if value is None:
        return name in ("train_loss", "train_loss_sum", "lr", "grad_norm", "images_per_second")
    return _is_number(value) and (name != "test_accuracy" or 0 <= value <= 1)


def _is_number(value: Any) -> bool:
    return (type(value) is int and abs(value) < 2**53) or (type(value) is float and math.isfinite(value))


def _entry(content: Mapping[str, Any], name: str, kind: type) -> Any:
    if not isinstance(content.get(name), kind):
        raise UserError("{file} is damaged: it lacks {name}.", file=HISTORY_FILE, name=name)
    return content[name]


def as_json(content: Any) -> bytes:
    return json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False).encode()


def _reason(error: Exception) -> str:
    return (getattr(error, "strerror", None) or "the disk refused").lower()
