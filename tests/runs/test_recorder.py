"""The recorder saves each epoch of a run, whatever ends the run and whatever the disk does."""

import json
import resource
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file

from tests.runs.test_run_folder import content
from trainer.errors import UserError
from trainer.images.image_data import facts
from trainer.learning.checkpoint import continued, resumed
from trainer.learning.loop import train
from trainer.runs import run_folder
from trainer.runs.events import CheckpointReady, Finished, GpuTime, StepLogged
from trainer.runs.reader import read_checkpoint, read_run
from trainer.runs.recorder import Recorder, record, rename
from trainer.runs.run import Run
from trainer.settings.config import TrainConfig

CONFIG = TrainConfig(epochs=3, batch_size=8, scheduler="constant")
FILES = ["README.md", "config.json", "layers.json", "model.safetensors", "training.json", "training.safetensors"]


def test_the_files_of_a_run(tiny, trained):
    """The folder has six files and the weights after each epoch, including those of the untrained network."""
    folder, run = trained(CONFIG, tiny)
    assert sorted(content(folder)) == sorted([*FILES, *(f"epochs/epoch-{epoch:04d}.safetensors" for epoch in range(4))])
    assert not (folder / ".staging").exists()
    assert not (folder / ".committed").exists()
    last = load_file(folder / "epochs/epoch-0003.safetensors")
    assert all(torch.equal(tensor, last[name]) for name, tensor in load_file(folder / "model.safetensors").items())
    saved = json.loads((folder / "training.json").read_text())
    assert saved["data"] == facts(tiny)
    assert TrainConfig.from_settings(saved["config"]) == CONFIG
    assert [row["epoch"] for row in saved["history"]] == [0, 1, 2, 3]
    assert (saved["status"], run.status) == ("completed", "completed")


def test_a_checkpoint_is_yielded_after_it_is_saved(tiny, tmp_path):
    """A consumer of CheckpointReady can open the folder and finds that epoch."""
    run = Run(config=CONFIG)
    seen = []
    with run_folder.writing(tmp_path):
        for event in record(train(CONFIG, tiny), run, tmp_path, facts(tiny)):
            if isinstance(event, CheckpointReady):
                assert read_checkpoint(tmp_path).epoch == event.epoch
                seen.append(event.epoch)
    assert seen == [0, 1, 2, 3]


def test_an_epoch_is_written_once(tiny, trained, tmp_path):
    """A later commit does not write the weights of earlier epochs again, in a long run and in a resumed one."""
    places = [tmp_path / "run" / f"epochs/epoch-{epoch:04d}.safetensors" for epoch in range(3)]
    folder, _ = trained(CONFIG, tiny, until=2)
    before = [path.stat().st_ino for path in places]
    checkpoint = read_checkpoint(folder)
    trained(checkpoint.config, tiny, folder=folder, resume=checkpoint)
    assert [path.stat().st_ino for path in places] == before
    seen = set()
    with run_folder.writing(tmp_path / "other"):
        for event in record(train(CONFIG, tiny), Run(config=CONFIG), tmp_path / "other", facts(tiny)):
            if isinstance(event, CheckpointReady):
                seen.add((tmp_path / "other/epochs/epoch-0000.safetensors").stat().st_ino)
    assert len(seen) == 1


def test_a_stop_saves_every_epoch_that_has_ended(tiny, tmp_path):
    """Requested before the first epoch or between its row and its checkpoint, it ends the run at the next batch."""
    run = Run(config=CONFIG)
    with run_folder.writing(tmp_path):
        events = list(record(train(CONFIG, tiny), run, tmp_path, facts(tiny), stop=lambda: True))
    assert [type(event).__name__ for event in events] == ["EpochEnded", "CheckpointReady", "Finished"]
    assert events[-1] == Finished(reason="stopped")
    assert read_checkpoint(tmp_path).epoch == run.epoch == 0
    assert read_run(tmp_path).status == "stopped"


def test_divergence_leaves_the_last_good_epoch(tiny, trained):
    """The folder has the last state with a finite loss, the status and the advice."""
    folder, run = trained(replace(CONFIG, lr=1e4), tiny)
    again = read_run(folder)
    assert (again.status, again.advice) == ("diverged", run.advice)
    assert "an lr of 0.02" in again.advice
    assert read_checkpoint(folder).epoch == run.epoch < 3


@pytest.mark.parametrize("changes", [{}, {"optimizer": "adam", "scheduler": "constant"}, {"scheduler": "constant"}])
def test_a_resumed_run_that_is_interrupted_at_once(changes, tiny, trained):
    """A completed run becomes interrupted; its folder has the state and the settings that it was resumed with."""
    folder, _ = trained(TrainConfig(epochs=1, batch_size=8, scheduler="constant", weight_decay=0), tiny)
    checkpoint = read_checkpoint(folder)
    resumable = continued(checkpoint, epochs=5, changes=changes)
    events = record(
        train(resumable.config, tiny, resume=resumable),
        resumed(resumable),
        folder,
        facts(tiny),
        resume=resumable,
    )
    next(events)
    events.close()
    run = read_run(folder)
    assert (run.status, run.epoch, run.config) == ("interrupted", 1, resumable.config)
    again = read_checkpoint(folder)
    assert (again.config, again.state) == (run.config, resumable.state)
    assert again.tensors.keys() == resumable.tensors.keys()
    assert again.continued_with == (changes or None)


def test_the_number_of_threads_is_recorded(tiny, trained):
    """A resume with another one gets a notice once an epoch has ended, wherever it trains; old files have none."""
    folder, run = trained(replace(CONFIG, epochs=1), tiny)
    checkpoint = read_checkpoint(folder)
    assert (checkpoint.threads, run.notice) == (torch.get_num_threads(), "")
    for before, expected in ((checkpoint.threads, ""), (None, ""), (99, "with 99 threads before and goes on with")):
        state = {**checkpoint.state, "threads": before}
        again = continued(replace(checkpoint, state=state), epochs=2, changes={})
        recorder = Recorder(run=resumed(again), folder=folder, data=facts(tiny), resume=again)
        for event in train(again.config, tiny, resume=again):
            recorder.record(event)
        assert expected in recorder.run.notice if expected else not recorder.run.notice


def test_waiting_for_a_gpu_saves_nothing(tiny, trained):
    """The GPU may still refuse the settings; a run that is stopped while it waits saves them."""
    folder, _ = trained(replace(CONFIG, epochs=1), tiny)
    resumable = continued(read_checkpoint(folder), epochs=2, changes={"lr": 0.5})
    before = content(folder)
    recorder = Recorder(run=resumed(resumable), folder=folder, data=facts(tiny), resume=resumable)
    recorder.record(GpuTime(used_seconds=0, left_seconds=1))
    assert content(folder) == before
    recorder.record(Finished(reason="stopped"))
    checkpoint = read_checkpoint(folder)
    assert (checkpoint.config, checkpoint.continued_with) == (resumable.config, {"lr": 0.5})


@pytest.mark.parametrize("keeps_all", [False, True])
def test_which_epochs_keep_their_weights(keeps_all, tiny, trained, monkeypatch):
    """Of a long run the untrained, the best and the last, and some others; all if that was requested, also for the
    epochs of a resume."""
    monkeypatch.setattr(run_folder, "MOST_EPOCHS", 2)
    config = replace(CONFIG, epochs=6, batch_size=26)
    folder, run = trained(config, tiny, keeps_all=keeps_all, until=5)
    checkpoint = read_checkpoint(folder)
    folder, run = trained(config, tiny, folder=folder, resume=checkpoint)
    kept = set(run_folder.saved_epochs(folder))
    if keeps_all:
        assert kept == set(range(7))
    else:
        assert {0, 1, run.best.epoch, 6} <= kept
        assert len(kept - {0, run.best.epoch, 6}) == 2


# --- full disks


def test_a_full_disk_ends_no_run(tiny, tmp_path):
    """A limit on the size of files stops the saves: there is a warning, the old state is intact, and the missed epoch
    is saved after the limit is lifted."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    run = Run(config=CONFIG)
    saved, warnings = [], {}
    try:
        with run_folder.writing(tmp_path):
            for event in record(train(CONFIG, tiny), run, tmp_path, facts(tiny)):
                if isinstance(event, CheckpointReady):
                    saved.append(event.epoch)
                    if event.epoch == 1:
                        before = content(tmp_path)
                        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
                if isinstance(event, StepLogged) and event.epoch == 3 and 3 not in warnings:
                    resource.setrlimit(resource.RLIMIT_FSIZE, limits)
                    warnings[3] = run.warning
                    assert content(tmp_path) == before
                    assert read_checkpoint(tmp_path).epoch == 1
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert "could not be saved" in warnings[3]
    assert "It continues" in warnings[3]
    assert saved == [0, 1, 3]
    assert (run.warning, run.status) == ("", "completed")
    assert read_checkpoint(tmp_path).epoch == 3
    assert {f"epochs/epoch-{epoch:04d}.safetensors" for epoch in range(4)} <= content(tmp_path).keys()


def test_a_disk_that_stays_full_takes_no_more_memory(tiny, tmp_path, monkeypatch):
    """Of the missed epochs, the last stays in memory and of the three before it the weights; they are saved as soon as
    the disk accepts them."""
    config = replace(CONFIG, epochs=12)
    recorder = Recorder(run=Run(config=config), folder=tmp_path, data=facts(tiny))
    events = train(config, tiny)

    def refuse(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(run_folder, "commit", refuse)
        for event in events:
            recorder.record(event)
            if isinstance(event, CheckpointReady):
                unsaved = recorder._unsaved
                assert unsaved[-1] is event
                assert [ready.epoch for ready in unsaved] == list(range(max(0, event.epoch - 3), event.epoch + 1))
                assert [bool(ready.training) for ready in unsaved] == [False] * (len(unsaved) - 1) + [True]
                if event.epoch == 11:
                    break
    assert "its latest state is saved as soon as" in recorder.run.warning
    for event in events:
        recorder.record(event)
    assert read_checkpoint(tmp_path).epoch == 12
    assert list(run_folder.saved_epochs(tmp_path)) == [9, 10, 11, 12]
    assert recorder.run.warning == ""


def test_a_disk_that_stays_full_leaves_the_last_state(tiny, tmp_path):
    """The run ends with its warning, and the state that was saved before is intact."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    run = Run(config=CONFIG)
    try:
        with run_folder.writing(tmp_path):
            for event in record(train(CONFIG, tiny), run, tmp_path, facts(tiny)):
                if isinstance(event, CheckpointReady) and event.epoch == 1:
                    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert run.status == "completed"
    assert run.warning.endswith(". What was saved before is still there.")
    assert read_checkpoint(tmp_path).epoch == 1
    assert read_run(tmp_path).status == "interrupted"


def test_a_disk_that_was_always_full(tiny, tmp_path):
    """The folder has no files, and the warning says so."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    run = Run(config=CONFIG)
    with run_folder.writing(tmp_path):
        try:
            resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
            assert CheckpointReady not in map(type, record(train(CONFIG, tiny), run, tmp_path, facts(tiny)))
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert run.warning == "The run could not be saved: file too large. Nothing has been saved."
    assert content(tmp_path) == {}


HOSTILE = ["x" * 5000, "a" * 61, "two\0", "\u202erun", 7, None]


def test_a_run_keeps_its_name(tiny, trained):
    """In training.json and on its card, through a resume and an interruption of it, until it is renamed."""
    folder, _ = trained(CONFIG, tiny, until=1)
    rename(folder, "  My\n<b>run</b> ")
    assert read_run(folder).name == "My <b>run</b>"
    assert "\n# My &lt;b&gt;run&lt;/b&gt;: quick by sgd, constant\n" in (folder / "README.md").read_text().replace(
        "\\", ""
    )
    checkpoint = read_checkpoint(folder)
    with run_folder.writing(folder):
        list(
            record(train(CONFIG, tiny, resume=checkpoint), resumed(checkpoint), folder, facts(tiny), resume=checkpoint)
        )
    assert (read_run(folder).name, read_run(folder).epoch) == ("My <b>run</b>", 3)
    rename(folder, "")
    assert read_run(folder).name == ""
    assert "My" not in (folder / "README.md").read_text()


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_name_is_refused(tiny, trained, name):
    """When a run is renamed, and in the file of a stranger; the run stays as it was."""
    folder, _ = trained(CONFIG, tiny, until=1)
    before = content(folder)
    with pytest.raises(UserError, match="name"):
        rename(folder, name)
    assert content(folder) == before
    saved = json.loads((folder / "training.json").read_text())
    (folder / "training.json").write_text(json.dumps({**saved, "name": name}))
    with pytest.raises(UserError, match="name"):
        read_run(folder)


@pytest.mark.slow
def test_a_run_in_training_cannot_be_renamed(tiny, trained):
    """Its writer would lose the name at the next epoch."""
    folder, _ = trained(CONFIG, tiny, until=1)
    with run_folder.writing(folder), pytest.raises(UserError, match="is being trained"):
        rename(folder, "mine")
